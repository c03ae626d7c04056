//! One child hangs in its start for ever, one ignores its stop, one is in backoff: everything else is answered while no
//! virtual time passes.

use std::time::Duration;

use tokio::time::Instant;
use xy_actors::event::stream::EventCursor;
use xy_actors::policy::State;
use xy_actors::spec::{Backoff, ChildSpec, Order, Strategy, SupervisorSpec};
use xy_actors::supervisor::{OperationError, SignalError, StartOutcome, StopOutcome, Supervisor, supervisor};
use xy_actors::testkit::{Journal, MockChild, MockStart, MockStop};

use crate::support::{flags, states};

/// A tree with a child that hangs in its start, one that ignores its stop and one in backoff, beside one to work on.
async fn troubled(order: Order, journal: &Journal) -> Supervisor {
    let mock = |name: &str| MockChild::new(name, journal);
    let hangs = mock("hangs").starting([MockStart::Hang]);
    let stubborn = mock("stubborn").stopping(MockStop::Stubborn);
    let waits = mock("waits");
    let backoff = ChildSpec { backoff: Some(Backoff::default()), ..ChildSpec::worker("waits") };
    let nested = supervisor(SupervisorSpec::default()).child(ChildSpec::worker("leaf"), mock("leaf"));
    let tree = Supervisor::builder(SupervisorSpec { order, ..flags(Strategy::OneForOne, 5) })
        .child(ChildSpec::worker("stubborn"), stubborn)
        .child(backoff, waits.clone())
        .child(ChildSpec::worker("other"), mock("other"))
        .child(ChildSpec::supervisor("group"), nested)
        .child(ChildSpec::worker("hangs"), hangs.clone())
        .spawn()
        .await
        .expect("spawns");
    hangs.wait_for_start(1).await;
    tree.wait_for("group", |child| child.ready).await.expect("starts");
    waits.crash("boom");
    let stopping = tree.clone();
    tokio::spawn(async move { stopping.stop("stubborn", None).await });
    tokio::task::yield_now().await;
    assert_eq!(states(&tree).await, TROUBLE);
    tree
}

const TROUBLE: &str = "stubborn:stopping waits:restarting other:running group:running hangs:starting";

const ORDERS: [Order; 2] = [Order::Ordered, Order::Concurrent];

#[tokio::test(start_paused = true)]
async fn every_query_about_every_child_is_answered_at_once() {
    for order in ORDERS {
        let tree = troubled(order, &Journal::default()).await;
        let before = Instant::now();
        for id in ["stubborn", "waits", "other", "group", "hangs"] {
            assert_eq!(tree.which_child(id).await.expect("child").id.as_str(), id);
            let (info, history) = tree.which_child_with_history(id).await.expect("child");
            assert_eq!(history.transitions.last().expect("it moved").to, info.state);
            assert_eq!(tree.child_spec(id).await.expect("child").id.as_str(), id);
            assert_eq!(tree.lookup(id).await.expect("child").1.id.as_str(), id);
            let now = tree.wait_for(id, |child| child.state == info.state).await;
            assert_eq!(now.expect("child").state, info.state);
            assert_eq!(tree.child_supervisor(id).await.is_ok(), id == "group");
            assert!(matches!(
                tree.signal(id, 0).await,
                Err(SignalError::NoProcess(_) | SignalError::NotRunning(_))
            ));
        }
        assert_eq!(tree.lookup("group/leaf").await.expect("leaf").1.state, State::Running);
        assert_eq!(tree.which_children().await.expect("lives").len(), 5);
        assert_eq!(tree.count_children().await.expect("lives").specs, 5);
        assert!(tree.events(EventCursor::Seq(1)).next().await.is_some());
        assert!(matches!(tree.which_child("nobody").await, Err(OperationError::NotFound(_))));
        assert_eq!(states(&tree).await, TROUBLE);
        assert_eq!(before.elapsed(), Duration::ZERO);
        tree.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_operation_on_others_is_answered_at_once() {
    for order in ORDERS {
        let journal = Journal::default();
        let tree = troubled(order, &journal).await;
        let before = Instant::now();
        for child in ["other", "group"] {
            assert!(matches!(tree.restart(child, None).await, Ok(StartOutcome::Started { .. })));
            assert!(matches!(tree.stop(child, None).await, Ok(StopOutcome::Stopped(_))));
            assert!(matches!(tree.start(child, None).await, Ok(StartOutcome::Started { .. })));
            assert!(matches!(tree.terminate_child(child).await, Ok(StopOutcome::Stopped(_))));
            assert!(matches!(tree.restart_child(child).await, Ok(StartOutcome::Started { .. })));
            tree.pause(child, None).await.expect("pauses");
            tree.resume(child, None).await.expect("resumes");
        }
        tree.update(ChildSpec::worker("other"), None).await.expect("updates");
        for name in ["added", "again"] {
            let added = tree.start_child(ChildSpec::worker(name), MockChild::new(name, &journal)).await;
            assert!(matches!(added, Ok(StartOutcome::Started { .. })));
        }
        assert!(matches!(tree.remove("added", None).await, Ok(StopOutcome::Stopped(_))));
        assert!(matches!(tree.terminate_child("again").await, Ok(StopOutcome::Stopped(_))));
        tree.delete_child("again").await.expect("is gone");
        assert_eq!(states(&tree).await, TROUBLE);
        assert_eq!(before.elapsed(), Duration::ZERO);
        tree.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_hangs_or_waits_can_itself_be_paused_updated_started_and_called_off_at_once() {
    for order in ORDERS {
        let tree = troubled(order, &Journal::default()).await;
        let before = Instant::now();
        for id in ["stubborn", "waits", "hangs"] {
            tree.update(ChildSpec::worker(id), None).await.expect("updates");
            tree.pause(id, None).await.expect("pauses");
            tree.resume(id, None).await.expect("resumes");
        }
        assert!(matches!(tree.restart_child("hangs").await, Err(OperationError::Refused { .. })));
        assert!(matches!(tree.delete_child("stubborn").await, Err(OperationError::Refused { .. })));
        assert!(
            matches!(tree.stop("hangs", None).await, Ok(StopOutcome::Stopped(_))),
            "a start is called off"
        );
        assert!(matches!(tree.start("waits", None).await, Ok(StartOutcome::AlreadyRunning)));
        assert!(
            matches!(tree.start("hangs", None).await, Ok(StartOutcome::Started { .. })),
            "the second start works"
        );
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert!(matches!(tree.stop("stubborn", None).await, Ok(StopOutcome::Stopped(_))));
        assert_eq!(before.elapsed(), Duration::from_secs(5), "a kill ends the stubborn one in its time");
        tree.shutdown().await;
    }
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
