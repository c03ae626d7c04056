//! Permissions of a real `xyd`, over HTTP and the socket: rules from its file, grants that outlive it, and the audit log.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use xy_daemon::http::connection_file::Connection;

use super::daemon::{World, post};
use super::mcp::call_headers;

const RULES: &str = r#"(
    permissions: [
        (decision: Deny, client: "cron", action: "shutdown"),
        (decision: Ask, client: "robot", server: "nap", action: "@change"),
    ],
    permission_timeout: "10m",
)"#;

/// Asks on a connection of its own over the socket.
pub(crate) async fn on_socket(world: &World, method: &str, params: Value) -> Value {
    let mut stream = UnixStream::connect(world.socket()).await.expect("it listens");
    let line = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    stream.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).await.expect("it answers");
    serde_json::from_str(&answer).expect("JSON")
}

/// Waits for a question and answers it on the socket.
async fn answer(world: &World, method: &str, more: Value) -> Value {
    let id = world
        .until("a question", async || {
            let waiting = on_socket(world, "approvals", json!({})).await;
            waiting["result"]["approvals"][0]["id"].as_str().map(ToOwned::to_owned)
        })
        .await;
    let mut params = more;
    params["id"] = id.into();
    on_socket(world, method, params).await
}

async fn robot(connection: &Connection, target: &str) -> (u16, Value) {
    let answer = post(connection, target, "Xy-Client: robot\r\n", "{\"reason\": \"tidy\"}").await;
    (answer.status, answer.json())
}

fn audited(world: &World, action: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(world.state("audit.log")).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let cells = |line: Value| {
        ["client", "surface", "decision", "outcome"]
            .map(|key| line[key].as_str().unwrap_or_default().to_owned())
            .to_vec()
    };
    lines.filter(|line| line["action"] == action).map(cells).collect()
}

