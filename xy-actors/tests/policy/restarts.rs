//! Who restarts with whom, for each strategy, restart type and exit.

use std::sync::Arc;

use xy_actors::exit::Exit;
use xy_actors::policy::{Operation, Outcome, State};
use xy_actors::spec::{ChildSpec, RestartType, Strategy};

use crate::harness::{Begin, World, child, flags, permanent};

#[test]
fn restart_type_and_exit_decide_what_is_listed_afterwards() {
    use Exit::{Abnormal, Normal, Shutdown};
    use RestartType::{Permanent, Temporary, Transient};
    let table = [
        (Permanent, Normal, "a:running", [1, 1, 0, 1]),
        (Permanent, Shutdown, "a:running", [1, 1, 0, 1]),
        (Permanent, Abnormal, "a:running", [1, 1, 0, 1]),
        (Transient, Normal, "a:stopped", [1, 0, 0, 1]),
        (Transient, Shutdown, "a:stopped", [1, 0, 0, 1]),
        (Transient, Abnormal, "a:running", [1, 1, 0, 1]),
        (Temporary, Normal, "", [0, 0, 0, 0]),
        (Temporary, Shutdown, "", [0, 0, 0, 0]),
        (Temporary, Abnormal, "", [0, 0, 0, 0]),
    ];
    for (restart, exit, states, counts) in table {
        let mut world = World::started(flags(Strategy::OneForOne, 2, 3600), vec![]);
        world.ask(Operation::StartChild(Arc::new(child("a", restart))));
        world.exits("a", exit);
        assert_eq!((world.states().as_str(), world.counts()), (states, counts), "{restart:?} {exit:?}");
    }
}

#[test]
fn a_retained_temporary_child_stays_listed() {
    let spec = ChildSpec { retain: true, ..child("a", RestartType::Temporary) };
    let mut world = World::started(flags(Strategy::OneForOne, 2, 3600), vec![spec]);
    world.crash("a");
    assert_eq!(world.states(), "a:stopped");
}

#[test]
fn one_for_one_restarts_just_that_child_and_the_third_crash_is_fatal() {
    let mut world = World::started(flags(Strategy::OneForOne, 2, 3600), vec![permanent("a"), permanent("b")]);
    world.happened();
    world.crash("a");
    assert_eq!(world.happened(), "start a");
    world.crash("b");
    assert_eq!(world.happened(), "start b");
    world.crash("a");
    assert_eq!(world.happened(), "stop b");
    assert_eq!(world.end, Some((Exit::Escalated, None)));
}

#[test]
fn one_for_all_stops_the_others_newest_first_and_starts_all_in_order() {
    let children = ["c1", "c2", "c3"].map(permanent).to_vec();
    let mut world = World::started(flags(Strategy::OneForAll, 2, 3600), children);
    assert_eq!(world.happened(), "start c1, start c2, start c3");
    world.crash("c2");
    assert_eq!(world.happened(), "stop c3, stop c1, start c1, start c2, start c3");
    world.crash("c1");
    world.happened();
    world.crash("c1");
    assert_eq!(world.happened(), "stop c3, stop c2");
    assert_eq!(world.end, Some((Exit::Escalated, None)));
}

#[test]
fn rest_for_one_takes_along_only_those_started_later() {
    let children = ["c3", "c1", "c5", "c2", "c4"].map(permanent).to_vec();
    let mut world = World::started(flags(Strategy::RestForOne, 2, 3600), children);
    assert_eq!(world.happened(), "start c3, start c1, start c5, start c2, start c4");
    world.crash("c5");
    assert_eq!(world.happened(), "stop c4, stop c2, start c5, start c2, start c4");
    world.shutdown();
    assert_eq!(world.happened(), "stop c4, stop c2, stop c5, stop c1, stop c3");
}

#[test]
fn a_failing_restart_is_tried_again_until_the_intensity_is_exceeded() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let mut world = World::started(flags(strategy, 4, 3600), vec![permanent("a"), permanent("b")]);
        world.always("a", Begin::Fail);
        world.happened();
        world.crash("a");
        world.advance_secs(0.0);
        let happened = world.happened();
        assert_eq!(happened.matches("start a").count(), 4, "{strategy:?}: {happened}");
        assert_eq!(world.end, Some((Exit::Escalated, None)), "{strategy:?}");
    }
}

#[test]
fn a_failed_restart_can_be_called_off_before_it_is_tried_again() {
    let mut world = World::started(flags(Strategy::OneForOne, 8, 10), vec![permanent("a")]);
    world.begins("a", &[Begin::Fail]);
    world.crash("a");
    assert_eq!(world.state("a"), State::Restarting);
    let key = world.key("a");
    assert_eq!(world.answer(Operation::TerminateChild(key)), Outcome::NotRunning { child: key });
    world.happened();
    world.advance_secs(60.0);
    assert_eq!((world.happened().as_str(), world.states().as_str()), ("", "a:stopped"));
}

#[test]
fn one_for_all_stops_what_a_failed_round_had_started_before_the_next_round() {
    let mut world = World::started(flags(Strategy::OneForAll, 3, 3600), vec![permanent("a"), permanent("b")]);
    world.happened();
    world.begins("b", &[Begin::Fail]);
    world.crash("a");
    world.advance_secs(0.0);
    assert_eq!(world.happened(), "stop b, start a, start b, stop a, start a, start b");
    assert_eq!(world.states(), "a:running b:running");
    assert!(world.end.is_none());
}

