//! Subscriptions: their order, their end, and a subscriber that does not read.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use xy_daemon::rpc::{MAX_SUBSCRIPTIONS, WRITE_STALL};

use crate::harness::{Raw, Script, Server, within};

async fn subscribe(raw: &mut Raw, method: &str, params: &str) -> Value {
    let answer =
        raw.ask(&format!(r#"{{"jsonrpc":"2.0","id":"s","method":"{method}","params":{params}}}"#)).await;
    assert_eq!(answer["id"], "s", "the answer comes before the first notification: {answer}");
    answer["result"]["subscription_id"].clone()
}

fn no_sources(script: &Script) -> bool {
    script.sources.load(Ordering::SeqCst) == 0
}

#[tokio::test]
async fn the_answer_comes_first_then_each_line_once_then_the_end() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let id = subscribe(&mut raw, "logs", r#"{"name":"three"}"#).await;
    for number in 1..=3 {
        let message = raw.message().await;
        let params = json!({"subscription_id": id, "name": "three", "stream": "out", "line": "text",
            "ts_unix_ms": 5, "number": number});
        assert_eq!(message, json!({"jsonrpc": "2.0", "method": "log", "params": params}));
    }
    let end = raw.message().await;
    assert_eq!(end, json!({"jsonrpc": "2.0", "method": "log_end", "params": {"subscription_id": id}}));
    raw.assert_alive().await;
    server.script.until("the end of the source", no_sources).await;
}

#[tokio::test]
async fn events_are_numbered_and_resume_from_a_number() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let id = subscribe(&mut raw, "events", r#"{"from":2}"#).await;
    for seq in 2..=3 {
        let message = raw.message().await;
        assert_eq!(
            (&message["method"], &message["params"]["seq"]),
            (&json!("event"), &json!(seq)),
            "{message}"
        );
        assert_eq!(message["params"]["subscription_id"], id);
        assert_eq!(message["params"]["type"], "ready");
    }
    assert_eq!(raw.message().await["method"], "event_end");
}

#[tokio::test]
async fn in_a_batch_the_answers_come_before_the_first_notification() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let request = |id: u32, method: &str, name: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"name":"{name}"}}}}"#)
    };
    let requests = [request(1, "logs", "three"), request(2, "logs", "three"), request(3, "status", "slow")];
    raw.send(&format!("[{}]", requests.join(","))).await;
    server.script.until("the slow request", |script| script.waiting.load(Ordering::SeqCst) == 1).await;
    // The sources are open and have lines, but the batch is not answered yet.
    raw.assert_alive().await;
    server.script.gate.add_permits(1);
    let answers = raw.message().await;
    assert_ne!(answers[0]["result"]["subscription_id"], answers[1]["result"]["subscription_id"], "{answers}");
    let mut ends = 0;
    while ends < 2 {
        ends += usize::from(raw.message().await["method"] == "log_end");
    }
    raw.assert_alive().await;
}

#[tokio::test]
async fn a_gap_is_told() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let id = subscribe(&mut raw, "logs", r#"{"name":"gap"}"#).await;
    let expected = json!({"subscription_id": id, "first": 1, "last": 9});
    assert_eq!(raw.message().await, json!({"jsonrpc": "2.0", "method": "log_gap", "params": expected}));
    assert_eq!(raw.message().await["method"], "log_end");
}

#[tokio::test]
async fn a_notification_that_is_too_long_becomes_a_gap() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let id = subscribe(&mut raw, "logs", r#"{"name":"huge"}"#).await;
    let gap = raw.message().await;
    assert_eq!(
        (&gap["method"], &gap["params"]),
        (&json!("log_gap"), &json!({"subscription_id": id, "first": 1, "last": 1}))
    );
    let next = raw.message().await;
    assert_eq!((&next["params"]["number"], &next["params"]["line"]), (&json!(2), &json!("next")), "{next}");
}

#[tokio::test]
async fn a_subscription_does_not_block_requests_and_ends_on_cancel() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let id = subscribe(&mut raw, "logs", r#"{"name":"quiet","follow":true}"#).await;
    raw.assert_alive().await;
    let answer = raw
        .ask(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"logs_cancel","params":{{"subscription_id":{id}}}}}"#
        ))
        .await;
    assert_eq!(answer, json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
    assert!(no_sources(&server.script), "the source is gone when the answer comes");
    let again = raw
        .ask(&format!(
            r#"{{"jsonrpc":"2.0","id":2,"method":"logs_cancel","params":{{"subscription_id":{id}}}}}"#
        ))
        .await;
    assert_eq!(again["error"]["code"], -32602, "{again}");
    assert_eq!(again["error"]["data"]["parameter"], "subscription_id", "{again}");
}

