//! Whose socket it is: only the child's own counts.

use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::net::{TcpListener, TcpSocket};
use xy_actors::process::readiness::LogPattern;
use xy_actors::process::readiness::{ProbeFailure, Prober};
use xy_actors::process::{PortOwner, ProcessSpec, Readiness};

use crate::server::{Server, answer};
use crate::support::{Place, script, word};

fn bound() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a loopback port");
    let port = socket.local_addr().expect("a bound socket").port();
    (socket, port)
}

#[tokio::test]
async fn an_own_listening_socket_is_ready() {
    let (socket, port) = bound();
    let _listener = socket.listen(8).expect("a listener");
    let mut prober = Prober::new(Readiness::Tcp, Some(port), PortOwner::Own);
    prober.check(&[std::process::id()]).await.expect("ready");
}

#[tokio::test]
async fn a_port_without_a_listener_is_not_ready_whoever_may_own_it() {
    let (_socket, port) = bound();
    for owner in [PortOwner::Own, PortOwner::Any] {
        let mut prober = Prober::new(Readiness::Tcp, Some(port), owner);
        let failure = prober.check(&[std::process::id()]).await.expect_err("nobody listens");
        assert!(
            matches!(failure, ProbeFailure::NotListening { port: named } if named == port),
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn a_foreign_holder_is_named_and_never_asked() {
    let server = Server::start(|_| answer(200, &[], "")).await;
    let readiness = Readiness::http("/");
    let mut prober = Prober::new(readiness.clone(), Some(server.port), PortOwner::Own);

    let failure = prober.check(&[]).await.expect_err("a foreign holder");
    let program = std::env::args().next().expect("a program name");
    let text = failure.to_string();
    assert!(text.contains(&format!("pid {}", std::process::id())) && text.contains(&program), "{text}");
    assert_eq!(server.requests().len(), 0);

    let mut prober = Prober::new(readiness, Some(server.port), PortOwner::Any);
    prober.check(&[]).await.expect("anybody's socket counts");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_server_on_ipv6_loopback_only_is_found_there() {
    // Without IPv6 on the machine there is nothing to find.
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else { return };
    let server = Server::serve(listener, |_| answer(200, &[], ""));
    let readiness = Readiness::http("/");
    for owner in [PortOwner::Own, PortOwner::Any] {
        let mut prober = Prober::new(readiness.clone(), Some(server.port), owner);
        prober.check(&[std::process::id()]).await.expect("ready");
    }
}

#[tokio::test]
async fn a_server_on_all_addresses_is_asked_on_loopback() {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.expect("a port");
    let server = Server::serve(listener, |_| answer(200, &[], ""));
    let readiness = Readiness::http("/");
    let mut prober = Prober::new(readiness, Some(server.port), PortOwner::Own);
    prober.check(&[std::process::id()]).await.expect("ready");
}

#[tokio::test]
async fn waiting_ends_when_the_process_listens_and_tells_each_kind_of_failure_once() {
    let (socket, port) = bound();
    let (mut socket, mut listener) = (Some(socket), None);
    let (mut looks, mut failures) = (0, Vec::new());
    let pids = || {
        // The first looks find a stranger.
        looks += 1;
        if looks < 4 { Vec::new() } else { vec![std::process::id()] }
    };
    let on_failure = |failure: &ProbeFailure| {
        failures.push(failure.kind());
        if let Some(socket) = socket.take() {
            listener = Some(socket.listen(8).expect("a listener"));
        }
    };
    Prober::new(Readiness::Tcp, Some(port), PortOwner::Own).until_ready(pids, on_failure).await;
    assert!(listener.is_some());
    assert_eq!(failures, ["not_listening", "foreign_holder"]);
}

#[tokio::test]
async fn an_answer_counts_only_while_the_port_is_the_childs_own() {
    let server = Server::start(|_| answer(200, &[], "")).await;
    let (mut looks, mut failures) = (0, Vec::new());
    let pids = || {
        // The second look, after the first answer, finds the port in other hands.
        looks += 1;
        if looks == 2 { Vec::new() } else { vec![std::process::id()] }
    };
    let readiness = Readiness::http("/");
    Prober::new(readiness, Some(server.port), PortOwner::Own)
        .until_ready(pids, |failure| failures.push(failure.kind()))
        .await;
    assert_eq!(failures, ["foreign_holder"]);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn what_a_process_tells_counts_only_once_the_port_is_its_own() {
    let log = Readiness::Log { pattern: LogPattern::new("^up$").expect("a pattern") };
    let truth = Readiness::Exec { command: "true".to_owned(), args: Vec::new() };
    let notify = |fd| Readiness::Notify { fd };
    for (ready, step) in
        [(log, "print up"), (truth, ""), (notify(None), "notify READY=1"), (notify(Some(3)), "notify-fd 3 x")]
    {
        let place = Place::new();
        let go = place.path("go");
        let (socket, port) = bound();
        drop(socket);
        let text = format!("{step} wait-for {} listen {port} sleep-forever", word(&go));
        let mut web = place.web(ProcessSpec { port: Some(port), ready: Some(ready), ..script(&text) }).await;
        web.waits_for(&format!("nothing listens on port {port}")).await;
        place.touch("go");
        web.ready().await;
        web.end().await;
    }
}
