//! Children that fail their health check, and starts that ask for more time.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use xy_actors::event::{ChildReport, Next};
use xy_actors::exit::Exit;
use xy_actors::policy::{ChildView, Incarnation, Input, Operation, Outcome, State};
use xy_actors::spec::{
    Backoff, ChildSpec, OnLimit, Order, RestartIntensity, RestartLimit, RestartType, Strategy, SupervisorSpec,
};

use crate::harness::{Begin, Finish, World, child, flags, permanent};

fn health(world: &mut World, id: &str, healthy: bool) {
    let (child, incarnation) = (world.key(id), world.incarnation(id));
    world.input(Input::Health { child, incarnation, healthy });
}

fn fail(world: &mut World, id: &str) {
    let (child, incarnation) = (world.key(id), world.incarnation(id));
    world.input(Input::HealthFailed { child, incarnation });
}

fn view<'a>(world: &'a World, id: &str) -> ChildView<'a> {
    world.policy.child(world.key(id)).expect("child")
}

fn reports(world: &World, id: &str) -> Vec<ChildReport> {
    world.reports.iter().filter(|(child, _)| child == id).map(|(_, report)| *report).collect()
}

#[test]
fn an_unhealthy_child_runs_without_being_ready_until_it_recovers() {
    let mut world = World::started(flags(Strategy::OneForOne, 2, 3600), vec![permanent("a")]);
    world.reports.clear();
    health(&mut world, "a", false);
    health(&mut world, "a", false);
    assert_eq!((view(&world, "a").state, view(&world, "a").ready), (State::Running, false));
    health(&mut world, "a", true);
    health(&mut world, "a", true);
    assert_eq!((view(&world, "a").state, view(&world, "a").ready), (State::Running, true));
    assert_eq!(reports(&world, "a"), [ChildReport::Unhealthy, ChildReport::Healthy], "each change once");
}

#[test]
fn a_failed_health_check_stops_and_restarts_like_a_crash() {
    for (restart, next, state) in [
        (RestartType::Permanent, Some(1), State::Running),
        (RestartType::Transient, Some(1), State::Running),
        (RestartType::Temporary, None, State::Stopped),
    ] {
        let spec = ChildSpec { retain: true, ..child("a", restart) };
        let mut world = World::started(flags(Strategy::OneForOne, 2, 3600), vec![spec]);
        world.happened();
        world.reports.clear();
        fail(&mut world, "a");
        let expected = if next.is_some() { "stop a, start a" } else { "stop a" };
        assert_eq!(world.happened(), expected, "{restart:?}");
        let next = match next {
            Some(nth) => Next::Restart { delay: Duration::ZERO, nth, of: Some(2) },
            None => Next::Rest,
        };
        let ends: Vec<_> = reports(&world, "a")
            .into_iter()
            .filter(|report| matches!(report, ChildReport::Exited { .. } | ChildReport::Stopped { .. }))
            .collect();
        assert_eq!(ends, [ChildReport::Exited { exit: Exit::Abnormal, next }], "{restart:?}: one end");
        assert_eq!(world.state("a"), state, "{restart:?}");
    }
}

#[test]
fn failed_health_checks_use_up_the_limit() {
    let limit = RestartLimit {
        intensity: RestartIntensity::new(2, Duration::from_secs(60)),
        on_limit: OnLimit::GiveUp,
    };
    let spec = ChildSpec { limit: Some(limit), ..permanent("a") };
    let mut world = World::started(flags(Strategy::OneForOne, 9, 3600), vec![spec]);
    for _ in 0..2 {
        fail(&mut world, "a");
        assert_eq!(world.state("a"), State::Running);
    }
    fail(&mut world, "a");
    assert_eq!(world.state("a"), State::Failed);
}

#[test]
fn time_spent_unhealthy_does_not_reset_the_backoff() {
    let backoff = Backoff { jitter: 0.0, reset_after: Duration::from_secs(30), ..Backoff::default() };
    let spec = ChildSpec { backoff: Some(backoff), ..permanent("a") };
    let mut world = World::started(flags(Strategy::OneForOne, 99, 3600), vec![spec]);
    for healthy_for in [10.0, 10.0, 40.0] {
        world.advance_secs(healthy_for);
        health(&mut world, "a", false);
        world.advance_secs(40.0);
        fail(&mut world, "a");
        world.advance_secs(5.0);
    }
    assert_eq!(world.delays("a"), [1.0, 2.0, 1.0]);
}

#[test]
fn a_stubborn_unhealthy_child_is_killed_in_the_end_and_restarted() {
    let mut world = World::started(flags(Strategy::OneForOne, 2, 3600), vec![permanent("a")]);
    world.finishes("a", Finish::Stubborn);
    world.happened();
    fail(&mut world, "a");
    assert_eq!((world.happened().as_str(), world.state("a")), ("stop a", State::Stopping));
    world.advance_secs(3600.0);
    assert_eq!((world.happened().as_str(), world.state("a")), ("kill a, start a", State::Running));
}

