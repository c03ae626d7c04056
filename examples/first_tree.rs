//! A first tree: an actor and a task under one supervisor; both crash, both come back, and the tree ends in order.
//!
//! `cargo run -p examples --example first_tree`

use ractor::{Actor, ActorProcessingErr, ActorRef};
use xy_actors::child::{actor, task};
use xy_actors::event::stream::{EventCursor, EventItem, EventKind};
use xy_actors::spec::{ChildSpec, RestartIntensity, Strategy, SupervisorSpec};
use xy_actors::supervisor::Supervisor;

/// An actor that fails at its first message.
struct Counter;

#[derive(Debug)]
struct Tick;

impl Actor for Counter {
    type Msg = Tick;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Tick>, (): ()) -> Result<(), ActorProcessingErr> {
        myself.send_message(Tick)?;
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Tick>, _: Tick, (): &mut ()) -> Result<(), ActorProcessingErr> {
        Err("counting is hard".into())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A task that runs until it is asked to stop.
    let clock = task(|context| async move {
        context.stopped().await;
        Ok(())
    });
    // If one crashes, both are restarted; the fourth crash within a minute ends the tree.
    let spec = SupervisorSpec {
        intensity: Some(RestartIntensity::new(3, std::time::Duration::from_secs(60))),
        ..SupervisorSpec::new(Strategy::OneForAll)
    };
    let tree = Supervisor::builder(spec)
        .child(ChildSpec::worker("clock"), clock)
        .child(ChildSpec::worker("counter"), actor(|| (Counter, ())))
        .spawn() // Does not wait for the children; `start` would.
        .await?;

    let mut events = tree.events(EventCursor::Seq(1));
    while let Some(item) = events.next().await {
        let EventItem::Event(event) = item else { continue };
        match &event.kind {
            EventKind::Child { exit: Some(exit), .. } => {
                println!("{:>2} {:8} {} ({exit})", event.seq, event.path, event.kind.name());
            }
            kind => println!("{:>2} {:8} {}", event.seq, event.path, kind.name()),
        }
    }
    println!("the tree ended: {}", tree.ended().await);
    Ok(())
}
