//! The supervisor's state machine: `step(now, input) -> actions`.
//!
//! ```text
//!              Start                           Shutdown, limit, auto-shutdown,
//!  New ──────────────────► Running             a first start that failed
//!                            │  ▲  ─────────────────────────────────────► Ending ──────► Ended
//!          crash of a group  ▼  │ stopped in reverse, delay over          (stop in reverse)
//!                          rebuild
//! ```
//!
//! Order is kept by three facts and never by waiting: who is alive, who is queued to start, and whose turn it is. After
//! each input, [`Policy::step`] moves on as far as these allow: an ending supervisor stops its newest child, a group
//! that restarts does the same down to its first member and then queues itself, and the queue starts the next child when
//! the one whose turn it is has settled.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::{ChildReport, Next, SupervisorReport};
use crate::exit::Exit;
use crate::policy::backoff::{self, Jitter};
use crate::policy::intensity::{RestartWindow, Verdict};
use crate::policy::lifecycle::{After, ChildKey, Incarnation, Origin, Phase, State, Wanted};
use crate::policy::shutdown::{self, Rung};
use crate::policy::table::{Ascending, FastMap, KeySet, Table};
use crate::policy::{restart, strategy};
use crate::spec::{
    AutoShutdown, ChildId, ChildSpec, ChildType, Condition, Dependency, FailedStart, OnLimit, Order,
    RestartType, Shutdown, SpecError, Strategy, SupervisorSpec,
};

#[cfg(feature = "process")]
pub(crate) mod handover;
mod operation;
mod sequence;

pub use operation::{Operation, Outcome, Refusal};

/// Names a pending operation; chosen by the caller, who gets exactly one [`Action::Answer`] for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub u64);

/// Names one armed timer; a timer that fires with another token than the child's current one is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerToken(NonZeroU64);

impl Ascending for TimerToken {
    fn number(self) -> u64 {
        self.0.get()
    }
}

