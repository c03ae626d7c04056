//! The laws of a supervisor, each against a model that knows inputs and actions only.
//!
//! A schedule is a list of moves; a move names a child by its place among those it can be about, so that every list is a
//! possible one and a failing one shrinks to the few moves that matter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use xy_actors::exit::Exit;
use xy_actors::policy::{
    Action, ChildKey, Incarnation, Input, Operation, OperationId, Policy, StartFailure, TimerToken,
};
use xy_actors::spec::{
    Backoff, ChildSpec, Order, RestartIntensity, RestartType, Shutdown, Strategy as Restarts, SupervisorSpec,
};

/// One thing that happens; `at` picks the child.
#[derive(Debug, Clone)]
enum Move {
    Ready { at: usize },
    StartFails { at: usize, failure: StartFailure },
    Exits { at: usize, exit: Exit },
    Ignores { at: usize },
    TimerIsDue,
    TimePasses { milliseconds: u64 },
    Operation { at: usize, verb: Verb },
    Stale { at: usize },
    Shutdown,
    Kill,
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    StartChild,
    TerminateChild,
    RestartChild,
    DeleteChild,
    Start,
    Stop,
    Restart,
    Pause,
    Resume,
    Remove,
}

const VERBS: [Verb; 10] = [
    Verb::StartChild,
    Verb::TerminateChild,
    Verb::RestartChild,
    Verb::DeleteChild,
    Verb::Start,
    Verb::Stop,
    Verb::Restart,
    Verb::Pause,
    Verb::Resume,
    Verb::Remove,
];

fn exits() -> impl Strategy<Value = Exit> {
    prop::sample::select(vec![Exit::Normal, Exit::Shutdown, Exit::Abnormal, Exit::Killed, Exit::Escalated])
}

/// What children and time do.
fn natural() -> impl Strategy<Value = Move> {
    let failure = prop::sample::select(vec![StartFailure::Failed, StartFailure::ResourceShortage]);
    prop_oneof![
        8 => any::<usize>().prop_map(|at| Move::Ready { at }),
        4 => (any::<usize>(), exits()).prop_map(|(at, exit)| Move::Exits { at, exit }),
        1 => (any::<usize>(), failure).prop_map(|(at, failure)| Move::StartFails { at, failure }),
        1 => any::<usize>().prop_map(|at| Move::Ignores { at }),
        3 => Just(Move::TimerIsDue),
        3 => prop::sample::select(vec![1, 499, 500, 1000]).prop_map(|milliseconds| Move::TimePasses { milliseconds }),
        2 => any::<usize>().prop_map(|at| Move::Stale { at }),
    ]
}

/// The same, and what callers ask for.
fn any_move() -> impl Strategy<Value = Move> {
    let verb = prop::sample::select(VERBS.to_vec());
    prop_oneof![
        20 => natural(),
        10 => (any::<usize>(), verb).prop_map(|(at, verb)| Move::Operation { at, verb }),
        1 => prop_oneof![9 => Just(Move::Shutdown), 1 => Just(Move::Kill)],
    ]
}

fn strategies() -> impl Strategy<Value = Restarts> {
    prop::sample::select(vec![Restarts::OneForOne, Restarts::OneForAll, Restarts::RestForOne])
}

fn specs() -> impl Strategy<Value = (SupervisorSpec, Vec<ChildSpec>)> {
    let restart =
        prop::sample::select(vec![RestartType::Permanent, RestartType::Transient, RestartType::Temporary]);
    let shutdown = prop::sample::select(vec![
        Shutdown::Timeout(Duration::from_millis(500)),
        Shutdown::BrutalKill,
        Shutdown::Infinity,
    ]);
    let child = (restart, shutdown, any::<bool>(), any::<bool>());
    let order = prop::sample::select(vec![Order::Ordered, Order::Concurrent]);
    (strategies(), order, 0u32..4, prop::collection::vec(child, 0..5)).prop_map(
        |(strategy, order, intensity, children)| {
            let intensity = Some(RestartIntensity::new(intensity, Duration::from_secs(1)));
            let spec = SupervisorSpec { intensity, order, ..SupervisorSpec::new(strategy) };
            let child = |(index, (restart, shutdown, backoff, timeout)): (usize, _)| ChildSpec {
                restart,
                shutdown,
                backoff: if backoff { Some(Backoff::default()) } else { None },
                start_timeout: if timeout { Some(Duration::from_secs(2)) } else { None },
                ..ChildSpec::worker(format!("child{index}"))
            };
            (spec, children.into_iter().enumerate().map(child).collect())
        },
    )
}

