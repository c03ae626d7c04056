//! What xy adds to OTP's calls, so that it belongs to no row: waiting, looking up by path, and the test kit's own words.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use xy_actors::child::actor;
use xy_actors::exit::{Cause, Exit};
use xy_actors::policy::{Refusal, State};
use xy_actors::spec::{ChildSpec, Strategy, SupervisorSpec};
use xy_actors::supervisor::{OperationError, SignalError, Supervisor, supervisor};
use xy_actors::testkit::{MockStop, TestTree};

use crate::support::{World, flags, mock, permanent, pool, started, temporary, transient};

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_the_child_is_as_wanted_is_gone_or_its_supervisor_is() {
    let world = World::of(SupervisorSpec::default(), vec![transient("a"), temporary("b")]).await;
    let (stopped, ()) = tokio::join!(
        world.tree.wait_for("a", |child| child.state == State::Stopped),
        world.end("a", Exit::Normal),
    );
    assert_eq!(stopped.expect("stops").last_exit.expect("an exit").report.exit, Exit::Normal);
    let (gone, ()) = tokio::join!(world.tree.wait_for("b", |_| false), world.end("b", Exit::Normal));
    assert_eq!(gone, Err(OperationError::NotFound("b".into())));
    let (ended, _report) = tokio::join!(world.tree.wait_for("a", |_| false), world.tree.shutdown());
    assert_eq!(ended, Err(OperationError::SupervisorGone));
}

#[tokio::test(start_paused = true)]
async fn waiting_under_a_nested_supervisor_ends_when_that_is_killed() {
    let nested = supervisor(SupervisorSpec::default()).child(permanent("leaf"), mock("leaf"));
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(ChildSpec::supervisor("nested"), nested)
        .start()
        .await
        .expect("starts");
    let nested = tree.child_supervisor("nested").await.expect("a supervisor");
    let (waited, _report) = tokio::join!(nested.wait_for("leaf", |_| false), nested.kill());
    assert_eq!(waited, Err(OperationError::SupervisorGone));
}

#[tokio::test(start_paused = true)]
async fn a_path_leads_to_a_child_and_its_owner_or_says_where_it_breaks() {
    let nested = supervisor(SupervisorSpec::default()).child(permanent("leaf"), mock("leaf"));
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(ChildSpec::supervisor("group"), nested)
        .child(permanent("worker"), mock("worker"))
        .start()
        .await
        .expect("starts");
    let (owner, leaf) = tree.lookup("group/leaf").await.expect("is there");
    assert_eq!((owner.path().as_str(), leaf.path.as_str()), ("group", "group/leaf"));
    owner.terminate_child(leaf.key).await.expect("the owner's key");
    let (owner, worker) = tree.lookup("worker").await.expect("is there");
    assert_eq!((owner.path().as_str(), worker.id.as_str()), ("", "worker"));
    for (path, missing) in
        [("group/none", "none"), ("none/leaf", "none"), ("worker/leaf", "worker"), ("", "")]
    {
        assert_eq!(
            tree.lookup(path).await.map(drop),
            Err(OperationError::NotFound(missing.into())),
            "{path}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_to_ask_decides_how_a_supervisor_ends() {
    let world = World::scripted(SupervisorSpec::default(), vec![permanent("slow")], |mock| {
        mock.stopping(MockStop::After(Duration::from_secs(1)))
    })
    .await;
    let (first, second) = tokio::join!(
        world.tree.shutdown_as(Exit::Normal, Some("first".to_owned())),
        world.tree.shutdown_as(Exit::Abnormal, Some("second".to_owned())),
    );
    assert_eq!(first, second);
    assert_eq!(first.exit, Exit::Normal);
    assert_eq!(first.cause, Cause::Finished { reason: Some("first".to_owned()) });
}

#[tokio::test(start_paused = true)]
async fn children_of_a_pool_have_no_ids_whatever_is_asked() {
    let tree = pool(1).await;
    let key = started(&tree, permanent("child"), &mock("child")).await;
    let by_id = [
        tree.which_child("child").await.map(drop),
        tree.child_spec("child").await.map(drop),
        tree.child_supervisor("child").await.map(drop),
        tree.stop("child", None).await.map(drop),
        tree.pause("child", None).await,
    ];
    for result in by_id {
        let refused =
            matches!(result, Err(OperationError::Refused { refusal: Refusal::SimpleOneForOne, .. }));
        assert!(refused, "{result:?}");
    }
    assert!(matches!(tree.signal("child", 15).await, Err(SignalError::SimpleOneForOne(_))));
    assert!(matches!(tree.signal(key, 15).await, Err(SignalError::NoProcess(_))));
    tree.pause(key, None).await.expect("by key");
    tree.stop(key, None).await.expect("by key");
    assert_eq!(tree.counts().await, [1, 0, 0, 0]);
}

/// An actor that knows which tree it is of.
struct Clerk(&'static str);

enum Order {
    Name(RpcReplyPort<&'static str>),
    Fail,
}

#[cfg(feature = "cluster")]
impl ractor::Message for Order {}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Clerk {
    type Msg = Order;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Order>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Order>, order: Order, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Name(reply) => Ok(reply.send(self.0)?),
            Order::Fail => Err("told to".into()),
        }
    }
}

async fn tree_of_clerks(name: &'static str) -> TestTree {
    let clerk = move || actor(move || (Clerk(name), ()));
    let group = supervisor(flags(Strategy::OneForOne, 5)).child(permanent("clerk"), clerk());
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 5))
        .child(permanent("clerk"), clerk())
        .child(ChildSpec::supervisor("group"), group);
    TestTree::new(tree.start().await.expect("starts"))
}