#[test]
fn rest_for_one_retries_from_the_child_that_failed() {
    let mut world =
        World::started(flags(Strategy::RestForOne, 3, 3600), vec![permanent("a"), permanent("b")]);
    world.happened();
    world.begins("b", &[Begin::Fail]);
    world.crash("a");
    world.advance_secs(0.0);
    assert_eq!(world.happened(), "stop b, start a, start b, start b");
    assert_eq!(world.states(), "a:running b:running");
}

#[test]
fn a_temporary_sibling_of_a_group_restart_is_removed_and_not_restarted() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let children = vec![permanent("a"), child("b", RestartType::Temporary)];
        let mut world = World::started(flags(strategy, 2, 300), children);
        world.exits("a", Exit::Normal);
        assert_eq!(world.states(), "a:running", "{strategy:?}");
    }
}

#[test]
fn a_group_restart_brings_back_terminated_and_ended_siblings_but_not_those_an_operator_stopped() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let children = vec![
            permanent("a"),
            permanent("terminated"),
            child("ended", RestartType::Transient),
            permanent("stopped"),
        ];
        let mut world = World::started(flags(strategy, 2, 300), children);
        world.ask(Operation::TerminateChild(world.key("terminated")));
        world.exits("ended", Exit::Normal);
        world.ask(Operation::Stop(world.key("stopped")));
        world.crash("a");
        assert_eq!(
            world.states(),
            "a:running terminated:running ended:running stopped:stopped",
            "{strategy:?}"
        );
    }
}

#[test]
fn two_children_found_dead_count_once_for_one_for_all_and_twice_for_one_for_one() {
    // Intensity 1: the second restart of one_for_one is fatal.
    for (strategy, survives) in [(Strategy::OneForAll, true), (Strategy::OneForOne, false)] {
        let children = ["a", "b", "c"].map(permanent).to_vec();
        let mut world = World::started(flags(strategy, 1, 3600), children);
        world.finishes("c", crate::harness::Finish::Stubborn);
        world.crash("a");
        // While `c` holds up the group's stop, `b` dies by itself.
        world.crash("b");
        world.advance_secs(5.0);
        assert_eq!(world.end.is_none(), survives, "{strategy:?}");
        if survives {
            assert_eq!(world.states(), "a:running b:running c:running");
        }
    }
}

#[test]
fn a_crash_before_the_group_widens_the_group_that_restarts() {
    let children = ["a", "b", "c"].map(permanent).to_vec();
    let mut world = World::started(flags(Strategy::RestForOne, 5, 3600), children);
    world.finishes("c", crate::harness::Finish::Stubborn);
    world.happened();
    world.crash("b");
    world.crash("a");
    world.advance_secs(5.0);
    assert_eq!(world.happened(), "stop c, kill c, start a, start b, start c");
}

#[test]
fn ignore_on_a_restart_leaves_the_child_stopped_after_it_counted() {
    let mut world = World::started(flags(Strategy::OneForOne, 1, 3600), vec![permanent("a")]);
    world.begins("a", &[Begin::Ignore]);
    world.crash("a");
    assert_eq!(world.states(), "a:stopped");
    world.ask(Operation::RestartChild(world.key("a")));
    world.crash("a");
    assert_eq!(world.end, Some((Exit::Escalated, None)));
}

#[test]
fn simple_one_for_one_drops_ended_and_ignored_children() {
    let mut world = World::started(flags(Strategy::SimpleOneForOne, 10, 3600), vec![]);
    world.begins("w", &[Begin::Ignore]);
    assert_eq!(
        world.answer(Operation::StartChild(Arc::new(child("w", RestartType::Permanent)))),
        Outcome::Ignored { child: None }
    );
    let Outcome::Started { child: first, .. } = world.answer(Operation::StartChild(Arc::new(permanent("w"))))
    else {
        panic!("the second start succeeds");
    };
    world.ask(Operation::StartChild(Arc::new(permanent("w"))));
    assert_eq!(world.counts(), [1, 2, 0, 2]);
    world.answer(Operation::TerminateChild(first));
    assert_eq!(world.counts(), [1, 1, 0, 1]);
    assert_eq!(
        world.answer(Operation::TerminateChild(first)),
        Outcome::Refused(xy_actors::policy::Refusal::NotFound)
    );
}

#[test]
fn an_exit_of_an_earlier_incarnation_changes_nothing() {
    let mut world = World::started(flags(Strategy::OneForOne, 5, 3600), vec![permanent("a")]);
    let (key, old) = (world.key("a"), world.incarnation("a"));
    world.crash("a");
    world.happened();
    world.input(xy_actors::policy::Input::Exited { child: key, incarnation: old, exit: Exit::Abnormal });
    assert_eq!((world.happened().as_str(), world.state("a")), ("", State::Running));
}

#[test]
fn an_escalated_transient_supervisor_is_restarted_by_its_parent() {
    let nested = ChildSpec { restart: RestartType::Transient, ..ChildSpec::supervisor("s") };
    let mut world = World::started(flags(Strategy::OneForOne, 1, 5), vec![nested]);
    world.exits("s", Exit::Escalated);
    assert_eq!(world.states(), "s:running");
}
