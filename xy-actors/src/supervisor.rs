//! The supervisor: a handle to the actor that performs the policy.
//!
//! [`Supervisor`] is cheap to clone and owns nothing. Its calls come in three groups: OTP's (`start_child`,
//! `terminate_child`, `restart_child`, `delete_child`, `which_children`, `which_child`, `count_children`, `child_spec`),
//! which answer as OTP does in each state of a child; the operator's (`start`, `stop`, `restart`, `pause`, `resume`,
//! `update`, `remove`, `signal`), which also remember what was asked for; and those about the whole tree (`lookup`,
//! `wait_for`, `events`, `run_until`, `shutdown`, `kill`). A child is named by its id or its key, see [`ChildRef`]; the
//! children of a simple_one_for_one supervisor have keys only and are started from a [`Template`] or with a spec each.
//! Children that are actors are sent to by their [`Address`], which survives restarts ([`Supervisor::addr`]), or by a key
//! that is spread over [`Partitions`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorRef};
use tokio::sync::{oneshot, watch};

use crate::child::{Child, StartErrorKind, StartInfo};
use crate::event::stream::{EventCursor, EventItem, EventLog, EventStream};
use crate::exit::{Cause, Exit, ExitReport};
use crate::path::TreePath;
use crate::policy::{ChildKey, Incarnation, Operation, Outcome, Policy, Refusal, State, Wanted};
use crate::snapshot::Counts;
use crate::spec::{ChildId, ChildSpec, ChildType, SpecError, SupervisorSpec};

mod actor;
mod address;
mod alike;
#[cfg(feature = "process")]
pub mod handover;
mod line;
pub(crate) mod message;
mod nested;
mod partition;
pub(crate) mod place;
mod record;
mod reference;
mod run;
mod shutdown;
#[cfg(feature = "signal")]
mod signal;
mod template;
mod timers;

pub use address::{Address, CallError, SendError, Unreachable, WhileDown};
pub use nested::{SupervisorChild, supervisor};
pub use partition::{PartitionAddresses, Partitioned, Partitions, ResizeError};
pub use record::{LastExit, Transition};
pub use reference::ChildRef;
pub use run::RunError;
pub use shutdown::ShutdownReport;
#[cfg(feature = "signal")]
pub use signal::{ShutdownSignal, shutdown_signal};
pub use template::Template;

use actor::{SupervisorActor, SupervisorArguments};
use message::{Reply, SupervisorMessage, Target};

/// How many events a tree holds for subscribers, unless told otherwise.
pub const DEFAULT_EVENT_CAPACITY: usize = 4096;

/// The initial children of a supervisor.
pub(crate) type Recipes = Vec<(Arc<ChildSpec>, Arc<dyn Child>)>;

/// What all supervisors of one tree share.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) events: EventLog,
    pub(crate) earlier: EarlierExits,
    /// The moment that the times of an earlier program's state are relative to, in a tree that was taken up.
    #[cfg(feature = "process")]
    origin: Option<std::time::Instant>,
}

impl Tree {
    fn new(events: usize, earlier: BTreeMap<String, Vec<EarlierExit>>) -> Self {
        Self {
            events: EventLog::new(events),
            earlier: Arc::new(Mutex::new(earlier)),
            #[cfg(feature = "process")]
            origin: None,
        }
    }

    #[cfg(feature = "process")]
    fn origin(&self) -> std::time::Instant {
        self.origin.unwrap_or_else(actor::now)
    }
}

/// How incarnations ended that an earlier life of the program began, by path, until their child is there to be told.
pub(crate) type EarlierExits = Arc<Mutex<BTreeMap<String, Vec<EarlierExit>>>>;

/// The end of an incarnation that another life of the program began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierExit {
    /// Its number then.
    pub incarnation: Incarnation,
    /// Its process, if it was one.
    pub pid: Option<u32>,
    /// How it ended.
    pub report: ExitReport,
}

/// What a supervisor has come to.
#[derive(Debug, Clone)]
pub(crate) enum Life {
    Starting,
    Started,
    Ended {
        report: Arc<ExitReport>,
        children: Arc<ShutdownReport>,
        /// Whether its initial children had been started.
        started: bool,
    },
}

