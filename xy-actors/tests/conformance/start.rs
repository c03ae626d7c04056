//! Starting: what is ignored, what fails, what the defaults are.

use xy_actors::child::StartErrorKind;
use xy_actors::exit::{Cause, Exit};
use xy_actors::policy::ChildKey;
use xy_actors::spec::{ChildSpec, ChildType, RestartType, Shutdown, SpecError, Strategy, SupervisorSpec};
use xy_actors::supervisor::{OperationError, SpawnTreeError, StartOutcome, Supervisor, Template, supervisor};
use xy_actors::testkit::{Journal, MockChild, MockStart};

use crate::support::{World, flags, mock, permanent, pool, temporary};

fn ignoring(name: &str) -> MockChild {
    mock(name).starting([MockStart::Ignore])
}

pub(crate) async fn sup_start_normal() {
    let world = World::of(flags(Strategy::OneForOne, 2), vec![]).await;
    assert_eq!(world.tree.shutdown().await.exit, Exit::Shutdown);
}

pub(crate) async fn sup_start_ignore_init() {
    let mut world =
        World::scripted(SupervisorSpec::default(), vec![ChildSpec::supervisor("group")], |mock| {
            mock.starting([MockStart::Ignore])
        })
        .await;
    assert_eq!(world.tree.states().await, "group:stopped");
    assert_eq!(world.tree.happened(), [""; 0], "no stray exit");
}

pub(crate) async fn sup_start_ignore_child() {
    let mut world = World::of(flags(Strategy::OneForOne, 2), vec![]).await;
    assert_eq!(world.add(permanent("child1"), ignoring("child1")).await, StartOutcome::Ignored);
    world.add_obedient(permanent("child2")).await;
    assert_eq!(world.tree.states().await, "child1:stopped child2:running");
    assert_eq!(world.tree.counts().await, [2, 1, 0, 2]);
}

pub(crate) async fn sup_start_ignore_temporary_child() {
    let children = vec![temporary("child1"), temporary("child2")];
    let world = World::scripted(flags(Strategy::OneForOne, 2), children, |mock| mock).await;
    assert_eq!(world.tree.counts().await, [2, 2, 0, 2]);
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 2))
        .child(temporary("child1"), ignoring("child1"))
        .child(temporary("child2"), mock("child2"))
        .start()
        .await
        .expect("starts");
    let tree = xy_actors::testkit::TestTree::new(tree);
    assert_eq!(tree.states().await, "child2:running");
    assert_eq!(tree.counts().await, [1, 1, 0, 1]);
}

pub(crate) async fn sup_start_ignore_temporary_child_start_child() {
    let mut world = World::of(flags(Strategy::OneForOne, 2), vec![]).await;
    assert_eq!(world.add(temporary("child1"), ignoring("child1")).await, StartOutcome::Ignored);
    world.add_obedient(temporary("child2")).await;
    assert_eq!(world.tree.states().await, "child2:running");
    assert_eq!(world.tree.counts().await, [1, 1, 0, 1]);
}

async fn ignored_by_a_pool(spec: ChildSpec) {
    let tree = pool(2).await;
    let ignored = tree.start_child(spec.clone(), ignoring("first")).await;
    assert_eq!(ignored, Ok(StartOutcome::Ignored));
    tree.start_child(spec, mock("second")).await.expect("starts");
    assert_eq!(tree.counts().await, [1, 1, 0, 1]);
    assert_eq!(tree.which_children().await.expect("lives").len(), 1);
    let report = tree.shutdown().await;
    assert_eq!((report.exit, report.stopped.len()), (Exit::Shutdown, 1));
}

pub(crate) async fn sup_start_ignore_temporary_child_start_child_simple() {
    ignored_by_a_pool(temporary("child")).await;
}

pub(crate) async fn sup_start_ignore_permanent_child_start_child_simple() {
    ignored_by_a_pool(permanent("child")).await;
}

pub(crate) async fn sup_start_error_return() {
    let broken = || {
        supervisor(SupervisorSpec::default())
            .child(permanent("twin"), mock("twin"))
            .child(permanent("twin"), mock("twin"))
    };
    let mut world = World::of(SupervisorSpec::default(), vec![]).await;
    let error = world.tree.start_child(ChildSpec::supervisor("group"), broken()).await.expect_err("fails");
    let OperationError::StartFailed { cause, .. } = error else { panic!("{error:?}") };
    assert_eq!(cause, Cause::StartFailed { message: "two children are called `twin`".to_owned() });
    assert_eq!(world.tree.states().await, "");
    assert!(!world.tree.happened().iter().any(|event| event.contains("child_exited")));
    let error = Supervisor::builder(SupervisorSpec::default())
        .child(ChildSpec::supervisor("group"), broken())
        .start()
        .await
        .expect_err("fails");
    assert!(error.to_string().contains("`twin`"), "{error}");
}

