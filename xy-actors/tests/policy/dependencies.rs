//! What children wait for before they start, and with whom they are restarted.

use std::sync::Arc;

use xy_actors::event::ChildReport;
use xy_actors::exit::Exit;
use xy_actors::policy::{Input, Operation, Outcome, Policy, Refusal, State};
use xy_actors::spec::{
    Backoff, ChildSpec, Condition, Dependency, OnLimit, Order, RestartIntensity, RestartLimit, RestartType,
    SpecError, Strategy, SupervisorSpec,
};

use crate::harness::{Begin, Finish, World, child, flags, permanent};

fn concurrent() -> SupervisorSpec {
    SupervisorSpec { order: Order::Concurrent, ..flags(Strategy::OneForOne, 100, 60) }
}

fn on(dependency: &str, condition: Condition) -> Dependency {
    Dependency { condition, ..Dependency::ready(dependency) }
}

fn depending(id: &str, depends_on: Vec<Dependency>) -> ChildSpec {
    ChildSpec { depends_on, ..permanent(id) }
}

/// A child whose first crash makes it `failed`.
fn brittle(id: &str) -> ChildSpec {
    let intensity = RestartIntensity::new(0, std::time::Duration::from_secs(60));
    ChildSpec {
        limit: Some(RestartLimit { intensity, on_limit: OnLimit::GiveUp }),
        ..child(id, RestartType::Transient)
    }
}

/// Returns what a queued child waits for.
fn waits_for(world: &World, id: &str) -> Vec<(String, Condition, Option<State>)> {
    let view = world.policy.child(world.key(id)).expect("child");
    let told = view.waits_for.iter();
    told.map(|(dependency, state)| (dependency.on.to_string(), dependency.condition, *state)).collect()
}

fn launched(world: &mut World, id: &str) {
    let (child, incarnation) = (world.key(id), world.incarnation(id));
    world.input(Input::Launched { child, incarnation });
}

fn health(world: &mut World, id: &str, healthy: bool) {
    let (child, incarnation) = (world.key(id), world.incarnation(id));
    world.input(Input::Health { child, incarnation, healthy });
}

#[test]
fn started_is_enough_once_the_incarnation_exists_and_not_before() {
    let web = depending("web", vec![on("db", Condition::Started)]);
    let mut world = World::new(concurrent(), vec![permanent("db"), web]);
    world.always("db", Begin::Hang);
    world.input(Input::Start);
    assert_eq!(world.happened(), "start db");
    launched(&mut world, "db");
    assert_eq!(world.happened(), "start web");
}

#[test]
fn the_next_incarnation_of_a_started_dependency_has_to_exist_again() {
    let db = ChildSpec { backoff: Some(Backoff::default()), ..permanent("db") };
    let mut world = World::new(concurrent(), vec![depending("web", vec![on("db", Condition::Started)]), db]);
    world.always("db", Begin::Hang);
    world.input(Input::Start);
    launched(&mut world, "db");
    world.ready("db");
    world.crash("db");
    world.crash("web");
    world.advance_secs(2.0);
    assert_eq!(world.happened(), "start db, start web, start db");
    launched(&mut world, "db");
    assert_eq!(world.happened(), "start web");
}

#[test]
fn ready_lasts_through_a_poor_health_check_and_healthy_does_not() {
    let children = vec![
        depending("lax", vec!["db".into()]),
        depending("strict", vec![on("db", Condition::Healthy)]),
        permanent("db"),
    ];
    let mut world = World::started(concurrent(), children);
    assert_eq!(world.happened(), "start db, start lax, start strict");
    health(&mut world, "db", false);
    world.crash("lax");
    world.crash("strict");
    assert_eq!(world.happened(), "start lax");
    assert_eq!(waits_for(&world, "strict"), [("db".to_owned(), Condition::Healthy, Some(State::Running))]);
    health(&mut world, "db", true);
    assert_eq!(world.happened(), "start strict");
}

