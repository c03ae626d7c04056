//! A program with a tree of its own, two actors' worth of shop and one process, that `xyctl` controls; with a method and a
//! catalog of its own.
//!
//! `cargo run -p examples --example embedded_daemon`, then `xyctl --socket PATH list`, `why till`, `restart oven`, `logs
//! oven`, with the path that it prints; `cargo test -p examples --example embedded_daemon`

use std::path::Path;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xy_actors::child::{actor, task};
use xy_actors::log::LogHub;
use xy_actors::process::{HostOptions, ProcessHost, ProcessSpec, process};
use xy_actors::spec::{ChildSpec, SupervisorSpec};
use xy_actors::supervisor::{Supervisor, WhileDown, shutdown_signal, supervisor};
use xy_daemon::protocol::Method;
use xy_daemon::protocol::error::{ErrorKind, RpcError};
use xy_daemon::registry::{RegisterError, Registry};
use xy_daemon::{ServeOptions, Server};

/// Adds up what was sold.
struct Till;

enum Sale {
    Sold(u64),
    Total(RpcReplyPort<u64>),
}

impl Actor for Till {
    type Msg = Sale;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Sale>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(&self, _: ActorRef<Sale>, sale: Sale, total: &mut u64) -> Result<(), ActorProcessingErr> {
        match sale {
            Sale::Sold(cents) => *total += cents,
            Sale::Total(reply) => reply.send(*total)?,
        }
        Ok(())
    }
}

/// One line of the price list, which is the catalog.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Item {
    /// What it is called.
    name: String,
    /// What one costs, in cents.
    cents: u64,
}

fn price_list() -> Vec<Item> {
    [("bread", 350), ("roll", 40)].map(|(name, cents)| Item { name: name.to_owned(), cents }).to_vec()
}

/// What a purchase costs, which is the method.
enum Quote {}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct QuoteParams {
    /// The name of an item.
    item: String,
    /// How many.
    count: u32,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct QuoteResult {
    /// What they cost together, in cents.
    cents: u64,
    /// What was sold before, in cents.
    sold_before: u64,
}

impl Method for Quote {
    const NAME: &'static str = "shop.quote";
    type Params = QuoteParams;
    type Result = QuoteResult;
}

fn registry(tree: &Supervisor) -> Result<Registry, RegisterError> {
    let till = tree.addr::<Sale>("shop/till");
    Registry::new()
        .catalog("shop.items", "What is sold, with its price.", || async { Ok(price_list()) })?
        .method::<Quote, _, _>("Says what some of one item cost.", move |QuoteParams { item, count }| {
        let till = till.clone();
        async move {
            let failed = |message: String| RpcError::new(ErrorKind::MethodFailed, message);
            let list = price_list();
            let found = list.iter().find(|one| one.name == item);
            let found = found.ok_or_else(|| failed(format!("`{item}` is not sold")))?;
            let sold_before = till.call(Duration::from_secs(1), Sale::Total).await;
            let sold_before = sold_before.map_err(|error| failed(error.to_string()))?;
            Ok(QuoteResult { cents: found.cents * u64::from(count), sold_before })
        }
    })
}

/// Starts the tree and serves it at this socket.
async fn open(socket: &Path) -> Result<(Supervisor, Server), Box<dyn std::error::Error>> {
    let (host, _swept) = ProcessHost::start(HostOptions::default())?;
    let logs = LogHub::new(None);
    let mut oven = ProcessSpec::new("sh");
    oven.args = ["-c", "echo hot; exec sleep 1000"].map(String::from).to_vec();
    let customers = task(|context| async move {
        // Siblings are called by their ids; a till that is being restarted is waited for.
        let till = context.addr::<Sale>("till").while_down(WhileDown::Wait { limit: Duration::from_secs(5) });
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(200)) => till.send(Sale::Sold(40)).await?,
                () = context.stopped() => return Ok(()),
            }
        }
    });
    let shop = supervisor(SupervisorSpec::default())
        .child(ChildSpec::worker("till"), actor(|| (Till, ())))
        .child(ChildSpec::worker("customers"), customers);
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(ChildSpec::supervisor("shop"), shop)
        .child(ChildSpec::worker("oven"), process(oven, &host, &logs))
        .start()
        .await?;

    // These few lines are all that it takes.
    let options = ServeOptions::at(socket)
        .program("bakery")
        .processes(&host, &logs)
        .registry(registry(&tree)?)
        .permit_shutdown();
    let server = xy_daemon::serve(tree.clone(), options).await?;
    Ok((tree, server))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = xy_daemon::paths::Directories::of_user()?.default_socket().with_file_name("bakery");
    let (tree, server) = open(&directory.join("bakery.sock")).await?;
    println!("xyctl --socket {} list", server.socket().display());
    let report = tree.run_until(shutdown_signal()?).await?;
    server.ended().await;
    println!("stopped: {:?}", report.stopped);
    Ok(())
}

