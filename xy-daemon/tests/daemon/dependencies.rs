//! Servers wait for others, and are told why.

use xy_daemon::protocol::method::{OperationParams, Reload, ReloadParams, Restart, Start, State};

use super::support::{World, list, ready, script, status, stop, until_status, within};

const QUICK: &str = r#"restart: (backoff_initial: "10ms", backoff_max: "80ms")"#;

#[tokio::test]
async fn each_server_starts_when_what_it_waits_for_has_come_about() {
    let mut world = World::new();
    let (go, notified) = (world.path("go"), world.path("notified"));
    // Started, but not ready before it is allowed to say so.
    let db = format!("touch {} wait-for {} notify READY=1 sleep-forever", notified.display(), go.display());
    world.write("db", &script(&db, "ready: Notify"));
    world.write("sees_start", &script("sleep-forever", r#"depends_on: {"db": Started}"#));
    world.write("needs_ready", &script("sleep-forever", r#"depends_on: ["db"]"#));
    let client = world.boot().await;
    ready(&client, "sees_start").await;
    let waits = status(&client, "needs_ready").await.summary;
    assert_eq!((waits.state, waits.pid), (State::Starting, None));
    assert_eq!(waits.next.as_deref(), Some("waiting for \"db\" to be ready"));
    std::fs::write(&go, "").expect("written");
    ready(&client, "needs_ready").await;
}

#[tokio::test]
async fn a_job_is_a_dependency_and_a_failed_one_holds_its_dependents_until_it_succeeds() {
    let mut world = World::new();
    let go = world.path("go");
    world.write("migrate", &script("exit 3", "restart: (max_retries_per_minute: 0)"));
    world.write("web", &script("sleep-forever", r#"depends_on: {"migrate": Completed}"#));
    let client = world.boot().await;
    until_status(&client, "migrate", |job| job.summary.state == State::Failed).await;
    let waits = status(&client, "web").await.summary;
    assert_eq!((waits.state, waits.pid), (State::Starting, None));
    assert_eq!(waits.next.as_deref(), Some("waiting for \"migrate\" to be completed, which is failed"));
    // The job is mended, and succeeds once it is allowed to.
    world.write("migrate", &script(&format!("wait-for {} exit 0", go.display()), QUICK));
    within("reload", client.call::<Reload>(ReloadParams { dry_run: false })).await.expect("answered");
    until_status(&client, "migrate", |job| job.summary.pid.is_some()).await;
    assert_eq!(status(&client, "web").await.summary.pid, None);
    std::fs::write(&go, "").expect("written");
    ready(&client, "web").await;
    assert_eq!(status(&client, "migrate").await.summary.state, State::Stopped);
    // What is done stays done.
    within("restart", client.call::<Restart>(OperationParams::named("web"))).await.expect("answered");
    ready(&client, "web").await;
}

#[tokio::test]
async fn a_dependent_starts_when_a_failed_dependency_recovers() {
    let mut world = World::new();
    world.write("db", &script("exit 1", "ready: Log(\"never\"), restart: (max_retries_per_minute: 0)"));
    world.write("web", &script("sleep-forever", r#"depends_on: ["db"]"#));
    let client = world.boot().await;
    until_status(&client, "db", |db| db.summary.state == State::Failed).await;
    let next = status(&client, "web").await.summary.next;
    assert_eq!(next.as_deref(), Some("waiting for \"db\" to be ready, which is failed"));
    world.write("db", &script("sleep-forever", QUICK));
    within("reload", client.call::<Reload>(ReloadParams { dry_run: false })).await.expect("answered");
    ready(&client, "db").await;
    ready(&client, "web").await;
}

#[tokio::test]
async fn a_server_is_restarted_with_the_one_it_follows_and_others_are_not() {
    let mut world = World::with(&[
        ("db", script("sleep-forever", QUICK)),
        ("follows", script("sleep-forever", r#"depends_on: {"db": Ready(restart: true)}"#)),
        ("waits", script("sleep-forever", r#"depends_on: ["db"]"#)),
    ]);
    let client = world.boot().await;
    let before = [ready(&client, "follows").await, ready(&client, "waits").await];
    super::support::send(ready(&client, "db").await, nix::sys::signal::Signal::SIGKILL);
    let followed =
        until_status(&client, "follows", |now| now.summary.ready && now.summary.pid != Some(before[0]));
    followed.await;
    assert_eq!(ready(&client, "waits").await, before[1]);
    let stopped = stop(&client, "db").await;
    assert_eq!(stopped.stopped, ["db"]);
    assert!(status(&client, "follows").await.summary.ready, "a stop is no restart");
}

#[tokio::test]
async fn healthy_waits_for_the_first_liveness_probe_that_is_passed() {
    let mut world = World::new();
    let well = world.path("well");
    let liveness = format!(
        "liveness: (probe: Exec(command: \"test\", args: [\"-e\", {well:?}]), interval: \"20ms\", failures: 1000)"
    );
    world.write("db", &script("sleep-forever", &liveness));
    world.write("web", &script("sleep-forever", r#"depends_on: {"db": Healthy}"#));
    let seldom = liveness.replace("20ms", "1h");
    world.write("seldom", &script("sleep-forever", &seldom));
    let client = world.boot().await;
    ready(&client, "db").await;
    ready(&client, "seldom").await;
    let unproven = until_status(&client, "seldom", |_| true).await.summary;
    let told = (unproven.ready, unproven.unproven, unproven.next.as_deref());
    assert_eq!(told, (true, true, Some("ready; its liveness check has not been passed yet")));
    let waits = until_status(&client, "web", |web| web.summary.next.is_some()).await.summary;
    let told = (waits.state, waits.next.as_deref());
    assert_eq!(told, (State::Starting, Some("waiting for \"db\" to be healthy")));
    until_status(&client, "db", |db| !db.summary.ready).await;
    assert_eq!(until_status(&client, "web", |_| true).await.summary.state, State::Starting);
    std::fs::write(&well, "").expect("written");
    ready(&client, "web").await;
    let db = until_status(&client, "db", |_| true).await.summary;
    assert_eq!((db.ready, db.unproven, db.next), (true, false, None));
}

#[tokio::test]
async fn a_reload_turns_dependencies_around_without_touching_the_processes() {
    let on = |name: &str| script("sleep-forever", &format!("depends_on: [{name:?}]"));
    let free = || script("sleep-forever", "");
    let mut world = World::with(&[("a", on("b")), ("b", free())]);
    let client = world.boot().await;
    let before = [ready(&client, "a").await, ready(&client, "b").await];
    world.write("a", &free());
    world.write("b", &script("sleep-forever", r#"depends_on: ["a", "c"]"#));
    world.write("c", &on("a"));
    let result = within("reload", client.call::<Reload>(ReloadParams { dry_run: false })).await;
    let result = result.expect("answered");
    assert_eq!((result.changed.len(), result.added.len(), result.rejected.len()), (2, 1, 0), "{result:?}");
    ready(&client, "c").await;
    assert_eq!([ready(&client, "a").await, ready(&client, "b").await], before);
    // The new order holds: `b` waits for `a` now.
    stop(&client, "b").await;
    stop(&client, "a").await;
    let mut params = OperationParams::named("b");
    params.wait = false;
    within("start", client.call::<Start>(params)).await.expect("answered");
    let waits = until_status(&client, "b", |b| b.summary.state == State::Starting).await.summary.next;
    assert_eq!(waits.as_deref(), Some("waiting for \"a\" to be ready, which is stopped"));
    within("start", client.call::<Start>(OperationParams::named("a"))).await.expect("answered");
    ready(&client, "b").await;
}

#[tokio::test]
async fn a_circle_among_files_keeps_those_files_out_and_the_rest_runs() {
    let on = |name: &str| script("sleep-forever", &format!("depends_on: [{name:?}]"));
    let mut world = World::with(&[("a", on("b")), ("b", on("a")), ("c", script("sleep-forever", ""))]);
    let client = world.boot().await;
    ready(&client, "c").await;
    assert_eq!(list(&client).await.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["c"]);
    assert!(world.said().contains("`a` -> `b` -> `a`"), "{}", world.said());
}

#[tokio::test]
async fn a_job_that_nobody_waits_for_any_more_may_become_a_service_in_the_same_reload() {
    let mut world = World::new();
    let go = world.path("go");
    let steps = format!("wait-for {} exit 0", go.display());
    world.write("job", &script(&steps, QUICK));
    world.write("web", &script("sleep-forever", r#"depends_on: {"job": Completed}"#));
    let client = world.boot().await;
    until_status(&client, "job", |job| job.summary.ready).await;
    world.write("job", &script(&steps, &QUICK.replace("(back", "(policy: Always, back")));
    world.write("web", &script("sleep-forever", ""));
    within("reload", client.call::<Reload>(ReloadParams { dry_run: false })).await.expect("answered");
    ready(&client, "web").await;
    std::fs::write(&go, "").expect("written");
    until_status(&client, "job", |job| job.summary.restart_count > 0).await;
}