#[test]
fn a_paused_child_is_left_alone_until_it_is_resumed() {
    let mut world = World::started(flags(Strategy::OneForOne, 2, 3600), vec![permanent("a")]);
    world.happened();
    let key = world.key("a");
    world.answer(Operation::Pause(key));
    fail(&mut world, "a");
    assert_eq!((world.happened().as_str(), view(&world, "a").ready), ("", false));
    world.answer(Operation::Resume(key));
    fail(&mut world, "a");
    assert_eq!(world.happened(), "stop a, start a");
}

#[test]
fn an_operator_may_take_over_while_an_unhealthy_child_stops() {
    let world = || {
        let mut world = World::started(flags(Strategy::OneForOne, 0, 3600), vec![permanent("a")]);
        world.finishes("a", Finish::Stubborn);
        fail(&mut world, "a");
        world
    };
    let mut stopped = world();
    let id = stopped.ask(Operation::Stop(stopped.key("a")));
    stopped.exits("a", Exit::Shutdown);
    assert!(matches!(stopped.answers[&id], Outcome::Stopped { .. }));
    assert_eq!((stopped.state("a"), stopped.end.is_none()), (State::Stopped, true));

    let mut started = world();
    let id = started.ask(Operation::Start(started.key("a")));
    started.exits("a", Exit::Shutdown);
    assert!(matches!(started.answers[&id], Outcome::Started { .. }));
    assert_eq!((started.state("a"), started.end.is_none()), (State::Running, true), "asked for, not counted");
}

#[test]
fn a_shutdown_meanwhile_restarts_nothing() {
    let mut world = World::started(flags(Strategy::OneForOne, 2, 3600), vec![permanent("a")]);
    world.finishes("a", Finish::Stubborn);
    world.happened();
    fail(&mut world, "a");
    world.shutdown();
    fail(&mut world, "a");
    world.exits("a", Exit::Shutdown);
    assert_eq!((world.happened().as_str(), world.end.take()), ("stop a", Some((Exit::Shutdown, None))));
}

#[test]
fn a_failed_health_check_takes_its_group_along_and_counts_once() {
    let children = ["a", "b"].map(permanent).to_vec();
    let mut world = World::started(flags(Strategy::OneForAll, 1, 3600), children);
    world.happened();
    fail(&mut world, "a");
    assert_eq!(world.happened(), "stop a, stop b, start a, start b");
    assert!(world.end.is_none());
}

#[test]
fn a_member_that_waits_to_be_stopped_in_its_turn_is_not_stopped_before_it() {
    let children = ["a", "b", "c"].map(permanent).to_vec();
    let mut world = World::started(flags(Strategy::OneForAll, 1, 3600), children);
    world.finishes("c", Finish::Stubborn);
    world.happened();
    world.crash("b");
    fail(&mut world, "a");
    assert_eq!(world.happened(), "stop c");
    world.exits("c", Exit::Shutdown);
    assert_eq!(world.happened(), "stop a, start a, start b, start c");
    assert!(world.end.is_none(), "one crash was counted");
}

#[test]
fn health_of_another_incarnation_or_of_one_that_was_never_ready_changes_nothing() {
    let mut world = World::started(flags(Strategy::OneForOne, 9, 3600), vec![permanent("a")]);
    let (child, old) = (world.key("a"), world.incarnation("a"));
    world.begins("a", &[Begin::Hang]);
    world.crash("a");
    world.happened();
    fail(&mut world, "a");
    assert_eq!((world.happened().as_str(), world.state("a")), ("", State::Starting));
    world.ready("a");
    for incarnation in [old, Incarnation::new(99)] {
        world.input(Input::Health { child, incarnation, healthy: false });
        world.input(Input::HealthFailed { child, incarnation });
    }
    assert_eq!((world.happened().as_str(), view(&world, "a").ready), ("", true));
}

#[test]
fn an_incarnation_does_not_inherit_the_health_of_the_one_before() {
    let mut world = World::started(flags(Strategy::OneForOne, 9, 3600), vec![permanent("a")]);
    health(&mut world, "a", false);
    world.crash("a");
    assert_eq!((view(&world, "a").state, view(&world, "a").ready), (State::Running, true));
}

#[test]
fn a_start_that_asks_for_more_time_gets_it() {
    let spec = ChildSpec { start_timeout: Some(Duration::from_secs(10)), ..permanent("a") };
    let flags = SupervisorSpec { order: Order::Concurrent, ..flags(Strategy::OneForOne, 9, 3600) };
    let mut world = World::new(flags, vec![spec]);
    world.begins("a", &[Begin::Hang, Begin::Hang]);
    world.input(Input::Start);
    world.happened();
    let (child, incarnation) = (world.key("a"), world.incarnation("a"));
    world.advance_secs(9.0);
    // Less than what is left takes nothing away, neither from the timeout nor from what was asked for before.
    for by in [0, 20, 5] {
        world.input(Input::ExtendStart { child, incarnation, by: Duration::from_secs(by) });
    }
    world.advance_secs(19.5);
    assert_eq!((world.happened().as_str(), world.state("a")), ("", State::Starting));
    world.advance_secs(1.0);
    assert_eq!(world.happened(), "stop a");
}