#[test]
fn healthy_waits_for_the_first_pass_of_each_incarnation_where_there_is_a_health_check() {
    let db = ChildSpec { health_checked: true, backoff: Some(Backoff::default()), ..permanent("db") };
    let strict = depending("strict", vec![Dependency { restart: true, ..on("db", Condition::Healthy) }]);
    let lax = depending("lax", vec!["db".into()]);
    let mut world = World::started(concurrent(), vec![strict, lax, db]);
    assert_eq!(world.happened(), "start db, start lax", "ready is not healthy yet");
    let view = |world: &World| world.policy.child(world.key("db")).map(|db| (db.ready, db.healthy));
    assert_eq!(view(&world), Some((true, false)));
    health(&mut world, "db", false);
    assert_eq!(world.happened(), "");
    assert_eq!(view(&world), Some((false, false)));
    health(&mut world, "db", true);
    assert_eq!(view(&world), Some((true, true)));
    assert_eq!(world.happened(), "start strict");
    world.crash("db");
    world.advance_secs(2.0);
    assert_eq!(world.happened(), "start db, stop strict", "what another incarnation has passed says nothing");
    assert_eq!(waits_for(&world, "strict"), [("db".to_owned(), Condition::Healthy, Some(State::Running))]);
    let reports = world.reports.len();
    health(&mut world, "db", true);
    assert_eq!(world.happened(), "start strict");
    let healthy = world.reports[reports..].iter().any(|(_, report)| *report == ChildReport::Healthy);
    assert!(!healthy, "it had not been unhealthy");
}

#[test]
fn a_health_check_that_an_incarnation_began_without_is_not_waited_for() {
    let strict = depending("strict", vec![on("db", Condition::Healthy)]);
    let mut world = World::started(concurrent(), vec![permanent("db"), strict]);
    let checked = ChildSpec { health_checked: true, ..permanent("db") };
    world.answer(Operation::Update(world.key("db"), Arc::new(checked)));
    world.crash("strict");
    assert_eq!(world.happened(), "start db, start strict, start strict");
    world.crash("db");
    world.crash("strict");
    assert_eq!(world.happened(), "start db", "the next one has it");
}

#[test]
fn completed_means_that_the_job_ended_by_itself_and_normally() {
    for (exit, completes) in [(Exit::Normal, true), (Exit::Shutdown, false), (Exit::Abnormal, false)] {
        for restart in [RestartType::Transient, RestartType::Temporary] {
            let job = ChildSpec { restart, retain: true, ..brittle("job") };
            let web = depending("web", vec![on("job", Condition::Completed)]);
            let mut world = World::started(concurrent(), vec![web, job]);
            assert_eq!(world.happened(), "start job");
            world.exits("job", exit);
            let expected = if completes { "start web" } else { "" };
            assert_eq!(world.happened(), expected, "{restart:?} {exit:?}");
        }
    }
}

#[test]
fn a_job_stays_completed_until_it_is_started_again() {
    let web = depending("web", vec![on("job", Condition::Completed)]);
    let mut world = World::started(concurrent(), vec![web, child("job", RestartType::Transient)]);
    world.exits("job", Exit::Normal);
    world.ask(Operation::Stop(world.key("job")));
    world.crash("web");
    assert_eq!(world.happened(), "start job, start web, start web");
    world.ask(Operation::Start(world.key("job")));
    world.crash("web");
    assert_eq!(world.happened(), "start job");
    world.ask(Operation::Stop(world.key("job")));
    assert_eq!(world.happened(), "stop job", "a job that is stopped is not done");
    assert_eq!(waits_for(&world, "web"), [("job".to_owned(), Condition::Completed, Some(State::Stopped))]);
    world.ask(Operation::Start(world.key("job")));
    world.exits("job", Exit::Normal);
    assert_eq!(world.happened(), "start job, start web");
}

