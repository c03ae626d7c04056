//! Many children: counts stay right, cost stays in proportion, nothing is kept longer than its child.

use std::sync::Arc;
use std::time::{Duration, Instant};

use xy_actors::exit::Exit;
use xy_actors::policy::ChildKey;
use xy_actors::spec::{ChildSpec, RestartType, Strategy, SupervisorSpec};
use xy_actors::supervisor::{StopOutcome, Template};
use xy_actors::testkit::{MockChild, MockStart, TestTree};

use crate::support::{flags, key, mock, permanent, pool, pool_of, started, temporary};

async fn counts_of_many(spec: ChildSpec, is_supervisor: bool) {
    let tree = pool(1).await;
    let mut keys = Vec::new();
    for total in [1000, 2000] {
        while keys.len() < total {
            keys.push(started(&tree, spec.clone(), &mock("child")).await);
        }
        for _ in 0..2 {
            let expected = if is_supervisor { [1, total, total, 0] } else { [1, total, 0, total] };
            assert_eq!(tree.counts().await, expected);
            assert_eq!(tree.which_children().await.expect("lives").len(), total);
        }
    }
    for key in keys {
        tree.terminate_child(key).await.expect("stops");
    }
    assert_eq!(tree.counts().await, [1, 0, 0, 0]);
}

pub(crate) async fn count_children() {
    counts_of_many(temporary("child"), false).await;
}

pub(crate) async fn count_children_supervisor() {
    let spec = ChildSpec { restart: RestartType::Temporary, ..ChildSpec::supervisor("child") };
    counts_of_many(spec, true).await;
}

pub(crate) async fn count_restarting_children() {
    let tree = pool(20).await;
    let mocks: Vec<MockChild> = ["a", "b", "c"].into_iter().map(mock).collect();
    let mut keys = Vec::new();
    for mock in &mocks {
        keys.push(started(&tree, permanent("child"), mock).await);
        mock.crash("once");
    }
    assert_eq!(tree.counts().await, [1, 3, 0, 3]);
    let slow_failure = MockStart::FailAfter(Duration::from_secs(2), "not now".to_owned());
    for mock in &mocks[..2] {
        mock.always(slow_failure.clone());
        mock.crash("again");
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let [specs, _, supervisors, workers] = tree.counts().await;
    assert_eq!([specs, supervisors, workers], [1, 0, 3], "restarting children count as workers");
    mocks[0].always(MockStart::Ready);
    mocks[1].always(MockStart::Ready);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(tree.counts().await, [1, 3, 0, 3]);
    for (left, key) in [2, 1, 0].into_iter().zip(keys) {
        tree.terminate_child(key).await.expect("stops");
        assert_eq!(tree.counts().await, [1, left, 0, left]);
    }
}

/// The argument of a child, and whether anything still holds on to it.
fn argument() -> (Arc<[u64]>, std::sync::Weak<[u64]>) {
    let argument: Arc<[u64]> = Arc::from(vec![0; 50_000]);
    let watched = Arc::downgrade(&argument);
    (argument, watched)
}

fn template(spec: ChildSpec, mock: MockChild) -> Template<Arc<[u64]>> {
    use xy_actors::child::{Child, StartContext, StartFuture};
    struct Holding(MockChild, #[expect(dead_code, reason = "only held on to")] Arc<[u64]>);
    impl Child for Holding {
        fn start(&self, context: StartContext) -> StartFuture {
            self.0.start(context)
        }
    }
    Template::new(spec, move |argument| Holding(mock.clone(), argument))
}

pub(crate) async fn simple_one_for_one_corruption() {
    let tree = pool(2).await;
    let child = mock("child");
    let template = template(temporary("child"), child.clone());
    for _ in 0..2 {
        let (argument, watched) = argument();
        key(template.start_child(&tree, argument).await);
        child.crash("boom");
        tree.count_children().await.expect("lives");
        assert!(watched.upgrade().is_none(), "the argument went with its child");
    }
}

pub(crate) async fn do_not_save_start_parameters_for_temporary_children() {
    for strategy in
        [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne, Strategy::SimpleOneForOne]
    {
        for (spec, kept) in [(temporary("child"), false), (permanent("child"), true)] {
            let tree = pool_of(flags(strategy, 2)).await;
            let child = mock("child");
            let (argument, watched) = argument();
            key(template(spec, child.clone()).start_child(&tree, argument).await);
            child.end(Exit::Normal);
            tree.count_children().await.expect("lives");
            assert_eq!(watched.upgrade().is_some(), kept, "{strategy:?}");
        }
    }
}

async fn fill(tree: &TestTree, count: usize) -> Vec<ChildKey> {
    let mut keys = Vec::with_capacity(count);
    for n in 0..count {
        let spec = temporary(&format!("child{n}"));
        keys.push(started(tree, spec, &mock("child")).await);
    }
    keys
}

async fn time_to_end(tree: &TestTree, keys: Vec<ChildKey>) -> Duration {
    let before = Instant::now();
    for key in keys {
        assert!(matches!(tree.terminate_child(key).await, Ok(StopOutcome::Stopped(_))));
    }
    before.elapsed()
}

/// Generous, as the machine may be busy; a cost that grows with the number of children exceeds it by far.
fn in_proportion(few: Duration, many: Duration, times: u32) -> bool {
    many < few.max(Duration::from_millis(5)) * times * 5
}

pub(crate) async fn simple_one_for_one_scale_many_temporary_children() {
    let tree = pool(1).await;
    let few = fill(&tree, 1000).await;
    let few = time_to_end(&tree, few).await;
    let many = fill(&tree, 10_000).await;
    let many = time_to_end(&tree, many).await;
    assert!(in_proportion(few, many, 10), "{few:?} for a thousand, {many:?} for ten thousand");
}

pub(crate) async fn scale_start_stop_many_children() {
    let tree = pool_of(SupervisorSpec::default()).await;
    let before = Instant::now();
    let few = fill(&tree, 1000).await;
    let start_few = before.elapsed();
    let stop_few = time_to_end(&tree, few).await;
    let before = Instant::now();
    let many = fill(&tree, 10_000).await;
    let start_many = before.elapsed();
    let stop_many = time_to_end(&tree, many).await;
    assert!(in_proportion(start_few, start_many, 10), "start: {start_few:?}, {start_many:?}");
    assert!(in_proportion(stop_few, stop_many, 10), "stop: {stop_few:?}, {stop_many:?}");
}
