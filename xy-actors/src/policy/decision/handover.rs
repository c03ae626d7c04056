//! A policy as plain data, for another program that goes on with the same children.
//!
//! Times are nanoseconds after the moment of the state (negative ones before it), because an [`Instant`] means nothing to
//! another program. Operations that somebody waits for are left out: whoever waits does so on a connection that ends.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Child, Index, Life, Own, Policy, Rebuild, TimerToken};
use crate::policy::backoff::Jitter;
use crate::policy::intensity::RestartWindow;
use crate::policy::lifecycle::{After, ChildKey, Incarnation, Origin, Phase, Wanted};
use crate::policy::shutdown::Rung;
use crate::policy::table::Table;
use crate::spec::{ChildSpec, SpecError, SupervisorSpec};

/// What a policy knows beside the specs.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct PolicyState {
    pub(crate) children: Vec<ChildState>,
    started: bool,
    turn: Option<u64>,
    rebuild: Option<(u64, bool)>,
    terminated: Vec<u64>,
    initial: Vec<u64>,
    window: Vec<i64>,
    next_key: u64,
    next_token: u64,
    jitter: u64,
}

/// What a policy knows of one child.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct ChildState {
    pub(crate) key: u64,
    pub(crate) id: String,
    incarnation: u64,
    phase: PhaseState,
    /// The token of its timer; when it is due, its performer knows.
    timer: Option<u64>,
    attempt: u32,
    wanted: Wanted,
    paused: bool,
    unhealthy: bool,
    /// Whether it has yet to pass its health check; to a program that does not say so, ready was healthy.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "std::ops::Not::not"))]
    unproven: bool,
    tries_again: bool,
    restarts: u64,
    planned: (u32, Option<u32>),
    window: Vec<i64>,
    start_until: Option<(u64, i64)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum PhaseState {
    Stopped,
    Failed,
    Held,
    Queued(Origin),
    Waiting(i64),
    Starting(Origin),
    Ready(i64),
    Stopping(Rung, After),
}

/// Why a state does not fit the specs it is taken up with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A child of the state has no spec.
    #[error("there is no spec for child `{0}`")]
    NoSpec(String),
    /// A spec is not valid.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// It contradicts itself.
    #[error("the state of the supervisor is damaged")]
    Damaged,
}

/// Returns a moment as nanoseconds after another one.
pub(crate) fn offset(moment: Instant, origin: Instant) -> i64 {
    let nanoseconds = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    match moment.checked_duration_since(origin) {
        Some(after) => nanoseconds(after),
        None => -nanoseconds(origin.duration_since(moment)),
    }
}

/// Returns the moment so many nanoseconds after another one, or that one if there is no such moment.
pub(crate) fn moment(offset: i64, origin: Instant) -> Instant {
    let distance = Duration::from_nanos(offset.unsigned_abs());
    let moment = if offset < 0 { origin.checked_sub(distance) } else { origin.checked_add(distance) };
    moment.unwrap_or(origin)
}

impl PhaseState {
    fn of(phase: Phase, now: Instant) -> Self {
        match phase {
            Phase::Stopped => Self::Stopped,
            Phase::Failed => Self::Failed,
            Phase::Held => Self::Held,
            Phase::Queued(origin) => Self::Queued(origin),
            Phase::Waiting { until } => Self::Waiting(offset(until, now)),
            Phase::Starting(origin) => Self::Starting(origin),
            Phase::Ready { since } => Self::Ready(offset(since, now)),
            Phase::Stopping { rung, after } => Self::Stopping(rung, after),
        }
    }

    fn restored(self, now: Instant) -> Phase {
        match self {
            Self::Stopped => Phase::Stopped,
            Self::Failed => Phase::Failed,
            Self::Held => Phase::Held,
            Self::Queued(origin) => Phase::Queued(origin),
            Self::Waiting(until) => Phase::Waiting { until: moment(until, now) },
            Self::Starting(origin) => Phase::Starting(origin),
            Self::Ready(since) => Phase::Ready { since: moment(since, now) },
            Self::Stopping(rung, after) => Phase::Stopping { rung, after },
        }
    }
}

