//! A supervisor's policy with scripted children and a clock that only moves when told.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use xy_actors::event::{ChildReport, Next, SupervisorReport};
use xy_actors::exit::Exit;
use xy_actors::policy::{
    Action, ChildKey, Incarnation, Input, Operation, OperationId, Outcome, Policy, StartFailure, State,
    TimerToken,
};
use xy_actors::spec::{ChildSpec, RestartIntensity, RestartType, Strategy, SupervisorSpec};

/// What a scripted start does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    Ready,
    Fail,
    Shortage,
    Ignore,
    Hang,
}

/// What a scripted child does when it is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    Obey(Exit),
    Stubborn,
    Immortal,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) policy: Policy,
    pub(crate) now: Instant,
    begins: HashMap<String, VecDeque<Begin>>,
    always: HashMap<String, Begin>,
    finish: HashMap<String, Finish>,
    ids: BTreeMap<ChildKey, String>,
    timers: BTreeMap<(Instant, TimerToken), ChildKey>,
    /// What happened, in order: `start a`, `ready a`, `stop a`, `kill a`, `exit a`, ..
    log: Vec<String>,
    pub(crate) reports: Vec<(String, ChildReport)>,
    pub(crate) self_reports: Vec<SupervisorReport>,
    pub(crate) answers: HashMap<u64, Outcome>,
    pub(crate) end: Option<(Exit, Option<String>)>,
    next_operation: u64,
}

pub(crate) fn flags(strategy: Strategy, intensity: u32, period: u64) -> SupervisorSpec {
    SupervisorSpec {
        intensity: Some(RestartIntensity::new(intensity, Duration::from_secs(period))),
        ..SupervisorSpec::new(strategy)
    }
}

pub(crate) fn child(id: &str, restart: RestartType) -> ChildSpec {
    ChildSpec { restart, ..ChildSpec::worker(id) }
}

pub(crate) fn permanent(id: &str) -> ChildSpec {
    child(id, RestartType::Permanent)
}

impl World {
    pub(crate) fn new(spec: SupervisorSpec, children: Vec<ChildSpec>) -> Self {
        let policy = Policy::new(spec, children, 1).expect("valid specs");
        let ids = policy.children().map(|child| (child.key, child.spec.id.to_string())).collect();
        Self {
            policy,
            now: Instant::now(),
            begins: HashMap::new(),
            always: HashMap::new(),
            finish: HashMap::new(),
            ids,
            timers: BTreeMap::new(),
            log: Vec::new(),
            reports: Vec::new(),
            self_reports: Vec::new(),
            answers: HashMap::new(),
            end: None,
            next_operation: 1,
        }
    }

    /// Creates and starts a supervisor.
    pub(crate) fn started(spec: SupervisorSpec, children: Vec<ChildSpec>) -> Self {
        let mut world = Self::new(spec, children);
        world.input(Input::Start);
        world
    }

    /// Scripts the next starts of a child.
    pub(crate) fn begins(&mut self, id: &str, script: &[Begin]) {
        self.begins.entry(id.to_owned()).or_default().extend(script);
    }

    /// Scripts all further starts of a child.
    pub(crate) fn always(&mut self, id: &str, begin: Begin) {
        self.always.insert(id.to_owned(), begin);
    }

    pub(crate) fn finishes(&mut self, id: &str, finish: Finish) {
        self.finish.insert(id.to_owned(), finish);
    }

    pub(crate) fn key(&self, id: &str) -> ChildKey {
        self.policy.key(id).unwrap_or_else(|| panic!("no child `{id}`"))
    }

    pub(crate) fn incarnation(&self, id: &str) -> Incarnation {
        self.policy.child(self.key(id)).expect("child").incarnation
    }

    pub(crate) fn state(&self, id: &str) -> State {
        self.policy.child(self.key(id)).expect("child").state
    }

    /// Returns `id:state` of all children in start order.
    pub(crate) fn states(&self) -> String {
        let states: Vec<String> =
            self.policy.children().map(|child| format!("{}:{}", child.spec.id, child.state)).collect();
        states.join(" ")
    }

    /// Returns what happened since the last call.
    pub(crate) fn happened(&mut self) -> String {
        std::mem::take(&mut self.log).join(", ")
    }

    pub(crate) fn input(&mut self, input: Input) {
        let mut queue = VecDeque::from([input]);
        while let Some(input) = queue.pop_front() {
            let mut actions = Vec::new();
            self.policy.step(self.now, input, &mut actions);
            for action in actions {
                self.perform(action, &mut queue);
            }
        }
    }

