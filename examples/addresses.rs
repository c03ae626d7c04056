//! Children that know each other's addresses, which survive restarts; keys spread over partitions; and a tree that is the
//! whole program: until Ctrl-C, or, here, until its work is done.
//!
//! `cargo run -p examples --example addresses`

use std::collections::HashMap;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use xy_actors::child::{TaskError, actor, actor_with, task};
use xy_actors::spec::{AutoShutdown, ChildSpec, RestartType, SupervisorSpec};
use xy_actors::supervisor::{
    Address, PartitionAddresses, Partitions, Supervisor, WhileDown, shutdown_signal,
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// One partition of a cache: an actor that crashes when it is poisoned.
struct Cache;

enum CacheMessage {
    Put(&'static str, &'static str),
    Get(&'static str, RpcReplyPort<Option<&'static str>>),
    Poison,
}

impl Actor for Cache {
    type Msg = CacheMessage;
    type State = HashMap<&'static str, &'static str>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<CacheMessage>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(HashMap::new())
    }

    async fn handle(
        &self,
        _: ActorRef<CacheMessage>,
        message: CacheMessage,
        entries: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            CacheMessage::Put(key, value) => drop(entries.insert(key, value)),
            CacheMessage::Get(key, reply) => reply.send(entries.get(key).copied())?,
            CacheMessage::Poison => return Err("poisoned".into()),
        }
        Ok(())
    }
}

/// What stands before the cache: an actor that knows all partitions of it.
struct Front {
    cache: PartitionAddresses<CacheMessage>,
}

enum FrontMessage {
    /// Remember this color of a fruit.
    Paint(&'static str, &'static str),
    Color(&'static str, RpcReplyPort<Option<&'static str>>),
    /// Make the partition that knows this fruit crash.
    Spoil(&'static str),
}

impl Actor for Front {
    type Msg = FrontMessage;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<FrontMessage>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<FrontMessage>,
        message: FrontMessage,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        let of = |fruit| self.cache.of(fruit).ok_or("no partition is in use");
        match message {
            FrontMessage::Paint(fruit, color) => of(fruit)?.send(CacheMessage::Put(fruit, color)).await?,
            FrontMessage::Color(fruit, reply) => {
                reply.send(of(fruit)?.call(TIMEOUT, |reply| CacheMessage::Get(fruit, reply)).await?)?;
            }
            FrontMessage::Spoil(fruit) => {
                let before = of(fruit)?.actor().await?;
                before.send_message(CacheMessage::Poison)?;
                before.get_cell().wait(None).await?;
            }
        }
        Ok(())
    }
}

/// Uses the cache before and after a crash of one of its partitions.
async fn work(front: Address<FrontMessage>) -> Result<(), TaskError> {
    let color = || front.call(TIMEOUT, |reply| FrontMessage::Color("apple", reply));
    front.send(FrontMessage::Paint("apple", "green")).await?;
    println!("before: {:?}", color().await?);
    front.send(FrontMessage::Spoil("apple")).await?;
    // The partition is down for a moment; the question waits for its next incarnation, which has forgotten everything.
    println!("after: {:?}", color().await?);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let partitions = Partitions::new(4);
    let cache = partitions.supervisor(ChildSpec::worker("cache"), |_| actor(|| (Cache, ())));
    // Each start of a child is told where it is, and takes the addresses it needs from that.
    let front = actor_with(move |context| {
        let wait = WhileDown::Wait { limit: Duration::from_secs(1) };
        let cache = partitions.at(context.parent(), "cache").addresses(wait);
        (Front { cache }, ())
    });
    let worker = task(|context| work(context.addr("front")));

    // The tree ends when the worker is done.
    let spec = SupervisorSpec { auto_shutdown: AutoShutdown::AnySignificant, ..SupervisorSpec::default() };
    let once = ChildSpec { significant: true, restart: RestartType::Transient, ..ChildSpec::worker("work") };
    let tree = Supervisor::builder(spec)
        .child(ChildSpec::supervisor("cache"), cache)
        .child(ChildSpec::worker("front"), front)
        .child(once, worker);
    let report = tree.run_until(shutdown_signal()?).await?;
    println!("ended: {}; {} children stopped", report.cause, report.stopped.len());
    Ok(())
}
