//! The tasks, and the one wait, that work for one process's actor. None of them ends unnoticed: a panic in one comes back as a message.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use ractor::ActorRef;
use tokio::task::AbortHandle;

use super::{ProcessMessage, tell};
use crate::child::panic_text;

/// What a task does for the actor of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "testkit"), expect(unreachable_pub, reason = "public in the test kit only"))]
#[non_exhaustive]
pub enum Helper {
    /// Waits for the end of the main process.
    Waiter,
    /// Ends the rest of the tree after the main process, and reads the last output.
    Finisher,
    /// Waits for readiness.
    Readiness,
    /// Checks the health of what is ready.
    Health,
    /// Hears what the process says about itself.
    Listener,
    /// Runs the stop command.
    StopCommand,
}

impl fmt::Display for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiter => "the wait for its end",
            Self::Finisher => "the end of its tree",
            Self::Readiness => "its readiness check",
            Self::Health => "its health check",
            Self::Listener => "the hearing of its notifications",
            Self::StopCommand => "its stop command",
        })
    }
}

/// A running task. Ends together with the actor, so that no task keeps the process's handle longer.
pub(super) struct HelperTask(AbortHandle);

impl HelperTask {
    /// Starts a task, of whose panic the actor is told.
    pub(super) fn spawn(
        helper: Helper,
        label: &str,
        myself: &ActorRef<ProcessMessage>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let myself = myself.clone();
        #[cfg(feature = "testkit")]
        let is_planted = crate::testkit::has_planted_panic(label, helper);
        #[cfg(not(feature = "testkit"))]
        let _only_in_tests = label;
        // Within the task it would be there twice: where it is moved in from, and where it is polled.
        let mut task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(task);
        let watched = async move {
            let panicked = std::future::poll_fn(|cx| {
                let polled = catch_unwind(AssertUnwindSafe(|| {
                    #[cfg(feature = "testkit")]
                    assert!(!is_planted, "planted by a test");
                    task.as_mut().poll(cx)
                }));
                match polled {
                    Ok(Poll::Pending) => Poll::Pending,
                    Ok(Poll::Ready(())) => Poll::Ready(None),
                    // It is not polled again.
                    Err(payload) => Poll::Ready(Some(panic_text(&*payload))),
                }
            });
            if let Some(message) = panicked.await {
                tell(&myself, ProcessMessage::Panicked(helper, message));
            }
        };
        Self(tokio::spawn(watched).abort_handle())
    }
}

impl Drop for HelperTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
