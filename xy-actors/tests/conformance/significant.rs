//! Significant children and auto-shutdown.

use xy_actors::exit::Exit;
use xy_actors::policy::State;
use xy_actors::spec::{AutoShutdown, ChildSpec, RestartType, SpecError, Strategy, SupervisorSpec};
use xy_actors::supervisor::{SpawnTreeError, Supervisor, supervisor};
use xy_actors::testkit::{Journal, MockChild, TestTree};

use crate::support::{World, flags, mock, temporary, transient};

const MODES: [AutoShutdown; 3] =
    [AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant];
const BY_ITSELF: [Exit; 3] = [Exit::Killed, Exit::Abnormal, Exit::Normal];

fn shutting_down(auto_shutdown: AutoShutdown, strategy: Strategy) -> SupervisorSpec {
    SupervisorSpec { auto_shutdown, ..flags(strategy, 5) }
}

fn significant(spec: ChildSpec) -> ChildSpec {
    ChildSpec { significant: true, ..spec }
}

async fn world(auto_shutdown: AutoShutdown, children: Vec<ChildSpec>) -> World {
    World::of(shutting_down(auto_shutdown, Strategy::OneForOne), children).await
}

async fn shut_down(world: &World) {
    assert_eq!(world.tree.ended().await.exit, Exit::Shutdown);
}

pub(crate) async fn nonsignificant_temporary() {
    for mode in MODES {
        let mut world = world(mode, vec![temporary("child1")]).await;
        world.tree.terminate_child("child1").await.expect("stops");
        for exit in BY_ITSELF {
            world.add_obedient(temporary("child1")).await;
            world.end("child1", exit).await;
            world.lives().await;
        }
        world.tree.shutdown().await;
        shut_down(&world).await;
    }
}

pub(crate) async fn nonsignificant_transient() {
    for mode in MODES {
        let world = world(mode, vec![transient("child1")]).await;
        world.tree.terminate_child("child1").await.expect("stops");
        world.tree.restart_child("child1").await.expect("starts");
        for (exit, state) in [
            (Exit::Killed, "child1:running"),
            (Exit::Abnormal, "child1:running"),
            (Exit::Normal, "child1:stopped"),
        ] {
            world.end("child1", exit).await;
            assert_eq!(world.tree.states().await, state);
        }
        world.tree.shutdown().await;
        shut_down(&world).await;
    }
}

fn three(spec: fn(&str) -> ChildSpec) -> Vec<ChildSpec> {
    vec![significant(spec("child1")), significant(spec("child2")), spec("child3")]
}

pub(crate) async fn significant_temporary() {
    for exit in BY_ITSELF {
        let mut world = world(AutoShutdown::AnySignificant, three(temporary)).await;
        world.tree.terminate_child("child1").await.expect("stops");
        assert_eq!(world.tree.states().await, "child2:running child3:running");
        world.add_obedient(significant(temporary("child1"))).await;
        assert_eq!(world.tree.states().await, "child2:running child3:running child1:running");
        world.forget();
        world.end("child1", exit).await;
        shut_down(&world).await;
        assert_eq!(world.journal.take(), ["stop child3", "stop child2"]);
    }
    all_significant_waits_for_the_second(three(temporary)).await;
}

pub(crate) async fn significant_transient() {
    let world = world(AutoShutdown::AnySignificant, three(transient)).await;
    world.tree.terminate_child("child1").await.expect("stops");
    world.tree.restart_child("child1").await.expect("starts");
    world.end("child1", Exit::Killed).await;
    world.crash("child1").await;
    assert_eq!(world.tree.states().await, "child1:running child2:running child3:running");
    world.end("child1", Exit::Normal).await;
    shut_down(&world).await;
    all_significant_waits_for_the_second(three(transient)).await;
}

async fn all_significant_waits_for_the_second(children: Vec<ChildSpec>) {
    let world = world(AutoShutdown::AllSignificant, children).await;
    world.end("child1", Exit::Normal).await;
    world.lives().await;
    world.end("child2", Exit::Normal).await;
    shut_down(&world).await;
    assert_eq!(world.journal.take(), ["stop child3"]);
}

pub(crate) async fn significant_simple() {
    for mode in MODES {
        let started = Supervisor::builder(shutting_down(mode, Strategy::SimpleOneForOne)).start().await;
        let expected = match mode {
            AutoShutdown::Never => Ok(()),
            _ => Err(SpawnTreeError::Spec(SpecError::AutoShutdownOfSimpleOneForOne)),
        };
        assert_eq!(started.map(drop), expected);
    }
}

pub(crate) async fn significant_bystander() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        for mode in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
            let children =
                vec![significant(transient("child1")), transient("child2"), significant(transient("child3"))];
            let world = World::of(shutting_down(mode, strategy), children).await;
            world.end("child2", Exit::Killed).await;
            assert_eq!(world.tree.states().await, "child1:running child2:running child3:running");
            let stopped = world.journal.take().iter().filter(|entry| entry.starts_with("stop")).count();
            let expected = match strategy {
                Strategy::OneForAll => 2,
                Strategy::RestForOne => 1,
                _ => 0,
            };
            assert_eq!(stopped, expected, "{strategy:?}");
        }
    }
}

pub(crate) async fn significant_escalation() {
    for climbs in [true, false] {
        let worker = MockChild::new("c", &Journal::default());
        let flags = shutting_down(AutoShutdown::AnySignificant, Strategy::OneForOne);
        let inner = supervisor(flags.clone()).child(significant(transient("c")), worker.clone());
        let spec =
            ChildSpec { restart: RestartType::Transient, significant: climbs, ..ChildSpec::supervisor("b") };
        let tree = TestTree::new(
            Supervisor::builder(flags)
                .child(temporary("bystander"), mock("bystander"))
                .child(spec, inner)
                .start()
                .await
                .expect("starts"),
        );
        worker.end(Exit::Normal);
        if climbs {
            assert_eq!(tree.ended().await.exit, Exit::Shutdown);
        } else {
            let b = tree.wait_for("b", |child| child.state == State::Stopped).await.expect("ends");
            assert_eq!(b.last_exit.expect("an exit").report.exit, Exit::Shutdown);
            assert_eq!(tree.states().await, "bystander:running b:stopped");
        }
    }
}
