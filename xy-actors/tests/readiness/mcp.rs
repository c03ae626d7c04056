//! The MCP probe in both protocol eras.

use std::time::Duration;

use serde_json::{Value, json};
use xy_actors::process::readiness::{ProbeFailure, Prober};
use xy_actors::process::{PortOwner, Readiness};

use crate::server::{Reply, Request, Server, answer, json};

fn prober(server: &Server) -> Prober {
    let readiness = Readiness::Mcp { path: "/mcp".to_owned(), host: "localhost".to_owned() };
    Prober::new(readiness, Some(server.port), PortOwner::Own)
}

async fn check(server: &Server) -> Result<(), ProbeFailure> {
    prober(server).check(&[std::process::id()]).await
}

/// Returns the response to a request.
fn result(request: &Request, result: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": request.body["id"], "result": result })
}

fn error(request: &Request, code: i64) -> Value {
    json!({ "jsonrpc": "2.0", "id": request.body["id"], "error": { "code": code, "message": "no\n!" } })
}

fn tools(request: &Request) -> Value {
    result(request, json!({ "tools": [{ "name": "add" }] }))
}

/// A server of the modern era only.
fn modern(request: &Request) -> Reply {
    if request.header("mcp-protocol-version") != Some("2026-07-28")
        || request.header("mcp-method") != Some(request.rpc())
        || request.body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] != "2026-07-28"
    {
        return json(400, &error(request, -32022));
    }
    match request.rpc() {
        "server/discover" => json(200, &result(request, json!({ "supportedVersions": ["2026-07-28"] }))),
        "tools/list" => json(200, &tools(request)),
        _ => json(404, &error(request, -32601)),
    }
}

/// A server of the older era only, with a session.
fn older(request: &Request) -> Reply {
    if request.rpc() == "initialize" {
        let body = result(request, json!({ "protocolVersion": "2025-06-18", "capabilities": {} }));
        let headers = [("Content-Type", "application/json"), ("MCP-Session-Id", "s-1")];
        return answer(200, &headers, &body.to_string());
    }
    if request.header("mcp-session-id") != Some("s-1") {
        let body =
            json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32000, "message": "no session" } });
        return json(400, &body);
    }
    match request.rpc() {
        "notifications/initialized" => answer(202, &[], ""),
        "tools/list" => json(200, &tools(request)),
        "DELETE" => answer(405, &[], ""),
        _ => json(200, &error(request, -32602)),
    }
}

/// The same answer as an event of a stream that stays open.
fn as_event(reply: Reply) -> Reply {
    let Reply::Close(bytes) = reply else { panic!("expected a complete answer") };
    let text = String::from_utf8(bytes).expect("a text answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let head: Vec<_> = head
        .split("\r\n")
        .filter(|line| !line.starts_with("Content-"))
        .chain(["Content-Type: text/event-stream; charset=utf-8", "Transfer-Encoding: chunked"])
        .collect();
    let noise = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
    let events = format!(": hi\n\nevent: message\ndata: {noise}\n\nevent: message\ndata: {body}\n\n");
    let chunks: String = events.as_bytes().chunks(7).fold(String::new(), |text, chunk| {
        text + &format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk))
    });
    Reply::Hold(format!("{}\r\n\r\n{chunks}", head.join("\r\n")).into_bytes())
}

/// `script`, but with another answer to one method.
fn except(
    script: fn(&Request) -> Reply,
    method: &'static str,
    other: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    move |request| if request.rpc() == method { other(request) } else { script(request) }
}

