//! Groups of servers: addressed by path, stopped and restarted as a whole, reloaded child by child.

use nix::sys::signal::Signal;
use xy_daemon::client::Client;
use xy_daemon::protocol::error::ErrorKind;
use xy_daemon::protocol::method::{
    Logs, LogsParams, OperationParams, Pause, Reload, ReloadParams, ReloadResult, Reloaded, Restart, Start,
    State, Status, StatusParams, Targets, Wanted,
};

use super::support::{World, list, ready, script, send, status, stop, until_status, within};

const QUICK: &str = r#"restart: (backoff_initial: "10ms", backoff_max: "80ms")"#;

fn group(keys: &str, children: &[String]) -> String {
    format!("Supervisor({keys} children: [{}])", children.join(", "))
}

fn child(name: &str, steps: &str, more: &str) -> String {
    script(steps, &format!("name: {name:?}, {more}"))
}

fn sleeper(name: &str) -> String {
    child(name, "sleep-forever", QUICK)
}

async fn reload(client: &Client) -> ReloadResult {
    let params = ReloadParams { dry_run: false };
    within("reload", client.call::<Reload>(params)).await.expect("answered")
}

fn names(rows: &[Reloaded]) -> Vec<&str> {
    rows.iter().map(|row| row.name.as_str()).collect()
}

/// Waits until a group as a whole is ready.
async fn group_ready(client: &Client, name: &str) {
    until_status(client, name, |group| group.summary.state == State::Running && group.summary.ready).await;
}

#[tokio::test]
async fn a_group_starts_in_order_is_listed_as_a_tree_and_stops_as_a_whole() {
    let mut world = World::new();
    let go = world.path("go");
    let db = format!("wait-for {} notify READY=1 sleep-forever", go.display());
    let children = [
        child("db", &db, "ready: Notify"),
        sleeper("web"),
        format!("Supervisor(name: \"pool\", children: [{}])", sleeper("worker")),
    ];
    world.write("backend", &group("", &children));
    world.write("alone", &script("sleep-forever", ""));
    let client = world.boot().await;
    until_status(&client, "backend/db", |db| db.summary.pid.is_some()).await;
    assert_eq!(status(&client, "backend/web").await.summary.pid, None, "its turn comes later");
    std::fs::write(&go, "").expect("written");
    group_ready(&client, "backend").await;
    ready(&client, "alone").await;
    let rows = list(&client).await;
    let shown: Vec<(&str, bool)> = rows.iter().map(|row| (row.name.as_str(), row.group)).collect();
    let expected = [
        ("alone", false),
        ("backend", true),
        ("backend/db", false),
        ("backend/web", false),
        ("backend/pool", true),
        ("backend/pool/worker", false),
    ];
    assert_eq!(shown, expected);
    assert!(rows.iter().all(|row| row.ready && row.pid.is_some() != row.group), "{rows:#?}");
    let inside = status(&client, "backend").await.children;
    assert_eq!(inside.len(), 4);

    assert_eq!(stop(&client, "backend").await.stopped, ["backend"]);
    assert_eq!(world.processes().len(), 1, "only `alone` is left");
    let rows = list(&client).await;
    assert_eq!(rows.len(), 6, "what is in a stopped group is still shown: {rows:#?}");
    assert!(rows.iter().all(|row| (row.state == State::Stopped) == row.name.starts_with("backend")));
    within("start", client.call::<Start>(OperationParams::named("backend"))).await.expect("answered");
    ready(&client, "backend/pool/worker").await;
}

#[tokio::test]
async fn a_child_is_operated_on_by_its_path_and_its_siblings_do_not_notice() {
    let mut world = World::with(&[("backend", group("strategy: OneForAll,", &[sleeper("a"), sleeper("b")]))]);
    let client = world.boot().await;
    group_ready(&client, "backend").await;
    let before = [ready(&client, "backend/a").await, ready(&client, "backend/b").await];
    within("restart", client.call::<Restart>(OperationParams::named("backend/a"))).await.expect("answered");
    assert_ne!(ready(&client, "backend/a").await, before[0]);
    assert_eq!(stop(&client, "backend/a").await.stopped, ["backend/a"]);
    let stopped = status(&client, "backend/a").await.summary;
    assert_eq!((stopped.state, stopped.wanted), (State::Stopped, Wanted::Down));
    assert_eq!(ready(&client, "backend/b").await, before[1]);
    let started = within("start", client.call::<Start>(OperationParams::named("backend/a"))).await;
    assert_eq!(started.expect("answered").started, ["backend/a"]);
    assert_eq!(ready(&client, "backend/b").await, before[1]);

    // A start of the group that runs brings back what is down in it.
    stop(&client, "backend/a").await;
    let started = within("start", client.call::<Start>(OperationParams::named("backend"))).await;
    assert_eq!(started.expect("answered").started, ["backend"]);
    assert!(status(&client, "backend/a").await.summary.ready);
    let started = within("start", client.call::<Start>(OperationParams::named("backend"))).await;
    assert_eq!(started.expect("answered").already_running, ["backend"]);
    assert_eq!(ready(&client, "backend/b").await, before[1]);

    // By strategy, a crash takes the other along.
    send(ready(&client, "backend/a").await, Signal::SIGKILL);
    until_status(&client, "backend/b", |b| b.summary.ready && b.summary.pid != Some(before[1])).await;
    ready(&client, "backend/a").await;
}