/// A running supervisor. Cheap to clone; dropping it stops nothing.
#[derive(Clone)]
pub struct Supervisor {
    actor: ActorRef<SupervisorMessage>,
    path: TreePath,
    tree: Tree,
    life: watch::Receiver<Life>,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Puts a supervisor together.
pub struct SupervisorBuilder {
    spec: SupervisorSpec,
    children: Recipes,
    event_capacity: usize,
    first_event: u64,
    seed: u64,
    earlier: BTreeMap<String, Vec<EarlierExit>>,
    #[cfg(feature = "process")]
    state: Option<handover::TreeState>,
}

impl fmt::Debug for SupervisorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let children: Vec<&ChildId> = self.children.iter().map(|(spec, _)| &spec.id).collect();
        f.debug_struct("SupervisorBuilder").field("spec", &self.spec).field("children", &children).finish()
    }
}

impl SupervisorBuilder {
    /// Adds a child; children start in the order in which they are added. A spec that is kept elsewhere, too, can be shared.
    #[must_use]
    pub fn child(mut self, spec: impl Into<Arc<ChildSpec>>, child: impl Child) -> Self {
        // Beside the id, which is younger than most: a restart needs both and not the rest of the spec.
        let child = Arc::new(child);
        self.children.push((spec.into(), child));
        self
    }

    /// Sets how many events the tree holds for subscribers that lag or resume, at least one;
    /// [`DEFAULT_EVENT_CAPACITY`] unless told otherwise.
    #[must_use]
    pub fn event_capacity(mut self, events: usize) -> Self {
        self.event_capacity = events;
        self
    }

    /// Gives the tree's first event this number instead of 1, for a program that goes on with the numbers of an earlier life.
    /// A tree that is taken up has its own.
    #[must_use]
    pub fn first_event(mut self, seq: u64) -> Self {
        self.first_event = seq;
        self
    }

    /// Tells how an incarnation of the child at `path` ended that an earlier life of the program began and did not see end.
    ///
    /// It becomes the first of the child's history, and an event before the child's own first one. An end of a child that
    /// the tree does not begin with is told to nobody.
    #[must_use]
    pub fn earlier_exit(mut self, path: impl Into<String>, exit: EarlierExit) -> Self {
        self.earlier.entry(path.into()).or_default().push(exit);
        self
    }

    /// Sets the seed of the jitter of backoffs, 0 unless told otherwise; the same seed and the same exits give the same
    /// delays, so give programs that are not to retry in step different ones.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Makes the supervisor go on where the tree of an earlier program of this process stopped, with the living children
    /// that it had.
    #[cfg(feature = "process")]
    #[must_use]
    pub fn take_up(mut self, state: handover::TreeState) -> Self {
        self.state = Some(state);
        self
    }

    /// Spawns the supervisor, whose children then start; does not wait for them.
    ///
    /// # Errors
    /// If a spec is not valid, naming the rule. Nothing runs then.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Cancel safe: if the future is dropped, nothing runs.
    pub async fn spawn(self) -> Result<Supervisor, SpawnTreeError> {
        #[cfg_attr(not(feature = "process"), expect(unused_mut, reason = "nothing to take up"))]
        let mut tree = Tree::new(self.event_capacity, self.earlier);
        tree.events.begin_at(self.first_event);
        #[cfg(feature = "process")]
        if let Some(state) = self.state {
            let (root, events, now) = state.into_parts();
            tree.events.restore(events);
            tree.origin = Some(now);
            let (arguments, life) = SupervisorArguments::taken_up(
                self.spec,
                self.children,
                root,
                now,
                TreePath::root(),
                tree.clone(),
                None,
            )?;
            return Self::spawn_root(arguments, tree, life).await;
        }
        let (arguments, life) = SupervisorArguments::new(
            self.spec,
            self.children,
            self.seed,
            TreePath::root(),
            tree.clone(),
            None,
        )?;
        Self::spawn_root(arguments, tree, life).await
    }

