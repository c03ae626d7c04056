//! Clients with tokens of their own: every method and every endpoint by every scope, and the token's life.

use serde_json::{Value, json};
use xy_daemon::http::connection_file::Connection;
use xy_daemon::http::route::{Access, Endpoint, ROUTES, Verb};
use xy_daemon::protocol::method::METHODS;
use xy_daemon::protocol::scope::{Scope, scope_of};

use super::daemon::{World, ask, post};
use super::mcp::call_headers;
use super::permission::on_socket;
use super::server::{Answer, Server, Wire};

const ALL: [Scope; 3] = [Scope::Read, Scope::Operate, Scope::Admin];

/// A server, and the token of a client of each scope.
async fn server() -> (Server, Vec<(Scope, String)>) {
    let server = Server::start().await;
    let mut tokens = Vec::new();
    for scope in ALL {
        let secret = server.credentials.clients().add(&format!("a-{scope}"), scope).await.expect("kept");
        tokens.push((scope, secret.expose().to_owned()));
    }
    (server, tokens)
}

async fn send(server: &Server, token: &str, method: &str, target: &str, body: &str) -> Answer {
    send_with(server, token, method, target, "", body).await
}

/// Sends a request with more lines of its head.
async fn send_with(
    server: &Server,
    token: &str,
    method: &str,
    target: &str,
    more: &str,
    body: &str,
) -> Answer {
    let address = server.address;
    let body = match method {
        "GET" => "\r\n".to_owned(),
        _ => format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
    };
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n{more}");
    server.send(head + &body).await
}

async fn rpc(server: &Server, token: &str, body: Value) -> Value {
    send(server, token, "POST", "/v1/rpc", &body.to_string()).await.json()
}

fn is_out_of_scope(error: &Value, method: &str, needed: Scope) -> bool {
    let message = error["message"].as_str().unwrap_or_default();
    error["data"]["kind"] == "permission_denied"
        && message.starts_with(&format!("`{method}` needs the scope `{needed}`"))
}

#[tokio::test]
async fn every_method_is_open_to_its_scope_and_those_above_and_to_no_other() {
    let (server, tokens) = server().await;
    for method in METHODS {
        let needed = scope_of(method).expect("every method has one");
        for (scope, token) in &tokens {
            let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method });
            let answer = rpc(&server, token, request).await;
            let is_refused = is_out_of_scope(&answer["error"], method, needed);
            assert_eq!(is_refused, *scope < needed, "{method} by {scope}: {answer}");
        }
    }
    for (scope, token) in &tokens {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "run_everything" });
        let answer = rpc(&server, token, request).await;
        let kind = if *scope == Scope::Admin { "method_not_found" } else { "permission_denied" };
        assert_eq!(answer["error"]["data"]["kind"], kind, "what there is not is no way around: {answer}");
    }
}

