//! The typed client.

use std::fs;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::AsyncWriteExt;
use xy_daemon::client::{Client, ClientError, MAX_BACKLOG};
use xy_daemon::protocol::error::ErrorKind;
use xy_daemon::protocol::method::{
    Events, EventsParams, List, ListParams, Logs, LogsParams, Notification, OperationParams, Start, Status,
    StatusParams, Version, VersionParams,
};

use crate::harness::{Server, within};

fn number(notification: Option<Notification>) -> Option<u64> {
    match notification? {
        Notification::Log(line) => Some(line.number),
        Notification::Event(event) => Some(event.seq),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn calls_are_typed_and_may_overlap() {
    let server = Server::start();
    let client = Arc::new(server.client().await);
    let slow = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.call::<Status>(StatusParams::new("slow")).await }
    });
    server.script.until("the slow call", |script| script.waiting.load(Ordering::SeqCst) == 1).await;
    let list = within("list", client.call::<List>(ListParams {})).await.expect("an answer");
    assert_eq!(list.servers[0].name, "files");
    let started = client.call::<Start>(OperationParams::named("web")).await.expect("an answer");
    assert_eq!(started.started, ["web"]);
    server.script.gate.add_permits(1);
    let status = within("status", slow).await.expect("no panic").expect("an answer");
    assert_eq!(status.summary.name, "slow");
}

#[tokio::test]
async fn a_refusal_keeps_its_kind() {
    let server = Server::start();
    let client = server.client().await;
    match client.call::<Status>(StatusParams::new("missing")).await {
        Err(ClientError::Rpc(error)) => assert_eq!(error.kind(), ErrorKind::ServerNotFound),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_missing_and_a_dead_socket_are_unreachable() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let missing = directory.path().join("xyd.sock");
    let dead = directory.path().join("dead.sock");
    drop(UnixListener::bind(&dead).expect("a free path"));
    let plain = directory.path().join("plain");
    fs::write(&plain, "").expect("a free path");
    for path in [&missing, &dead, &plain] {
        match Client::connect(path).await {
            Err(error @ ClientError::Unreachable { .. }) => {
                assert!(error.hint().is_some_and(|hint| hint.contains("xyctl up")), "{error:?}");
                assert!(error.to_string().contains(path.to_str().expect("text")), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    let long = directory.path().join("s".repeat(200));
    assert!(matches!(Client::connect(&long).await, Err(ClientError::Path(_))));
}

#[tokio::test]
async fn a_subscription_is_read_to_its_end() {
    let server = Server::start();
    let client = server.client().await;
    let mut logs = client.subscribe::<Logs>(LogsParams::new("three")).await.expect("a subscription");
    let mut events = client.subscribe::<Events>(EventsParams::default()).await.expect("a subscription");
    for expected in [Some(1), Some(2), Some(3), None, None] {
        assert_eq!(number(within("a line", logs.next()).await.expect("connected")), expected);
        assert_eq!(number(within("an event", events.next()).await.expect("connected")), expected);
    }
    assert!(matches!(
        client.subscribe::<Logs>(LogsParams::new("missing")).await,
        Err(ClientError::Rpc(error)) if error.kind() == ErrorKind::ServerNotFound
    ));
}

#[tokio::test]
async fn a_dropped_subscription_ends_at_the_daemon_and_the_client_lives() {
    let server = Server::start();
    let client = server.client().await;
    for name in ["quiet", "flood"] {
        let mut logs = client.subscribe::<Logs>(LogsParams { follow: true, ..LogsParams::new(name) }).await;
        if name == "flood" {
            let first =
                within("a line", logs.as_mut().expect("a subscription").next()).await.expect("connected");
            assert_eq!(number(first), Some(1));
        }
        drop(logs);
        server.script.until("its end", |script| script.sources.load(Ordering::SeqCst) == 0).await;
        client.call::<Version>(VersionParams::default()).await.expect("the client lives");
    }
}

#[tokio::test]
async fn a_subscription_that_is_not_read_holds_up_no_call_and_its_gap_is_told() {
    let server = Server::start();
    let client = server.client().await;
    let mut logs = client
        .subscribe::<Logs>(LogsParams { follow: true, ..LogsParams::new("torrent") })
        .await
        .expect("a subscription");
    // More than the client keeps, and what is on its way.
    let enough = u64::try_from(MAX_BACKLOG / (64 << 10)).expect("a small number") + 64;
    server.script.until("a long flood", |script| script.flooded.load(Ordering::SeqCst) > enough).await;
    within("a call", client.call::<Version>(VersionParams::default())).await.expect("an answer");
    let (mut next, mut gaps) = (1, 0);
    while gaps == 0 {
        match within("a line", logs.next()).await.expect("connected").expect("no end") {
            Notification::Log(line) => {
                assert_eq!(line.number, next);
                next += 1;
            }
            Notification::LogGap(gap) => {
                assert_eq!(gap.first, next);
                next = gap.last + 1;
                gaps += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(number(within("a line", logs.next()).await.expect("connected")), Some(next));
}

#[tokio::test]
async fn a_daemon_that_ends_is_told_to_everybody_who_waits() {
    let server = Server::start();
    let client = server.client().await;
    let mut logs = client.subscribe::<Logs>(LogsParams::new("quiet")).await.expect("a subscription");
    server.stop().await;
    assert!(matches!(within("the end", logs.next()).await, Err(ClientError::Closed)));
    assert!(matches!(client.call::<List>(ListParams {}).await, Err(ClientError::Closed)));
    assert!(matches!(client.subscribe::<Logs>(LogsParams::new("x")).await, Err(ClientError::Closed)));
}

#[tokio::test]
async fn a_daemon_that_talks_nonsense_is_a_protocol_error() {
    for nonsense in [
        "hello\n",
        "{}\n",
        "[]\n",
        "{\"jsonrpc\":\"2.0\",\"id\":1}\n",
        "{\"jsonrpc\":\"2.0\",\"id\":null,\"result\":1}\n",
    ] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("xyd.sock");
        let listener = tokio::net::UnixListener::bind(&path).expect("a free path");
        let client = Client::connect(&path).await.expect("it listens");
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(nonsense.as_bytes()).await.expect("the client reads");
        let answer = within("an answer", client.call::<List>(ListParams {})).await;
        assert!(matches!(answer, Err(ClientError::Protocol(_))), "{nonsense}: {answer:?}");
    }
}