    fn perform(&mut self, action: Action, queue: &mut VecDeque<Input>) {
        match action {
            Action::Start { child, incarnation } => {
                let id = self.policy.child(child).expect("started child").spec.id.to_string();
                self.ids.insert(child, id.clone());
                self.log.push(format!("start {id}"));
                let scripted = self.begins.get_mut(&id).and_then(VecDeque::pop_front);
                let begin = scripted.or_else(|| self.always.get(&id).copied()).unwrap_or(Begin::Ready);
                queue.extend(match begin {
                    Begin::Ready => Some(Input::Ready { child, incarnation }),
                    Begin::Ignore => Some(Input::Ignored { child, incarnation }),
                    Begin::Fail => {
                        Some(Input::StartFailed { child, incarnation, failure: StartFailure::Failed })
                    }
                    Begin::Shortage => Some(Input::StartFailed {
                        child,
                        incarnation,
                        failure: StartFailure::ResourceShortage,
                    }),
                    Begin::Hang => None,
                });
            }
            Action::Stop { child, incarnation } => {
                let id = self.ids[&child].clone();
                self.log.push(format!("stop {id}"));
                let finish = self.finish.get(&id).copied().unwrap_or(Finish::Obey(Exit::Shutdown));
                if let Finish::Obey(exit) = finish {
                    queue.push_back(Input::Exited { child, incarnation, exit });
                }
            }
            Action::Kill { child, incarnation } => {
                let id = self.ids[&child].clone();
                self.log.push(format!("kill {id}"));
                if self.finish.get(&id) != Some(&Finish::Immortal) {
                    queue.push_back(Input::Exited { child, incarnation, exit: Exit::Killed });
                }
            }
            Action::Abandon { child, .. } => self.log.push(format!("abandon {}", self.ids[&child])),
            Action::Arm { child, token, at } => {
                self.timers.insert((at, token), child);
            }
            Action::Advance { token, by } => {
                let armed =
                    self.timers.keys().copied().find(|(_, armed)| *armed == token).expect("it is armed");
                let child = self.timers.remove(&armed).expect("found");
                self.timers.insert((armed.0 - by, token), child);
            }
            Action::Disarm { token } => self.timers.retain(|(_, armed), _| *armed != token),
            Action::Report { child, report, .. } => {
                let id = self.ids.get(&child).cloned().unwrap_or_else(|| format!("{child:?}"));
                self.reports.push((id, report));
            }
            Action::Answer { id, outcome } => {
                let twice = self.answers.insert(id.0, outcome);
                assert_eq!(twice, None, "an operation was answered twice");
            }
            Action::ReportSelf { report } => self.self_reports.push(report),
            Action::End { exit, failed_start } => {
                assert!(self.end.is_none(), "a supervisor ended twice");
                self.end = Some((exit, failed_start.map(|key| self.ids[&key].clone())));
            }
            Action::Transition { .. } | Action::Forget { .. } | Action::Started => {}
        }
    }

    /// Lets the current incarnation of a child end by itself.
    pub(crate) fn exits(&mut self, id: &str, exit: Exit) {
        let (child, incarnation) = (self.key(id), self.incarnation(id));
        self.input(Input::Exited { child, incarnation, exit });
    }

    pub(crate) fn crash(&mut self, id: &str) {
        self.exits(id, Exit::Abnormal);
    }

    pub(crate) fn ready(&mut self, id: &str) {
        let (child, incarnation) = (self.key(id), self.incarnation(id));
        self.input(Input::Ready { child, incarnation });
    }

    /// Moves the clock, firing the timers that become due on the way.
    pub(crate) fn advance(&mut self, by: Duration) {
        let target = self.now + by;
        while let Some((&(at, token), &child)) = self.timers.first_key_value() {
            if at > target {
                break;
            }
            self.timers.remove(&(at, token));
            self.now = self.now.max(at);
            self.input(Input::Timer { child, token });
        }
        self.now = target;
    }

    pub(crate) fn advance_secs(&mut self, seconds: f64) {
        self.advance(Duration::from_secs_f64(seconds));
    }

    /// Asks for an operation; returns the number of its answer.
    pub(crate) fn ask(&mut self, operation: Operation) -> u64 {
        let id = self.next_operation;
        self.next_operation += 1;
        self.input(Input::Operation { id: OperationId(id), operation });
        id
    }

    /// Asks for an operation that is answered before the clock moves.
    pub(crate) fn answer(&mut self, operation: Operation) -> Outcome {
        let id = self.ask(operation);
        self.answers.get(&id).cloned().expect("an answer at once")
    }

    pub(crate) fn shutdown(&mut self) {
        self.input(Input::Shutdown { exit: Exit::Shutdown });
    }

    pub(crate) fn counts(&self) -> [usize; 4] {
        let counts = self.policy.counts();
        [counts.specs, counts.active, counts.supervisors, counts.workers]
    }

    /// Returns the delays that were announced before restarts, in seconds.
    pub(crate) fn delays(&self, id: &str) -> Vec<f64> {
        self.reports
            .iter()
            .filter(|(child, _)| child == id)
            .filter_map(|(_, report)| match report {
                ChildReport::Exited { next: Next::Restart { delay, .. }, .. }
                | ChildReport::StartFailed { next: Next::Restart { delay, .. } } => Some(delay.as_secs_f64()),
                _ => None,
            })
            .collect()
    }
}