/// An incarnation that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Alive {
    incarnation: Incarnation,
    ready: bool,
    asked: bool,
}

/// What an observer of inputs and actions knows.
struct Observer {
    policy: Policy,
    now: Instant,
    alive: BTreeMap<ChildKey, Alive>,
    last: BTreeMap<ChildKey, Incarnation>,
    timers: Vec<(Instant, TimerToken, ChildKey)>,
    answers: BTreeMap<OperationId, u32>,
    operations: u64,
    ended: bool,
    /// The first start that was none of the next incarnation of a child of which nothing ran.
    wrong_start: Option<String>,
    /// What the last step did.
    actions: Vec<Action>,
}

impl Observer {
    fn of((spec, children): (SupervisorSpec, Vec<ChildSpec>)) -> Self {
        let mut observer = Self {
            policy: Policy::new(spec, children, 1).expect("valid specs"),
            now: Instant::now(),
            alive: BTreeMap::new(),
            last: BTreeMap::new(),
            timers: Vec::new(),
            answers: BTreeMap::new(),
            operations: 0,
            ended: false,
            wrong_start: None,
            actions: Vec::new(),
        };
        observer.step(Input::Start);
        observer
    }

    /// Returns the living child that a move is about.
    fn pick(&self, at: usize, fits: impl Fn(&Alive) -> bool) -> Option<(ChildKey, Incarnation)> {
        let fitting: Vec<_> = self.alive.iter().filter(|(_, alive)| fits(alive)).collect();
        let (key, alive) = fitting.get(at.checked_rem(fitting.len())?)?;
        Some((**key, alive.incarnation))
    }

    /// Makes the input of a move, if it is possible now.
    fn input(&mut self, a_move: &Move) -> Option<Input> {
        Some(match *a_move {
            Move::Ready { at } => {
                let (child, incarnation) = self.pick(at, |alive| !alive.ready)?;
                Input::Ready { child, incarnation }
            }
            Move::StartFails { at, failure } => {
                let (child, incarnation) = self.pick(at, |alive| !alive.ready)?;
                Input::StartFailed { child, incarnation, failure }
            }
            Move::Ignores { at } => {
                let (child, incarnation) = self.pick(at, |alive| !alive.ready)?;
                Input::Ignored { child, incarnation }
            }
            Move::Exits { at, exit } => {
                let (child, incarnation) = self.pick(at, |_| true)?;
                Input::Exited { child, incarnation, exit }
            }
            Move::Stale { at } => {
                let gone = |(key, last): (&ChildKey, &Incarnation)| {
                    let alive = self.alive.get(key).map(|alive| alive.incarnation);
                    (alive != Some(*last)).then_some((*key, *last))
                };
                let gone: Vec<_> = self.last.iter().filter_map(gone).collect();
                let (child, incarnation) = *gone.get(at.checked_rem(gone.len())?)?;
                Input::Exited { child, incarnation, exit: Exit::Abnormal }
            }
            Move::TimerIsDue => {
                let (at, token, child) = *self.timers.iter().min()?;
                self.now = self.now.max(at);
                Input::Timer { child, token }
            }
            Move::TimePasses { milliseconds } => {
                let due = self.timers.iter().map(|(at, ..)| *at).min();
                let then = self.now + Duration::from_millis(milliseconds);
                self.now = due.map_or(then, |due| then.min(due.max(self.now)));
                return None;
            }
            Move::Operation { at, verb } => {
                self.operations += 1;
                let id = OperationId(self.operations);
                // Among them one that never was.
                let mut keys: Vec<ChildKey> = self.policy.children().map(|child| child.key).collect();
                keys.push(ChildKey::new(999));
                let key = keys[at % keys.len()];
                let operation = match verb {
                    Verb::StartChild => {
                        Operation::StartChild(Arc::new(ChildSpec::worker(format!("child{}", at % 7))))
                    }
                    Verb::TerminateChild => Operation::TerminateChild(key),
                    Verb::RestartChild => Operation::RestartChild(key),
                    Verb::DeleteChild => Operation::DeleteChild(key),
                    Verb::Start => Operation::Start(key),
                    Verb::Stop => Operation::Stop(key),
                    Verb::Restart => Operation::Restart(key),
                    Verb::Pause => Operation::Pause(key),
                    Verb::Resume => Operation::Resume(key),
                    Verb::Remove => Operation::Remove(key),
                };
                self.answers.insert(id, 0);
                Input::Operation { id, operation }
            }
            Move::Shutdown => Input::Shutdown { exit: Exit::Shutdown },
            Move::Kill => Input::Kill,
        })
    }

