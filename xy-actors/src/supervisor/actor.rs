//! The supervisor actor: turns messages and runtime events into inputs, and performs the actions that policy returns.
//!
//! It owns the live children and never waits for one: a start that is not done at its first poll goes on in a task, a
//! stop is only asked for, and both come back as messages. It decides nothing about restarts.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, ActorStatus, SupervisionEvent};
use tokio::sync::{oneshot, watch};

use crate::child::{
    Child, Reporter, StartContext, StartError, StartErrorKind, StartFuture, Started, panic_text,
};
use crate::event::ring::Label;
use crate::event::stream::{EventKind, unix_ms};
use crate::event::{ChildReport, Next, SupervisorReport};
use crate::exit::{Cause, Exit, ExitReport};
use crate::path::TreePath;
use crate::policy::table::FastMap;
use crate::policy::{
    Action, ChildKey, ChildView, Incarnation, Input, Operation, OperationId, Outcome, Policy, Refusal,
    StartFailure, State,
};
use crate::spec::{ChildSpec, Dependency, SpecError, Strategy, SupervisorSpec};
use crate::supervisor::alike::Alike;
use crate::supervisor::line::{Line, Lines};
use crate::supervisor::message::{Health, Reply, SupervisorMessage, Target};
use crate::supervisor::place::Place;
use crate::supervisor::record::{Live, Record};
use crate::supervisor::timers::Timers;
use crate::supervisor::{
    ChildHistory, ChildInfo, ChildRef, EarlierExit, Life, Planned, Recipes, ShutdownReport, SignalError,
    Supervisor, Tree,
};

#[cfg(feature = "process")]
mod handover;
#[cfg(feature = "process")]
pub(crate) use handover::HoldReply;

/// What a supervisor actor is made from.
pub(crate) struct SupervisorArguments {
    policy: Policy<Record>,
    path: TreePath,
    tree: Tree,
    parent: Option<Reporter>,
    life: watch::Sender<Life>,
    #[cfg(feature = "process")]
    inheritance: Option<handover::Inheritance>,
}

impl SupervisorArguments {
    pub(crate) fn new(
        spec: SupervisorSpec,
        children: Recipes,
        seed: u64,
        path: TreePath,
        tree: Tree,
        parent: Option<Reporter>,
    ) -> Result<(Self, watch::Receiver<Life>), SpecError> {
        let policy =
            Policy::with_data(spec, children, seed, |spec, recipe| Record::new(recipe, path.join(&spec.id)))?;
        let (life, receiver) = watch::channel(Life::Starting);
        let arguments = Self {
            policy,
            path,
            tree,
            parent,
            life,
            #[cfg(feature = "process")]
            inheritance: None,
        };
        Ok((arguments, receiver))
    }
}

/// A supervisor's policy and what it owns.
pub(crate) struct SupervisorState {
    policy: Policy<Record>,
    path: TreePath,
    /// What its own events bear in the tree's log.
    label: Option<Label>,
    tree: Tree,
    /// What its children are told of where they are.
    place: Arc<Place>,
    by_actor: FastMap<ActorId, (ChildKey, Incarnation)>,
    /// Exits of actors whose start has not been taken in yet: events overtake messages.
    early_exits: FastMap<ActorId, Arc<ExitReport>>,
    pending_starts: usize,
    replies: HashMap<OperationId, oneshot::Sender<Reply>>,
    next_operation: u64,
    timers: Timers,
    lines: Lines,
    /// The child whose recipe is about to be stored: `start_child` learns the key only from the policy.
    adopting: Option<Arc<dyn Child>>,
    /// The latest report of the step under way: the reason of the transition that follows.
    last_report: Option<(ChildKey, ChildReport)>,
    /// Empty between messages; kept for their memory.
    actions: Vec<Action>,
    inputs: VecDeque<Input>,
    remarks: Vec<Remark>,
    clock: Clock,
    alike: Alike,
    end: EndGuard,
    #[cfg(feature = "process")]
    standstill: handover::Standstill,
    /// What an earlier program of this process left, until it is taken up.
    #[cfg(feature = "process")]
    inheritance: Option<handover::Inheritance>,
}

/// Tells the parent and whoever waits how the supervisor ended, exactly once, also when the actor is killed or panics.
struct EndGuard {
    parent: Option<Reporter>,
    life: watch::Sender<Life>,
    root_events: Option<crate::event::stream::EventLog>,
    told: bool,
    /// What becomes of the children meanwhile.
    children: ShutdownReport,
    /// What whoever asked for the end said.
    reason: Option<String>,
    /// Which limit was exceeded, and by whom.
    limit: Option<String>,
    /// The nested supervisor that failed last.
    failing: Option<(ChildKey, Incarnation, Supervisor)>,
}

impl EndGuard {
    /// Notes what happened to a child while the supervisor ends, or that it was what ended it.
    fn note(
        &mut self,
        policy: &Policy<Record>,
        (child, incarnation): (ChildKey, Incarnation),
        path: &TreePath,
        report: ChildReport,
        exit: Option<&ExitReport>,
    ) {
        if let ChildReport::Exited { next: Next::Escalates, .. }
        | ChildReport::StartFailed { next: Next::Escalates } = report
        {
            if let Some((failed, of, nested)) = self.failing.take()
                && (failed, of) == (child, incarnation)
            {
                nested.merge_end_into(&mut self.children);
            }
            self.limit = Some(limit_text(policy, child, path, exit));
        }
        self.children.note(path, report, exit);
    }