impl<T> Policy<T> {
    /// Returns everything but the specs, as of `now`; `None` while it ends, when there is nothing to go on with.
    pub(crate) fn state(&self, now: Instant) -> Option<PolicyState> {
        if !matches!(self.life, Life::Running) || self.is_dynamic() {
            return None;
        }
        let children = self.children.iter().map(|(key, child)| child.state(key, now)).collect();
        Some(PolicyState {
            children,
            started: self.started,
            turn: self.turn.map(ChildKey::get),
            rebuild: self.rebuild.map(|rebuild| (rebuild.from.get(), rebuild.asked)),
            terminated: self.terminated.iter().map(|key| key.get()).collect(),
            initial: self.initial.ascending_from(ChildKey::FIRST).map(ChildKey::get).collect(),
            window: self.window.state(now),
            next_key: self.next_key,
            next_token: self.next_token.get(),
            jitter: self.jitter.state(),
        })
    }

    /// Goes on where another policy stopped at the moment that is `now` here; recipes without a child are dropped.
    ///
    /// Policy believes what it believed: the performer brings the incarnations that it calls alive.
    pub(crate) fn restored<R>(
        spec: SupervisorSpec,
        recipes: Vec<(Arc<ChildSpec>, R)>,
        state: &PolicyState,
        now: Instant,
        mut data: impl FnMut(&ChildSpec, R) -> T,
    ) -> Result<Self, StateError> {
        let mut policy = Self::with_data(spec, Vec::<(Arc<ChildSpec>, R)>::new(), 0, &mut data)?;
        let mut recipes: BTreeMap<String, (Arc<ChildSpec>, R)> =
            recipes.into_iter().map(|(spec, recipe)| (spec.id.to_string(), (spec, recipe))).collect();
        policy.children = Table::with_capacity(state.children.len());
        let mut last = ChildKey::FIRST;
        for child in &state.children {
            let (spec, recipe) =
                recipes.remove(&child.id).ok_or_else(|| StateError::NoSpec(child.id.clone()))?;
            spec.validate(&policy.spec)?;
            let key = ChildKey::new(child.key);
            if key <= last || child.key >= state.next_key {
                return Err(StateError::Damaged);
            }
            last = key;
            policy.next_key = child.key;
            let data = data(&spec, recipe);
            policy.insert(spec, Some(data));
            policy.restore(key, child, now)?;
        }
        // Somebody who was waited for may have gone meanwhile; that is waited for on.
        policy.check_circles()?;
        let known = |key: &u64| state.children.iter().any(|child| child.key == *key);
        let keys = |keys: &[u64]| keys.iter().copied().filter(known).map(ChildKey::new).collect::<Vec<_>>();
        keys(&state.initial).into_iter().for_each(|key| policy.initial.insert(key));
        policy.terminated = keys(&state.terminated).into_iter().collect();
        policy.turn = state.turn.filter(|key| known(key)).map(ChildKey::new);
        policy.rebuild = state.rebuild.map(|(from, asked)| Rebuild { from: ChildKey::new(from), asked });
        policy.started = state.started;
        policy.life = Life::Running;
        policy.window = RestartWindow::restored(&state.window, now);
        policy.next_key = state.next_key;
        policy.next_token = NonZeroU64::new(state.next_token).ok_or(StateError::Damaged)?;
        policy.jitter = Jitter::new(state.jitter);
        Ok(policy)
    }

    fn restore(&mut self, key: ChildKey, state: &ChildState, now: Instant) -> Result<(), StateError> {
        let phase = state.phase.restored(now);
        let Some(child) = self.children.get_mut(key) else { return Err(StateError::Damaged) };
        child.incarnation = Incarnation::new(state.incarnation);
        child.phase = phase;
        child.timer = state.timer.and_then(NonZeroU64::new).map(TimerToken);
        child.attempt = state.attempt;
        child.wanted = state.wanted;
        child.paused = state.paused;
        child.unhealthy = state.unhealthy;
        child.proven = !state.unproven;
        child.tries_again = state.tries_again;
        child.restarts = state.restarts;
        let own = Own {
            planned: state.planned,
            window: RestartWindow::restored(&state.window, now),
            waiters: Vec::new(),
            start_until: state
                .start_until
                .map(|(incarnation, until)| (Incarnation::new(incarnation), moment(until, now))),
        };
        let is_needed = !own.window.is_empty()
            || own.start_until.is_some()
            || own.planned != (0, None)
            || matches!(phase, Phase::Waiting { .. });
        child.own = is_needed.then(|| Box::new(own));
        let index = match phase {
            Phase::Starting(_) | Phase::Ready { .. } | Phase::Stopping { .. } => Index::Alive,
            Phase::Queued(_) => Index::Queued,
            Phase::Waiting { .. } => Index::Waiting,
            Phase::Stopped | Phase::Failed | Phase::Held => return Ok(()),
        };
        self.index(index).insert(key);
        Ok(())
    }

