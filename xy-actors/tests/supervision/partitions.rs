//! Partitions of a running tree: keys, addresses and a changing number.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use xy_actors::child::{Child, StartContext, StartFuture};
use xy_actors::spec::{ChildSpec, Strategy};
use xy_actors::supervisor::{
    CallError, OperationError, Partitioned, Partitions, ResizeError, Supervisor, Unreachable, WhileDown,
};
use xy_actors::testkit::{Journal, MockChild, MockStart, TestTree};

use crate::addresses::{Order, clerk, which};
use crate::support::{flags, states};

async fn clerks(partitions: &Partitions) -> (Supervisor, Partitioned) {
    let clerks = partitions.supervisor(ChildSpec::worker("clerk"), |_| clerk());
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 100))
        .child(ChildSpec::supervisor("clerks"), clerks)
        .start()
        .await
        .expect("starts");
    let routes = partitions.at(&tree, "clerks");
    (tree, routes)
}

#[tokio::test(start_paused = true)]
async fn the_address_of_a_key_survives_restarts_of_its_partition_and_of_all() {
    let partitions = Partitions::new(2);
    let (tree, routes) = clerks(&partitions).await;
    let clerks = routes.addresses::<Order>(WhileDown::Wait { limit: Duration::from_secs(1) });
    let (first, second) =
        (clerks.of_number(0).expect("an address"), clerks.of_number(1).expect("an address"));
    assert_eq!((which(first).await, which(second).await), (Ok(1), Ok(1)));
    first.send(Order::Fail("told to")).await.expect("lives");
    // Answered by the next incarnation, or met by the crash of the first.
    while which(first).await != Ok(2) {}
    assert_eq!(which(second).await, Ok(1), "the other one is none of its business");
    tree.restart("clerks", None).await.expect("is restarted");
    assert_eq!((which(first).await, which(second).await), (Ok(3), Ok(2)));
    let key = clerks.of("user 17").expect("an address");
    assert_eq!(key.child(), &format!("clerks/{}", partitions.partition_of("user 17").expect("some")).into());
}

#[tokio::test(start_paused = true)]
async fn keys_follow_the_number_of_partitions() {
    let partitions = Partitions::new(2);
    let (_tree, routes) = clerks(&partitions).await;
    let clerks = routes.addresses::<Order>(WhileDown::Reject);
    let last = clerks.of_number(1).expect("an address").clone();
    routes.resize(1).await.expect("shrinks");
    assert_eq!(clerks.all().len(), 1);
    assert_eq!(clerks.of_number(1).expect("an address").child(), &"clerks/0".into());
    assert_eq!(which(clerks.of_number(1).expect("an address")).await, Ok(1));
    assert_eq!(which(&last).await, Err(CallError::NotSent(Unreachable::Down("clerks/1".into()))));
    routes.resize(2).await.expect("grows");
    assert_eq!(which(&last).await, Ok(2));
    routes.resize(0).await.expect("shrinks");
    assert!(clerks.of("key").is_none() && clerks.of_number(1).is_none() && clerks.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_root_can_be_partitioned_by_its_own_handle() {
    let partitions = Partitions::new(2);
    let (_tree, routes) = clerks(&partitions).await;
    let owner = routes.supervisor().await.expect("a supervisor");
    let direct = partitions.at(&owner, "");
    let clerks = direct.addresses::<Order>(WhileDown::Reject);
    assert_eq!(which(clerks.of_number(1).expect("an address")).await, Ok(1));
    direct.resize(1).await.expect("shrinks");
    assert_eq!(states(&owner).await, "0:running 1:stopped");
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_does_not_start_again_is_not_used() {
    let journal = Journal::default();
    let mocks = ["0", "1", "2"].map(|name| MockChild::new(name, &journal));
    let partitions = Partitions::new(3);
    let copies = partitions.supervisor(ChildSpec::worker("copy"), |number| mocks[number].clone());
    let tree =
        Supervisor::builder(flags(Strategy::OneForOne, 1)).child(ChildSpec::supervisor("copies"), copies);
    let tree = TestTree::new(tree.start().await.expect("starts"));
    let routes = partitions.at(&tree, "copies");
    routes.resize(0).await.expect("shrinks");
    mocks[1].always(MockStart::Fail("no disk".to_owned()));
    let error = routes.resize(3).await.expect_err("one does not start");
    assert!(matches!(error, ResizeError::Operation(OperationError::StartFailed { .. })), "{error:?}");
    assert_eq!(partitions.len(), 1);
    let owner = routes.supervisor().await.expect("a supervisor");
    assert_eq!(states(&owner).await, "0:running 1:stopped 2:stopped");
    mocks[1].always(MockStart::Ready);
    routes.resize(3).await.expect("grows");
    assert_eq!((partitions.len(), states(&owner).await.as_str()), (3, "0:running 1:running 2:running"));
}

#[tokio::test(start_paused = true)]
async fn a_resize_that_was_cut_short_can_be_made_good() {
    let hanging = MockChild::new("1", &Journal::default());
    let partitions = Partitions::new(2);
    let copy = hanging.clone();
    let copies = partitions.supervisor(ChildSpec::worker("copy"), move |_| copy.clone());
    let tree =
        Supervisor::builder(flags(Strategy::OneForOne, 1)).child(ChildSpec::supervisor("copies"), copies);
    let tree = tree.start().await.expect("starts");
    let routes = partitions.at(&tree, "copies");
    routes.resize(1).await.expect("shrinks");
    hanging.always(MockStart::Hang);
    let cut = tokio::time::timeout(Duration::from_secs(1), routes.resize(2)).await;
    assert!(cut.is_err());
    routes.resize(1).await.expect("shrinks");
    let owner = routes.supervisor().await.expect("a supervisor");
    assert_eq!((partitions.len(), states(&owner).await.as_str()), (1, "0:running 1:stopped"));
}

/// A child whose recipe notes that it was asked to begin.
struct Noted(Arc<AtomicBool>, MockChild);

impl Child for Noted {
    fn start(&self, context: StartContext) -> StartFuture {
        self.0.store(true, Ordering::Relaxed);
        self.1.start(context)
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_restart_does_not_begin_partitions_that_are_not_in_use() {
    let begun = Arc::new(AtomicBool::new(false));
    let mock = MockChild::new("copy", &Journal::default());
    let partitions = Partitions::new(2);
    let (noted, copy) = (begun.clone(), mock.clone());
    let copies = partitions
        .supervisor_with(flags(Strategy::OneForAll, 5), ChildSpec::worker("copy"), move |number| {
            Noted(if number == 1 { noted.clone() } else { Arc::default() }, copy.clone())
        })
        .expect("valid flags");
    let tree =
        Supervisor::builder(flags(Strategy::OneForOne, 1)).child(ChildSpec::supervisor("copies"), copies);
    let tree = tree.start().await.expect("starts");
    partitions.at(&tree, "copies").resize(1).await.expect("shrinks");
    assert!(begun.swap(false, Ordering::Relaxed));
    let owner = tree.supervisor_at("copies").await.expect("a supervisor");
    owner.restart("0", None).await.expect("is restarted");
    mock.crash("boom");
    owner.wait_for("0", |child| child.incarnation.get() == 3 && child.ready).await.expect("comes back");
    assert!(!begun.load(Ordering::Relaxed));
    assert_eq!(states(&owner).await, "0:running 1:stopped");
}
