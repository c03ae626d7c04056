//! Reaping orphans that a child-subreaper adopts: listens for `SIGCHLD` and leaves the work to the spawner thread.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::AbortHandle;

use super::spawner::Spawner;

/// How long after a `SIGCHLD` orphans are reaped. Most often it tells of a server that has ended, whose restart the look
/// would hold up; and many that come together are one look.
const LATER: Duration = Duration::from_millis(10);

/// The listening task; ends when dropped.
#[derive(Debug)]
pub(super) struct Task(AbortHandle);

impl Task {
    /// Starts listening, or returns `None` outside a runtime.
    pub(super) fn start(spawner: &Spawner) -> Option<Self> {
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let mut children = signal(SignalKind::child()).ok()?;
        let spawner = spawner.clone();
        let task = runtime.spawn(async move {
            // One round is due at the start, for those that ended before.
            loop {
                spawner.reap_orphans();
                if children.recv().await.is_none() {
                    return;
                }
                tokio::time::sleep(LATER).await;
            }
        });
        Some(Self(task.abort_handle()))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