    /// Returns a child's timer, if one is armed.
    pub(crate) fn timer(&self, key: ChildKey) -> Option<TimerToken> {
        self.children.get(key)?.timer
    }

    /// Returns the children that have an incarnation, lowest key first, and whether it is being stopped or still starting.
    pub(crate) fn incarnations(&self) -> Vec<(ChildKey, Incarnation, Alive)> {
        let alive = self.alive.ascending_from(ChildKey::FIRST).filter_map(|key| {
            let child = self.children.get(key)?;
            let alive = match child.phase {
                Phase::Starting(_) => Alive::Starting,
                Phase::Stopping { .. } => Alive::Stopping,
                _ => Alive::Ready,
            };
            Some((key, child.incarnation, alive))
        });
        alive.collect()
    }
}

/// How far an incarnation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alive {
    Starting,
    Ready,
    Stopping,
}

impl<T> Child<T> {
    fn state(&self, key: ChildKey, now: Instant) -> ChildState {
        let own = self.own.as_deref();
        ChildState {
            key: key.get(),
            id: self.spec.id.to_string(),
            incarnation: self.incarnation.get(),
            phase: PhaseState::of(self.phase, now),
            timer: self.timer.map(|token| token.0.get()),
            attempt: self.attempt,
            wanted: self.wanted,
            paused: self.paused,
            unhealthy: self.unhealthy,
            unproven: !self.proven,
            tries_again: self.tries_again,
            restarts: self.restarts,
            planned: own.map_or((0, None), |own| own.planned),
            window: own.map(|own| own.window.state(now)).unwrap_or_default(),
            start_until: own
                .and_then(|own| own.start_until)
                .map(|(incarnation, until)| (incarnation.get(), offset(until, now))),
        }
    }
}

impl RestartWindow {
    fn state(&self, now: Instant) -> Vec<i64> {
        self.times().map(|time| offset(time, now)).collect()
    }

