//! Slow, silent and greedy clients. Each limit that is tested is short; the others are as long as ever.

use std::time::Duration;

use xy_daemon::http::Limits;

use super::script::{raise_descriptor_limit, within};
use super::server::{Server, Wire};

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn connections_are_counted_while_they_are_open() {
    let server = Server::start().await;
    let plane = server.script.http.lock().expect("it is in use").upgrade().expect("it serves");
    let mut open = Vec::new();
    for count in 1..=3 {
        let mut wire = server.connect().await;
        wire.send(server.text("GET", "/v1/health", "", "")).await;
        assert_eq!(wire.answer().await.status, 200);
        assert_eq!(plane.facts().connections, count);
        open.push(wire);
    }
    drop(open);
    let all_gone = async {
        while plane.facts().connections > 0 {
            tokio::task::yield_now().await;
        }
    };
    within("the end of all connections", all_gone).await;
}

#[tokio::test]
async fn a_head_that_does_not_end_ends_the_connection() {
    let server = Server::with(Limits { head: SHORT, ..Limits::default() }).await;
    for begun in ["", "G", "GET /v1/health HTTP/1.1\r\n", "GET /v1/health HTTP/1.1\r\nHost: x\r\nX-A: b"] {
        let mut wire = server.connect().await;
        wire.send(begun).await;
        assert_eq!(wire.rest().await, "", "{begun:?}");
    }
}

#[tokio::test]
async fn a_connection_without_requests_ends() {
    // Any other limit would be longer than the test may take.
    let hour = Duration::from_secs(3600);
    let server = Server::with(Limits { idle: SHORT, head: hour, ..Limits::default() }).await;
    let mut wire = server.connect().await;
    wire.send(server.text("GET", "/v1/health", "", "")).await;
    assert_eq!(wire.answer().await.status, 200);
    assert_eq!(wire.rest().await, "");
}

#[tokio::test]
async fn a_body_that_does_not_end_is_refused() {
    let server = Server::with(Limits { request: SHORT, ..Limits::default() }).await;
    let headers = format!("{}Content-Type: application/json\r\nContent-Length: 100\r\n", server.headers());
    let mut wire = server.connect().await;
    wire.send(format!("POST /v1/rpc HTTP/1.1\r\n{headers}\r\n{{")).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.kind().as_str()), (408, "timeout"));
    assert_eq!(wire.rest().await, "");
}

#[tokio::test]
async fn a_stream_whose_client_does_not_read_ends_with_its_source() {
    let server = Server::with(Limits { write_stall: SHORT, ..Limits::default() }).await;
    let mut wire = server.connect().await;
    wire.send(server.text("GET", "/v1/servers/torrent/logs?follow=true", "", "")).await;
    assert_eq!(wire.head().await.map(|head| head.status), Some(200));
    let flooded =
        |script: &super::script::Script| script.flooded.load(std::sync::atomic::Ordering::SeqCst) > 0;
    server.script.until("the flood", flooded).await;
    let sources =
        |script: &super::script::Script| script.sources.load(std::sync::atomic::Ordering::SeqCst) == 0;
    server.script.until("the end of the source", sources).await;
}