#[test]
fn more_time_for_one_incarnation_is_none_for_the_next() {
    let spec = ChildSpec { start_timeout: Some(Duration::from_secs(10)), ..permanent("a") };
    let mut world = World::started(flags(Strategy::OneForOne, 9, 3600), vec![spec]);
    world.begins("a", &[Begin::Hang, Begin::Hang]);
    world.crash("a");
    let (child, incarnation) = (world.key("a"), world.incarnation("a"));
    world.input(Input::ExtendStart { child, incarnation, by: Duration::from_secs(600) });
    world.crash("a");
    world.advance_secs(0.0);
    world.happened();
    world.advance_secs(11.0);
    assert!(world.happened().starts_with("stop a"), "the second start times out by the spec");
}

/// What happens to one of three children.
#[derive(Debug, Clone, Copy)]
enum Step {
    Healthy(usize),
    Unhealthy(usize),
    Failed(usize),
    /// The current incarnation ends, asked or not.
    Ends(usize, bool),
    Start(usize),
    Stop(usize),
    Pause(usize),
    Resume(usize),
    Pass,
    Shutdown,
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..3_usize).prop_map(Step::Healthy),
        3 => (0..3_usize).prop_map(Step::Unhealthy),
        6 => (0..3_usize).prop_map(Step::Failed),
        6 => (0..3_usize, any::<bool>()).prop_map(|(child, clean)| Step::Ends(child, clean)),
        2 => (0..3_usize).prop_map(Step::Start),
        2 => (0..3_usize).prop_map(Step::Stop),
        2 => (0..3_usize).prop_map(Step::Pause),
        2 => (0..3_usize).prop_map(Step::Resume),
        3 => Just(Step::Pass),
        1 => Just(Step::Shutdown),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn whatever_happens_each_incarnation_ends_once_and_only_a_running_one_is_ready(
        steps in steps(),
        strategy in prop_oneof![
            Just(Strategy::OneForOne), Just(Strategy::OneForAll), Just(Strategy::RestForOne)
        ],
        concurrent in any::<bool>(),
    ) {
        const IDS: [&str; 3] = ["a", "b", "c"];
        let order = if concurrent { Order::Concurrent } else { Order::Ordered };
        let flags = SupervisorSpec { order, ..flags(strategy, 1000, 3600) };
        let backoff = Backoff { base: Duration::from_millis(10), ..Backoff::default() };
        let children =
            IDS.map(|id| ChildSpec { backoff: Some(backoff), retain: true, ..permanent(id) }).to_vec();
        let mut world = World::started(flags, children);
        for id in IDS {
            world.finishes(id, Finish::Stubborn);
        }
        for step in steps {
            if world.end.is_some() {
                break;
            }
            match step {
                Step::Healthy(child) => health(&mut world, IDS[child], true),
                Step::Unhealthy(child) => health(&mut world, IDS[child], false),
                Step::Failed(child) => fail(&mut world, IDS[child]),
                Step::Ends(child, clean) => {
                    world.exits(IDS[child], if clean { Exit::Shutdown } else { Exit::Abnormal });
                }
                Step::Start(child) => drop(world.ask(Operation::Start(world.key(IDS[child])))),
                Step::Stop(child) => drop(world.ask(Operation::Stop(world.key(IDS[child])))),
                Step::Pause(child) => drop(world.ask(Operation::Pause(world.key(IDS[child])))),
                Step::Resume(child) => drop(world.ask(Operation::Resume(world.key(IDS[child])))),
                Step::Pass => world.advance_secs(0.5),
                Step::Shutdown => world.shutdown(),
            }
            for id in IDS {
                let child = view(&world, id);
                prop_assert!(!child.ready || child.state == State::Running, "{id}: {child:?}");
                let (alive, reports) = (child.alive, reports(&world, id));
                let count = |wanted: fn(&ChildReport) -> bool| reports.iter().filter(|r| wanted(r)).count();
                let starts = count(|report| matches!(report, ChildReport::Starting));
                let ends =
                    count(|report| matches!(report, ChildReport::Exited { .. } | ChildReport::Stopped { .. }));
                prop_assert_eq!(starts, ends + usize::from(alive), "{}: {:?}", id, reports);
            }
        }
        // Nobody waits for ever: with all obeying, an end comes.
        world.shutdown();
        world.advance_secs(3600.0);
        prop_assert!(world.end.is_some());
    }
}
