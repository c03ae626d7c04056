//! What the calls answer in each state of a child.

use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio::time::Instant;
use xy_actors::child::{StartInfo, actor, task};
use xy_actors::exit::Exit;
use xy_actors::policy::{ChildKey, Refusal, State};
use xy_actors::spec::{
    AutoShutdown, ChildSpec, ChildType, RestartIntensity, RestartType, Shutdown, SpecError, Strategy,
    SupervisorSpec,
};
use xy_actors::supervisor::{OperationError, SpawnTreeError, StartOutcome, StopOutcome, Supervisor};
use xy_actors::testkit::{MockChild, MockStart, TestTree};

use crate::support::{
    World, flags, key, millis, mock, permanent, pool, started, temporary, transient, with_shutdown,
};

fn not_found<T>(id: &str) -> Result<T, OperationError> {
    Err(OperationError::NotFound(id.into()))
}

fn refusal<T: std::fmt::Debug>(result: Result<T, OperationError>) -> Refusal {
    match result {
        Err(OperationError::Refused { refusal, .. }) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn is_stopped(result: &Result<StopOutcome, OperationError>, exit: Exit) -> bool {
    matches!(result, Ok(StopOutcome::Stopped(report)) if report.exit == exit)
}

async fn gone() -> Supervisor {
    let tree = pool(1).await;
    tree.shutdown().await;
    tree.clone()
}

pub(crate) async fn child_adm() {
    let world = World::of(SupervisorSpec::default(), vec![permanent("child1")]).await;
    let tree = &world.tree;
    let first = tree.which_child("child1").await.expect("child").key;
    assert_eq!(
        refusal(tree.start_child(permanent("child1"), mock("child1")).await),
        Refusal::AlreadyStarted(first)
    );
    assert_eq!(tree.terminate_child("child2").await, not_found("child2"));
    assert_eq!(gone().await.terminate_child("child1").await, Err(OperationError::SupervisorGone));
    assert!(is_stopped(&tree.terminate_child("child1").await, Exit::Shutdown));
    assert_eq!(tree.terminate_child("child1").await, Ok(StopOutcome::NotRunning));
    assert_eq!(tree.states().await, "child1:stopped");
    assert_eq!(tree.counts().await, [1, 0, 0, 1]);
    assert_eq!(
        refusal(tree.start_child(permanent("child1"), mock("child1")).await),
        Refusal::AlreadyPresent(first)
    );
    key(tree.restart_child("child1").await);
    assert_eq!(tree.counts().await, [1, 1, 0, 1]);
    assert_eq!(refusal(tree.restart_child("child1").await), Refusal::Running);
    assert_eq!(tree.restart_child("child2").await, not_found("child2"));
    assert_eq!(refusal(tree.delete_child("child1").await), Refusal::Running);
    assert_eq!(tree.delete_child("child2").await, not_found("child2"));
    tree.terminate_child("child1").await.expect("stops");
    tree.delete_child("child1").await.expect("goes");
    assert_eq!((tree.states().await.as_str(), tree.counts().await), ("", [0, 0, 0, 0]));
    assert_eq!(tree.restart_child("child1").await, not_found("child1"));
    let again = key(tree.start_child(permanent("child1"), mock("child1")).await);
    assert!(again > first, "keys are never given twice");
    assert_eq!(tree.terminate_child("#3").await, not_found("#3"));
    assert_eq!(tree.states().await, "child1:running", "a key is no id");
    let gone = gone().await;
    assert_eq!(gone.which_children().await, Err(OperationError::SupervisorGone));
    assert_eq!(gone.count_children().await, Err(OperationError::SupervisorGone));
}

pub(crate) async fn child_adm_simple() {
    let tree = pool(1).await;
    assert_eq!((tree.states().await.as_str(), tree.counts().await), ("", [1, 0, 0, 0]));
    let first = started(&tree, permanent("child"), &mock("a")).await;
    assert_eq!(tree.counts().await, [1, 1, 0, 1]);
    let second = started(&tree, permanent("child"), &mock("b")).await;
    assert_eq!(tree.counts().await, [1, 2, 0, 2]);
    assert_eq!(refusal(tree.terminate_child("child").await), Refusal::SimpleOneForOne);
    assert_eq!(tree.counts().await, [1, 2, 0, 2]);
    assert!(is_stopped(&tree.terminate_child(first).await, Exit::Shutdown));
    assert_eq!(tree.counts().await, [1, 1, 0, 1]);
    assert_eq!(tree.terminate_child(first).await, Ok(StopOutcome::NotRunning), "gone already is no error");
    let foreign = ChildKey::new(99);
    assert_eq!(tree.terminate_child(foreign).await, Err(OperationError::NotFound(foreign.into())));
    for result in [tree.restart_child("child").await, tree.restart_child(second).await] {
        assert_eq!(refusal(result), Refusal::SimpleOneForOne);
    }
    for result in [tree.delete_child("child").await, tree.delete_child(second).await] {
        assert_eq!(refusal(result), Refusal::SimpleOneForOne);
    }
    assert_eq!(
        gone().await.start_child(permanent("child"), mock("c")).await,
        Err(OperationError::SupervisorGone)
    );
}

pub(crate) async fn extra_return() {
    let extra = |name| mock(name).with_info(StartInfo::new(7_u32));
    let handed_back = |outcome: Result<StartOutcome, OperationError>| match outcome {
        Ok(StartOutcome::Started { info: Some(info), .. }) => info.get::<u32>().copied(),
        other => panic!("{other:?}"),
    };
    let world = World::of(flags(Strategy::OneForOne, 2), vec![]).await;
    let tree = &world.tree;
    tree.start_child(permanent("child1"), extra("child1")).await.expect("starts");
    assert_eq!(refusal(tree.restart_child("child1").await), Refusal::Running);
    tree.terminate_child("child1").await.expect("stops");
    assert_eq!(handed_back(tree.restart_child("child1").await), Some(7));
    tree.terminate_child("child1").await.expect("stops");
    assert_eq!(tree.terminate_child("child1").await, Ok(StopOutcome::NotRunning));
    tree.delete_child("child1").await.expect("goes");
    let child = extra("child1");
    assert_eq!(handed_back(tree.start_child(permanent("child1"), child.clone()).await), Some(7));
    child.crash("boom");
    assert_eq!(tree.states().await, "child1:running");
    assert_eq!(tree.counts().await, [1, 1, 0, 1]);

    let outcome = tree.start_child(transient("actor"), actor(|| (Quits, ()))).await.expect("starts");
    let StartOutcome::Started { info: Some(info), .. } = outcome else { panic!("{outcome:?}") };
    let cell: &ActorCell = info.get().expect("an actor hands back its cell");
    ActorRef::<()>::from(cell.clone()).send_message(()).expect("lives");
    tree.wait_for("actor", |child| child.state == State::Stopped).await.expect("has quit");
}

/// An actor that ends with its first message.
struct Quits;

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Quits {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<()>, (): (), (): &mut ()) -> Result<(), ActorProcessingErr> {
        myself.stop(None);
        Ok(())
    }
}

pub(crate) async fn child_specs() {
    let tree = pool(1).await;
    let shutdowns = [millis(0), millis(1000), Shutdown::Infinity, Shutdown::BrutalKill];
    for restart in [RestartType::Permanent, RestartType::Transient, RestartType::Temporary] {
        for shutdown in shutdowns {
            for child_type in [ChildType::Worker, ChildType::Supervisor] {
                let spec = ChildSpec { restart, shutdown, child_type, ..ChildSpec::worker("child") };
                assert_eq!(spec.validate(&SupervisorSpec::default()), Ok(()));
                started(&tree, spec, &mock("child")).await;
            }
        }
    }
    let twice = Supervisor::builder(SupervisorSpec::default())
        .child(permanent("child"), mock("child"))
        .child(permanent("child"), mock("child"))
        .start()
        .await;
    assert_eq!(twice.expect_err("fails"), SpawnTreeError::Spec(SpecError::DuplicateId("child".into())));
}

pub(crate) async fn child_specs_map() {
    for auto_shutdown in [AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        for restart in [RestartType::Permanent, RestartType::Transient, RestartType::Temporary] {
            for significant in [false, true] {
                let spec = ChildSpec { restart, significant, ..ChildSpec::worker("child") };
                let flags = SupervisorSpec { auto_shutdown, ..SupervisorSpec::default() };
                let expected = match (significant, auto_shutdown, restart) {
                    (true, AutoShutdown::Never, _) => {
                        Some(SpecError::SignificantWithoutAutoShutdown("child".into()))
                    }
                    (true, _, RestartType::Permanent) => {
                        Some(SpecError::SignificantPermanent("child".into()))
                    }
                    _ => None,
                };
                let at_start = Supervisor::builder(flags.clone())
                    .child(spec.clone(), mock("child"))
                    .start()
                    .await
                    .map(drop);
                assert_eq!(at_start, expected.clone().map_or(Ok(()), |error| Err(error.into())));
                let tree = Supervisor::builder(flags).start().await.expect("starts");
                let later = tree.start_child(spec, mock("child")).await;
                match expected {
                    Some(error) => assert_eq!(refusal(later), Refusal::Invalid(error)),
                    None => drop(key(later)),
                }
            }
        }
    }
}

pub(crate) async fn sup_flags() {
    let intensity = |intensity, period| SupervisorSpec {
        intensity: Some(RestartIntensity::new(intensity, period)),
        ..SupervisorSpec::default()
    };
    let error = Supervisor::builder(intensity(1, Duration::ZERO)).start().await.expect_err("fails");
    assert_eq!(error, SpawnTreeError::Spec(SpecError::ZeroPeriod));
    Supervisor::builder(intensity(0, Duration::from_secs(1))).start().await.expect("zero restarts are legal");
}

pub(crate) async fn child_unlink() {
    let deaf = task(|_context| std::future::pending());
    let tree = TestTree::new(
        Supervisor::builder(SupervisorSpec::default())
            .child(with_shutdown(millis(500), permanent("deaf")), deaf)
            .start()
            .await
            .expect("starts"),
    );
    let before = Instant::now();
    let (stopped, ()) = tokio::join!(tree.terminate_child("deaf"), async {
        assert_eq!(tree.counts().await, [1, 1, 0, 1], "others are answered meanwhile");
        assert_eq!(before.elapsed(), Duration::ZERO);
    });
    assert!(is_stopped(&stopped, Exit::Killed));
    assert_eq!(before.elapsed(), Duration::from_millis(500));
}

/// A child that runs, then fails each further start after two seconds.
fn flaky(name: &str) -> MockChild {
    let mock = mock(name).starting([MockStart::Ready]);
    mock.always(MockStart::FailAfter(Duration::from_secs(2), "not now".to_owned()));
    mock
}

fn brutal(id: &str) -> ChildSpec {
    with_shutdown(Shutdown::BrutalKill, permanent(id))
}

async fn until_starts(mock: &MockChild, starts: u64) {
    tokio::time::timeout(Duration::from_secs(60), mock.wait_for_start(starts)).await.expect("tried again");
}

pub(crate) async fn hanging_restart_loop() {
    let mut world = World::of(flags(Strategy::OneForOne, 8), vec![]).await;
    world.add(brutal("child1"), flaky("child1")).await;
    let tree = &world.tree;
    let child = world.mock("child1");
    child.crash("boom");
    until_starts(child, 3).await;
    assert!(matches!(
        refusal(tree.start_child(brutal("child1"), mock("child1")).await),
        Refusal::AlreadyStarted(_)
    ));
    assert_eq!(refusal(tree.restart_child("child1").await), Refusal::Running);
    assert_eq!(refusal(tree.delete_child("child1").await), Refusal::Running);
    assert_eq!(tree.counts().await[0], 1);
    tree.terminate_child("child1").await.expect("ends the loop");
    let starts = child.starts();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((tree.states().await.as_str(), child.starts()), ("child1:stopped", starts));
    let child = child.clone().starting([MockStart::Ready]);
    key(tree.restart_child("child1").await);
    child.crash("boom");
    until_starts(&child, starts + 3).await;
    assert_eq!(tree.shutdown().await.exit, Exit::Shutdown);
}

pub(crate) async fn hanging_restart_loop_rest_for_one() {
    let children = vec![permanent("child1"), brutal("child2"), permanent("child3")];
    let world = World::scripted(flags(Strategy::RestForOne, 8), children, |mock| match mock.name() {
        "child2" => {
            mock.always(MockStart::FailAfter(Duration::from_secs(2), "not now".to_owned()));
            mock.starting([MockStart::Ready])
        }
        _ => mock,
    })
    .await;
    let tree = &world.tree;
    world.mock("child2").crash("boom");
    until_starts(world.mock("child2"), 3).await;
    assert_eq!(tree.which_child("child1").await.expect("child").incarnation.get(), 1);
    assert!(!tree.which_child("child3").await.expect("child").alive);
    assert_eq!(tree.counts().await[0], 3);
    tree.terminate_child("child2").await.expect("ends the loop");
    let starts = world.mock("child2").starts();
    let child2 = world.mock("child2").clone().starting([MockStart::Ready]);
    key(tree.restart_child("child2").await);
    assert_eq!(child2.starts(), starts + 1);
    child2.crash("boom");
    until_starts(&child2, starts + 3).await;
    assert_eq!(tree.shutdown().await.exit, Exit::Shutdown);
}

pub(crate) async fn hanging_restart_loop_simple() {
    let tree = pool(8).await;
    let child = flaky("child");
    let key = started(&tree, brutal("child"), &child).await;
    child.crash("boom");
    until_starts(&child, 3).await;
    assert_eq!(refusal(tree.restart_child(key).await), Refusal::SimpleOneForOne);
    assert_eq!(refusal(tree.delete_child(key).await), Refusal::SimpleOneForOne);
    assert_eq!(tree.counts().await[3], 1);
    tree.terminate_child(key).await.expect("ends the loop");
    assert_eq!((tree.states().await.as_str(), tree.counts().await), ("", [1, 0, 0, 0]));
    let second = flaky("second");
    started(&tree, brutal("child"), &second).await;
    second.crash("boom");
    until_starts(&second, 3).await;
    assert_eq!(tree.shutdown().await.exit, Exit::Shutdown);
}

pub(crate) async fn already_started_outside_supervisor() {
    let tree = pool_of_one().await;
    let taken = mock("name").starting([MockStart::Fail("name is taken by another".to_owned())]);
    let error = tree.start_child(transient("child"), taken).await.expect_err("fails");
    assert!(error.to_string().contains("name is taken by another"), "{error}");
    assert_eq!(tree.states().await, "");
    assert_eq!(tree.shutdown().await.exit, Exit::Shutdown);
}

async fn pool_of_one() -> TestTree {
    World::of(SupervisorSpec::default(), vec![]).await.tree
}

pub(crate) async fn dead_keys_are_answered_by_what_is_asked() {
    let tree = pool_of_one().await;
    let mock = mock("child");
    let key = started(&tree, temporary("child"), &mock).await;
    mock.end(Exit::Normal);
    assert_eq!(tree.terminate_child(key).await, Ok(StopOutcome::NotRunning));
    assert_eq!(tree.which_child(key).await, Err(OperationError::NotFound(key.into())));
}