#[tokio::test]
async fn what_does_not_exist_or_run_in_a_group_is_told_apart() {
    let mut world = World::with(&[("backend", group("autostart: false,", &[sleeper("a")]))]);
    let client = world.boot().await;
    let started = within(
        "start",
        client.call::<Start>(OperationParams::new(Targets::Names(vec![
            "backend/a".into(),
            "backend/x".into(),
            "nothing/x".into(),
        ]))),
    );
    let failed = started.await.expect("answered").failed;
    let kinds: Vec<ErrorKind> = failed.iter().map(|row| row.kind).collect();
    assert_eq!(kinds, [ErrorKind::NotRunning, ErrorKind::ServerNotFound, ErrorKind::ServerNotFound]);
    assert_eq!(failed[0].message, "its group `backend` is not running; start that");
    let asked = client.call::<Status>(StatusParams::new("backend/x"));
    within("status", asked).await.expect_err("there is no such server");
}

#[tokio::test]
async fn a_group_whose_limit_is_reached_has_failed_and_starts_again_when_asked() {
    let keys = r#"intensity: (restarts: 1, period: "60s"),"#;
    let mut world = World::new();
    let broken = world.path("broken");
    let steps = format!("wait-for {} exit 1", broken.display());
    world.write("g", &group(keys, &[child("a", &steps, QUICK), sleeper("b")]));
    let client = world.boot().await;
    group_ready(&client, "g").await;
    std::fs::write(&broken, "").expect("written");
    let failed = until_status(&client, "g", |g| g.summary.state == State::Failed).await;
    assert_eq!(world.processes(), Vec::<u32>::new(), "the rest of the group is stopped");
    let cause = failed.summary.last_exit.expect("it ended").cause;
    assert!(cause.contains("exceeded by child `a`"), "{cause}");
    std::fs::remove_file(&broken).expect("removed");
    within("start", client.call::<Start>(OperationParams::named("g"))).await.expect("answered");
    ready(&client, "g/b").await;
}

#[tokio::test]
async fn a_child_that_fails_its_first_start_is_tried_again() {
    let mut world = World::new();
    let mark = world.path("mark");
    let text = format!("test -e {0} && echo up && exec sleep 600; touch {0}; exit 1", mark.display());
    let keys = format!("ready: Log(\"up\"), {QUICK}");
    let flaky = format!("Process(name: \"a\", command: \"/bin/sh\", args: [\"-c\", {text:?}], {keys})");
    world.write("g", &group("", &[flaky, sleeper("b")]));
    let client = world.boot().await;
    group_ready(&client, "g").await;
    assert_eq!(status(&client, "g/a").await.summary.restart_count, 1);
    assert_eq!(status(&client, "g").await.summary.restart_count, 0);
}

