//! Inputs and operations that cross each other: what was decided before must not undo what was asked since.

use std::sync::Arc;
use std::time::Duration;

use xy_actors::event::{ChildReport, Next};
use xy_actors::exit::Exit;
use xy_actors::policy::{Input, Operation, Outcome, Refusal, State};
use xy_actors::spec::{
    AutoShutdown, Backoff, ChildSpec, Order, RestartType, SpecError, Strategy, SupervisorSpec,
};

use crate::harness::{Begin, Finish, World, child, flags, permanent};

fn concurrent(strategy: Strategy) -> SupervisorSpec {
    SupervisorSpec { order: Order::Concurrent, ..flags(strategy, 5, 60) }
}

fn backing_off(id: &str) -> ChildSpec {
    ChildSpec { backoff: Some(Backoff { jitter: 0.0, ..Backoff::default() }), ..permanent(id) }
}

#[test]
fn a_start_that_times_out_while_the_supervisor_ends_is_stopped_in_its_turn_and_not_tried_again() {
    let slow = ChildSpec { start_timeout: Some(Duration::from_secs(1)), ..permanent("a") };
    let mut world = World::started(flags(Strategy::OneForOne, 5, 60), vec![slow, permanent("b")]);
    world.begins("a", &[Begin::Hang]);
    world.finishes("b", Finish::Stubborn);
    world.crash("a");
    world.happened();
    world.shutdown();
    world.advance_secs(4.0);
    assert_eq!(world.happened(), "stop b");
    world.advance_secs(60.0);
    assert_eq!(world.happened(), "kill b, stop a");
    assert_eq!(world.end, Some((Exit::Shutdown, None)));
}

#[test]
fn a_member_resumed_during_a_concurrent_group_restart_takes_part_in_it() {
    let children = ["a", "b", "c"].map(permanent).to_vec();
    let mut world = World::started(concurrent(Strategy::OneForAll), children);
    world.ask(Operation::Pause(world.key("b")));
    world.finishes("c", Finish::Stubborn);
    world.happened();
    world.crash("a");
    world.ask(Operation::Resume(world.key("b")));
    world.advance_secs(5.0);
    assert_eq!(world.happened(), "stop c, stop b, kill c, start a, start b, start c");
}

#[test]
fn terminating_a_child_takes_it_out_of_the_group_restart_under_way_but_not_out_of_the_next() {
    let children = vec![backing_off("a"), permanent("b")];
    let mut world = World::started(flags(Strategy::OneForAll, 5, 60), children);
    world.crash("a");
    let (a, b) = (world.key("a"), world.key("b"));
    assert_eq!(world.answer(Operation::TerminateChild(a)), Outcome::NotRunning { child: a });
    assert_eq!(world.states(), "a:stopped b:running");
    world.ask(Operation::RestartChild(a));
    world.finishes("b", Finish::Stubborn);
    world.crash("a");
    let terminate = world.ask(Operation::TerminateChild(b));
    world.advance_secs(5.0);
    assert_eq!(world.answers[&terminate], Outcome::Stopped { child: b, exit: Exit::Killed });
    assert_eq!(world.states(), "a:running b:stopped");
    world.crash("a");
    world.advance_secs(5.0);
    assert_eq!(world.states(), "a:running b:running");
}

#[test]
fn neither_an_added_nor_an_updated_child_can_close_a_circle_of_dependencies() {
    let on = |id: &str, dependency: &str| ChildSpec { depends_on: vec![dependency.into()], ..permanent(id) };
    let children = vec![on("a", "b"), permanent("b")];
    let mut world = World::started(concurrent(Strategy::OneForOne), children);
    let b = world.key("b");
    let circle = |ids: &[&str]| {
        let ids = ids.iter().map(|id| (*id).into()).collect();
        Outcome::Refused(Refusal::Invalid(SpecError::DependencyCycle(ids)))
    };
    assert_eq!(world.answer(Operation::Update(b, Arc::new(on("b", "a")))), circle(&["b", "a"]));
    assert_eq!(world.answer(Operation::Update(b, Arc::new(on("b", "b")))), circle(&["b"]));
    world.ask(Operation::Remove(b));
    assert_eq!(world.answer(Operation::StartChild(Arc::new(on("b", "a")))), circle(&["b", "a"]));
    world.shutdown();
    assert!(world.end.is_some());
}

#[test]
fn an_update_names_dependencies_that_exist_and_are_heeded() {
    let on = |dependency: &str| ChildSpec { depends_on: vec![dependency.into()], ..permanent("a") };
    let mut world = World::started(concurrent(Strategy::OneForOne), vec![permanent("a"), permanent("b")]);
    let a = world.key("a");
    assert!(matches!(
        world.answer(Operation::Update(a, Arc::new(on("x")))),
        Outcome::Refused(Refusal::Invalid(SpecError::UnknownDependency { .. }))
    ));
    assert_eq!(world.answer(Operation::Update(a, Arc::new(on("b")))), Outcome::Done);
    world.finishes("a", Finish::Stubborn);
    world.happened();
    world.shutdown();
    world.advance_secs(5.0);
    assert_eq!(world.happened(), "stop a, kill a, stop b");
}