    fn make(&mut self, a_move: &Move) -> bool {
        let input = self.input(a_move);
        let made = input.is_some();
        if let Some(input) = input {
            self.step(input);
        }
        made
    }

    fn step(&mut self, input: Input) {
        match input {
            Input::Ready { child, .. } => {
                if let Some(alive) = self.alive.get_mut(&child) {
                    alive.ready = true;
                }
            }
            Input::Ignored { child, incarnation }
            | Input::StartFailed { child, incarnation, .. }
            | Input::Exited { child, incarnation, .. } => {
                self.alive.retain(|key, alive| *key != child || alive.incarnation != incarnation);
            }
            Input::Timer { token, .. } => self.timers.retain(|(_, armed, _)| *armed != token),
            _ => {}
        }
        self.actions.clear();
        self.policy.step(self.now, input, &mut self.actions);
        for action in &self.actions {
            match *action {
                Action::Start { child, incarnation } => {
                    let before = self.last.insert(child, incarnation).map_or(0, Incarnation::get);
                    let other = self.alive.insert(child, Alive { incarnation, ready: false, asked: false });
                    if other.is_some() || incarnation.get() != before + 1 {
                        let wrong = format!("{child:?}: {incarnation:?} after {before}, beside {other:?}");
                        self.wrong_start.get_or_insert(wrong);
                    }
                }
                Action::Stop { child, .. } | Action::Kill { child, .. } => {
                    if let Some(alive) = self.alive.get_mut(&child) {
                        alive.asked = true;
                    }
                }
                Action::Abandon { child, .. } => {
                    self.alive.remove(&child);
                }
                Action::Arm { child, token, at } => self.timers.push((at, token, child)),
                Action::Disarm { token } => self.timers.retain(|(_, armed, _)| *armed != token),
                Action::Answer { id, .. } => *self.answers.entry(id).or_default() += 1,
                Action::End { .. } => self.ended = true,
                _ => {}
            }
        }
    }

    /// Everybody does their part until nothing is left to be done.
    fn settle(&mut self) {
        loop {
            let asked = self.pick(0, |alive| alive.asked);
            let starting = self.pick(0, |alive| !alive.ready);
            let input = match (asked, starting) {
                (Some((child, incarnation)), _) => Input::Exited { child, incarnation, exit: Exit::Shutdown },
                (None, Some((child, incarnation))) => Input::Ready { child, incarnation },
                (None, None) => match self.input(&Move::TimerIsDue) {
                    Some(input) => input,
                    None => return,
                },
            };
            self.step(input);
        }
    }

    fn everyone_serves(&self) -> bool {
        self.policy.len() == self.alive.len() && self.alive.values().all(|alive| alive.ready && !alive.asked)
    }
}

