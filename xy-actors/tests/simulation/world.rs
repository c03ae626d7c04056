//! The books of an observer who sees inputs and actions only, and the laws that they must keep.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use xy_actors::event::{ChildReport, Next, SupervisorReport};
use xy_actors::exit::Exit;
use xy_actors::policy::decision::OperationId;
use xy_actors::policy::{
    Action, ChildKey, Incarnation, Input, Operation, Outcome, Policy, Refusal, StartFailure, State,
    TimerToken, Wanted,
};
use xy_actors::spec::{
    AutoShutdown, ChildId, ChildSpec, Condition, Dependency, OnLimit, Order, RestartIntensity, RestartType,
    Shutdown, Strategy, SupervisorSpec,
};

/// How far the end of an incarnation has been asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asked {
    No,
    Stop,
    Kill,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Live {
    pub(crate) incarnation: u64,
    pub(crate) launched: bool,
    pub(crate) ready_since: Option<Instant>,
    pub(crate) unhealthy: bool,
    /// Whether it has passed a health check, or began without one.
    pub(crate) proven: bool,
    pub(crate) asked: Asked,
}

#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) spec: ChildSpec,
    pub(crate) incarnation: u64,
    /// The latest incarnation of whose end was told.
    told_end: u64,
    pub(crate) live: Option<Live>,
    pub(crate) timer: Option<(TimerToken, Instant)>,
    state: State,
    down: bool,
    pub(crate) paused: bool,
    /// A start was asked for and has not begun.
    asked_up: bool,
    /// It was started, and nothing has happened since that would keep it down.
    expected_up: bool,
    /// No automatic start before this.
    not_before: Option<Instant>,
    initial: bool,
    settled: bool,
    /// Whether its latest incarnation ended by itself, normally.
    completed: bool,
    touched: bool,
    /// Whether its last incarnation had been ready when it ended.
    was_ready: bool,
    /// Whether it had been asked to end.
    was_asked: bool,
    /// Counted restarts under a limit of its own; `None` while it is not certain whether a start has cleared them.
    counted: Option<Vec<Instant>>,
    /// Restarts since the backoff was reset, if that is certain.
    attempt: Option<u32>,
}

impl Child {
    /// An incarnation that was ready, and healthy, long enough resets the backoff.
    fn note_stable_run(&mut self, live: Live, now: Instant) {
        let reset_after = self.spec.backoff.as_ref().map_or(Duration::ZERO, |spec| spec.reset_after);
        if !live.unhealthy && live.ready_since.is_some_and(|since| now - since >= reset_after) {
            self.attempt = Some(0);
        }
    }

    /// Returns whether this is what a dependent waits for.
    fn has_come_to(&self, condition: Condition) -> bool {
        let live = self.live.filter(|live| live.asked == Asked::No);
        let is_ready = live.is_some_and(|live| live.ready_since.is_some());
        match condition {
            Condition::Started => is_ready || live.is_some_and(|live| live.launched),
            Condition::Ready => is_ready,
            Condition::Healthy => is_ready && live.is_some_and(|live| live.proven && !live.unhealthy),
            Condition::Completed => self.completed && self.live.is_none() && self.state == State::Stopped,
        }
    }

    fn follows(&self, id: &ChildId) -> bool {
        self.spec.depends_on.iter().any(|dependency| dependency.restart && dependency.on == *id)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Up,
    Restart,
    Down,
    Other,
}

#[derive(Debug)]
struct Pending {
    kind: Kind,
    child: Option<ChildKey>,
    /// The incarnation at the time of asking.
    before: u64,
}

#[derive(Debug)]
pub(crate) struct World {
    policy: Policy,
    pub(crate) spec: SupervisorSpec,
    pub(crate) now: Instant,
    pub(crate) children: BTreeMap<ChildKey, Child>,
    pending: BTreeMap<OperationId, Pending>,
    next_operation: u64,
    /// Incarnations that are no more, to be heard of again.
    pub(crate) past: Vec<(ChildKey, u64)>,
    pub(crate) spent_timers: Vec<(ChildKey, TimerToken)>,
    counted: Vec<Instant>,
    pub(crate) ending: bool,
    killed: bool,
    pub(crate) ended: Option<Exit>,
    announced: Option<Exit>,
    unwinding: bool,
    started: bool,
    pub(crate) steps: u64,
    trace: bool,
}

impl World {
    pub(crate) fn new(spec: SupervisorSpec, children: Vec<ChildSpec>, seed: u64) -> Self {
        let policy = Policy::new(spec.clone(), children, seed).expect("the schedule makes valid specs");
        let mut world = Self {
            spec,
            now: Instant::now(),
            children: BTreeMap::new(),
            pending: BTreeMap::new(),
            next_operation: 1,
            past: Vec::new(),
            spent_timers: Vec::new(),
            counted: Vec::new(),
            ending: false,
            killed: false,
            ended: None,
            announced: None,
            unwinding: false,
            started: false,
            steps: 0,
            trace: std::env::var_os("XY_SIM_TRACE").is_some(),
            policy,
        };
        let specs: Vec<_> = world.policy.children().map(|child| (child.key, child.spec.clone())).collect();
        for (key, spec) in specs {
            let initial = spec.autostart;
            world.enter(key, spec, initial);
        }
        world
    }