#[tokio::test]
async fn http_asks_like_the_socket_and_grants_outlive_the_daemon_until_they_are_forgotten() {
    let mut world = World::start_with(RULES, &["--http", "127.0.0.1:0"], &[]);
    let connection = world.connection().await;
    let stop = "/v1/servers/nap/stop?wait=true";

    let (refused, said) = tokio::join!(robot(&connection, stop), answer(&world, "deny", json!({})));
    assert_eq!(
        (refused.0, &refused.1["error"]["kind"]),
        (403, &json!("permission_denied")),
        "{refused:?} {said}"
    );
    let remember = json!({ "remember": "always" });
    let (stopped, said) = tokio::join!(robot(&connection, stop), answer(&world, "approve", remember));
    assert_eq!((stopped.0, &stopped.1["stopped"]), (200, &json!(["nap"])), "{stopped:?} {said}");
    let grant = said["result"]["grants"][0].clone();
    // Somebody else is not asked, and the robot not about anything else.
    let paused = post(&connection, "/v1/servers/nap/pause?wait=true", "Xy-Client: hand\r\n", "").await;
    assert_eq!(paused.status, 200, "{paused:?}");
    let denied = post(&connection, "/v1/admin/shutdown", "User-Agent: cron/1.2\r\n", "").await;
    assert_eq!(denied.status, 202, "{denied:?}");
    let denied = post(&connection, "/v1/admin/shutdown?wait=true", "User-Agent: cron/1.2\r\n", "").await;
    assert_eq!((denied.status, denied.kind().as_str()), (403, "permission_denied"), "{denied:?}");

    world.restart().await;
    let connection = world.connection().await;
    let (status, stopped) = robot(&connection, stop).await;
    assert_eq!(status, 200, "{stopped}");
    let forgotten = on_socket(&world, "forget", json!({ "id": grant })).await;
    assert_eq!(forgotten["result"]["forgotten"]["client"], "robot", "{forgotten}");
    let (again, _) = tokio::join!(robot(&connection, stop), answer(&world, "approve", json!({})));
    assert_eq!(again.0, 200, "{again:?}");

    // New rules are in force from the reload on, and bad ones change nothing.
    world.configure("(permissions: [(decision: Deny, client: \"robot\", action: \"stpo\")])");
    let refused = on_socket(&world, "reload", json!({})).await;
    assert!(refused["error"]["message"].as_str().is_some_and(|text| text.contains("`stop`")), "{refused}");
    world.configure("(permissions: [(decision: Deny, client: \"robot\", action: \"stop\")])");
    assert!(on_socket(&world, "reload", json!({})).await["result"].is_object());
    assert_eq!(robot(&connection, stop).await.0, 403);

    let rows = world
        .until("the audit log", async || {
            let rows = audited(&world, "stop");
            (rows.len() == 5).then_some(rows)
        })
        .await;
    let expected = [
        ["robot", "http", "refused", "permission_denied"],
        ["robot", "http", "approved", "ok"],
        ["robot", "http", "granted", "ok"],
        ["robot", "http", "approved", "ok"],
        ["robot", "http", "denied", "permission_denied"],
    ];
    assert_eq!(rows, expected);
    assert_eq!(audited(&world, "shutdown").len(), 2);
    let mode =
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(world.state("audit.log")).expect("there"));
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn an_assistant_over_http_is_known_by_its_session_and_bound_by_the_rules() {
    let rules = r#"(permissions: [
        (decision: Deny, client: "mcp:robot", tool: "stop"),
        (decision: Ask, client: "mcp:robot", action: "restart"),
    ])"#;
    let world = World::start_with(rules, &["--http", "127.0.0.1:0"], &[]);
    let connection = world.connection().await;
    let say = async |session: &str, method: &str, params: Value| {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        post(&connection, "/mcp", session, &body).await
    };
    let client = json!({ "name": "robot", "version": "1" });
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
    let hello = say("", "initialize", params).await;
    let session = format!("Mcp-Session-Id: {}\r\n", hello.header("mcp-session-id").expect("a session"));
    let body = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    assert_eq!(post(&connection, "/mcp", &session, body).await.status, 202);
    let tools = say(&session, "tools/list", json!({})).await.json();
    assert_eq!(tools["result"]["tools"].as_array().map(Vec::len), Some(9), "{tools}");
    let list = say(&session, "tools/call", json!({ "name": "list" })).await.json();
    assert_eq!(list["result"]["structuredContent"]["servers"][0]["name"], "nap", "{list}");
    let arguments = json!({ "names": ["nap"], "reason": "tidy" });
    let stop = json!({ "name": "stop", "arguments": arguments });
    let denied = say(&session, "tools/call", stop.clone()).await.json();
    assert_eq!(denied["result"]["structuredContent"]["kind"], "permission_denied", "{denied}");
    // A session that is not known is nobody's, and is told to begin again.
    assert_eq!(say("Mcp-Session-Id: mcp-x-1\r\n", "tools/list", json!({})).await.status, 404);
    // The newer era says who asks each time.
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientInfo": client,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let mut modern = stop;
    modern["_meta"] = meta;
    let denied = say(&call_headers("stop"), "tools/call", modern).await.json();
    assert_eq!(denied["result"]["structuredContent"]["kind"], "permission_denied", "{denied}");
    let restart = json!({ "name": "restart", "arguments": arguments });
    let (restarted, said) =
        tokio::join!(say(&session, "tools/call", restart), answer(&world, "approve", json!({})));
    assert_eq!(restarted.json()["result"]["isError"], false, "{restarted:?} {said}");
    let rows = world
        .until("the audit log", async || {
            let rows = [audited(&world, "stop"), audited(&world, "restart")].concat();
            (rows.len() == 3).then_some(rows)
        })
        .await;
    let expected = [
        ["mcp:robot", "mcp", "denied", "permission_denied"],
        ["mcp:robot", "mcp", "denied", "permission_denied"],
        ["mcp:robot", "mcp", "approved", "ok"],
    ];
    assert_eq!(rows, expected);
    assert_eq!(post(&connection, "/mcp", "", "").await.json()["error"]["code"], -32700);
}

/// The ways by which a robot can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Socket,
    Http,
    /// MCP with a session, as before 2026.
    Mcp,
    /// MCP without one.
    McpAlone,
}

const WAYS: [Way; 4] = [Way::Socket, Way::Http, Way::Mcp, Way::McpAlone];

impl Way {
    /// Returns the client and the surface that rules and the audit log see.
    fn names(self) -> [&'static str; 2] {
        match self {
            Self::Socket => ["robot", "socket"],
            Self::Http => ["robot", "http"],
            Self::Mcp | Self::McpAlone => ["mcp:robot", "mcp"],
        }
    }
}