    async fn spawn_root(
        arguments: SupervisorArguments,
        tree: Tree,
        life: watch::Receiver<Life>,
    ) -> Result<Supervisor, SpawnTreeError> {
        let (actor, _join) =
            Actor::spawn(None, SupervisorActor, arguments).await.map_err(|_| SpawnTreeError::Runtime)?;
        Ok(Supervisor { actor, path: TreePath::root(), tree, life })
    }

    /// Spawns the supervisor and waits until its initial children have been started (OTP's start).
    ///
    /// # Errors
    /// If a spec is not valid, or if a first start failed; then the children started before have been stopped.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// If the future is dropped while children start, the supervisor goes on running.
    pub async fn start(self) -> Result<Supervisor, SpawnTreeError> {
        let supervisor = self.spawn().await?;
        supervisor.started().await?;
        Ok(supervisor)
    }
}

/// Why a supervisor did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnTreeError {
    /// A spec is not valid.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The supervisor ended before its children were started.
    #[error("supervisor ended before its children were started: {}", .0)]
    Ended(Arc<ExitReport>),
    /// The state of an earlier tree does not fit.
    #[cfg(feature = "process")]
    #[error("the state of the earlier tree does not fit: {0}")]
    State(#[from] crate::policy::decision::handover::StateError),
    /// The actor runtime could not spawn the supervisor.
    #[error("no runtime to spawn the supervisor on")]
    Runtime,
}

/// Why an operation did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// There is no such child.
    #[error("no child is called `{0}`")]
    NotFound(ChildRef),
    /// The child's state forbids it, or another operation came in between.
    #[error("child `{child}`: {refusal}")]
    Refused {
        /// The child.
        child: ChildRef,
        /// Why.
        #[source]
        refusal: Refusal,
    },
    /// The child did not start, or ended before it was ready.
    #[error("child `{child}` did not start: {cause}")]
    StartFailed {
        /// The child.
        child: ChildRef,
        /// Why.
        cause: Cause,
        /// What kind of failure.
        kind: StartErrorKind,
    },
    /// The supervisor has ended.
    #[error("the supervisor has ended")]
    SupervisorGone,
}

/// What a start came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartOutcome {
    /// The child is ready.
    Started {
        /// The child's key.
        child: ChildKey,
        /// Which start of it.
        incarnation: Incarnation,
        /// What its start handed back.
        info: Option<StartInfo>,
    },
    /// It was ready already.
    AlreadyRunning,
    /// It was added, not to be started yet.
    Added,
    /// Its start said that there is nothing to run.
    Ignored,
}

/// What a stop came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopOutcome {
    /// It was alive and is gone, with everything that belonged to it except what the report lists as left.
    Stopped(Arc<ExitReport>),
    /// It was not alive.
    NotRunning,
}

/// What can be seen of one child.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildInfo {
    /// Its id.
    pub id: ChildId,
    /// Its key, unique within its supervisor.
    pub key: ChildKey,
    /// Its path in the tree.
    pub path: TreePath,
    /// Worker or supervisor.
    pub child_type: ChildType,
    /// What it is observed to be.
    pub state: State,
    /// Whether an incarnation exists.
    pub alive: bool,
    /// Whether this incarnation can serve.
    pub ready: bool,
    /// Whether it can, and has passed its health check, if it began with one.
    pub healthy: bool,
    /// What was asked for.
    pub wanted: Wanted,
    /// Whether automatic restarts are off.
    pub paused: bool,
    /// Whether it ended while paused and waits for `resume`.
    pub held: bool,
    /// Its current or last incarnation.
    pub incarnation: Incarnation,
    /// Its process id, if it is a running process.
    pub pid: Option<u32>,
    /// How long this incarnation has been ready.
    pub ready_for: Option<Duration>,
    /// Automatic restarts since it was last started by hand.
    pub restarts: u64,
    /// How the last ended incarnation, or the last failed start, ended.
    pub last_exit: Option<LastExit>,
    /// A restart that waits for its delay.
    pub planned: Option<Planned>,
    /// What a starting child waits for, in words.
    pub waits_for: Option<String>,
}