    fn enter(&mut self, key: ChildKey, spec: ChildSpec, initial: bool) {
        let child = Child {
            incarnation: 0,
            told_end: 0,
            live: None,
            timer: None,
            state: State::Stopped,
            down: !spec.autostart,
            paused: false,
            asked_up: spec.autostart,
            expected_up: false,
            not_before: None,
            initial,
            settled: false,
            completed: false,
            touched: false,
            was_ready: false,
            was_asked: false,
            counted: Some(Vec::new()),
            attempt: Some(0),
            spec,
        };
        assert!(self.children.insert(key, child).is_none(), "key {key:?} is new");
    }

    pub(crate) fn key(&self, id: &str) -> Option<ChildKey> {
        self.policy.key(id)
    }

    fn child(&mut self, key: ChildKey) -> &mut Child {
        self.children.get_mut(&key).unwrap_or_else(|| panic!("{key:?} is known"))
    }

    fn is_together(&self) -> bool {
        self.spec.order == Order::Concurrent || self.spec.strategy == Strategy::SimpleOneForOne
    }

    fn is_group(&self) -> bool {
        matches!(self.spec.strategy, Strategy::OneForAll | Strategy::RestForOne)
    }

    // ---- Inputs. ----

    fn feed(&mut self, input: &Input) -> Vec<Action> {
        self.steps += 1;
        let mut actions = Vec::new();
        self.policy.step(self.now, input.clone(), &mut actions);
        if self.trace {
            println!("{input:?}");
            for action in &actions {
                println!("    {action:?}");
            }
        }
        actions
    }

    /// Feeds an input that must change nothing.
    pub(crate) fn stale(&mut self, input: Input) {
        let actions = self.feed(&input);
        assert_eq!(actions, [], "a stale input does nothing: {input:?}");
        self.check();
    }

    pub(crate) fn step(&mut self, input: Input) {
        let was_ending = self.ending;
        let ended = self.ended.is_some();
        match &input {
            Input::Kill if !ended => {
                self.killed = true;
                self.announced.get_or_insert(Exit::Killed);
            }
            Input::Shutdown { exit } if !ended => {
                self.announced.get_or_insert(*exit);
            }
            _ => {}
        }
        let expected = self.take_in(&input);
        let actions = self.feed(&input);
        if ended {
            let only_answers = actions.iter().all(|action| matches!(action, Action::Answer { .. }));
            assert!(only_answers, "nothing but answers after the end: {actions:?}");
        }
        if let Some((key, exit)) = expected {
            self.check_decision(key, exit, &actions);
        }
        self.check_auto_shutdown(&actions, was_ending);
        self.check_follow_up(&input, &actions);
        for action in &actions {
            self.perform(action, &input);
        }
        self.check_ladders(&actions);
        self.check_followers(&actions);
        if matches!(input, Input::Shutdown { .. } | Input::Kill) {
            assert!(self.ending, "a supervisor that is told to end begins to");
        }
        if input == Input::Kill {
            let spared = |child: &Child| child.live.is_some_and(|live| live.asked != Asked::Kill);
            assert!(!self.children.values().any(spared), "a kill spares nobody");
        }
        self.check();
    }

    /// Notes what the input says; returns an end that the restart type alone decides about.
    fn take_in(&mut self, input: &Input) -> Option<(ChildKey, Exit)> {
        match *input {
            Input::Ready { child: key, .. } => {
                let now = self.now;
                let child = self.child(key);
                child.settled = true;
                let live = child.live.as_mut().expect("only the living get ready");
                if live.asked == Asked::No {
                    live.ready_since = Some(now);
                }
                None
            }
            Input::Launched { child, .. } => {
                let live = self.child(child).live.as_mut().expect("only the living are launched");
                live.launched = true;
                None
            }
            Input::Health { child: key, healthy, .. } => {
                let now = self.now;
                let child = self.child(key);
                if let Some(live) = child.live.as_mut().filter(|live| healthy && live.ready_since.is_some()) {
                    live.proven = true;
                }
                if let Some(live) = child.live.filter(|live| live.unhealthy == healthy)
                    && live.ready_since.is_some()
                {
                    child.note_stable_run(live, now);
                    child.live = Some(Live { ready_since: Some(now), unhealthy: !healthy, ..live });
                }
                None
            }
            Input::Ignored { child, .. } | Input::StartFailed { child, .. } => {
                self.gone(child);
                None
            }
            Input::Exited { child: key, exit, .. } => {
                let decides = !self.ending && !self.is_group();
                let live = self.gone(key);
                let child = self.child(key);
                child.completed = live.asked == Asked::No && exit == Exit::Normal;
                (decides && live.asked == Asked::No && live.ready_since.is_some() && !child.paused)
                    .then_some((key, exit))
            }
            Input::Timer { child: key, token } => {
                let timer = self.child(key).timer.take();
                assert_eq!(timer.map(|(token, _)| token), Some(token), "an armed timer is due");
                self.spent_timers.push((key, token));
                None
            }
            _ => None,
        }
    }

