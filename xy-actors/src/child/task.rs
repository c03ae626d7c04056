//! A plain async function as a child: for people without actors, and much lighter than one.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::{Child, Reporter, Running, StartContext, StartFuture, Started, panic_text};
use crate::exit::{Cause, Exit, ExitReport};
use crate::path::TreePath;
use crate::policy::Incarnation;

/// What a task may fail with.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

type TaskFuture = Pin<Box<dyn Future<Output = Result<(), TaskError>> + Send>>;

/// A child that is an async function; see [`task`].
#[derive(Clone)]
pub struct TaskChild {
    make: Arc<dyn Fn(TaskContext) -> TaskFuture + Send + Sync>,
    signals_ready: bool,
}

impl fmt::Debug for TaskChild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskChild").field("signals_ready", &self.signals_ready).finish_non_exhaustive()
    }
}

/// Makes a child of an async function, which is called for each incarnation.
///
/// It is ready at once, unless [`TaskChild::signals_ready`] is set. `Ok` is a normal exit, or `shutdown` after it was
/// asked to stop; an error or a panic is an abnormal one. A task that ignores [`TaskContext::stopped`] is aborted at
/// its next await point when its shutdown time is over.
pub fn task<F, Fut>(make: F) -> TaskChild
where
    F: Fn(TaskContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
{
    TaskChild { make: Arc::new(move |context| Box::pin(make(context))), signals_ready: false }
}

impl TaskChild {
    /// Makes the task ready when it calls [`TaskContext::ready`], not already when it starts.
    #[must_use]
    pub fn signals_ready(mut self) -> Self {
        self.signals_ready = true;
        self
    }
}

/// What a task is given.
#[derive(Debug, Clone)]
pub struct TaskContext {
    path: TreePath,
    incarnation: Incarnation,
    reporter: Reporter,
    stop: watch::Receiver<bool>,
}

impl TaskContext {
    /// Reports that the task can serve; only of use with [`TaskChild::signals_ready`].
    pub fn ready(&self) {
        self.reporter.ready();
    }

    /// Waits until the task is asked to stop.
    ///
    /// # Cancel safety
    /// Cancel safe: a stop that was asked for stays asked for.
    pub async fn stopped(&self) {
        let mut stop = self.stop.clone();
        // The sender is dropped only with the supervisor, which is a stop too.
        let _dropped = stop.wait_for(|stop| *stop).await;
    }

    /// Returns whether the task has been asked to stop.
    pub fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Returns the task's path in its tree.
    pub fn path(&self) -> &TreePath {
        &self.path
    }

    /// Returns which start of the task this is.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }
}

impl Child for TaskChild {
    fn start(&self, context: StartContext) -> StartFuture {
        let (sender, stop) = watch::channel(false);
        let StartContext { path, incarnation, reporter, .. } = context;
        let task_context = TaskContext { path, incarnation, reporter: reporter.clone(), stop: stop.clone() };
        let make = self.make.clone();
        let mut guard = ExitGuard { reporter: Some(reporter), stop };
        let handle = tokio::spawn(async move {
            let mut future: Option<TaskFuture> = None;
            let outcome = std::future::poll_fn(|cx| {
                let poll = catch_unwind(AssertUnwindSafe(|| {
                    let future = future.get_or_insert_with(|| make(task_context.clone()));
                    future.as_mut().poll(cx)
                }));
                match poll {
                    Ok(Poll::Pending) => Poll::Pending,
                    Ok(Poll::Ready(result)) => Poll::Ready(result.map_err(|error| error.to_string())),
                    Err(payload) => Poll::Ready(Err(panic_text(&*payload))),
                }
            })
            .await;
            drop(future);
            guard.report(outcome);
        });
        let running = Box::new(RunningTask { stop: sender, abort: handle.abort_handle() });
        let started = if self.signals_ready { Started::Running(running) } else { Started::Ready(running) };
        Box::pin(std::future::ready(Ok(started)))
    }
}

/// Reports the exit of a task exactly once, also when the task is aborted.
struct ExitGuard {
    reporter: Option<Reporter>,
    stop: watch::Receiver<bool>,
}

impl ExitGuard {
    fn report(&mut self, outcome: Result<(), String>) {
        let Some(reporter) = self.reporter.take() else { return };
        reporter.exited(match outcome {
            Ok(()) if *self.stop.borrow() => {
                ExitReport::new(Exit::Shutdown, Cause::Finished { reason: None })
            }
            Ok(()) => ExitReport::new(Exit::Normal, Cause::Finished { reason: None }),
            Err(message) => ExitReport::new(Exit::Abnormal, Cause::Error { message }),
        });
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        if let Some(reporter) = self.reporter.take() {
            reporter.exited(ExitReport::new(Exit::Killed, Cause::Aborted));
        }
    }
}

struct RunningTask {
    stop: watch::Sender<bool>,
    abort: AbortHandle,
}

impl Running for RunningTask {
    fn stop(&mut self) {
        self.stop.send_replace(true);
    }

    fn kill(&mut self) {
        self.abort.abort();
    }
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        // Nobody is left to stop it.
        self.abort.abort();
    }
}
