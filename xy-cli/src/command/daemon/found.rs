//! What is known of the daemon from outside: who holds the lock, and who answers at the socket.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use xy_daemon::client::Client;
use xy_daemon::instance;
use xy_daemon::paths::Directories;
use xy_daemon::protocol::method::{Version, VersionParams};

use crate::error::{CommandError, LifecycleError};
use crate::session::{Answer, Session, call};

/// How long a daemon that is there may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The pause between two looks at a daemon that starts or ends.
pub(super) const PACE: Duration = Duration::from_millis(20);

/// How the daemon is.
pub(super) enum Found {
    /// It answers.
    Running(Client, Box<Answer<xy_daemon::protocol::method::VersionResult>>),
    /// It holds its lock and does not answer.
    Silent(Option<u32>),
    /// It has ended without taking its socket along.
    Stale,
    /// There is none.
    Stopped,
}

/// A daemon that does not answer, in words.
#[derive(Debug)]
pub(crate) struct Silence {
    pid: Option<u32>,
    /// What it owns, if it is known to be the one with the lock.
    state: Option<PathBuf>,
    socket: PathBuf,
}

impl Silence {
    /// Creates the words for the one that holds the lock.
    pub(super) fn of_holder(pid: Option<u32>, place: &Place) -> Self {
        Self { pid, state: Some(place.directories.state.clone()), socket: place.socket.clone() }
    }

    /// Creates the words for whoever listens at the socket. The lock says who that is only if the socket is that of the
    /// state directory.
    pub(super) fn of(session: &Session<'_>, place: &Place) -> Self {
        let is_own =
            session.explicit_socket().is_none() || place.socket == place.directories.default_socket();
        match place.holder() {
            Ok(Some(pid)) if is_own || pid.is_some() && pid == listener(&place.socket) => {
                Self::of_holder(pid, place)
            }
            _ => Self { pid: listener(&place.socket), state: None, socket: place.socket.clone() },
        }
    }

    /// Says what it may be, and what to do.
    pub(crate) fn hint(&self) -> String {
        let socket = self.socket.display();
        match self.pid {
            Some(pid) if is_suspended(pid) => {
                format!("it is suspended, and `kill -CONT {pid}` lets it go on")
            }
            _ => format!(
                "nothing answers at {socket}; it may be starting, ending, hung, or listen at another socket; \
                 `xyctl daemon stop --kill` ends it with its servers"
            ),
        }
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not answering: ")?;
        match (self.pid, &self.state) {
            (Some(pid), Some(state)) => write!(f, "pid {pid} owns {}", state.display()),
            (None, Some(state)) => write!(f, "owns {}", state.display()),
            (Some(pid), None) => write!(f, "pid {pid} listens at {}", self.socket.display()),
            (None, None) => write!(f, "somebody listens at {}", self.socket.display()),
        }
    }
}

/// Returns the process that listens at a socket, where the system tells.
#[cfg(target_os = "linux")]
fn listener(socket: &Path) -> Option<u32> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

    let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    u32::try_from(getsockopt(&stream, PeerCredentials).ok()?.pid()).ok().filter(|pid| *pid > 0)
}

#[cfg(not(target_os = "linux"))]
fn listener(_socket: &Path) -> Option<u32> {
    None
}

/// Returns whether a process was stopped by a signal, where the system tells.
fn is_suspended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which may hold anything but ends with the last parenthesis.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// Where a daemon is looked for.
pub(super) struct Place {
    pub(super) directories: Directories,
    pub(super) socket: PathBuf,
}

impl Place {
    pub(super) fn of(session: &Session<'_>) -> Result<Self, CommandError> {
        let socket = session.socket()?;
        let socket = std::path::absolute(&socket)
            .map_err(|source| LifecycleError::File { path: socket.clone(), source })?;
        Ok(Self { directories: Directories::of_user()?, socket })
    }

    /// Asks the daemon, then the lock.
    pub(super) async fn look(&self) -> Result<Found, CommandError> {
        if let Some((client, version)) = self.ask().await {
            return Ok(Found::Running(client, Box::new(version)));
        }
        Ok(match self.holder()? {
            Some(pid) => Found::Silent(pid),
            None if self.socket.exists() => Found::Stale,
            None => Found::Stopped,
        })
    }

    /// Asks whoever listens at the socket; `None` if nobody answers in time.
    pub(super) async fn ask(&self) -> Option<(Client, Answer<xy_daemon::protocol::method::VersionResult>)> {
        let asking = async {
            let client = Client::connect(&self.socket).await.ok()?;
            let version = call::<Version>(&client, VersionParams::default()).await.ok()?;
            Some((client, version))
        };
        timeout(PATIENCE, asking).await.ok()?
    }

    pub(super) fn holder(&self) -> Result<Option<Option<u32>>, LifecycleError> {
        holder(&self.directories.state)
    }
}

/// Returns who holds the lock of a state directory, if somebody does.
pub(super) fn holder(state: &Path) -> Result<Option<Option<u32>>, LifecycleError> {
    instance::holder(state)
        .map_err(|source| LifecycleError::File { path: state.join(instance::LOCK_NAME), source })
}

/// Waits until nobody holds the lock of a state directory; `false` if that did not come in time.
pub(super) async fn is_free_by(state: &Path, deadline: Instant) -> Result<bool, LifecycleError> {
    while holder(state)?.is_some() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        sleep(PACE).await;
    }
    Ok(true)
}