    fn gone(&mut self, key: ChildKey) -> Live {
        let now = self.now;
        let child = self.child(key);
        let live = child.live.take().expect("only the living end");
        if live.asked == Asked::No {
            child.note_stable_run(live, now);
        }
        child.was_ready = live.ready_since.is_some();
        child.was_asked = live.asked > Asked::No;
        self.past.push((key, live.incarnation));
        live
    }

    pub(crate) fn operate(&mut self, operation: Operation) {
        let id = OperationId(self.next_operation);
        self.next_operation += 1;
        let (kind, key) = match &operation {
            Operation::StartChild(spec) => (Kind::Up, self.policy.key(spec.id.as_str())),
            Operation::Start(key) | Operation::RestartChild(key) => (Kind::Up, Some(*key)),
            Operation::Restart(key) => (Kind::Restart, Some(*key)),
            Operation::TerminateChild(key) | Operation::Stop(key) | Operation::Remove(key) => {
                (Kind::Down, Some(*key))
            }
            Operation::DeleteChild(key)
            | Operation::Pause(key)
            | Operation::Resume(key)
            | Operation::Update(key, _) => (Kind::Other, Some(*key)),
        };
        let before = key.and_then(|key| self.children.get(&key)).map_or(0, |child| child.incarnation);
        self.pending.insert(id, Pending { kind, child: key, before });
        let input = Input::Operation { id, operation: operation.clone() };
        let known: BTreeSet<ChildKey> = self.children.keys().copied().collect();
        let ending = self.ending;
        let actions = {
            let mut probe = self.policy.clone();
            let mut actions = Vec::new();
            probe.step(self.now, input.clone(), &mut actions);
            // A child that was added has to be in the books before its start is.
            for child in probe.children() {
                if !known.contains(&child.key) && !self.children.contains_key(&child.key) {
                    self.enter(child.key, child.spec.clone(), false);
                }
            }
            // One that came and went in one step is never heard of again.
            for action in &actions {
                if let Action::Report { child, report: ChildReport::Added, .. } = action
                    && !self.children.contains_key(child)
                    && let Operation::StartChild(spec) = &operation
                {
                    self.enter(*child, ChildSpec::clone(spec), false);
                }
            }
            actions
        };
        let refused = actions.iter().any(
            |action| matches!(action, Action::Answer { id: of, outcome: Outcome::Refused(_) } if *of == id),
        );
        if !refused && !ending {
            self.note_operation(&operation);
        }
        self.step(input);
    }

    fn note_operation(&mut self, operation: &Operation) {
        match operation {
            Operation::StartChild(_) => {}
            Operation::Start(key) | Operation::RestartChild(key) | Operation::Restart(key) => {
                let restart = matches!(operation, Operation::Restart(_));
                let child = self.child(*key);
                child.down = false;
                child.touched = true;
                let asked = child.live.map(|live| live.asked);
                if asked == Some(Asked::No) && !restart {
                    return;
                }
                child.asked_up = true;
                child.not_before = None;
                // What follows a stop under way decides whether this start clears the slate.
                let certain = matches!(asked, None | Some(Asked::No));
                child.counted = certain.then(Vec::new);
                child.attempt = certain.then_some(0);
            }
            Operation::TerminateChild(key) | Operation::Stop(key) | Operation::Remove(key) => {
                let child = self.child(*key);
                child.touched = true;
                child.asked_up = false;
                child.expected_up = false;
                child.not_before = None;
                child.down |= matches!(operation, Operation::Stop(_));
            }
            Operation::DeleteChild(_) => {}
            Operation::Pause(key) => {
                let child = self.child(*key);
                child.paused = true;
                child.touched = true;
            }
            Operation::Resume(key) => {
                let child = self.child(*key);
                child.paused = false;
                child.not_before = None;
            }
            Operation::Update(key, spec) => {
                let child = self.child(*key);
                let id = child.spec.id.clone();
                child.spec = ChildSpec { id, ..ChildSpec::clone(spec) };
                child.counted = None;
                child.attempt = None;
            }
        }
    }