/// Asks for `nap` to be stopped; returns what was said if it was refused.
async fn stop(world: &World, connection: &Connection, way: Way) -> Result<(), String> {
    let said = match way {
        Way::Http => {
            let said = robot(connection, "/v1/servers/nap/stop?wait=true").await.1;
            return refusal(&said["error"]["message"]);
        }
        Way::Socket => {
            let mut stream = UnixStream::connect(world.socket()).await.expect("it listens");
            let line = |id: u8, method: &str, params: Value| {
                json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
            };
            let hello = line(1, "identify", json!({ "client": "robot" }));
            let stop = line(2, "stop", json!({ "names": ["nap"] }));
            stream.write_all(format!("{hello}\n").as_bytes()).await.expect("it reads");
            let mut lines = BufReader::new(stream).lines();
            lines.next_line().await.expect("it answers").expect("it knows the robot");
            lines.get_mut().write_all(format!("{stop}\n").as_bytes()).await.expect("it reads");
            let answer = lines.next_line().await.expect("it answers").expect("an outcome");
            let said: Value = serde_json::from_str(&answer).expect("JSON");
            return refusal(&said["error"]["message"]);
        }
        Way::Mcp => {
            let client = json!({ "name": "robot", "version": "1" });
            let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
            let hello =
                json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello }).to_string();
            let hello = post(connection, "/mcp", "", &hello).await;
            let session = format!("Mcp-Session-Id: {}\r\n", hello.header("mcp-session-id").expect("one"));
            let params = json!({ "name": "stop", "arguments": { "names": ["nap"] } });
            let call = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params });
            post(connection, "/mcp", &session, &call.to_string()).await.json()
        }
        Way::McpAlone => {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": { "name": "robot", "version": "1" },
            });
            let params = json!({ "name": "stop", "arguments": { "names": ["nap"] }, "_meta": meta });
            let call = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params });
            post(connection, "/mcp", &call_headers("stop"), &call.to_string()).await.json()
        }
    };
    refusal(&said["result"]["structuredContent"]["message"])
}

fn refusal(message: &Value) -> Result<(), String> {
    message.as_str().map_or(Ok(()), |message| Err(message.to_owned()))
}

/// Waits for a question and answers it over HTTP, as an operator with the same token.
async fn decide(world: &World, connection: &Connection, verdict: &str, body: &str) -> Value {
    let id = world
        .until("a question", async || {
            let waiting = get(connection, "/v1/approvals").await;
            waiting["approvals"][0]["id"].as_str().map(ToOwned::to_owned)
        })
        .await;
    let said = post(connection, &format!("/v1/approvals/{id}/{verdict}"), "", body).await;
    assert_eq!(said.status, 200, "{said:?}");
    said.json()
}

async fn get(connection: &Connection, target: &str) -> Value {
    super::daemon::ask(connection, "GET", target).await.json()
}

/// Waits until the audit log has this many lines about `stop`.
async fn audited_stops(world: &World, lines: usize) -> Vec<Vec<String>> {
    let rows = world.until("the audit log", async || {
        let rows = audited(world, "stop");
        (rows.len() >= lines).then_some(rows)
    });
    rows.await
}

#[tokio::test]
async fn a_question_that_nobody_answers_is_a_refusal_by_every_way() {
    let rules =
        r#"(permissions: [(decision: Ask, client: "*robot", action: "stop")], permission_timeout: "50ms")"#;
    let world = World::start_with(rules, &["--http", "127.0.0.1:0"], &[]);
    let connection = world.connection().await;
    for way in WAYS {
        let refused = stop(&world, &connection, way).await.expect_err("nobody answers");
        assert!(refused.contains("none came within 50ms"), "{way:?}: {refused}");
    }
    let [client, surface] = [0, 1].map(|index| WAYS.map(|way| way.names()[index]));
    let rows = audited_stops(&world, WAYS.len()).await;
    let expected: Vec<_> = client
        .iter()
        .zip(surface)
        .map(|(client, surface)| [client, surface, "timed_out", "permission_denied"].to_vec())
        .collect();
    assert_eq!(rows, expected);
    assert_eq!(get(&connection, "/v1/approvals").await, json!({ "approvals": [] }));
    assert_eq!(get(&connection, "/v1/servers/nap").await["state"], "running");
}

