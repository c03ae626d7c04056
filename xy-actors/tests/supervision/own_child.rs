//! A kind of child that xy does not know.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use xy_actors::child::{Child, Running, StartContext, StartError, StartFuture, Started};
use xy_actors::exit::{Cause, Exit, ExitReport};
use xy_actors::policy::State;
use xy_actors::spec::{ChildSpec, RestartType, Shutdown, SupervisorSpec};
use xy_actors::supervisor::{StopOutcome, Supervisor};

/// A thread that does what it is told.
#[derive(Clone, Default)]
struct Thread(Arc<Mutex<Option<Sender<Order>>>>);

enum Order {
    Return(Result<(), String>),
    Panic,
    DropGuard,
    Stop,
}

impl Child for Thread {
    fn start(&self, context: StartContext) -> StartFuture {
        let (orders, received) = channel();
        *self.0.lock().expect("no panic") = Some(orders.clone());
        Box::pin(async move {
            let exit = context.reporter.guard();
            let run = move || match next(&received) {
                Order::Return(result) => exit.exited(ExitReport::of_result(result)),
                Order::Panic => panic!("told to"),
                Order::DropGuard => drop(exit),
                Order::Stop => exit.exited(ExitReport::of_result(Ok::<(), String>(()))),
            };
            std::thread::Builder::new().spawn(run).map_err(StartError::failed)?;
            Ok(Started::Ready(Box::new(RunningThread(orders))))
        })
    }
}

fn next(orders: &Receiver<Order>) -> Order {
    orders.recv().unwrap_or(Order::DropGuard)
}

struct RunningThread(Sender<Order>);

impl Running for RunningThread {
    fn stop(&mut self) {
        drop(self.0.send(Order::Stop));
    }

    fn kill(&mut self) {}
}

/// Starts a tree with a thread that is not restarted.
async fn tree(thread: &Thread) -> Supervisor {
    let spec = ChildSpec {
        restart: RestartType::Temporary,
        retain: true,
        shutdown: Shutdown::Infinity,
        ..ChildSpec::worker("thread")
    };
    Supervisor::builder(SupervisorSpec::default()).child(spec, thread.clone()).start().await.expect("starts")
}

#[tokio::test]
async fn a_guard_reports_each_way_of_ending_once() {
    let error = |message: &str| Cause::Error { message: message.to_owned() };
    for (order, exit, cause) in [
        (Order::Return(Ok(())), Exit::Normal, Cause::Finished { reason: None }),
        (Order::Return(Err("no disk".to_owned())), Exit::Abnormal, error("no disk")),
        (Order::Panic, Exit::Abnormal, error("panicked")),
        (Order::DropGuard, Exit::Killed, Cause::Aborted),
    ] {
        let thread = Thread::default();
        let tree = tree(&thread).await;
        let orders = thread.0.lock().expect("no panic").take().expect("runs");
        orders.send(order).expect("runs");
        let stopped = tree.wait_for("thread", |child| child.state == State::Stopped);
        let child =
            tokio::time::timeout(Duration::from_secs(60), stopped).await.expect("in time").expect("child");
        let report = child.last_exit.expect("an exit").report;
        assert_eq!((report.exit, &report.cause), (exit, &cause));
        let (_, history) = tree.which_child_with_history("thread").await.expect("a child");
        assert_eq!(history.exits.len(), 1);
    }
}

#[tokio::test]
async fn a_normal_end_that_was_asked_for_is_a_shutdown() {
    let tree = tree(&Thread::default()).await;
    let StopOutcome::Stopped(report) = tree.stop("thread", None).await.expect("stops") else {
        panic!("it ran")
    };
    assert_eq!(report.exit, Exit::Shutdown);
}
