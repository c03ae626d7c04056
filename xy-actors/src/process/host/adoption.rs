//! Reaping orphans that a child-subreaper adopts: listens for `SIGCHLD` and leaves the work to the spawner thread.

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::AbortHandle;

use super::spawner::Spawner;

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
