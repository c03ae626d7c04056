//! What OTP added after 27.

use std::time::Duration;

use xy_actors::child::task;
use xy_actors::exit::{Cause, Exit};
use xy_actors::policy::{Refusal, State};
use xy_actors::spec::{ChildSpec, Strategy, SupervisorSpec};
use xy_actors::supervisor::{OperationError, Supervisor, supervisor};

use crate::support::{World, flags, millis, mock, permanent, pool, started, with_shutdown};

pub(crate) async fn which_child() {
    let world = World::of(SupervisorSpec::default(), vec![permanent("a")]).await;
    let child = world.tree.which_child("a").await.expect("child");
    assert_eq!((child.id.as_str(), child.state), ("a", State::Running));
    assert_eq!(world.tree.which_child("b").await, Err(OperationError::NotFound("b".into())));
    let tree = pool(1).await;
    let key = started(&tree, permanent("a"), &mock("a")).await;
    assert_eq!(tree.which_child(key).await.expect("child").key, key);
    let by_id = tree.which_child("a").await;
    assert!(
        matches!(by_id, Err(OperationError::Refused { refusal: Refusal::SimpleOneForOne, .. })),
        "{by_id:?}"
    );
}

pub(crate) async fn stop_with_a_reason() {
    let world = World::of(SupervisorSpec::default(), vec![permanent("a"), permanent("b")]).await;
    let report = world.tree.shutdown_as(Exit::Normal, Some("work done".to_owned())).await;
    assert_eq!(report.exit, Exit::Normal);
    assert_eq!(report.cause, Cause::Finished { reason: Some("work done".to_owned()) });
    assert_eq!(world.journal.take(), ["stop b", "stop a"]);

    let leaf = mock("leaf");
    let nested = supervisor(SupervisorSpec::default()).child(permanent("leaf"), leaf.clone());
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 1))
        .child(ChildSpec::supervisor("nested"), nested)
        .start()
        .await
        .expect("starts");
    tree.child_supervisor("nested").await.expect("a supervisor").shutdown_as(Exit::Normal, None).await;
    leaf.wait_for_start(2).await;
}

pub(crate) async fn stop_from_within() {
    let waits = task(|context| async move {
        context.stopped().await;
        std::future::pending().await
    });
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(with_shutdown(millis(3000), permanent("waits")), waits)
        .start()
        .await
        .expect("starts");
    let wait = tokio::time::timeout(Duration::from_secs(1), tree.shutdown()).await;
    assert!(wait.is_err(), "a timeout ends only the wait");
    assert_eq!(tree.ended().await.exit, Exit::Shutdown);
    assert_eq!(tree.shutdown().await.killed.len(), 1);
}

pub(crate) async fn intensity_check_is_unchanged() {
    crate::topics::exact_intensity_boundary().await;
}
