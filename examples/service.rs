//! A whole service: two actors, a task and a nested supervisor with a process, its events as a log, and a graceful end.
//! Its test puts a mock in the place of the process.
//!
//! `cargo run -p examples --example service`, and Ctrl-C; `cargo test -p examples --example service`

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use xy_actors::child::{Child, actor, actor_with, task};
use xy_actors::event::stream::{EventCursor, EventItem, EventStream};
use xy_actors::log::LogHub;
use xy_actors::process::{HostOptions, ProcessHost, ProcessSpec, process};
use xy_actors::spec::{Backoff, ChildSpec, RestartIntensity, Strategy, SupervisorSpec};
use xy_actors::supervisor::{Address, Supervisor, SupervisorBuilder, shutdown_signal, supervisor};

/// Counts visits.
struct Counter;

enum Visit {
    Count,
    HowMany(RpcReplyPort<u64>),
}

impl Actor for Counter {
    type Msg = Visit;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Visit>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Visit>,
        visit: Visit,
        count: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match visit {
            Visit::Count => *count += 1,
            Visit::HowMany(reply) => reply.send(*count)?,
        }
        Ok(())
    }
}

/// Lets a visitor in from time to time, and fails if there is nobody to count them.
struct Door {
    counter: Address<Visit>,
}

impl Actor for Door {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        myself.send_interval(Duration::from_millis(100), || ());
        Ok(())
    }

    async fn handle(&self, _: ActorRef<()>, (): (), (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.counter.send(Visit::Count).await?;
        Ok(())
    }
}

/// Puts the service together; what runs as `clock` is up to the caller.
fn service(clock: impl Child) -> SupervisorBuilder {
    let door = actor_with(|context| (Door { counter: context.addr("counter") }, ()));
    let report = task(|context| async move {
        let counter = context.addr("counter");
        let mut every = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = context.stopped() => return Ok(()),
            }
            println!("visits so far: {}", counter.call(Duration::from_secs(1), Visit::HowMany).await?);
        }
    });

    // The clock may fail twice a minute; then its group does, which counts as one crash of the service's.
    let group = SupervisorSpec {
        intensity: Some(RestartIntensity::new(2, Duration::from_secs(60))),
        ..SupervisorSpec::new(Strategy::OneForOne)
    };
    let backoff = Backoff { base: Duration::from_millis(200), jitter: 0.0, ..Backoff::default() };
    let outside =
        supervisor(group).child(ChildSpec { backoff: Some(backoff), ..ChildSpec::worker("clock") }, clock);

    // Whatever needs the counter is restarted with it.
    Supervisor::builder(SupervisorSpec::new(Strategy::RestForOne))
        .child(ChildSpec::worker("counter"), actor(|| (Counter, ())))
        .child(ChildSpec::worker("door"), door)
        .child(ChildSpec::worker("report"), report)
        .child(ChildSpec::supervisor("outside"), outside)
}

async fn print_events(mut events: EventStream) {
    while let Some(item) = events.next().await {
        match item {
            EventItem::Event(event) => println!("{:>3} {} {}", event.seq, event.kind.name(), event.path),
            EventItem::Gap { first, last } => println!("events {first} to {last} were lost"),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (host, _swept) = ProcessHost::start(HostOptions::default())?;
    let logs = LogHub::new(None);
    let mut clock = ProcessSpec::new("sh");
    clock.args = vec!["-c".to_owned(), "while date; do sleep 1; done".to_owned()];

    let tree = service(process(clock, &host, &logs)).start().await?;
    let printing = tokio::spawn(print_events(tree.events(EventCursor::Seq(1))));
    let report = tree.run_until(shutdown_signal()?).await?;
    printing.await?;
    println!("stopped: {:?}; clean: {}", report.stopped, report.is_clean());
    Ok(())
}

#[cfg(test)]
mod tests {
    use xy_actors::testkit::{Journal, MockChild, TestTree};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_keeps_failing_takes_its_group_along_and_nothing_else() {
        let clock = MockChild::new("clock", &Journal::default());
        let mut tree = TestTree::new(service(clock.clone()).start().await.expect("starts"));
        for message in ["first", "second", "third"] {
            clock.crash_and_restart(message).await;
        }
        tree.expect("supervisor_limit_reached", "outside").await;
        tree.wait_for("outside", |group| group.ready && group.restarts == 1).await.expect("comes back");
        assert_eq!(tree.states().await, "counter:running door:running report:running outside:running");
        assert_eq!(tree.which_child("counter").await.expect("child").restarts, 0);
        assert!(tree.shutdown().await.is_clean());
    }
}