#[tokio::test]
async fn after_the_answer_to_a_cancel_nothing_of_a_flood_comes() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let id = subscribe(&mut raw, "logs", r#"{"name":"flood","follow":true}"#).await;
    for number in 1..=500 {
        assert_eq!(raw.message().await["params"]["number"], number);
    }
    raw.send(&format!(
        r#"{{"jsonrpc":"2.0","id":"c","method":"logs_cancel","params":{{"subscription_id":{id}}}}}"#
    ))
    .await;
    let mut number = 500;
    let answer = within("the answer", async {
        loop {
            let message = raw.message().await;
            if message.get("id").is_some() {
                return message;
            }
            number += 1;
            assert_eq!(message["params"]["number"], number, "each line once");
        }
    })
    .await;
    assert_eq!(answer["id"], "c");
    raw.assert_alive().await;
}

#[tokio::test]
async fn a_cancel_of_the_other_kind_or_from_another_connection_is_refused() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let id = subscribe(&mut raw, "logs", r#"{"name":"quiet"}"#).await;
    let cancel = |method: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"subscription_id":{id}}}}}"#)
    };
    assert_eq!(raw.ask(&cancel("events_cancel")).await["error"]["code"], -32602);
    assert_eq!(server.raw().await.ask(&cancel("logs_cancel")).await["error"]["code"], -32602);
    assert_eq!(raw.ask(&cancel("logs_cancel")).await["result"], json!({}));
}

#[tokio::test]
async fn a_subscription_ends_with_its_connection() {
    let server = Server::start();
    for name in ["quiet", "flood"] {
        let mut raw = server.raw().await;
        subscribe(&mut raw, "logs", &format!(r#"{{"name":"{name}","follow":true}}"#)).await;
        drop(raw);
        server.script.until("the end of the source", no_sources).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_of_what_is_written_is_disconnected_after_ten_seconds() {
    let server = Server::start();
    let mut raw = server.raw().await;
    subscribe(&mut raw, "logs", r#"{"name":"flood","follow":true}"#).await;
    let began = tokio::time::Instant::now();
    server.script.until("the end of the source", no_sources).await;
    assert!(began.elapsed() >= WRITE_STALL, "{:?}", began.elapsed());
    server.raw().await.assert_alive().await;
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_holds_its_cursor_back_and_nobody_else() {
    let server = Server::start();
    let mut raw = server.raw().await;
    subscribe(&mut raw, "logs", r#"{"name":"flood","follow":true}"#).await;
    let mut other = server.raw().await;
    let mut last = 0;
    // When the source has not moved while another connection was served many times, its subscriber is full.
    within("the full queue", async {
        loop {
            for _ in 0..50 {
                other.assert_alive().await;
            }
            let now = server.script.flooded.load(Ordering::SeqCst);
            if now > 0 && now == last {
                return;
            }
            last = now;
        }
    })
    .await;
    assert!(last < 10_000, "{last} lines of 1 kB were made for nobody");
    // What was held back is not lost.
    for number in 1..=last {
        assert_eq!(raw.message().await["params"]["number"], number);
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_never_reads_is_closed_after_ten_seconds() {
    let server = Server::start();
    let mut raw = server.raw().await;
    raw.send(r#"{"jsonrpc":"2.0","id":1,"method":"logs","params":{"name":"flood","follow":true}}"#).await;
    server.script.until("the flood", |script| script.flooded.load(Ordering::SeqCst) > 0).await;
    let started = tokio::time::Instant::now();
    server.script.until("the end of the source", no_sources).await;
    assert!(started.elapsed().as_secs() >= 10, "{:?}", started.elapsed());
    server.raw().await.assert_alive().await;
}

#[tokio::test]
async fn a_source_that_panics_ends_its_subscription_only() {
    let server = Server::start();
    let mut raw = server.raw().await;
    subscribe(&mut raw, "logs", r#"{"name":"panic"}"#).await;
    assert_eq!(raw.message().await["method"], "log_end");
    raw.assert_alive().await;
}

#[tokio::test]
async fn a_source_that_cannot_be_opened_is_an_error() {
    let server = Server::start();
    let mut raw = server.raw().await;
    let answer = raw.ask(r#"{"jsonrpc":"2.0","id":1,"method":"logs","params":{"name":"missing"}}"#).await;
    assert_eq!(answer["error"]["data"]["kind"], "server_not_found", "{answer}");
}

#[tokio::test]
async fn a_connection_has_a_limit_of_subscriptions() {
    let server = Server::start();
    let mut raw = server.raw().await;
    for _ in 0..MAX_SUBSCRIPTIONS {
        subscribe(&mut raw, "logs", r#"{"name":"quiet"}"#).await;
    }
    let answer = raw.ask(r#"{"jsonrpc":"2.0","id":1,"method":"logs","params":{"name":"quiet"}}"#).await;
    assert_eq!(answer["error"]["data"]["kind"], "limit_exceeded", "{answer}");
    server
        .script
        .until("the refused source", |script| script.sources.load(Ordering::SeqCst) == MAX_SUBSCRIPTIONS)
        .await;
}
