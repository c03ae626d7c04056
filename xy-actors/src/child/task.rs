//! A plain async function as a child: for people without actors, and much lighter than one.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;

use ractor::Message;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::{Child, Reporter, Running, StartContext, StartFuture, Started, panic_text};
use crate::exit::ExitReport;
use crate::path::TreePath;
use crate::policy::Incarnation;
use crate::supervisor::{Address, ChildRef, Supervisor};

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
///
/// What a task keeps from one incarnation to the next, and what it shares with others, is captured by the closure and
/// cloned for each call:
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::Duration;
///
/// use xy_actors::child::task;
/// use xy_actors::spec::{ChildSpec, SupervisorSpec};
/// use xy_actors::supervisor::Supervisor;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let beats = Arc::new(AtomicU64::new(0));
/// let counted = beats.clone();
/// let heart = task(move |context| {
///     let beats = counted.clone();
///     async move {
///         loop {
///             tokio::select! {
///                 () = context.stopped() => return Ok(()),
///                 () = tokio::time::sleep(Duration::from_secs(1)) => beats.fetch_add(1, Ordering::Relaxed),
///             };
///             context.ready(); // More than once does no harm.
///         }
///     }
/// });
/// let tree = Supervisor::builder(SupervisorSpec::default())
///     .child(ChildSpec::worker("heart"), heart.signals_ready())
///     .start() // Returns when it has beaten once.
///     .await?;
/// assert!(tree.shutdown().await.is_clean());
/// assert_eq!(beats.load(Ordering::Relaxed), 1);
/// # Ok(())
/// # }
/// ```
///
/// The closure is called on the task itself, so that a panic in it is a crash of the task like any other.
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

/// What a task is given. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TaskContext(Arc<Shared>);

/// What an incarnation and its supervisor's side share.
#[derive(Debug)]
struct Shared {
    path: TreePath,
    reporter: Reporter,
    /// One of the three below.
    stop: AtomicU8,
    changed: Notify,
}

const NOT_ASKED: u8 = 0;
const ASKED: u8 = 1;
/// Nobody is left to ask: the incarnation is over, or its supervisor is.
const OVER: u8 = 2;

impl Shared {
    /// Moves on from not asked; what came first stays.
    fn stop(&self, to: u8) {
        if self.stop.compare_exchange(NOT_ASKED, to, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.changed.notify_waiters();
        }
    }
}

impl TaskContext {
    /// Reports that the task can serve; only of use with [`TaskChild::signals_ready`].
    pub fn ready(&self) {
        self.0.reporter.ready();
    }

    /// Waits until the task is asked to stop.
    ///
    /// # Cancel safety
    /// Cancel safe: a stop that was asked for stays asked for.
    pub async fn stopped(&self) {
        while self.0.stop.load(Ordering::Acquire) == NOT_ASKED {
            // Made before the second look, so that it sees every change after that.
            let changed = self.0.changed.notified();
            if self.0.stop.load(Ordering::Acquire) == NOT_ASKED {
                changed.await;
            }
        }
    }

    /// Returns whether the task has been asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.0.stop.load(Ordering::Acquire) == ASKED
    }

    /// Returns the task's path in its tree.
    pub fn path(&self) -> &TreePath {
        &self.0.path
    }

    /// Returns which start of the task this is.
    pub fn incarnation(&self) -> Incarnation {
        self.0.reporter.incarnation()
    }

    /// Returns the address of an actor among the task's siblings, as [`StartContext::addr`] does.
    pub fn addr<M: Message>(&self, sibling: impl Into<ChildRef>) -> Address<M> {
        self.parent().addr(sibling)
    }

    /// Returns the supervisor whose child this is. A handle keeps nothing alive.
    pub fn parent(&self) -> &Supervisor {
        self.0.reporter.place().supervisor()
    }

    /// Returns the supervisor at the top of the tree; the [parent](Self::parent), if that is the root.
    pub fn root(&self) -> &Supervisor {
        self.0.reporter.place().root()
    }
}

impl Child for TaskChild {
    fn start(&self, context: StartContext) -> StartFuture {
        let StartContext { path, reporter, .. } = context;
        let stop = AtomicU8::new(NOT_ASKED);
        let shared = Arc::new(Shared { path, reporter, stop, changed: Notify::new() });
        let mut body = Body::Made { make: self.make.clone(), context: TaskContext(shared.clone()) };
        let guard = shared.reporter.guard();
        let handle = tokio::spawn(async move {
            let outcome = std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| body.poll(cx))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(result)) => Poll::Ready(result.map_err(|error| error.to_string())),
                Err(payload) => Poll::Ready(Err(panic_text(&*payload))),
            })
            .await;
            drop(body);
            guard.exited(ExitReport::of_result(outcome));
        });
        let running = Box::new(RunningTask { shared, abort: handle.abort_handle(), ended: false });
        let started = if self.signals_ready { Started::Running(running) } else { Started::Ready(running) };
        Box::pin(std::future::ready(Ok(started)))
    }
}

/// The task's own future, made at the first poll: making it may panic, and runs on the task.
enum Body {
    Made { make: Arc<dyn Fn(TaskContext) -> TaskFuture + Send + Sync>, context: TaskContext },
    Begun(TaskFuture),
}

impl Body {
    /// Polls the future in place: one that panics is dropped later, outside the unwinding.
    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), TaskError>> {
        if let Self::Made { make, context } = self {
            let future = make(context.clone());
            *self = Self::Begun(future);
        }
        match self {
            Self::Begun(future) => future.as_mut().poll(cx),
            Self::Made { .. } => Poll::Pending,
        }
    }
}

struct RunningTask {
    shared: Arc<Shared>,
    abort: AbortHandle,
    ended: bool,
}

impl Running for RunningTask {
    fn stop(&mut self) {
        self.shared.stop(ASKED);
    }

    fn kill(&mut self) {
        self.abort.abort();
    }

    fn ended(&mut self) {
        self.ended = true;
    }
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        // Nobody is left to stop it, nor what it may have left behind.
        self.shared.stop(OVER);
        if !self.ended {
            self.abort.abort();
        }
    }
}
