//! Intensity, own limits, backoff, start failures and want of resources.

use std::time::Duration;

use xy_actors::event::{ChildReport, Next};
use xy_actors::exit::Exit;
use xy_actors::policy::{Input, Operation, Outcome, Refusal, State};
use xy_actors::spec::{
    Backoff, ChildSpec, FailedStart, OnLimit, RestartIntensity, RestartLimit, RestartType, Strategy,
    SupervisorSpec,
};

use crate::harness::{Begin, World, child, flags, permanent};

/// A server as the daemon runs it: backoff of 1 s to 30 s without jitter, 5 restarts a minute, then failed.
fn server(id: &str) -> ChildSpec {
    ChildSpec {
        restart: RestartType::Transient,
        backoff: Some(Backoff { jitter: 0.0, ..Backoff::default() }),
        limit: Some(RestartLimit {
            intensity: RestartIntensity::new(5, Duration::from_secs(60)),
            on_limit: OnLimit::GiveUp,
        }),
        retain: true,
        ..ChildSpec::worker(id)
    }
}

fn unlimited() -> SupervisorSpec {
    SupervisorSpec { intensity: None, ..SupervisorSpec::default() }
}

#[test]
fn crashes_outside_each_others_window_never_add_up() {
    let mut world = World::started(flags(Strategy::OneForOne, 1, 1), vec![permanent("a")]);
    for _ in 0..4 {
        world.crash("a");
        world.advance_secs(2.1);
    }
    assert_eq!((world.end.clone(), world.states().as_str()), (None, "a:running"));
}

#[test]
fn intensity_zero_ends_the_supervisor_at_the_first_crash() {
    let mut world = World::started(flags(Strategy::OneForOne, 0, 1), vec![permanent("a")]);
    world.crash("a");
    assert_eq!(world.end, Some((Exit::Escalated, None)));
}

#[test]
fn manual_restarts_transient_ends_and_temporary_crashes_never_count() {
    let children =
        vec![permanent("a"), child("b", RestartType::Transient), child("c", RestartType::Temporary)];
    let mut world = World::started(flags(Strategy::OneForOne, 0, 3600), children);
    let key = world.key("a");
    for _ in 0..20 {
        world.answer(Operation::TerminateChild(key));
        world.answer(Operation::RestartChild(key));
    }
    world.exits("b", Exit::Normal);
    world.crash("c");
    assert_eq!((world.end.clone(), world.states().as_str()), (None, "a:running b:stopped"));
}

#[test]
fn a_crash_loop_backs_off_and_fails_at_the_sixth_exit_within_a_minute() {
    let mut world = World::started(unlimited(), vec![server("a"), server("b")]);
    for delay in [1.0, 2.0, 4.0, 8.0, 16.0] {
        world.crash("a");
        assert_eq!(world.state("a"), State::Restarting);
        world.advance_secs(delay);
        assert_eq!(world.state("a"), State::Running, "after {delay} s");
    }
    world.crash("a");
    assert_eq!(world.states(), "a:failed b:running");
    assert_eq!(world.delays("a"), [1.0, 2.0, 4.0, 8.0, 16.0]);
    world.advance_secs(3600.0);
    assert_eq!((world.states().as_str(), world.end), ("a:failed b:running", None));
}

#[test]
fn backoff_is_not_reset_by_a_mere_start() {
    let mut world = World::started(unlimited(), vec![server("a")]);
    world.crash("a");
    world.advance_secs(1.0);
    world.advance_secs(29.9);
    world.crash("a");
    assert_eq!(world.delays("a"), [1.0, 2.0]);
}

#[test]
fn backoff_is_reset_after_a_long_enough_ready_run() {
    let mut world = World::started(unlimited(), vec![server("a")]);
    world.crash("a");
    world.advance_secs(1.0);
    world.advance_secs(30.0);
    world.crash("a");
    assert_eq!(world.delays("a"), [1.0, 1.0]);
}

#[test]
fn time_spent_starting_does_not_count_as_a_stable_run() {
    let mut world = World::started(unlimited(), vec![server("a")]);
    world.begins("a", &[Begin::Hang]);
    world.crash("a");
    world.advance_secs(1.0);
    world.advance_secs(100.0);
    world.crash("a");
    assert_eq!(world.delays("a"), [1.0, 2.0]);
}

