//! Processes that must say again and again that they are alive.

use std::time::Duration;

use xy_actors::exit::Cause;
use xy_actors::process::{ProcessSpec, Readiness};

use crate::support::{Place, script, word};

fn watched(text: &str) -> ProcessSpec {
    ProcessSpec {
        ready: Some(Readiness::Notify { fd: None }),
        watchdog: Some(Duration::from_secs(2)),
        ..script(text)
    }
}

fn message(cause: &Cause) -> &str {
    match cause {
        Cause::Probe { message } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_that_falls_silent_is_restarted_with_the_watchdog_as_the_cause() {
    let place = Place::new();
    let mut web = place.web(watched("notify READY=1 notify WATCHDOG=1 sleep-forever")).await;
    web.ready().await;
    web.expect("child_exited").await;
    assert_eq!(message(&web.last_exit().await.report.cause), "watchdog: no `WATCHDOG=1` for 2s");
    web.ready_again(2).await;
    web.end().await;
}

#[tokio::test]
async fn signs_of_life_keep_it_running() {
    let place = Place::new();
    let done = place.path("done");
    let signs = "sleep 200 notify WATCHDOG=1 ".repeat(20);
    let mut web =
        place.web(watched(&format!("notify READY=1 {signs} touch {} sleep-forever", word(&done)))).await;
    web.expect("child_exited").await;
    assert!(done.exists(), "twice its period passed before it fell silent");
    web.end().await;
}

#[tokio::test]
async fn its_time_begins_when_it_is_ready() {
    let place = Place::new();
    let mut web = place.web(watched("sleep 3000 notify READY=1 sleep-forever")).await;
    web.ready().await;
    assert_eq!(web.info().await.incarnation.get(), 1);
    web.end().await;
}

#[tokio::test]
async fn one_may_trigger_its_own_watchdog() {
    let place = Place::new();
    let mut web = place.web(watched("notify READY=1 notify WATCHDOG=trigger sleep-forever")).await;
    web.expect("child_exited").await;
    assert_eq!(message(&web.last_exit().await.report.cause), "watchdog: triggered by the process itself");
    web.end().await;
}

#[tokio::test]
async fn it_gets_socket_period_and_pid_whatever_proves_its_readiness() {
    let place = Place::new();
    let spec = ProcessSpec { ready: Some(Readiness::Started), ..watched("print-env sleep-forever") };
    let mut web = place.web(spec).await;
    web.ready().await;
    let pid = web.info().await.pid.expect("a process");
    web.logs(&format!("WATCHDOG_PID={pid}")).await;
    web.logs("WATCHDOG_USEC=2000000").await;
    web.logs("NOTIFY_SOCKET=/").await;
    web.end().await;
}

#[tokio::test]
async fn one_that_is_not_watched_gets_none_of_it() {
    let place = Place::new();
    let mut web = place.web(script("print-env print the-end sleep-forever")).await;
    web.ready().await;
    web.logs("the-end").await;
    let ours = |line: &String| line.starts_with("NOTIFY_SOCKET") || line.starts_with("WATCHDOG_");
    assert_eq!(web.lines().iter().find(|line| ours(line)), None);
    web.end().await;
}