    fn tell(&mut self, report: ExitReport) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let mut children = std::mem::take(&mut self.children);
        (children.exit, children.cause) = (report.exit, report.cause.clone());
        let started = matches!(*self.life.borrow(), Life::Started);
        self.life.send_replace(Life::Ended {
            report: Arc::new(report.clone()),
            children: Arc::new(children),
            started,
        });
        if let Some(parent) = &self.parent {
            parent.exited(report);
        }
        if let Some(events) = &self.root_events {
            events.close();
        }
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.tell(ExitReport::new(Exit::Killed, Cause::Aborted));
    }
}

/// The behavior of a supervisor actor.
pub(crate) struct SupervisorActor;

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for SupervisorActor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = SupervisorArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
        arguments: SupervisorArguments,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        myself.send_message(SupervisorMessage::Begin)?;
        Ok(SupervisorState::new(&myself, arguments))
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        state.on_message(&myself, message);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                let report = state.alike.failed(&error);
                state.on_actor_ended(&myself, cell.get_id(), report);
            }
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                let report = state.alike.share(ExitReport::of_stopped_actor(reason));
                state.on_actor_ended(&myself, cell.get_id(), report);
            }
            // A start is known from what `spawn_linked` returned; this event comes later.
            _ => {}
        }
        Ok(())
    }
}

impl Drop for SupervisorState {
    fn drop(&mut self) {
        let children = self.policy.all_data().filter_map(|record| record.label);
        self.tree.events.part(children.chain(self.label));
    }
}

impl SupervisorState {
    fn new(myself: &ActorRef<SupervisorMessage>, arguments: SupervisorArguments) -> Self {
        let SupervisorArguments {
            policy,
            path,
            tree,
            parent,
            life,
            #[cfg(feature = "process")]
            inheritance,
        } = arguments;
        let handle = Supervisor {
            actor: myself.clone(),
            path: path.clone(),
            tree: tree.clone(),
            life: life.subscribe(),
        };
        let place = Arc::new(Place::new(handle, parent.as_ref().map(Reporter::place)));
        let mut by_actor = FastMap::default();
        by_actor.reserve(policy.len());
        let root_events = parent.is_none().then(|| tree.events.clone());
        Self {
            policy,
            path,
            label: None,
            tree,
            place,
            by_actor,
            early_exits: FastMap::default(),
            pending_starts: 0,
            replies: HashMap::new(),
            next_operation: 1,
            timers: Timers::default(),
            lines: Lines::default(),
            adopting: None,
            last_report: None,
            actions: Vec::new(),
            inputs: VecDeque::new(),
            remarks: Vec::new(),
            clock: Clock::new(),
            alike: Alike::default(),
            end: EndGuard {
                parent,
                life,
                root_events,
                told: false,
                children: ShutdownReport::default(),
                reason: None,
                limit: None,
                failing: None,
            },
            #[cfg(feature = "process")]
            standstill: handover::Standstill::No,
            #[cfg(feature = "process")]
            inheritance,
        }
    }

    // ---- Messages. ----

    fn on_message(&mut self, myself: &ActorRef<SupervisorMessage>, message: SupervisorMessage) {
        self.clock.read();
        match message {
            SupervisorMessage::Begin => {
                #[cfg(feature = "process")]
                if let Some(inheritance) = self.inheritance.take() {
                    return self.on_take_up(myself, inheritance);
                }
                self.tell_earlier_exits();
                self.feed(myself, Input::Start);
            }
            SupervisorMessage::StartChild { spec, child, reply } => {
                self.adopting = Some(child);
                self.operate(myself, Operation::StartChild(spec), reply);
                self.adopting = None;
            }
            SupervisorMessage::Operate { target, operation, reply } => {
                self.on_operate(myself, target, operation, reply);
            }
            SupervisorMessage::Update { spec, child, reply } => self.on_update(myself, spec, child, reply),
            SupervisorMessage::Signal { child, signal, reply } => {
                let _gone = reply.send(self.on_signal(child, signal));
            }
            SupervisorMessage::WhichChildren { reply } => {
                let now = now();
                let children = self.policy.children().map(|child| self.info(&child, now)).collect();
                let _gone = reply.send(children);
            }
            SupervisorMessage::WhichChild { child, reply } => {
                let _gone = reply.send(self.on_which_child(&child));
            }
            SupervisorMessage::ChildSpec { child, reply } => {
                let _gone = reply.send(self.on_child_spec(&child));
            }
            SupervisorMessage::ChildSupervisor { child, reply } => {
                let _gone = reply.send(self.on_child_supervisor(&child));
            }
            SupervisorMessage::Line { child, reply } => {
                let _gone = reply.send(self.on_line(&child));
            }
            SupervisorMessage::CountChildren { reply } => {
                let _gone = reply.send(self.policy.counts());
            }
            SupervisorMessage::StartFinished { child, incarnation, result } => {
                self.on_start_finished(myself, child, incarnation, result);
            }
            SupervisorMessage::Ready { child, incarnation } => {
                self.on_ready(myself, child, incarnation);
            }
            SupervisorMessage::Exited { child, incarnation, report } => {
                let report = self.alike.share(*report);
                self.on_exited(myself, child, incarnation, report);
            }
            SupervisorMessage::WaitsFor { child, incarnation, what } => {
                if self.is_current(child, incarnation)
                    && let Some(record) = self.policy.data_mut(child)
                {
                    record.set_waits_for(what);
                }
            }
            SupervisorMessage::Health { child, incarnation, health } => {
                self.on_health(myself, child, incarnation, health);
            }
            SupervisorMessage::ExtendStart { child, incarnation, by } => {
                self.feed(myself, Input::ExtendStart { child, incarnation, by });
            }
            SupervisorMessage::StopAhead { child, incarnation, by } => {
                self.feed(myself, Input::StopAhead { child, incarnation, by });
            }
            SupervisorMessage::TimersDue => self.on_timers_due(myself),
            SupervisorMessage::Shutdown { exit, reason } => {
                if !self.policy.is_ending() {
                    self.end.reason = reason;
                }
                self.feed(myself, Input::Shutdown { exit });
            }
            SupervisorMessage::Kill => self.feed(myself, Input::Kill),
            #[cfg(feature = "process")]
            SupervisorMessage::Hold { now, reply } => self.on_hold(now, reply),
            #[cfg(feature = "process")]
            SupervisorMessage::HoldNow => self.on_hold_now(),
            #[cfg(feature = "process")]
            SupervisorMessage::HandOver { now, reply } => {
                let _gone = reply.send(self.on_hand_over(now));
            }
            #[cfg(feature = "process")]
            SupervisorMessage::GoOn => self.on_go_on(myself),
        }
    }