#[test]
fn a_slow_start_does_not_make_a_short_run_a_stable_one() {
    let mut world = World::started(unlimited(), vec![server("a")]);
    world.begins("a", &[Begin::Hang]);
    world.crash("a");
    world.advance_secs(1.0);
    // Together they are longer than the stable run that resets the backoff; only the time since it was ready counts.
    world.advance_secs(25.0);
    world.ready("a");
    world.advance_secs(25.0);
    world.crash("a");
    assert_eq!(world.delays("a"), [1.0, 2.0]);
}

#[test]
fn a_first_start_that_fails_backs_off_under_give_up() {
    let mut world = World::new(unlimited(), vec![server("a"), server("b")]);
    world.begins("a", &[Begin::Fail, Begin::Fail]);
    world.input(xy_actors::policy::Input::Start);
    assert_eq!(world.state("a"), State::Restarting);
    world.advance_secs(1.0);
    world.advance_secs(2.0);
    assert_eq!(world.states(), "a:running b:running");
    assert_eq!(world.delays("a"), [1.0, 2.0]);
}

#[test]
fn starting_a_failed_child_clears_its_limit_and_its_backoff() {
    let mut world = World::started(unlimited(), vec![server("a")]);
    for delay in [1.0, 2.0, 4.0, 8.0, 16.0, 0.0] {
        world.crash("a");
        world.advance_secs(delay);
    }
    assert_eq!(world.state("a"), State::Failed);
    let key = world.key("a");
    assert!(matches!(world.answer(Operation::Start(key)), Outcome::Started { .. }));
    assert_eq!(world.policy.child(key).expect("child").restarts, 0);
    world.crash("a");
    assert_eq!(world.state("a"), State::Restarting);
    assert_eq!(world.delays("a").last(), Some(&1.0));
}

#[test]
fn start_during_a_backoff_starts_now() {
    let mut world = World::started(unlimited(), vec![server("a")]);
    world.crash("a");
    let key = world.key("a");
    assert!(matches!(world.answer(Operation::Start(key)), Outcome::Started { .. }));
    world.happened();
    world.advance_secs(60.0);
    assert_eq!(world.happened(), "", "the timer of the backoff is disarmed");
}

#[test]
fn stop_during_a_backoff_is_answered_at_once_and_calls_it_off() {
    let mut world = World::started(unlimited(), vec![server("a")]);
    world.crash("a");
    let key = world.key("a");
    assert_eq!(world.answer(Operation::Stop(key)), Outcome::NotRunning { child: key });
    world.happened();
    world.advance_secs(60.0);
    assert_eq!((world.happened().as_str(), world.states().as_str()), ("", "a:stopped"));
}

#[test]
fn want_of_resources_backs_off_without_counting() {
    let mut world = World::started(unlimited(), vec![server("a")]);
    world.always("a", Begin::Shortage);
    world.crash("a");
    world.advance_secs(600.0);
    assert_eq!(world.state("a"), State::Restarting);
    assert!(world.delays("a").len() > 10, "{:?}", world.delays("a"));
    world.always("a", Begin::Ready);
    world.advance_secs(30.0);
    assert_eq!(world.state("a"), State::Running);
    let restarts = world.policy.child(world.key("a")).expect("child").restarts;
    assert_eq!(restarts, 1, "the crash was one restart, however often its start was tried");
}

#[test]
fn want_of_resources_waits_even_without_a_backoff_of_its_own() {
    let mut world = World::started(flags(Strategy::OneForOne, 1, 5), vec![permanent("a")]);
    world.always("a", Begin::Shortage);
    world.crash("a");
    world.advance_secs(60.0);
    assert_eq!(world.end, None);
    assert!(world.delays("a").iter().skip(1).all(|delay| *delay > 0.0));
    assert!(world.delays("a").len() < 30, "{:?}", world.delays("a"));
}

#[test]
fn a_limit_of_the_childs_own_can_escalate_too() {
    let own = ChildSpec {
        limit: Some(RestartLimit {
            intensity: RestartIntensity::new(1, Duration::from_secs(60)),
            on_limit: OnLimit::Escalate,
        }),
        ..permanent("a")
    };
    let mut world = World::started(unlimited(), vec![own, permanent("b")]);
    world.crash("a");
    world.crash("a");
    assert_eq!(world.end, Some((Exit::Escalated, None)));
}

