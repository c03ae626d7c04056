//! What an MCP server is asked beside its readiness, in both protocol eras.

use std::time::Duration;

use serde_json::{Map, Value, json};
use xy_actors::process::readiness::{McpQuestion, ProbeFailure, Prober};
use xy_actors::process::{PortOwner, Readiness};

use crate::server::{Reply, Request, Server, answer, json};

fn prober(server: &Server) -> Prober {
    let readiness = Readiness::Mcp { path: "/mcp".to_owned(), host: "localhost".to_owned() };
    Prober::new(readiness, Some(server.port), PortOwner::Own)
}

async fn ask(server: &Server, question: &McpQuestion) -> Result<Value, ProbeFailure> {
    prober(server).ask_mcp(&[std::process::id()], question).await.map(Value::Object)
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(members) = value else { panic!("expected an object: {value}") };
    members
}

fn result(request: &Request, result: Value) -> Reply {
    json(200, &json!({ "jsonrpc": "2.0", "id": request.body["id"], "result": result }))
}

fn error(request: &Request, code: i64, message: &str) -> Reply {
    let error = json!({ "code": code, "message": message });
    json(200, &json!({ "jsonrpc": "2.0", "id": request.body["id"], "error": error }))
}

/// What a server of either era answers once it is spoken to in the right way.
fn content(request: &Request) -> Reply {
    let params = &request.body["params"];
    match (request.rpc(), params["cursor"].as_str()) {
        ("tools/list", None) => result(request, json!({ "tools": [{ "name": "add" }], "nextCursor": "2" })),
        ("tools/list", Some("2")) => result(request, json!({ "tools": [{ "name": "crash" }] })),
        ("prompts/list", _) => result(request, json!({ "prompts": [{ "name": "greet" }] })),
        ("resources/list", _) => result(request, json!({ "resources": [{ "uri": "file:///a" }] })),
        ("resources/templates/list", _) => error(request, -32601, "no templates"),
        ("prompts/get", _) => {
            let text = format!("Hello, {}", params["arguments"]["who"].as_str().unwrap_or("nobody"));
            let message = json!({ "role": "user", "content": { "type": "text", "text": text } });
            result(request, json!({ "messages": [message] }))
        }
        ("resources/read", _) => {
            result(request, json!({ "contents": [{ "uri": params["uri"], "text": "a" }] }))
        }
        ("tools/call", _) if params["name"] == "add" => {
            let sum = params["arguments"]["a"].as_i64().unwrap_or(0) + 1;
            result(request, json!({ "content": [{ "type": "text", "text": sum.to_string() }] }))
        }
        ("tools/call", _) => error(request, -32602, "no such tool"),
        _ => error(request, -32601, "what?"),
    }
}

fn capabilities() -> Value {
    json!({ "tools": {}, "prompts": {}, "resources": {} })
}

fn modern(request: &Request) -> Reply {
    if request.header("mcp-method") != Some(request.rpc()) {
        return error(request, -32022, "the headers are missing");
    }
    match request.rpc() {
        "server/discover" => {
            let found = json!({ "supportedVersions": ["2026-07-28"], "capabilities": capabilities() });
            result(request, found)
        }
        _ => content(request),
    }
}

fn older(request: &Request) -> Reply {
    match request.rpc() {
        "initialize" => {
            let opened = json!({ "protocolVersion": "2025-06-18", "capabilities": capabilities() });
            let body = json!({ "jsonrpc": "2.0", "id": request.body["id"], "result": opened });
            let headers = [("Content-Type", "application/json"), ("Mcp-Session-Id", "s-1")];
            answer(200, &headers, &body.to_string())
        }
        _ if request.header("mcp-session-id") != Some("s-1") => json(
            400,
            &json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32000, "message": "who?" } }),
        ),
        "notifications/initialized" => answer(202, &[], ""),
        "DELETE" => answer(200, &[], ""),
        _ => content(request),
    }
}

/// The same answer as an event of a stream that stays open, after one that is none.
fn streamed(script: fn(&Request) -> Reply) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    move |request| {
        let Reply::Close(bytes) = script(request) else { panic!("expected a complete answer") };
        let text = String::from_utf8(bytes).expect("a text answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        if body.is_empty() {
            return Reply::Close(text.into_bytes());
        }
        let session = if head.contains("Mcp-Session-Id") { "Mcp-Session-Id: s-1\r\n" } else { "" };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{session}");
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}"#;
        Reply::Hold(format!("{head}\r\ndata: {progress}\n\ndata: {body}\n\n").into_bytes())
    }
}

#[tokio::test]
async fn every_question_is_answered_in_both_eras_as_json_and_as_a_stream() {
    let arguments = |value: Value| object(value);
    let questions = [
        (McpQuestion::Tools, json!({ "tools": [{ "name": "add" }, { "name": "crash" }] })),
        (McpQuestion::Prompts, json!({ "prompts": [{ "name": "greet" }] })),
        (McpQuestion::Resources, json!({ "resources": [{ "uri": "file:///a" }], "resourceTemplates": [] })),
        (
            McpQuestion::Prompt { name: "greet".into(), arguments: arguments(json!({ "who": "Ada" })) },
            json!({ "messages": [{ "role": "user", "content": { "type": "text", "text": "Hello, Ada" } }] }),
        ),
        (
            McpQuestion::Resource { uri: "file:///a".into() },
            json!({ "contents": [{ "uri": "file:///a", "text": "a" }] }),
        ),
        (
            McpQuestion::Call { name: "add".into(), arguments: arguments(json!({ "a": 1 })) },
            json!({ "content": [{ "type": "text", "text": "2" }] }),
        ),
    ];
    for script in [modern, older] {
        let servers = [Server::start(script).await, Server::start(streamed(script)).await];
        for (server, (question, expected)) in
            servers.iter().flat_map(|server| questions.iter().map(move |question| (server, question)))
        {
            let found = ask(server, question).await.unwrap_or_else(|error| panic!("{question:?}: {error}"));
            assert_eq!(&found, expected, "{question:?}");
        }
    }
}

