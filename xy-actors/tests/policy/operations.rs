//! What each operation answers in each state of a child.

use std::sync::Arc;
use std::time::Duration;

use xy_actors::exit::Exit;
use xy_actors::policy::{Input, Operation, Outcome, Refusal, State, Wanted};
use xy_actors::spec::{ChildSpec, RestartType, Shutdown, SpecError, Strategy, SupervisorSpec};

use crate::harness::{Begin, Finish, World, child, flags, permanent};

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

#[test]
fn otps_calls_answer_as_in_otp_in_every_state() {
    let mut world = World::started(flags(Strategy::OneForOne, 1, 5), vec![permanent("a")]);
    let key = world.key("a");
    assert_eq!(
        world.answer(Operation::StartChild(Arc::new(permanent("a")))),
        refused(Refusal::AlreadyStarted(key))
    );
    assert_eq!(world.answer(Operation::RestartChild(key)), refused(Refusal::Running));
    assert_eq!(world.answer(Operation::DeleteChild(key)), refused(Refusal::Running));
    assert_eq!(
        world.answer(Operation::TerminateChild(key)),
        Outcome::Stopped { child: key, exit: Exit::Shutdown }
    );
    assert_eq!(world.counts(), [1, 0, 0, 1]);
    assert_eq!(world.answer(Operation::TerminateChild(key)), Outcome::NotRunning { child: key });
    assert_eq!(
        world.answer(Operation::StartChild(Arc::new(permanent("a")))),
        refused(Refusal::AlreadyPresent(key))
    );
    assert!(matches!(world.answer(Operation::RestartChild(key)), Outcome::Started { .. }));
    world.answer(Operation::TerminateChild(key));
    assert_eq!(world.answer(Operation::DeleteChild(key)), Outcome::Done);
    assert_eq!(world.counts(), [0, 0, 0, 0]);
    assert_eq!(world.answer(Operation::RestartChild(key)), refused(Refusal::NotFound));
    assert_eq!(world.answer(Operation::TerminateChild(key)), refused(Refusal::NotFound));
    assert_eq!(world.answer(Operation::DeleteChild(key)), refused(Refusal::NotFound));
}

#[test]
fn a_restarting_child_answers_as_in_otp() {
    let mut world = World::started(flags(Strategy::OneForOne, 8, 10), vec![permanent("a")]);
    world.begins("a", &[Begin::Fail]);
    world.crash("a");
    let key = world.key("a");
    assert_eq!(
        world.answer(Operation::StartChild(Arc::new(permanent("a")))),
        refused(Refusal::AlreadyPresent(key))
    );
    assert_eq!(world.answer(Operation::RestartChild(key)), refused(Refusal::Restarting));
    assert_eq!(world.answer(Operation::DeleteChild(key)), refused(Refusal::Restarting));
    assert_eq!(world.answer(Operation::TerminateChild(key)), Outcome::NotRunning { child: key });
    assert!(matches!(world.answer(Operation::RestartChild(key)), Outcome::Started { .. }));
}

#[test]
fn start_child_that_fails_drops_the_spec() {
    let mut world = World::started(flags(Strategy::OneForOne, 1, 5), vec![]);
    world.begins("a", &[Begin::Fail]);
    let outcome = world.answer(Operation::StartChild(Arc::new(permanent("a"))));
    assert!(matches!(outcome, Outcome::Refused(Refusal::StartFailed { .. })));
    assert_eq!((world.states().as_str(), world.end), ("", None));
}

#[test]
fn restart_child_that_fails_keeps_the_spec_and_does_not_retry() {
    let mut world = World::started(flags(Strategy::OneForOne, 1, 5), vec![permanent("a")]);
    let key = world.key("a");
    world.answer(Operation::TerminateChild(key));
    world.begins("a", &[Begin::Fail]);
    assert_eq!(world.answer(Operation::RestartChild(key)), refused(Refusal::StartFailed { child: key }));
    world.happened();
    world.advance_secs(60.0);
    assert_eq!((world.happened().as_str(), world.states().as_str()), ("", "a:stopped"));
}

#[test]
fn ignored_specs_are_kept_unless_temporary() {
    let mut world = World::started(flags(Strategy::OneForOne, 2, 3600), vec![]);
    world.begins("a", &[Begin::Ignore]);
    world.begins("t", &[Begin::Ignore]);
    assert!(matches!(
        world.answer(Operation::StartChild(Arc::new(permanent("a")))),
        Outcome::Ignored { child: Some(_) }
    ));
    assert_eq!(
        world.answer(Operation::StartChild(Arc::new(child("t", RestartType::Temporary)))),
        Outcome::Ignored { child: None }
    );
    assert_eq!((world.states().as_str(), world.counts()), ("a:stopped", [1, 0, 0, 1]));
}