pub(crate) async fn sup_start_fail() {
    let journal = Journal::default();
    let error = Supervisor::builder(SupervisorSpec::default())
        .child(permanent("first"), MockChild::new("first", &journal))
        .child(permanent("panics"), MockChild::new("panics", &journal).starting([MockStart::Panic]))
        .start()
        .await
        .expect_err("fails");
    let SpawnTreeError::Ended(report) = &error else { panic!("{error:?}") };
    assert!(report.to_string().contains("mock panics in its start"), "{report}");
    assert_eq!(journal.take(), ["start first", "start panics", "stop first"]);
}

pub(crate) async fn sup_start_child_returns_error() {
    let world = World::of(SupervisorSpec::default(), vec![]).await;
    for (id, script) in [("child1", MockStart::Fail("reason".to_owned())), ("child2", MockStart::Panic)] {
        let error =
            world.tree.start_child(permanent(id), mock(id).starting([script])).await.expect_err("fails");
        let OperationError::StartFailed { child, kind, .. } = error else { panic!("{error:?}") };
        assert_eq!((child, kind), (id.into(), StartErrorKind::Failed));
    }
    assert_eq!(world.tree.states().await, "");
}

pub(crate) async fn sup_start_restart_child_returns_error() {
    let world = World::scripted(SupervisorSpec::default(), vec![permanent("child1")], |mock| {
        mock.starting([MockStart::Ready, MockStart::Fail("no more".to_owned())])
    })
    .await;
    world.tree.terminate_child("child1").await.expect("stops");
    let error = world.tree.restart_child("child1").await.expect_err("fails");
    assert!(error.to_string().contains("no more"), "{error}");
    assert_eq!(world.tree.states().await, "child1:stopped");
    assert_eq!(world.mock("child1").starts(), 2, "not tried again");
}

pub(crate) async fn sup_start_child_returns_error_simple() {
    let tree = pool(1).await;
    for script in [MockStart::Fail("reason".to_owned()), MockStart::Panic] {
        let error =
            tree.start_child(permanent("child"), mock("child").starting([script])).await.expect_err("fails");
        assert!(matches!(error, OperationError::StartFailed { .. }), "{error:?}");
    }
    assert_eq!(tree.states().await, "");
    assert_eq!(tree.counts().await, [1, 0, 0, 0]);
}

pub(crate) async fn sup_start_map() {
    let children = vec![
        permanent("child1"),
        ChildSpec { shutdown: Shutdown::BrutalKill, ..permanent("child2") },
        ChildSpec::supervisor("child3"),
    ];
    let world = World::of(SupervisorSpec::default(), children).await;
    let expected = [
        ("child1", ChildSpec::DEFAULT_SHUTDOWN, ChildType::Worker),
        ("child2", Shutdown::BrutalKill, ChildType::Worker),
        ("child3", Shutdown::Infinity, ChildType::Supervisor),
    ];
    for (id, shutdown, child_type) in expected {
        let spec = world.tree.child_spec(id).await.expect("a spec");
        assert_eq!(
            (spec.restart, spec.shutdown, spec.child_type, spec.significant),
            (RestartType::Permanent, shutdown, child_type, false)
        );
    }
    assert_eq!(world.tree.child_spec("child4").await, Err(OperationError::NotFound("child4".into())));
    assert_eq!(world.tree.shutdown().await.exit, Exit::Shutdown);
}

pub(crate) async fn sup_start_map_simple() {
    let tree = pool(1).await;
    let template = Template::new(temporary("session"), |name: &str| mock(name));
    for name in ["a", "b", "c"] {
        let child = crate::support::key(template.start_child(&tree, name).await);
        assert_eq!(tree.child_spec(child).await.as_ref(), Ok(template.spec()));
    }
    let foreign = ChildKey::new(99);
    assert_eq!(tree.child_spec(foreign).await, Err(OperationError::NotFound(foreign.into())));
}

pub(crate) async fn sup_start_map_faulty_specs() {
    for id in ["", "a/b"] {
        let error = Supervisor::builder(SupervisorSpec::default())
            .child(permanent(id), mock("never"))
            .start()
            .await
            .expect_err("fails");
        assert_eq!(error, SpawnTreeError::Spec(SpecError::InvalidId(id.into())));
    }
}