/// What happened, or what somebody asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The supervisor begins: its initial children are to be started.
    Start,
    /// A start goes on: the incarnation exists, and is not ready yet.
    Launched {
        /// The child.
        child: ChildKey,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// An incarnation is ready.
    Ready {
        /// The child.
        child: ChildKey,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// An incarnation that was ready cannot serve, or can again.
    Health {
        /// The child.
        child: ChildKey,
        /// Which start of it.
        incarnation: Incarnation,
        /// Whether it can serve.
        healthy: bool,
    },
    /// An incarnation has failed its health check for good: it is to be replaced, as after a crash.
    HealthFailed {
        /// The child.
        child: ChildKey,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// A start asks for more time: it must not time out before this long from now.
    ExtendStart {
        /// The child.
        child: ChildKey,
        /// Which start of it.
        incarnation: Incarnation,
        /// How long.
        by: Duration,
    },
    /// A stop needs so much less time than was planned for it: what follows it is due earlier. More than was planned, or
    /// as much, says nothing.
    StopAhead {
        /// The child.
        child: ChildKey,
        /// Which start of it.
        incarnation: Incarnation,
        /// How much.
        by: Duration,
    },
    /// A start said that there is nothing to run.
    Ignored {
        /// The child.
        child: ChildKey,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// A start failed; nothing of it runs.
    StartFailed {
        /// The child.
        child: ChildKey,
        /// Which start of it.
        incarnation: Incarnation,
        /// What kind of failure.
        failure: StartFailure,
    },
    /// An incarnation ended, and nothing of it runs.
    Exited {
        /// The child.
        child: ChildKey,
        /// Which start of it.
        incarnation: Incarnation,
        /// How.
        exit: Exit,
    },
    /// An armed timer is due.
    Timer {
        /// The child it was armed for.
        child: ChildKey,
        /// The token it was armed with.
        token: TimerToken,
    },
    /// Somebody asks for something.
    Operation {
        /// Names the answer.
        id: OperationId,
        /// What is asked.
        operation: Operation,
    },
    /// The supervisor is to stop its children in order and end.
    Shutdown {
        /// How it then ends.
        exit: Exit,
    },
    /// All children are to be killed at once and the supervisor is to end.
    Kill,
}

/// What kind of start failure this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFailure {
    /// It failed; counts as a crash.
    Failed,
    /// The machine lacks resources (EAGAIN, EMFILE, ENFILE, ENOMEM): tried again later, never counted.
    ResourceShortage,
}

/// What the performer of the policy is to do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Begin a start; it is answered by `Ready`, `Ignored`, `StartFailed` or `Exited`.
    Start {
        /// The child.
        child: ChildKey,
        /// The new incarnation.
        incarnation: Incarnation,
    },
    /// Ask the incarnation to end; it is answered by `Exited`.
    Stop {
        /// The child.
        child: ChildKey,
        /// Which incarnation.
        incarnation: Incarnation,
    },
    /// Kill the incarnation; it is answered by `Exited`.
    Kill {
        /// The child.
        child: ChildKey,
        /// Which incarnation.
        incarnation: Incarnation,
    },
    /// Stop waiting for a killed incarnation: it leaked.
    Abandon {
        /// The child.
        child: ChildKey,
        /// Which incarnation.
        incarnation: Incarnation,
    },
    /// Arm a timer.
    Arm {
        /// The child it belongs to.
        child: ChildKey,
        /// Its token.
        token: TimerToken,
        /// When it is due.
        at: Instant,
    },
    /// Make an armed timer due earlier, at once if that is past.
    Advance {
        /// Its token.
        token: TimerToken,
        /// How much.
        by: Duration,
    },
    /// Disarm a timer.
    Disarm {
        /// Its token.
        token: TimerToken,
    },
    /// Publish a report about a child.
    Report {
        /// The child.
        child: ChildKey,
        /// The incarnation it is about.
        incarnation: Incarnation,
        /// The report.
        report: ChildReport,
    },
    /// A child moved from one state to another. An initial child that waits for its turn is starting already; its first
    /// transition comes with the turn.
    Transition {
        /// The child.
        child: ChildKey,
        /// Before.
        from: State,
        /// After.
        to: State,
    },
    /// Answer an operation.
    Answer {
        /// Which one.
        id: OperationId,
        /// The answer.
        outcome: Outcome,
    },
    /// Forget a child: its spec is gone.
    Forget {
        /// The child.
        child: ChildKey,
    },
    /// Publish a report about the supervisor itself.
    ReportSelf {
        /// The report.
        report: SupervisorReport,
    },
    /// The supervisor's initial children have been started.
    Started,
    /// The supervisor ends; nothing of it runs any more.
    End {
        /// How.
        exit: Exit,
        /// The child whose first start failed, if that is why.
        failed_start: Option<ChildKey>,
    },
}

/// What can be seen of one child.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildView<'a> {
    /// Its key.
    pub key: ChildKey,
    /// Its spec.
    pub spec: &'a ChildSpec,
    /// Its current or last incarnation.
    pub incarnation: Incarnation,
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
    /// Automatic restarts since it was last started by hand.
    pub restarts: u64,
    /// When a waiting restart is due, and which and of how many it is.
    pub restart_at: Option<(Instant, u32, Option<u32>)>,
    /// The dependencies that a queued child waits for, each with the state that it is in, if it is there.
    pub waits_for: Vec<(&'a Dependency, Option<State>)>,
    /// Whether it ended while paused and waits for `resume`.
    pub held: bool,
}

/// A child. What each of its starts and exits needs comes first, so that one of many costs few cache lines.
#[derive(Debug, Clone)]
#[repr(C)]
struct Child<T> {
    incarnation: Incarnation,
    phase: Phase,
    timer: Option<TimerToken>,
    /// Automatic restarts since the backoff was last reset.
    attempt: u32,
    digest: Digest,
    wanted: Wanted,
    paused: bool,
    /// Whether the incarnation that was ready fails its health check.
    unhealthy: bool,
    /// Whether the incarnation has passed its health check at least once, or began without one.
    proven: bool,
    /// Whether the next start only tries one again that failed for want of resources, so that it is no restart.
    tries_again: bool,
    /// Whether the incarnation is known to exist, ready or not.
    launched: bool,
    /// Whether the latest incarnation ended by itself, normally.
    completed: bool,
    restarts: u64,
    /// What only children need that wait for a restart, are waited for or have a limit of their own.
    own: Option<Box<Own>>,
    /// What the performer keeps with the child.
    data: Option<T>,
    spec: Arc<ChildSpec>,
}

impl<T> Child<T> {
    /// Lets an operation wait for the child.
    fn wait(&mut self, waiter: Waiter) {
        self.own.get_or_insert_default().waiters.push(waiter);
    }

    /// Returns whether the incarnation, if it is ready, is healthy, too.
    fn is_healthy(&self) -> bool {
        self.proven && !self.unhealthy
    }

    fn set_spec(&mut self, spec: Arc<ChildSpec>) {
        self.digest = Digest::of(&spec);
        self.spec = spec;
    }
}

/// What a crash needs to know of a spec, so that it need not be fetched.
#[derive(Debug, Clone, Copy)]
struct Digest {
    restart: RestartType,
    shutdown: Shutdown,
    has_limit: bool,
    has_backoff: bool,
    has_start_timeout: bool,
    has_dependencies: bool,
}

impl Digest {
    fn of(spec: &ChildSpec) -> Self {
        Self {
            restart: spec.restart,
            shutdown: spec.shutdown,
            has_limit: spec.limit.is_some(),
            has_backoff: spec.backoff.is_some(),
            has_start_timeout: spec.start_timeout.is_some(),
            has_dependencies: !spec.depends_on.is_empty(),
        }
    }
}

impl<T> Child<T> {
    /// Returns until when at least this incarnation may take to start.
    fn start_until(&self) -> Option<Instant> {
        let (incarnation, until) = self.own.as_ref()?.start_until?;
        (incarnation == self.incarnation).then_some(until)
    }
}

#[derive(Debug, Clone, Default)]
struct Own {
    /// Which restart within the period the planned one is, and of how many.
    planned: (u32, Option<u32>),
    window: RestartWindow,
    waiters: Vec<Waiter>,
    /// Until when at least this incarnation may take to start.
    start_until: Option<(Incarnation, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiter {
    id: OperationId,
    goal: Goal,
}

/// What a pending operation waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Ready,
    Gone,
}

/// A group restart: everything from `from` on is stopped, then started.
#[derive(Debug, Clone, Copy)]
struct Rebuild {
    from: ChildKey,
    /// Whether a concurrent group has been asked to stop already.
    asked: bool,
}

#[derive(Debug, Clone, Copy)]
enum Life {
    New,
    Running,
    Ending { exit: Exit, failed_start: Option<ChildKey>, asked: bool },
    Ended,
}

/// How an attempt or an incarnation failed, for the report.
#[derive(Debug, Clone, Copy)]
enum Failure {
    Start(StartFailure),
    Exit(Exit),
}

impl Failure {
    fn report(self, next: Next) -> ChildReport {
        match self {
            Self::Start(_) => ChildReport::StartFailed { next },
            Self::Exit(exit) => ChildReport::Exited { exit, next },
        }
    }

    fn counts(self) -> bool {
        !matches!(self, Self::Start(StartFailure::ResourceShortage))
    }
}

/// The delays after a start that failed for want of resources, for children without a backoff of their own.
const SHORTAGE_BACKOFF: crate::spec::Backoff = crate::spec::Backoff {
    first: None,
    base: std::time::Duration::from_millis(100),
    factor: 2.0,
    max: std::time::Duration::from_secs(5),
    jitter: 0.1,
    reset_after: std::time::Duration::ZERO,
};

/// The state of one supervisor's policy. `T` is what its performer keeps with each child; policy never looks at it.
#[derive(Debug, Clone)]
pub struct Policy<T = ()> {
    spec: SupervisorSpec,
    children: Table<ChildKey, Child<T>>,
    /// What belongs to removed children, until the performer has been told to forget them.
    parted: Vec<(ChildKey, T)>,
    ids: FastMap<ChildId, ChildKey>,
    alive: KeySet,
    queued: KeySet,
    waiting: KeySet,
    /// Initial children that have not settled yet; the supervisor has started when none is left.
    initial: KeySet,
    started: bool,
    /// The child that an ordered sequence of starts waits for.
    turn: Option<ChildKey>,
    rebuild: Option<Rebuild>,
    /// Members that were terminated since the group restart under way began: it leaves them down.
    terminated: BTreeSet<ChildKey>,
    life: Life,
    window: RestartWindow,
    has_dependencies: bool,
    /// Whether a dependency may be followed in its restarts.
    has_followers: bool,
    next_key: u64,
    next_token: NonZeroU64,
    jitter: Jitter,
}

impl Policy {
    /// Creates a policy for these flags and initial children, which get the keys 1, 2, .. in this order.
    ///
    /// A simple_one_for_one supervisor has no initial children here; its template belongs to the performer.
    ///
    /// # Errors
    /// Names the first rule that a spec breaks.
    pub fn new(spec: SupervisorSpec, children: Vec<ChildSpec>, seed: u64) -> Result<Self, SpecError> {
        let children = children.into_iter().map(|child| (Arc::new(child), ())).collect();
        Self::with_data(spec, children, seed, |_, ()| ())
    }
}

impl<T> Policy<T> {
    /// The same with what belongs to each child, made of its recipe.
    pub(crate) fn with_data<R>(
        spec: SupervisorSpec,
        children: Vec<(Arc<ChildSpec>, R)>,
        seed: u64,
        mut data: impl FnMut(&ChildSpec, R) -> T,
    ) -> Result<Self, SpecError> {
        spec.validate()?;
        let mut policy = Self {
            spec,
            children: Table::with_capacity(children.len()),
            parted: Vec::new(),
            ids: FastMap::with_capacity_and_hasher(children.len(), <_>::default()),
            alive: KeySet::default(),
            queued: KeySet::default(),
            waiting: KeySet::default(),
            initial: KeySet::default(),
            started: false,
            turn: None,
            rebuild: None,
            terminated: BTreeSet::new(),
            life: Life::New,
            window: RestartWindow::default(),
            has_dependencies: false,
            has_followers: false,
            next_key: 1,
            next_token: NonZeroU64::MIN,
            jitter: Jitter::new(seed),
        };
        for (child, _) in &children {
            child.validate(&policy.spec)?;
        }
        for (child, recipe) in children {
            if policy.ids.contains_key(&child.id) {
                return Err(SpecError::DuplicateId(child.id.clone()));
            }
            let data = data(&child, recipe);
            policy.insert(child, Some(data));
        }
        policy.check_dependencies()?;
        Ok(policy)
    }

    /// Takes in what happened and appends what is to be done, in order.
    ///
    /// Inputs about another than the child's current incarnation, or with a stale timer token, change nothing.
    pub fn step(&mut self, now: Instant, input: Input, actions: &mut Vec<Action>) {
        let out = actions;
        match input {
            Input::Start => self.on_start(out),
            Input::Launched { child, incarnation } => self.on_launched(child, incarnation),
            Input::Ready { child, incarnation } => self.on_ready(child, incarnation, now, out),
            Input::Health { child, incarnation, healthy } => {
                self.on_health(child, incarnation, healthy, now, out);
            }
            Input::HealthFailed { child, incarnation } => self.on_health_failed(child, incarnation, now, out),
            Input::ExtendStart { child, incarnation, by } => {
                self.on_extend_start(child, incarnation, by, now)
            }
            Input::StopAhead { child, incarnation, by } => self.on_stop_ahead(child, incarnation, by, out),
            Input::Ignored { child, incarnation } => self.on_ignored(child, incarnation, now, out),
            Input::StartFailed { child, incarnation, failure } => {
                self.on_start_failed(child, incarnation, failure, now, out);
            }
            Input::Exited { child, incarnation, exit } => self.on_exited(child, incarnation, exit, now, out),
            Input::Timer { child, token } => self.on_timer(child, token, now, out),
            Input::Operation { id, operation } => self.on_operation(id, operation, now, out),
            Input::Shutdown { exit } => self.end(exit, None, out),
            Input::Kill => self.on_kill(now, out),
        }
        self.advance(now, out);
    }

    /// Returns the supervisor's flags.
    pub fn spec(&self) -> &SupervisorSpec {
        &self.spec
    }

    /// Returns whether the initial children have been started.
    pub fn is_started(&self) -> bool {
        self.started
    }

    /// Returns whether the supervisor is ending or has ended.
    pub fn is_ending(&self) -> bool {
        matches!(self.life, Life::Ending { .. } | Life::Ended)
    }

    /// Returns the key of the child with this id.
    pub fn key(&self, id: &str) -> Option<ChildKey> {
        self.ids.get(id).copied()
    }

    /// Returns whether this key was ever given to a child, be it gone or not.
    pub fn has_given(&self, key: ChildKey) -> bool {
        key > ChildKey::FIRST && key.get() < self.next_key
    }

    /// Returns how many children there are, in whatever state.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Returns whether there are no children.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Returns what can be seen of a child.
    pub fn child(&self, key: ChildKey) -> Option<ChildView<'_>> {
        self.children.get(key).map(|child| self.view(key, child))
    }

    /// Returns all children in start order, oldest first.
    pub fn children(&self) -> impl Iterator<Item = ChildView<'_>> {
        self.children.iter().map(|(key, child)| self.view(key, child))
    }

    /// Returns whether a child is being stopped because of its health.
    pub fn is_stopped_as_unhealthy(&self, key: ChildKey) -> bool {
        self.children
            .get(key)
            .is_some_and(|child| matches!(child.phase, Phase::Stopping { after: After::Unhealthy, .. }))
    }

    /// Returns whether this is a child's current incarnation, and alive.
    pub fn is_current(&self, key: ChildKey, incarnation: Incarnation) -> bool {
        self.current(key, incarnation).is_some()
    }

    fn view<'a>(&'a self, key: ChildKey, child: &'a Child<T>) -> ChildView<'a> {
        let restart_at = match child.phase {
            Phase::Waiting { until } => {
                let (nth, of) = child.own.as_ref().map_or((0, None), |own| own.planned);
                Some((until, nth, of))
            }
            _ => None,
        };
        let waits_for = match child.phase {
            Phase::Queued(_) => self
                .unmet_dependencies(child)
                .map(|dependency| (dependency, self.sibling(&dependency.on).map(|child| child.phase.state())))
                .collect(),
            _ => Vec::new(),
        };
        ChildView {
            key,
            spec: &child.spec,
            incarnation: child.incarnation,
            state: child.phase.state(),
            alive: child.phase.is_alive(),
            ready: matches!(child.phase, Phase::Ready { .. }) && !child.unhealthy,
            healthy: matches!(child.phase, Phase::Ready { .. }) && child.is_healthy(),
            wanted: child.wanted,
            paused: child.paused,
            restarts: child.restarts,
            restart_at,
            waits_for,
            held: child.phase == Phase::Held,
        }
    }

    // ---- Inputs. ----

    fn on_start(&mut self, out: &mut Vec<Action>) {
        if !matches!(self.life, Life::New) {
            return;
        }
        self.life = Life::Running;
        for key in (ChildKey::FIRST.get()..self.next_key).map(ChildKey::new) {
            let Some(child) = self.children.get(key) else { continue };
            if child.wanted == Wanted::Up && child.phase == Phase::Stopped {
                self.initial.insert(key);
                self.set_phase(key, Phase::Queued(Origin::Initial), out);
            }
        }
    }

    fn on_launched(&mut self, key: ChildKey, incarnation: Incarnation) {
        if matches!(self.current(key, incarnation), Some(Phase::Starting(_)))
            && let Some(child) = self.children.get_mut(key)
        {
            child.launched = true;
        }
    }

    fn on_ready(&mut self, key: ChildKey, incarnation: Incarnation, now: Instant, out: &mut Vec<Action>) {
        if !matches!(self.current(key, incarnation), Some(Phase::Starting(_))) {
            return;
        }
        self.disarm(key, out);
        if let Some(child) = self.children.get_mut(key) {
            child.unhealthy = false;
        }
        self.report(key, ChildReport::Ready, out);
        self.set_phase(key, Phase::Ready { since: now }, out);
        let outcome = Outcome::Started { child: key, incarnation };
        self.answer_waiters(key, Goal::Ready, outcome, out);
    }

    fn on_health(
        &mut self,
        key: ChildKey,
        incarnation: Incarnation,
        healthy: bool,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Some(Phase::Ready { since }) = self.current(key, incarnation) else { return };
        let Some(child) = self.children.get_mut(key) else { return };
        child.proven |= healthy;
        if child.unhealthy != healthy {
            return;
        }
        // Only the time in which it could serve counts as a stable run.
        self.note_stable_run(key, since, now);
        let Some(child) = self.children.get_mut(key) else { return };
        child.unhealthy = !healthy;
        child.phase = Phase::Ready { since: now };
        let report = if healthy { ChildReport::Healthy } else { ChildReport::Unhealthy };
        self.report(key, report, out);
    }

    fn on_health_failed(
        &mut self,
        key: ChildKey,
        incarnation: Incarnation,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        if !matches!(self.current(key, incarnation), Some(Phase::Ready { .. })) {
            return;
        }
        self.on_health(key, incarnation, false, now, out);
        // A paused child is left alone, and one that is to be stopped in its turn is not stopped before it.
        if !self.children[&key].paused && !self.consumes_exit_of(key) {
            self.stop(key, After::Unhealthy, now, out);
        }
    }

    fn on_extend_start(&mut self, key: ChildKey, incarnation: Incarnation, by: Duration, now: Instant) {
        if matches!(self.current(key, incarnation), Some(Phase::Starting(_)))
            && let Some(until) = now.checked_add(by)
            && let Some(child) = self.children.get_mut(key)
        {
            let asked = &mut child.own.get_or_insert_default().start_until;
            let before = asked.filter(|(whose, _)| *whose == incarnation).map(|(_, until)| until);
            *asked = Some((incarnation, before.map_or(until, |before| before.max(until))));
        }
    }

    fn on_stop_ahead(
        &mut self,
        key: ChildKey,
        incarnation: Incarnation,
        by: Duration,
        out: &mut Vec<Action>,
    ) {
        // The wait after a kill has nothing to do with how the stop was planned.
        if matches!(self.current(key, incarnation), Some(Phase::Stopping { rung: Rung::Asked, .. }))
            && let Some(Child { timer: Some(token), digest, .. }) = self.children.get(key)
            // Time that the plan had no room for is not taken away from it.
            && matches!(digest.shutdown, Shutdown::Timeout(planned) if by < planned)
        {
            let token = *token;
            out.push(Action::Advance { token, by });
        }
    }

    fn on_ignored(&mut self, key: ChildKey, incarnation: Incarnation, now: Instant, out: &mut Vec<Action>) {
        match self.current(key, incarnation) {
            Some(Phase::Starting(_)) => {
                self.disarm(key, out);
                self.report(key, ChildReport::Ignored, out);
                let child = (!self.is_dropped_when_ended(key)).then_some(key);
                self.answer_waiters(key, Goal::Ready, Outcome::Ignored { child }, out);
                self.answer_gone(key, Exit::Normal, out);
                self.rest(key, out);
            }
            // Nothing of it runs: that is what the stop asked for, and what follows the stop still follows.
            Some(Phase::Stopping { after, .. }) => self.gone(key, after, Exit::Shutdown, now, out),
            _ => {}
        }
    }

    fn on_start_failed(
        &mut self,
        key: ChildKey,
        incarnation: Incarnation,
        failure: StartFailure,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        match self.current(key, incarnation) {
            Some(Phase::Starting(_)) if self.consumes_exit_of(key) => {
                self.disarm(key, out);
                self.report(key, ChildReport::StartFailed { next: self.next_of_consumed(key) }, out);
                self.answer_gone(key, Exit::Abnormal, out);
                self.rest(key, out);
            }
            Some(Phase::Starting(origin)) => {
                self.disarm(key, out);
                self.start_failed(key, origin, Failure::Start(failure), now, out);
            }
            Some(Phase::Stopping { after, .. }) => self.gone(key, after, Exit::Shutdown, now, out),
            _ => {}
        }
    }

    fn on_exited(
        &mut self,
        key: ChildKey,
        incarnation: Incarnation,
        exit: Exit,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        if let Some(Phase::Ready { since }) = self.current(key, incarnation) {
            self.note_stable_run(key, since, now);
        }
        if exit == Exit::Normal {
            self.note_completed(key, incarnation);
        }
        match self.current(key, incarnation) {
            Some(Phase::Stopping { after, .. }) => self.gone(key, after, exit, now, out),
            Some(Phase::Starting(_) | Phase::Ready { .. }) if self.consumes_exit_of(key) => {
                self.disarm(key, out);
                self.report(key, ChildReport::Exited { exit, next: self.next_of_consumed(key) }, out);
                self.answer_gone(key, exit, out);
                self.rest(key, out);
            }
            Some(Phase::Starting(origin)) => {
                self.disarm(key, out);
                let restart_type = self.children[&key].digest.restart;
                if exit.is_abnormal() || restart::is_restarted(restart_type, exit) {
                    self.start_failed(key, origin, Failure::Exit(exit), now, out);
                } else {
                    self.refuse_ready_waiters(key, Refusal::StartFailed { child: key }, out);
                    self.ended_by_itself(key, exit, out);
                }
            }
            Some(Phase::Ready { .. }) => {
                let restart_type = self.children[&key].digest.restart;
                if restart::is_restarted(restart_type, exit) {
                    self.crashed(key, Failure::Exit(exit), now, out);
                } else {
                    self.ended_by_itself(key, exit, out);
                }
            }
            _ => {}
        }
    }

    fn on_timer(&mut self, key: ChildKey, token: TimerToken, now: Instant, out: &mut Vec<Action>) {
        let Some(child) = self.children.get_mut(key) else { return };
        if child.timer != Some(token) {
            return;
        }
        child.timer = None;
        match child.phase {
            Phase::Waiting { .. } => self.start_when_allowed(key, Origin::Automatic, now, out),
            Phase::Starting(origin) => {
                if let Some(until) = child.start_until().filter(|until| *until > now) {
                    return self.arm(key, until, out);
                }
                let consumed = self.consumes_exit_of(key);
                let after = if consumed { After::Group } else { After::StartFailed(origin) };
                self.stop(key, after, now, out);
            }
            Phase::Stopping { rung, after } => self.climb(key, rung, after, now, out),
            _ => {}
        }
    }

    fn on_kill(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.end(Exit::Killed, None, out);
        let alive: Vec<ChildKey> = self.alive.descending_to(ChildKey::FIRST).collect();
        for key in alive {
            match self.children[&key].phase {
                Phase::Stopping { rung: Rung::Killed, .. } => {}
                Phase::Stopping { rung: Rung::Asked, after } => self.climb(key, Rung::Asked, after, now, out),
                _ => {
                    let rung = shutdown::first(Shutdown::BrutalKill, self.spec.kill_timeout, now);
                    self.stop_with(key, rung, After::Rest, out);
                }
            }
        }
    }

    // ---- What follows an end. ----

    /// A start failed, or an incarnation ended before it was ready.
    fn start_failed(
        &mut self,
        key: ChildKey,
        origin: Origin,
        failure: Failure,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let child = &self.children[&key];
        let gives_up = child.spec.limit.is_some_and(|limit| limit.on_limit == OnLimit::GiveUp);
        let counts = gives_up || self.spec.failed_start == FailedStart::Counts;
        if !counts && origin != Origin::Automatic {
            return self.first_start_failed(key, origin, failure, out);
        }
        if child.digest.restart == RestartType::Temporary {
            // No limit is at work here: its restart type alone is why it is not tried again.
            let is_dropped = self.is_dropped_when_ended(key);
            let next = if is_dropped { Next::Removed } else { Next::Rest };
            self.report(key, failure.report(next), out);
            self.refuse_ready_waiters(key, Refusal::StartFailed { child: key }, out);
            if is_dropped {
                return self.remove(key, out);
            }
            return self.set_phase(key, Phase::Failed, out);
        }
        self.crashed(key, failure, now, out);
    }

    /// OTP's rules for starts that are no restarts: unwind, drop or leave stopped, without counting.
    fn first_start_failed(&mut self, key: ChildKey, origin: Origin, failure: Failure, out: &mut Vec<Action>) {
        let next = match origin {
            Origin::Initial => Next::SupervisorEnds,
            Origin::Added => Next::Removed,
            _ if self.is_dynamic() => Next::Removed,
            Origin::Asked | Origin::Automatic => Next::Rest,
        };
        self.report(key, failure.report(next), out);
        self.refuse_ready_waiters(key, Refusal::StartFailed { child: key }, out);
        if next == Next::Removed {
            return self.remove(key, out);
        }
        self.set_phase(key, Phase::Stopped, out);
        if origin == Origin::Initial {
            out.push(Action::ReportSelf { report: SupervisorReport::Unwinding });
            self.end(Exit::Shutdown, Some(key), out);
        }
    }

    /// A child is to be restarted, if its limit allows it.
    fn crashed(&mut self, key: ChildKey, failure: Failure, now: Instant, out: &mut Vec<Action>) {
        self.refuse_ready_waiters(key, Refusal::StartFailed { child: key }, out);
        if self.children[&key].paused {
            self.report(key, failure.report(Next::Held), out);
            return self.set_phase(key, Phase::Held, out);
        }
        let Some((nth, of)) = self.count(key, failure, now) else {
            return self.limit_reached(key, failure, out);
        };
        let unit = self.jitter.next_unit();
        let Some(child) = self.children.get_mut(key) else { return };
        child.attempt = child.attempt.saturating_add(1);
        child.tries_again = !failure.counts();
        let own = if child.digest.has_backoff { child.spec.backoff.as_ref() } else { None };
        let delay = match (own, failure.counts()) {
            (Some(backoff), _) => backoff::delay(backoff, child.attempt, unit),
            (None, true) => std::time::Duration::ZERO,
            (None, false) => backoff::delay(&SHORTAGE_BACKOFF, child.attempt, unit),
        };
        self.report(key, failure.report(Next::Restart { delay, nth, of }), out);
        // A retry after a failed start goes through the mailbox even without a delay, so that a stop can get in (as in OTP).
        let at_once = delay.is_zero() && matches!(failure, Failure::Exit(_));
        let group = strategy::group_start(self.spec.strategy, key);
        if let Some(from) = group {
            self.rebuild_from(from);
        }
        if at_once {
            self.start_when_allowed(key, Origin::Automatic, now, out);
        } else {
            if let Some(child) = self.children.get_mut(key) {
                child.own.get_or_insert_default().planned = (nth, of);
            }
            let until = now.checked_add(delay).unwrap_or(now);
            self.set_phase(key, Phase::Waiting { until }, out);
            self.arm(key, until, out);
        }
    }

    /// Counts a restart; `None` if the limit is reached.
    fn count(&mut self, key: ChildKey, failure: Failure, now: Instant) -> Option<(u32, Option<u32>)> {
        let child = self.children.get_mut(key)?;
        let own = child.digest.has_limit.then(|| child.spec.limit).flatten();
        let (limit, window) = match (own, &self.spec.intensity) {
            (Some(own), _) => (own.intensity, &mut child.own.get_or_insert_default().window),
            (None, Some(shared)) => (*shared, &mut self.window),
            (None, None) => return Some((0, None)),
        };
        if !failure.counts() {
            return Some((0, Some(limit.intensity)));
        }
        match window.add(&limit, now) {
            Verdict::Allowed { nth } => Some((nth, Some(limit.intensity))),
            Verdict::LimitReached => None,
        }
    }

    fn limit_reached(&mut self, key: ChildKey, failure: Failure, out: &mut Vec<Action>) {
        let gives_up = self.children[&key].spec.limit.is_some_and(|limit| limit.on_limit == OnLimit::GiveUp);
        if gives_up {
            self.report(key, failure.report(Next::Failed), out);
            return self.set_phase(key, Phase::Failed, out);
        }
        self.report(key, failure.report(Next::Escalates), out);
        self.rest(key, out);
        out.push(Action::ReportSelf { report: SupervisorReport::LimitReached });
        self.end(Exit::Escalated, None, out);
    }

    /// A child ended by itself and is not to be restarted.
    fn ended_by_itself(&mut self, key: ChildKey, exit: Exit, out: &mut Vec<Action>) {
        let significant = self.children[&key].spec.significant;
        let removed = self.is_dropped_when_ended(key);
        let next = if removed { Next::Removed } else { Next::Rest };
        self.report(key, ChildReport::Exited { exit, next }, out);
        self.rest(key, out);
        if !significant {
            return;
        }
        let ends = match self.spec.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => true,
            AutoShutdown::AllSignificant => {
                !self.children.iter().any(|(key, child)| child.spec.significant && self.is_left(key, child))
            }
        };
        if ends {
            out.push(Action::ReportSelf { report: SupervisorReport::AutoShutdown });
            self.end(Exit::Shutdown, None, out);
        }
    }

    /// Returns whether a child runs or is to run again without anybody asking for it (as in OTP).
    fn is_left(&self, key: ChildKey, child: &Child<T>) -> bool {
        match child.phase {
            Phase::Queued(_)
            | Phase::Waiting { .. }
            | Phase::Held
            | Phase::Starting(_)
            | Phase::Ready { .. } => true,
            Phase::Stopping { after: After::Start | After::StartFailed(_) | After::Unhealthy, .. } => true,
            Phase::Stopping { after: After::Group, .. } => self.comes_back(key),
            Phase::Stopping { after: After::Rest | After::Remove, .. } | Phase::Failed => false,
            Phase::Stopped => self.is_rebuilding(key) && !child.paused && self.comes_back(key),
        }
    }

    /// An incarnation that was being stopped is gone.
    fn gone(&mut self, key: ChildKey, after: After, exit: Exit, now: Instant, out: &mut Vec<Action>) {
        self.disarm(key, out);
        if after == After::Unhealthy {
            return self.unhealthy_gone(key, exit, now, out);
        }
        // A start that was given up ends once, as what it was: what follows says so.
        if !matches!(after, After::StartFailed(_)) {
            let clean = self.is_clean_stop(key, exit);
            self.report(key, ChildReport::Stopped { exit, clean }, out);
        }
        self.answer_gone(key, exit, out);
        match after {
            After::Rest => {
                self.refuse_ready_waiters(key, Refusal::Superseded, out);
                self.rest(key, out);
            }
            After::Remove => self.remove(key, out),
            After::Group => self.member_gone(key, now, out),
            After::Start => self.start_when_allowed(key, Origin::Asked, now, out),
            After::StartFailed(origin) => {
                self.start_failed(key, origin, Failure::Start(StartFailure::Failed), now, out);
            }
            After::Unhealthy => {}
        }
    }

    /// An incarnation that was stopped because of its health is gone: it has crashed, however it ended.
    fn unhealthy_gone(&mut self, key: ChildKey, exit: Exit, now: Instant, out: &mut Vec<Action>) {
        let exit = if exit.is_abnormal() { exit } else { Exit::Abnormal };
        if self.consumes_exit_of(key) {
            self.report(key, ChildReport::Exited { exit, next: self.next_of_consumed(key) }, out);
            self.answer_gone(key, exit, out);
            self.rest(key, out);
        } else if restart::is_restarted(self.children[&key].spec.restart, exit) {
            self.crashed(key, Failure::Exit(exit), now, out);
        } else {
            self.ended_by_itself(key, exit, out);
        }
    }

    /// A member that was stopped by a group restart is gone; the restart may have gone on without it if it was paused.
    fn member_gone(&mut self, key: ChildKey, now: Instant, out: &mut Vec<Action>) {
        if !self.comes_back(key) {
            self.refuse_ready_waiters(key, Refusal::Superseded, out);
            self.rest(key, out);
        } else if self.children[&key].paused {
            self.refuse_ready_waiters(key, Refusal::Superseded, out);
            self.set_phase(key, Phase::Held, out);
        } else if self.is_rebuilding(key) {
            // Whoever waits for it to be ready goes on waiting: it is started again.
            self.rest(key, out);
        } else {
            self.start_when_allowed(key, Origin::Automatic, now, out);
        }
    }

    /// OTP's table of clean stops (for its shutdown_error reports): in no case does it change what happens next.
    fn is_clean_stop(&self, key: ChildKey, exit: Exit) -> bool {
        let spec = self.children[&key].digest;
        match (spec.shutdown, exit) {
            (Shutdown::BrutalKill, Exit::Killed) => true,
            (Shutdown::BrutalKill, Exit::Shutdown) => spec.restart != RestartType::Permanent,
            (_, Exit::Shutdown) => true,
            (_, Exit::Normal) => spec.restart != RestartType::Permanent,
            _ => false,
        }
    }

    pub(super) fn note_stable_run(&mut self, key: ChildKey, since: Instant, now: Instant) {
        let Some(child) = self.children.get_mut(key).filter(|child| !child.unhealthy) else { return };
        let ready_for = now.saturating_duration_since(since);
        let resets = |child: &Child<T>| {
            child.spec.backoff.as_ref().is_none_or(|spec| backoff::is_reset(spec, ready_for))
        };
        if !child.digest.has_backoff || resets(child) {
            child.attempt = 0;
        }
    }

    // ---- Small steps. ----

    fn insert(&mut self, spec: Arc<ChildSpec>, data: Option<T>) -> ChildKey {
        let key = ChildKey::new(self.next_key);
        self.next_key += 1;
        if !self.is_dynamic() {
            self.ids.insert(spec.id.clone(), key);
        }
        self.note_dependencies(&spec);
        let wanted = if spec.autostart { Wanted::Up } else { Wanted::Down };
        let child = Child {
            incarnation: Incarnation::NONE,
            phase: Phase::Stopped,
            timer: None,
            attempt: 0,
            digest: Digest::of(&spec),
            wanted,
            paused: false,
            unhealthy: false,
            proven: true,
            tries_again: false,
            launched: false,
            completed: false,
            restarts: 0,
            own: None,
            data,
            spec,
        };
        self.children.insert(key, child);
        key
    }

    fn remove(&mut self, key: ChildKey, out: &mut Vec<Action>) {
        self.disarm(key, out);
        self.set_phase(key, Phase::Stopped, out);
        self.initial.remove(key);
        self.answer_waiters(key, Goal::Ready, Outcome::Refused(Refusal::Superseded), out);
        self.answer_waiters(key, Goal::Gone, Outcome::NotRunning { child: key }, out);
        self.report(key, ChildReport::Removed, out);
        if let Some(child) = self.children.remove(key) {
            if self.ids.get(&child.spec.id) == Some(&key) {
                self.ids.remove(&child.spec.id);
            }
            self.parted.extend(child.data.map(|data| (key, data)));
        }
        out.push(Action::Forget { child: key });
    }

    /// Leaves an ended child stopped, or removes it if its spec goes with it.
    fn rest(&mut self, key: ChildKey, out: &mut Vec<Action>) {
        if self.is_dropped_when_ended(key) {
            self.remove(key, out);
        } else {
            self.set_phase(key, Phase::Stopped, out);
        }
    }

    fn is_dynamic(&self) -> bool {
        self.spec.strategy == Strategy::SimpleOneForOne
    }

    fn is_dropped_when_ended(&self, key: ChildKey) -> bool {
        let child = &self.children[&key];
        self.is_dynamic() || (child.digest.restart == RestartType::Temporary && !child.spec.retain)
    }

    /// Returns the phase of the child if `incarnation` is its current one and alive.
    fn current(&self, key: ChildKey, incarnation: Incarnation) -> Option<Phase> {
        let child = self.children.get(key)?;
        (child.incarnation == incarnation && child.phase.is_alive()).then_some(child.phase)
    }

    /// Returns whether the exit of this child is part of a stop that is under way for it anyway.
    fn consumes_exit_of(&self, key: ChildKey) -> bool {
        self.is_ending() || (self.is_rebuilding(key) && !self.children[&key].paused)
    }

    fn is_rebuilding(&self, key: ChildKey) -> bool {
        self.rebuild.is_some_and(|rebuild| key >= rebuild.from)
    }

    fn next_of_consumed(&self, key: ChildKey) -> Next {
        if self.is_ending() {
            Next::SupervisorEnds
        } else if self.comes_back(key) {
            Next::Restart { delay: std::time::Duration::ZERO, nth: 0, of: None }
        } else if self.is_dropped_when_ended(key) {
            Next::Removed
        } else {
            Next::Rest
        }
    }

    fn set_phase(&mut self, key: ChildKey, phase: Phase, out: &mut Vec<Action>) {
        let Some(child) = self.children.get_mut(key) else { return };
        let from = child.phase;
        child.phase = phase;
        let indexed = |phase| match phase {
            Phase::Starting(_) | Phase::Ready { .. } | Phase::Stopping { .. } => Some(Index::Alive),
            Phase::Queued(_) => Some(Index::Queued),
            Phase::Waiting { .. } => Some(Index::Waiting),
            Phase::Stopped | Phase::Failed | Phase::Held => None,
        };
        let (was, is) = (indexed(from), indexed(phase));
        if was != is {
            if let Some(index) = was {
                self.index(index).remove(key);
            }
            if let Some(index) = is {
                self.index(index).insert(key);
            }
        }
        let settled = match phase {
            Phase::Ready { .. } | Phase::Failed | Phase::Held => true,
            // A group restart may still bring it back.
            Phase::Stopped => !self.is_rebuilding(key),
            _ => false,
        };
        if settled {
            self.initial.remove(key);
        }
        // A supervisor has many initial children: that one waits for its turn is told when the turn comes.
        let initial = |phase| matches!(phase, Phase::Queued(Origin::Initial));
        if initial(phase) {
            return;
        }
        if initial(from) {
            out.push(Action::Transition { child: key, from: State::Stopped, to: State::Starting });
        }
        if from.state() != phase.state() {
            out.push(Action::Transition { child: key, from: from.state(), to: phase.state() });
        }
    }

    fn index(&mut self, index: Index) -> &mut KeySet {
        match index {
            Index::Alive => &mut self.alive,
            Index::Queued => &mut self.queued,
            Index::Waiting => &mut self.waiting,
        }
    }

    fn report(&self, key: ChildKey, report: ChildReport, out: &mut Vec<Action>) {
        if let Some(child) = self.children.get(key) {
            out.push(Action::Report { child: key, incarnation: child.incarnation, report });
        }
    }

    fn arm(&mut self, key: ChildKey, at: Instant, out: &mut Vec<Action>) {
        self.disarm(key, out);
        let token = TimerToken(self.next_token);
        self.next_token = self.next_token.saturating_add(1);
        if let Some(child) = self.children.get_mut(key) {
            child.timer = Some(token);
            out.push(Action::Arm { child: key, token, at });
        }
    }

    fn disarm(&mut self, key: ChildKey, out: &mut Vec<Action>) {
        if let Some(token) = self.children.get_mut(key).and_then(|child| child.timer.take()) {
            out.push(Action::Disarm { token });
        }
    }

    fn answer_waiters(&mut self, key: ChildKey, goal: Goal, outcome: Outcome, out: &mut Vec<Action>) {
        let Some(child) = self.children.get_mut(key) else { return };
        let Some(own) = &mut child.own else { return };
        own.waiters.retain(|waiter| {
            let answered = waiter.goal == goal;
            if answered {
                out.push(Action::Answer { id: waiter.id, outcome: outcome.clone() });
            }
            !answered
        });
        let is_extended = own.start_until.is_some() && matches!(child.phase, Phase::Starting(_));
        let is_idle = own.waiters.is_empty() && own.window.is_empty() && !is_extended;
        if is_idle && !matches!(child.phase, Phase::Waiting { .. }) {
            child.own = None;
        }
    }

    fn answer_gone(&mut self, key: ChildKey, exit: Exit, out: &mut Vec<Action>) {
        self.answer_waiters(key, Goal::Gone, Outcome::Stopped { child: key, exit }, out);
    }

    fn refuse_ready_waiters(&mut self, key: ChildKey, refusal: Refusal, out: &mut Vec<Action>) {
        self.answer_waiters(key, Goal::Ready, Outcome::Refused(refusal), out);
    }

    /// Returns what `count_children` answers: specs, active, supervisors, workers (as in OTP).
    pub fn counts(&self) -> crate::snapshot::Counts {
        let mut counts = crate::snapshot::Counts::default();
        for child in self.children.iter().map(|(_, child)| child) {
            counts.specs += 1;
            counts.active += usize::from(child.phase.is_alive());
            match child.spec.child_type {
                ChildType::Supervisor => counts.supervisors += 1,
                ChildType::Worker => counts.workers += 1,
            }
        }
        if self.is_dynamic() {
            counts.specs = 1;
        }
        counts
    }

    /// Returns whether starts and stops go one by one.
    fn is_ordered(&self) -> bool {
        self.spec.order == Order::Ordered
    }
}

