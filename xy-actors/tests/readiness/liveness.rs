//! Processes that were ready and are asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use xy_actors::exit::{Cause, Exit};
use xy_actors::policy::State;
use xy_actors::process::health::Liveness;
use xy_actors::process::readiness::StatusSet;
use xy_actors::process::{ProcessSpec, Readiness};

use crate::server::{Reply, Server, answer};
use crate::support::{Place, beside, script, until, word};

fn often(probe: Readiness) -> Liveness {
    Liveness { interval: Duration::from_millis(30), ..Liveness::new(probe) }
}

/// A server that gives these answers in turn, and the last one for ever.
async fn server(answers: Vec<Reply>) -> Server {
    let next = AtomicUsize::new(0);
    Server::start(move |_| {
        let index = next.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        answers[index].clone()
    })
    .await
}

fn statuses(statuses: &[u16]) -> Vec<Reply> {
    statuses.iter().map(|status| answer(*status, &[], "")).collect()
}

fn asked_over_http(server: &Server) -> ProcessSpec {
    ProcessSpec {
        ready: Some(Readiness::Started),
        liveness: Some(often(Readiness::http("/live"))),
        ..beside(server)
    }
}

#[tokio::test]
async fn three_failures_in_a_row_restart_it_with_the_cause_named() {
    let place = Place::new();
    let server = server(statuses(&[200, 503, 503, 503, 200])).await;
    let mut web = place.web(asked_over_http(&server)).await;
    web.expect("child_unhealthy").await;
    web.expect("child_stopping").await;
    web.expect("child_exited").await;
    web.ready_again(2).await;
    let info = web.info().await;
    assert_eq!(info.restarts, 1);
    let last = web.last_exit().await;
    let message = "liveness: `GET /live` was answered with status 503 (x3)".to_owned();
    assert_eq!((last.report.cause.clone(), last.report.exit), (Cause::Probe { message }, Exit::Abnormal));
    web.end().await;
}

#[tokio::test]
async fn one_that_flaps_is_unhealthy_and_healthy_and_never_restarted() {
    let place = Place::new();
    let server = server(statuses(&[503, 503, 200, 500, 200, 404, 503, 204])).await;
    let mut web = place.web(asked_over_http(&server)).await;
    for _ in 0..3 {
        web.expect("child_unhealthy").await;
        web.expect("child_healthy").await;
    }
    let info = web.info().await;
    assert_eq!((info.state, info.ready, info.incarnation.get()), (State::Running, true, 1));
    web.end().await;
}

#[tokio::test]
async fn while_it_fails_it_runs_and_says_why_it_is_not_ready() {
    let place = Place::new();
    let server = server(statuses(&[503])).await;
    let mut spec = asked_over_http(&server);
    spec.liveness = spec.liveness.map(|liveness| Liveness { failure_threshold: 1_000_000, ..liveness });
    let mut web = place.web(spec).await;
    web.expect("child_unhealthy").await;
    let info = web.info().await;
    assert_eq!((info.state, info.ready), (State::Running, false));
    assert_eq!(
        info.waits_for.as_deref(),
        Some("liveness: `GET /live` was answered with status 503; restarted after 1000000 in a row")
    );
    web.end().await;
}

#[tokio::test]
async fn failures_of_one_incarnation_do_not_count_for_the_next() {
    let place = Place::new();
    // Two failures, a crash, two failures, a success: three in a row only across the crash.
    let fails = place.path("fails");
    let crash = place.path("crash");
    place.touch("fails");
    let ready = Some(Readiness::Started);
    let probe = Readiness::Exec {
        command: "sh".to_owned(),
        args: vec!["-c".to_owned(), format!("echo x >>{0}.count; ! [ -e {0} ]", word(&fails))],
    };
    let liveness = Some(Liveness { failure_threshold: 3, interval: Duration::from_secs(1), ..often(probe) });
    let text = format!("wait-for {} sleep-forever", word(&crash));
    let child = script(&text);
    let mut web = place.web(ProcessSpec { ready, liveness, ..child }).await;
    let count = || std::fs::read_to_string(place.path("fails.count")).unwrap_or_default().lines().count();
    until("two probes have failed", async || count() == 2).await;
    web.tree.signal("web", 9).await.expect("a process");
    web.expect("child_exited").await;
    assert!(!matches!(web.last_exit().await.report.cause, Cause::Probe { .. }), "it was the signal");
    until("a third probe has failed", async || count() == 3).await;
    web.expect("child_unhealthy").await;
    std::fs::remove_file(&fails).expect("ours");
    web.expect("child_healthy").await;
    assert_eq!(
        web.info().await.incarnation.get(),
        2,
        "the third failure in a row was the first of its incarnation"
    );
    web.end().await;
}

