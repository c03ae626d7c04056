//! A program's own tree over HTTP, with what the program has registered.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use xy_actors::child::task;
use xy_actors::spec::{ChildSpec, SupervisorSpec};
use xy_actors::supervisor::Supervisor;
use xy_daemon::client::{Client, ClientError};
use xy_daemon::http::connection_file::{CONNECTION_FILE, Connection};
use xy_daemon::http::credentials::TokenOptions;
use xy_daemon::permission::{Decision, PermissionPolicy, PermissionRequest};
use xy_daemon::protocol::Method;
use xy_daemon::protocol::error::{ErrorKind, RpcError};
use xy_daemon::protocol::method::{
    Capabilities, CapabilitiesParams, DaemonDiagnostics, DiagnosticsParams, List, ListParams, METHODS,
    MethodKind,
};
use xy_daemon::registry::Registry;
use xy_daemon::{ServeError, ServeOptions};

use super::server::{Answer, Wire};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct QuoteParams {
    /// What is to be bought.
    item: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Price {
    cents: u64,
}

enum Quote {}

impl Method for Quote {
    const NAME: &'static str = "shop.quote";
    type Params = QuoteParams;
    type Result = Price;
}

/// The same as a query.
enum Look {}

impl Method for Look {
    const NAME: &'static str = "shop.look";
    type Params = QuoteParams;
    type Result = Price;
}

fn registry() -> Registry {
    let quoted = Registry::new().method::<Quote, _, _>("Says what an item costs.", |params| async move {
        match params.item.as_str() {
            "tea" => Ok(Price { cents: 250 }),
            "panic" => panic!("scripted"),
            other => Err(RpcError::new(ErrorKind::MethodFailed, format!("`{other}` is not sold"))),
        }
    });
    let items = || async { Ok(vec!["tea".to_owned()]) };
    let read = quoted.and_then(|one| one.catalog("shop.items", "What is sold.", items));
    let looked = read.and_then(|one| {
        one.query::<Look, _, _>("Says what an item costs, and notes nothing.", |_| async {
            Ok(Price { cents: 1 })
        })
    });
    looked.expect("good names")
}

struct Program {
    directory: tempfile::TempDir,
    tree: Supervisor,
    server: xy_daemon::Server,
}

impl Program {
    async fn start() -> Self {
        Self::start_with(|options, _| options).await
    }

    async fn start_with(change: impl FnOnce(ServeOptions, &Path) -> ServeOptions) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let idle = task(|context| async move {
            context.stopped().await;
            Ok(())
        });
        let tree = Supervisor::builder(SupervisorSpec::default()).child(ChildSpec::worker("clock"), idle);
        let tree = tree.start().await.expect("the tree starts");
        let address = "127.0.0.1:0".parse().expect("an address");
        let options = ServeOptions::at(directory.path().join("run/shop.sock"))
            .program("shop")
            .registry(registry())
            .http(address, TokenOptions::default(), directory.path().join("state"));
        let options = change(options, directory.path());
        let server = xy_daemon::serve(tree.clone(), options).await.expect("it can be served");
        Self { directory, tree, server }
    }

    async fn send(&self, method: &str, target: &str, body: &str) -> Answer {
        let base_url = self.server.base_url().expect("http is on");
        let address: SocketAddr = base_url["http://".len()..].parse().expect("an address");
        let connection = Connection::read(&self.directory.path().join("state").join(CONNECTION_FILE));
        let token = connection.expect("it is there").token.expose().to_owned();
        let mut wire = Wire::connect(address).await;
        wire.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        wire.answer().await
    }

    async fn client(&self) -> Client {
        Client::connect(self.server.socket()).await.expect("it is served")
    }

    async fn end(self) {
        self.tree.shutdown().await;
        self.server.ended().await;
    }
}

