//! The local socket: a path that nobody else can reach, taken over safely, and who may connect.
//!
//! There is no moment in which another user can connect: the socket is bound inside a directory that only its owner may
//! enter, with its own mode set before it gets a name where the system can do that, and each peer's user is checked
//! before its first byte is read. A lock beside the socket decides who may replace it, never the socket's existence.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use interprocess::ConnectWaitMode;
use interprocess::local_socket::tokio::{Listener as LocalListener, Stream as LocalStream};
use interprocess::local_socket::traits::StreamCommon;
use interprocess::local_socket::traits::tokio::Listener as _;
use interprocess::local_socket::{ConnectOptions, GenericFilePath, ListenerOptions, Name, ToFsName};
#[cfg(target_os = "linux")]
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use interprocess::os::unix::uds_local_socket::tokio::Listener as UdListener;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use tokio::net::UnixStream;

use crate::instance::{Keep, LockError, LockFile};
use crate::paths::{SocketPathError, check_socket_path};

/// Why the socket was not bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The path cannot be a socket's.
    #[error(transparent)]
    Path(#[from] SocketPathError),
    /// The directory could let others in.
    #[error("the socket directory `{}` {problem}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: DirectoryProblem,
    },
    /// Another instance serves this socket, or the lock could not be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Something that is not a socket has this path. It is left alone.
    #[error("`{}` exists and is not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A program without the lock serves this socket. It is left alone.
    #[error("another program listens on `{}`", path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
    },
    /// The system refused something.
    #[error("binding the socket `{}` failed", path.display())]
    Io {
        /// The socket or its directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What lets others into a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryProblem {
    /// It is a symbolic link.
    #[error("is a symbolic link")]
    SymbolicLink,
    /// It is not a directory.
    #[error("is not a directory")]
    NotADirectory,
    /// It belongs to somebody else.
    #[error("belongs to user {owner}")]
    Owner {
        /// The owner's user id.
        owner: u32,
    },
    /// Its mode lets others in.
    #[error("has mode {mode:o} and must have 700")]
    Mode {
        /// The permission bits.
        mode: u32,
    },
    /// It was replaced by another one while the socket was bound.
    #[error("was replaced while it was used")]
    Replaced,
}

/// A bound local socket.
///
/// Dropping it removes the socket, if it is still its own, and then gives up the lock.
#[derive(Debug)]
pub struct Listener {
    listener: LocalListener,
    path: PathBuf,
    /// What tells our socket from another one at its path; `None` if it is not ours to remove.
    identity: Option<Identity>,
    /// Dropped last, so that nobody takes the path over before it is cleared.
    lock: LockFile,
}

/// A bound socket that outlives whoever serves it: the next program of this process goes on with it.
#[derive(Debug)]
pub(crate) struct SharedListener {
    listener: OwnedFd,
    lock: OwnedFd,
    path: PathBuf,
    keep: Keep,
    /// A service manager has bound it, so that it is not ours to remove.
    is_inherited: bool,
}

impl SharedListener {
    /// Creates one from the descriptors of an earlier program of this process.
    pub(crate) fn taken_up(
        listener: OwnedFd,
        lock: OwnedFd,
        path: PathBuf,
        keep: Keep,
        is_inherited: bool,
    ) -> Self {
        Self { listener, lock, path, keep, is_inherited }
    }

    /// Returns whether a service manager has bound it.
    pub(crate) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// Returns a listener to serve on, which leaves everything as it is while `keep` is set.
    ///
    /// # Errors
    /// If the system refuses descriptors, or the socket has lost its name.
    pub(crate) fn listener(&self) -> io::Result<Listener> {
        let listener: LocalListener = UdListener::try_from(self.listener.try_clone()?)?.into();
        let identity = match self.is_inherited {
            true => None,
            false => Some(identity(&std::fs::symlink_metadata(&self.path)?)),
        };
        let lock = LockFile::taken_up(self.lock.try_clone()?, self.keep.clone());
        Ok(Listener { listener, path: self.path.clone(), identity, lock })
    }

    /// Returns another descriptor of the socket.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        self.listener.try_clone()
    }

    /// Returns another descriptor of its lock.
    pub(crate) fn share_lock(&self) -> io::Result<OwnedFd> {
        self.lock.try_clone()
    }

    /// Returns what says whether the socket stays when a listener is dropped.
    pub(crate) fn keep(&self) -> &Keep {
        &self.keep
    }
}

/// What tells one file from another of the same name.
type Identity = (u64, u64);

impl Listener {
    /// Binds the socket at `path`, replacing a stale one.
    ///
    /// The directory is created with mode 0700 if it is missing. `PATH.lock` beside the socket is held until the value is
    /// dropped. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The path is too long, its directory is not private, another instance or program listens there, something that is
    /// not a socket has the path, or the system refused.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        check_socket_path(path)?;
        let failed = |source| BindError::Io { path: path.to_owned(), source };
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let directory = private_directory(parent)?;

        let lock = lock(path)?;

        clear_stale(path)?;
        let options = ListenerOptions::new().name(name(path).map_err(failed)?).reclaim_name(false);
        #[cfg(target_os = "linux")]
        let options = options.mode(0o600);
        let listener = options.create_tokio().map_err(failed)?;
        let metadata = std::fs::symlink_metadata(path).map_err(failed)?;
        let bound = Self { listener, path: path.to_owned(), identity: Some(identity(&metadata)), lock };