    // ---- Actions. ----

    fn perform(&mut self, action: &Action, input: &Input) {
        match *action {
            Action::Start { child, incarnation } => {
                let failed = matches!(input, Input::StartFailed { child: failed, .. } if *failed == child);
                let asked = self.children[&child].asked_up || self.children[&child].incarnation == 0;
                // So that a stop can get in between. One that was being stopped to start again has failed at nothing.
                assert!(
                    !failed || asked || self.children[&child].was_asked || self.is_group(),
                    "a failed start of {child:?} is tried again in a step of its own"
                );
                self.start(child, incarnation);
            }
            Action::Stop { child, incarnation } => self.ask(child, incarnation, Asked::Stop, input),
            Action::Kill { child, incarnation } => self.ask(child, incarnation, Asked::Kill, input),
            Action::Abandon { child: key, incarnation } => {
                let live = self.gone(key);
                assert_eq!((live.incarnation, live.asked), (incarnation.get(), Asked::Kill), "{key:?}");
            }
            Action::Arm { child: key, token, at } => {
                assert!(at >= self.now, "a timer lies ahead");
                let before = self.child(key).timer.replace((token, at));
                assert_eq!(before, None, "one timer for {key:?}");
            }
            Action::Advance { token, by } => {
                let armed = |child: &Child| child.timer.is_some_and(|(armed, _)| armed == token);
                let (key, child) =
                    self.children.iter_mut().find(|(_, child)| armed(child)).expect("it is armed");
                let is_asked = child.live.is_some_and(|live| live.asked == Asked::Stop);
                let has_room = matches!(child.spec.shutdown, Shutdown::Timeout(planned) if by < planned);
                assert!(is_asked && has_room, "{key:?}: only a stop is ahead, of what was planned for it");
                child.timer = child.timer.map(|(token, at)| (token, at - by));
            }
            Action::Disarm { token } => {
                let armed = |child: &Child| child.timer.is_some_and(|(armed, _)| armed == token);
                let (&key, child) =
                    self.children.iter_mut().find(|(_, child)| armed(child)).expect("it is armed");
                child.timer = None;
                self.spent_timers.push((key, token));
            }
            Action::Report { child, report, incarnation } => {
                let ahead = u64::from(report == ChildReport::Starting);
                assert_eq!(
                    incarnation.get(),
                    self.child(child).incarnation + ahead,
                    "{report:?} of {child:?}"
                );
                self.reported(child, report);
            }
            Action::Transition { child: key, from, to } => {
                assert_ne!(from, to, "{key:?} moves");
                let child = self.child(key);
                assert_eq!(child.state, from, "the states of {key:?} are a chain");
                child.state = to;
            }
            Action::Answer { id, ref outcome } => self.answered(id, outcome),
            Action::Forget { child: key } => {
                let child = self.children.remove(&key).expect("only the known are forgotten");
                assert!(child.live.is_none() && child.timer.is_none(), "{key:?} is forgotten alive");
            }
            Action::ReportSelf { report } => self.reported_self(report),
            Action::Started => {
                assert!(!self.started && !self.ending, "a supervisor starts once");
                self.started = true;
                for (key, child) in &self.children {
                    assert!(!child.initial || child.settled || child.touched, "{key:?} has been started");
                }
            }
            Action::End { exit, failed_start } => {
                assert_eq!(self.ended, None, "a supervisor ends once");
                assert!(self.ending && self.children.values().all(|child| child.live.is_none()));
                assert!(self.children.values().all(|child| child.timer.is_none()), "no timer outlives it");
                assert_eq!(Some(exit), self.announced, "it ends as announced");
                assert_eq!(failed_start.is_some(), self.unwinding);
                assert!(self.pending.is_empty(), "unanswered: {:?}", self.pending);
                self.ended = Some(exit);
            }
        }
    }

