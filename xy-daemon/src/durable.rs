//! Files that survive the loss of power: written whole, on the disk, and only then in the place of the old one.
//!
//! At each moment, whatever happens to the program or the machine, the path has the old content or the new one. A flush that
//! fails is a write that failed, and is never tried again on the same descriptor: the system may have thrown away what it
//! could not write, and say of the next flush that all is well.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Replaces a file by one of mode 0600, by way of a temporary file beside it, which nobody else may use.
///
/// # Errors
/// What the system said. The path has the old content then; or the new one, which a loss of power may still undo, if only
/// the directory could not be flushed.
pub(crate) fn replace(path: &Path, temporary: &Path, content: &[u8]) -> io::Result<()> {
    let renamed = write(temporary, 0o600, content).and_then(|()| fs::rename(temporary, path));
    if renamed.is_err() {
        // What made the rest fail may make this fail, too.
        _ = fs::remove_file(temporary);
    }
    renamed?;
    flush_directory_of(path)
}

/// Creates a file that is not there yet.
///
/// # Errors
/// What the system said, [`io::ErrorKind::AlreadyExists`] if there is one.
pub(crate) fn create(path: &Path, temporary: &Path, content: &[u8]) -> io::Result<()> {
    // Unlike a rename, a link does not replace what somebody else has written meanwhile.
    let linked = write(temporary, 0o666, content).and_then(|()| fs::hard_link(temporary, path));
    // Left behind, it is replaced by the next one.
    _ = fs::remove_file(temporary);
    linked?;
    flush_directory_of(path).inspect_err(|_| {
        // Whoever is told that there is none must not find one.
        _ = fs::remove_file(path);
    })
}

/// Returns the path of the temporary file beside one that a single daemon writes to, since it holds the directory's lock.
/// What an earlier one has left there is replaced.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn write(temporary: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode).custom_flags(nix::libc::O_NOFOLLOW);
    let mut file = options.open(temporary)?;
    file.write_all(content)?;
    file.sync_all()
}

fn flush_directory_of(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        // What a daemon that died has left.
        fs::write(temporary(&path), "half").unwrap();
        for content in ["one", "two"] {
            replace(&path, &temporary(&path), content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_replaced_stays_and_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, &temporary(&path), b"new").is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_in_the_place_of_the_temporary_file_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, victim) = (directory.path().join("state"), directory.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, temporary(&path)).unwrap();
        replace(&path, &temporary(&path), b"new").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn a_file_that_is_there_is_not_created_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.ron");
        create(&path, &temporary(&path), b"one").unwrap();
        let error = create(&path, &temporary(&path), b"two").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
