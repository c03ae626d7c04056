//! A process that is ended by a command of its own before the signal.

use std::path::Path;
use std::time::Duration;

use xy_actors::log::{LogHub, LogSettings, Stream};
use xy_actors::process::{ProcessSpec, StopCommand, process};
use xy_actors::spec::{ChildSpec, Shutdown, SupervisorSpec};
use xy_actors::supervisor::{StopOutcome, Supervisor};

use crate::support::{DEADLINE, child, host, wait_until_async};

/// A tree with one process that is up and has written its pid to `ready`.
async fn started(spec: ProcessSpec, ready: &Path) -> (Supervisor, LogHub) {
    started_with(spec, ready, DEADLINE).await
}

/// The same with this long from the stop to KILL.
async fn started_with(spec: ProcessSpec, ready: &Path, until_kill: Duration) -> (Supervisor, LogHub) {
    let logs = LogHub::new(None);
    let rules = ChildSpec { shutdown: Shutdown::Timeout(until_kill), ..ChildSpec::worker("web") };
    let tree = Supervisor::builder(SupervisorSpec::default())
        .child(rules, process(spec, &host(), &logs))
        .spawn()
        .await
        .expect("starts");
    // The program may be further than the supervisor, for which the start is then still under way.
    tree.start("web", None).await.expect("it starts, or has");
    wait_until_async("it is up", || ready.exists()).await;
    (tree, logs)
}

fn command(script: &str, grace: Duration) -> Option<StopCommand> {
    Some(StopCommand { command: "/bin/sh".to_owned(), args: vec!["-c".to_owned(), script.to_owned()], grace })
}

/// Stops it and returns how it ended, in words.
async fn stop(tree: &Supervisor) -> String {
    match tree.stop("web", None).await.expect("stopped") {
        StopOutcome::Stopped(report) => report.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn log(logs: &LogHub) -> Vec<(Stream, String)> {
    logs.flush().await;
    let log = logs.open("web", LogSettings::default()).expect("open");
    log.tail(100)
        .iter()
        .map(|line| (line.stream, String::from_utf8_lossy(&line.bytes).into_owned()))
        .collect()
}

#[tokio::test]
async fn a_stop_command_ends_the_process_instead_of_the_signal() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (ready, go) = (dir.path().join("ready"), dir.path().join("go"));
    // Had it got the signal, it would have ended with code 7.
    let mut spec =
        child(&format!("exit-on TERM 7 touch {} wait-for {} exit 0", ready.display(), go.display()));
    spec.env.insert("GO".to_owned(), go.display().to_string());
    spec.stop_command = command("echo ending $XY_PID; touch $GO; wait; echo done >&2", DEADLINE);
    let (tree, logs) = started(spec, &ready).await;
    let pid = tree.which_child("web").await.expect("known").pid.expect("it runs");
    let ended = stop(&tree).await;
    assert!(ended.contains('0') && !ended.contains('7'), "{ended}");
    let lines = log(&logs).await;
    assert!(lines.contains(&(Stream::Out, format!("ending {pid}"))), "{lines:?}");
    assert!(lines.contains(&(Stream::Err, "done".to_owned())), "{lines:?}");
}

#[tokio::test]
async fn a_stop_command_that_fails_is_named_and_the_signal_follows_at_once() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let cases: [(&str, &str, Duration, &str); 3] = [
        ("code", "exit 9", 10 * DEADLINE, "stop command `/bin/sh` failed: it ended with code 9"),
        ("signal", "kill -KILL $$", 10 * DEADLINE, "stop command `/bin/sh` failed: it was ended by signal 9"),
        (
            "late",
            "sleep 600",
            Duration::from_millis(50),
            "stop command `/bin/sh` failed: it did not end within 50ms and was killed",
        ),
    ];
    for (name, script, grace, expected) in cases {
        let ready = dir.path().join(name);
        let mut spec = child(&format!("exit-on TERM 7 touch {} sleep-forever", ready.display()));
        spec.stop_command = command(script, grace);
        let (tree, logs) = started(spec, &ready).await;
        let ended = stop(&tree).await;
        assert!(ended.contains('7'), "{name}: {ended}");
        let lines = log(&logs).await;
        assert!(lines.contains(&(Stream::Xy, expected.to_owned())), "{name}: {lines:?}");
    }
    let ready = dir.path().join("missing");
    let mut spec = child(&format!("exit-on TERM 7 touch {} sleep-forever", ready.display()));
    spec.stop_command =
        Some(StopCommand { command: "/no/such".to_owned(), args: Vec::new(), grace: 10 * DEADLINE });
    let (tree, logs) = started(spec, &ready).await;
    assert!(stop(&tree).await.contains('7'));
    let lines = log(&logs).await;
    assert!(
        lines.iter().any(|(_, line)| line.contains("failed: program `/no/such` does not exist")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn after_a_failed_stop_command_the_rest_of_its_time_does_not_put_off_the_kill() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ready = dir.path().join("ready");
    let mut spec = child(&format!("ignore TERM touch {} sleep-forever", ready.display()));
    let grace = 100 * DEADLINE;
    spec.stop_command = command("exit 9", grace);
    let (tree, _logs) = started_with(spec, &ready, grace + Duration::from_millis(50)).await;
    let ended =
        tokio::time::timeout(DEADLINE, stop(&tree)).await.expect("long before the time of both is over");
    assert!(ended.contains("SIGKILL"), "{ended}");
}

#[tokio::test]
async fn the_signal_follows_when_the_command_succeeded_and_nothing_ended() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ready = dir.path().join("ready");
    let mut spec = child(&format!("exit-on TERM 7 touch {} sleep-forever", ready.display()));
    spec.stop_command = command("true", Duration::from_millis(50));
    let (tree, _logs) = started(spec, &ready).await;
    let ended = stop(&tree).await;
    assert!(ended.contains('7'), "{ended}");
}

#[tokio::test]
async fn what_the_process_leaves_behind_gets_the_signal_although_the_command_came_first() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ready = dir.path().join("ready");
    let mut spec = child(&format!("spawn 1 sleep-forever touch {} sleep-forever", ready.display()));
    spec.stop_command = command("kill -KILL $XY_PID", 10 * DEADLINE);
    let (tree, _logs) = started(spec, &ready).await;
    match tree.stop("web", None).await.expect("stopped") {
        StopOutcome::Stopped(report) => assert_eq!(report.killed, [], "the signal was enough"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_kill_does_not_wait_for_the_stop_command() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ready = dir.path().join("ready");
    let begun = dir.path().join("begun");
    let mut spec = child(&format!("ignore TERM touch {} sleep-forever", ready.display()));
    spec.env.insert("BEGUN".to_owned(), begun.display().to_string());
    spec.stop_command = command("echo $$ > $BEGUN.part; mv $BEGUN.part $BEGUN; sleep 600", 10 * DEADLINE);
    let (tree, _logs) = started(spec, &ready).await;
    let stopping = tokio::spawn({
        let tree = tree.clone();
        async move { tree.stop("web", None).await }
    });
    wait_until_async("the command runs", || begun.exists()).await;
    let helper = crate::support::pid_in(&begun);
    let report = tree.kill().await;
    assert_eq!((report.killed.len(), report.leaked.len()), (1, 0), "{report:?}");
    let _stopped_by_the_kill = stopping.await;
    wait_until_async("the command is gone", || !crate::support::is_running(helper)).await;
}
