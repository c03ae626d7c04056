//! A tree as a whole program: run until a signal or its own end, shut down, and say how it went.

use std::future::Future;
use std::sync::Arc;

use crate::exit::Exit;
use crate::supervisor::message::SupervisorMessage;
use crate::supervisor::{Life, ShutdownReport, SpawnTreeError, Supervisor, SupervisorBuilder};

/// Why a tree that was to run until a signal did not end as it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It did not start: a spec is not valid, or a first start failed.
    #[error(transparent)]
    Start(SpawnTreeError),
    /// It exceeded its restart intensity.
    #[error("the tree gave up: {}", .0.cause)]
    Escalated(Arc<ShutdownReport>),
    /// It was killed, or ended with an abnormal exit by somebody who asked for one.
    #[error("the tree ended {}: {}", .0.exit, .0.cause)]
    Failed(Arc<ShutdownReport>),
}

impl SupervisorBuilder {
    /// Runs the tree until the signal comes or the tree ends by itself, shuts it down, and returns what became of the
    /// children. Any future is a signal; its output is dropped. All that a `main` needs:
    ///
    #[cfg_attr(feature = "signal", doc = "```no_run")]
    #[cfg_attr(not(feature = "signal"), doc = "```ignore")]
    /// use xy_actors::child::task;
    /// use xy_actors::spec::{ChildSpec, SupervisorSpec};
    /// use xy_actors::supervisor::{Supervisor, shutdown_signal};
    ///
    /// #[tokio::main]
    /// async fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let worker = task(|context| async move { Ok(context.stopped().await) });
    ///     let tree = Supervisor::builder(SupervisorSpec::default()).child(ChildSpec::worker("worker"), worker);
    ///     tree.run_until(shutdown_signal()?).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// The signal is heeded while children still start, too. How long the end may take is up to the shutdown times of the
    /// children. A report that is not [clean](ShutdownReport::is_clean) is no error.
    ///
    /// # Errors
    /// If the tree did not start, gave up, or ended with an abnormal exit for another reason. An end by auto-shutdown or
    /// by [`Supervisor::shutdown`] is none.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// If the future is dropped, the tree is asked to shut down and not waited for.
    pub async fn run_until(self, signal: impl Future) -> Result<Arc<ShutdownReport>, RunError> {
        let supervisor = self.spawn().await.map_err(RunError::Start)?;
        let owner = Owner(supervisor);
        owner.0.run_until(signal).await
    }
}

impl Supervisor {
    /// Waits until the signal comes or the supervisor ends by itself, shuts it down, and returns what became of the
    /// children: [`SupervisorBuilder::run_until`] for a tree of which a handle is needed.
    ///
    /// # Errors
    /// As [`SupervisorBuilder::run_until`].
    ///
    /// # Cancel safety
    /// If the future is dropped before the signal came, the supervisor goes on; else it ends all the same.
    pub async fn run_until(&self, signal: impl Future) -> Result<Arc<ShutdownReport>, RunError> {
        tokio::select! {
            _ = signal => {
                self.shutdown().await;
            }
            _ = self.ended() => {}
        }
        let life = self.life.borrow().clone();
        let (report, children, started) = match life {
            Life::Ended { report, children, started } => (report, children, started),
            // The end is told before anybody is woken by it.
            Life::Starting | Life::Started => return Err(RunError::Failed(Arc::default())),
        };
        match report.exit {
            Exit::Normal | Exit::Shutdown => Ok(children),
            _ if !started => Err(RunError::Start(SpawnTreeError::Ended(report))),
            Exit::Escalated => Err(RunError::Escalated(children)),
            Exit::Abnormal | Exit::Killed => Err(RunError::Failed(children)),
        }
    }
}

/// A supervisor that nobody else has a handle of: it must not outlive who runs it.
struct Owner(Supervisor);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.tell(SupervisorMessage::Shutdown { exit: Exit::Shutdown, reason: None });
    }
}