#[tokio::test]
async fn failures_use_up_the_restart_limit() {
    let place = Place::new();
    let server = server(statuses(&[503])).await;
    let mut web = place.web(asked_over_http(&server)).await;
    for _ in 0..3 {
        web.expect("child_exited").await;
    }
    assert_eq!(web.info().await.state, State::Failed);
    web.end().await;
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let place = Place::new();
    let elsewhere = server(statuses(&[200])).await;
    let location = format!("http://127.0.0.1:{}/live", elsewhere.port);
    let server = server(vec![answer(302, &[("Location", &location)], "")]).await;
    let mut spec = asked_over_http(&server);
    let probe = Readiness::Http { path: "/".to_owned(), status: StatusSet::new([200..=299]), header: None };
    spec.liveness = Some(often(probe));
    let mut web = place.web(spec).await;
    web.expect("child_exited").await;
    let cause = web.last_exit().await.report.cause.to_string();
    assert!(cause.contains("status 302, a redirect to") && cause.contains(&location), "{cause}");
    assert_eq!(elsewhere.requests().len(), 0);
    web.end().await;
}

#[tokio::test]
async fn hostile_answers_are_failures_or_bounded() {
    let many_fields = Reply::Flood(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-More: and more\r\n".to_vec());
    let endless_head = Reply::Flood(b"HTTP/1.1 200 OK\r\nX-More: ".to_vec(), b"and more ".to_vec());
    let endless_body = Reply::Flood(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 60_000]);
    let no_text = Reply::Close(b"HTTP/1.1 \xff\xfe OK\r\n\r\n".to_vec());
    let silence = Reply::Hold(Vec::new());
    for (reply, expected) in [
        (many_fields, Some("too many header fields")),
        (endless_head, Some("a head of more than 16 KiB")),
        (no_text, Some("something that is not HTTP")),
        (silence, Some("was not answered within")),
        (endless_body, None),
    ] {
        let place = Place::new();
        let server = Arc::new(server(vec![reply]).await);
        let mut spec = asked_over_http(&server);
        spec.liveness = spec.liveness.map(|liveness| Liveness {
            failure_threshold: 1,
            timeout: Duration::from_millis(500),
            ..liveness
        });
        let mut web = place.web(spec).await;
        match expected {
            Some(text) => {
                web.expect("child_exited").await;
                let cause = web.last_exit().await.report.cause.to_string();
                assert!(cause.contains(text), "{cause}");
            }
            None => {
                until("it was asked often", async || server.requests().len() > 5).await;
                assert_eq!(web.info().await.incarnation.get(), 1);
            }
        }
        web.end().await;
    }
}

#[tokio::test]
async fn an_operators_stop_ends_the_asking() {
    let place = Place::new();
    let server = server(statuses(&[200])).await;
    let web = place.web(asked_over_http(&server)).await;
    until("it was asked", async || !server.requests().is_empty()).await;
    web.tree.stop("web", None).await.expect("stops");
    let asked = server.requests().len();
    tokio::time::timeout(Duration::from_millis(300), until("", async || server.requests().len() > asked + 1))
        .await
        .expect_err("nobody asks a process that is not there");
    web.end().await;
}

#[tokio::test]
async fn a_check_that_makes_no_sense_fails_the_start() {
    let place = Place::new();
    let liveness = Some(Liveness::new(Readiness::Started));
    let mut web = place.web(ProcessSpec { liveness, ..script("sleep-forever") }).await;
    web.expect("child_start_failed").await;
    let cause = web.last_exit().await.report.cause.to_string();
    assert!(cause.contains("`Started` cannot be asked again"), "{cause}");
    web.end().await;
}