    fn start(&mut self, key: ChildKey, incarnation: Incarnation) {
        assert!(!self.ending, "no start after the end began");
        let together = self.is_together();
        let now = self.now;
        let child = &self.children[&key];
        assert!(child.live.is_none(), "one live incarnation of {key:?}");
        assert_eq!(incarnation.get(), child.incarnation + 1);
        assert!(!child.down, "{key:?} is wanted down");
        assert!(!child.paused || child.asked_up, "{key:?} is paused");
        if !child.asked_up {
            assert!(child.not_before.is_none_or(|at| now >= at), "{key:?} waits out its delay");
        }
        for dependency in &child.spec.depends_on {
            let Dependency { on, condition, .. } = dependency;
            let met = |sibling: &Child| sibling.spec.id == *on && sibling.has_come_to(*condition);
            assert!(self.children.values().any(met), "{key:?} starts although `{on}` is not {condition}");
        }
        if child.initial && child.incarnation == 0 && !child.touched && !together {
            for (earlier, sibling) in self.children.range(..key) {
                let starting = sibling.incarnation == 1
                    && sibling.live.is_some_and(|live| live.ready_since.is_none() && live.asked == Asked::No);
                let skipped = sibling.initial && sibling.incarnation == 0;
                assert!(sibling.touched || !(starting || skipped), "{key:?} starts before {earlier:?}");
            }
        }
        let child = self.child(key);
        child.incarnation += 1;
        child.live = Some(Live {
            incarnation: child.incarnation,
            launched: false,
            ready_since: None,
            unhealthy: false,
            proven: !child.spec.health_checked,
            asked: Asked::No,
        });
        child.completed = false;
        child.asked_up = false;
        child.expected_up = true;
        child.not_before = None;
    }

    fn ask(&mut self, key: ChildKey, incarnation: Incarnation, rung: Asked, input: &Input) {
        let child = &self.children[&key];
        let live = child.live.unwrap_or_else(|| panic!("{key:?} is asked to end, but is not there"));
        assert_eq!(live.incarnation, incarnation.get());
        assert!(live.asked < rung, "{key:?} is asked once");
        let timer = matches!(input, Input::Timer { child, .. } if *child == key);
        match (rung, live.asked) {
            (Asked::Stop, _) => assert_ne!(child.spec.shutdown, Shutdown::BrutalKill, "{key:?}"),
            (_, Asked::No) => {
                assert!(child.spec.shutdown == Shutdown::BrutalKill || self.killed, "{key:?}");
            }
            _ => assert!(
                *input == Input::Kill || (timer && child.spec.shutdown != Shutdown::Infinity),
                "{key:?} is killed only when its time is up"
            ),
        }
        if live.asked == Asked::No && self.ending && !self.killed {
            if self.is_together() {
                let needed = |sibling: &Child| {
                    let depends_on = &sibling.spec.depends_on;
                    sibling.live.is_some() && depends_on.iter().any(|next| next.on == child.spec.id)
                };
                assert!(
                    !self.children.values().any(needed),
                    "{key:?} is asked before its dependents are gone"
                );
            } else {
                let newer = self.children.range(key..).skip(1).any(|(_, sibling)| sibling.live.is_some());
                assert!(!newer, "{key:?} is asked before newer ones are gone");
            }
        }
        if child.paused && !self.ending {
            let own = matches!(input, Input::Operation { operation, .. } if target(operation) == Some(key));
            assert!(own || timer, "a group restart leaves the paused {key:?} alone");
        }
        let now = self.now;
        let child = self.child(key);
        if live.asked == Asked::No && !matches!(input, Input::Kill) {
            child.note_stable_run(live, now);
        }
        if let Some(live) = &mut child.live {
            live.asked = rung;
            live.ready_since = None;
        }
    }

    fn reported(&mut self, key: ChildKey, report: ChildReport) {
        if let ChildReport::Exited { .. } | ChildReport::StartFailed { .. } | ChildReport::Stopped { .. } =
            report
        {
            let child = self.child(key);
            assert!(child.incarnation > child.told_end, "an incarnation ends once: {report:?} of {key:?}");
            child.told_end = child.incarnation;
        }
        match report {
            ChildReport::Ignored => {
                let child = self.child(key);
                child.settled = true;
                child.expected_up = false;
            }
            ChildReport::Exited { next, .. } | ChildReport::StartFailed { next } => {
                self.follows(key, report, next)
            }
            ChildReport::Stopped { .. } => {
                let child = self.child(key);
                if child.spec.restart == RestartType::Temporary {
                    child.expected_up = false;
                    child.settled = true;
                }
            }
            ChildReport::Removed => assert!(self.children[&key].live.is_none()),
            _ => {}
        }
    }