    fn restored(times: &[i64], now: Instant) -> Self {
        Self::of(times.iter().map(|time| moment(*time, now)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Action, Input, Operation, OperationId};
    use super::*;
    use crate::exit::Exit;
    use crate::policy::State;
    use crate::spec::{Backoff, Condition, Dependency, OnLimit, Order, RestartIntensity, RestartLimit};

    const SECOND: Duration = Duration::from_secs(1);

    fn specs() -> Vec<ChildSpec> {
        ["ready", "waiting", "starting", "stopping", "down"]
            .into_iter()
            .map(|id| ChildSpec {
                backoff: Some(Backoff::default()),
                limit: Some(RestartLimit {
                    intensity: RestartIntensity::new(3, 60 * SECOND),
                    on_limit: OnLimit::GiveUp,
                }),
                autostart: id != "down",
                ..ChildSpec::worker(id)
            })
            .collect()
    }

    fn flags() -> SupervisorSpec {
        SupervisorSpec { order: Order::Concurrent, intensity: None, ..SupervisorSpec::default() }
    }

    fn step(policy: &mut Policy, now: Instant, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        policy.step(now, input, &mut actions);
        actions
    }

    /// A policy with a child in each state, and the moment it is looked at.
    fn policy() -> (Policy, Instant) {
        let mut policy = Policy::new(flags(), specs(), 7).expect("valid");
        let start = Instant::now();
        step(&mut policy, start, Input::Start);
        let incarnation = Incarnation::new(1);
        let key = |policy: &Policy, id: &str| policy.key(id).expect("it is there");
        for id in ["ready", "waiting", "stopping"] {
            let child = key(&policy, id);
            step(&mut policy, start, Input::Ready { child, incarnation });
        }
        let now = start + SECOND;
        let child = key(&policy, "waiting");
        step(&mut policy, now, Input::Exited { child, incarnation, exit: Exit::Abnormal });
        let operation = Operation::Stop(key(&policy, "stopping"));
        step(&mut policy, now, Input::Operation { id: OperationId(1), operation });
        (policy, now)
    }

    fn restored(state: &PolicyState, now: Instant) -> Result<Policy, StateError> {
        let recipes = specs().into_iter().map(|spec| (Arc::new(spec), ())).collect();
        Policy::restored(flags(), recipes, state, now, |_, ()| ())
    }

    #[test]
    fn a_policy_that_is_taken_up_is_the_one_that_was_handed_over() {
        let (policy, now) = policy();
        let state = policy.state(now).expect("it runs");
        let other = restored(&state, now).expect("it fits");
        assert!(policy.children().eq(other.children()));
        assert_eq!(other.state(now).as_ref(), Some(&state));
        let states: Vec<State> = other.children().map(|child| child.state).collect();
        let expected = [State::Running, State::Restarting, State::Starting, State::Stopping, State::Stopped];
        assert_eq!(states, expected);
    }

    #[test]
    fn both_decide_the_same_from_then_on() {
        let (mut policy, now) = policy();
        let mut other = restored(&policy.state(now).expect("it runs"), now).expect("it fits");
        let timers = ["waiting", "stopping"].map(|id| {
            let child = policy.key(id).expect("it is there");
            Input::Timer { child, token: policy.timer(child).expect("armed") }
        });
        let child = policy.key("ready").expect("it is there");
        let crash = Input::Exited { child, incarnation: Incarnation::new(1), exit: Exit::Abnormal };
        for input in timers.into_iter().chain([crash]) {
            let then = now + 2 * SECOND;
            let expected = step(&mut policy, then, input.clone());
            assert!(!expected.is_empty());
            // Nobody waits for an operation any more.
            let expected: Vec<Action> =
                expected.into_iter().filter(|action| !matches!(action, Action::Answer { .. })).collect();
            assert_eq!(step(&mut other, then, input), expected);
        }
    }

    #[test]
    fn the_time_that_the_exchange_takes_counts() {
        let (policy, now) = policy();
        let state = policy.state(now).expect("it runs");
        let elsewhere = now + 100 * SECOND;
        let other = restored(&state, elsewhere).expect("it fits");
        let due = |policy: &Policy| {
            let key = policy.key("waiting").expect("it is there");
            policy.child(key).and_then(|child| child.restart_at).expect("it waits").0
        };
        assert_eq!(due(&other).duration_since(elsewhere), due(&policy).duration_since(now));
    }

    #[test]
    fn a_child_without_a_spec_is_refused_and_a_policy_that_ends_has_no_state() {
        let (mut policy, now) = policy();
        let state = policy.state(now).expect("it runs");
        let missing = Policy::restored(flags(), Vec::new(), &state, now, |_, ()| ()).map(drop);
        assert_eq!(missing, Err(StateError::NoSpec("ready".to_owned())));
        step(&mut policy, now, Input::Shutdown { exit: Exit::Shutdown });
        assert_eq!(policy.state(now), None);
    }

    #[test]
    fn who_waits_for_somebody_who_has_left_goes_on_waiting() {
        let needs = |id: &str, on: &str| {
            let dependency = Dependency { on: on.into(), condition: Condition::Ready, restart: false };
            ChildSpec { depends_on: vec![dependency], ..ChildSpec::worker(id) }
        };
        let base = ChildSpec { retain: true, autostart: false, ..ChildSpec::worker("base") };
        let mut policy = Policy::new(flags(), vec![base, needs("top", "base")], 7).expect("valid");
        let now = Instant::now();
        step(&mut policy, now, Input::Start);
        let operation = Operation::DeleteChild(policy.key("base").expect("it is there"));
        step(&mut policy, now, Input::Operation { id: OperationId(1), operation });
        assert_eq!(policy.key("base"), None, "it has left");
        let state = policy.state(now).expect("it runs");
        let taken_up = |spec| {
            let recipes = vec![(Arc::new(spec), ())];
            Policy::restored(flags(), recipes, &state, now, |_, ()| ())
        };
        let other = taken_up(needs("top", "base")).expect("it fits");
        assert!(policy.children().eq(other.children()));
        let mut waits_for = other.children().flat_map(|child| child.waits_for);
        assert!(waits_for.any(|(dependency, state)| dependency.on == "base".into() && state.is_none()));
        let circle = taken_up(needs("top", "top")).map(drop);
        assert_eq!(circle, Err(SpecError::DependencyCycle(vec!["top".into()]).into()));
    }

    #[test]
    fn moments_survive_as_offsets_in_both_directions() {
        let now = Instant::now() + 100 * SECOND;
        for other in [now - 5 * SECOND, now, now + 5 * SECOND] {
            assert_eq!(moment(offset(other, now), now), other);
        }
        // Whatever a state says, it is a moment.
        assert!(moment(i64::MIN, now) <= now && moment(i64::MAX, now) >= now);
    }
}
