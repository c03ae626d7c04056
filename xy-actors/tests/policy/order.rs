//! The order of starts and stops, unwinding, the stop ladder and the end of a supervisor.

use std::sync::Arc;
use std::time::Duration;

use xy_actors::event::SupervisorReport;
use xy_actors::exit::Exit;
use xy_actors::policy::{Input, Operation, Outcome, Policy};
use xy_actors::spec::{ChildSpec, Order, Shutdown, SpecError, Strategy, SupervisorSpec};

use crate::harness::{Begin, Finish, World, flags, permanent};

fn concurrent() -> SupervisorSpec {
    SupervisorSpec { order: Order::Concurrent, intensity: None, ..SupervisorSpec::default() }
}

fn depending(id: &str, on: &[&str]) -> ChildSpec {
    ChildSpec { depends_on: on.iter().map(|id| (*id).into()).collect(), ..permanent(id) }
}

#[test]
fn a_child_begins_when_the_one_before_it_is_ready() {
    let mut world = World::new(flags(Strategy::OneForOne, 1, 5), ["a", "b", "c"].map(permanent).to_vec());
    world.begins("b", &[Begin::Hang]);
    world.input(Input::Start);
    assert_eq!(world.happened(), "start a, start b");
    assert!(!world.policy.is_started());
    world.ready("b");
    assert_eq!(world.happened(), "start c");
    assert!(world.policy.is_started());
    assert_eq!(world.self_reports, [SupervisorReport::Started]);
}

#[test]
fn a_failed_first_start_unwinds_in_reverse_and_never_tries_the_rest() {
    let mut world =
        World::new(flags(Strategy::OneForOne, 5, 5), ["a", "b", "c", "d"].map(permanent).to_vec());
    world.begins("c", &[Begin::Fail]);
    world.input(Input::Start);
    assert_eq!(world.happened(), "start a, start b, start c, stop b, stop a");
    assert_eq!(world.end, Some((Exit::Shutdown, Some("c".to_owned()))));
}

#[test]
fn shutdown_stops_in_reverse_each_gone_before_the_next_is_asked() {
    let mut world = World::started(flags(Strategy::OneForOne, 1, 5), ["a", "b", "c"].map(permanent).to_vec());
    world.finishes("b", Finish::Stubborn);
    world.happened();
    world.shutdown();
    assert_eq!(world.happened(), "stop c, stop b");
    world.advance_secs(4.9);
    assert_eq!(world.happened(), "");
    world.advance_secs(0.1);
    assert_eq!(world.happened(), "kill b, stop a");
    assert_eq!(world.end, Some((Exit::Shutdown, None)));
}

#[test]
fn a_supervisor_without_children_ends_at_once() {
    let mut world = World::started(flags(Strategy::OneForOne, 2, 3600), vec![]);
    world.shutdown();
    assert_eq!(world.end, Some((Exit::Shutdown, None)));
}

#[test]
fn brutal_kill_never_asks_and_infinity_never_kills() {
    let brutal = ChildSpec { shutdown: Shutdown::BrutalKill, ..permanent("brutal") };
    let patient = ChildSpec { shutdown: Shutdown::Infinity, ..permanent("patient") };
    let mut world = World::started(flags(Strategy::OneForOne, 1, 5), vec![patient, brutal]);
    world.finishes("patient", Finish::Stubborn);
    world.happened();
    world.shutdown();
    world.advance_secs(1_000_000.0);
    assert_eq!(world.happened(), "kill brutal, stop patient");
    world.exits("patient", Exit::Shutdown);
    assert_eq!(world.end, Some((Exit::Shutdown, None)));
}

#[test]
fn a_shutdown_of_zero_is_legal_and_kills_at_once_after_asking() {
    let spec = ChildSpec { shutdown: Shutdown::Timeout(Duration::ZERO), ..permanent("a") };
    let mut world = World::started(flags(Strategy::OneForOne, 1, 5), vec![spec]);
    world.finishes("a", Finish::Stubborn);
    world.happened();
    world.shutdown();
    world.advance_secs(0.0);
    assert_eq!(world.happened(), "stop a, kill a");
    assert!(world.end.is_some());
}

#[test]
fn a_child_that_survives_its_kill_is_given_up_as_leaked() {
    let mut world = World::started(flags(Strategy::OneForOne, 1, 5), vec![permanent("a"), permanent("b")]);
    world.finishes("b", Finish::Immortal);
    world.happened();
    world.shutdown();
    world.advance_secs(10.0);
    assert_eq!(world.happened(), "stop b, kill b, abandon b, stop a");
    assert!(world.end.is_some());
}