    fn follows(&mut self, key: ChildKey, report: ChildReport, next: Next) {
        let now = self.now;
        let shared = self.spec.intensity;
        let group = self.is_group();
        let exited = matches!(report, ChildReport::Exited { .. });
        assert!(!self.ending || next == Next::SupervisorEnds, "{report:?} of a supervisor that ends");
        let child = self.children.get_mut(&key).expect("known");
        let own = child.spec.limit;
        let limit = own.map(|own| own.intensity).or(shared);
        let counted = if own.is_some() { child.counted.as_mut() } else { Some(&mut self.counted) };
        match next {
            Next::Rest | Next::Removed => {
                child.expected_up = false;
                child.settled = true;
            }
            Next::Held => {
                assert!(child.paused);
                child.settled = true;
            }
            Next::Restart { delay, nth, of } => {
                assert!(!child.paused, "{key:?} is paused");
                assert!(!child.down, "{key:?} is wanted down");
                let consumed = group && exited && delay.is_zero() && nth == 0 && of.is_none();
                if nth > 0 {
                    let limit = limit.expect("only limits count");
                    assert_eq!(of, Some(limit.intensity));
                    if let Some(counted) = counted {
                        counted.push(now);
                        let within = within(counted, &limit, now);
                        assert!(within <= limit.intensity as usize, "{key:?}: {within} restarts in a period");
                        assert_eq!(nth as usize, within, "the number of the restart");
                    }
                } else if limit.is_some() {
                    assert!(consumed || !exited, "the restart of {key:?} counts: {report:?}");
                }
                if group && of.is_none() && delay.is_zero() {
                    // Consumed by a group restart under way, or a restart of its own without a limit.
                    if limit.is_none() {
                        child.attempt = None;
                    }
                } else {
                    child.not_before = now.checked_add(delay);
                    if let Some(attempt) = &mut child.attempt {
                        *attempt += 1;
                        check_delay(&child.spec, *attempt, delay, exited);
                    }
                }
            }
            Next::Failed => {
                child.expected_up = false;
                child.settled = true;
                assert_ne!(child.spec.restart, RestartType::Temporary, "{key:?} has no limit to reach");
                let own = own.expect("only a limit of its own makes a child failed");
                assert_eq!(own.on_limit, OnLimit::GiveUp);
                if let Some(counted) = counted {
                    assert_eq!(within(counted, &own.intensity, now), own.intensity.intensity as usize);
                }
            }
            Next::Escalates => {
                assert!(own.is_none_or(|own| own.on_limit == OnLimit::Escalate));
                let limit = limit.expect("no limit, no escalation");
                if let Some(counted) = counted {
                    assert_eq!(within(counted, &limit, now), limit.intensity as usize, "too early");
                }
            }
            // Either it ends already, or this failed first start makes it end.
            Next::SupervisorEnds => assert!(self.ending || (child.initial && child.incarnation == 1)),
        }
    }

    fn reported_self(&mut self, report: SupervisorReport) {
        match report {
            SupervisorReport::LimitReached => {
                self.announced.get_or_insert(Exit::Escalated);
            }
            SupervisorReport::AutoShutdown => {
                self.announced.get_or_insert(Exit::Shutdown);
            }
            SupervisorReport::Unwinding => {
                self.unwinding = true;
                self.announced.get_or_insert(Exit::Shutdown);
            }
            SupervisorReport::Ending => {
                assert!(!self.ending, "it begins to end once");
                assert!(self.announced.is_some(), "it says why it ends");
                self.ending = true;
            }
            _ => {}
        }
    }

    fn answered(&mut self, id: OperationId, outcome: &Outcome) {
        let pending = self.pending.remove(&id).unwrap_or_else(|| panic!("{id:?} is answered once"));
        let live = |key: &ChildKey| self.children.get(key).and_then(|child| child.live);
        match outcome {
            Outcome::Started { child, incarnation } => {
                let live = live(child).expect("it runs");
                assert!(live.incarnation == incarnation.get() && live.ready_since.is_some(), "it is ready");
                assert!(matches!(pending.kind, Kind::Up | Kind::Restart));
                if pending.kind == Kind::Restart {
                    assert!(live.incarnation > pending.before, "a new incarnation answers a restart");
                }
            }
            Outcome::AlreadyRunning { child } => {
                assert_eq!(pending.kind, Kind::Up);
                assert!(live(child).is_some_and(|live| live.ready_since.is_some()));
            }
            Outcome::Stopped { child, .. } | Outcome::NotRunning { child } => {
                assert_eq!(pending.kind, Kind::Down);
                assert!(live(child).is_none(), "{child:?} is gone");
            }
            Outcome::Refused(refusal) => {
                if pending.kind == Kind::Down {
                    assert_eq!(*refusal, Refusal::NotFound, "a stop is never refused");
                }
                let asked_again = self.pending.values().any(|other| {
                    other.child == pending.child && matches!(other.kind, Kind::Up | Kind::Restart)
                });
                if *refusal == Refusal::Superseded
                    && !asked_again
                    && let Some(child) = pending.child.and_then(|key| self.children.get_mut(&key))
                {
                    child.asked_up = false;
                }
            }
            _ => {}
        }
    }

    // ---- Laws about one step. ----