#[test]
fn a_start_of_a_member_that_its_group_stops_is_answered_although_the_group_leaves_it_down() {
    let kept = ChildSpec { retain: true, ..child("t", RestartType::Temporary) };
    let children = vec![permanent("a"), ChildSpec { autostart: false, ..kept }];
    let mut world = World::started(flags(Strategy::OneForAll, 5, 60), children);
    world.begins("t", &[Begin::Hang]);
    let start = world.ask(Operation::Start(world.key("t")));
    world.crash("a");
    assert_eq!(world.states(), "a:running t:stopped");
    assert_eq!(world.answers.get(&start), Some(&Outcome::Refused(Refusal::Superseded)));
}

#[test]
fn a_start_asked_for_while_the_group_stops_a_temporary_member_starts_it() {
    let kept = ChildSpec { retain: true, ..child("t", RestartType::Temporary) };
    let mut world = World::started(flags(Strategy::OneForAll, 5, 60), vec![permanent("a"), kept]);
    world.finishes("t", Finish::Stubborn);
    world.crash("a");
    let start = world.ask(Operation::Start(world.key("t")));
    world.advance_secs(5.0);
    assert_eq!(world.states(), "a:running t:running");
    assert!(matches!(world.answers.get(&start), Some(Outcome::Started { .. })));
}

#[test]
fn an_ignoring_start_that_is_being_stopped_answers_the_stop_and_not_the_restart_that_follows() {
    let mut world = World::started(flags(Strategy::OneForOne, 5, 60), vec![]);
    world.begins("a", &[Begin::Hang]);
    world.finishes("a", Finish::Stubborn);
    world.ask(Operation::StartChild(Arc::new(permanent("a"))));
    let (key, incarnation) = (world.key("a"), world.incarnation("a"));
    let restart = world.ask(Operation::Restart(key));
    world.input(Input::Ignored { child: key, incarnation });
    assert_eq!(world.states(), "a:running");
    assert!(matches!(world.answers.get(&restart), Some(Outcome::Started { .. })));
    world.begins("t", &[Begin::Hang]);
    world.finishes("t", Finish::Stubborn);
    world.ask(Operation::StartChild(Arc::new(child("t", RestartType::Temporary))));
    let (key, incarnation) = (world.key("t"), world.incarnation("t"));
    let stop = world.ask(Operation::TerminateChild(key));
    world.input(Input::Ignored { child: key, incarnation });
    assert!(matches!(world.answers.get(&stop), Some(Outcome::Stopped { .. })));
}

fn transient(id: &str) -> ChildSpec {
    ChildSpec { significant: true, ..child(id, RestartType::Transient) }
}

#[test]
fn a_significant_child_that_is_being_stopped_by_hand_is_not_left() {
    let spec =
        SupervisorSpec { auto_shutdown: AutoShutdown::AllSignificant, ..flags(Strategy::OneForOne, 5, 60) };
    let mut world = World::started(spec, vec![transient("a"), transient("b")]);
    world.finishes("a", Finish::Stubborn);
    world.ask(Operation::TerminateChild(world.key("a")));
    world.exits("b", Exit::Normal);
    world.advance_secs(5.0);
    assert_eq!(world.end, Some((Exit::Shutdown, None)));
}

#[test]
fn a_significant_member_of_a_group_that_comes_back_is_left_while_it_is_down() {
    let spec =
        SupervisorSpec { auto_shutdown: AutoShutdown::AllSignificant, ..flags(Strategy::RestForOne, 5, 60) };
    let mut world = World::started(spec, vec![transient("a"), backing_off("b"), transient("c")]);
    world.crash("b");
    world.exits("a", Exit::Normal);
    world.advance_secs(1.0);
    assert_eq!((world.states().as_str(), world.end), ("a:stopped b:running c:running", None));
}

#[test]
fn a_significant_child_whose_restart_is_held_by_a_pause_is_left() {
    let spec =
        SupervisorSpec { auto_shutdown: AutoShutdown::AllSignificant, ..flags(Strategy::OneForOne, 5, 60) };
    let mut world = World::started(spec, vec![transient("a"), transient("b")]);
    world.ask(Operation::Pause(world.key("a")));
    world.crash("a");
    world.exits("b", Exit::Normal);
    assert_eq!(world.end, None);
}

#[test]
fn a_stable_run_resets_the_backoff_however_it_ended() {
    let children = vec![permanent("a"), backing_off("b")];
    let mut world = World::started(flags(Strategy::OneForAll, 9, 9), children);
    world.crash("b");
    world.advance_secs(1.0);
    // Ready for long enough, and ended by the group's restart.
    world.advance_secs(30.0);
    world.crash("a");
    world.crash("b");
    assert_eq!(world.delays("b"), [1.0, 1.0]);
}

#[test]
fn a_supervisor_has_not_started_while_a_group_restart_interrupts_its_first_starts() {
    let mut world = World::new(flags(Strategy::OneForAll, 5, 60), vec![permanent("a"), permanent("b")]);
    world.begins("b", &[Begin::Hang, Begin::Hang]);
    world.input(Input::Start);
    world.crash("a");
    assert_eq!(world.happened(), "start a, start b, stop b, start a, start b");
    assert!(!world.policy.is_started());
    world.ready("b");
    assert!(world.policy.is_started());
}