#[cfg(test)]
mod tests {
    use xy_daemon::client::{Client, ClientError};
    use xy_daemon::protocol::method::{
        Capabilities, CapabilitiesParams, List, ListParams, OperationParams, Restart, Shutdown,
        ShutdownParams, Status, StatusParams,
    };
    use xy_daemon::registry::{CatalogParams, CatalogResult};

    use super::*;

    /// How long anything may take before the test fails.
    const DEADLINE: Duration = Duration::from_secs(30);

    /// The catalog, as a client calls it.
    enum Items {}

    impl Method for Items {
        const NAME: &'static str = "shop.items";
        type Params = CatalogParams;
        type Result = CatalogResult<Item>;
    }

    #[tokio::test]
    async fn a_client_controls_the_shop_and_asks_what_only_the_shop_knows()
    -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let (tree, server) = open(&directory.path().join("run/bakery.sock")).await?;
        let client = Client::connect(server.socket()).await?;

        let list = client.call::<List>(ListParams {}).await?.servers;
        let names: Vec<&str> = list.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["oven", "shop", "shop/till", "shop/customers"]);
        let before = list[0].pid.expect("it is a process");
        let restarted = client.call::<Restart>(OperationParams::named("oven")).await?;
        assert_eq!(restarted.restarted, ["oven"]);
        let oven = client.call::<Status>(StatusParams::new("oven")).await?;
        assert!(oven.summary.ready && oven.summary.pid.is_some_and(|pid| pid != before));

        let known = client.call::<Capabilities>(CapabilitiesParams {}).await?.registered;
        assert_eq!(
            known.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
            ["shop.items", "shop.quote"]
        );
        assert_eq!(known[1].params["required"], serde_json::json!(["item", "count"]));
        assert_eq!(client.call::<Items>(CatalogParams {}).await?.items.len(), 2);
        let quote = async || client.call::<Quote>(QuoteParams { item: "roll".to_owned(), count: 3 }).await;
        assert_eq!(quote().await?.cents, 120);
        for _ in 0..3 {
            let restarted = client.call::<Restart>(OperationParams::named("shop/till")).await?;
            assert_eq!(restarted.restarted, ["shop/till"]);
        }
        let first_sale = async {
            while quote().await?.sold_before == 0 {
                tokio::task::yield_now().await;
            }
            Ok::<_, ClientError>(())
        };
        tokio::time::timeout(DEADLINE, first_sale).await??;
        let customers = client.call::<Status>(StatusParams::new("shop/customers")).await?;
        assert_eq!((customers.summary.ready, customers.summary.restart_count), (true, 0));
        let refused = client.call::<Quote>(QuoteParams { item: "cake".to_owned(), count: 1 }).await;
        assert!(
            matches!(&refused, Err(ClientError::Rpc(error)) if error.kind() == ErrorKind::MethodFailed),
            "{refused:?}"
        );

        client.call::<Shutdown>(ShutdownParams::default()).await?;
        tree.ended().await;
        let socket = server.socket().to_owned();
        server.ended().await;
        assert!(!socket.exists());
        Ok(())
    }
}