/// A restart that waits for its delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// The time left.
    pub due_in: Duration,
    /// Which restart within the period it is; 0 if it does not count.
    pub nth: u32,
    /// How many the limit allows.
    pub of: Option<u32>,
}

/// What the latest incarnations of a child went through.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChildHistory {
    /// The latest changes of state, oldest first.
    pub transitions: Vec<Transition>,
    /// The latest exits and failed starts, oldest first.
    pub exits: Vec<LastExit>,
}

impl Supervisor {
    /// Begins to put a supervisor together.
    pub fn builder(spec: SupervisorSpec) -> SupervisorBuilder {
        SupervisorBuilder {
            spec,
            children: Vec::new(),
            event_capacity: DEFAULT_EVENT_CAPACITY,
            first_event: 1,
            seed: 0,
            earlier: BTreeMap::new(),
            #[cfg(feature = "process")]
            state: None,
        }
    }

    /// Returns the supervisor's path in its tree; the root's is empty.
    pub fn path(&self) -> &TreePath {
        &self.path
    }

    /// Waits until the initial children have been started.
    ///
    /// # Errors
    /// If the supervisor ended before.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn started(&self) -> Result<(), SpawnTreeError> {
        let mut life = self.life.clone();
        let life = life.wait_for(|life| !matches!(life, Life::Starting)).await;
        match life.as_deref() {
            Ok(Life::Ended { report, started: false, .. }) => Err(SpawnTreeError::Ended(report.clone())),
            Ok(_) => Ok(()),
            Err(_) => Err(SpawnTreeError::Runtime),
        }
    }

    /// Waits until the supervisor has ended and returns how.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ended(&self) -> Arc<ExitReport> {
        let mut life = self.life.clone();
        match life.wait_for(|life| matches!(life, Life::Ended { .. })).await.as_deref() {
            Ok(Life::Ended { report, .. }) => report.clone(),
            // The sender tells the end before it goes.
            _ => Arc::new(ExitReport::new(Exit::Killed, Cause::Aborted)),
        }
    }

    async fn ended_with_children(&self) -> Arc<ShutdownReport> {
        let mut life = self.life.clone();
        match life.wait_for(|life| matches!(life, Life::Ended { .. })).await.as_deref() {
            Ok(Life::Ended { children, .. }) => children.clone(),
            _ => Arc::default(),
        }
    }

    /// Adds what became of everything below this supervisor, if it has ended.
    pub(crate) fn merge_end_into(&self, report: &mut ShutdownReport) {
        if let Life::Ended { children, .. } = &*self.life.borrow() {
            report.merge(children);
        }
    }

    /// Adds a child and waits until it is ready (OTP's start_child).
    ///
    /// # Errors
    /// If the spec is not valid, the id is taken, the start failed (then the spec is dropped, unless the child has a
    /// limit of its own that gives up: then it is kept and tried again), or the supervisor is ending.
    ///
    /// # Cancel safety
    /// If the future is dropped, the child starts all the same.
    pub async fn start_child(
        &self,
        spec: impl Into<Arc<ChildSpec>>,
        child: impl Child,
    ) -> Result<StartOutcome, OperationError> {
        self.start_recipe(spec.into(), Arc::new(child)).await
    }

    async fn start_recipe(
        &self,
        spec: Arc<ChildSpec>,
        child: Arc<dyn Child>,
    ) -> Result<StartOutcome, OperationError> {
        let id = spec.id.clone();
        let reply = self.ask(|reply| SupervisorMessage::StartChild { spec, child, reply }).await?;
        start_outcome(id.into(), reply)
    }

    /// Stops a child; a group restart brings it back (OTP's terminate_child).
    ///
    /// # Errors
    /// If there is no such child or the supervisor has ended.
    ///
    /// # Cancel safety
    /// If the future is dropped, the child is stopped all the same.
    pub async fn terminate_child(&self, child: impl Into<ChildRef>) -> Result<StopOutcome, OperationError> {
        let child = child.into();
        let reply = self.operate(&child, Operation::TerminateChild, None).await?;
        stop_outcome(child, reply)
    }

    /// Starts a stopped child and waits until it is ready (OTP's restart_child).
    ///
    /// # Errors
    /// If there is no such child, it is running or being restarted, or its start failed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the child is started all the same.
    pub async fn restart_child(&self, child: impl Into<ChildRef>) -> Result<StartOutcome, OperationError> {
        let child = child.into();
        let reply = self.operate(&child, Operation::RestartChild, None).await?;
        start_outcome(child, reply)
    }

    /// Drops the spec of a stopped child (OTP's delete_child).
    ///
    /// # Errors
    /// If there is no such child, or it is running or being restarted.
    ///
    /// # Cancel safety
    /// If the future is dropped, the spec is dropped all the same.
    pub async fn delete_child(&self, child: impl Into<ChildRef>) -> Result<(), OperationError> {
        let child = child.into();
        let reply = self.operate(&child, Operation::DeleteChild, None).await?;
        done(child, reply)
    }

    /// The operator's start: wanted up, and started now, whatever it was waiting for. Waits until it is ready.
    ///
    /// # Errors
    /// If there is no such child, or the start failed (automatic restarts may still follow).
    ///
    /// # Cancel safety
    /// If the future is dropped, the child is started all the same.
    pub async fn start(
        &self,
        child: impl Into<ChildRef>,
        reason: Option<String>,
    ) -> Result<StartOutcome, OperationError> {
        let child = child.into();
        let reply = self.operate(&child, Operation::Start, reason).await?;
        start_outcome(child, reply)
    }

    /// The operator's stop: wanted down until somebody starts it. Waits until everything of it is gone.
    ///
    /// # Errors
    /// If there is no such child.
    ///
    /// # Cancel safety
    /// If the future is dropped, the child is stopped all the same.
    pub async fn stop(
        &self,
        child: impl Into<ChildRef>,
        reason: Option<String>,
    ) -> Result<StopOutcome, OperationError> {
        let child = child.into();
        let reply = self.operate(&child, Operation::Stop, reason).await?;
        stop_outcome(child, reply)
    }

    /// The operator's restart: stopped if alive, then started; does not count. Waits until it is ready.
    ///
    /// # Errors
    /// If there is no such child, or the start failed (automatic restarts may still follow).
    ///
    /// # Cancel safety
    /// If the future is dropped, the child is restarted all the same.
    pub async fn restart(
        &self,
        child: impl Into<ChildRef>,
        reason: Option<String>,
    ) -> Result<StartOutcome, OperationError> {
        let child = child.into();
        let reply = self.operate(&child, Operation::Restart, reason).await?;
        start_outcome(child, reply)
    }

    /// Keeps a child from being restarted automatically, without touching it.
    ///
    /// # Errors
    /// If there is no such child.
    ///
    /// # Cancel safety
    /// If the future is dropped, the child is paused all the same.
    pub async fn pause(
        &self,
        child: impl Into<ChildRef>,
        reason: Option<String>,
    ) -> Result<(), OperationError> {
        let child = child.into();
        let reply = self.operate(&child, Operation::Pause, reason).await?;
        done(child, reply)
    }

    /// Lifts a pause; a child that ended meanwhile is restarted.
    ///
    /// # Errors
    /// If there is no such child.
    ///
    /// # Cancel safety
    /// If the future is dropped, the child is resumed all the same.
    pub async fn resume(
        &self,
        child: impl Into<ChildRef>,
        reason: Option<String>,
    ) -> Result<(), OperationError> {
        let child = child.into();
        let reply = self.operate(&child, Operation::Resume, reason).await?;
        done(child, reply)
    }

    /// Replaces the policy of a child, and with `child` also what its next incarnation runs, without touching the
    /// current incarnation. The id of `spec` says which child is meant.
    ///
    /// # Errors
    /// If there is no such child or the spec is not valid.
    ///
    /// # Cancel safety
    /// If the future is dropped, the child is updated all the same.
    pub async fn update(
        &self,
        spec: impl Into<Arc<ChildSpec>>,
        child: Option<Box<dyn Child>>,
    ) -> Result<(), OperationError> {
        let spec = spec.into();
        let (id, child) = (spec.id.clone(), child.map(Arc::from));
        let reply = self.ask(|reply| SupervisorMessage::Update { spec, child, reply }).await?;
        done(id.into(), reply)
    }

    /// Stops a child and drops its spec.
    ///
    /// # Errors
    /// If there is no such child.
    ///
    /// # Cancel safety
    /// If the future is dropped, the child is removed all the same.
    pub async fn remove(
        &self,
        child: impl Into<ChildRef>,
        reason: Option<String>,
    ) -> Result<StopOutcome, OperationError> {
        let child = child.into();
        let reply = self.operate(&child, Operation::Remove, reason).await?;
        stop_outcome(child, reply)
    }

    /// Sends an operating system signal to a child's process group.
    ///
    /// # Errors
    /// If there is no such child, it is not running, it is no process, or the system refuses.
    ///
    /// # Cancel safety
    /// If the future is dropped, the signal may be sent all the same.
    pub async fn signal(&self, child: impl Into<ChildRef>, signal: i32) -> Result<(), SignalError> {
        let child = child.into();
        self.ask_for(|reply| SupervisorMessage::Signal { child, signal, reply })
            .await
            .unwrap_or(Err(SignalError::SupervisorGone))
    }

    /// Returns all children in start order, oldest first.
    ///
    /// # Errors
    /// If the supervisor has ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn which_children(&self) -> Result<Vec<ChildInfo>, OperationError> {
        self.ask_for(|reply| SupervisorMessage::WhichChildren { reply })
            .await
            .ok_or(OperationError::SupervisorGone)
    }

    /// Returns one child.
    ///
    /// # Errors
    /// If there is no such child or the supervisor has ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn which_child(&self, child: impl Into<ChildRef>) -> Result<ChildInfo, OperationError> {
        self.which_child_with_history(child).await.map(|(info, _)| info)
    }

    /// Returns one child and what its latest incarnations went through.
    ///
    /// # Errors
    /// If there is no such child or the supervisor has ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn which_child_with_history(
        &self,
        child: impl Into<ChildRef>,
    ) -> Result<(ChildInfo, ChildHistory), OperationError> {
        let found = self
            .ask_about(child.into(), |child, reply| SupervisorMessage::WhichChild { child, reply })
            .await?;
        Ok(*found)
    }

    /// Returns a child's spec, with what it was added or last updated with (OTP's get_childspec).
    ///
    /// # Errors
    /// If there is no such child or the supervisor has ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn child_spec(&self, child: impl Into<ChildRef>) -> Result<ChildSpec, OperationError> {
        self.ask_about(child.into(), |child, reply| SupervisorMessage::ChildSpec { child, reply }).await
    }

    /// Waits until a child is as `condition` wants it, and returns it.
    ///
    /// The child is looked at at once and after each event about it, so a state that lasts only between two events of one
    /// moment can be missed: wait for what stays, or compare incarnations.
    ///
    /// # Errors
    /// If there is no such child, now or later, or the supervisor ends meanwhile.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_for(
        &self,
        child: impl Into<ChildRef>,
        condition: impl Fn(&ChildInfo) -> bool,
    ) -> Result<ChildInfo, OperationError> {
        let child = child.into();
        let mut events = self.events(EventCursor::Now);
        loop {
            let info = self.which_child(child.clone()).await?;
            if condition(&info) {
                return Ok(info);
            }
            loop {
                match events.next().await {
                    None => return Err(OperationError::SupervisorGone),
                    Some(EventItem::Event(event)) if event.path != info.path && event.path != self.path => {}
                    Some(_) => break,
                }
            }
        }
    }

    /// Returns the child at a path below this supervisor, such as `group/leaf`, and the supervisor that owns it.
    ///
    /// # Errors
    /// If a part of the path leads nowhere, or through something that is no living supervisor.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn lookup(&self, path: &str) -> Result<(Self, ChildInfo), OperationError> {
        let mut owner = self.clone();
        let mut parts = path.split('/');
        let mut part = parts.next().unwrap_or_default();
        for next in parts {
            owner = owner.child_supervisor(part).await?;
            part = next;
        }
        let info = owner.which_child(part).await?;
        Ok((owner, info))
    }

    /// Returns how many children there are (OTP's count_children).
    ///
    /// # Errors
    /// If the supervisor has ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn count_children(&self) -> Result<Counts, OperationError> {
        self.ask_for(|reply| SupervisorMessage::CountChildren { reply })
            .await
            .ok_or(OperationError::SupervisorGone)
    }

    /// Returns the supervisor that is this child.
    ///
    /// # Errors
    /// If there is no such child, it is no supervisor or not alive, or this supervisor has ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn child_supervisor(&self, child: impl Into<ChildRef>) -> Result<Supervisor, OperationError> {
        self.ask_about(child.into(), |child, reply| SupervisorMessage::ChildSupervisor { child, reply }).await
    }

    /// Returns the supervisor at a path below this one, such as `group/pool`; this one itself at the empty path.
    ///
    /// # Errors
    /// If a part of the path leads nowhere, or to something that is no living supervisor.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn supervisor_at(&self, path: &str) -> Result<Self, OperationError> {
        let mut supervisor = self.clone();
        for part in path.split('/').filter(|_| !path.is_empty()) {
            supervisor = supervisor.child_supervisor(part).await?;
        }
        Ok(supervisor)
    }

    /// Subscribes to the events of the whole tree, whichever of its supervisors is asked. There is a loop that matches them
    /// in [`event::stream`](crate::event::stream).
    pub fn events(&self, from: EventCursor) -> EventStream {
        self.tree.events.subscribe(from)
    }

    /// Returns the numbered events of the whole tree.
    pub fn event_log(&self) -> &EventLog {
        &self.tree.events
    }

    /// Stops all children in order and ends the supervisor; returns what became of them. Answers also if it has ended
    /// before.
    ///
    /// To the parent of a nested supervisor this is an ordinary exit: a permanent one is started again. Use the parent's
    /// `terminate_child` or `stop` to keep it down.
    ///
    /// # Cancel safety
    /// If the future is dropped, the supervisor ends all the same: a timeout around it ends only the wait.
    pub async fn shutdown(&self) -> Arc<ShutdownReport> {
        self.shutdown_as(Exit::Shutdown, None).await
    }

    /// Stops all children in order and ends the supervisor with this exit (OTP's `supervisor:stop`), which is what its
    /// parent decides by: a permanent supervisor is started again. The first to ask decides.
    ///
    /// A child that waits here for its own supervisor is asked to stop and killed after its shutdown time like any other.
    ///
    /// # Cancel safety
    /// If the future is dropped, the supervisor ends all the same: a timeout around it ends only the wait.
    pub async fn shutdown_as(&self, exit: Exit, reason: Option<String>) -> Arc<ShutdownReport> {
        self.tell(SupervisorMessage::Shutdown { exit, reason });
        self.ended_with_children().await
    }

    /// Kills all children at once and ends the supervisor; returns what became of them.
    ///
    /// # Cancel safety
    /// If the future is dropped, the supervisor ends all the same.
    pub async fn kill(&self) -> Arc<ShutdownReport> {
        self.tell(SupervisorMessage::Kill);
        self.ended_with_children().await
    }

    pub(crate) fn cell(&self) -> ActorCell {
        self.actor.get_cell()
    }

    /// Tells the supervisor something; one that has ended has no use for it.
    pub(crate) fn tell(&self, message: SupervisorMessage) {
        let _gone = self.actor.send_message(message);
    }

    async fn operate(
        &self,
        child: &ChildRef,
        operation: fn(ChildKey) -> Operation,
        reason: Option<String>,
    ) -> Result<Reply, OperationError> {
        let target = Target { child: child.clone(), reason: reason.map(Arc::from) };
        self.ask(|reply| SupervisorMessage::Operate { target, operation, reply }).await
    }

    async fn ask(
        &self,
        message: impl FnOnce(oneshot::Sender<Reply>) -> SupervisorMessage,
    ) -> Result<Reply, OperationError> {
        self.ask_for(message).await.ok_or(OperationError::SupervisorGone)
    }

    /// Asks something about one child.
    async fn ask_about<T>(
        &self,
        child: ChildRef,
        message: impl FnOnce(ChildRef, oneshot::Sender<Result<T, Refusal>>) -> SupervisorMessage,
    ) -> Result<T, OperationError> {
        let asked = child.clone();
        let answer = self.ask_for(|reply| message(asked, reply)).await;
        answer.ok_or(OperationError::SupervisorGone)?.map_err(|refusal| match refusal {
            Refusal::NotFound => OperationError::NotFound(child),
            refusal => OperationError::Refused { child, refusal },
        })
    }

    /// Sends a message that is answered; `None` if the supervisor ended without answering.
    async fn ask_for<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> SupervisorMessage) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.actor.send_message(message(reply)).ok()?;
        answer.await.ok()
    }
}