#[tokio::test]
async fn a_group_reloads_child_by_child() {
    let mut world =
        World::with(&[("g", group("", &[sleeper("goes"), sleeper("stays"), sleeper("changes")]))]);
    let client = world.boot().await;
    group_ready(&client, "g").await;
    let before = [ready(&client, "g/stays").await, ready(&client, "g/changes").await];
    let changed = child("changes", "ignore-term sleep-forever", r#"stop: (grace: "100ms")"#);
    world.write("g", &group("", &[sleeper("stays"), changed, sleeper("comes")]));
    let result = reload(&client).await;
    assert_eq!(names(&result.added), ["g/comes"]);
    assert_eq!(names(&result.changed), ["g/changes"]);
    assert_eq!(names(&result.removed), ["g/goes"]);
    assert_eq!(names(&result.unchanged), ["g", "g/stays"]);
    ready(&client, "g/comes").await;
    assert_ne!(ready(&client, "g/changes").await, before[1]);
    assert_eq!(ready(&client, "g/stays").await, before[0]);
    let rows = list(&client).await;
    assert_eq!(
        rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(),
        ["g", "g/stays", "g/changes", "g/comes"]
    );
    // A later start of the whole group is by the new file.
    within("restart", client.call::<Restart>(OperationParams::named("g"))).await.expect("answered");
    ready(&client, "g/comes").await;
    assert_eq!(list(&client).await.len(), 4);
}

#[tokio::test]
async fn a_changed_strategy_restarts_the_group_and_says_so() {
    let children = [sleeper("a"), sleeper("b")];
    let mut world = World::with(&[("g", group("", &children))]);
    let client = world.boot().await;
    group_ready(&client, "g").await;
    let before = [ready(&client, "g/a").await, ready(&client, "g/b").await];
    world.write("g", &group("strategy: OneForAll,", &children));
    let result = reload(&client).await;
    assert_eq!(names(&result.changed), ["g"]);
    assert_eq!(result.changed[0].reason, "strategy changed; the group is restarted");
    assert_eq!(result.unchanged[0].reason, "nothing changed; restarted with its group");
    for (name, pid) in [("g/a", before[0]), ("g/b", before[1])] {
        let again =
            until_status(&client, name, |now| now.summary.ready && now.summary.pid != Some(pid)).await;
        assert_eq!(again.summary.restart_count, 0);
    }
}

#[tokio::test]
async fn a_reload_of_what_is_in_a_failed_group_starts_it_again() {
    let keys = r#"intensity: (restarts: 0, period: "60s"),"#;
    let mut world = World::with(&[("g", group(keys, &[child("a", "exit 1", QUICK)]))]);
    let client = world.boot().await;
    until_status(&client, "g", |g| g.summary.state == State::Failed).await;
    world.write("g", &group(keys, &[sleeper("a")]));
    assert_eq!(names(&reload(&client).await.changed), ["g/a"]);
    ready(&client, "g/a").await;
}

#[tokio::test]
async fn groups_come_and_go_and_keep_their_logs_and_what_is_in_other_groups_apart() {
    let mut world = World::with(&[("keep", group("", &[sleeper("a")]))]);
    let client = world.boot().await;
    let kept = ready(&client, "keep/a").await;
    let talks = child("a", "lines 3 sleep-forever", QUICK);
    world.write("new", &group("", &[format!("Supervisor(name: \"in\", children: [{talks}])")]));
    assert_eq!(names(&reload(&client).await.added), ["new", "new/in", "new/in/a"]);
    ready(&client, "new/in/a").await;
    let log = status(&client, "new/in/a").await.log_path.expect("it has a log");
    assert!(log.ends_with("logs/new/in/a.log"), "{log}");
    let params =
        LogsParams { name: "new".into(), ..serde_json::from_str(r#"{"name": "new"}"#).expect("valid") };
    let error = within("logs", client.call::<Logs>(params)).await.expect_err("a group has none").to_string();
    assert!(error.contains("its servers are new/in/a"), "{error}");
    std::fs::remove_file(world.file("new")).expect("removed");
    assert_eq!(names(&reload(&client).await.removed), ["new", "new/in", "new/in/a"]);
    let rows = list(&client).await;
    assert_eq!(rows.len(), 2, "{rows:#?}");
    assert_eq!(ready(&client, "keep/a").await, kept);
    assert_eq!(world.processes(), [kept]);
}

#[tokio::test]
async fn a_stop_names_what_had_to_be_killed_inside_and_a_pause_reaches_it() {
    // Ready is only who ignores the signal already.
    let keys = r#"ready: Log("line"), stop: (grace: "100ms")"#;
    let stubborn = child("a", "ignore-term lines 1 sleep-forever", keys);
    let mut world = World::with(&[("g", group("", &[stubborn]))]);
    let client = world.boot().await;
    let pid = ready(&client, "g/a").await;
    within("pause", client.call::<Pause>(OperationParams::named("g"))).await.expect("answered");
    assert!(status(&client, "g/a").await.summary.paused);
    let stopped = stop(&client, "g").await;
    assert_eq!(stopped.stopped, ["g"]);
    assert_eq!(stopped.killed.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["g/a"]);
    assert_eq!(stopped.killed[0].processes[0].pid, pid);
}