    fn on_operate(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        target: Target,
        operation: fn(ChildKey) -> Operation,
        reply: oneshot::Sender<Reply>,
    ) {
        let key = match self.resolve(&target.child) {
            Ok(key) => key,
            Err(refusal) => return self.refuse_operation(&target.child, operation, refusal, reply),
        };
        if let Some(reason) = target.reason
            && let Some(record) = self.policy.data_mut(key)
        {
            record.set_asked(reason);
        }
        self.operate(myself, operation(key), reply);
    }

    fn on_update(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        spec: Arc<ChildSpec>,
        child: Option<Arc<dyn Child>>,
        reply: oneshot::Sender<Reply>,
    ) {
        let Some(key) = self.policy.key(spec.id.as_str()) else {
            return refuse(reply, Refusal::NotFound);
        };
        if spec.validate(self.policy.spec()).is_ok()
            && let (Some(recipe), Some(record)) = (child, self.policy.data_mut(key))
        {
            if let Live::Running(running) = &mut record.live {
                running.follow(&*recipe);
            }
            record.recipe = recipe;
        }
        self.operate(myself, Operation::Update(key, spec), reply);
    }

    fn operate(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        operation: Operation,
        reply: oneshot::Sender<Reply>,
    ) {
        let id = OperationId(self.next_operation);
        self.next_operation += 1;
        self.replies.insert(id, reply);
        self.feed(myself, Input::Operation { id, operation });
    }

    fn on_signal(&mut self, child: ChildRef, signal: i32) -> Result<(), SignalError> {
        let key = match self.resolve(&child) {
            Ok(key) => key,
            Err(Refusal::SimpleOneForOne) => return Err(SignalError::SimpleOneForOne(child)),
            Err(_) => return Err(SignalError::NotFound(child)),
        };
        let Some(Live::Running(running)) = self.policy.data_mut(key).map(|record| &mut record.live) else {
            return Err(SignalError::NotRunning(child));
        };
        match running.signal(signal) {
            None => Err(SignalError::NoProcess(child)),
            Some(Ok(())) => Ok(()),
            Some(Err(source)) => Err(SignalError::System { child, source }),
        }
    }

    /// Returns the key of the child that is meant; children of a simple_one_for_one supervisor have no ids.
    fn resolve(&self, child: &ChildRef) -> Result<ChildKey, Refusal> {
        match child {
            ChildRef::Id(_) if self.policy.spec().strategy == Strategy::SimpleOneForOne => {
                Err(Refusal::SimpleOneForOne)
            }
            ChildRef::Id(id) => self.policy.key(id.as_str()).ok_or(Refusal::NotFound),
            ChildRef::Key(key) => self.policy.child(*key).map(|child| child.key).ok_or(Refusal::NotFound),
        }
    }

    /// Answers an operation on a child that is not there: by key, what is gone already need not be ended.
    fn refuse_operation(
        &self,
        child: &ChildRef,
        operation: fn(ChildKey) -> Operation,
        refusal: Refusal,
        reply: oneshot::Sender<Reply>,
    ) {
        if let ChildRef::Key(key) = child
            && self.policy.has_given(*key)
            && matches!(
                operation(*key),
                Operation::TerminateChild(_) | Operation::Stop(_) | Operation::Remove(_)
            )
        {
            return answer_at_once(reply, Outcome::NotRunning { child: *key });
        }
        refuse(reply, refusal);
    }

    fn on_child_spec(&self, child: &ChildRef) -> Result<ChildSpec, Refusal> {
        let key = self.resolve(child)?;
        self.policy.child(key).map(|view| view.spec.clone()).ok_or(Refusal::NotFound)
    }

    fn on_which_child(&self, child: &ChildRef) -> Result<Box<(ChildInfo, ChildHistory)>, Refusal> {
        let key = self.resolve(child)?;
        let child = self.policy.child(key).ok_or(Refusal::NotFound)?;
        let record = self.policy.data(key).ok_or(Refusal::NotFound)?;
        let history = ChildHistory { transitions: record.transitions(), exits: record.exits() };
        Ok(Box::new((self.info(&child, now()), history)))
    }

    fn on_child_supervisor(&self, child: &ChildRef) -> Result<Supervisor, Refusal> {
        let key = self.resolve(child)?;
        let supervisor = match self.policy.data(key).map(|record| &record.live) {
            Some(Live::Running(running)) => running.supervisor(),
            _ => None,
        };
        supervisor.ok_or(Refusal::NotFound)
    }