fn schedule(moves: impl Strategy<Value = Move>) -> impl Strategy<Value = Vec<Move>> {
    prop::collection::vec(moves, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn restarts_within_a_period_never_exceed_the_intensity(
        strategy in strategies(),
        intensity in 0u32..4,
        moves in schedule(natural()),
    ) {
        let limit = RestartIntensity::new(intensity, Duration::from_secs(1));
        let spec = SupervisorSpec { intensity: Some(limit), ..SupervisorSpec::new(strategy) };
        let children = (0..3).map(|index| ChildSpec::worker(format!("child{index}"))).collect();
        let mut observer = Observer::of((spec, children));
        let mut restarts: Vec<Instant> = Vec::new();
        for a_move in moves {
            let calm = observer.everyone_serves();
            let crash = matches!(a_move, Move::Exits { .. }) && calm;
            if !observer.make(&a_move) || !crash {
                continue;
            }
            let within = restarts.iter().filter(|at| observer.now - **at <= limit.period).count();
            if observer.policy.is_ending() {
                // Crashes while siblings are still being restarted may have counted as well.
                prop_assert!(within <= intensity as usize);
                break;
            }
            prop_assert!(within < intensity as usize, "restart {} of {intensity}", within + 1);
            restarts.push(observer.now);
        }
    }

    #[test]
    fn a_supervisor_gives_up_exactly_at_the_crash_after_the_last_one_allowed(
        intensity in 0u32..5,
        crashes in prop::collection::vec((any::<usize>(), 0u64..1500), 0..30),
    ) {
        let limit = RestartIntensity::new(intensity, Duration::from_secs(1));
        let spec = SupervisorSpec { intensity: Some(limit), ..SupervisorSpec::new(Restarts::OneForOne) };
        let children = (0..3).map(|index| ChildSpec::worker(format!("child{index}"))).collect();
        let mut observer = Observer::of((spec, children));
        let mut restarts: Vec<Instant> = Vec::new();
        observer.settle();
        for (at, milliseconds) in crashes {
            observer.now += Duration::from_millis(milliseconds);
            let within = restarts.iter().filter(|at| observer.now - **at <= limit.period).count();
            observer.make(&Move::Exits { at, exit: Exit::Abnormal });
            prop_assert_eq!(observer.policy.is_ending(), within == intensity as usize);
            if observer.policy.is_ending() {
                break;
            }
            restarts.push(observer.now);
            observer.settle();
        }
    }

    #[test]
    fn no_child_runs_after_its_supervisor_ended(specs in specs(), moves in schedule(any_move())) {
        let mut observer = Observer::of(specs);
        for a_move in &moves {
            observer.make(a_move);
            prop_assert!(!observer.ended || observer.alive.is_empty(), "{:?}", observer.alive);
        }
        observer.make(&Move::Shutdown);
        observer.settle();
        prop_assert!(observer.ended && observer.alive.is_empty() && observer.timers.is_empty());
        for a_move in &moves {
            observer.make(a_move);
            prop_assert!(observer.alive.is_empty(), "{a_move:?} woke the dead");
        }
    }

    #[test]
    fn children_start_in_order_and_stop_in_reverse_under_every_schedule(
        strategy in strategies(),
        count in 1usize..6,
        moves in schedule(natural()),
    ) {
        let spec = SupervisorSpec { intensity: None, ..SupervisorSpec::new(strategy) };
        let children = (0..count).map(|index| ChildSpec::worker(format!("child{index}"))).collect();
        let mut observer = Observer::of((spec, children));
        // Without a limit only a first start that fails ends the supervisor; then the order of stops still holds.
        for a_move in moves.iter().chain([&Move::Shutdown]) {
            let before = observer.alive.clone();
            observer.make(a_move);
            let alone = strategy == Restarts::OneForOne;
            for action in observer.actions.clone() {
                match action {
                    // One that restarts alone has no place in an order, and none waits for it.
                    Action::Start { child, incarnation } if !alone || incarnation.get() == 1 => {
                        let counts = |older: &Alive| !alone || older.incarnation.get() == 1;
                        let older = observer.alive.range(..child);
                        let unready: Vec<_> = older.filter(|(_, older)| counts(older) && !older.ready).collect();
                        prop_assert!(unready.is_empty(), "{child:?} starts before {unready:?}");
                    }
                    Action::Stop { child, .. } if !alone || observer.policy.is_ending() => {
                        let newer = observer.alive.range(child..).nth(1);
                        prop_assert!(newer.is_none(), "{child:?} stops before {newer:?}: {before:?}");
                    }
                    _ => {}
                }
            }
        }
        observer.settle();
        prop_assert!(observer.ended);
    }

    #[test]
    fn a_child_has_one_live_incarnation_and_each_start_makes_the_next(
        specs in specs(),
        moves in schedule(any_move()),
    ) {
        let mut observer = Observer::of(specs);
        for a_move in &moves {
            observer.make(a_move);
            prop_assert_eq!(&observer.wrong_start, &None);
        }
    }

    #[test]
    fn every_operation_gets_exactly_one_answer(specs in specs(), moves in schedule(any_move())) {
        let mut observer = Observer::of(specs);
        for a_move in &moves {
            observer.make(a_move);
            prop_assert!(observer.answers.values().all(|count| *count <= 1), "answered twice");
        }
        observer.make(&Move::Shutdown);
        observer.settle();
        let unanswered: Vec<_> = observer.answers.iter().filter(|(_, count)| **count != 1).collect();
        prop_assert!(unanswered.is_empty(), "{unanswered:?}");
    }
}
