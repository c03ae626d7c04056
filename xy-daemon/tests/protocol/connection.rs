//! One connection: framing, requests in flight, and what a client can do wrong.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use xy_daemon::protocol::frame::MAX_LINE;
use xy_daemon::rpc::{MAX_BYTES_IN_FLIGHT, MAX_CONNECTIONS, MAX_IN_FLIGHT};

use crate::harness::{Server, raise_descriptor_limit};

fn slow(id: usize) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"status","params":{{"name":"slow"}}}}"#)
}

#[tokio::test]
async fn a_slow_request_does_not_hold_up_others() {
    let server = Server::start();
    let mut raw = server.raw().await;
    raw.send(&slow(1)).await;
    server.script.until("the slow request", |script| script.waiting.load(Ordering::SeqCst) == 1).await;
    for id in 2..50 {
        let answer = raw.ask(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"version"}}"#)).await;
        assert_eq!(answer["id"], id);
    }
    server.script.gate.add_permits(1);
    assert_eq!(raw.message().await["id"], 1);
}

#[tokio::test]
async fn a_slow_request_in_a_batch_holds_up_only_its_batch() {
    let server = Server::start();
    let mut raw = server.raw().await;
    raw.send(&format!(r#"[{},{{"jsonrpc":"2.0","id":2,"method":"version"}}]"#, slow(1))).await;
    raw.assert_alive().await;
    server.script.gate.add_permits(1);
    let answers = raw.message().await;
    assert_eq!((&answers[0]["id"], &answers[1]["id"]), (&json!(1), &json!(2)), "{answers}");
}

#[tokio::test]
async fn thirty_two_requests_are_in_flight_and_the_next_one_waits() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let lines: Vec<_> = (0..MAX_IN_FLIGHT + 8).map(slow).collect();
    raw.send(&lines.join("\n")).await;
    let waiting =
        |count: usize| move |script: &crate::harness::Script| script.waiting.load(Ordering::SeqCst) >= count;
    server.script.until("a full connection", waiting(MAX_IN_FLIGHT)).await;
    // Another connection is served, which also gives this one the time to do wrong.
    server.raw().await.assert_alive().await;
    assert_eq!(server.script.waiting.load(Ordering::SeqCst), MAX_IN_FLIGHT);
    server.script.gate.add_permits(1);
    raw.message().await;
    server.script.until("one more", waiting(MAX_IN_FLIGHT + 1)).await;
    server.script.gate.add_permits(MAX_IN_FLIGHT + 7);
    for _ in 1..MAX_IN_FLIGHT + 8 {
        raw.message().await;
    }
    raw.assert_alive().await;
}

#[tokio::test]
async fn batches_that_fill_the_connection_do_not_wait_for_each_other() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let batch = format!("[{},{},{}]", slow(1), slow(2), slow(3));
    let lines: Vec<_> = (0..2 * MAX_IN_FLIGHT).map(|_| batch.as_str()).collect();
    server.script.gate.add_permits(3 * lines.len());
    raw.send(&lines.join("\n")).await;
    for _ in &lines {
        assert_eq!(raw.message().await.as_array().map(Vec::len), Some(3));
    }
}

#[tokio::test]
async fn a_panic_in_a_handler_is_an_internal_error_and_the_connection_lives() {
    let server = Server::start();
    let mut other = server.raw().await;
    let mut raw = server.raw().await;
    let answer = raw.ask(r#"{"jsonrpc":"2.0","id":"p","method":"status","params":{"name":"panic"}}"#).await;
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    assert_eq!(answer["error"]["data"]["kind"], "internal_error", "{answer}");
    assert_eq!(answer["id"], "p");
    assert!(!answer.to_string().contains("scripted"), "internals stay in the log: {answer}");
    raw.assert_alive().await;
    other.assert_alive().await;
}

#[tokio::test]
async fn a_10_mb_line_is_refused_and_the_connection_closed() {
    let server = Server::start();
    let mut raw = server.raw().await;
    // The server stops reading, so that not all of it can be sent.
    _ = raw.send_bytes(&vec![b'x'; 10 << 20]).await;
    let answer = raw.message().await;
    assert_eq!(answer["error"]["code"], -32600, "{answer}");
    assert_eq!(answer["id"], Value::Null);
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("1048576")), "{answer}");
    assert_eq!(raw.line().await, None);
    server.raw().await.assert_alive().await;
}