#[tokio::test(start_paused = true)]
async fn two_trees_with_equal_names_never_meet() {
    let (mut first, mut second) = (tree_of_clerks("first").await, tree_of_clerks("second").await);
    let name = async |tree: &TestTree, path: &str| {
        tree.addr(path).call(Duration::from_secs(1), Order::Name).await.map_err(drop)
    };
    assert_eq!(first.happened(), second.happened(), "they are alike");
    for path in ["clerk", "group/clerk"] {
        assert_eq!((name(&first, path).await, name(&second, path).await), (Ok("first"), Ok("second")));
        first.addr(path).send(Order::Fail).await.expect("lives");
        first.expect("child_ready", path).await;
        assert_eq!((name(&first, path).await, name(&second, path).await), (Ok("first"), Ok("second")));
    }
    let key = first.which_child("clerk").await.expect("child").key;
    assert_eq!(second.which_child("clerk").await.expect("child").key, key, "keys are the tree's own too");
    first.terminate_child(key).await.expect("stops");
    first.child_supervisor("group").await.expect("a supervisor").kill().await;
    first.expect("child_ready", "group").await;
    assert_eq!(first.shutdown().await.exit, Exit::Shutdown);
    assert_eq!(name(&first, "clerk").await, Err(()));
    assert_eq!(second.happened(), [""; 0], "none of all that");
    let last = second.event_log().latest();
    assert_eq!(second.states().await, "clerk:running group:running");
    let (_, leaf) = second.lookup("group/clerk").await.expect("is there");
    assert_eq!((leaf.incarnation.get(), leaf.restarts), (1, 0));
    assert_eq!(name(&second, "group/clerk").await, Ok("second"));
    second.addr("clerk").send(Order::Fail).await.expect("lives");
    let event = second.expect("child_exited", "clerk").await;
    assert_eq!(event.seq, last + 1, "numbered by their own tree");
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "`child_exited a` did not come, only [\"child_starting a\"")]
async fn an_expectation_that_is_not_met_says_what_came_instead() {
    let tree = Supervisor::builder(SupervisorSpec::default()).child(permanent("a"), mock("a"));
    TestTree::new(tree.start().await.expect("starts")).expect("child_exited", "a").await;
}