    /// OTP's table: restart type and exit decide.
    fn check_decision(&self, key: ChildKey, exit: Exit, actions: &[Action]) {
        let spec = &self.children[&key].spec;
        let restarted = match spec.restart {
            RestartType::Permanent => true,
            RestartType::Transient => exit != Exit::Normal && exit != Exit::Shutdown,
            RestartType::Temporary => false,
        };
        let next = actions.iter().find_map(|action| match action {
            Action::Report { child, report: ChildReport::Exited { next, .. }, .. } if *child == key => {
                Some(*next)
            }
            _ => None,
        });
        let goes_on = matches!(next, Some(Next::Restart { .. } | Next::Failed | Next::Escalates));
        let rests = matches!(next, Some(Next::Rest | Next::Removed));
        assert!(goes_on == restarted && rests != restarted, "{:?} {exit} -> {next:?}", spec.restart);
        let kept = spec.restart != RestartType::Temporary || spec.retain;
        if rests {
            let removed = !kept || self.spec.strategy == Strategy::SimpleOneForOne;
            assert_eq!(next == Some(Next::Removed), removed, "{key:?}");
        }
    }

    /// A shutdown time that is over leads to a kill, a kill without effect to a leak, and a shortage to no count.
    fn check_follow_up(&self, input: &Input, actions: &[Action]) {
        match *input {
            Input::Timer { child: key, .. } => {
                let Some(live) = self.children[&key].live.filter(|live| live.asked > Asked::No) else {
                    return;
                };
                let next = actions.iter().any(|action| match *action {
                    Action::Kill { child, .. } => child == key && live.asked == Asked::Stop,
                    Action::Abandon { child, .. } => child == key && live.asked == Asked::Kill,
                    _ => false,
                });
                assert!(next, "{key:?} does not end in its time and stays {:?}", live.asked);
            }
            Input::StartFailed { failure: StartFailure::ResourceShortage, .. } => {
                let counts = actions.iter().any(|action| {
                    let Action::Report { report: ChildReport::StartFailed { next }, .. } = action else {
                        return false;
                    };
                    matches!(next, Next::Restart { nth: 1.., .. } | Next::Escalates)
                });
                assert!(!counts, "want of resources counts: {actions:?}");
            }
            _ => {}
        }
    }

    fn check_auto_shutdown(&self, actions: &[Action], was_ending: bool) {
        let announced = actions
            .iter()
            .any(|action| matches!(action, Action::ReportSelf { report: SupervisorReport::AutoShutdown }));
        let trigger = actions.iter().find_map(|action| match action {
            Action::Report {
                child,
                report: ChildReport::Exited { next: Next::Rest | Next::Removed, .. },
                ..
            } if self.children[child].spec.significant => Some(*child),
            _ => None,
        });
        let Some(trigger) = trigger.filter(|_| !was_ending) else {
            assert!(!announced, "only a significant child's own end shuts down");
            return;
        };
        let others = || {
            let significant = |key: ChildKey, child: &Child| key != trigger && child.spec.significant;
            self.children.iter().filter(move |(key, child)| significant(**key, child)).map(|(_, child)| child)
        };
        // Initial children that wait for their turn have no transition yet.
        let waits = |child: &Child| {
            let view = self.policy.children().find(|view| view.spec.id == child.spec.id);
            child.incarnation == 0 && view.is_some_and(|view| view.state == State::Starting)
        };
        // Nor is a first start that failed.
        let failed_start = !self.children[&trigger].was_ready;
        match self.spec.auto_shutdown {
            AutoShutdown::Never => assert!(!announced),
            // A member that its group stops anyway is no trigger.
            AutoShutdown::AnySignificant => assert!(announced || self.is_group() || failed_start),
            AutoShutdown::AllSignificant => {
                let runs = others().any(|child| {
                    child.live.is_some_and(|live| live.asked == Asked::No)
                        || matches!(child.state, State::Restarting | State::Starting)
                        || (child.expected_up && child.spec.restart == RestartType::Transient)
                });
                let none = !others().any(|child| child.live.is_some() || child.expected_up || waits(child))
                    && others().all(|child| matches!(child.state, State::Stopped | State::Failed));
                assert!(!(announced && runs), "significant children are left");
                assert!(
                    announced || !none || self.is_group() || failed_start,
                    "no significant child is left"
                );
            }
        }
    }

    /// Whoever restarts with a dependency is asked to end in the step that starts the dependency again.
    fn check_followers(&self, actions: &[Action]) {
        for action in actions {
            let Action::Start { child: key, incarnation } = action else { continue };
            let Some(id) = self.children.get(key).map(|child| &child.spec.id) else { continue };
            for (other, child) in &self.children {
                let goes_on = child.paused || child.spec.restart == RestartType::Temporary;
                if incarnation.get() > 1 && child.follows(id) && !goes_on {
                    let spared = child.live.is_some_and(|live| live.asked == Asked::No);
                    assert!(!spared, "{other:?} is not restarted with {key:?}");
                }
            }
        }
    }