/// What belongs to the children, for the performer.
#[cfg(feature = "runtime")]
impl<T> Policy<T> {
    /// Returns what belongs to a child, also to one that is gone and not yet forgotten.
    pub(crate) fn data(&self, key: ChildKey) -> Option<&T> {
        match self.children.get(key) {
            Some(child) => child.data.as_ref(),
            None => self.parted.iter().find(|(parted, _)| *parted == key).map(|(_, data)| data),
        }
    }

    /// The same, to change it.
    pub(crate) fn data_mut(&mut self, key: ChildKey) -> Option<&mut T> {
        match self.children.get_mut(key) {
            Some(child) => child.data.as_mut(),
            None => self.parted.iter_mut().find(|(parted, _)| *parted == key).map(|(_, data)| data),
        }
    }

    /// Returns what belongs to all children, those that are not yet forgotten included.
    pub(crate) fn all_data(&self) -> impl Iterator<Item = &T> {
        let children = self.children.iter().filter_map(|(_, child)| child.data.as_ref());
        children.chain(self.parted.iter().map(|(_, data)| data))
    }

    /// Keeps this with a child, which must be there.
    pub(crate) fn attach(&mut self, key: ChildKey, data: T) {
        if let Some(child) = self.children.get_mut(key) {
            child.data = Some(data);
        }
    }

    /// Takes what belonged to a child that is gone.
    pub(crate) fn forget(&mut self, key: ChildKey) -> Option<T> {
        let position = self.parted.iter().position(|(parted, _)| *parted == key)?;
        Some(self.parted.swap_remove(position).1)
    }

    /// Returns what belongs to a child if this is its current incarnation, and alive.
    pub(crate) fn data_of_current(&mut self, key: ChildKey, incarnation: Incarnation) -> Option<&mut T> {
        let child = self.children.get_mut(key)?;
        if child.incarnation != incarnation || !child.phase.is_alive() {
            return None;
        }
        child.data.as_mut()
    }
}

/// Which index a child is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Index {
    Alive,
    Queued,
    Waiting,
}
