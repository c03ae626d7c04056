//! What is known of the daemon from outside: who holds the lock, and who answers at the socket.

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
const PATIENCE: Duration = Duration::from_secs(2);

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
