//! Whether a file that decides what runs here is in the right hands: written by nobody but root and us.
//!
//! Whoever can write a configuration or environment file runs programs as us. The rule: it belongs to root or to us; others
//! cannot write it; a group can write it only if it is the owner's private one. The same holds for the directory it is
//! in, and for root for every directory above, where a sticky one may be shared.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

/// Why a file or directory is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {hint}")]
#[non_exhaustive]
pub struct Distrusted {
    /// What is wrong.
    pub problem: String,
    /// What helps.
    pub hint: String,
}

/// Checks the directory a file is in and, for root, every directory above it.
///
/// With `may_be_sticky` the directory itself may be a shared one in which nobody can replace another's files, such as
/// `/tmp`; without, nobody else may be able to put new files there.
///
/// # Errors
/// Says what is wrong and what helps; it spoils every file in the directory.
pub fn examine_directory(directory: &Path, may_be_sticky: bool) -> Result<(), Distrusted> {
    // The directory that holds the file decides, not a link to it. One that cannot be reached yields no files either.
    let Ok(real) = directory.canonicalize() else { return Ok(()) };
    let is_sticky = |metadata: &Metadata| metadata.mode() & 0o1000 != 0;
    if let Ok(metadata) = real.metadata()
        && !(may_be_sticky && is_sticky(&metadata))
    {
        examine(&metadata, &real)
            .map_err(|found| Distrusted { problem: format!("its directory {}", found.problem), ..found })?;
    }
    if Uid::effective().is_root() {
        for parent in real.ancestors().skip(1) {
            let Ok(metadata) = parent.metadata() else { continue };
            if !is_sticky(&metadata) {
                examine(&metadata, parent).map_err(|found| Distrusted {
                    problem: format!("directory `{}` {}", parent.display(), found.problem),
                    ..found
                })?;
            }
        }
    }
    Ok(())
}

/// Checks owner and mode.
///
/// # Errors
/// Says what is wrong and what helps.
pub fn examine(metadata: &Metadata, path: &Path) -> Result<(), Distrusted> {
    let facts = Facts {
        owner: metadata.uid(),
        mode: metadata.mode(),
        // Asking the user database can be slow, and it matters only if the group may write.
        group_is_private: metadata.mode() & 0o020 != 0
            && is_private(Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid())),
    };
    let us = Uid::effective();
    let (problem, hint) = match distrust(&facts, us.as_raw()) {
        None => return Ok(()),
        Some(Distrust::Owner) => (
            format!("belongs to user {}, expected root or user {us}", metadata.uid()),
            format!("`chown {us} {}` if you trust its content", path.display()),
        ),
        Some(Distrust::Others) => {
            ("is writable by everybody".to_owned(), format!("`chmod o-w {}`", path.display()))
        }
        Some(Distrust::Group) => {
            (format!("is writable by group {}", metadata.gid()), format!("`chmod g-w {}`", path.display()))
        }
    };
    Err(Distrusted { problem, hint })
}

/// What decides about a file.
#[derive(Debug, Clone, Copy)]
struct Facts {
    owner: u32,
    mode: u32,
    group_is_private: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distrust {
    Owner,
    Others,
    Group,
}

/// The rule.
fn distrust(facts: &Facts, us: u32) -> Option<Distrust> {
    if facts.owner != 0 && facts.owner != us {
        Some(Distrust::Owner)
    } else if facts.mode & 0o002 != 0 {
        Some(Distrust::Others)
    } else if facts.mode & 0o020 != 0 && !facts.group_is_private {
        Some(Distrust::Group)
    } else {
        None
    }
}

/// Returns whether a group has nobody in it but this user: it is the user's primary group, has the user's name, and
/// lists no other member. Users unknown to the system (containers) get the benefit of equal numbers.
fn is_private(owner: Uid, group: Gid) -> bool {
    let user = User::from_uid(owner).ok().flatten();
    let entry = Group::from_gid(group).ok().flatten();
    match (user, entry) {
        (Some(user), Some(entry)) => {
            user.gid == group
                && entry.name == user.name
                && entry.mem.iter().all(|member| *member == user.name)
        }
        (None, None) => owner.as_raw() == group.as_raw(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_root_and_us_that_nobody_else_can_write_are_trusted() {
        for (owner, mode, group_is_private, expected) in [
            (1000, 0o644, false, None),
            (0, 0o644, false, None),
            (1001, 0o600, true, Some(Distrust::Owner)),
            (1000, 0o646, true, Some(Distrust::Others)),
            (1000, 0o664, true, None),
            (1000, 0o664, false, Some(Distrust::Group)),
            (0, 0o666, true, Some(Distrust::Others)),
        ] {
            let facts = Facts { owner, mode, group_is_private };
            assert_eq!(distrust(&facts, 1000), expected, "{facts:?}");
        }
    }
}
