//! Reaping orphans that a child-subreaper adopts: listens for `SIGCHLD` and leaves the work to the spawner thread.

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::AbortHandle;

use super::spawner::{Job, Spawner};

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
            // Signals that come while a job is under way are merged into one by the kernel and by tokio. One round is
            // due at the start, for those that ended before.
            loop {
                if !spawner.send(Job::ReapOrphans) || children.recv().await.is_none() {
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
