//! Readiness and health from a server's file to what `status` says.

use xy_daemon::protocol::method::State;

use super::support::{World, list, ready, script, until_status};

#[tokio::test]
async fn a_server_tells_itself_that_it_is_ready_and_is_replaced_when_it_falls_silent() {
    let mut world = World::new();
    let go = world.path("go");
    let steps = format!("notify STATUS=warming wait-for {} notify READY=1 sleep-forever", go.display());
    let more = r#"ready: Notify, watchdog: "1s", restart: (backoff_initial: "0s")"#;
    world.write("web", &script(&steps, more));
    let client = world.boot().await;
    let starting = until_status(&client, "web", |now| {
        now.summary.next.as_deref().is_some_and(|next| next.ends_with("which says: warming"))
    })
    .await;
    assert_eq!((starting.summary.state, starting.summary.ready), (State::Starting, false));
    std::fs::write(&go, "").expect("written");
    let first = ready(&client, "web").await;
    let again = until_status(&client, "web", |now| now.summary.ready && now.summary.pid != Some(first)).await;
    let last = again.summary.last_exit.expect("it was replaced");
    assert!(last.cause.contains("watchdog: no `WATCHDOG=1` for 1s"), "{last:?}");
}

#[tokio::test]
async fn a_server_that_fails_its_liveness_check_is_running_and_not_ready_then_restarted() {
    let mut world = World::new();
    let (bad, worse) = (world.path("bad"), world.path("worse"));
    // The second failure waits, so that the state in between can be seen, and is the last one.
    let check = format!(
        "[ -e {bad} ] || exit 0; echo not well; [ -e {bad}.told ] || {{ touch {bad}.told; exit 1; }}; \
         until [ -e {worse} ]; do sleep 0.01; done; rm {bad}; exit 1",
        bad = bad.display(),
        worse = worse.display()
    );
    let more = format!(
        "liveness: (probe: Exec(command: \"sh\", args: [\"-c\", {check:?}]), interval: \"20ms\", \
         timeout: \"10s\", failures: 2), restart: (backoff_initial: \"0s\")"
    );
    world.write("web", &script("sleep-forever", &more));
    let client = world.boot().await;
    let first = ready(&client, "web").await;
    std::fs::write(&bad, "").expect("written");
    let unwell = until_status(&client, "web", |now| !now.summary.ready).await;
    assert_eq!((unwell.summary.state, unwell.summary.pid), (State::Running, Some(first)));
    let next = unwell.summary.next.expect("it says why");
    assert!(next.starts_with("not ready: liveness: `sh` ended with exit code 1: not well"), "{next}");
    std::fs::write(&worse, "").expect("written");
    let again = until_status(&client, "web", |now| now.summary.ready && now.summary.pid != Some(first)).await;
    let last = again.summary.last_exit.expect("it was restarted");
    assert_eq!(last.cause, "liveness: `sh` ended with exit code 1: not well (x2)");
    assert_eq!(list(&client).await[0].restart_count, 1);
}