/// Why a signal was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// There is no such child.
    #[error("no child is called `{0}`")]
    NotFound(ChildRef),
    /// Children of a simple_one_for_one supervisor are named by their keys.
    #[error("child `{0}` of a simple_one_for_one supervisor has no id of its own")]
    SimpleOneForOne(ChildRef),
    /// Nothing of it runs.
    #[error("child `{0}` is not running")]
    NotRunning(ChildRef),
    /// It is no operating system process.
    #[error("child `{0}` is no process")]
    NoProcess(ChildRef),
    /// The system refused.
    #[error("failed to signal child `{child}`")]
    System {
        /// The child.
        child: ChildRef,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The supervisor has ended.
    #[error("the supervisor has ended")]
    SupervisorGone,
}

fn start_outcome(child: ChildRef, reply: Reply) -> Result<StartOutcome, OperationError> {
    match reply.outcome {
        Outcome::Started { child, incarnation } => {
            Ok(StartOutcome::Started { child, incarnation, info: reply.info })
        }
        Outcome::AlreadyRunning { .. } => Ok(StartOutcome::AlreadyRunning),
        Outcome::Added { .. } => Ok(StartOutcome::Added),
        Outcome::Ignored { .. } => Ok(StartOutcome::Ignored),
        outcome => Err(refused(child, outcome, reply.exit, reply.start_error)),
    }
}

