//! ractor actors as children.

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;
use xy_actors::child::actor;
use xy_actors::event::stream::EventCursor;
use xy_actors::exit::{Cause, Exit};
use xy_actors::policy::State;
use xy_actors::spec::{ChildSpec, RestartType, Strategy, SupervisorSpec};
use xy_actors::supervisor::{OperationError, StopOutcome, Supervisor};

use crate::events::until_path;
use crate::support::flags;

struct Worker {
    fails_to_start: bool,
    started: mpsc::Sender<ActorRef<Order>>,
    stopped: mpsc::Sender<()>,
}

enum Order {
    Fail,
    Panic,
    Finish(Option<String>),
}

#[cfg(feature = "cluster")]
impl ractor::Message for Order {}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Worker {
    type Msg = Order;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Order>, (): ()) -> Result<(), ActorProcessingErr> {
        if self.fails_to_start {
            return Err("no database".into());
        }
        self.started.try_send(myself)?;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Order>,
        order: Order,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Fail => Err("failed".into()),
            Order::Panic => panic!("panicked"),
            Order::Finish(reason) => {
                myself.stop(reason);
                Ok(())
            }
        }
    }

    async fn post_stop(&self, _: ActorRef<Order>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.stopped.try_send(())?;
        Ok(())
    }
}

struct Harness {
    tree: Supervisor,
    started: mpsc::Receiver<ActorRef<Order>>,
    stopped: mpsc::Receiver<()>,
}

async fn harness(restart: RestartType) -> Harness {
    let (started_sender, started) = mpsc::channel(16);
    let (stopped_sender, stopped) = mpsc::channel(16);
    let child = actor(move || {
        let (started, stopped) = (started_sender.clone(), stopped_sender.clone());
        (Worker { fails_to_start: false, started, stopped }, ())
    });
    let tree = Supervisor::builder(flags(Strategy::OneForOne, 5))
        .child(ChildSpec { restart, ..ChildSpec::worker("w") }, child)
        .start()
        .await
        .expect("starts");
    Harness { tree, started, stopped }
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_fails_or_panics_is_restarted_with_its_own_words_as_cause() {
    for (order, cause) in [(Order::Fail, "failed"), (Order::Panic, "panicked")] {
        let mut harness = harness(RestartType::Transient).await;
        let first = harness.started.recv().await.expect("starts");
        first.send_message(order).expect("lives");
        harness.started.recv().await.expect("starts again");
        until_path(&mut harness.tree.events(EventCursor::Seq(1)), "child_exited", "w").await;
        let child = harness.tree.which_child("w").await.expect("child");
        let last = child.last_exit.expect("exit");
        assert_eq!(last.report.exit, Exit::Abnormal);
        assert_eq!(last.report.cause, Cause::Error { message: cause.to_owned() });
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_transient_actor_counts_as_abnormal() {
    let mut harness = harness(RestartType::Transient).await;
    harness.started.recv().await.expect("starts").kill();
    harness.started.recv().await.expect("starts again");
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_stops_itself_ended_normally() {
    for reason in [None, Some("done".to_owned()), Some("shutdown".to_owned())] {
        let mut harness = harness(RestartType::Transient).await;
        let actor = harness.started.recv().await.expect("starts");
        actor.send_message(Order::Finish(reason)).expect("lives");
        until_path(&mut harness.tree.events(EventCursor::Seq(1)), "child_exited", "w").await;
        assert_eq!(harness.tree.which_child("w").await.expect("child").state, State::Stopped);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_and_a_shutdown_go_through_post_stop() {
    let mut first = harness(RestartType::Permanent).await;
    let StopOutcome::Stopped(report) = first.tree.stop("w", None).await.expect("stops") else { panic!() };
    assert_eq!(report.exit, Exit::Shutdown);
    first.stopped.recv().await.expect("post_stop ran");
    let mut second = harness(RestartType::Permanent).await;
    second.tree.shutdown().await;
    second.stopped.try_recv().expect("post_stop ran before the tree ended");
}

#[tokio::test(start_paused = true)]
async fn an_error_in_pre_start_is_a_failed_start_in_the_actors_own_words() {
    let (started, _starts) = mpsc::channel(1);
    let (stopped, _stops) = mpsc::channel(1);
    let child = actor(move || {
        (Worker { fails_to_start: true, started: started.clone(), stopped: stopped.clone() }, ())
    });
    let tree = Supervisor::builder(SupervisorSpec::default()).start().await.expect("starts");
    let error = tree.start_child(ChildSpec::worker("w"), child).await.expect_err("fails");
    let OperationError::StartFailed { cause, .. } = error else { panic!("{error:?}") };
    assert_eq!(cause, Cause::StartFailed { message: "no database".to_owned() });
}