#[test]
fn a_start_that_takes_too_long_is_stopped_and_counts() {
    let spec = ChildSpec { start_timeout: Some(Duration::from_secs(300)), ..server("a") };
    let mut world = World::new(unlimited(), vec![spec]);
    world.begins("a", &[Begin::Hang]);
    world.input(xy_actors::policy::Input::Start);
    world.advance_secs(299.9);
    assert_eq!(world.happened(), "start a");
    world.advance_secs(0.1);
    assert_eq!(world.happened(), "stop a");
    assert_eq!(world.state("a"), State::Restarting);
    world.advance_secs(1.0);
    assert_eq!(world.state("a"), State::Running);
}

#[test]
fn a_start_that_gets_ready_in_time_disarms_its_timeout() {
    let spec = ChildSpec { start_timeout: Some(Duration::from_secs(10)), ..permanent("a") };
    let mut world = World::started(unlimited(), vec![spec]);
    world.happened();
    world.advance_secs(60.0);
    assert_eq!(world.happened(), "");
}

#[test]
fn a_never_restarted_server_that_cannot_start_is_failed() {
    let spec = ChildSpec { restart: RestartType::Temporary, ..server("a") };
    let mut world = World::new(unlimited(), vec![spec]);
    world.always("a", Begin::Fail);
    world.input(xy_actors::policy::Input::Start);
    assert_eq!(world.state("a"), State::Failed);
    let failed = ("a".to_owned(), ChildReport::StartFailed { next: Next::Rest });
    assert!(world.reports.contains(&failed), "for its restart type, not for a limit: {:?}", world.reports);
}

#[test]
fn the_answer_to_a_start_tells_the_first_failure_and_the_restarts_go_on() {
    let mut world = World::started(unlimited(), vec![ChildSpec { autostart: false, ..server("a") }]);
    let key = world.key("a");
    assert_eq!(world.state("a"), State::Stopped);
    world.begins("a", &[Begin::Fail]);
    assert_eq!(world.answer(Operation::Start(key)), Outcome::Refused(Refusal::StartFailed { child: key }));
    world.advance_secs(1.0);
    assert_eq!(world.state("a"), State::Running);
}

#[test]
fn an_exit_report_says_which_restart_follows_when() {
    let mut world = World::started(unlimited(), vec![server("a")]);
    world.crash("a");
    let next = Next::Restart { delay: Duration::from_secs(1), nth: 1, of: Some(5) };
    assert!(world.reports.contains(&("a".to_owned(), ChildReport::Exited { exit: Exit::Abnormal, next })));
}

#[test]
fn a_restart_window_is_taken_before_slow_stops_of_siblings() {
    let mut world = World::started(flags(Strategy::OneForAll, 1, 1), vec![permanent("a"), permanent("b")]);
    for _ in 0..3 {
        world.finishes("b", crate::harness::Finish::Stubborn);
        world.crash("a");
        world.advance_secs(5.0);
    }
    assert_eq!(world.end, None, "slow stops spread the restarts out, as in OTP");
}

#[test]
fn where_failed_starts_count_a_first_start_is_tried_again_until_the_limit_escalates() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let spec = SupervisorSpec { failed_start: FailedStart::Counts, ..flags(strategy, 2, 60) };
        let backoff = Some(Backoff::default());
        let children = vec![permanent("a"), ChildSpec { backoff, ..permanent("b") }, permanent("c")];
        let mut world = World::new(spec.clone(), children.clone());
        world.begins("b", &[Begin::Fail]);
        world.input(Input::Start);
        world.advance_secs(2.0);
        assert_eq!(
            (world.states().as_str(), world.end),
            ("a:running b:running c:running", None),
            "{strategy:?}"
        );

        let mut world = World::new(spec, children);
        world.always("b", Begin::Fail);
        world.input(Input::Start);
        world.advance_secs(10.0);
        assert_eq!(world.end, Some((Exit::Escalated, None)), "{strategy:?}");
    }
}