#[test]
fn children_that_die_on_their_own_before_they_are_asked_hold_nothing_up() {
    let mut world = World::started(flags(Strategy::OneForOne, 0, 5), ["a", "b", "c"].map(permanent).to_vec());
    world.finishes("c", Finish::Stubborn);
    world.happened();
    world.shutdown();
    world.crash("b");
    world.crash("a");
    world.advance_secs(5.0);
    assert_eq!(world.happened(), "stop c, kill c");
    assert_eq!(world.end, Some((Exit::Shutdown, None)));
}

#[test]
fn shutdown_ends_pending_starts_backoffs_and_operations() {
    let mut world = World::new(flags(Strategy::OneForOne, 5, 60), ["a", "b", "c"].map(permanent).to_vec());
    world.begins("b", &[Begin::Hang]);
    world.input(Input::Start);
    let waiting = world.ask(Operation::Start(world.key("b")));
    world.happened();
    world.shutdown();
    assert_eq!(world.happened(), "stop b, stop a");
    assert_eq!(world.answers[&waiting], Outcome::Refused(xy_actors::policy::Refusal::ShuttingDown));
    assert!(world.end.is_some());
}

#[test]
fn kill_ends_everything_at_once() {
    let mut world = World::started(flags(Strategy::OneForOne, 1, 5), ["a", "b"].map(permanent).to_vec());
    world.finishes("a", Finish::Stubborn);
    world.finishes("b", Finish::Stubborn);
    world.happened();
    world.shutdown();
    world.input(Input::Kill);
    assert_eq!(world.happened(), "stop b, kill b, kill a");
    assert!(world.end.is_some());
}

#[test]
fn concurrent_children_start_and_stop_together() {
    let mut world = World::new(concurrent(), ["a", "b", "c"].map(permanent).to_vec());
    world.begins("a", &[Begin::Hang]);
    world.input(Input::Start);
    assert_eq!(world.happened(), "start a, start b, start c");
    world.finishes("c", Finish::Stubborn);
    world.shutdown();
    assert_eq!(world.happened(), "stop c, stop b, stop a");
    world.advance_secs(5.0);
    assert_eq!(world.happened(), "kill c");
    assert!(world.end.is_some());
}

#[test]
fn concurrent_children_wait_for_their_dependencies_and_are_stopped_before_them() {
    let children = vec![depending("web", &["db", "cache"]), permanent("db"), permanent("cache")];
    let mut world = World::new(concurrent(), children);
    world.begins("cache", &[Begin::Hang]);
    world.input(Input::Start);
    assert_eq!(world.happened(), "start db, start cache");
    world.ready("cache");
    assert_eq!(world.happened(), "start web");
    world.shutdown();
    assert_eq!(world.happened(), "stop web, stop cache, stop db");
}

#[test]
fn one_for_all_works_on_a_concurrent_supervisor_too() {
    let spec = SupervisorSpec { order: Order::Concurrent, ..flags(Strategy::OneForAll, 2, 60) };
    let mut world = World::started(spec, ["a", "b", "c"].map(permanent).to_vec());
    world.happened();
    world.crash("b");
    assert_eq!(world.happened(), "stop c, stop a, start a, start b, start c");
}

#[test]
fn circular_and_unknown_dependencies_are_refused() {
    let circle = vec![depending("a", &["b"]), depending("b", &["a"])];
    assert_eq!(
        Policy::new(concurrent(), circle, 0).map(drop),
        Err(SpecError::DependencyCycle(vec!["a".into(), "b".into()]))
    );
    let unknown = vec![depending("a", &["x"])];
    assert_eq!(
        Policy::new(concurrent(), unknown, 0).map(drop),
        Err(SpecError::UnknownDependency { child: "a".into(), dependency: "x".into() })
    );
}

#[test]
fn duplicate_ids_are_refused() {
    let children = vec![permanent("a"), permanent("a")];
    assert_eq!(
        Policy::new(SupervisorSpec::default(), children, 0).map(drop),
        Err(SpecError::DuplicateId("a".into()))
    );
}

#[test]
fn simple_one_for_one_stops_all_at_once_with_one_deadline() {
    let mut world = World::started(flags(Strategy::SimpleOneForOne, 1, 5), vec![]);
    for finish in ["slow", "quick"] {
        let spec = ChildSpec { shutdown: Shutdown::Timeout(Duration::from_secs(2)), ..permanent(finish) };
        world.ask(Operation::StartChild(Arc::new(spec)));
    }
    world.finishes("slow", Finish::Stubborn);
    world.happened();
    world.shutdown();
    assert_eq!(world.happened(), "stop quick, stop slow");
    world.advance_secs(2.0);
    assert_eq!(world.happened(), "kill slow");
    assert!(world.end.is_some());
}
