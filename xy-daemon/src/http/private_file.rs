//! Files that nobody else may read, replaced in one step.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::durable;

/// More than this is in none of our files.
const LONGEST: u64 = 64 << 10;

/// Why a private file was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateFileError {
    /// Others could put another file in its place.
    #[error("the directory `{}` is not only ours to write to", .0.display())]
    Directory(PathBuf),
    /// Others could read it or have written it.
    #[error("`{}` must be a file of ours with mode 600", .0.display())]
    NotPrivate(PathBuf),
    /// The system refused something.
    #[error("`{}` cannot be used", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Replaces a file by another one of mode 0600. Whoever reads it sees the old content or the new one, never less.
///
/// # Errors
/// The directory is not ours alone to write to, or the system refused something.
pub fn write(path: &Path, content: &[u8]) -> Result<(), PrivateFileError> {
    let failed = |source| PrivateFileError::Io { path: path.to_owned(), source };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let metadata = std::fs::metadata(directory).map_err(failed)?;
    if metadata.uid() != nix::unistd::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        return Err(PrivateFileError::Directory(directory.to_owned()));
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Another daemon may have been given the same file.
    let number = getrandom::u64().map_err(|error| failed(io::Error::other(error)))?;
    name.push(format!(".{number:016x}.new"));
    let temporary = directory.join(name);
    durable::replace(path, &temporary, content).map_err(failed)
}

/// Reads a file that [`write()`] has made, or that somebody has made as carefully.
///
/// # Errors
/// It is a link, belongs to somebody else, others may read it, it is too long, or the system refused something.
pub fn read(path: &Path) -> Result<Vec<u8>, PrivateFileError> {
    let failed = |source| PrivateFileError::Io { path: path.to_owned(), source };
    let file: File = OpenOptions::new()
        .read(true)
        // A pipe of that name must not make us wait.
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let is_ours = metadata.uid() == nix::unistd::geteuid().as_raw();
    if !metadata.is_file() || !is_ours || metadata.mode() & 0o077 != 0 || metadata.len() > LONGEST {
        return Err(PrivateFileError::NotPrivate(path.to_owned()));
    }
    let mut content = Vec::new();
    file.take(LONGEST).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

/// Reads what was written as JSON; `None` if there is no such file. One that cannot be read, or that `check` refuses, is renamed
/// to `aside`, and `loss` says in the log what that means.
pub(crate) fn read_or_set_aside<T: DeserializeOwned>(
    path: &Path,
    aside: &Path,
    loss: &str,
    check: impl FnOnce(&T) -> Result<(), &'static str>,
) -> Option<T> {
    let value = match read(path) {
        Ok(text) => serde_json::from_slice::<T>(&text)
            .map_err(|error| error.to_string())
            .and_then(|value| check(&value).map(|()| value).map_err(str::to_owned)),
        Err(PrivateFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Err(error.to_string()),
    };
    value
        .inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "{loss}");
            // If that fails too, the next writing overwrites it.
            _ = std::fs::rename(path, aside);
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        directory
    }

    #[test]
    fn a_file_is_private_from_its_first_moment_and_nothing_else_is_left() {
        let directory = directory();
        let path = directory.path().join("token");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_replaced_by_the_file_and_not_followed() {
        let directory = directory();
        let (path, victim) = (directory.path().join("token"), directory.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &path).unwrap();
        assert!(matches!(read(&path), Err(PrivateFileError::Io { .. })));
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let directory = directory();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = write(&directory.path().join("token"), b"x");
        assert!(matches!(refused, Err(PrivateFileError::Directory(_))), "{refused:?}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = directory();
        let path = directory.path().join("token");
        fs::write(&path, "x").unwrap();
        for mode in [0o640, 0o604, 0o620, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read(&path), Err(PrivateFileError::NotPrivate(_))), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&path).unwrap(), b"x");
        assert!(matches!(read(directory.path()), Err(PrivateFileError::NotPrivate(_))));
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_the_old_one() {
        let directory = directory();
        let path = directory.path().join("token");
        fs::create_dir(&path).unwrap();
        assert!(write(&path, b"x").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
