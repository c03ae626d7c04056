//! Streams of events: resumed without a hole, and where that is impossible, reset with a snapshot.

use std::time::Duration;

use xy_daemon::http::Limits;

use super::server::{Events, Server};

fn named(events: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
    events.iter().map(|(name, id)| ((*name).to_owned(), id.map(str::to_owned))).collect()
}

#[tokio::test]
async fn a_new_client_begins_with_a_snapshot_and_gets_every_event_with_its_id() {
    let server = Server::start().await;
    let mut events = Events::open(&server, "/v1/events", "").await;
    let reset = events.next().await.expect("an event");
    assert_eq!((reset.name.as_str(), reset.id), ("reset", None));
    assert_eq!(reset.data["reason"], "new");
    assert_eq!(reset.data["snapshot"]["servers"][0]["name"], "files");
    let first = events.next().await.expect("an event");
    assert_eq!((first.name.as_str(), first.id.as_deref()), ("event", Some("8-1")));
    assert_eq!(first.data["type"], "ready");
    assert_eq!(
        events.all().await,
        named(&[("event", Some("8-2")), ("event", Some("8-3")), ("event_end", None)])
    );
}

#[tokio::test]
async fn a_client_that_comes_back_gets_exactly_what_it_missed() {
    let server = Server::start().await;
    for (seen, expected) in [
        ("8-1", vec![("event", Some("8-2")), ("event", Some("8-3")), ("event_end", None)]),
        ("8-2", vec![("event", Some("8-3")), ("event_end", None)]),
        ("8-3", vec![("event_end", None)]),
    ] {
        let mut events = Events::open(&server, "/v1/events", &format!("Last-Event-ID: {seen}\r\n")).await;
        assert_eq!(events.all().await, named(&expected), "{seen}");
    }
}

#[tokio::test]
async fn a_client_says_where_to_begin_and_is_not_reset() {
    let server = Server::start().await;
    let rest = named(&[("event", Some("8-2")), ("event", Some("8-3")), ("event_end", None)]);
    for query in ["from=2", "after=8-1"] {
        let mut events = Events::open(&server, &format!("/v1/events?{query}"), "").await;
        assert_eq!(events.all().await, rest, "{query}");
    }
    // A client that comes back knows better than the address that it was given at first.
    let mut events = Events::open(&server, "/v1/events?from=1", "Last-Event-ID: 8-1\r\n").await;
    assert_eq!(events.all().await, rest);
    let refused = server.get("/v1/events?after=7-1").await;
    assert_eq!((refused.status, refused.kind().as_str()), (400, "invalid_params"), "{refused:?}");
}

#[tokio::test]
async fn a_client_of_another_daemon_or_with_nonsense_is_reset() {
    let server = Server::start().await;
    for id in ["7-1", "88-1", "8", "8-", "8-x", "x", ""] {
        let mut events = Events::open(&server, "/v1/events", &format!("Last-Event-ID: {id}\r\n")).await;
        let reset = events.next().await.expect("an event");
        assert_eq!((reset.name.as_str(), &reset.data["reason"]), ("reset", &"unknown_id".into()), "{id:?}");
        assert!(reset.data["snapshot"].is_object(), "{reset:?}");
        assert_eq!(events.next().await.and_then(|event| event.id).as_deref(), Some("8-1"), "{id:?}");
    }
}

#[tokio::test]
async fn output_is_followed_with_ids_and_resumed_behind_the_last_line() {
    let server = Server::start().await;
    let follow = "/v1/servers/three/logs?follow=true&tail=0";
    let mut lines = Events::open(&server, follow, "").await;
    let all = [("log", Some("8-1-5")), ("log", Some("8-2-5")), ("log", Some("8-3-5")), ("log_end", None)];
    assert_eq!(lines.all().await, named(&all));
    let mut lines = Events::open(&server, follow, "Last-Event-ID: 8-2-5\r\n").await;
    assert_eq!(lines.all().await, named(&all[2..]));
    let mut lines = Events::open(&server, follow, "Last-Event-ID: 7-2-5\r\n").await;
    let reset = lines.next().await.expect("an event");
    assert_eq!((reset.name.as_str(), &reset.data["reason"]), ("reset", &"unknown_id".into()));
    assert_eq!(lines.all().await, named(&all));
}

#[tokio::test]
async fn lines_that_were_lost_are_told() {
    let server = Server::start().await;
    let mut lines = Events::open(&server, "/v1/servers/gap/logs?follow=true", "").await;
    let reset = lines.next().await.expect("an event");
    assert_eq!(reset.name, "reset");
    assert_eq!(reset.data["missed"], serde_json::json!({ "first": 1, "last": 9 }));
    assert_eq!(lines.all().await, named(&[("log_end", None)]));
}

#[tokio::test]
async fn output_is_a_stream_for_who_accepts_one() {
    let server = Server::start().await;
    for accept in ["text/event-stream", "application/json;q=0.5, text/event-stream;q=1"] {
        let mut lines =
            Events::open(&server, "/v1/servers/three/logs?tail=0", &format!("Accept: {accept}\r\n")).await;
        assert_eq!(lines.all().await.len(), 4, "{accept}");
    }
    let answer = server.get("/v1/servers/three/logs?tail=0").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json()["lines"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn a_silent_stream_says_that_it_is_there() {
    let limits = Limits { heartbeat: Duration::from_millis(5), ..Limits::default() };
    let server = Server::with(limits).await;
    let mut lines = Events::open(&server, "/v1/servers/quiet/logs?follow=true", "").await;
    for _ in 0..4 {
        assert_eq!(lines.block().await.as_deref(), Some(":\n\n"));
    }
}

#[tokio::test]
async fn the_source_goes_when_its_client_does_and_a_panic_in_it_ends_the_stream_only() {
    let server = Server::start().await;
    let none = |script: &super::script::Script| script.sources.load(std::sync::atomic::Ordering::SeqCst) == 0;
    let lines = Events::open(&server, "/v1/servers/quiet/logs?follow=true", "").await;
    drop(lines);
    server.script.until("the end of the source", none).await;
    let mut lines = Events::open(&server, "/v1/servers/panic/logs?follow=true", "").await;
    assert_eq!(lines.all().await, named(&[("log_end", None)]));
    assert_eq!(server.get("/v1/health").await.status, 200);
}

#[tokio::test]
async fn a_stream_that_cannot_begin_is_refused_like_any_request() {
    let server = Server::start().await;
    let answer = server.get("/v1/servers/missing/logs?follow=true").await;
    assert_eq!((answer.status, answer.kind().as_str()), (404, "server_not_found"));
}