    fn on_line(&mut self, child: &ChildRef) -> Result<watch::Receiver<Line>, Refusal> {
        let key = self.resolve(child)?;
        let record = self.policy.data(key).ok_or(Refusal::NotFound)?;
        Ok(self.lines.open(key, &record.live))
    }

    fn on_start_finished(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        child: ChildKey,
        incarnation: Incarnation,
        result: Option<Result<Started, StartError>>,
    ) {
        self.pending_starts = self.pending_starts.saturating_sub(1);
        let pending = self.is_current(child, incarnation)
            && self.policy.data(child).is_some_and(|record| matches!(record.live, Live::Pending { .. }));
        if pending {
            let input = match result {
                Some(result) => self.take_in(child, incarnation, result),
                None => Some(self.called_off(child, incarnation)),
            };
            if let Some(input) = input {
                self.feed(myself, input);
            }
        }
        // What a stale start began ends with its handle, which is dropped here.
        if self.pending_starts == 0 {
            self.early_exits.clear();
            #[cfg(feature = "process")]
            self.hold_if_quiet();
        }
    }

    fn on_ready(&mut self, myself: &ActorRef<SupervisorMessage>, child: ChildKey, incarnation: Incarnation) {
        let Some(record) = self.policy.data_of_current(child, incarnation) else { return };
        record.ready(self.clock.now);
        self.feed(myself, Input::Ready { child, incarnation });
    }

    fn on_health(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        child: ChildKey,
        incarnation: Incarnation,
        health: Health,
    ) {
        let Some(record) = self.policy.data_of_current(child, incarnation) else { return };
        let input = match health {
            Health::Good => {
                record.set_waits_for(None);
                Input::Health { child, incarnation, healthy: true }
            }
            Health::Poor(why) => {
                record.set_waits_for(Some(why));
                Input::Health { child, incarnation, healthy: false }
            }
            Health::Failed(why) => {
                record.set_waits_for(Some(why.clone()));
                record.set_unhealthy(why);
                Input::HealthFailed { child, incarnation }
            }
        };
        self.feed(myself, input);
    }

    fn on_exited(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        child: ChildKey,
        incarnation: Incarnation,
        report: Arc<ExitReport>,
    ) {
        if !self.is_current(child, incarnation) {
            return;
        }
        let input = self.note_exit(child, incarnation, report);
        self.feed(myself, input);
    }

    fn on_actor_ended(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        actor: ActorId,
        report: Arc<ExitReport>,
    ) {
        self.clock.read();
        match self.by_actor.remove(&actor) {
            Some((child, incarnation)) => self.on_exited(myself, child, incarnation, report),
            None if self.pending_starts > 0 => {
                self.early_exits.insert(actor, report);
            }
            None => {}
        }
    }

    fn on_timers_due(&mut self, myself: &ActorRef<SupervisorMessage>) {
        for (child, token) in self.timers.take_due(self.clock.now) {
            self.feed(myself, Input::Timer { child, token });
        }
        self.timers.sleep(now(), myself);
    }

    // ---- From inputs to actions. ----

    /// Lets policy take in an input and performs what it decides, and so on with what comes back at once.
    fn feed(&mut self, myself: &ActorRef<SupervisorMessage>, input: Input) {
        let mut actions = std::mem::take(&mut self.actions);
        let mut next = Some(input);
        while let Some(input) = next {
            self.policy.step(self.clock.now, input, &mut actions);
            self.last_report = None;
            for action in actions.drain(..) {
                if let Some(input) = self.perform(myself, action) {
                    self.inputs.push_back(input);
                }
            }
            next = self.inputs.pop_front();
            if next.is_some() {
                self.clock.read();
            }
        }
        self.write_remarks();
        // What one large step needed is not kept for the many small ones.
        self.remarks.shrink_to(KEPT_ACTIONS);
        actions.shrink_to(KEPT_ACTIONS);
        self.inputs.shrink_to(KEPT_ACTIONS);
        self.actions = actions;
    }

    fn write_remarks(&mut self) {
        for remark in self.remarks.drain(..) {
            remark.write(&self.path);
        }
    }

    fn perform(&mut self, myself: &ActorRef<SupervisorMessage>, action: Action) -> Option<Input> {
        match action {
            Action::Start { child, incarnation } => return self.begin_start(myself, child, incarnation),
            Action::Stop { child, incarnation } => return self.stop(child, incarnation),
            Action::Kill { child, incarnation } => return self.kill(child, incarnation),
            Action::Abandon { child, incarnation } => self.abandon(child, incarnation),
            Action::Arm { child, token, at } => self.timers.arm(child, token, at, self.clock.now, myself),
            Action::Advance { token, by } => self.timers.advance(token, by, self.clock.now, myself),
            Action::Disarm { token } => self.timers.disarm(token),
            Action::Report { child, incarnation, report } => self.report(child, incarnation, report),
            Action::Transition { child, from, to } => {
                let report = self.last_report.filter(|(about, _)| *about == child).map(|(_, report)| report);
                if let Some(record) = self.policy.data_mut(child) {
                    record.moved(from, to, report, self.clock.unix_ms);
                }
            }
            Action::Answer { id, outcome } => self.answer(id, outcome),
            Action::Forget { child } => {
                let record = self.policy.forget(child);
                self.tree.events.part(record.and_then(|record| record.label));
                self.lines.close(child);
            }
            Action::ReportSelf { report } => self.report_self(report),
            Action::Started => {
                self.end.life.send_if_modified(|life| {
                    let first = matches!(life, Life::Starting);
                    if first {
                        *life = Life::Started;
                    }
                    first
                });
                if let Some(parent) = &self.end.parent {
                    parent.ready();
                }
            }
            Action::End { exit, failed_start } => self.end(myself, exit, failed_start),
        }
        None
    }