/// Has `count` clients ask and read nothing, until one of them is closed; one that reads is not.
async fn assert_one_of_these_is_closed(count: usize, target: &str, body: &str) {
    // Any other limit would be longer than the test may take.
    raise_descriptor_limit();
    let server = Server::with(Limits { write_stall: Duration::from_secs(3600), ..Limits::default() }).await;
    let mut modest = server.connect().await;
    modest.send(server.text("GET", "/v1/health", "", "")).await;
    assert_eq!(modest.answer().await.status, 200);
    let method = if body.is_empty() { "GET" } else { "POST" };
    let mut greedy = Vec::new();
    for _ in 0..count {
        let mut wire = Wire::deaf(server.address).await;
        // More than the system keeps for a client.
        wire.send(server.text(method, target, "", body).repeat(16)).await;
        greedy.push(wire);
    }
    within("the end of one of them", async {
        // Connections are accepted one after the other, so that whoever asks comes after all of them.
        let count_all = async || server.get("/v1/diagnostics").await.json()["http"]["connections"].as_u64();
        while count_all().await.expect("a number") > count as u64 + 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    modest.send(server.text("GET", "/v1/health", "", "")).await;
    assert_eq!(modest.answer().await.status, 200);
}

#[tokio::test]
async fn bodies_that_are_not_read_count_on_all_connections_together() {
    assert_one_of_these_is_closed(9, "/v1/servers/large", "").await;
}

#[tokio::test]
async fn pieces_of_streams_that_are_not_read_count_on_all_connections_together() {
    assert_one_of_these_is_closed(70, "/v1/servers/torrent/logs?follow=true", "").await;
}

#[tokio::test]
async fn what_batches_have_found_counts_before_they_are_answered() {
    let status =
        |name| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"status","params":{{"name":"{name}"}}}}"#);
    let batch = format!("[{},{}]", status("long"), status("slow"));
    assert_one_of_these_is_closed(17, "/v1/rpc", &batch).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_whether_it_says_so_or_not() {
    let server = Server::with(Limits { body: 100, ..Limits::default() }).await;
    let answer = server.post("/v1/rpc", &" ".repeat(101)).await;
    assert_eq!((answer.status, answer.kind().as_str()), (413, "limit_exceeded"));
    assert_eq!(answer.header("connection"), Some("close"));

    let headers = format!("{}Content-Type: application/json\r\n", server.headers());
    let chunk = format!("65\r\n{}\r\n", " ".repeat(101));
    let text = format!("POST /v1/rpc HTTP/1.1\r\n{headers}Transfer-Encoding: chunked\r\n\r\n{chunk}");
    assert_eq!(server.send(text).await.status, 413);

    let declared = format!("POST /v1/rpc HTTP/1.1\r\n{headers}Content-Length: 1000000000000\r\n\r\n");
    assert_eq!(server.send(declared).await.status, 413);
    let fitting = format!("{:<100}", r#"{"jsonrpc":"2.0","id":1,"method":"version"}"#);
    assert_eq!(server.post("/v1/rpc", &fitting).await.status, 200);
}

#[tokio::test]
async fn a_client_that_sends_more_than_is_read_still_gets_the_answer() {
    let server = Server::start().await;
    let body = " ".repeat((1 << 20) + 1);
    let answer = server.post("/v1/rpc", &body).await;
    assert_eq!(answer.status, 413);
    let answer = server.send(server.text("POST", "/nowhere", "", &body[..512 << 10])).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Server::start().await;
    for more in [
        format!("X-Long: {}\r\n", "x".repeat(16 << 10)),
        (0..64).map(|number| format!("X-{number}: y\r\n")).collect(),
    ] {
        let answer = server.send(server.text("GET", "/v1/status", &more, "")).await;
        assert_eq!(answer.status, 431, "{answer:?}");
    }
    let target = format!("/v1/servers/{}", "x".repeat(20_000));
    let status = server.get(&target).await.status;
    assert!(status == 414 || status == 431, "{status}");
}

#[tokio::test]
async fn silent_clients_make_room_for_those_who_speak() {
    raise_descriptor_limit();
    // Any other limit would be longer than the test may take.
    let head = Duration::from_secs(3600);
    let server = Server::with(Limits { connections: 8, head, ..Limits::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        let mut wire = Wire::connect(server.address).await;
        wire.send("GET /v1/health HTTP/1.1\r\n").await;
        silent.push(wire);
        assert_eq!(server.get("/v1/health").await.status, 200);
    }
    for mut wire in silent.drain(..30) {
        assert_eq!(wire.rest().await, "");
    }
}

#[tokio::test]
async fn a_request_under_way_is_not_closed_to_make_room() {
    let server = Server::with(Limits { connections: 2, ..Limits::default() }).await;
    let mut slow = server.connect().await;
    slow.send(server.text("GET", "/v1/servers/slow", "", "")).await;
    let waiting =
        |script: &super::script::Script| script.waiting.load(std::sync::atomic::Ordering::SeqCst) == 1;
    server.script.until("the slow request", waiting).await;
    for _ in 0..10 {
        assert_eq!(server.get("/v1/health").await.status, 200);
    }
    server.script.gate.add_permits(1);
    assert_eq!(within("the slow answer", slow.answer()).await.status, 200);
}

#[tokio::test]
async fn at_the_end_requests_are_answered_and_streams_and_files_are_gone() {
    let server = Server::start().await;
    let mut stream = super::server::Events::open(&server, "/v1/servers/quiet/logs?follow=true", "").await;
    let mut slow = server.connect().await;
    slow.send(server.text("GET", "/v1/servers/slow", "", "")).await;
    let waiting =
        |script: &super::script::Script| script.waiting.load(std::sync::atomic::Ordering::SeqCst) == 1;
    server.script.until("the slow request", waiting).await;
    server.script.gate.add_permits(1);
    let (directory, answer) = tokio::join!(server.stop(), slow.answer());
    assert_eq!(answer.status, 200);
    while stream.block().await.is_some() {}
    let left = std::fs::read_dir(directory.path()).expect("it is there").count();
    assert_eq!(left, 0, "the token's files are removed");
}
