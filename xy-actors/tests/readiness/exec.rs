//! Processes that are ready when a command says so.

use std::time::{Duration, Instant};

use xy_actors::exit::Cause;
use xy_actors::process::readiness::{ProbeFailure, Prober};
use xy_actors::process::{PortOwner, ProcessSpec, Readiness};
use xy_actors::spec::ChildSpec;

use crate::support::{Place, script, until, web, word};

fn command(text: &str) -> Readiness {
    let ProcessSpec { command, args, .. } = script(text);
    Readiness::Exec { command, args }
}

fn shell(text: &str) -> Readiness {
    Readiness::Exec { command: "sh".to_owned(), args: vec!["-c".to_owned(), text.to_owned()] }
}

fn prober(place: &Place, readiness: Readiness) -> Prober {
    Prober::new(readiness, None, PortOwner::Own).running_in(&place.host, "web", &script("sleep-forever"))
}

#[tokio::test]
async fn a_process_is_ready_when_the_command_succeeds_and_not_before() {
    let place = Place::new();
    let go = place.path("go");
    let ready = command(&format!("check {}", word(&go)));
    let mut web = place.web(ProcessSpec { ready: Some(ready), ..script("sleep-forever") }).await;
    web.waits_for(&format!("ended with exit code 1: no {} yet", go.display())).await;
    place.touch("go");
    web.ready().await;
    web.end().await;
    assert_eq!(place.host.live(), [], "no probe is left");
}

#[tokio::test]
async fn the_command_runs_in_the_environment_and_the_directory_of_the_process() {
    let place = Place::new();
    let mut spec = script("sleep-forever");
    spec.env.insert("OWN".to_owned(), "value".to_owned());
    spec.env.insert("PATH".to_owned(), "/usr/bin:/bin".to_owned());
    spec.working_dir = Some(place.path("."));
    spec.watchdog = Some(Duration::from_secs(600));
    let text = r#"[ "$OWN" = value ] && touch here && [ -z "$NOTIFY_SOCKET$WATCHDOG_USEC$WATCHDOG_PID" ]"#;
    spec.ready = Some(shell(text));
    let mut web = place.web(spec).await;
    web.ready().await;
    assert!(place.path("here").exists());
    web.end().await;
}

#[tokio::test]
async fn a_command_that_does_not_end_is_killed_with_all_it_started() {
    let place = Place::new();
    let pids = place.path("pids");
    let text = format!(
        "(setsid sleep 600 & echo $! >>{0}); sleep 600 & echo $! >>{0}; echo tired >&2; wait",
        word(&pids)
    );
    let failure = prober(&place, shell(&text))
        .attempt_timeout(Duration::from_secs(3))
        .check(&[])
        .await
        .expect_err("it does not end");
    assert_eq!(failure.to_string(), "`sh` did not end within 3s: tired");
    let pids = std::fs::read_to_string(pids).expect("written");
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines() {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
    assert_eq!(place.host.live(), []);
}

#[tokio::test]
async fn a_probe_that_is_called_off_leaves_no_process() {
    let place = Place::new();
    let mut prober = prober(&place, shell("sleep 600"));
    let probe = prober.check(&[]);
    tokio::select! {
        _ = probe => panic!("it does not end"),
        () = until("it runs", async || !place.host.live().is_empty()) => {}
    }
    until("it is gone", async || place.host.live().is_empty()).await;
}

#[tokio::test]
async fn the_end_of_the_command_decides_whoever_holds_its_output() {
    let place = Place::new();
    let begin = Instant::now();
    prober(&place, shell("setsid sleep 600 & echo fine")).check(&[]).await.expect("ready");
    assert!(begin.elapsed() < Duration::from_secs(60), "it did not wait for the pipe");
}

#[tokio::test]
async fn much_output_does_not_block_the_command_and_its_last_line_is_kept() {
    let place = Place::new();
    let text = "head -c 3000000 /dev/zero; printf '\\n\\377 last \\033[1mline\\n\\n'; exit 3";
    let failure = prober(&place, shell(text)).check(&[]).await.expect_err("exit code 3");
    assert_eq!(failure.to_string(), "`sh` ended with exit code 3: \u{fffd} last  [1mline");
}

#[tokio::test]
async fn a_signal_is_named() {
    let place = Place::new();
    let failure = prober(&place, command("signal-self 15")).check(&[]).await.expect_err("killed");
    assert!(failure.to_string().ends_with("ended with signal 15 (SIGTERM)"), "{failure}");
}

#[tokio::test]
async fn a_command_that_is_not_there_is_told_with_the_cause() {
    let place = Place::new();
    let ready = Readiness::Exec { command: "no-such-command".to_owned(), args: Vec::new() };
    let failure = prober(&place, ready.clone()).check(&[]).await.expect_err("it is not there");
    assert!(matches!(failure, ProbeFailure::Spawn { .. }), "{failure:?}");
    let child = ChildSpec { start_timeout: Some(Duration::from_secs(1)), ..web() };
    let mut web = place.web_with(child, ProcessSpec { ready: Some(ready), ..script("sleep-forever") }).await;
    web.expect("child_start_failed").await;
    let Cause::StartTimeout { message } = web.last_exit().await.report.cause.clone() else {
        panic!("no start timeout")
    };
    assert!(message.starts_with("`no-such-command` could not be run: "), "{message}");
    web.end().await;
}

#[tokio::test]
async fn without_a_place_to_run_it_fails_for_good() {
    let mut prober = Prober::new(shell("true"), None, PortOwner::Own);
    assert!(prober.check(&[]).await.expect_err("no host").is_permanent());
}

#[tokio::test]
async fn what_the_process_tells_itself_cannot_be_asked() {
    let mut prober = Prober::new(Readiness::Notify { fd: None }, None, PortOwner::Own);
    let failure = prober.check(&[]).await.expect_err("nobody to ask");
    assert!(matches!(failure, ProbeFailure::NotAsked { probe: "Notify" }) && failure.is_permanent());
}
