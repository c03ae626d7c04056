//! Sockets that a service manager has bound and hands to us: found by name, checked for what they are, and never unlinked.
//!
//! systemd passes descriptors from 3 on and says so in the environment (sd_listen_fds(3)); launchd is asked by name. What is
//! meant for another process is left alone. The variables do not reach the servers: the process host takes them out of
//! their environment.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike as _, SockaddrStorage, getsockname, getsockopt, sockopt,
};
use xy_actors::process::handover;

use crate::http::address::{self, AddressError};

/// The first descriptor that systemd passes.
const FIRST: RawFd = 3;

/// More descriptors than this are a mistake.
const MOST: usize = 64;

/// What a socket without a name of its own is called: by systemd after its unit, or not at all.
const UNNAMED: [&str; 3] = ["", "unknown", "xyd.socket"];

/// What we listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The control socket, `xyd`.
    Control,
    /// HTTP on a loopback address, `http`.
    Http,
}

impl Role {
    /// Returns the name, as in `FileDescriptorName=` and in `Sockets` of a launchd agent.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "xyd",
            Self::Http => "http",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The sockets that were handed to us.
#[derive(Debug, Default)]
pub struct Activated {
    /// The control socket, and its path.
    pub(crate) control: Option<(UnixListener, PathBuf)>,
    /// The socket of HTTP.
    pub(crate) http: Option<TcpListener>,
}

/// Why sockets that were handed to us cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivationError {
    /// The number of descriptors is none.
    #[error("`LISTEN_FDS` is `{0}`, expected a number")]
    NotANumber(String),
    /// There are too many of them.
    #[error("`LISTEN_FDS` announces {0} sockets, and {MOST} is the limit")]
    TooMany(usize),
    /// There are more or fewer names than descriptors.
    #[error("`LISTEN_FDNAMES` has {names} names for {sockets} sockets")]
    Names {
        /// How many names there are.
        names: usize,
        /// How many descriptors.
        sockets: usize,
    },
    /// A descriptor was announced and is not open.
    #[error("descriptor {0} was announced and is not open")]
    NotOpen(RawFd),
    /// It is a file, a pipe or a terminal.
    #[error("descriptor {0} is not a socket")]
    NotASocket(RawFd),
    /// It is of datagrams or packets.
    #[error("the socket on descriptor {0} is not a stream socket: use `ListenStream=`")]
    NotAStream(RawFd),
    /// It is connected, as with `Accept=yes`, or was only bound.
    #[error("the socket on descriptor {0} does not listen: use `Accept=no`")]
    NotListening(RawFd),
    /// Its kind of address is not that of its role.
    #[error("the socket on descriptor {fd} cannot be `{role}`, which is {expected}")]
    Family {
        /// The descriptor.
        fd: RawFd,
        /// What its name says that it is.
        role: Role,
        /// What that has to be.
        expected: &'static str,
    },
    /// A socket without a name of its own has an address of neither role.
    #[error("the socket on descriptor {0} is neither a local socket nor one of TCP")]
    UnknownFamily(RawFd),
    /// It is a local socket that no path leads to.
    #[error("the socket on descriptor {0} has no path, so that clients would not find it")]
    NoPath(RawFd),
    /// Others than this machine could connect.
    #[error("the socket on descriptor {fd} cannot be used")]
    Address {
        /// The descriptor.
        fd: RawFd,
        /// Why.
        #[source]
        source: AddressError,
    },
    /// The name is none of ours.
    #[error("the socket on descriptor {fd} is named `{name}`, expected `xyd` or `http`")]
    UnknownName {
        /// The descriptor.
        fd: RawFd,
        /// The name.
        name: String,
    },
    /// Two sockets have the same role.
    #[error("two sockets were handed over as `{0}`")]
    Twice(Role),
    /// The system refused something.
    #[error("the socket on descriptor {fd} cannot be examined")]
    Io {
        /// The descriptor.
        fd: RawFd,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What a service manager announces.
#[derive(Debug, PartialEq, Eq)]
struct Announced {
    /// By descriptor, from the first on; `None` for a socket without a name of its own.
    names: Vec<Option<String>>,
}

impl Announced {
    /// Reads the environment; `None` if nothing is announced, or not to us.
    fn read(env: impl Fn(&str) -> Option<OsString>, pids: &[u32]) -> Result<Option<Self>, ActivationError> {
        let text = |name: &str| env(name).map(|value| value.to_string_lossy().into_owned());
        let Some(count) = text("LISTEN_FDS") else { return Ok(None) };
        // An environment that was passed on carries the variables of a parent.
        let meant = text("LISTEN_PID").and_then(|pid| pid.parse::<u32>().ok());
        if !meant.is_some_and(|pid| pids.contains(&pid)) {
            return Ok(None);
        }
        let count: usize = count.parse().map_err(|_| ActivationError::NotANumber(count))?;
        if count > MOST {
            return Err(ActivationError::TooMany(count));
        }
        let own_name = |name: &str| (!UNNAMED.contains(&name)).then(|| name.to_owned());
        let names = match text("LISTEN_FDNAMES") {
            None => vec![None; count],
            Some(names) if count == 0 && names.is_empty() => Vec::new(),
            Some(names) => names.split(':').map(own_name).collect(),
        };
        if names.len() != count {
            return Err(ActivationError::Names { names: names.len(), sockets: count });
        }
        Ok(Some(Self { names }))
    }
}

impl Activated {
    /// Takes the sockets that the service manager has handed to one of `pids`: ours, and whatever process stands before us
    /// in its eyes. To be called once, before anything else is opened.
    ///
    /// # Errors
    /// See [`ActivationError`]. What is announced to somebody else is no error, and left alone.
    pub fn from_environment(
        env: impl Fn(&str) -> Option<OsString>,
        pids: &[u32],
    ) -> Result<Self, ActivationError> {
        let mut activated = Self::default();
        for (fd, name) in
            (FIRST..).zip(Announced::read(env, pids)?.map(|announced| announced.names).into_iter().flatten())
        {
            let taken = handover::inherit(&[fd]).map_err(|_| ActivationError::NotOpen(fd))?;
            for socket in taken {
                activated.take(socket, fd, name.as_deref())?;
            }
        }
        #[cfg(target_os = "macos")]
        for role in [Role::Control, Role::Http] {
            // Without an agent of launchd, or without this name in it, there are none.
            for socket in handover::launchd_sockets(role.name()).unwrap_or_default() {
                use std::os::fd::AsRawFd as _;
                let fd = socket.as_raw_fd();
                activated.take(socket, fd, Some(role.name()))?;
            }
        }
        Ok(activated)
    }

    /// Examines one socket and takes it for what it is.
    fn take(&mut self, socket: OwnedFd, fd: RawFd, name: Option<&str>) -> Result<(), ActivationError> {
        let family = examine(&socket, fd)?;
        let role = match (name, family) {
            (Some("xyd"), _) | (None, Some(AddressFamily::Unix)) => Role::Control,
            (Some("http"), _) | (None, Some(AddressFamily::Inet | AddressFamily::Inet6)) => Role::Http,
            (Some(name), _) => return Err(ActivationError::UnknownName { fd, name: name.to_owned() }),
            (None, _) => return Err(ActivationError::UnknownFamily(fd)),
        };
        let failed = |source| ActivationError::Io { fd, source };
        match (role, family) {
            (Role::Control, Some(AddressFamily::Unix)) => {
                let listener = UnixListener::from(socket);
                let address = listener.local_addr().map_err(failed)?;
                let path = address.as_pathname().map(Path::to_owned).ok_or(ActivationError::NoPath(fd))?;
                listener.set_nonblocking(true).map_err(failed)?;
                give(&mut self.control, (listener, path), role)
            }
            (Role::Http, Some(AddressFamily::Inet | AddressFamily::Inet6)) => {
                let listener = TcpListener::from(socket);
                let address: SocketAddr = listener.local_addr().map_err(failed)?;
                address::check(address).map_err(|source| ActivationError::Address { fd, source })?;
                listener.set_nonblocking(true).map_err(failed)?;
                give(&mut self.http, listener, role)
            }
            (Role::Control, _) => Err(ActivationError::Family { fd, role, expected: "a local socket" }),
            (Role::Http, _) => Err(ActivationError::Family { fd, role, expected: "a socket of TCP" }),
        }
    }
}

/// Reads what `LISTEN_FDS` and `LISTEN_FDNAMES` may say.
#[cfg(feature = "testkit")]
pub(crate) fn read_announcement(count: &str, names: &str) {
    let env = |name: &str| match name {
        "LISTEN_FDS" => Some(count.into()),
        "LISTEN_FDNAMES" => Some(names.into()),
        _ => Some("1".into()),
    };
    if let Ok(Some(announced)) = Announced::read(env, &[1]) {
        assert!(announced.names.len() <= MOST, "{announced:?}");
    }
}

fn give<T>(place: &mut Option<T>, socket: T, role: Role) -> Result<(), ActivationError> {
    match place.replace(socket) {
        None => Ok(()),
        Some(_) => Err(ActivationError::Twice(role)),
    }
}

/// Checks that a descriptor is a stream socket that listens, and returns its family.
fn examine(socket: &OwnedFd, fd: RawFd) -> Result<Option<AddressFamily>, ActivationError> {
    let refused = |errno: Errno| match errno {
        Errno::ENOTSOCK => ActivationError::NotASocket(fd),
        errno => ActivationError::Io { fd, source: errno.into() },
    };
    if getsockopt(socket, sockopt::SockType).map_err(refused)? != SockType::Stream {
        return Err(ActivationError::NotAStream(fd));
    }
    if !getsockopt(&socket.as_fd(), sockopt::AcceptConn).map_err(refused)? {
        return Err(ActivationError::NotListening(fd));
    }
    let address: SockaddrStorage = {
        use std::os::fd::AsRawFd as _;
        getsockname(socket.as_raw_fd()).map_err(refused)?
    };
    Ok(address.family())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    fn announced(variables: &[(&str, &str)]) -> Result<Option<Vec<Option<String>>>, String> {
        let env =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
        Announced::read(env, &[7, 8])
            .map(|announced| announced.map(|announced| announced.names))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_is_announced_to_us_counts() {
        let name = |name: &str| Some(name.to_owned());
        for (variables, expected) in [
            (&[][..], None),
            (&[("LISTEN_FDS", "1")], None),
            (&[("LISTEN_FDS", "1"), ("LISTEN_PID", "9")], None),
            (&[("LISTEN_FDS", "x"), ("LISTEN_PID", "9")], None),
            (&[("LISTEN_FDS", "1"), ("LISTEN_PID", "")], None),
            (&[("LISTEN_FDS", "1"), ("LISTEN_PID", "8")], Some(vec![None])),
            (&[("LISTEN_FDS", "0"), ("LISTEN_PID", "7"), ("LISTEN_FDNAMES", "")], Some(Vec::new())),
            (
                &[("LISTEN_FDS", "4"), ("LISTEN_PID", "7"), ("LISTEN_FDNAMES", "http:xyd.socket::xyd")],
                Some(vec![name("http"), None, None, name("xyd")]),
            ),
        ] {
            assert_eq!(announced(variables), Ok(expected), "{variables:?}");
        }
    }

    #[test]
    fn an_announcement_that_makes_no_sense_is_refused() {
        for (count, names, problem) in [
            ("many", "", "`LISTEN_FDS` is `many`, expected a number"),
            ("-1", "", "`LISTEN_FDS` is `-1`, expected a number"),
            ("65", "", "`LISTEN_FDS` announces 65 sockets, and 64 is the limit"),
            ("2", "xyd", "`LISTEN_FDNAMES` has 1 names for 2 sockets"),
        ] {
            let variables = [("LISTEN_FDS", count), ("LISTEN_PID", "7"), ("LISTEN_FDNAMES", names)];
            assert_eq!(announced(&variables), Err(problem.to_owned()));
        }
    }

    /// Says how one descriptor under a name is refused.
    fn refusal(socket: impl Into<OwnedFd>, name: Option<&str>) -> String {
        Activated::default().take(socket.into(), 3, name).expect_err("refused").to_string()
    }

    #[test]
    fn descriptors_of_the_wrong_kind_are_refused_each_in_its_own_words() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let local = |name: &str| UnixListener::bind(path(name)).expect("bound");
        let tcp = |address: &str| TcpListener::bind(address).expect("bound");
        let file = std::fs::File::create(path("file")).expect("created");
        assert_eq!(refusal(file, None), "descriptor 3 is not a socket");
        let datagram = UnixDatagram::bind(path("datagram")).expect("bound");
        assert!(refusal(datagram, None).contains("is not a stream socket"));
        let (connected, _peer) = UnixStream::pair().expect("a pair");
        assert!(refusal(connected, Some("xyd")).contains("does not listen"));
        assert!(refusal(local("a"), Some("http")).ends_with("cannot be `http`, which is a socket of TCP"));
        assert!(
            refusal(tcp("127.0.0.1:0"), Some("xyd")).ends_with("cannot be `xyd`, which is a local socket")
        );
        assert!(refusal(local("b"), Some("ssh")).ends_with("is named `ssh`, expected `xyd` or `http`"));
        let open = tcp("0.0.0.0:0");
        let error = Activated::default().take(open.into(), 3, None).expect_err("refused");
        assert!(
            matches!(error, ActivationError::Address { source: AddressError::NotLoopback(_), .. }),
            "{error:?}"
        );
        let mut activated = Activated::default();
        activated.take(local("c").into(), 3, None).expect("taken");
        let error = activated.take(local("d").into(), 4, Some("xyd")).expect_err("refused");
        assert_eq!(error.to_string(), "two sockets were handed over as `xyd`");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_local_socket_without_a_path_is_refused() {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("xy-activation-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name).expect("a name");
        let socket = UnixListener::bind_addr(&address).expect("bound");
        assert!(refusal(socket, Some("xyd")).contains("has no path"));
    }

    #[test]
    fn sockets_without_names_are_told_apart_by_their_kind() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x.sock");
        let mut activated = Activated::default();
        activated.take(UnixListener::bind(&path).expect("bound").into(), 3, None).expect("taken");
        activated.take(TcpListener::bind("127.0.0.1:0").expect("bound").into(), 4, None).expect("taken");
        assert_eq!(activated.control.map(|(_, path)| path), Some(path));
        assert!(activated.http.is_some());
    }
}