#[test]
fn an_operators_stop_is_remembered_and_idempotent() {
    let mut world = World::started(flags(Strategy::OneForOne, 1, 5), vec![permanent("a")]);
    let key = world.key("a");
    assert!(matches!(world.answer(Operation::Stop(key)), Outcome::Stopped { .. }));
    assert_eq!(world.answer(Operation::Stop(key)), Outcome::NotRunning { child: key });
    assert_eq!(world.policy.child(key).expect("child").wanted, Wanted::Down);
    assert!(matches!(world.answer(Operation::Start(key)), Outcome::Started { .. }));
    assert_eq!(world.answer(Operation::Start(key)), Outcome::AlreadyRunning { child: key });
    assert_eq!(world.policy.child(key).expect("child").wanted, Wanted::Up);
}

#[test]
fn a_requested_stop_is_never_counted_nor_restarted_whatever_the_exit() {
    for exit in [Exit::Normal, Exit::Shutdown, Exit::Abnormal, Exit::Killed] {
        let mut world = World::started(flags(Strategy::OneForOne, 0, 5), vec![permanent("a")]);
        world.finishes("a", Finish::Obey(exit));
        let key = world.key("a");
        assert_eq!(world.answer(Operation::Stop(key)), Outcome::Stopped { child: key, exit });
        assert_eq!((world.states().as_str(), world.end), ("a:stopped", None));
    }
}

#[test]
fn an_operators_restart_is_answered_by_the_new_incarnation_and_not_counted() {
    let mut world = World::started(flags(Strategy::OneForOne, 0, 5), vec![permanent("a")]);
    let (key, old) = (world.key("a"), world.incarnation("a"));
    let Outcome::Started { incarnation, .. } = world.answer(Operation::Restart(key)) else {
        panic!("the restart succeeds");
    };
    assert!(incarnation > old);
    world.answer(Operation::Stop(key));
    assert!(matches!(world.answer(Operation::Restart(key)), Outcome::Started { .. }));
}

#[test]
fn start_while_stopping_starts_again_once_it_is_gone() {
    let mut world = World::started(flags(Strategy::OneForOne, 1, 5), vec![permanent("a")]);
    world.finishes("a", Finish::Stubborn);
    let key = world.key("a");
    let stop = world.ask(Operation::Stop(key));
    let start = world.ask(Operation::Start(key));
    assert_eq!(world.state("a"), State::Stopping);
    world.advance_secs(5.0);
    assert!(matches!(world.answers[&stop], Outcome::Stopped { .. }));
    assert!(matches!(world.answers[&start], Outcome::Started { .. }));
    assert_eq!(world.state("a"), State::Running);
}

#[test]
fn stop_while_starting_calls_the_start_off_and_tells_whoever_waited_for_it() {
    let mut world = World::started(flags(Strategy::OneForOne, 1, 5), vec![]);
    world.begins("a", &[Begin::Hang]);
    let start = world.ask(Operation::StartChild(Arc::new(permanent("a"))));
    let key = world.key("a");
    assert!(matches!(world.answer(Operation::Stop(key)), Outcome::Stopped { .. }));
    assert_eq!(world.answers[&start], refused(Refusal::Superseded));
    assert_eq!(world.state("a"), State::Stopped);
}

#[test]
fn a_hanging_start_holds_up_no_operation_on_others() {
    let mut world = World::new(flags(Strategy::OneForOne, 5, 5), ["a", "b", "c"].map(permanent).to_vec());
    world.begins("b", &[Begin::Hang]);
    world.input(xy_actors::policy::Input::Start);
    let (a, c) = (world.key("a"), world.key("c"));
    assert!(matches!(world.answer(Operation::Restart(a)), Outcome::Started { .. }));
    assert!(matches!(world.answer(Operation::Start(c)), Outcome::Started { .. }));
    assert!(matches!(world.answer(Operation::StartChild(Arc::new(permanent("d")))), Outcome::Started { .. }));
    assert!(matches!(world.answer(Operation::Stop(a)), Outcome::Stopped { .. }));
}

#[test]
fn a_paused_child_is_left_alone_until_it_is_resumed() {
    let mut world = World::started(flags(Strategy::OneForOne, 0, 5), vec![permanent("a")]);
    let key = world.key("a");
    assert_eq!(world.answer(Operation::Pause(key)), Outcome::Done);
    assert_eq!(world.state("a"), State::Running);
    world.happened();
    world.crash("a");
    assert_eq!((world.happened().as_str(), world.states().as_str()), ("", "a:stopped"));
    assert!(world.policy.child(key).expect("child").held);
    assert_eq!(world.answer(Operation::Resume(key)), Outcome::Done);
    assert_eq!((world.happened().as_str(), world.states().as_str()), ("start a", "a:running"));
}

