//! The user and group a process runs as: a name or number -> ids, groups, home and shell.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};

/// Somebody as whom a process can run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The login name; `None` for a number without an entry.
    pub name: Option<String>,
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// The home directory; `None` for a number without an entry.
    pub home: Option<PathBuf>,
    /// The login shell; `None` for a number without an entry, or if the entry names none.
    pub shell: Option<PathBuf>,
    /// Whether this is who we are, so that nothing has to change.
    pub is_ours: bool,
}

/// Why a process cannot run as somebody.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is no such user.
    #[error("there is no user `{0}`: create it, or correct `user`")]
    UnknownUser(String),
    /// There is no such group.
    #[error("there is no group `{0}`: create it, or correct `group`")]
    UnknownGroup(String),
    /// The number has no entry, and so no group of its own.
    #[error("user `{0}` has no entry in the user database: name its group in `group`")]
    NoGroup(u32),
    /// We are not root, and it is somebody else.
    #[error(
        "only root can run processes as user {uid} and group {gid}: remove `user` and `group`, or run as root"
    )]
    NotPrivileged {
        /// The user's number.
        uid: u32,
        /// The group's number.
        gid: u32,
    },
    /// The user database did not answer.
    #[error("cannot look up `{name}` in the user database")]
    Lookup {
        /// The user or group.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Identity {
    /// Looks up as whom a process with these settings runs; `None` if neither is given.
    ///
    /// A name wins over a number that looks like it. With a `group` alone the user stays ours, and that group is the only
    /// one. Blocking: the user database may be on another machine.
    ///
    /// # Errors
    /// If there is no such user or group, or we are not allowed to become it.
    pub fn look_up(user: Option<&str>, group: Option<&str>) -> Result<Option<Self>, IdentityError> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        let own = (Uid::effective(), Gid::effective());
        let entry = user.map(find_user).transpose()?;
        let uid = match &entry {
            None => own.0,
            Some(Found::Entry(entry)) => entry.uid,
            Some(Found::Number(uid)) => Uid::from_raw(*uid),
        };
        let gid = match (group, &entry) {
            (Some(group), _) => find_group(group)?,
            (None, Some(Found::Entry(entry))) => entry.gid,
            (None, _) => return Err(IdentityError::NoGroup(uid.as_raw())),
        };
        let is_ours = (uid, gid) == own;
        if !is_ours && !own.0.is_root() {
            return Err(IdentityError::NotPrivileged { uid: uid.as_raw(), gid: gid.as_raw() });
        }
        let entry = match entry {
            Some(Found::Entry(entry)) => Some(entry),
            Some(Found::Number(_)) => None,
            // With a group alone, the variables still are those of the user we are.
            None => User::from_uid(uid).ok().flatten(),
        };
        let groups = match &entry {
            Some(entry) if user.is_some() => groups_of(entry, gid)?,
            _ => vec![gid.as_raw()],
        };
        Ok(Some(Self {
            uid: uid.as_raw(),
            gid: gid.as_raw(),
            groups,
            home: entry.as_ref().map(|entry| entry.dir.clone()),
            shell: entry
                .as_ref()
                .map(|entry| entry.shell.clone())
                .filter(|shell| !shell.as_os_str().is_empty()),
            name: entry.map(|entry| entry.name),
            is_ours: is_ours && !own.0.is_root(),
        }))
    }

    /// Looks up who we are; `None` without an entry in the user database. Blocking, as [`look_up`](Self::look_up).
    pub(in super::super) fn own() -> Option<Self> {
        let entry = User::from_uid(Uid::effective()).ok().flatten()?;
        Some(Self {
            name: Some(entry.name),
            uid: entry.uid.as_raw(),
            gid: entry.gid.as_raw(),
            groups: Vec::new(),
            home: Some(entry.dir),
            shell: Some(entry.shell).filter(|shell| !shell.as_os_str().is_empty()),
            is_ours: true,
        })
    }
}

enum Found {
    Entry(User),
    Number(u32),
}

fn failed(name: &str, error: Errno) -> IdentityError {
    IdentityError::Lookup { name: name.to_owned(), source: error.into() }
}

fn find_user(name: &str) -> Result<Found, IdentityError> {
    if let Some(entry) = User::from_name(name).map_err(|error| failed(name, error))? {
        return Ok(Found::Entry(entry));
    }
    let number = number(name).ok_or_else(|| IdentityError::UnknownUser(name.to_owned()))?;
    let entry = User::from_uid(Uid::from_raw(number)).map_err(|error| failed(name, error))?;
    Ok(entry.map_or(Found::Number(number), Found::Entry))
}

fn find_group(name: &str) -> Result<Gid, IdentityError> {
    if let Some(entry) = Group::from_name(name).map_err(|error| failed(name, error))? {
        return Ok(entry.gid);
    }
    number(name).map(Gid::from_raw).ok_or_else(|| IdentityError::UnknownGroup(name.to_owned()))
}

/// Parses a plain number; the largest one means "leave as it is" to the system calls, and nobody has it.
fn number(name: &str) -> Option<u32> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_digit());
    name.parse().ok().filter(|number| is_plain && *number != u32::MAX)
}

#[cfg(not(target_vendor = "apple"))]
fn groups_of(entry: &User, gid: Gid) -> Result<Vec<u32>, IdentityError> {
    let unknown = || IdentityError::UnknownUser(entry.name.clone());
    let name = CString::new(entry.name.as_str()).map_err(|_| unknown())?;
    let groups = nix::unistd::getgrouplist(&name, gid).map_err(|error| failed(&entry.name, error))?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}

/// Membership is a question to a service here, which a child between fork and exec cannot ask; the group itself is it.
#[cfg(target_vendor = "apple")]
fn groups_of(_entry: &User, gid: Gid) -> Result<Vec<u32>, IdentityError> {
    Ok(vec![gid.as_raw()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_named_if_nobody_is_asked_for() {
        assert!(Identity::look_up(None, None).expect("no lookup").is_none());
    }

    #[test]
    fn a_name_and_its_number_are_the_same_user() {
        let by_name = Identity::look_up(Some("root"), None);
        let by_number = Identity::look_up(Some("0"), None);
        if Uid::effective().is_root() {
            let (by_name, by_number) = (by_name.expect("known"), by_number.expect("known"));
            assert_eq!(by_name, by_number);
            assert_eq!(by_name.and_then(|identity| identity.name), Some("root".to_owned()));
        } else {
            assert!(matches!(by_name, Err(IdentityError::NotPrivileged { uid: 0, .. })));
            assert!(matches!(by_number, Err(IdentityError::NotPrivileged { uid: 0, .. })));
        }
    }

    #[test]
    fn what_does_not_exist_is_told_by_name() {
        for (user, group, text) in [
            (Some("no such"), None, "there is no user `no such`"),
            (Some("-1"), None, "there is no user `-1`"),
            (Some("4294967295"), None, "there is no user `4294967295`"),
            (None, Some("no such"), "there is no group `no such`"),
            (Some("3999999999"), None, "user `3999999999` has no entry"),
        ] {
            let error = Identity::look_up(user, group).expect_err(text);
            assert!(error.to_string().starts_with(text), "{error}");
        }
    }
}