#[tokio::test]
async fn by_every_way_what_is_remembered_outlives_the_daemon_and_what_is_forgotten_is_asked_again() {
    for way in WAYS {
        let rules = r#"(permissions: [(decision: Ask, client: "*robot", action: "stop")], permission_timeout: "10m")"#;
        let mut world = World::start_with(rules, &["--http", "127.0.0.1:0"], &[]);
        let connection = world.connection().await;
        let (denied, _) = tokio::join!(
            stop(&world, &connection, way),
            decide(&world, &connection, "deny", r#"{"reason": "not now"}"#)
        );
        assert!(denied.as_ref().is_err_and(|why| why.contains("not now")), "{way:?}: {denied:?}");
        let (stopped, said) = tokio::join!(
            stop(&world, &connection, way),
            decide(&world, &connection, "approve", r#"{"remember": "always"}"#)
        );
        assert_eq!(stopped, Ok(()), "{way:?}");
        let grant = said["grants"][0].as_str().expect("a grant").to_owned();
        let state = async |connection: &Connection| {
            get(connection, "/v1/servers/nap").await["state"].as_str().map(ToOwned::to_owned)
        };
        assert_eq!(state(&connection).await.as_deref(), Some("stopped"), "{way:?}");

        world.restart().await;
        let connection = world.connection().await;
        assert_eq!(stop(&world, &connection, way).await, Ok(()), "{way:?}");
        assert_eq!(state(&connection).await.as_deref(), Some("stopped"), "{way:?}");
        let grants = get(&connection, "/v1/grants").await;
        assert_eq!((&grants["grants"][0]["id"], &grants["grants"][1]), (&json!(grant), &Value::Null));

        let target = format!("/v1/grants/{grant}");
        let forgotten = super::daemon::ask(&connection, "DELETE", &target).await;
        assert_eq!(forgotten.json()["forgotten"]["target"], "nap", "{way:?}: {forgotten:?}");
        let again = super::daemon::ask(&connection, "DELETE", &target).await;
        assert_eq!((again.status, again.kind().as_str()), (404, "grant_not_found"), "{again:?}");
        let (stopped, said) =
            tokio::join!(stop(&world, &connection, way), decide(&world, &connection, "approve", ""));
        assert_eq!((stopped, &said["grants"]), (Ok(()), &json!([])), "{way:?}");

        let [client, surface] = way.names();
        let expected =
            [["refused", "permission_denied"], ["approved", "ok"], ["granted", "ok"], ["approved", "ok"]]
                .map(|[decision, outcome]| [client, surface, decision, outcome]);
        assert_eq!(audited_stops(&world, expected.len()).await, expected, "{way:?}");
        let target = "/v1/approvals/1/approve";
        let late = super::daemon::ask(&connection, "POST", target).await;
        assert_eq!((late.status, late.kind().as_str()), (404, "approval_not_found"), "{late:?}");
    }
}

#[tokio::test]
async fn over_http_nobody_answers_what_goes_by_the_same_name() {
    let rules =
        r#"(permissions: [(decision: Ask, client: "robot", action: "stop")], permission_timeout: "10m")"#;
    let world = World::start_with(rules, &["--http", "127.0.0.1:0"], &[]);
    let connection = world.connection().await;
    let refused = async {
        let id = world
            .until("a question", async || {
                get(&connection, "/v1/approvals").await["approvals"][0]["id"].as_str().map(ToOwned::to_owned)
            })
            .await;
        let target = format!("/v1/approvals/{id}/approve");
        let own = robot(&connection, &target).await;
        assert_eq!(own.0, 400, "`reason` is no parameter of `approve`: {own:?}");
        let own = post(&connection, &target, "Xy-Client: robot\r\n", "").await;
        assert_eq!((own.status, own.kind().as_str()), (403, "permission_denied"), "{own:?}");
        decide(&world, &connection, "approve", "").await
    };
    let (stopped, _) = tokio::join!(stop(&world, &connection, Way::Http), refused);
    assert_eq!(stopped, Ok(()));
}