#[test]
fn pause_during_a_backoff_holds_the_restart() {
    let mut world = World::started(flags(Strategy::OneForOne, 5, 5), vec![permanent("a")]);
    world.begins("a", &[Begin::Fail]);
    world.crash("a");
    let key = world.key("a");
    world.answer(Operation::Pause(key));
    world.happened();
    world.advance_secs(60.0);
    assert_eq!((world.happened().as_str(), world.states().as_str()), ("", "a:stopped"));
    world.answer(Operation::Resume(key));
    assert_eq!(world.states(), "a:running");
}

#[test]
fn a_group_restart_does_not_touch_a_paused_sibling() {
    let children = ["a", "b", "c"].map(permanent).to_vec();
    let mut world = World::started(flags(Strategy::OneForAll, 5, 5), children);
    world.answer(Operation::Pause(world.key("b")));
    world.happened();
    world.crash("a");
    assert_eq!(world.happened(), "stop c, start a, start c");
    assert_eq!(world.states(), "a:running b:running c:running");
}

#[test]
fn remove_stops_and_drops_the_spec() {
    let mut world = World::started(flags(Strategy::OneForOne, 5, 5), vec![permanent("a")]);
    let key = world.key("a");
    assert_eq!(world.answer(Operation::Remove(key)), Outcome::Stopped { child: key, exit: Exit::Shutdown });
    assert_eq!(world.counts(), [0, 0, 0, 0]);
}

#[test]
fn an_update_changes_the_policy_without_touching_the_incarnation() {
    let mut world = World::started(flags(Strategy::OneForOne, 5, 5), vec![permanent("a")]);
    let key = world.key("a");
    world.happened();
    assert_eq!(
        world.answer(Operation::Update(key, Arc::new(child("other-id", RestartType::Temporary)))),
        Outcome::Done
    );
    assert_eq!(world.happened(), "");
    world.crash("a");
    assert_eq!(world.states(), "", "now temporary, and still called `a`");
}

#[test]
fn an_invalid_child_and_one_too_many_are_refused() {
    let spec = SupervisorSpec { max_children: Some(1), ..flags(Strategy::SimpleOneForOne, 5, 5) };
    let mut world = World::started(spec, vec![]);
    let invalid = ChildSpec { significant: true, ..child("a", RestartType::Transient) };
    assert!(matches!(
        world.answer(Operation::StartChild(Arc::new(invalid))),
        Outcome::Refused(Refusal::Invalid(SpecError::SignificantWithoutAutoShutdown(_)))
    ));
    world.answer(Operation::StartChild(Arc::new(permanent("a"))));
    assert_eq!(
        world.answer(Operation::StartChild(Arc::new(permanent("b")))),
        refused(Refusal::MaxChildren(1))
    );
}

#[test]
fn autostart_off_adds_without_starting() {
    let mut world = World::started(flags(Strategy::OneForOne, 5, 5), vec![]);
    let spec = ChildSpec { autostart: false, ..permanent("a") };
    assert!(matches!(world.answer(Operation::StartChild(Arc::new(spec))), Outcome::Added { .. }));
    assert_eq!((world.happened().as_str(), world.states().as_str()), ("", "a:stopped"));
}

#[test]
fn delete_and_restart_are_refused_by_simple_one_for_one() {
    let mut world = World::started(flags(Strategy::SimpleOneForOne, 5, 5), vec![]);
    let Outcome::Started { child, .. } = world.answer(Operation::StartChild(Arc::new(permanent("a")))) else {
        panic!("the start succeeds");
    };
    assert_eq!(world.answer(Operation::RestartChild(child)), refused(Refusal::SimpleOneForOne));
    assert_eq!(world.answer(Operation::DeleteChild(child)), refused(Refusal::SimpleOneForOne));
}

#[test]
fn a_stop_that_is_ahead_is_followed_up_earlier_and_only_until_the_kill() {
    let ten = ChildSpec { shutdown: Shutdown::Timeout(Duration::from_secs(10)), ..permanent("a") };
    let for_ever = ChildSpec { shutdown: Shutdown::Infinity, ..ten.clone() };
    for (spec, expected) in [(ten, "kill a"), (for_ever, "")] {
        let mut world = World::started(flags(Strategy::OneForOne, 2, 60), vec![spec]);
        world.finishes("a", Finish::Immortal);
        world.happened();
        let (child, incarnation) = (world.key("a"), world.incarnation("a"));
        let ahead = |world: &mut World, by| {
            world.input(Input::StopAhead { child, incarnation, by: Duration::from_secs(by) });
        };
        ahead(&mut world, 4);
        world.ask(Operation::Stop(child));
        world.advance_secs(1.0);
        ahead(&mut world, 4);
        world.advance_secs(4.5);
        ahead(&mut world, 10);
        assert_eq!(
            world.happened(),
            "stop a",
            "not before its time, and what came before the stop does not count"
        );
        world.advance_secs(1.0);
        assert_eq!(world.happened(), expected);
        ahead(&mut world, 3600);
        assert_eq!(world.happened(), "", "the wait after a kill is another one");
    }
}