#[tokio::test]
async fn a_modern_server_is_ready_after_two_requests_and_has_nothing_to_forget() {
    let server = Server::start(modern).await;
    check(&server).await.expect("ready");
    assert_eq!(server.asked(), ["server/discover", "tools/list"]);
    for request in server.requests() {
        assert_eq!(request.line, "POST /mcp");
        assert_eq!(request.header("accept"), Some("application/json, text/event-stream"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("origin"), None);
        assert_eq!(request.body["params"]["_meta"]["io.modelcontextprotocol/clientInfo"]["name"], "xy");
    }
}

#[tokio::test]
async fn an_older_server_gets_its_session_echoed_and_deleted() {
    let server = Server::start(older).await;
    check(&server).await.expect("ready");
    assert_eq!(
        server.asked(),
        ["server/discover", "initialize", "notifications/initialized", "tools/list", "DELETE"]
    );
    let requests = server.requests();
    assert_eq!(requests[1].header("mcp-session-id"), None);
    assert_eq!(requests[1].body["params"]["protocolVersion"], "2025-11-25");
    for request in &requests[2..] {
        assert_eq!(request.header("mcp-session-id"), Some("s-1"));
        assert_eq!(request.header("mcp-protocol-version"), Some("2025-06-18"), "the answered revision");
    }
    assert_eq!(requests[4].line, "DELETE /mcp");
}

#[tokio::test]
async fn a_server_of_both_eras_is_asked_in_the_modern_one() {
    let both =
        |request: &Request| if request.rpc() == "initialize" { older(request) } else { modern(request) };
    let server = Server::start(both).await;
    check(&server).await.expect("ready");
    assert_eq!(server.asked(), ["server/discover", "tools/list"]);
}

#[tokio::test]
async fn the_era_is_remembered() {
    let own = [std::process::id()];
    let server = Server::start(modern).await;
    let mut prober = prober(&server);
    prober.check(&own).await.expect("ready");
    prober.check(&own).await.expect("ready");
    assert_eq!(server.asked(), ["server/discover", "tools/list", "tools/list"]);

    let server = Server::start(older).await;
    let mut prober = self::prober(&server);
    prober.check(&own).await.expect("ready");
    prober.check(&own).await.expect("ready");
    let discoveries = server.asked().iter().filter(|method| *method == "server/discover").count();
    assert_eq!((discoveries, server.requests().len()), (1, 9));
}

#[tokio::test]
async fn an_answer_in_a_chunked_stream_that_stays_open_is_enough() {
    for script in [modern, older] {
        let server = Server::start(move |request| match request.rpc() {
            "notifications/initialized" | "DELETE" => script(request),
            _ => as_event(script(request)),
        })
        .await;
        check(&server).await.expect("ready");
    }
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_read_too() {
    let server = Server::start(|request| {
        let Reply::Close(bytes) = modern(request) else { panic!("expected a complete answer") };
        let text = String::from_utf8(bytes).expect("a text answer");
        let lines: Vec<_> = text.split("\r\n").filter(|line| !line.starts_with("Content-Length")).collect();
        Reply::Close(lines.join("\r\n").into_bytes())
    })
    .await;
    check(&server).await.expect("ready");
}

#[tokio::test]
async fn a_server_that_answers_initialize_but_cannot_list_tools_is_not_ready() {
    for script in [modern, older] {
        let server =
            Server::start(except(script, "tools/list", |request| json(200, &error(request, -32603)))).await;
        let failure = check(&server).await.expect_err("no tools");
        assert_eq!(failure.to_string(), "`tools/list` was answered with error -32603: no !");
    }
    let server = Server::start(except(older, "tools/list", |_| answer(502, &[], "Bad Gateway"))).await;
    let failure = check(&server).await.expect_err("no backend");
    assert_eq!(failure.to_string(), "`tools/list` was answered with status 502");
    assert_eq!(server.asked().last().map(String::as_str), Some("DELETE"));
}

#[tokio::test]
async fn a_server_without_tools_is_alive() {
    let modern =
        Server::start(except(modern, "tools/list", |request| json(404, &error(request, -32601)))).await;
    check(&modern).await.expect("ready");
    let older =
        Server::start(except(older, "tools/list", |request| json(200, &error(request, -32601)))).await;
    check(&older).await.expect("ready");
}

#[tokio::test]
async fn status_200_is_not_success() {
    let bodies = ["", "ok", "{}", "[]", r#"{"jsonrpc":"2.0","id":77,"result":{}}"#, r#"{"result":null}"#];
    for body in bodies {
        let headers = [("Content-Type", "application/json")];
        let server = Server::start(except(modern, "tools/list", move |_| answer(200, &headers, body))).await;
        let failure = check(&server).await.expect_err("no result");
        assert!(matches!(failure, ProbeFailure::Protocol { .. }), "{body:?}: {failure:?}");
    }
    let server = Server::start(|_| answer(200, &[], "")).await;
    let failure = check(&server).await.expect_err("no result");
    assert_eq!(failure.to_string(), "`initialize` was answered with no JSON-RPC response");
}

#[tokio::test]
async fn a_session_is_deleted_even_when_its_answer_is_useless() {
    let opened = [("Content-Type", "application/json"), ("Mcp-Session-Id", "s-2")];
    for body in ["", r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32603,"message":"broken"}}"#] {
        let server = Server::start(except(older, "initialize", move |_| answer(200, &opened, body))).await;
        check(&server).await.expect_err("no result");
        let requests = server.requests();
        let last = requests.last().expect("a request");
        assert_eq!((last.rpc(), last.header("mcp-session-id")), ("DELETE", Some("s-2")), "{body:?}");
    }
}

#[tokio::test]
async fn a_session_is_deleted_after_a_timeout_too() {
    let server = Server::start(except(older, "tools/list", |_| Reply::Hold(Vec::new()))).await;
    let failure = prober(&server)
        .attempt_timeout(Duration::from_secs(2))
        .check(&[std::process::id()])
        .await
        .expect_err("no answer");
    assert_eq!(failure.to_string(), "`tools/list` was not answered within 1.8s");
    assert_eq!(server.asked().last().map(String::as_str), Some("DELETE"));
}

#[tokio::test]
async fn a_server_that_never_answers_an_unknown_method_is_still_initialized() {
    let server = Server::start(except(older, "server/discover", |_| Reply::Hold(Vec::new()))).await;
    prober(&server)
        .attempt_timeout(Duration::from_secs(3))
        .check(&[std::process::id()])
        .await
        .expect("ready");
}

#[tokio::test]
async fn anything_but_a_modern_answer_to_discovery_means_the_older_era() {
    let answers: [fn(&Request) -> Reply; 8] = [
        |request| json(400, &error(request, -32000)),
        |request| json(400, &error(request, -32600)),
        |request| json(200, &error(request, -32602)),
        |request| json(200, &result(request, json!({}))),
        |_| answer(404, &[], "Not Found"),
        |_| answer(405, &[], ""),
        |_| answer(200, &[], ""),
        |request| {
            let data = json!({ "supported": ["2025-06-18", "2025-11-25"] });
            let error = json!({ "code": -32022, "message": "old", "data": data });
            json(400, &json!({ "jsonrpc": "2.0", "id": request.body["id"], "error": error }))
        },
    ];
    for (index, discovery) in answers.into_iter().enumerate() {
        let server = Server::start(except(older, "server/discover", discovery)).await;
        check(&server).await.unwrap_or_else(|failure| panic!("answer {index}: {failure}"));
    }
}

#[tokio::test]
async fn a_modern_refusal_is_not_followed_by_initialize() {
    for code in [-32020, -32021] {
        let server =
            Server::start(except(modern, "server/discover", move |request| json(400, &error(request, code))))
                .await;
        let failure = check(&server).await.expect_err("a refusal");
        assert!(matches!(failure, ProbeFailure::Mcp { code: named, .. } if named == code), "{failure:?}");
        assert_eq!(server.asked(), ["server/discover"]);
    }
}

#[tokio::test]
async fn a_server_that_refuses_initialize_as_modern_is_asked_so_from_then_on() {
    let server = Server::start(except(modern, "server/discover", |_| answer(503, &[], "busy"))).await;
    let mut prober = prober(&server);
    let own = [std::process::id()];
    prober.check(&own).await.expect_err("busy");
    prober.check(&own).await.expect("ready");
    assert_eq!(server.asked(), ["server/discover", "initialize", "tools/list"]);
}

#[tokio::test]
async fn the_configured_host_is_sent() {
    let strict = |request: &Request| match request.header("host") {
        Some(host) if host.starts_with("localhost:") => older(request),
        _ => answer(403, &[], "Invalid Host"),
    };
    let server = Server::start(strict).await;
    check(&server).await.expect("ready");

    let readiness = Readiness::Mcp { path: "/mcp".to_owned(), host: "127.0.0.1".to_owned() };
    let mut prober = Prober::new(readiness, Some(server.port), PortOwner::Own);
    let failure = prober.check(&[std::process::id()]).await.expect_err("a wrong host");
    assert!(matches!(failure, ProbeFailure::Http { status: 403, .. }), "{failure:?}");
}

#[tokio::test]
async fn a_redirect_is_reported_and_not_followed() {
    let server = Server::start(|_| answer(307, &[("Location", "/mcp/")], "")).await;
    let failure = check(&server).await.expect_err("a redirect");
    assert_eq!(failure.to_string(), "`initialize` was answered with status 307, a redirect to `/mcp/`");
    assert!(server.requests().iter().all(|request| request.line == "POST /mcp"));
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: ";
    let starts = ["application/json\r\n\r\n", "text/event-stream\r\n\r\n"];
    for start in starts {
        for again in ["data: {}\n\n", ": keep-alive\n\n", "data: x", " "] {
            let start = format!("{head}{start}");
            let script = move |_: &Request| Reply::Flood(start.clone().into_bytes(), again.into());
            let server = Server::start(except(modern, "tools/list", script)).await;
            let failure = check(&server).await.expect_err("no answer");
            assert!(matches!(failure, ProbeFailure::Protocol { .. }), "{again:?}: {failure:?}");
        }
    }
}

#[tokio::test]
async fn a_very_long_list_of_tools_is_judged_by_its_beginning() {
    let long = |request: &Request| {
        let tools = vec![json!({ "name": "x".repeat(1000) }); 10_000];
        json(200, &result(request, json!({ "tools": tools })))
    };
    let server = Server::start(except(modern, "tools/list", long)).await;
    check(&server).await.expect("ready");

    let garbage = |_: &Request| answer(200, &[("Content-Type", "application/json")], &"x".repeat(10 << 20));
    let server = Server::start(except(modern, "tools/list", garbage)).await;
    let failure = check(&server).await.expect_err("no answer");
    assert!(matches!(failure, ProbeFailure::Protocol { .. }), "{failure:?}");
}

#[tokio::test]
async fn one_session_is_kept_as_long_as_the_server_keeps_it() {
    let dead = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ended = std::sync::Arc::clone(&dead);
    let server = Server::start(move |request| {
        // A server that has forgotten its sessions says so once.
        if request.rpc() == "tools/list" && ended.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return answer(404, &[], "");
        }
        older(request)
    })
    .await;
    let mut prober = prober(&server).keeping_session();
    let pids = [std::process::id()];
    for _ in 0..3 {
        prober.check(&pids).await.expect("ready");
    }
    let opened = |asked: &[String]| asked.iter().filter(|method| *method == "initialize").count();
    assert_eq!(opened(&server.asked()), 1);
    dead.store(true, std::sync::atomic::Ordering::SeqCst);
    prober.check(&pids).await.expect("ready in a new session");
    prober.check(&pids).await.expect("ready");
    assert_eq!(opened(&server.asked()), 2);
    assert!(!server.asked().contains(&"DELETE".to_owned()));
}
