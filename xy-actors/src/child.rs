//! The seam between a supervisor and what it runs: one trait, and adapters for actors and tasks.
//!
//! A [`Child`] is a recipe: it begins incarnations. What it begins is a [`Running`] that can be asked to end and be
//! killed. How it ends comes back through the [`Reporter`], exactly once. Everything here runs on the supervisor's task
//! only until the first `.await` that is not ready at once; nothing may block.
//!
//! [`actor`] and [`task`] make children of actors and async functions, and so do
//! [`supervisor`](crate::supervisor::supervisor()) and `process::process` of supervisors and programs. Whatever else is to
//! be kept running implements [`Child`] itself. A blocking loop on a thread of its own, for instance:
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//! use std::thread;
//!
//! use xy_actors::child::{Child, Running, StartContext, StartError, StartFuture, Started};
//! use xy_actors::exit::ExitReport;
//! use xy_actors::spec::{ChildSpec, SupervisorSpec};
//! use xy_actors::supervisor::Supervisor;
//!
//! /// Runs a function on a thread, which returns soon after the flag is set.
//! struct Blocking(fn(&AtomicBool) -> Result<(), String>);
//!
//! impl Child for Blocking {
//!     fn start(&self, context: StartContext) -> StartFuture {
//!         let (run, asked) = (self.0, Arc::new(AtomicBool::new(false)));
//!         let stop = asked.clone();
//!         Box::pin(async move {
//!             let exit = context.reporter.guard(); // Reports a panic, too.
//!             thread::Builder::new()
//!                 .name(context.path.to_string())
//!                 .spawn(move || exit.exited(ExitReport::of_result(run(&asked))))
//!                 .map_err(StartError::failed)?;
//!             Ok(Started::Ready(Box::new(Thread(stop))))
//!         })
//!     }
//! }
//!
//! struct Thread(Arc<AtomicBool>);
//!
//! impl Running for Thread {
//!     fn stop(&mut self) {
//!         self.0.store(true, Ordering::Relaxed);
//!     }
//!
//!     // Nothing ends a thread that does not return: one that does not is reported as leaked.
//!     fn kill(&mut self) {}
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let poll = Blocking(|asked| {
//!     while !asked.load(Ordering::Relaxed) {
//!         thread::yield_now();
//!     }
//!     Ok(())
//! });
//! let tree = Supervisor::builder(SupervisorSpec::default()).child(ChildSpec::worker("poll"), poll).start().await?;
//! assert!(tree.shutdown().await.is_clean());
//! # Ok(())
//! # }
//! ```

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorCell, Message};

use crate::exit::{Cause, ExitReport};
use crate::path::TreePath;
use crate::policy::{ChildKey, Incarnation};
use crate::supervisor::message::{Health, SupervisorMessage};
use crate::supervisor::place::Place;
use crate::supervisor::{Address, ChildRef, Supervisor};

mod actor;
mod guard;
mod info;
mod task;

pub use actor::{ActorChild, LinkedActor, actor, actor_with};
pub use guard::ExitGuard;
pub use info::StartInfo;
pub use task::{TaskChild, TaskContext, TaskError, task};

/// The future of one start.
pub type StartFuture = Pin<Box<dyn Future<Output = Result<Started, StartError>> + Send>>;

/// What a supervisor runs: a recipe for incarnations.
///
/// Implement it for kinds of children that xy does not know. The contract: a start that returned [`Started::Ready`] or
/// [`Started::Running`] is followed by exactly one [`Reporter::exited`], after which nothing of the incarnation runs; a
/// start that returned an error or [`Started::Ignore`] has left nothing running. Dropping the future of a start calls
/// the start off and leaves nothing running either. [`Reporter::guard`] keeps the promise of exactly one report through
/// panics and aborts. There is an example on [the page above](self).
pub trait Child: Any + Send + Sync + 'static {
    /// Begins one incarnation.
    ///
    /// Called on the supervisor's task: must not block. A future that is ready at its first poll costs no task.
    fn start(&self, context: StartContext) -> StartFuture;

    /// Goes on with an incarnation that an earlier program of this process began and [`Running::hand_over`] described.
    ///
    /// The contract is that of a start. Without an implementation, it is one.
    #[cfg(feature = "process")]
    fn take_up(&self, context: StartContext, _state: crate::supervisor::handover::LiveState) -> StartFuture {
        self.start(context)
    }
}