    /// Tells how those incarnations ended that an earlier life of the program began.
    fn tell_earlier_exits(&mut self) {
        if lock(&self.tree.earlier).is_empty() {
            return;
        }
        let children: Vec<(ChildKey, bool)> =
            self.policy.children().map(|child| (child.key, child.spec.autostart)).collect();
        for (child, autostart) in children {
            let Some(record) = self.policy.data_mut(child) else { continue };
            let exits = lock(&self.tree.earlier).remove(record.path.as_str()).unwrap_or_default();
            let next = match autostart {
                true => Next::Restart { delay: Duration::ZERO, nth: 0, of: None },
                false => Next::Rest,
            };
            for EarlierExit { incarnation, pid, report: end } in exits {
                let report = match end.exit {
                    exit @ Exit::Shutdown => ChildReport::Stopped { exit, clean: true },
                    exit => ChildReport::Exited { exit, next },
                };
                record.ended(Arc::new(end), incarnation, self.clock.unix_ms);
                record.note_next(report);
                let exit = record.exit_of(report);
                log_report(&self.path, &record.path, incarnation, report, exit.as_deref());
                let kind = EventKind::Child { incarnation, report, exit, pid };
                self.tree.events.publish(&mut record.label, &record.path, self.clock.unix_ms, kind);
            }
        }
    }

    fn begin_start(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        child: ChildKey,
        incarnation: Incarnation,
    ) -> Option<Input> {
        self.policy.data_mut(child)?.begin();
        // Whoever goes on begins it.
        #[cfg(feature = "process")]
        if self.is_held() {
            return None;
        }
        self.begin(myself, child, incarnation, |recipe, context| recipe.start(context))
    }

    fn begin(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        child: ChildKey,
        incarnation: Incarnation,
        start: impl FnOnce(&dyn Child, StartContext) -> StartFuture,
    ) -> Option<Input> {
        let record = self.policy.data_mut(child)?;
        let context = StartContext {
            path: record.path.clone(),
            incarnation,
            reporter: Reporter::new(self.place.clone(), child, incarnation),
        };
        match poll_once(|| start(&*record.recipe, context)) {
            Ok(result) => self.take_in(child, incarnation, result),
            Err(future) => {
                let (cancel, cancelled) = oneshot::channel();
                let supervisor = myself.clone();
                let task = tokio::spawn(async move {
                    let result = finish_start(future, cancelled).await;
                    let message = SupervisorMessage::StartFinished { child, incarnation, result };
                    // Without a supervisor the started child is dropped with the message, which ends it.
                    let _gone = supervisor.send_message(message);
                });
                self.pending_starts += 1;
                record.live = Live::Pending { cancel: Some(cancel), task: task.abort_handle() };
                None
            }
        }
    }

    /// Takes in what a start came to.
    fn take_in(
        &mut self,
        child: ChildKey,
        incarnation: Incarnation,
        result: Result<Started, StartError>,
    ) -> Option<Input> {
        let was_ready = self.policy.child(child).is_some_and(|child| child.state == State::Running);
        let record = self.policy.data_mut(child)?;
        record.live = Live::None;
        let (ready, live) = match result {
            Ok(Started::Actor(actor)) => (true, Live::Actor(actor)),
            Ok(Started::Ready(running)) => (true, Live::Running(running)),
            Ok(Started::Running(running)) => (false, Live::Running(running)),
            Ok(Started::Ignore) => return Some(Input::Ignored { child, incarnation }),
            // It was to be taken up, and is not there.
            Err(error) if was_ready => {
                let report = Arc::new(ExitReport::new(Exit::Abnormal, error.cause));
                return Some(self.note_exit(child, incarnation, report));
            }
            Err(error) => {
                record.last_start_error = Some(error.kind);
                let failure = match error.kind {
                    StartErrorKind::Failed => StartFailure::Failed,
                    StartErrorKind::ResourceShortage | StartErrorKind::PortConflict => {
                        StartFailure::ResourceShortage
                    }
                };
                let report = self.alike.share(ExitReport::new(Exit::Abnormal, error.cause));
                record.ended(report, incarnation, self.clock.unix_ms);
                return Some(Input::StartFailed { child, incarnation, failure });
            }
        };
        let actor = live.actor().map(ActorCell::get_id);
        record.live = live;
        if record.kill_asked {
            record.live.kill();
        } else if record.stop_asked {
            record.live.stop();
        }
        let stopping = record.stop_asked || record.kill_asked;
        if !stopping {
            self.lines.begun(child, &record.live);
        }
        if ready && !stopping {
            record.ready(self.clock.now);
        }
        if let Some(actor) = actor {
            if !self.early_exits.is_empty()
                && let Some(report) = self.early_exits.remove(&actor)
            {
                return Some(self.note_exit(child, incarnation, report));
            }
            self.by_actor.insert(actor, (child, incarnation));
        }
        match (stopping, ready) {
            (true, _) => None,
            (false, true) => Some(Input::Ready { child, incarnation }),
            (false, false) => Some(Input::Launched { child, incarnation }),
        }
    }