#[tokio::test]
async fn every_endpoint_is_open_to_its_scope_and_those_above_and_to_no_other() {
    let (server, tokens) = server().await;
    for route in ROUTES.iter().filter(|route| route.access == Access::Token) {
        // What is asked of them has a scope of its own.
        if matches!(route.endpoint, Endpoint::Rpc | Endpoint::Mcp | Endpoint::Events) {
            continue;
        }
        let path = ["{path}", "{id}", "{name}"]
            .iter()
            .fold(route.path.to_owned(), |path, one| path.replace(one, "x"));
        let body = if route.verb == Verb::Get { "" } else { "{}" };
        for (scope, token) in &tokens {
            let answer = send(&server, token, route.verb.as_str(), &path, body).await;
            let is_refused = answer.status == 403;
            assert_eq!(
                is_refused,
                *scope < route.scope(),
                "{} {path} by {scope}: {answer:?}",
                route.verb.as_str()
            );
            assert!(answer.status != 401 && answer.status != 202 || *scope >= route.scope(), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_batch_is_judged_request_by_request() {
    let (server, tokens) = server().await;
    let requests = ["list", "stop", "shutdown"].map(|method| {
        let params = if method == "stop" { json!({ "names": ["files"] }) } else { json!({}) };
        json!({ "jsonrpc": "2.0", "id": method, "method": method, "params": params })
    });
    for (scope, token) in &tokens {
        let answers = rpc(&server, token, json!(requests)).await;
        for answer in answers.as_array().expect("a batch") {
            let method = answer["id"].as_str().expect("ours");
            let needed = scope_of(method).expect("known");
            assert_eq!(
                is_out_of_scope(&answer["error"], method, needed),
                *scope < needed,
                "{scope}: {answer}"
            );
            assert_eq!(answer.get("result").is_some(), *scope >= needed, "{scope}: {answer}");
        }
    }
}

#[tokio::test]
async fn tools_of_mcp_are_bound_by_the_scope_of_the_token() {
    let (server, tokens) = server().await;
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "root", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    for (tool, method, arguments) in [
        ("status", "status", json!({ "name": "files" })),
        ("stop", "stop", json!({ "names": ["files"] })),
        ("start", "start", json!({ "names": ["files"] })),
    ] {
        let needed = scope_of(method).expect("known");
        for (scope, token) in &tokens {
            let call = json!({
                "jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": { "name": tool, "arguments": arguments, "_meta": meta },
            });
            let headers = call_headers(tool);
            let answer = send_with(&server, token, "POST", "/mcp", &headers, &call.to_string()).await;
            assert_eq!(answer.status, 200, "{tool} by {scope}: {answer:?}");
            let said = format!(
                "`{method}` needs the scope `{needed}`, and the token of `mcp:a-{scope}` has `{scope}`"
            );
            assert_eq!(answer.body.contains(&said), *scope < needed, "{tool} by {scope}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn what_a_reload_would_do_may_be_asked_by_whoever_may_read() {
    let (server, tokens) = server().await;
    for (scope, token) in &tokens {
        for (params, is_allowed) in [
            (json!({ "dry_run": true }), true),
            (json!({ "dry_run": false }), *scope == Scope::Admin),
            (json!({}), *scope == Scope::Admin),
            // What the method does not take for a dry run is none.
            (json!({ "dry_run": "true" }), *scope == Scope::Admin),
            (json!({ "dry_run": true, "name": "x" }), *scope == Scope::Admin),
        ] {
            let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "reload", "params": params });
            let answer = rpc(&server, token, request).await;
            let is_refused = is_out_of_scope(&answer["error"], "reload", Scope::Admin);
            assert_eq!(is_refused, !is_allowed, "{scope}, {params}: {answer}");
            let answer =
                send(&server, token, "POST", "/v1/admin/reload?wait=true", &params.to_string()).await;
            assert_eq!(answer.status == 403, !is_allowed, "{scope}, {params}: {answer:?}");
        }
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "root", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let call = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": "check", "arguments": {}, "_meta": meta },
        });
        let answer =
            send_with(&server, token, "POST", "/mcp", &call_headers("check"), &call.to_string()).await;
        assert!(answer.status == 200 && !answer.body.contains("needs the scope"), "{scope}: {answer:?}");
    }
}

async fn made(world: &World, name: &str, scope: &str) -> String {
    let made = on_socket(world, "token_add", json!({ "name": name, "scope": scope })).await;
    made["result"]["token"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

fn by(connection: &Connection, token: &str) -> Connection {
    let token = xy_daemon::http::secret::Secret::parse(token).expect("a token");
    Connection { token, ..connection.clone() }
}

#[tokio::test]
async fn a_token_is_made_used_rotated_and_taken_back_and_outlives_the_daemon() {
    let mut world = World::start_with("()", &["--http", "127.0.0.1:0"], &[]);
    let connection = world.connection().await;
    let (ci, reader) = (made(&world, "ci", "operate").await, made(&world, "reader", "read").await);
    let taken = on_socket(&world, "token_add", json!({ "name": "ci", "scope": "admin" })).await;
    assert_eq!(taken["error"]["data"]["parameter"], "name", "{taken}");
    let stop = "/v1/servers/nap/stop?wait=true";
    // Whatever it says of itself.
    let stopped = post(&by(&connection, &ci), stop, "Xy-Client: root\r\n", "").await;
    assert_eq!(stopped.status, 200, "{stopped:?}");
    let refused = post(&by(&connection, &reader), stop, "Xy-Client: root\r\n", "").await;
    assert_eq!((refused.status, refused.kind().as_str()), (403, "permission_denied"), "{refused:?}");
    let lines = world
        .until("the audit log", async || {
            let text = std::fs::read_to_string(world.state("audit.log")).unwrap_or_default();
            let lines: Vec<Value> = text
                .lines()
                .map(|line| serde_json::from_str(line).expect("JSON"))
                .filter(|line: &Value| line["action"] == "stop")
                .collect();
            (lines.len() == 2).then_some(lines)
        })
        .await;
    let told = |line: &Value| {
        ["client", "decision", "outcome"].map(|key| line[key].as_str().expect("there").to_owned())
    };
    assert_eq!(told(&lines[0]), ["ci", "allowed", "ok"]);
    assert_eq!(told(&lines[1]), ["reader", "denied", "permission_denied"]);

    // What was asked for is known on the socket, whoever asked.
    let operations = on_socket(&world, "operations", json!({})).await;
    let operation = &operations["result"]["operations"][0];
    assert_eq!(
        (&operation["method"], &operation["server"], &operation["state"]),
        (&json!("stop"), &json!("nap"), &json!("done"))
    );
    let whole = on_socket(&world, "operation", json!({ "id": operation["id"] })).await;
    assert_eq!(whole["result"]["result"]["stopped"], json!(["nap"]), "{whole}");
    let diagnostics = on_socket(&world, "diagnostics", json!({})).await;
    assert_eq!(diagnostics["result"]["http"]["clients"], 2, "{diagnostics}");
    assert!(diagnostics["result"]["connections"].as_u64() >= Some(1), "{diagnostics}");
    for secret in [&ci, &reader, connection.token.expose()] {
        assert!(!diagnostics.to_string().contains(secret) && !operations.to_string().contains(secret));
    }

    world.restart().await;
    let connection = world.connection().await;
    assert_eq!(ask(&by(&connection, &ci), "GET", "/v1/status").await.status, 200);
    let rotated = on_socket(&world, "rotate_token", json!({ "name": "ci" })).await;
    let new = rotated["result"]["token"].as_str().expect("it is told").to_owned();
    for token in [&ci, &new] {
        assert_eq!(ask(&by(&connection, token), "GET", "/v1/status").await.status, 200, "within the grace");
    }
    // A stream ends with its token.
    let address = connection.base_url["http://".len()..].parse().expect("an address");
    let mut stream = Wire::connect(address).await;
    stream
        .send(format!("GET /v1/events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {new}\r\n\r\n"))
        .await;
    let removed = on_socket(&world, "token_remove", json!({ "name": "ci" })).await;
    assert_eq!(removed["result"]["removed"]["scope"], "operate", "{removed}");
    assert!(stream.answer().await.body.contains("event: reset"), "and it has ended");
    for token in [&ci, &new] {
        assert_eq!(ask(&by(&connection, token), "GET", "/v1/status").await.status, 401);
    }
    let left = on_socket(&world, "tokens", json!({})).await;
    assert_eq!(left["result"]["tokens"][0]["name"], "reader", "{left}");
    let own = on_socket(&world, "rotate_token", json!({})).await;
    assert!(own["result"]["token_file"].is_string() && own["result"].get("token").is_none(), "{own}");
}

#[tokio::test]
async fn without_http_there_are_no_tokens_and_that_is_said() {
    let world = World::start_with("()", &[], &[]);
    world.until("the socket", async || std::os::unix::net::UnixStream::connect(world.socket()).ok()).await;
    for (method, params) in
        [("tokens", json!({})), ("rotate_token", json!({})), ("token_remove", json!({ "name": "x" }))]
    {
        let answer = on_socket(&world, method, params).await;
        assert_eq!(answer["error"]["data"]["kind"], "unsupported", "{answer}");
    }
    let diagnostics = on_socket(&world, "diagnostics", json!({})).await;
    assert!(diagnostics["result"]["daemon"]["pid"].is_u64() && diagnostics["result"].get("http").is_none());
}
