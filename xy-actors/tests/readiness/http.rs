//! The HTTP probe.

use std::time::Duration;

use xy_actors::process::readiness::{ProbeFailure, ProbeHeader, Prober, StatusSet};
use xy_actors::process::{PortOwner, Readiness};

use crate::server::{Reply, Server, answer};

fn prober(server: &Server) -> Prober {
    Prober::new(Readiness::http("/health?full=1"), Some(server.port), PortOwner::Own)
}

async fn check(server: &Server) -> Result<(), ProbeFailure> {
    prober(server).check(&[std::process::id()]).await
}

#[tokio::test]
async fn a_status_from_200_to_399_is_ready_and_no_other() {
    for (status, ready) in
        [(200, true), (204, true), (302, true), (399, true), (400, false), (404, false), (503, false)]
    {
        let server = Server::start(move |_| answer(status, &[], "body")).await;
        match check(&server).await {
            Ok(()) => assert!(ready, "{status}"),
            Err(ProbeFailure::Http { status: named, .. }) => assert!(!ready && named == status, "{status}"),
            Err(failure) => panic!("{status}: {failure:?}"),
        }
    }
}

#[tokio::test]
async fn the_request_names_path_and_host_and_asks_to_close() {
    let server = Server::start(|_| answer(200, &[], "")).await;
    check(&server).await.expect("ready");
    let requests = server.requests();
    assert_eq!(requests[0].line, "GET /health?full=1");
    assert_eq!(requests[0].header("host"), Some(format!("localhost:{}", server.port).as_str()));
    assert_eq!(requests[0].header("connection"), Some("close"));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(|_| answer(200, &[], "")).await;
    let location = format!("http://127.0.0.1:{}/", elsewhere.port);
    let server = Server::start(move |_| answer(302, &[("Location", &location)], "")).await;
    check(&server).await.expect("a redirect is an answer");
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn a_body_without_end_is_not_waited_for() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".to_vec();
    let server = Server::start(move |_| Reply::Hold(head.clone())).await;
    check(&server).await.expect("ready");
}

#[tokio::test]
async fn an_interim_answer_is_passed_over() {
    let text = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    let server = Server::start(move |_| Reply::Hold(text.into())).await;
    let failure = check(&server).await.expect_err("503");
    assert!(matches!(failure, ProbeFailure::Http { status: 503, .. }), "{failure:?}");
}

#[tokio::test]
async fn headers_without_end_are_cut_off() {
    let start = b"HTTP/1.1 200 OK\r\n".to_vec();
    for again in ["X-More: and more and more\r\n", "x", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let start = if again.starts_with("HTTP") { Vec::new() } else { start.clone() };
        let server = Server::start(move |_| Reply::Flood(start.clone(), again.into())).await;
        let failure = check(&server).await.expect_err("no end of headers");
        assert!(matches!(failure, ProbeFailure::Protocol { .. }), "{again:?}: {failure:?}");
    }
}

#[tokio::test]
async fn silence_is_a_timeout_that_names_the_request() {
    for start in ["", "HTTP/1.1 200 OK\r\nX-Ha"] {
        let server = Server::start(move |_| Reply::Hold(start.into())).await;
        let limit = Duration::from_millis(100);
        let failure =
            prober(&server).attempt_timeout(limit).check(&[std::process::id()]).await.expect_err("no answer");
        assert_eq!(failure.to_string(), "`GET /health?full=1` was not answered within 100ms");
    }
}

#[tokio::test]
async fn what_is_no_http_is_not_ready() {
    for text in ["SSH-2.0-OpenSSH_9.9\r\n", "HTTP/1.1 200", ""] {
        let server = Server::start(move |_| Reply::Close(text.into())).await;
        let failure = check(&server).await.expect_err("no HTTP");
        let expected = match text {
            "" => matches!(failure, ProbeFailure::Connection { .. }),
            _ => matches!(failure, ProbeFailure::Protocol { .. }),
        };
        assert!(expected, "{text:?}: {failure:?}");
    }
}

#[tokio::test]
async fn a_path_that_is_no_path_fails_for_good_before_anything_is_asked() {
    let readiness = Readiness::http("/\r\nX-Smuggled: yes");
    let mut prober = Prober::new(readiness, Some(1), PortOwner::Own);
    let failure = prober.check(&[std::process::id()]).await.expect_err("an invalid path");
    assert!(failure.is_permanent(), "{failure:?}");
}

fn http(status: StatusSet, header: Option<(&str, &str)>) -> Readiness {
    let header = header.map(|(name, value)| ProbeHeader { name: name.to_owned(), value: value.to_owned() });
    Readiness::Http { path: "/".to_owned(), status, header }
}

#[tokio::test]
async fn only_the_listed_statuses_are_ready() {
    for (status, ready) in [(200, false), (204, true), (401, true), (404, false), (503, true), (504, false)] {
        let server = Server::start(move |_| answer(status, &[], "")).await;
        let readiness = http(StatusSet::new([204..=204, 401..=403, 503..=503]), None);
        let outcome =
            Prober::new(readiness, Some(server.port), PortOwner::Own).check(&[std::process::id()]).await;
        assert_eq!(outcome.is_ok(), ready, "{status}");
    }
}

#[tokio::test]
async fn the_one_header_is_sent_and_never_shown() {
    let server = Server::start(|_| answer(200, &[], "")).await;
    let readiness = http(StatusSet::default(), Some(("X-Probe", "top secret")));
    assert!(!format!("{readiness:?}").contains("secret"), "{readiness:?}");
    let mut prober = Prober::new(readiness, Some(server.port), PortOwner::Own);
    prober.check(&[std::process::id()]).await.expect("ready");
    assert_eq!(server.requests()[0].header("x-probe"), Some("top secret"));
}

#[tokio::test]
async fn a_header_that_could_smuggle_another_is_never_sent() {
    for (name, value) in
        [("X\r\nY", "1"), ("", "1"), ("X:", "1"), ("Host", "a"), ("X", "1\r\nY: 2"), ("X", "\0")]
    {
        let readiness = http(StatusSet::default(), Some((name, value)));
        let mut prober = Prober::new(readiness, Some(1), PortOwner::Own);
        let failure = prober.check(&[std::process::id()]).await.expect_err("an invalid header");
        assert!(failure.is_permanent(), "{name:?}: {failure:?}");
    }
}