fn stop_outcome(child: ChildRef, reply: Reply) -> Result<StopOutcome, OperationError> {
    match reply.outcome {
        Outcome::Stopped { exit, .. } => Ok(StopOutcome::Stopped(reply.exit.unwrap_or_else(|| {
            // Only a child that was called off before it ran has no report of its own.
            Arc::new(ExitReport::new(exit, Cause::Finished { reason: None }))
        }))),
        Outcome::NotRunning { .. } => Ok(StopOutcome::NotRunning),
        outcome => Err(refused(child, outcome, reply.exit, reply.start_error)),
    }
}

fn done(child: ChildRef, reply: Reply) -> Result<(), OperationError> {
    match reply.outcome {
        Outcome::Done => Ok(()),
        outcome => Err(refused(child, outcome, reply.exit, reply.start_error)),
    }
}

fn refused(
    child: ChildRef,
    outcome: Outcome,
    exit: Option<Arc<ExitReport>>,
    kind: Option<StartErrorKind>,
) -> OperationError {
    match outcome {
        Outcome::Refused(Refusal::NotFound) => OperationError::NotFound(child),
        Outcome::Refused(Refusal::StartFailed { .. }) => OperationError::StartFailed {
            child,
            cause: exit.map_or(Cause::Aborted, |report| report.cause.clone()),
            kind: kind.unwrap_or(StartErrorKind::Failed),
        },
        Outcome::Refused(refusal) => OperationError::Refused { child, refusal },
        // The policy answers each operation with an outcome of its own kind; see `Operation`.
        _ => OperationError::Refused { child, refusal: Refusal::Superseded },
    }
}

/// Creates the pure half of a supervisor and checks its specs.
pub(crate) fn policy_of(spec: SupervisorSpec, children: &Recipes, seed: u64) -> Result<Policy, SpecError> {
    let specs = children.iter().map(|(spec, _)| (spec.clone(), ())).collect();
    Policy::with_data(spec, specs, seed, |_, ()| ())
}