#[tokio::test]
async fn a_modern_server_is_told_in_the_head_what_a_request_is_about() {
    let server = Server::start(modern).await;
    for (name, header) in
        [("add", "add"), ("a\r\nX: y", "=?base64?YQ0KWDogeQ==?="), ("\u{e9}", "=?base64?w6k=?=")]
    {
        let question = McpQuestion::Call { name: name.to_owned(), arguments: Map::new() };
        // Only the first one is there.
        let _ = ask(&server, &question).await;
        let requests = server.requests();
        let last = requests.last().expect("a request");
        assert_eq!((last.rpc(), last.header("mcp-name")), ("tools/call", Some(header)));
        assert_eq!(last.header("x"), None);
        assert_eq!(last.body["params"]["name"], name);
    }
}

#[tokio::test]
async fn an_older_server_gets_its_session_ended_after_an_answer_and_after_a_refusal() {
    for name in ["add", "nothing"] {
        let server = Server::start(older).await;
        let question = McpQuestion::Call { name: name.to_owned(), arguments: Map::new() };
        let answered = ask(&server, &question).await;
        assert_eq!(answered.is_ok(), name == "add", "{answered:?}");
        let asked = server.asked();
        assert_eq!(asked[asked.len() - 2..], ["tools/call", "DELETE"]);
    }
}

#[tokio::test]
async fn what_a_server_does_not_announce_is_an_empty_list_that_nobody_asked_for() {
    let server = Server::start(|request| match request.rpc() {
        "server/discover" => {
            result(request, json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} } }))
        }
        other => panic!("{other} was asked"),
    })
    .await;
    assert_eq!(ask(&server, &McpQuestion::Prompts).await.expect("a list"), json!({ "prompts": [] }));
    let empty = json!({ "resources": [], "resourceTemplates": [] });
    assert_eq!(ask(&server, &McpQuestion::Resources).await.expect("a list"), empty);
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_refused_and_not_cut() {
    let long = |request: &Request| match request.rpc() {
        "tools/list" => result(request, json!({ "tools": [{ "name": "x".repeat(1 << 20) }] })),
        _ => modern(request),
    };
    let failure = ask(&Server::start(long).await, &McpQuestion::Tools).await.expect_err("too long");
    assert!(matches!(failure, ProbeFailure::TooLong { limit: 786_432, .. }), "{failure:?}");

    let many = |request: &Request| match request.rpc() {
        "tools/list" => {
            let next = request.body["id"].to_string();
            result(request, json!({ "tools": [{ "name": "x".repeat(20_000) }], "nextCursor": next }))
        }
        _ => modern(request),
    };
    let server = Server::start(many).await;
    let failure = ask(&server, &McpQuestion::Tools).await.expect_err("too many pages");
    assert!(matches!(failure, ProbeFailure::TooLong { .. }), "{failure:?}");
    assert!(server.requests().len() < 66, "{}", server.requests().len());
}

#[tokio::test]
async fn a_list_that_repeats_its_cursor_ends() {
    let server = Server::start(|request| match request.rpc() {
        "tools/list" => result(request, json!({ "tools": [{ "name": "a" }], "nextCursor": "same" })),
        _ => modern(request),
    })
    .await;
    let tools = ask(&server, &McpQuestion::Tools).await.expect("a list");
    assert_eq!(tools, json!({ "tools": [{ "name": "a" }, { "name": "a" }] }));
}

#[tokio::test]
async fn a_tool_that_never_ends_is_not_waited_for_longer_than_asked() {
    let server = Server::start(|request| match request.rpc() {
        "tools/call" => Reply::Hold(Vec::new()),
        _ => older(request),
    })
    .await;
    let question = McpQuestion::Call { name: "add".to_owned(), arguments: Map::new() };
    let mut prober = prober(&server).attempt_timeout(Duration::from_secs(2));
    let failure = prober.ask_mcp(&[std::process::id()], &question).await.expect_err("no answer");
    assert_eq!(failure.to_string(), "`tools/call` was not answered within 2s");
    assert_eq!(server.asked().last().map(String::as_str), Some("DELETE"));
}

#[tokio::test]
async fn nobody_but_the_child_itself_is_asked() {
    let server = Server::start(modern).await;
    // A process that holds no port.
    let failure = prober(&server).ask_mcp(&[1], &McpQuestion::Tools).await.expect_err("another's port");
    assert!(matches!(failure, ProbeFailure::ForeignHolder { .. }), "{failure:?}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = Server::start(|_| answer(307, &[("Location", "http://127.0.0.1:1/mcp")], "")).await;
    let failure = ask(&server, &McpQuestion::Tools).await.expect_err("a redirect");
    assert!(matches!(failure, ProbeFailure::Http { status: 307, .. }), "{failure:?}");
}