    fn check_ladders(&self, actions: &[Action]) {
        for action in actions {
            let (key, grace) = match *action {
                Action::Stop { child, .. } => {
                    match self.children.get(&child).map(|child| child.spec.shutdown) {
                        Some(Shutdown::Timeout(grace)) => (child, Some(grace)),
                        _ => (child, None),
                    }
                }
                Action::Kill { child, .. } => (child, Some(self.spec.kill_timeout)),
                _ => continue,
            };
            let Some(child) = self.children.get(&key) else { continue };
            let Some(live) = child.live else { continue };
            // A kill that follows in the same step has its own time.
            if matches!(action, Action::Stop { .. }) && live.asked == Asked::Kill {
                continue;
            }
            let due = grace.map(|grace| self.now + grace);
            assert_eq!(child.timer.map(|(_, at)| at), due, "{key:?}: when {action:?} is followed up");
        }
    }

    // ---- Laws at all times. ----

    fn check(&self) {
        assert_eq!(self.policy.len(), self.children.len());
        assert_eq!(self.policy.is_ending(), self.ending);
        assert_eq!(self.policy.is_started(), self.started);
        for view in self.policy.children() {
            let key = view.key;
            let child = &self.children[&key];
            // An initial child that waits for its turn is starting; its transition comes with the turn.
            let waits = view.state == State::Starting && !view.alive && child.incarnation == 0;
            assert!(view.state == child.state || (waits && child.state == State::Stopped), "{key:?}");
            assert_eq!(view.incarnation.get(), child.incarnation, "{key:?}");
            assert_eq!(view.alive, child.live.is_some(), "{key:?}");
            let ready = child.live.is_some_and(|live| live.ready_since.is_some() && !live.unhealthy);
            assert_eq!(view.ready, ready, "{key:?}");
            assert_eq!(view.paused, child.paused, "{key:?}");
            assert!(!child.down || view.wanted == Wanted::Down, "{key:?}");
        }
    }

    /// What must hold when everybody has done their part and no timer is armed.
    pub(crate) fn check_settled(&self) {
        for view in self.policy.children() {
            let key = view.key;
            let child = &self.children[&key];
            if !view.waits_for.is_empty() && !view.alive {
                assert!(matches!(view.state, State::Starting | State::Restarting));
                continue;
            }
            assert!(
                matches!(view.state, State::Stopped | State::Running | State::Failed),
                "{key:?} stays {}",
                view.state
            );
            if child.expected_up && !child.paused && !self.ending {
                assert_eq!(view.state, State::Running, "{key:?} comes back");
            }
        }
        for (id, pending) in &self.pending {
            let waits = pending
                .child
                .is_none_or(|key| self.policy.child(key).is_some_and(|child| !child.waits_for.is_empty()));
            assert!(waits, "{id:?} is never answered: {pending:?}");
        }
        let queued = self.policy.children().any(|child| !child.waits_for.is_empty());
        assert!(self.ending || self.started || queued, "the supervisor has started");
    }
}

fn target(operation: &Operation) -> Option<ChildKey> {
    match operation {
        Operation::StartChild(_) => None,
        Operation::TerminateChild(key)
        | Operation::RestartChild(key)
        | Operation::DeleteChild(key)
        | Operation::Start(key)
        | Operation::Stop(key)
        | Operation::Restart(key)
        | Operation::Pause(key)
        | Operation::Resume(key)
        | Operation::Update(key, _)
        | Operation::Remove(key) => Some(*key),
    }
}

/// Counts the restarts at most a period back, the one exactly a period back included.
fn within(counted: &[Instant], limit: &RestartIntensity, now: Instant) -> usize {
    counted.iter().filter(|at| now - **at <= limit.period).count()
}

/// The delay before restart number `attempt`, by the definition of the backoff.
fn check_delay(spec: &ChildSpec, attempt: u32, delay: Duration, exited: bool) {
    let Some(backoff) = &spec.backoff else {
        assert!(!exited || delay.is_zero(), "no backoff, no delay");
        return;
    };
    if backoff.jitter > 0.0 {
        assert!(delay <= backoff.max.mul_f64(1.0 + backoff.jitter));
        return;
    }
    let mut expected = backoff.first.unwrap_or(backoff.base);
    let mut growing = backoff.base;
    let grown = if backoff.first.is_some() { attempt.saturating_sub(2) } else { attempt - 1 };
    for _ in 0..grown.min(64) {
        growing = growing.mul_f64(backoff.factor).min(backoff.max);
    }
    if attempt > 1 {
        expected = growing;
    }
    let expected = expected.min(backoff.max);
    assert!(delay.abs_diff(expected) < Duration::from_micros(1), "attempt {attempt}: {delay:?} {expected:?}");
}
