//! A declared port that somebody else holds: waited for, named, and never counted.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use xy_actors::child::StartErrorKind;
use xy_actors::log::LogHub;
use xy_actors::policy::State;
use xy_actors::process::{ProcessSpec, process};
use xy_actors::spec::{Backoff, ChildSpec, OnLimit, Order, RestartIntensity, RestartLimit, SupervisorSpec};
use xy_actors::supervisor::{OperationError, Supervisor};

use crate::support::{child, host, wait_until_async};

fn held() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

/// A server that may not be restarted even once.
async fn tree(started: &Path, port: u16) -> Supervisor {
    let millis = Duration::from_millis;
    let rules = ChildSpec {
        autostart: false,
        limit: Some(RestartLimit {
            intensity: RestartIntensity::new(0, Duration::from_secs(3600)),
            on_limit: OnLimit::GiveUp,
        }),
        backoff: Some(Backoff { base: millis(10), max: millis(20), ..Backoff::default() }),
        ..ChildSpec::worker("web")
    };
    let spec = ProcessSpec { port: Some(port), ..child(&format!("touch {} http {port}", started.display())) };
    let spec_of_tree = SupervisorSpec { order: Order::Concurrent, ..SupervisorSpec::default() };
    Supervisor::builder(spec_of_tree)
        .child(rules, process(spec, &host(), &LogHub::new(None)))
        .spawn()
        .await
        .expect("starts")
}

#[tokio::test]
async fn a_holder_that_lets_go_soon_is_waited_for_within_the_start() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let started = dir.path().join("started");
    let (holder, port) = held();
    let tree = tree(&started, port).await;
    let starting = tokio::spawn({
        let tree = tree.clone();
        async move { tree.start("web", None).await }
    });
    let mut said = String::new();
    while said.is_empty() {
        let child = tree.which_child("web").await.expect("known");
        said = child.waits_for.unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(said.starts_with(&format!("port {port}, held by pid {} (", std::process::id())), "{said}");
    assert!(!started.exists());
    drop(holder);
    starting.await.expect("no panic").expect("the same start succeeds");
    tree.shutdown().await;
}

#[tokio::test]
async fn a_holder_that_stays_is_named_never_counted_and_the_server_starts_when_it_is_gone() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let started = dir.path().join("started");
    let (holder, port) = held();
    let tree = tree(&started, port).await;
    match tree.start("web", None).await {
        Err(OperationError::StartFailed { kind: StartErrorKind::PortConflict, cause, .. }) => {
            let expected = format!("port {port} is held by pid {} (", std::process::id());
            assert!(cause.to_string().contains(&expected), "{cause}");
        }
        other => panic!("{other:?}"),
    }
    let child = tree.which_child("web").await.expect("known");
    assert_eq!((child.restarts, child.state == State::Failed), (0, false), "{child:?}");
    assert!(!started.exists(), "nothing was started against a held port");
    drop(holder);
    wait_until_async("it runs", || started.exists()).await;
    tree.shutdown().await;
}
