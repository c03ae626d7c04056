//! Reading a configuration file that can be trusted: of bounded size, and written by nobody but root and us.
//!
//! Whoever can write a server file runs programs as us.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::{Gid, Group, Uid, User};

use super::error::ConfigError;

/// The largest file that is read.
const LARGEST: u64 = 1 << 20;

/// Whether the owners and modes of configuration files are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// Files and their directory must belong to root or us and be writable by nobody else.
    ///
    /// A group may write only if it is the owner's private one. For root, every parent directory is checked too;
    /// a sticky one may be shared.
    #[default]
    Checked,
    /// Not checked, for a directory that the operator vouches for.
    Unchecked,
}

/// Reads a file's text.
///
/// # Errors
/// Says why it is not read, as a list of one: absent, unreadable, no regular file, too large, not trusted, not UTF-8.
pub(super) fn read(path: &Path, shown: &Path, trust: Trust) -> Result<String, Vec<ConfigError>> {
    let fail = |message: String| vec![ConfigError::of_file(shown, message)];
    let file = open(path).map_err(|error| match path.symlink_metadata() {
        Ok(link) if link.is_symlink() && error.kind() == io::ErrorKind::NotFound => {
            fail("is a symbolic link to a file that does not exist".to_owned())
        }
        _ => fail(format!("cannot be opened: {}", without_code(&error))),
    })?;
    let metadata =
        file.metadata().map_err(|error| fail(format!("cannot be examined: {}", without_code(&error))))?;
    if metadata.is_dir() {
        return Err(fail("is a directory, expected a file".to_owned()));
    }
    if !metadata.is_file() {
        return Err(fail("is not a regular file".to_owned()));
    }
    if trust == Trust::Checked {
        // A link must not lead out into a directory where others can exchange what it leads to.
        if path.is_symlink()
            && let Some(directory) = path.canonicalize().ok().as_deref().and_then(Path::parent)
        {
            trust_directory(directory, trust).map_err(|found| vec![found.of(shown)])?;
        }
        examine(&metadata, path).map_err(|found| vec![found.of(shown)])?;
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fail(format!("cannot be read: {}", without_code(&error))))?;
    if bytes.len() as u64 > LARGEST {
        return Err(fail("is larger than 1 MiB".to_owned()));
    }
    String::from_utf8(bytes)
        .map(|text| match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        })
        .map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            let start = valid.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let column = String::from_utf8_lossy(&valid[start..]).chars().count() + 1;
            let error = ConfigError::of_file(shown, "is not UTF-8 text");
            vec![ConfigError { line: Some(line), column: Some(column), ..error }]
        })
}

/// Opens without waiting: a FIFO would otherwise block until somebody writes to it.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

/// Returns an I/O error's text without the number that std appends.
pub(super) fn without_code(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut characters = text.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

/// Checks a directory of configuration files and, for root, every directory above it.
///
/// # Errors
/// Says what is wrong and what helps; it spoils every file in the directory.
pub(super) fn trust_directory(directory: &Path, trust: Trust) -> Result<(), Distrusted> {
    if trust == Trust::Unchecked {
        return Ok(());
    }
    // The directory that holds the file decides, not a link to it. One that cannot be reached yields no files either.
    let Ok(real) = directory.canonicalize() else { return Ok(()) };
    if let Ok(metadata) = real.metadata() {
        examine(&metadata, &real)
            .map_err(|found| Distrusted { problem: format!("its directory {}", found.problem), ..found })?;
    }
    if Uid::effective().is_root() {
        for parent in real.ancestors().skip(1) {
            let Ok(metadata) = parent.metadata() else { continue };
            let sticky = metadata.mode() & 0o1000 != 0;
            if !sticky {
                examine(&metadata, parent).map_err(|found| Distrusted {
                    problem: format!("directory `{}` {}", parent.display(), found.problem),
                    ..found
                })?;
            }
        }
    }
    Ok(())
}

/// What is wrong with an owner or a mode, and what helps.
#[derive(Debug, Clone)]
pub(super) struct Distrusted {
    problem: String,
    hint: String,
}

impl Distrusted {
    /// Returns it as an error of one file.
    pub(super) fn of(&self, shown: &Path) -> ConfigError {
        ConfigError::of_file(shown, self.problem.clone()).with_hint(self.hint.clone())
    }
}

/// Checks owner and mode.
fn examine(metadata: &Metadata, path: &Path) -> Result<(), Distrusted> {
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

/// Why a file is not trusted.
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