#[tokio::test]
async fn diagnostics_of_a_program_tell_who_is_there_and_that_its_events_end_with_it() {
    let program = Program::start().await;
    let client = program.client().await;
    let asked = || client.call::<DaemonDiagnostics>(DiagnosticsParams {});
    let before = asked().await.expect("answered");
    assert_eq!((before.connections, before.last_activity_unix_ms), (Some(1), None));
    assert_eq!(before.events.map(|events| events.keep), Some(0));
    assert_eq!(program.send("GET", "/v1/diagnostics", "").await.json()["last_activity_unix_ms"], Value::Null);
    assert_eq!(program.send("GET", "/v1/servers", "").await.status, 200);
    let over_http = asked().await.expect("answered").last_activity_unix_ms;
    client.call::<List>(ListParams {}).await.expect("answered");
    let over_the_socket = asked().await.expect("answered").last_activity_unix_ms;
    assert!(over_http.is_some() && over_http <= over_the_socket, "{over_http:?} {over_the_socket:?}");
    drop(client);
    program.end().await;
}

#[tokio::test]
async fn a_registered_method_is_called_over_socket_and_http_alike() {
    let program = Program::start().await;
    let client = program.client().await;
    let tea = || QuoteParams { item: "tea".to_owned() };
    assert_eq!(client.call::<Quote>(tea()).await.expect("it is sold"), Price { cents: 250 });
    let answer = program.send("POST", "/v1/methods/shop.quote", r#"{"item": "tea"}"#).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "cents": 250 })));
    let rpc = r#"{"jsonrpc":"2.0","id":1,"method":"shop.quote","params":{"item":"tea"}}"#;
    assert_eq!(program.send("POST", "/v1/rpc", rpc).await.json()["result"]["cents"], 250);
    let items = program.send("GET", "/v1/catalogs/shop.items", "").await;
    assert_eq!((items.status, items.json()), (200, json!({ "items": ["tea"] })));
    program.end().await;
}

#[tokio::test]
async fn what_goes_wrong_in_a_registered_method_is_told_and_harms_nothing_else() {
    let program = Program::start().await;
    for (target, body, status, kind) in [
        ("/v1/methods/shop.quote", r#"{"item": "cake"}"#, 422, "method_failed"),
        ("/v1/methods/shop.quote", r#"{"item": "panic"}"#, 500, "internal_error"),
        ("/v1/methods/shop.quote", r#"{"thing": 1}"#, 400, "invalid_params"),
        ("/v1/methods/shop.quote", "", 400, "invalid_params"),
        ("/v1/methods/shop.none", "", 404, "method_not_found"),
        // What is not registered is not called here, whatever its name is.
        ("/v1/methods/shutdown", "", 404, "method_not_found"),
    ] {
        let answer = program.send("POST", target, body).await;
        assert_eq!((answer.status, answer.kind().as_str()), (status, kind), "{target} {body}");
    }
    let answer = program.send("GET", "/v1/catalogs/shop.quote", "").await;
    assert_eq!((answer.status, answer.kind().as_str()), (404, "method_not_found"));
    let refused = program.client().await.call::<Quote>(QuoteParams { item: "cake".to_owned() }).await;
    assert!(
        matches!(&refused, Err(ClientError::Rpc(error)) if error.kind() == ErrorKind::MethodFailed),
        "{refused:?}"
    );
    assert_eq!(program.send("GET", "/v1/servers/clock", "").await.json()["state"], "running");
    program.end().await;
}

#[tokio::test]
async fn what_is_registered_is_described_by_its_types() {
    let program = Program::start().await;
    let told = program.client().await.call::<Capabilities>(CapabilitiesParams {}).await.expect("told");
    assert_eq!(told.methods, METHODS);
    let [items, look, quote] = &told.registered[..] else { panic!("{told:?}") };
    assert_eq!((items.name.as_str(), items.kind), ("shop.items", MethodKind::Catalog));
    assert_eq!((look.name.as_str(), look.kind), ("shop.look", MethodKind::Query));
    assert_eq!((quote.name.as_str(), quote.kind), ("shop.quote", MethodKind::Method));
    assert_eq!(quote.params["properties"]["item"]["description"], "What is to be bought.");
    let over_http = program.send("GET", "/v1/capabilities", "").await.json();
    assert_eq!(over_http["registered"], serde_json::to_value(&told.registered).expect("JSON"));
    let document = program.send("GET", "/v1/openapi.json", "").await.json();
    let described = &document["paths"]["/v1/methods/shop.quote"]["post"];
    assert_eq!(described["summary"], "Says what an item costs.");
    let body: &Value = &described["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["required"], json!(["item"]));
    program.end().await;
}

#[tokio::test]
async fn a_wait_that_no_clock_can_measure_has_no_limit() {
    let program = Program::start().await;
    for (verb, list) in [("stop", "stopped"), ("start", "started")] {
        let target = format!("/v1/servers/clock/{verb}?wait=true");
        let answer = program.send("POST", &target, r#"{"timeout_secs": 18446744073709551615}"#).await;
        assert_eq!((answer.status, answer.json()[list].clone()), (200, json!(["clock"])), "{answer:?}");
    }
    program.end().await;
}

#[tokio::test]
async fn serving_ends_with_the_tree_or_before_it_and_leaves_no_file() {
    let program = Program::start().await;
    let socket = program.server.socket().to_owned();
    let second = xy_daemon::serve(program.tree.clone(), ServeOptions::at(&socket)).await;
    assert!(matches!(second, Err(ServeError::Socket(_))), "{second:?}");
    let Program { directory, tree, server } = program;
    server.close().await;
    assert!(!socket.exists() && !directory.path().join("state").join(CONNECTION_FILE).exists());
    assert!(tree.which_child("clock").await.expect("it runs on").ready);

    let server =
        xy_daemon::serve(tree.clone(), ServeOptions::at(&socket)).await.expect("the path is free again");
    let client = Client::connect(&socket).await.expect("it is served");
    tree.shutdown().await;
    server.ended().await;
    assert!(!socket.exists());
    let gone = client.call::<Capabilities>(CapabilitiesParams {}).await;
    assert!(matches!(gone, Err(ClientError::Closed)), "{gone:?}");
}

/// A policy of the program's own: who closes the shop is asked about, and whoever else changes something is not let.
#[derive(Debug)]
struct Closing;

impl PermissionPolicy for Closing {
    fn decide(&self, request: &PermissionRequest<'_>) -> Decision {
        match (request.changes, request.action, request.server) {
            (false, ..) | (true, "approve", _) => Decision::Allow,
            (true, "stop", Some("clock")) => Decision::Ask,
            (true, ..) => Decision::Deny,
        }
    }
}

#[tokio::test]
async fn a_program_decides_itself_who_may_ask_for_what_and_what_only_reads_is_known_as_such() {
    let program = Program::start_with(|options, directory| {
        options
            .permissions(Closing)
            .permission_timeout(Duration::from_millis(50))
            .records(directory.join("records"))
    })
    .await;
    let tea = r#"{"item": "tea"}"#;
    for (method, target, body, status) in [
        ("GET", "/v1/catalogs/shop.items", "", 200),
        ("POST", "/v1/methods/shop.items", "", 200),
        ("POST", "/v1/methods/shop.look", tea, 200),
        ("POST", "/v1/methods/shop.quote", tea, 403),
        ("POST", "/v1/servers/clock/restart?wait=true", "", 403),
        ("POST", "/v1/servers/clock/stop?wait=true", "", 403),
    ] {
        let answer = program.send(method, target, body).await;
        assert_eq!(answer.status, status, "{target}: {answer:?}");
    }
    let Program { directory, tree, server } = program;
    tree.shutdown().await;
    server.ended().await;
    let records = directory.path().join("records");
    let text = std::fs::read_to_string(records.join("audit.log")).expect("there is one");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let rows: Vec<[String; 2]> = lines
        .map(|line| ["action", "decision"].map(|key| line[key].as_str().unwrap_or_default().to_owned()))
        .collect();
    assert_eq!(rows, [["shop.quote", "denied"], ["restart", "denied"], ["stop", "timed_out"]]);
}
