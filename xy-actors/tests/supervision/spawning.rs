//! What a start costs: one that is done at its first poll takes no task of its own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::runtime::Handle;
use xy_actors::child::{Child, StartContext, StartFuture, actor, task};
use xy_actors::policy::State;
use xy_actors::spec::{ChildSpec, Order, Strategy, SupervisorSpec};
use xy_actors::supervisor::{Supervisor, supervisor};
use xy_actors::testkit::{Journal, MockChild, MockStart};

use crate::support::flags;

const CHILDREN: usize = 100;

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Starts a supervisor of so many of these children at once; returns how many tasks came with it.
async fn tasks_of<C: Child>(child: impl Fn() -> C) -> (Supervisor, usize) {
    let before = alive_tasks();
    let spec = SupervisorSpec { order: Order::Concurrent, ..flags(Strategy::OneForOne, 1000) };
    let mut builder = Supervisor::builder(spec);
    for index in 0..CHILDREN {
        builder = builder.child(ChildSpec::worker(index.to_string()), child());
    }
    let tree = builder.start().await.expect("starts");
    (tree, alive_tasks() - before)
}

/// A mock that counts the tasks there are whenever it is started, and in which task it is.
struct Observing {
    mock: MockChild,
    seen: Arc<Mutex<Vec<(usize, tokio::task::Id)>>>,
}

impl Child for Observing {
    fn start(&self, context: StartContext) -> StartFuture {
        let seen = self.seen.clone();
        let start = self.mock.start(context);
        Box::pin(async move {
            seen.lock().expect("nobody panics").push((alive_tasks(), tokio::task::id()));
            start.await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_done_at_its_first_poll_spawns_no_task() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let journal = Journal::default();
    let observing = |index: usize| {
        let mock = MockChild::new(&index.to_string(), &journal);
        Observing { mock, seen: seen.clone() }
    };
    let (tree, tasks) = tasks_of(|| observing(0)).await;
    assert_eq!(tasks, 1, "the supervisor's");
    // Nor one that has ended meanwhile: all starts ran in the supervisor's own task, one after the other.
    let starts = std::mem::take(&mut *seen.lock().expect("nobody panics"));
    assert_eq!(starts, vec![starts[0]; CHILDREN]);

    let added = observing(1);
    let mock = added.mock.clone();
    tree.start_child(ChildSpec::worker("added"), added).await.expect("starts");
    mock.crash_and_restart("boom").await;
    let later = std::mem::take(&mut *seen.lock().expect("nobody panics"));
    assert_eq!(later, [starts[0]; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_not_done_at_its_first_poll_takes_a_task_until_it_is() {
    let tree = Supervisor::builder(SupervisorSpec::default()).start().await.expect("starts");
    let before = alive_tasks();
    let slow = MockChild::new("slow", &Journal::default());
    slow.always(MockStart::ReadyAfter(Duration::from_secs(1)));
    let starting = tokio::spawn({
        let (tree, slow) = (tree.clone(), slow.clone());
        async move { tree.start_child(ChildSpec::worker("slow"), slow).await }
    });
    slow.wait_for_start(1).await;
    assert_eq!(alive_tasks() - before, 2, "the caller's and the start's");
    starting.await.expect("is not aborted").expect("starts");
    assert_eq!(tree.which_child("slow").await.expect("child").state, State::Running);
    assert_eq!(alive_tasks(), before);
}

struct Idle;

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Idle {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_actor_a_task_and_a_nested_supervisor_are_one_task_each() {
    let (_tree, tasks) = tasks_of(|| {
        task(|context| async move {
            context.stopped().await;
            Ok(())
        })
    })
    .await;
    assert_eq!(tasks, CHILDREN + 1);
    let (_tree, tasks) = tasks_of(|| actor(|| (Idle, ()))).await;
    assert_eq!(tasks, CHILDREN + 1);
    let (_tree, tasks) = tasks_of(|| supervisor(SupervisorSpec::default())).await;
    assert_eq!(tasks, CHILDREN + 1);
}
