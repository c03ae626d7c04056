//! What a start is told of where it is: the addresses of siblings, the supervisor and the root.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::mpsc;
use tokio::time::Instant;
use xy_actors::child::{Child, StartContext, actor_with, task};
use xy_actors::spec::{ChildSpec, Order, Strategy, SupervisorSpec};
use xy_actors::supervisor::{
    Address, CallError, OperationError, Supervisor, Unreachable, WhileDown, supervisor,
};

use crate::support::flags;

const SECOND: Duration = Duration::from_secs(1);

/// An actor that knows which start of its child it is, and another one.
struct Peer {
    start: u64,
    other: Address<Ask>,
}

enum Ask {
    /// Which start are you?
    Which(RpcReplyPort<u64>),
    /// Which start is the other one?
    Other(RpcReplyPort<Result<u64, CallError>>),
    Fail,
}

#[cfg(feature = "cluster")]
impl ractor::Message for Ask {}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Peer {
    type Msg = Ask;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Ask>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Ask>, ask: Ask, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match ask {
            Ask::Which(reply) => reply.send(self.start)?,
            Ask::Other(reply) => reply.send(self.other.call(SECOND, Ask::Which).await)?,
            Ask::Fail => return Err("told to fail".into()),
        }
        Ok(())
    }
}

/// An actor that takes an address in each start.
fn peer(other: impl Fn(&StartContext) -> Address<Ask> + Send + Sync + 'static) -> impl Child {
    let starts = AtomicU64::new(0);
    actor_with(move |context| {
        let start = starts.fetch_add(1, Ordering::Relaxed) + 1;
        (Peer { start, other: other(context) }, ())
    })
}

fn to(sibling: &'static str) -> impl Child {
    peer(move |context| context.addr(sibling))
}

/// Says which start of a child the actor at this path reaches.
async fn reached_by(tree: &Supervisor, path: &str) -> Result<u64, CallError> {
    let waits = tree.addr::<Ask>(path).while_down(WhileDown::Wait { limit: SECOND });
    waits.call(SECOND, Ask::Other).await.expect("lives")
}

/// Makes the child fail and waits until another incarnation of its supervisor or of itself is ready.
async fn fail(tree: &Supervisor, path: &str) {
    let address = tree.addr(path).while_down(WhileDown::Wait { limit: SECOND });
    let before = address.actor().await.expect("lives");
    address.send(Ask::Fail).await.expect("lives");
    before.get_cell().wait(None).await.expect("ends");
    address.actor().await.expect("comes back");
}

#[tokio::test(start_paused = true)]
async fn initial_children_know_each_other_whichever_of_them_is_restarted() {
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 100))
        .child(ChildSpec::worker("first"), to("second"))
        .child(ChildSpec::worker("second"), to("first"))
        .start()
        .await
        .expect("starts");
    assert_eq!((reached_by(&tree, "first").await, reached_by(&tree, "second").await), (Ok(1), Ok(1)));
    fail(&tree, "second").await;
    assert_eq!((reached_by(&tree, "first").await, reached_by(&tree, "second").await), (Ok(2), Ok(1)));
    fail(&tree, "first").await;
    assert_eq!((reached_by(&tree, "first").await, reached_by(&tree, "second").await), (Ok(2), Ok(2)));
}

/// Two actors that know each other, in a supervisor that gives up at their first crash and is restarted.
async fn pair_in_a_group() -> Supervisor {
    let group = supervisor(flags(Strategy::OneForOne, 0))
        .child(ChildSpec::worker("first"), to("second"))
        .child(ChildSpec::worker("second"), to("first"));
    Supervisor::builder(flags(Strategy::OneForOne, 100))
        .child(ChildSpec::supervisor("group"), group)
        .start()
        .await
        .expect("starts")
}

