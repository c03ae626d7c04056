//! One child's notification socket: a datagram socket in a private directory, which tells who sent what.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::unix::AsyncFd;

use crate::process::command::random_marker;
use crate::process::sys::{self, Received};

/// The ending of our sockets' names.
const SUFFIX: &str = ".notify";

/// The longest path of a socket, in bytes: the system's room for it, less the NUL that other programs want.
const LONGEST_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// A bound socket; its name goes with it.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: AsyncFd<Arc<OwnedFd>>,
    name: Name,
}

/// Where a socket is found.
#[derive(Debug)]
enum Name {
    File(SocketFile),
    #[cfg(target_os = "linux")]
    Abstract(OsString),
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The next start of the host takes away what stays.
        let _ = fs::remove_file(&self.0);
    }
}

impl NotifySocket {
    /// Binds a socket with a fresh name.
    ///
    /// # Errors
    /// If the directory is not ours alone, or its path is too long for a socket in it.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub(crate) fn bind(directory: &Path) -> io::Result<Self> {
        own(directory)?;
        let marker = random_marker().map_err(io::Error::other)?;
        let path = directory.join(format!("{}{SUFFIX}", &marker[..16]));
        let length = path.as_os_str().len();
        if length > LONGEST_PATH {
            let problem = format!(
                "`{}` has {length} bytes, a socket's path at most {LONGEST_PATH}: choose a shorter directory",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let socket = UnixDatagram::bind(&path)?;
        Self::named(socket, Name::File(SocketFile(path)))
    }

    /// Binds a socket with a fresh name outside all directories, for a process of a user who cannot enter ours.
    ///
    /// Whoever finds the name can send to it; as with the other kind, only the child's own tree is heard.
    ///
    /// # Errors
    /// If the system refuses the socket.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    #[cfg(target_os = "linux")]
    pub(crate) fn bind_abstract() -> io::Result<Self> {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::net::SocketAddr;

        let name = format!("xy/{}{SUFFIX}", random_marker().map_err(io::Error::other)?);
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        Self::named(socket, Name::Abstract(format!("@{name}").into()))
    }

    /// Goes on with the socket of an earlier program of this process.
    ///
    /// # Errors
    /// If the runtime cannot watch it.
    pub(crate) fn taken_up(address: OsString, socket: OwnedFd) -> io::Result<Self> {
        let name = match address.as_encoded_bytes().first() {
            #[cfg(target_os = "linux")]
            Some(b'@') => Name::Abstract(address),
            _ => Name::File(SocketFile(address.into())),
        };
        Ok(Self { socket: sys::watch(Arc::new(socket))?, name })
    }

    /// Returns another descriptor of the socket, for the next program of this process.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.get_ref().try_clone()
    }

    fn named(socket: UnixDatagram, name: Name) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // Nobody knows the name yet, so every datagram is sent after this.
        #[cfg(target_os = "linux")]
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::PassCred, &true)?;
        Ok(Self { socket: sys::watch(Arc::new(socket.into()))?, name })
    }

    /// Returns where it is, as `NOTIFY_SOCKET` says it: a path, or an abstract name behind `@`.
    pub(crate) fn address(&self) -> &OsStr {
        match &self.name {
            Name::File(file) => file.0.as_os_str(),
            #[cfg(target_os = "linux")]
            Name::Abstract(name) => name,
        }
    }

    /// Waits for the next datagram.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| sys::receive(socket.get_ref().as_fd(), buffer)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}

/// Makes the directory, or checks that nobody else can reach into it.
fn own(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(directory)?;
    let is_private = metadata.is_dir()
        && metadata.uid() == nix::unistd::geteuid().as_raw()
        && metadata.mode() & 0o077 == 0;
    if is_private {
        return Ok(());
    }
    let problem = format!("`{}` is not a directory of ours alone (mode 0700)", directory.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

/// Removes sockets that an earlier host left; one that somebody has bound stays.
pub(in crate::process) fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let Ok(probe) = UnixDatagram::unbound() else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.ends_with(SUFFIX))
            && entry.file_type().is_ok_and(|kind| kind.is_socket());
        let is_dead = || {
            probe.connect(entry.path()).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        if is_ours && is_dead() {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn the_file_goes_with_the_socket_and_the_directory_is_private() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("a/notify");
        let socket = NotifySocket::bind(&directory).expect("binds");
        assert_eq!(fs::metadata(&directory).expect("made").mode() & 0o777, 0o700);
        let path = PathBuf::from(socket.address());
        assert!(path.exists());
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_directory_that_others_can_enter_is_refused() {
        let root = tempfile::tempdir().expect("a directory");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let error = NotifySocket::bind(root.path()).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let link = root.path().join("link");
        let private = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink(private.path(), &link).expect("a link");
        let error = NotifySocket::bind(&link).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_told_with_both_numbers() {
        let root = tempfile::tempdir().expect("a directory");
        let error = NotifySocket::bind(&root.path().join("d".repeat(90))).expect_err("too long");
        assert!(error.to_string().contains(&LONGEST_PATH.to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_sweep_removes_dead_sockets_only() {
        let root = tempfile::tempdir().expect("a directory");
        let alive = NotifySocket::bind(&root.path().join("notify")).expect("binds");
        let dead = root.path().join("notify/0123456789abcdef.notify");
        drop(UnixDatagram::bind(&dead).expect("binds"));
        let other = root.path().join("notify/other.notify");
        fs::write(&other, "a file").expect("writes");
        sweep(&root.path().join("notify"));
        assert!(Path::new(alive.address()).exists() && other.exists() && !dead.exists());
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_datagram_comes_with_its_sender_and_without_its_descriptors() {
        use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
        use std::io::IoSlice;
        use std::os::fd::AsRawFd;

        let root = tempfile::tempdir().expect("a directory");
        let socket = NotifySocket::bind(&root.path().join("notify")).expect("binds");
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.connect(socket.address()).expect("connects");
        let (read, write) = io::pipe().expect("a pipe");
        let rights = [write.as_raw_fd()];
        let text = [IoSlice::new(b"READY=1")];
        sendmsg::<()>(
            sender.as_raw_fd(),
            &text,
            &[ControlMessage::ScmRights(&rights)],
            MsgFlags::empty(),
            None,
        )
        .expect("sends");
        drop(write);
        let mut buffer = [0; 16];
        let received = socket.receive(&mut buffer).await.expect("receives");
        assert_eq!(received, Received { size: 7, is_cut: false, sender: Some(std::process::id()) });
        // If it had been taken, the pipe would still have a writer.
        assert_eq!(io::read_to_string(read).expect("ends"), "");
    }

    #[tokio::test]
    async fn a_datagram_that_does_not_fit_is_marked() {
        let root = tempfile::tempdir().expect("a directory");
        let socket = NotifySocket::bind(&root.path().join("notify")).expect("binds");
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.send_to(&vec![b'x'; 64 << 10], socket.address()).expect("sends");
        let received = socket.receive(&mut [0; 4096]).await.expect("receives");
        assert!(received.is_cut && received.size == 4096, "{received:?}");
    }
}