#[test]
fn a_job_that_ends_normally_before_it_is_ready_is_completed_too() {
    let web = depending("web", vec![on("job", Condition::Completed)]);
    let mut world = World::new(concurrent(), vec![web, child("job", RestartType::Transient)]);
    world.begins("job", &[Begin::Hang]);
    world.input(Input::Start);
    world.exits("job", Exit::Normal);
    assert_eq!(world.happened(), "start job, start web");
}

#[test]
fn a_failed_dependency_holds_its_dependents_and_they_start_when_it_recovers() {
    for condition in [Condition::Started, Condition::Ready, Condition::Healthy] {
        let mut world =
            World::new(concurrent(), vec![depending("web", vec![on("db", condition)]), brittle("db")]);
        world.begins("db", &[Begin::Fail]);
        world.input(Input::Start);
        assert_eq!(world.states(), "web:starting db:failed");
        assert_eq!(waits_for(&world, "web"), [("db".to_owned(), condition, Some(State::Failed))]);
        world.happened();
        world.ask(Operation::Start(world.key("db")));
        assert_eq!(world.happened(), "start db, start web", "{condition}");
    }
}

#[test]
fn a_failed_job_holds_its_dependents_until_a_later_run_succeeds() {
    let web = depending("web", vec![on("job", Condition::Completed)]);
    let mut world = World::started(concurrent(), vec![web, brittle("job")]);
    world.crash("job");
    assert_eq!(world.states(), "web:starting job:failed");
    assert_eq!(waits_for(&world, "web"), [("job".to_owned(), Condition::Completed, Some(State::Failed))]);
    world.ask(Operation::Start(world.key("job")));
    world.happened();
    world.exits("job", Exit::Normal);
    assert_eq!(world.happened(), "start web");
}

#[test]
fn a_dependent_that_runs_is_left_alone_unless_it_is_to_be_restarted_along() {
    let follower = Dependency { restart: true, ..Dependency::ready("db") };
    let children =
        vec![depending("web", vec![follower]), depending("other", vec!["db".into()]), permanent("db")];
    let mut world = World::started(concurrent(), children);
    world.always("db", Begin::Hang);
    world.happened();
    world.crash("db");
    assert_eq!(world.happened(), "start db, stop web");
    assert_eq!(world.states(), "web:restarting other:running db:starting");
    world.ready("db");
    assert_eq!(world.happened(), "start web");
    assert!(world.reports.contains(&("web".to_owned(), ChildReport::Follows)));
}

#[test]
fn a_follower_is_restarted_with_an_operators_restart_but_not_stopped_with_a_stop() {
    let follower = Dependency { restart: true, ..Dependency::ready("db") };
    let mut world = World::started(concurrent(), vec![depending("web", vec![follower]), permanent("db")]);
    world.happened();
    world.ask(Operation::Restart(world.key("db")));
    assert_eq!(world.happened(), "stop db, start db, stop web, start web");
    world.ask(Operation::Stop(world.key("db")));
    assert_eq!(world.happened(), "stop db");
    assert_eq!(world.states(), "web:running db:stopped");
    world.ask(Operation::Start(world.key("db")));
    assert_eq!(world.happened(), "start db, stop web, start web");
}

#[test]
fn restarts_along_go_down_the_chain_and_count_for_nobody() {
    let follow = |on: &str| vec![Dependency { restart: true, ..Dependency::ready(on) }];
    let children =
        vec![depending("c", follow("b")), depending("b", follow("a")), ChildSpec { ..permanent("a") }];
    let spec = SupervisorSpec { order: Order::Concurrent, ..flags(Strategy::OneForOne, 3, 60) };
    let mut world = World::started(spec, children);
    world.happened();
    for _ in 0..3 {
        world.crash("a");
        assert_eq!(world.happened(), "start a, stop b, start b, stop c, start c");
    }
    assert_eq!(world.end, None, "three crashes are allowed, and only those of `a` were any");
}