    fn stop(&mut self, child: ChildKey, incarnation: Incarnation) -> Option<Input> {
        let record = self.policy.data_mut(child)?;
        record.stop_asked = true;
        watch_again(&record.live, self.place.supervisor(), child, incarnation);
        if record.live.stop() { None } else { self.missing(child, incarnation) }
    }

    /// Says that a start was called off before anything ran.
    fn called_off(&mut self, child: ChildKey, incarnation: Incarnation) -> Input {
        let cause = Cause::Finished { reason: Some("start called off".into()) };
        let report = self.alike.share(ExitReport::new(Exit::Shutdown, cause));
        self.note_exit(child, incarnation, report)
    }

    fn kill(&mut self, child: ChildKey, incarnation: Incarnation) -> Option<Input> {
        let record = self.policy.data_mut(child)?;
        record.kill_asked = true;
        watch_again(&record.live, self.place.supervisor(), child, incarnation);
        if record.live.kill() { None } else { self.missing(child, incarnation) }
    }

    /// Policy believes in an incarnation that does not exist: say so rather than wait for ever.
    fn missing(&mut self, child: ChildKey, incarnation: Incarnation) -> Option<Input> {
        // Its start was put off, and is not to be any more.
        #[cfg(feature = "process")]
        if self.is_held() {
            return Some(self.called_off(child, incarnation));
        }
        let report = self.alike.share(ExitReport::new(Exit::Killed, Cause::Aborted));
        Some(self.note_exit(child, incarnation, report))
    }

    fn abandon(&mut self, child: ChildKey, incarnation: Incarnation) {
        if let Some(record) = self.policy.data_mut(child) {
            if let Live::Pending { task, .. } = &record.live {
                task.abort();
                self.pending_starts = self.pending_starts.saturating_sub(1);
            }
            let report = self.alike.share(ExitReport::new(Exit::Killed, Cause::Leaked));
            record.ended(report, incarnation, self.clock.unix_ms);
        }
    }

    fn report(&mut self, child: ChildKey, incarnation: Incarnation, report: ChildReport) {
        let ending = self.policy.is_ending();
        self.last_report = Some((child, report));
        let Some(record) = self.policy.data_mut(child) else {
            // The first report about a child that was just added: its recipe waits for its key.
            if let (Some(recipe), Some(view)) = (self.adopting.take(), self.policy.child(child)) {
                let path = self.path.join(&view.spec.id);
                self.policy.attach(child, Record::new(recipe, path));
                self.report(child, incarnation, report);
            }
            return;
        };
        if let ChildReport::StartFailed { .. } = report
            && record.stop_asked
        {
            // It was stopped because its start timeout was over.
            let message = match record.waited_for() {
                Some(what) => what.to_string(),
                None => "it was still starting".to_owned(),
            };
            let report = ExitReport::new(Exit::Abnormal, Cause::StartTimeout { message });
            record.ended(self.alike.share(report), incarnation, self.clock.unix_ms);
        }
        record.note_next(report);
        let exit = match report {
            ChildReport::Unhealthy => record.waits_for().map(|why| {
                let cause = Cause::Probe { message: why.to_owned() };
                Arc::new(ExitReport::new(Exit::Abnormal, cause))
            }),
            _ => record.exit_of(report),
        };
        let pid = record.pid();
        if Remark::is_heard() {
            let (child, exit) = (record.path.clone(), exit.clone());
            self.remarks.push(Remark { child, incarnation, report, exit });
        }
        let noted = ending.then(|| (record.path.clone(), exit.clone()));
        let kind = EventKind::Child { incarnation, report, exit, pid };
        self.tree.events.publish(&mut record.label, &record.path, self.clock.unix_ms, kind);
        if let Some((path, exit)) = noted {
            self.end.note(&self.policy, (child, incarnation), &path, report, exit.as_deref());
        }
    }

    fn report_self(&mut self, report: SupervisorReport) {
        if report == SupervisorReport::AutoShutdown {
            self.end.reason = Some("auto_shutdown: its significant children ended".to_owned());
        }
        self.write_remarks();
        match report {
            SupervisorReport::LimitReached => tracing::error!(
                supervisor = %Named(&self.path),
                context = "shutdown",
                reason = self.end.limit.as_deref().unwrap_or(LIMIT_REACHED),
                "supervisor gives up"
            ),
            _ => tracing::debug!(supervisor = %Named(&self.path), context = report.name(), "supervisor"),
        }
        let kind = EventKind::Supervisor { report };
        self.tree.events.publish(&mut self.label, &self.path, self.clock.unix_ms, kind);
    }

    fn answer(&mut self, id: OperationId, outcome: Outcome) {
        let Some(reply) = self.replies.remove(&id) else { return };
        let child = match &outcome {
            Outcome::Started { child, .. }
            | Outcome::Stopped { child, .. }
            | Outcome::Refused(Refusal::StartFailed { child }) => Some(*child),
            _ => None,
        };
        let record = child.and_then(|child| self.policy.data(child));
        let exit = record.and_then(Record::last_report).cloned();
        let start_error = record.and_then(|record| record.last_start_error);
        let info = match &outcome {
            Outcome::Started { .. } => record.and_then(|record| record.live.info()),
            _ => None,
        };
        // A caller that is gone has no use for the answer.
        let _gone = reply.send(Reply { outcome, exit, start_error, info });
    }

