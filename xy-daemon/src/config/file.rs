//! Reading a configuration file that can be trusted: of bounded size, and written by nobody but root and us.
//!
//! Whoever can write a server file runs programs as us.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;
use xy_actors::process::settings::trust::{self, Distrusted};

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
            trust_directory(directory, trust).map_err(|found| vec![distrusted(&found, shown)])?;
        }
        trust::examine(&metadata, path).map_err(|found| vec![distrusted(&found, shown)])?;
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
    match trust {
        Trust::Unchecked => Ok(()),
        // Whoever may put files there could put a server there, sticky bit or not.
        Trust::Checked => trust::examine_directory(directory, false),
    }
}

/// Returns what is wrong with an owner or a mode as an error of one file.
pub(super) fn distrusted(found: &Distrusted, shown: &Path) -> ConfigError {
    ConfigError::of_file(shown, found.problem.clone()).with_hint(found.hint.clone())
}