/// What a start is told.
#[derive(Debug, Clone)]
pub struct StartContext {
    /// The child's path in its tree.
    pub path: TreePath,
    /// Which start this is.
    pub incarnation: Incarnation,
    /// Where readiness and the exit are reported to.
    pub reporter: Reporter,
}

impl StartContext {
    /// Returns the supervisor's cell, to link an actor to.
    pub fn supervisor(&self) -> ActorCell {
        self.parent().cell()
    }

    /// Returns the address of an actor among the child's siblings, or below one that is a supervisor, by a path such as
    /// `cache` or `group/cache`, as [`Supervisor::addr`] does; [`actor_with`] says when a sibling can be reached.
    ///
    /// It is asked for anew in each start and leads through the supervisor that this start is of. For an address that
    /// outlives that one, and for actors elsewhere in the tree, ask the [`root`](Self::root).
    pub fn addr<M: Message>(&self, sibling: impl Into<ChildRef>) -> Address<M> {
        self.parent().addr(sibling)
    }

    /// Returns the supervisor whose child this is.
    ///
    /// A handle keeps nothing alive. Whatever is asked through it is answered while the child still starts, but an answer
    /// that waits for this very start, such as that to [`Supervisor::started`], does not come before the start is over.
    pub fn parent(&self) -> &Supervisor {
        self.reporter.place.supervisor()
    }

    /// Returns the supervisor at the top of the tree, which is the same in all starts of all children; the
    /// [parent](Self::parent), if that is the root.
    pub fn root(&self) -> &Supervisor {
        self.reporter.place.root()
    }
}

/// What a start came to.
pub enum Started {
    /// It is an actor that is linked to the supervisor, and can serve. ractor reports its exit, nobody else need.
    Actor(LinkedActor),
    /// It runs and can serve.
    Ready(Box<dyn Running>),
    /// It runs; [`Reporter::ready`] follows.
    Running(Box<dyn Running>),
    /// There is nothing to run (OTP's `ignore`).
    Ignore,
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Actor(_) => "Actor",
            Self::Ready(_) => "Ready",
            Self::Running(_) => "Running",
            Self::Ignore => "Ignore",
        })
    }
}

/// A living incarnation. Dropping it must not leave anything running that nobody owns.
pub trait Running: Send + 'static {
    /// Asks it to end. Called at most once.
    fn stop(&mut self);

    /// Ends it without asking. Called at most once.
    fn kill(&mut self);

    /// Called at most once, before the drop: its exit was reported, so that nothing is left to end.
    fn ended(&mut self) {}

    /// Its recipe was replaced by this one: takes over what a living incarnation can, and leaves the rest to the next.
    fn follow(&mut self, _recipe: &dyn Child) {}

    /// Sends an operating system signal to it; `None` if it is no process.
    fn signal(&mut self, _signal: i32) -> Option<std::io::Result<()>> {
        None
    }

    /// Returns the process id, if it is a process.
    fn pid(&self) -> Option<u32> {
        None
    }

    /// Says what it is, for the next program of this process, and does nothing more until [`go_on`](Self::go_on); `None` if
    /// it cannot be taken up there. Times are relative to `now`.
    #[cfg(feature = "process")]
    fn hand_over(&mut self, _now: std::time::Instant) -> Option<crate::supervisor::handover::HandOverFuture> {
        None
    }

    /// Goes on after [`hand_over`](Self::hand_over): there is no next program.
    #[cfg(feature = "process")]
    fn go_on(&mut self) {}

    /// Returns what the start hands back to whoever asked for it.
    fn info(&self) -> Option<StartInfo> {
        None
    }

    /// Returns the supervisor, if it is one.
    fn supervisor(&self) -> Option<crate::supervisor::Supervisor> {
        None
    }
}