#[tokio::test]
async fn the_longest_line_is_served() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"version"}"#;
    let line = format!("{request}{}", " ".repeat(MAX_LINE - request.len()));
    assert_eq!(raw.ask(&line).await["id"], 1);
    raw.assert_alive().await;
}

#[tokio::test]
async fn a_line_in_pieces_with_a_carriage_return_is_served() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let request = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"version\"}\r\n\r\n\n";
    for byte in request {
        raw.send_bytes(&[*byte]).await.expect("the server reads");
        tokio::task::yield_now().await;
    }
    assert_eq!(raw.message().await["id"], 1);
    raw.assert_alive().await;
}

#[tokio::test(start_paused = true)]
async fn a_half_sent_line_is_refused_after_ten_seconds_and_the_connection_closed() {
    let server = Server::start();
    let mut raw = server.raw().await;
    raw.send_bytes(br#"{"jsonrpc":"2.0","#).await.expect("the server reads");
    let started = tokio::time::Instant::now();
    let answer = raw.message().await;
    assert!(started.elapsed().as_secs() >= 10, "{:?}", started.elapsed());
    assert_eq!(answer["error"]["code"], -32600, "{answer}");
    assert_eq!(answer["id"], Value::Null);
    assert_eq!(raw.line().await, None);
}

#[tokio::test]
async fn half_a_line_before_the_end_is_a_parse_error() {
    let server = Server::start();
    let mut raw = server.raw().await;
    raw.send_bytes(br#"{"jsonrpc":"2.0","id":1,"method":"ver"#).await.expect("the server reads");
    raw.finish();
    assert_eq!(raw.message().await["error"]["code"], -32700);
    assert_eq!(raw.line().await, None);
}

#[tokio::test]
async fn what_was_asked_before_the_end_of_input_is_answered() {
    let server = Server::start();
    let mut raw = server.raw().await;
    raw.send(&slow(1)).await;
    raw.send_bytes(br#"{"jsonrpc":"2.0","id":2,"method":"version"}"#).await.expect("the server reads");
    raw.finish();
    assert_eq!(raw.message().await["id"], 2);
    server.script.gate.add_permits(1);
    assert_eq!(raw.message().await["id"], 1);
    assert_eq!(raw.line().await, None);
}

#[tokio::test]
async fn a_request_runs_to_its_end_although_its_client_is_gone() {
    let server = Server::start();
    let mut raw = server.raw().await;
    raw.send(&slow(1)).await;
    server.script.until("the request", |script| script.waiting.load(Ordering::SeqCst) == 1).await;
    drop(raw);
    server.raw().await.assert_alive().await;
    server.script.gate.add_permits(1);
    server.script.until("its end", |script| script.done.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn an_answer_that_is_too_long_becomes_an_error() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let answer = raw.ask(r#"{"jsonrpc":"2.0","id":1,"method":"status","params":{"name":"large"}}"#).await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32603)), "{answer}");
    raw.assert_alive().await;
}

/// A batch that has found much before it waits.
fn long_and_slow() -> String {
    let long = r#"{"jsonrpc":"2.0","id":1,"method":"status","params":{"name":"long"}}"#;
    format!("[{long},{}]", slow(2))
}

#[tokio::test]
async fn the_answer_to_a_batch_is_one_line_and_what_does_not_fit_becomes_an_error() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let long = |id| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"status","params":{{"name":"long"}}}}"#);
    let version = r#"{"jsonrpc":"2.0","id":3,"method":"version"}"#;
    raw.send(&format!("[{},{},{version}]", long(1), long(2))).await;
    let line = raw.line().await.expect("an answer");
    assert!(line.len() <= MAX_LINE, "{}", line.len());
    let answers: Vec<Value> = serde_json::from_str(&line).expect("JSON");
    assert_eq!(answers.iter().map(|answer| &answer["id"]).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(answers[0].get("result").is_some() && answers[2].get("result").is_some());
    assert_eq!(answers[1]["error"]["data"]["kind"], "limit_exceeded", "{}", answers[1]);
    raw.assert_alive().await;
}

#[tokio::test]
async fn what_batches_have_found_counts_as_unread_and_whoever_has_most_of_it_is_closed() {
    let server = Server::start();
    let (mut greedy, mut modest) = (server.raw().await, server.raw().await);
    for _ in 0..16 {
        greedy.send(&long_and_slow()).await;
    }
    server.script.until("16 batches", |script| script.waiting.load(Ordering::SeqCst) == 16).await;
    for _ in 0..4 {
        modest.send(&long_and_slow()).await;
    }
    assert_eq!(greedy.line().await, None, "it has 16 MB, and others need some");
    modest.assert_alive().await;
}

#[tokio::test]
async fn at_the_limit_who_never_asked_makes_room_and_then_who_has_been_idle_longest() {
    raise_descriptor_limit();
    let server = Server::start();
    let mut busy = server.raw().await;
    busy.send(&slow(1)).await;
    server.script.until("the request", |script| script.waiting.load(Ordering::SeqCst) == 1).await;
    let mut oldest = server.raw().await;
    oldest.assert_alive().await;
    let mut others = Vec::new();
    for index in 2..MAX_CONNECTIONS {
        let mut other = server.raw().await;
        if index != 500 {
            other.assert_alive().await;
        }
        others.push(other);
    }
    let mut silent = others.remove(498);
    let mut late = server.raw().await;
    late.assert_alive().await;
    assert_eq!(silent.line().await, None, "who never asked was closed, although others were idle for longer");
    let mut later = server.raw().await;
    later.assert_alive().await;
    assert_eq!(oldest.line().await, None, "the oldest idle one was closed");
    others[0].assert_alive().await;
    server.script.gate.add_permits(1);
    assert_eq!(busy.message().await["id"], 1);
}

#[tokio::test]
async fn a_server_that_stops_answers_what_is_in_flight_and_removes_its_socket() {
    let server = Server::start();
    let path = server.path().to_owned();
    let mut idle = server.raw().await;
    let mut raw = server.raw().await;
    raw.send(&slow(1)).await;
    let script = std::sync::Arc::clone(&server.script);
    script.until("the request", |script| script.waiting.load(Ordering::SeqCst) == 1).await;
    let stopping = tokio::spawn(server.stop());
    assert_eq!(idle.line().await, None);
    script.gate.add_permits(1);
    assert_eq!(raw.message().await["id"], 1);
    assert_eq!(raw.line().await, None);
    stopping.await.expect("it stops");
    assert!(!path.exists());
}

#[tokio::test(start_paused = true)]
async fn a_server_stops_although_a_request_does_not_end() {
    let server = Server::start();
    let mut raw = server.raw().await;
    raw.send(&slow(1)).await;
    let script = std::sync::Arc::clone(&server.script);
    script.until("the request", |script| script.waiting.load(Ordering::SeqCst) == 1).await;
    server.stop().await;
    assert_eq!(raw.line().await, None);
}

#[tokio::test]
async fn long_requests_are_bounded_on_all_connections_together_and_short_ones_do_not_wait() {
    let server = Server::start();
    let request = slow(1);
    let long = format!("{request}{}", " ".repeat(MAX_LINE - request.len()));
    let mut connections = Vec::new();
    let most = MAX_BYTES_IN_FLIGHT / MAX_LINE;
    for _ in 0..most {
        let mut raw = server.raw().await;
        raw.send(&long).await;
        connections.push(raw);
    }
    server.script.until("all of them", |script| script.waiting.load(Ordering::SeqCst) == most).await;
    let mut late = server.raw().await;
    late.send(&long).await;
    let mut short = server.raw().await;
    for _ in 0..50 {
        short.assert_alive().await;
    }
    assert_eq!(server.script.waiting.load(Ordering::SeqCst), most, "one more waits");
    server.script.gate.add_permits(most + 1);
    connections.push(late);
    for mut raw in connections {
        assert_eq!(raw.message().await["id"], 1);
    }
}