    fn end(&mut self, myself: &ActorRef<SupervisorMessage>, exit: Exit, failed_start: Option<ChildKey>) {
        let cause = match failed_start.and_then(|child| self.policy.data(child)) {
            Some(record) => {
                let cause = record.last_report().map(|report| report.cause.to_string());
                let why = cause.unwrap_or_else(|| "it did not start".to_owned());
                // A failure further down is named by its whole path already; each supervisor on the way up would repeat it.
                let named = why.starts_with(&format!("child `{}/", record.path));
                let message = if named { why } else { format!("child `{}`: {why}", record.path) };
                Cause::StartFailed { message }
            }
            None if exit == Exit::Escalated && self.end.reason.is_none() => {
                let message = self.end.limit.take();
                Cause::LimitReached { message: message.unwrap_or_else(|| LIMIT_REACHED.to_owned()) }
            }
            None => Cause::Finished { reason: self.end.reason.take() },
        };
        let exit = if failed_start.is_some() { Exit::Abnormal } else { exit };
        self.end.tell(ExitReport::new(exit, cause));
        myself.stop(None);
    }

    // ---- Notes. ----

    fn is_current(&self, child: ChildKey, incarnation: Incarnation) -> bool {
        self.policy.is_current(child, incarnation)
    }

    fn note_exit(&mut self, child: ChildKey, incarnation: Incarnation, mut report: Arc<ExitReport>) -> Input {
        let ending = self.policy.is_ending();
        let is_unhealthy = self.policy.is_stopped_as_unhealthy(child);
        if let Some(record) = self.policy.data_mut(child) {
            // An actor that simply stopped after it was asked to has shut down.
            if record.stop_asked && report.exit == Exit::Normal {
                report = self.alike.share(ExitReport { exit: Exit::Shutdown, ..(*report).clone() });
            }
            // However it ended: it was stopped because of its health, and that is what people need to know.
            if is_unhealthy && let Some(why) = record.unhealthy() {
                let cause = Cause::Probe { message: why.to_owned() };
                let known = (*report).clone();
                report = self.alike.share(ExitReport { cause, exit: Exit::Abnormal, ..known });
            }
            let exit = report.exit;
            // One that fails may end this supervisor: then what became of everything below it is part of that end.
            let fails = exit == Exit::Escalated || matches!(report.cause, Cause::StartFailed { .. });
            if (ending || fails)
                && let Live::Running(running) = &record.live
                && let Some(nested) = running.supervisor()
            {
                match ending {
                    true => nested.merge_end_into(&mut self.end.children),
                    false => self.end.failing = Some((child, incarnation, nested)),
                }
            }
            record.live.over();
            record.ended(report, incarnation, self.clock.unix_ms);
            return Input::Exited { child, incarnation, exit };
        }
        Input::Exited { child, incarnation, exit: report.exit }
    }

    fn info(&self, child: &ChildView<'_>, now: Instant) -> ChildInfo {
        let record = self.policy.data(child.key);
        let dependencies: Vec<String> = child
            .waits_for
            .iter()
            .map(|(dependency, state)| {
                let Dependency { on, condition, .. } = dependency;
                let wish = format!("\"{on}\" to be {condition}");
                match state {
                    // It does not come to it by itself.
                    Some(state @ (State::Failed | State::Stopped)) => format!("{wish}, which is {state}"),
                    Some(_) => wish,
                    None => format!("{wish}, which is not there"),
                }
            })
            .collect();
        let dependencies = (!dependencies.is_empty()).then(|| dependencies.join("; "));
        ChildInfo {
            id: child.spec.id.clone(),
            key: child.key,
            path: record.map_or_else(|| self.path.join(&child.spec.id), |record| record.path.clone()),
            child_type: child.spec.child_type,
            state: child.state,
            alive: child.alive,
            ready: child.ready,
            healthy: child.healthy,
            wanted: child.wanted,
            paused: child.paused,
            held: child.held,
            incarnation: child.incarnation,
            pid: record.and_then(Record::pid),
            ready_for: record.and_then(|record| record.ready_at).map(|at| now.saturating_duration_since(at)),
            restarts: child.restarts,
            last_exit: record.and_then(Record::last_exit),
            planned: child.restart_at.map(|(at, nth, of)| Planned {
                due_in: at.saturating_duration_since(now),
                nth,
                of,
            }),
            waits_for: dependencies.or_else(|| record.and_then(Record::waits_for).map(str::to_owned)),
        }
    }
}

const LIMIT_REACHED: &str = "restart intensity exceeded";

/// Says which limit was exceeded by whom, and why that child failed in the end.
fn limit_text<T>(policy: &Policy<T>, child: ChildKey, path: &TreePath, exit: Option<&ExitReport>) -> String {
    // A nested supervisor's reason names the child below it, and so on; what a deep tree says is cut from above.
    const LONGEST: usize = 500;
    let limit = match policy.child(child).map(|child| child.spec.limit) {
        Some(Some(own)) => Some(own.intensity),
        Some(None) => policy.spec().intensity,
        // It is gone already; it may have had a limit of its own.
        None => None,
    };
    let limit =
        limit.map(|limit| format!(" of {} in {:?}", limit.intensity, limit.period)).unwrap_or_default();
    let id = path.as_str().rsplit('/').next().unwrap_or_default();
    let cause = exit.map(ExitReport::to_string).unwrap_or_default();
    let (gap, start) = match cause.len().checked_sub(LONGEST) {
        Some(over) if over > 0 => ("[..] ", cause.ceil_char_boundary(over)),
        _ => ("", 0),
    };
    format!("restart intensity{limit} exceeded by child `{id}`: {gap}{}", &cause[start..])
}