/// Why a start failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct StartError {
    /// What failed, where, and what to do.
    pub cause: Cause,
    /// What kind of failure this is for callers that match on it.
    pub kind: StartErrorKind,
}

/// What kind of start failure this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum StartErrorKind {
    /// It failed; counts as a crash.
    Failed,
    /// The machine lacks resources; tried again later without counting.
    ResourceShortage,
    /// Somebody else holds the child's port; tried again later without counting.
    PortConflict,
}

impl StartError {
    /// Creates an error that counts as a crash.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self { cause: Cause::StartFailed { message: message.to_string() }, kind: StartErrorKind::Failed }
    }

    /// Creates an error of this kind.
    pub fn new(kind: StartErrorKind, message: impl fmt::Display) -> Self {
        Self { cause: Cause::StartFailed { message: message.to_string() }, kind }
    }
}

/// Where an incarnation reports to. Reports of another incarnation than the current one are dropped.
#[derive(Debug, Clone)]
pub struct Reporter {
    place: Arc<Place>,
    child: ChildKey,
    incarnation: Incarnation,
}

impl Reporter {
    pub(crate) fn new(place: Arc<Place>, child: ChildKey, incarnation: Incarnation) -> Self {
        Self { place, child, incarnation }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Reports that the incarnation can serve.
    pub fn ready(&self) {
        self.send(SupervisorMessage::Ready { child: self.child, incarnation: self.incarnation });
    }

    /// Reports that the incarnation, ready before, cannot serve at present, and why.
    ///
    /// It counts as running and not ready until [`Reporter::healthy`].
    pub fn unhealthy(&self, why: impl Into<Arc<str>>) {
        self.health(Health::Poor(why.into()));
    }

    /// Reports that the incarnation can serve again.
    pub fn healthy(&self) {
        self.health(Health::Good);
    }

    /// Reports that the incarnation, ready before, failed its health check for good, and why.
    ///
    /// Its supervisor stops it and goes on as after a crash of that cause. A paused child is left running, not ready; a
    /// later report, after `resume`, has the full effect.
    pub fn health_failed(&self, why: impl Into<Arc<str>>) {
        self.health(Health::Failed(why.into()));
    }

    /// Asks for more time before the incarnation must be ready: at least this long from now.
    pub fn extend_start(&self, by: Duration) {
        self.send(SupervisorMessage::ExtendStart { child: self.child, incarnation: self.incarnation, by });
    }

    /// Reports that the stop under way needs so much less time than the spec's shutdown has for it: what is not gone by then
    /// is killed earlier. A time as long as all of that says nothing.
    pub fn stop_ahead(&self, by: Duration) {
        self.send(SupervisorMessage::StopAhead { child: self.child, incarnation: self.incarnation, by });
    }

    fn health(&self, health: Health) {
        self.send(SupervisorMessage::Health { child: self.child, incarnation: self.incarnation, health });
    }

    /// Reports that the incarnation ended and that nothing of it runs.
    pub fn exited(&self, report: ExitReport) {
        self.send(SupervisorMessage::Exited {
            child: self.child,
            incarnation: self.incarnation,
            report: Box::new(report),
        });
    }

    /// Says in words what the incarnation is waiting for; `None` for nothing any more.
    pub fn waits_for(&self, what: Option<String>) {
        self.send(SupervisorMessage::WaitsFor {
            child: self.child,
            incarnation: self.incarnation,
            what: what.map(Arc::from),
        });
    }

    fn send(&self, message: SupervisorMessage) {
        // A supervisor that is gone has no use for reports.
        self.place.supervisor().tell(message);
    }
}

/// Returns the text of a panic's payload.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panicked without a text".to_owned())
}