#[test]
fn the_temporary_the_paused_and_those_wanted_down_do_not_follow() {
    let follow = || vec![Dependency { restart: true, ..Dependency::ready("db") }];
    let children = vec![
        ChildSpec { depends_on: follow(), ..child("temporary", RestartType::Temporary) },
        depending("paused", follow()),
        depending("down", follow()),
        permanent("db"),
    ];
    let mut world = World::started(concurrent(), children);
    world.ask(Operation::Pause(world.key("paused")));
    world.ask(Operation::Stop(world.key("down")));
    world.happened();
    world.crash("db");
    assert_eq!(world.happened(), "start db");
    assert_eq!(world.states(), "temporary:running paused:running down:stopped db:running");
}

#[test]
fn a_follower_that_does_not_end_is_killed_and_starts_only_when_it_is_gone() {
    let follower = Dependency { restart: true, ..Dependency::ready("db") };
    let mut world = World::started(concurrent(), vec![depending("web", vec![follower]), permanent("db")]);
    world.finishes("web", Finish::Stubborn);
    world.happened();
    world.crash("db");
    assert_eq!(world.happened(), "start db, stop web");
    world.advance_secs(5.0);
    assert_eq!(world.happened(), "kill web, start web");
}

#[test]
fn whoever_waits_for_a_follower_gets_the_incarnation_that_stays() {
    let follower = Dependency { restart: true, ..Dependency::ready("db") };
    let mut world = World::started(concurrent(), vec![depending("web", vec![follower]), permanent("db")]);
    world.begins("web", &[Begin::Hang]);
    let web = world.key("web");
    let asked = world.ask(Operation::Restart(web));
    world.crash("db");
    let incarnation = world.incarnation("web");
    assert_eq!(world.answers[&asked], Outcome::Started { child: web, incarnation });
    assert_eq!(incarnation.get(), 3);
}

#[test]
fn waiting_for_the_completion_of_what_is_always_restarted_is_refused() {
    let never = |restart, retain| {
        let job = ChildSpec { retain, ..child("job", restart) };
        let web = depending("web", vec![on("job", Condition::Completed)]);
        Policy::new(concurrent(), vec![web, job], 0).map(drop)
    };
    let refused = Err(SpecError::NeverCompletes { child: "web".into(), dependency: "job".into() });
    assert_eq!(never(RestartType::Permanent, true), refused);
    assert_eq!(never(RestartType::Temporary, false), refused);
    assert_eq!(never(RestartType::Temporary, true), Ok(()));
    assert_eq!(never(RestartType::Transient, false), Ok(()));
}

#[test]
fn a_job_that_others_wait_for_cannot_be_made_permanent() {
    let web = depending("web", vec![on("job", Condition::Completed)]);
    let mut world = World::started(concurrent(), vec![web, child("job", RestartType::Transient)]);
    let refused = SpecError::NeverCompletes { child: "web".into(), dependency: "job".into() };
    assert_eq!(
        world.answer(Operation::Update(world.key("job"), Arc::new(permanent("job")))),
        Outcome::Refused(Refusal::Invalid(refused))
    );
}

#[test]
fn a_circle_is_told_whole_and_without_those_that_only_lead_to_it() {
    let children = vec![
        depending("outside", vec!["a".into()]),
        depending("a", vec!["b".into()]),
        depending("b", vec!["leaf".into(), on("c", Condition::Completed)]),
        ChildSpec { restart: RestartType::Transient, ..depending("c", vec!["a".into()]) },
        permanent("leaf"),
    ];
    let error = Policy::new(concurrent(), children, 0).map(drop).expect_err("a circle");
    assert_eq!(error, SpecError::DependencyCycle(vec!["a".into(), "b".into(), "c".into()]));
    assert_eq!(error.to_string(), "children depend on each other in a circle: `a` -> `b` -> `c` -> `a`");
}
