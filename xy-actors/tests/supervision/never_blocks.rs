//! One child hangs in its start for ever, one ignores its stop, one is in backoff: everything else is answered while no
//! virtual time passes.

use std::time::Duration;

use tokio::time::Instant;
use xy_actors::spec::{Backoff, ChildSpec, Order, Strategy, SupervisorSpec};
use xy_actors::supervisor::{StartOutcome, StopOutcome, Supervisor};
use xy_actors::testkit::{Journal, MockChild, MockStart, MockStop};

use crate::support::{flags, states};

#[tokio::test(start_paused = true)]
async fn every_query_and_every_operation_on_others_is_answered_at_once() {
    let journal = Journal::default();
    let mock = |name: &str| MockChild::new(name, &journal);
    let hangs = mock("hangs").starting([MockStart::Hang]);
    let stubborn = mock("stubborn").stopping(MockStop::Stubborn);
    let waits = mock("waits");
    let spec = SupervisorSpec { order: Order::Concurrent, ..flags(Strategy::OneForOne, 5) };
    let backoff = ChildSpec { backoff: Some(Backoff::default()), ..ChildSpec::worker("waits") };
    let tree = Supervisor::builder(spec)
        .child(ChildSpec::worker("hangs"), hangs)
        .child(ChildSpec::worker("stubborn"), stubborn)
        .child(backoff, waits.clone())
        .child(ChildSpec::worker("other"), mock("other"))
        .spawn()
        .await
        .expect("spawns");
    waits.wait_for_start(1).await;
    let before = Instant::now();
    waits.crash("boom");
    let stopping = tokio::spawn({
        let tree = tree.clone();
        async move { tree.stop("stubborn", None).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(states(&tree).await, "hangs:starting stubborn:stopping waits:restarting other:running");
    assert!(matches!(tree.restart("other", None).await, Ok(StartOutcome::Started { .. })));
    assert!(matches!(tree.stop("other", None).await, Ok(StopOutcome::Stopped(_))));
    assert!(matches!(tree.start("other", None).await, Ok(StartOutcome::Started { .. })));
    let added = tree.start_child(ChildSpec::worker("added"), mock("added")).await;
    assert!(matches!(added, Ok(StartOutcome::Started { .. })));
    assert!(matches!(tree.remove("added", None).await, Ok(StopOutcome::Stopped(_))));
    assert_eq!(tree.count_children().await.expect("counts").specs, 4);
    assert!(matches!(tree.stop("hangs", None).await, Ok(StopOutcome::Stopped(_))), "a start is called off");
    assert!(matches!(tree.start("waits", None).await, Ok(StartOutcome::Started { .. })));
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert!(matches!(stopping.await, Ok(Ok(StopOutcome::Stopped(_)))));
    assert_eq!(before.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn shutdown_during_a_hanging_start_and_a_backoff_ends_at_once() {
    let journal = Journal::default();
    let hangs = MockChild::new("hangs", &journal).starting([MockStart::Hang]);
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 5))
        .child(ChildSpec::worker("hangs"), hangs.clone())
        .spawn()
        .await
        .expect("spawns");
    hangs.wait_for_start(1).await;
    let before = Instant::now();
    tree.shutdown().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_while_the_tree_ends_gets_an_answer() {
    let journal = Journal::default();
    let slow = MockChild::new("slow", &journal).stopping(MockStop::After(Duration::from_secs(2)));
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 5))
        .child(ChildSpec::worker("slow"), slow)
        .start()
        .await
        .expect("starts");
    let ending = tokio::spawn({
        let tree = tree.clone();
        async move { tree.shutdown().await }
    });
    tokio::task::yield_now().await;
    assert_eq!(states(&tree).await, "slow:stopping");
    let refused = tree.start_child(ChildSpec::worker("late"), MockChild::new("late", &journal)).await;
    assert!(refused.is_err());
    assert!(matches!(tree.stop("slow", None).await, Ok(StopOutcome::Stopped(_))));
    ending.await.expect("ends");
}