        // Whoever may rename entries of a directory further up could have put another one in its place.
        if private_directory(parent)? != directory {
            return Err(BindError::Directory {
                path: parent.to_owned(),
                problem: DirectoryProblem::Replaced,
            });
        }
        Ok(bound)
    }

    /// Serves on a socket that a service manager has bound at `path`. Its directory, mode and end are the manager's affair:
    /// it is neither changed nor removed. `PATH.lock` is held as for any other. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// Another instance serves it, or the system refused.
    pub(crate) fn inherited(listener: OwnedFd, path: &Path) -> Result<Self, BindError> {
        let lock = lock(path)?;
        let listener = UdListener::try_from(listener)
            .map_err(|source| BindError::Io { path: path.to_owned(), source })?;
        Ok(Self { listener: listener.into(), path: path.to_owned(), identity: None, lock })
    }

    /// Returns a handle that outlives this listener.
    ///
    /// # Errors
    /// If the system refuses descriptors.
    pub(crate) fn shared(&self) -> io::Result<SharedListener> {
        let LocalListener::UdSocket(listener) = &self.listener;
        let listener = listener.as_fd().try_clone_to_owned()?;
        let (path, keep) = (self.path.clone(), self.lock.keep().clone());
        let is_inherited = self.identity.is_none();
        Ok(SharedListener { listener, lock: self.lock.share()?, path, keep, is_inherited })
    }

    /// Returns the socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether a connection waits to be accepted.
    pub(crate) fn is_awaited(&self) -> bool {
        let LocalListener::UdSocket(listener) = &self.listener;
        is_awaited(listener.as_fd())
    }

    /// Waits for the next connection of a permitted user (ours, or root).
    ///
    /// Others are dropped unread.
    ///
    /// # Errors
    ///
    /// If the process is out of descriptors or memory. The next call tries again, at once.
    ///
    /// # Cancel safety
    ///
    /// No connection is lost when the future is dropped.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let stream = match self.listener.accept().await {
                Ok(stream) => stream,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let peer = stream.peer_creds().ok().and_then(|peer| peer.euid());
            if !is_permitted(peer, nix::unistd::geteuid().as_raw()) {
                tracing::warn!(?peer, "a connection of another user was refused");
                continue;
            }
            let LocalStream::UdSocket(stream) = stream;
            return Ok(stream.into());
        }
    }
}

/// Returns how long accepting rests after the process ran out of descriptors or memory: until a connection that is closed to
/// make room is gone, as a rule, or for a while if there was none.
pub(crate) fn accept_rest(makes_room: bool) -> Duration {
    Duration::from_millis(if makes_room { 1 } else { 100 })
}

/// Returns whether a connection waits to be accepted. Where there is no descriptor for one, accepting fails whether or not
/// anybody waits.
pub(crate) fn is_awaited(listener: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(listener, PollFlags::POLLIN)];
    // Nobody can be told if it fails, and somebody may wait.
    nix::poll::poll(&mut polled, PollTimeout::ZERO).map_or(true, |count| count > 0)
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.lock.keep().is_set() {
            return;
        }
        let is_own = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.file_type().is_socket() && Some(identity(&found)) == self.identity);
        if is_own && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket was not removed");
        }
    }
}

/// Returns the name of the program at the other end of a connection, as far as the system tells it.
pub(crate) fn peer_program(stream: &UnixStream) -> String {
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    // It is read from memory, and the file is gone at worst. Other systems have no such file.
    let name = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    name.map_or_else(|| "unknown".to_owned(), |name| name.trim_end().to_owned())
}

/// Returns whether a peer may connect; one whose user is not known may not.
fn is_permitted(peer: Option<u32>, ours: u32) -> bool {
    peer.is_some_and(|peer| peer == ours || peer == 0)
}

/// Takes the lock beside a socket.
fn lock(path: &Path) -> Result<LockFile, LockError> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    LockFile::acquire(Path::new(&lock))
}

fn name(path: &Path) -> io::Result<Name<'_>> {
    path.to_fs_name::<GenericFilePath>()
}

fn identity(metadata: &std::fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// Makes sure that only we can enter a directory, and creates it if it is missing.
fn private_directory(path: &Path) -> Result<Identity, BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    let refused = |problem| Err(BindError::Directory { path: path.to_owned(), problem });
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
            std::fs::symlink_metadata(path).map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    let mode = metadata.mode() & 0o777;
    if metadata.file_type().is_symlink() {
        refused(DirectoryProblem::SymbolicLink)
    } else if !metadata.is_dir() {
        refused(DirectoryProblem::NotADirectory)
    } else if metadata.uid() != nix::unistd::geteuid().as_raw() {
        refused(DirectoryProblem::Owner { owner: metadata.uid() })
    } else if mode != 0o700 {
        refused(DirectoryProblem::Mode { mode })
    } else {
        Ok(identity(&metadata))
    }
}

/// Removes a socket that nobody listens on. Only the holder of the lock may call it.
fn clear_stale(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    // The lock says that no instance of ours serves it; a program that knows nothing of the lock still may.
    let probe = ConnectOptions::new()
        .name(name(path).map_err(failed)?)
        .nonblocking_stream(true)
        .wait_mode(ConnectWaitMode::Deferred)
        .connect_sync();
    match probe {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(_) => Err(BindError::Occupied { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_user_and_root_are_permitted() {
        assert!(is_permitted(Some(1000), 1000));
        assert!(is_permitted(Some(0), 1000));
        assert!(!is_permitted(Some(1001), 1000));
        assert!(!is_permitted(Some(1000), 0));
        assert!(!is_permitted(None, 0));
    }
}