#[test]
fn a_member_paused_while_its_group_restarts_is_held_and_comes_back_with_resume() {
    for again in [false, true] {
        let children = vec![backing_off("a"), permanent("b")];
        let mut world = World::started(flags(Strategy::OneForAll, 5, 60), children);
        if again {
            world.finishes("b", Finish::Stubborn);
        }
        world.crash("a");
        // `b` is down already, or still on its way down.
        let b = world.key("b");
        world.ask(Operation::Pause(b));
        world.advance_secs(5.0);
        assert_eq!(world.states(), "a:running b:stopped");
        assert!(world.policy.child(b).expect("child").held);
        world.ask(Operation::Resume(b));
        assert_eq!(world.states(), "a:running b:running");
    }
}

#[test]
fn a_member_resumed_before_it_is_down_comes_back_though_its_group_went_on_without_it() {
    let mut world = World::started(flags(Strategy::OneForAll, 5, 60), vec![permanent("a"), permanent("b")]);
    world.finishes("b", Finish::Stubborn);
    world.crash("a");
    world.ask(Operation::Pause(world.key("b")));
    assert_eq!(world.states(), "a:running b:stopping");
    world.ask(Operation::Resume(world.key("b")));
    world.advance_secs(5.0);
    assert_eq!(world.states(), "a:running b:running");
}

#[test]
fn a_dynamic_child_that_cannot_be_started_again_is_dropped() {
    let mut world = World::started(flags(Strategy::SimpleOneForOne, 5, 60), vec![]);
    let Outcome::Started { child, .. } = world.answer(Operation::StartChild(Arc::new(permanent("w")))) else {
        panic!("the start succeeds");
    };
    world.begins("w", &[Begin::Fail]);
    world.ask(Operation::Restart(child));
    assert_eq!(world.counts(), [1, 0, 0, 0]);
}

#[test]
fn a_temporary_child_terminated_before_its_first_start_is_dropped() {
    let children = vec![ChildSpec { autostart: false, ..permanent("a") }];
    let mut world = World::started(concurrent(Strategy::OneForOne), children);
    let spec = ChildSpec { depends_on: vec!["a".into()], ..child("t", RestartType::Temporary) };
    world.ask(Operation::StartChild(Arc::new(spec)));
    assert_eq!(world.state("t"), State::Starting);
    let key = world.key("t");
    assert_eq!(world.answer(Operation::TerminateChild(key)), Outcome::NotRunning { child: key });
    assert_eq!(world.states(), "a:stopped");
}

#[test]
fn a_start_that_times_out_while_its_group_is_stopped_counts_no_second_restart() {
    let slow = ChildSpec { start_timeout: Some(Duration::from_secs(1)), ..permanent("a") };
    let children = vec![slow, permanent("b"), permanent("c")];
    let mut world = World::started(flags(Strategy::OneForAll, 1, 3600), children);
    world.finishes("c", Finish::Stubborn);
    world.ask(Operation::Pause(world.key("a")));
    world.crash("a");
    world.begins("a", &[Begin::Hang]);
    world.ask(Operation::Resume(world.key("a")));
    world.crash("b");
    world.advance_secs(5.0);
    assert_eq!((world.states().as_str(), world.end), ("a:running b:running c:running", None));
}

#[test]
fn a_stop_asked_of_an_ending_supervisor_is_answered_when_the_child_ends_by_itself() {
    for ready in [true, false] {
        let mut world =
            World::started(flags(Strategy::OneForOne, 5, 60), vec![permanent("a"), permanent("b")]);
        world.finishes("b", Finish::Stubborn);
        if !ready {
            world.begins("a", &[Begin::Hang]);
            world.crash("a");
        }
        world.shutdown();
        let key = world.key("a");
        let stop = world.ask(Operation::Stop(key));
        world.crash("a");
        let outcome = Outcome::Stopped { child: key, exit: Exit::Abnormal };
        assert_eq!(world.answers.get(&stop), Some(&outcome), "ready: {ready}");
    }
}

#[test]
fn a_member_that_its_group_leaves_down_is_not_announced_to_be_restarted() {
    let mut world = World::started(
        flags(Strategy::OneForAll, 5, 60),
        vec![permanent("a"), child("t", RestartType::Temporary), permanent("c")],
    );
    world.finishes("c", Finish::Stubborn);
    world.crash("a");
    world.exits("t", Exit::Normal);
    let gone = ChildReport::Exited { exit: Exit::Normal, next: Next::Removed };
    assert!(world.reports.contains(&("t".to_owned(), gone)), "{:?}", world.reports);
}

#[test]
fn a_child_started_before_its_supervisor_is_not_started_twice() {
    let mut world = World::new(flags(Strategy::OneForOne, 5, 60), vec![permanent("a"), permanent("b")]);
    world.ask(Operation::Start(world.key("b")));
    world.input(Input::Start);
    assert_eq!(world.happened(), "start b, start a");
    assert!(world.policy.is_started());
}