/// Sees to it that the end of an actor that removed its link is noticed: one that lives is linked again, one that is gone
/// is told of. What it may have told itself before arrives first, as events overtake messages, and makes that stale.
fn watch_again(live: &Live, supervisor: &Supervisor, child: ChildKey, incarnation: Incarnation) {
    let Some(actor) = live.actor() else { return };
    let cell = supervisor.cell();
    if actor.try_get_supervisor().is_some_and(|linked| linked.get_id() == cell.get_id()) {
        return;
    }
    if actor.get_status() < ActorStatus::Stopping {
        return actor.link(cell);
    }
    let report = Box::new(ExitReport::new(Exit::Killed, Cause::Aborted));
    supervisor.tell(SupervisorMessage::Exited { child, incarnation, report });
}

fn refuse(reply: oneshot::Sender<Reply>, refusal: Refusal) {
    answer_at_once(reply, Outcome::Refused(refusal));
}

fn answer_at_once(reply: oneshot::Sender<Reply>, outcome: Outcome) {
    let _gone = reply.send(Reply { outcome, exit: None, start_error: None, info: None });
}

/// Polls a start once on the spot: most are done then and need no task.
fn poll_once(start: impl FnOnce() -> StartFuture) -> Result<Result<Started, StartError>, StartFuture> {
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let mut future = start();
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Ok(result),
            Poll::Pending => Err(future),
        }
    }));
    polled.unwrap_or_else(|payload| Ok(Err(StartError::failed(panic_text(&*payload)))))
}

/// Finishes a start in its own task; `None` if it was called off.
async fn finish_start(
    mut future: StartFuture,
    cancelled: oneshot::Receiver<()>,
) -> Option<Result<Started, StartError>> {
    let mut cancelled = Some(cancelled);
    std::future::poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        match polled {
            Ok(Poll::Ready(result)) => return Poll::Ready(Some(result)),
            Err(payload) => return Poll::Ready(Some(Err(StartError::failed(panic_text(&*payload))))),
            Ok(Poll::Pending) => {}
        }
        let Some(receiver) = &mut cancelled else { return Poll::Pending };
        match std::pin::Pin::new(receiver).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(None),
            // Dropping the sender is no request: it happens when nobody waits for this start any more.
            Poll::Ready(Err(_)) => {
                cancelled = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// What is to be said about a child once everything that follows from it was begun: whoever reads it may be slow, and a
/// restart does not wait for that.
struct Remark {
    child: TreePath,
    incarnation: Incarnation,
    report: ChildReport,
    exit: Option<Arc<ExitReport>>,
}

impl Remark {
    /// Returns whether anybody may listen.
    fn is_heard() -> bool {
        tracing::level_filters::LevelFilter::current() != tracing::level_filters::LevelFilter::OFF
    }

    fn write(&self, supervisor: &TreePath) {
        log_report(supervisor, &self.child, self.incarnation, self.report, self.exit.as_deref());
    }
}

/// Writes OTP's report: supervisor, context, reason, offender.
fn log_report(
    supervisor: &TreePath,
    child: &TreePath,
    incarnation: Incarnation,
    report: ChildReport,
    exit: Option<&ExitReport>,
) {
    let context = report.name();
    let incarnation = incarnation.get();
    let reason = Reason(exit);
    let supervisor = Named(supervisor);
    match report {
        ChildReport::StartFailed { next } => {
            tracing::warn!(%supervisor, %child, incarnation, context, %reason, ?next, "child did not start");
        }
        ChildReport::Exited { exit, next } if exit.is_abnormal() => {
            tracing::warn!(%supervisor, %child, incarnation, context, %reason, ?next, "child ended");
        }
        ChildReport::Stopped { clean: false, .. } | ChildReport::Leaked => {
            tracing::warn!(%supervisor, %child, incarnation, context, %reason, "child did not stop cleanly");
        }
        ChildReport::Unhealthy => {
            tracing::warn!(%supervisor, %child, incarnation, context, %reason, "child fails its health check");
        }
        ChildReport::Ready => tracing::info!(%supervisor, %child, incarnation, context, "child is ready"),
        _ => tracing::debug!(%supervisor, %child, incarnation, context, %reason, "child"),
    }
}

/// An exit in words, if there is one; made only if somebody listens.
struct Reason<'a>(Option<&'a ExitReport>);

impl std::fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |report| report.fmt(f))
    }
}

/// A supervisor's path for people: the root has a name too.
struct Named<'a>(&'a TreePath);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.as_str().is_empty() { "root" } else { self.0.as_str() })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each critical section is one call, which leaves its data valid.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many actions and inputs room is kept for between messages.
const KEPT_ACTIONS: usize = 64;

/// The time of the input that is taken in: one for policy and one for people.
#[derive(Debug, Clone, Copy)]
struct Clock {
    now: Instant,
    unix_ms: u64,
    /// When both clocks were read.
    both: (Instant, u64),
}

/// How long the time for people is counted on before it is read again, so that most inputs read one clock and not two.
const WALL_CLOCK_AGE: Duration = Duration::from_millis(50);

impl Clock {
    fn new() -> Self {
        let both = (now(), unix_ms());
        Self { now: both.0, unix_ms: both.1, both }
    }

    /// Moves on to now.
    fn read(&mut self) {
        self.now = now();
        let since = self.now.saturating_duration_since(self.both.0);
        if since >= WALL_CLOCK_AGE {
            self.both = (self.now, unix_ms());
            self.unix_ms = self.both.1;
        } else {
            // Less than its age.
            self.unix_ms = self.both.1.saturating_add(u64::from(since.subsec_millis()));
        }
    }
}

/// The one place where a supervisor reads the clock: tokio's, so that a paused one reaches policy.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
