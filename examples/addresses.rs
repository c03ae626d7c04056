//! Addresses that survive restarts, keys spread over partitions, and a tree that is the whole program: until Ctrl-C, or,
//! here, until its work is done.
//!
//! `cargo run -p examples --example addresses`

use std::collections::HashMap;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use xy_actors::child::{actor, task};
use xy_actors::spec::{AutoShutdown, ChildSpec, RestartType, SupervisorSpec};
use xy_actors::supervisor::{PartitionAddresses, Partitions, Supervisor, WhileDown, shutdown_signal};

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

/// Uses the cache before and after a crash of one of its partitions.
async fn work(
    cache: PartitionAddresses<CacheMessage>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let apple = cache.of("apple").ok_or("no partition is in use")?;
    apple.send(CacheMessage::Put("apple", "green")).await?;
    println!("before: {:?}", apple.call(TIMEOUT, |reply| CacheMessage::Get("apple", reply)).await?);

    let before = apple.actor().await?;
    apple.send(CacheMessage::Poison).await?;
    before.get_cell().wait(None).await?;
    // It is down for a moment; the question waits for the next incarnation, which has forgotten everything.
    println!("after: {:?}", apple.call(TIMEOUT, |reply| CacheMessage::Get("apple", reply)).await?);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let partitions = Partitions::new(4);
    let cache = partitions.supervisor(ChildSpec::worker("cache"), |_| actor(|| (Cache, ())));
    // The tree ends when the worker is done.
    let spec = SupervisorSpec { auto_shutdown: AutoShutdown::AnySignificant, ..SupervisorSpec::default() };
    let worker =
        ChildSpec { significant: true, restart: RestartType::Transient, ..ChildSpec::worker("work") };

    let tree = Supervisor::builder(spec).child(ChildSpec::supervisor("cache"), cache).start().await?;
    let wait = WhileDown::Wait { limit: Duration::from_secs(1) };
    let addresses = partitions.at(&tree, "cache").addresses(wait);
    tree.start_child(worker, task(move |_| work(addresses.clone()))).await?;

    let report = tree.run_until(shutdown_signal()?).await?;
    println!("ended: {}; {} children stopped", report.cause, report.stopped.len());
    Ok(())
}
