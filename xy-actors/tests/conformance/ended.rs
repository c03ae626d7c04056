//! Restart type and exit: what is restarted, kept or dropped, and what is reported about it.

use xy_actors::event::stream::EventKind;
use xy_actors::event::{ChildReport, Next};
use xy_actors::exit::Exit;
use xy_actors::policy::Refusal;
use xy_actors::spec::{ChildSpec, RestartType, Strategy};
use xy_actors::supervisor::{OperationError, StartOutcome};

use crate::support::{World, flags, mock, permanent, temporary, transient};

async fn with_child(spec: ChildSpec) -> World {
    let mut world = World::of(flags(Strategy::OneForOne, 2), vec![]).await;
    world.add_obedient(spec).await;
    world
}

async fn restarted(exits: &[Exit], spec: fn(&str) -> ChildSpec) {
    let world = with_child(spec("child1")).await;
    for exit in exits {
        world.end("child1", *exit).await;
        assert_eq!(world.tree.states().await, "child1:running");
        assert_eq!(world.tree.counts().await, [1, 1, 0, 1]);
    }
    let expected = 1 + u64::try_from(exits.len()).expect("few");
    assert_eq!(world.mock("child1").starts(), expected);
}

async fn kept(exits: &[Exit]) {
    let world = with_child(transient("child1")).await;
    for exit in exits {
        world.end("child1", *exit).await;
        assert_eq!(world.tree.states().await, "child1:stopped");
        assert_eq!(world.tree.counts().await, [1, 0, 0, 1]);
        let again = world.tree.restart_child("child1").await.expect("starts");
        assert!(matches!(again, StartOutcome::Started { .. }));
    }
}

async fn dropped(exits: &[Exit]) {
    let mut world = with_child(temporary("child1")).await;
    for exit in exits {
        world.end("child1", *exit).await;
        assert_eq!(world.tree.states().await, "");
        assert_eq!(world.tree.counts().await, [0, 0, 0, 0]);
        world.add_obedient(temporary("child1")).await;
    }
}

pub(crate) async fn permanent_normal() {
    restarted(&[Exit::Normal], permanent).await;
}

pub(crate) async fn transient_normal() {
    kept(&[Exit::Normal]).await;
}

pub(crate) async fn temporary_normal() {
    dropped(&[Exit::Normal]).await;
}

pub(crate) async fn permanent_shutdown() {
    restarted(&[Exit::Shutdown, Exit::Shutdown], permanent).await;
}

pub(crate) async fn transient_shutdown() {
    kept(&[Exit::Shutdown, Exit::Shutdown]).await;
}

pub(crate) async fn temporary_shutdown() {
    dropped(&[Exit::Shutdown, Exit::Shutdown]).await;
}

pub(crate) async fn permanent_abnormal() {
    restarted(&[Exit::Abnormal], permanent).await;
}

pub(crate) async fn transient_abnormal() {
    restarted(&[Exit::Abnormal], transient).await;
}

pub(crate) async fn temporary_abnormal() {
    dropped(&[Exit::Abnormal]).await;
}

pub(crate) async fn external_start_no_progress_log() {
    let mut world = with_child(permanent("child1")).await;
    world.end("child1", Exit::Normal).await;
    assert_eq!(
        world.tree.happened(),
        [
            "child_added child1",
            "child_starting child1",
            "child_ready child1",
            "child_exited child1",
            "child_starting child1",
            "child_ready child1"
        ]
    );
}

pub(crate) async fn format_log_2() {
    let mut world = with_child(permanent("child1")).await;
    world.mock("child1").crash("out of memory");
    let event = world.tree.expect("child_exited", "child1").await;
    let EventKind::Child { incarnation, report, exit, .. } = event.kind else { panic!("about a child") };
    assert_eq!(incarnation.get(), 1);
    assert!(matches!(
        report,
        ChildReport::Exited { exit: Exit::Abnormal, next: Next::Restart { nth: 1, of: Some(2), .. } }
    ));
    assert_eq!(exit.expect("a cause").to_string(), "error: out of memory");
}

pub(crate) async fn do_not_save_child_specs_for_temporary_children() {
    for strategy in [Strategy::OneForAll, Strategy::OneForOne, Strategy::RestForOne] {
        for how in [Some(Exit::Killed), Some(Exit::Normal), Some(Exit::Abnormal), None] {
            for spec in [permanent("child"), transient("child"), temporary("child")] {
                let world = World::of(flags(strategy, 5), vec![spec.clone()]).await;
                match how {
                    Some(exit) => world.end("child", exit).await,
                    None => drop(world.tree.terminate_child("child").await.expect("stops")),
                }
                let answer = match world.tree.start_child(spec.clone(), mock("child")).await {
                    Ok(StartOutcome::Started { .. }) => "started",
                    Err(OperationError::Refused { refusal: Refusal::AlreadyStarted(_), .. }) => {
                        "already started"
                    }
                    Err(OperationError::Refused { refusal: Refusal::AlreadyPresent(_), .. }) => {
                        world.tree.restart_child("child").await.expect("starts");
                        "already present"
                    }
                    other => panic!("{other:?}"),
                };
                let expected = match (spec.restart, how) {
                    (RestartType::Temporary, _) => "started",
                    (_, None) | (RestartType::Transient, Some(Exit::Normal)) => "already present",
                    (_, Some(_)) => "already started",
                };
                assert_eq!(answer, expected, "{strategy:?} {how:?} {:?}", spec.restart);
            }
        }
    }
}
