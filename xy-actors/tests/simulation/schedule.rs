//! What happens, in which order: chosen by the seed, within what real children and callers can do.

use std::sync::Arc;
use std::time::Duration;

use xy_actors::exit::Exit;
use xy_actors::policy::{ChildKey, Incarnation, Input, Operation, StartFailure, TimerToken};
use xy_actors::spec::{
    AutoShutdown, Backoff, ChildId, ChildSpec, Condition, Dependency, FailedStart, OnLimit, Order,
    RestartIntensity, RestartLimit, RestartType, Shutdown, Strategy, SupervisorSpec,
};

use crate::random::Random;
use crate::world::{Asked, World};

const EXITS: [Exit; 5] = [Exit::Normal, Exit::Shutdown, Exit::Abnormal, Exit::Killed, Exit::Escalated];
const IDS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

pub(crate) struct Schedule {
    random: Random,
    world: World,
    /// How often, in percent, children do as they are told.
    manners: u64,
    added: u64,
}

impl Schedule {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let strategy = random.pick(&[
            Strategy::OneForOne,
            Strategy::OneForAll,
            Strategy::RestForOne,
            Strategy::SimpleOneForOne,
        ]);
        let dynamic = strategy == Strategy::SimpleOneForOne;
        let spec = SupervisorSpec {
            strategy,
            intensity: random.percent(70).then(|| intensity(&mut random)),
            auto_shutdown: if dynamic || random.percent(60) {
                AutoShutdown::Never
            } else {
                random.pick(&[AutoShutdown::AnySignificant, AutoShutdown::AllSignificant])
            },
            order: random.pick(&[Order::Ordered, Order::Concurrent]),
            failed_start: random.pick(&[FailedStart::Unwinds, FailedStart::Counts]),
            kill_timeout: Duration::from_secs(2),
            max_children: random.percent(20).then_some(5),
        };
        let mut children = Vec::new();
        if !dynamic {
            let mut ids = IDS[..random.below(6) as usize].to_vec();
            // Dependencies lead to ids earlier in the alphabet; the order of the list is another one.
            for at in (1..ids.len()).rev() {
                ids.swap(at, random.below(at as u64 + 1) as usize);
            }
            let known = ids.clone();
            children = ids.iter().map(|id| child(&mut random, &spec, id, &known)).collect();
            make_completable(&mut children);
        }
        let manners = random.pick(&[20, 60, 90, 98]);
        let world = World::new(spec, children, seed);
        Self { random, world, manners, added: 0 }
    }

    /// Plays a random schedule and then a fair one; returns how many inputs it took.
    pub(crate) fn run(mut self) -> u64 {
        if self.random.percent(98) {
            self.world.step(Input::Start);
            for _ in 0..20 + self.random.below(120) {
                self.happen();
            }
            self.settle();
            self.world.check_settled();
            for _ in 0..self.random.below(30) {
                self.happen();
            }
        }
        let last =
            if self.random.percent(80) { Input::Shutdown { exit: Exit::Shutdown } } else { Input::Kill };
        self.world.step(last);
        for _ in 0..self.random.below(10) {
            self.happen();
        }
        self.settle();
        self.world.check_settled();
        assert!(self.world.ended.is_some(), "a shutdown ends");
        for _ in 0..3 {
            self.happen();
        }
        self.world.steps
    }

    fn happen(&mut self) {
        match self.random.below(1000) {
            0..450 => self.child_moves(),
            450..620 => self.time_passes(),
            620..720 => self.stale(),
            720..993 => self.operation(),
            993..997 if self.world.steps > 60 => {
                let exit = self.random.pick(&EXITS);
                self.world.step(Input::Shutdown { exit });
            }
            997..998 if self.world.steps > 60 => self.world.step(Input::Kill),
            _ => self.world.stale(Input::Start),
        }
    }

    fn child_moves(&mut self) {
        let live: Vec<ChildKey> = self
            .world
            .children
            .iter()
            .filter(|(_, child)| child.live.is_some())
            .map(|(key, _)| *key)
            .collect();
        if live.is_empty() {
            return;
        }
        let key = self.random.pick(&live);
        let Some(live) = self.world.children[&key].live else { return };
        let incarnation = Incarnation::new(live.incarnation);
        let exited = |exit| Input::Exited { child: key, incarnation, exit };
        let failed = |failure| Input::StartFailed { child: key, incarnation, failure };
        let obeys = self.random.percent(self.manners);
        let exit = self.random.pick(&EXITS);
        let input = match (live.asked, live.ready_since) {
            (Asked::No, None) if !live.launched && self.random.percent(30) => {
                Input::Launched { child: key, incarnation }
            }
            (Asked::No, None) if obeys => Input::Ready { child: key, incarnation },
            (_, None) if self.random.percent(10) => Input::Ignored { child: key, incarnation },
            (Asked::No, None) => match self.random.below(4) {
                0 => failed(StartFailure::Failed),
                1 => failed(StartFailure::ResourceShortage),
                2 => exited(exit),
                _ => return,
            },
            (Asked::No, Some(_)) if self.random.percent(15) => {
                let healthy = self.random.percent(50);
                Input::Health { child: key, incarnation, healthy }
            }
            // Well-behaved children crash seldom.
            (Asked::No, Some(_)) if obeys && self.random.percent(70) => return,
            (Asked::No, Some(_)) => exited(exit),
            (Asked::Stop, _) if self.random.percent(10) => {
                let by = Duration::from_millis(self.random.pick(&[0, 500, 1000, 4000]));
                Input::StopAhead { child: key, incarnation, by }
            }
            // Immortal for now: neither asking nor killing helps at once.
            _ if !obeys => return,
            _ => match self.random.below(10) {
                0 => failed(StartFailure::Failed),
                1..4 => exited(exit),
                _ => exited(Exit::Shutdown),
            },
        };
        self.world.step(input);
    }

    /// Returns the timer that is due next.
    fn next_timer(&self) -> Option<(std::time::Instant, ChildKey, TimerToken)> {
        let timers = self.world.children.iter();
        timers
            .filter_map(|(key, child)| child.timer.map(|(token, at)| (at, *key, token)))
            .min_by_key(|next| next.0)
    }

    fn time_passes(&mut self) {
        let next = self.next_timer();
        if let Some((at, child, token)) = next
            && self.random.percent(60)
        {
            // Timers may be late.
            let late = if self.random.percent(10) { self.random.below(3000) } else { 0 };
            self.world.now = self.world.now.max(at) + Duration::from_millis(late);
            self.world.step(Input::Timer { child, token });
            return;
        }
        // Whole periods make the ends of windows meet.
        let step = self.random.pick(&[1, 10, 500, 1000, 1000, 2000, 5000, 30_000]);
        let mut to = self.world.now + Duration::from_millis(step);
        if let Some((at, ..)) = next {
            to = to.min(at.max(self.world.now));
        }
        self.world.now = to;
    }

    fn stale(&mut self) {
        let keys: Vec<ChildKey> = self.world.children.keys().copied().collect();
        let key = if keys.is_empty() { ChildKey::new(99) } else { self.random.pick(&keys) };
        let known = self.world.children.get(&key);
        let input = match self.random.below(4) {
            0 if !self.world.spent_timers.is_empty() => {
                let (child, token) = self.random.pick(&self.world.spent_timers);
                Input::Timer { child, token }
            }
            // A timer of one child's never moves another.
            1 => {
                let others = self.world.children.iter().filter(|(other, _)| **other != key);
                match others.filter_map(|(_, other)| other.timer).next() {
                    Some((token, _)) => Input::Timer { child: key, token },
                    None => return,
                }
            }
            2 if known.is_some_and(|child| child.live.is_none()) => {
                let incarnation = Incarnation::new(known.map_or(0, |child| child.incarnation));
                Input::Exited { child: key, incarnation, exit: Exit::Abnormal }
            }
            _ if !self.world.past.is_empty() => {
                let (child, incarnation) = self.random.pick(&self.world.past);
                let incarnation = Incarnation::new(incarnation);
                match self.random.below(4) {
                    0 => Input::Ready { child, incarnation },
                    1 => Input::Ignored { child, incarnation },
                    2 => Input::StartFailed { child, incarnation, failure: StartFailure::Failed },
                    _ => Input::Exited { child, incarnation, exit: self.random.pick(&EXITS) },
                }
            }
            _ => return,
        };
        self.world.stale(input);
    }

    fn operation(&mut self) {
        let mut keys: Vec<ChildKey> = self.world.children.keys().copied().collect();
        keys.push(ChildKey::new(9999));
        let key = self.random.pick(&keys);
        let operation = match self.random.below(100) {
            0..14 => Operation::StartChild(Arc::new(self.spec_to_add())),
            14..26 => Operation::TerminateChild(key),
            26..36 => Operation::RestartChild(key),
            36..40 => Operation::DeleteChild(key),
            40..56 => Operation::Start(key),
            56..64 => Operation::Stop(key),
            64..76 => Operation::Restart(key),
            76..84 => Operation::Pause(key),
            84..93 => Operation::Resume(key),
            93..96 => match self.world.children.get(&key).map(|child| child.spec.clone()) {
                Some(spec) => Operation::Update(key, Arc::new(self.changed(spec))),
                None => Operation::Resume(key),
            },
            _ => Operation::Remove(key),
        };
        self.world.operate(operation);
    }

    fn spec_to_add(&mut self) -> ChildSpec {
        self.added += 1;
        let spec = self.world.spec.clone();
        if spec.strategy == Strategy::SimpleOneForOne {
            return child(&mut self.random, &spec, "worker", &[]);
        }
        let known: Vec<&str> = IDS.into_iter().filter(|id| self.world.key(id).is_some()).collect();
        let id = self.random.pick(&IDS);
        let spec = child(&mut self.random, &spec, id, &known);
        // Something for the check of circles to refuse.
        if !spec.depends_on.is_empty() && self.random.percent(20) {
            return ChildSpec { depends_on: vec![self.random.pick(&known).into()], ..spec };
        }
        spec
    }

    /// Changes what does not bear on the stop under way.
    fn changed(&mut self, old: ChildSpec) -> ChildSpec {
        let known: Vec<&str> = IDS.into_iter().filter(|id| self.world.key(id).is_some()).collect();
        let id = old.id.to_string();
        let new = child(&mut self.random, &self.world.spec, &id, &known);
        let mut new = new;
        // Something for the check of circles to refuse.
        if self.world.spec.order == Order::Concurrent && self.random.percent(20) && !known.is_empty() {
            let on = self.random.pick(&known);
            new.depends_on.push(dependency(&mut self.random, on));
        }
        ChildSpec { shutdown: old.shutdown, restart: old.restart, significant: old.significant, ..new }
    }

    /// Everybody does their part until nothing is left to be done.
    fn settle(&mut self) {
        for _ in 0..2000 {
            let busy = self.world.children.iter().find_map(|(key, child)| {
                let live = child.live?;
                let incarnation = Incarnation::new(live.incarnation);
                match live.asked {
                    Asked::No if live.ready_since.is_some() => None,
                    Asked::No => Some(Input::Ready { child: *key, incarnation }),
                    _ => Some(Input::Exited { child: *key, incarnation, exit: Exit::Shutdown }),
                }
            });
            if let Some(input) = busy {
                self.world.step(input);
            } else if let Some((at, child, token)) = self.next_timer() {
                self.world.now = self.world.now.max(at);
                self.world.step(Input::Timer { child, token });
            } else {
                return;
            }
        }
        panic!("it settles");
    }
}