#[tokio::test(start_paused = true)]
async fn siblings_know_each_other_after_a_restart_of_their_supervisor() {
    let tree = pair_in_a_group().await;
    for start in 1..=3 {
        for path in ["group/first", "group/second"] {
            assert_eq!(reached_by(&tree, path).await, Ok(start), "{path}");
        }
        fail(&tree, "group/first").await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_from_the_root_outlives_the_supervisor_of_whoever_took_it() {
    let (taken, mut addresses) = mpsc::channel(1);
    let taker = task(move |context| {
        let (taken, parent) = (taken.clone(), context.addr::<Ask>("peer"));
        let root = context.root().addr::<Ask>("group/peer");
        async move {
            taken.send((parent, root)).await?;
            context.stopped().await;
            Ok(())
        }
    });
    let group = supervisor(flags(Strategy::OneForOne, 0))
        .child(ChildSpec::worker("peer"), to("peer"))
        .child(ChildSpec::worker("taker"), taker);
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 100))
        .child(ChildSpec::supervisor("group"), group)
        .start()
        .await
        .expect("starts");
    let (parent, root) = addresses.recv().await.expect("two addresses");
    assert_eq!((parent.call(SECOND, Ask::Which).await, root.call(SECOND, Ask::Which).await), (Ok(1), Ok(1)));
    fail(&tree, "group/peer").await;
    assert_eq!(root.call(SECOND, Ask::Which).await, Ok(2));
    let gone = CallError::NotSent(Unreachable::SupervisorGone);
    assert_eq!(parent.call(SECOND, Ask::Which).await, Err(gone));
    let (parent, _root) = addresses.recv().await.expect("two more");
    assert_eq!(parent.call(SECOND, Ask::Which).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn parent_and_root_are_the_supervisors_above_a_child_at_any_depth() {
    let (told, mut paths) = mpsc::channel(8);
    let leaf = move || {
        let told = told.clone();
        task(move |context| {
            let (told, own) = (told.clone(), context.path().to_string());
            let (parent, root) = (context.parent().clone(), context.root().clone());
            async move {
                // Each is a handle that works, not only a name.
                let siblings = parent.count_children().await?.specs;
                let top = root.count_children().await?.specs;
                told.send(format!("{own}: `{}` {siblings}, `{}` {top}", parent.path(), root.path())).await?;
                context.stopped().await;
                Ok(())
            }
        })
    };
    let inner = supervisor(SupervisorSpec::default()).child(ChildSpec::worker("leaf"), leaf());
    let outer = supervisor(SupervisorSpec::default())
        .child(ChildSpec::worker("leaf"), leaf())
        .child(ChildSpec::supervisor("inner"), inner);
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(ChildSpec::worker("leaf"), leaf())
        .child(ChildSpec::worker("leaf2"), leaf())
        .child(ChildSpec::supervisor("outer"), outer)
        .start()
        .await
        .expect("starts");
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(paths.recv().await.expect("a path"));
    }
    seen.sort_unstable();
    let expected = [
        "leaf2: `` 3, `` 3",
        "leaf: `` 3, `` 3",
        "outer/inner/leaf: `outer/inner` 1, `` 3",
        "outer/leaf: `outer` 2, `` 3",
    ];
    assert_eq!(seen, expected);
    tree.shutdown().await;
}

/// An actor that uses an address in its `pre_start`, and says what came of it.
struct Early {
    other: Address<Ask>,
    outcomes: mpsc::Sender<Result<u64, CallError>>,
}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Early {
    type Msg = Ask;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Ask>, (): ()) -> Result<(), ActorProcessingErr> {
        self.outcomes.send(self.other.call(60 * SECOND, Ask::Which).await).await?;
        Ok(())
    }
}

/// Starts an actor between two others, which asks one of them in its `pre_start`.
async fn asked_in_pre_start(order: Order, sibling: &'static str, down: WhileDown) -> Result<u64, CallError> {
    let (told, mut outcomes) = mpsc::channel(1);
    let early = actor_with(move |context| {
        (Early { other: context.addr(sibling).while_down(down), outcomes: told.clone() }, ())
    });
    let tree = Supervisor::builder(SupervisorSpec { order, ..SupervisorSpec::default() })
        .child(ChildSpec::worker("before"), to("after"))
        .child(ChildSpec::worker("early"), early)
        .child(ChildSpec::worker("after"), to("before"))
        .start()
        .await
        .expect("starts");
    assert!(tree.shutdown().await.is_clean());
    outcomes.recv().await.expect("an outcome")
}

#[tokio::test(start_paused = true)]
async fn a_sibling_asked_in_pre_start_answers_if_it_started_before_and_is_down_if_not() {
    let down = Err(CallError::NotSent(Unreachable::Down("after".into())));
    let begun = Instant::now();
    for order in [Order::Ordered, Order::Concurrent] {
        assert_eq!(asked_in_pre_start(order, "before", WhileDown::Reject).await, Ok(1));
    }
    assert_eq!(asked_in_pre_start(Order::Ordered, "after", WhileDown::Reject).await, down);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // It cannot come before the one that waits for it is ready: no deadlock, but the whole limit.
    let wait = WhileDown::Wait { limit: 7 * SECOND };
    assert_eq!(asked_in_pre_start(Order::Ordered, "after", wait).await, down);
    assert_eq!(begun.elapsed(), 7 * SECOND);
    // Where nobody waits for anybody, it does come.
    assert_eq!(asked_in_pre_start(Order::Concurrent, "after", wait).await, Ok(1));
    assert_eq!(begun.elapsed(), 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn handles_kept_by_children_and_recipes_keep_no_tree_alive() {
    let held = Arc::new(());
    let kept: Arc<Mutex<Vec<Supervisor>>> = Arc::default();
    let leaf = || {
        // A circle through the recipe: it holds the handles of the supervisors that hold it.
        let (held, kept) = (held.clone(), kept.clone());
        peer(move |context| {
            let _held = &held;
            kept.lock().expect("no panic").extend([context.parent().clone(), context.root().clone()]);
            context.root().addr("group/leaf")
        })
    };
    let group = supervisor(SupervisorSpec::default()).child(ChildSpec::worker("leaf"), leaf());
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(ChildSpec::supervisor("group"), group)
        .child(ChildSpec::worker("leaf"), leaf())
        .start()
        .await
        .expect("starts");
    assert_eq!(reached_by(&tree, "leaf").await, Ok(1));
    assert!(Arc::strong_count(&held) > 1);
    tree.shutdown().await;
    let handles = kept.lock().expect("no panic").clone();
    for handle in handles {
        assert_eq!(handle.count_children().await, Err(OperationError::SupervisorGone));
    }
    assert_eq!(Arc::strong_count(&held), 1, "recipes are gone with the tree, whoever has a handle of it");
}
