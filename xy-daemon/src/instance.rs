//! Locks that are held for life, so that one daemon at a time owns a state directory or a socket.
//!
//! The lock is the kernel's and goes with its holder, however that ends; the file itself says nothing and is never
//! removed. The process id in it is for people.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The name of the lock in the state directory.
pub const LOCK_NAME: &str = "xyd.lock";

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another instance holds it.
    #[error("another instance is running{} and holds `{}`", Holder(*pid), path.display())]
    AlreadyRunning {
        /// The lock file.
        path: PathBuf,
        /// The holder's process id as it wrote it; for display only.
        pid: Option<u32>,
    },
    /// The state directory could be changed by other users.
    #[error("the directory `{}` belongs to another user or others may write to it", path.display())]
    NotPrivate {
        /// The directory.
        path: PathBuf,
    },
    /// The directory or the lock file could not be used.
    #[error("the lock `{}` could not be used", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

struct Holder(Option<u32>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |pid| write!(f, " (pid {pid})"))
    }
}

/// Says that what a process holds is to stay as it is, whoever drops it: another program of the process goes on with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keep(Arc<AtomicBool>);

impl Keep {
    /// Creates one that is set.
    pub(crate) fn set() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Sets it or takes it back.
    pub(crate) fn store(&self, keeps: bool) {
        self.0.store(keeps, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A locked file. The lock ends when the value is dropped or its process ends; programs that the process executes do not
/// inherit it.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
    keep: Keep,
}

impl LockFile {
    /// Takes the lock without waiting.
    pub(crate) fn acquire(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = read_pid(&mut file);
                return Err(LockError::AlreadyRunning { path: path.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // A disk that is full must not keep the daemon from running: the text is for people.
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "the process id was not written to the lock");
        }
        Ok(Self { file, keep: Keep::default() })
    }

    /// Goes on with the lock of an earlier program of this process, or with another handle of it.
    pub(crate) fn taken_up(file: OwnedFd, keep: Keep) -> Self {
        Self { file: file.into(), keep }
    }

    /// Returns another descriptor of the lock.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from)
    }

    pub(crate) fn keep(&self) -> &Keep {
        &self.keep
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if self.keep.is_set() {
            return;
        }
        // Closing alone is not enough: a program that is being executed right now closes its copy of the descriptor a
        // moment after the spawning thread goes on, and holds the lock until then.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "a lock was not given up");
        }
    }
}

/// Looks whether a daemon owns a state directory; returns the process id that it wrote, if it could be read.
///
/// The answer may be outdated when it arrives.
///
/// # Errors
///
/// The lock file exists and cannot be looked at.
pub fn holder(state: &Path) -> io::Result<Option<Option<u32>>> {
    let mut file = match File::open(state.join(LOCK_NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // A daemon that starts at this very moment waits longer than this lock is held.
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| None),
        Err(TryLockError::WouldBlock) => Ok(Some(read_pid(&mut file))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The right to be the one daemon of a state directory.
#[derive(Debug)]
pub struct InstanceLock {
    lock: LockFile,
}

impl InstanceLock {
    /// Takes `xyd.lock` in the state directory, which is created (mode 0700) if it is missing.
    ///
    /// # Errors
    ///
    /// [`LockError::AlreadyRunning`] if another instance holds the lock; otherwise the directory is not private or
    /// cannot be used.
    pub fn acquire(state: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: state.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(failed)?;
        // Unlike the socket's directory this one may be a symbolic link, as people do with state on another disk.
        let metadata = std::fs::metadata(state).map_err(failed)?;
        if metadata.uid() != nix::unistd::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            return Err(LockError::NotPrivate { path: state.to_owned() });
        }
        Ok(Self { lock: LockFile::acquire(&state.join(LOCK_NAME))? })
    }

    /// Goes on with the lock of an earlier program of this process.
    pub(crate) fn taken_up(lock: OwnedFd, keep: Keep) -> Self {
        Self { lock: LockFile::taken_up(lock, keep) }
    }

    /// Returns another descriptor of the lock, for the next program of this process.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        self.lock.share()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_lock_is_refused_with_the_holder_and_granted_after_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("deep/state");
        let first = InstanceLock::acquire(&state).unwrap();
        match InstanceLock::acquire(&state) {
            Err(LockError::AlreadyRunning { pid, path }) => {
                assert_eq!(pid, Some(std::process::id()));
                assert_eq!(path, state.join(LOCK_NAME));
            }
            other => panic!("{other:?}"),
        }
        drop(first);
        InstanceLock::acquire(&state).expect("the lock is free");
    }

    #[test]
    fn a_holder_is_seen_without_being_disturbed() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(holder(directory.path()).unwrap(), None);
        let lock = InstanceLock::acquire(directory.path()).unwrap();
        assert_eq!(holder(directory.path()).unwrap(), Some(Some(std::process::id())));
        drop(lock);
        assert_eq!(holder(directory.path()).unwrap(), None, "the file alone means nothing");
        InstanceLock::acquire(directory.path()).expect("looking has left nothing behind");
    }

    #[test]
    fn executed_programs_do_not_inherit_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let lock = LockFile::acquire(&directory.path().join(LOCK_NAME)).unwrap();
        let flags = nix::fcntl::fcntl(&lock.file, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert!(nix::fcntl::FdFlag::from_bits_retain(flags).contains(nix::fcntl::FdFlag::FD_CLOEXEC));
    }

    #[test]
    fn a_left_over_lock_file_means_nothing() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(LOCK_NAME), "1\n").unwrap();
        InstanceLock::acquire(directory.path()).expect("nobody holds it");
        let text = std::fs::read_to_string(directory.path().join(LOCK_NAME)).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_missing_state_directory_is_created_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let _lock = InstanceLock::acquire(&state).unwrap();
        assert_eq!(std::fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_state_directory_that_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(InstanceLock::acquire(directory.path()), Err(LockError::NotPrivate { .. })));
    }

    #[test]
    fn a_lock_file_that_is_a_symbolic_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        std::os::unix::fs::symlink(&target, directory.path().join(LOCK_NAME)).unwrap();
        assert!(matches!(InstanceLock::acquire(directory.path()), Err(LockError::Io { .. })));
        assert!(!target.exists());
    }
}