fn intensity(random: &mut Random) -> RestartIntensity {
    RestartIntensity::new(random.below(5) as u32, Duration::from_secs(random.pick(&[1, 2, 5, 60])))
}

fn dependency(random: &mut Random, on: &str) -> Dependency {
    let conditions = [Condition::Started, Condition::Ready, Condition::Healthy, Condition::Completed];
    Dependency { on: on.into(), condition: random.pick(&conditions), restart: random.percent(30) }
}

/// Lets nobody wait for the completion of what never completes: a supervisor does not begin with that.
fn make_completable(children: &mut [ChildSpec]) {
    let endless: Vec<ChildId> = children
        .iter()
        .filter(|spec| match spec.restart {
            RestartType::Permanent => true,
            RestartType::Transient => false,
            RestartType::Temporary => !spec.retain,
        })
        .map(|spec| spec.id.clone())
        .collect();
    for dependency in children.iter_mut().flat_map(|spec| &mut spec.depends_on) {
        if dependency.condition == Condition::Completed && endless.contains(&dependency.on) {
            dependency.condition = Condition::Healthy;
        }
    }
}

fn child(random: &mut Random, supervisor: &SupervisorSpec, id: &str, known: &[&str]) -> ChildSpec {
    let restart = random.pick(&[
        RestartType::Permanent,
        RestartType::Permanent,
        RestartType::Transient,
        RestartType::Temporary,
    ]);
    let may_be_significant =
        supervisor.auto_shutdown != AutoShutdown::Never && restart != RestartType::Permanent;
    let shutdown = random.pick(&[
        Shutdown::Timeout(Duration::from_secs(1)),
        Shutdown::Timeout(Duration::from_secs(5)),
        Shutdown::Timeout(Duration::ZERO),
        Shutdown::BrutalKill,
        Shutdown::Infinity,
    ]);
    let backoff = random.percent(50).then(|| Backoff {
        first: random.percent(30).then(|| Duration::from_millis(random.pick(&[0, 100]))),
        base: Duration::from_millis(random.pick(&[0, 500, 1000])),
        factor: random.pick(&[1.0, 2.0]),
        max: Duration::from_secs(random.pick(&[2, 30])),
        jitter: random.pick(&[0.0, 0.0, 0.1, 1.0]),
        reset_after: Duration::from_secs(random.pick(&[0, 2, 30])),
    });
    let limit = random.percent(50).then(|| RestartLimit {
        intensity: intensity(random),
        on_limit: random.pick(&[OnLimit::Escalate, OnLimit::GiveUp, OnLimit::GiveUp]),
    });
    let mut depends_on = Vec::new();
    if supervisor.order == Order::Concurrent {
        for other in known {
            if *other < id && random.percent(20) {
                depends_on.push(dependency(random, other));
            }
        }
    }
    ChildSpec {
        restart,
        shutdown,
        significant: may_be_significant && random.percent(60),
        backoff,
        limit,
        start_timeout: random.percent(30).then_some(Duration::from_secs(3)),
        retain: random.percent(40),
        health_checked: random.percent(40),
        autostart: random.percent(85),
        depends_on,
        ..ChildSpec::worker(id)
    }
}
