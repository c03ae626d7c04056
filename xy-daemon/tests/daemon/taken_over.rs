//! An upgrade and servers of every kind: in control groups, with notifications and a watchdog, with a stop command, of
//! another user, in groups.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use nix::sys::signal::Signal;
use xy_daemon::client::Client;
use xy_daemon::protocol::method::{
    OperationParams, Reload, ReloadParams, State, StatusResult, Stop, Version, VersionParams,
};

use super::support::{World, ready, script, send, status, stop, until, until_status, within};
use super::upgrade::upgrade;

const AT_ONCE: &str =
    r#"restart: (backoff_initial: "1ms", backoff_max: "1ms", max_retries_per_minute: 1000)"#;

/// Returns the lines of a server's log that have this text.
fn logged(world: &World, name: &str, text: &str) -> usize {
    let log = fs::read_to_string(world.path(&format!("state/xy/logs/{name}.log"))).unwrap_or_default();
    log.lines().filter(|line| line.contains(text)).count()
}

async fn ends(mut world: World, client: Client) {
    drop(client);
    world.signal(Signal::SIGTERM);
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    assert_eq!(world.processes(), Vec::<u32>::new());
}

fn control_group(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    text.lines().find_map(|line| line.strip_prefix("0::")).expect("version 2").to_owned()
}

#[tokio::test]
async fn a_server_in_a_control_group_stays_in_it_and_is_still_owned_by_it() {
    let mut world = World::new().with_cgroups();
    let helper = world.path("helper");
    let steps = format!(
        "spawn 5 clear-env setsid alone {} sleep-forever ignore-term sleep-forever",
        helper.display()
    );
    world.write("a", &script(&steps, r#"stop: (grace: "100ms")"#));
    let client = world.boot().await;
    let version =
        within("version", client.call::<Version>(VersionParams::default())).await.expect("answered");
    let facts = version.diagnostics.expect("a real daemon tells");
    let Some(base) = facts.cgroup else {
        println!("left out: no control group is delegated here, trees are owned by `{}`", facts.ownership);
        return;
    };
    let pid = ready(&client, "a").await;
    until("the helper", || async { helper.exists().then_some(()) }).await;
    let group = control_group(pid);
    let client = upgrade(&world, client).await;
    let client = upgrade(&world, client).await;
    assert_eq!((ready(&client, "a").await, control_group(pid)), (pid, group.clone()));
    let version =
        within("version", client.call::<Version>(VersionParams::default())).await.expect("answered");
    assert_eq!(version.diagnostics.expect("a real daemon tells").cgroup, Some(base.clone()));
    // One that starts now gets a group of its own beside it.
    world.write("b", &script("sleep-forever", ""));
    let params = ReloadParams { dry_run: false };
    within("reload", client.call::<Reload>(params)).await.expect("answered");
    let other = control_group(ready(&client, "b").await);
    let parent = |group: &str| group.rsplit_once('/').map(|(parent, _)| parent.to_owned());
    assert!(other != group && parent(&other) == parent(&group), "{other} {group}");
    // The helper has no mark, no parent and a session of its own.
    stop(&client, "a").await;
    let owner: u32 = fs::read_to_string(&helper).expect("written").trim().parse().expect("a pid");
    assert!(!std::path::Path::new(&format!("/proc/{owner}/exe")).exists(), "the helper is gone");
    let marker = group.rsplit('/').next().expect("a name");
    let group = std::path::Path::new(&base).join(marker);
    until("its group to be gone as well", || async { (!group.exists()).then_some(()) }).await;
    ends(world, client).await;
}

#[tokio::test]
async fn a_server_that_is_starting_tells_its_readiness_after_an_upgrade_and_is_watched_from_then_on() {
    let mut world = World::new();
    let (told, silent) = (world.path("told"), world.path("silent"));
    let (told_is, silent_is) = (told.display(), silent.display());
    let steps =
        format!("wait-for {told_is} notify READY=1 notify-until {silent_is} WATCHDOG=1 sleep-forever");
    world.write("socket", &script(&steps, &format!(r#"ready: Notify, watchdog: "1s", {AT_ONCE}"#)));
    let steps = format!("wait-for {told_is} newline 7 sleep-forever");
    world.write("descriptor", &script(&steps, "ready: Notify(fd: 7)"));
    let client = world.boot().await;
    let mut pids = Vec::new();
    for name in ["socket", "descriptor"] {
        let starting = |now: &StatusResult| now.summary.state == State::Starting && now.summary.pid.is_some();
        pids.push((name, until_status(&client, name, starting).await.summary.pid));
    }
    let client = upgrade(&world, client).await;
    let client = upgrade(&world, client).await;
    for (name, pid) in &pids {
        let now = status(&client, name).await.summary;
        assert_eq!((now.state, now.pid), (State::Starting, *pid), "{name}");
    }
    fs::write(&told, "").expect("written");
    for (name, pid) in &pids {
        assert_eq!(Some(ready(&client, name).await), *pid, "{name} is the same process, and ready");
    }
    // It is heard across another upgrade, for longer than it may be silent.
    let client = upgrade(&world, client).await;
    let alive = until_status(&client, "socket", |now| now.summary.uptime_secs >= Some(3)).await;
    assert_eq!((alive.summary.pid, alive.summary.restart_count), (pids[0].1, 0));
    fs::write(&silent, "").expect("written");
    let replaced =
        until_status(&client, "socket", |now| now.summary.ready && now.summary.pid != pids[0].1).await;
    let last = replaced.summary.last_exit.expect("it was replaced");
    assert!(last.cause.contains("watchdog: no `WATCHDOG=1` for 1s"), "{last:?}");
    ends(world, client).await;
}

#[tokio::test]
async fn a_stop_command_runs_after_an_upgrade_and_one_that_runs_is_waited_for_by_it() {
    let mut world = World::new();
    let (begun, go) = (world.path("begun"), world.path("go"));
    let command = |script: &str| format!(r#"stop: (command: ["sh", "-c", {script:?}], grace: "15s")"#);
    // Neither ends by the signal, so that it is the command that has ended it.
    world.write(
        "later",
        &script("ignore-term sleep-forever", &command("echo bye $XY_PID; kill -KILL $XY_PID")),
    );
    let wait = format!(
        "touch {begun}; until [ -e {go} ]; do sleep 0.01; done; echo done; kill -KILL $XY_PID",
        begun = begun.display(),
        go = go.display()
    );
    world.write("now", &script("ignore-term sleep-forever", &command(&wait)));
    let client = world.boot().await;
    let later = ready(&client, "later").await;
    ready(&client, "now").await;
    let stopping = tokio::spawn({
        let client = world.connect().await;
        // Its answer is lost with the connection.
        async move { client.call::<Stop>(OperationParams::named("now")).await }
    });
    until("the command", || async { begun.exists().then_some(()) }).await;
    fs::write(&go, "").expect("written");
    let client = upgrade(&world, client).await;
    let _lost_or_answered = stopping.await;
    until_status(&client, "now", |now| now.summary.state == State::Stopped).await;
    assert_eq!(logged(&world, "now", "done"), 1, "the command has run once");
    assert_eq!(ready(&client, "later").await, later);
    assert_eq!(stop(&client, "later").await.stopped, ["later"]);
    until("its words", || async { (logged(&world, "later", &format!("bye {later}")) == 1).then_some(()) })
        .await;
    ends(world, client).await;
}

#[tokio::test]
async fn a_server_of_another_user_is_taken_over_as_that_user() {
    if !nix::unistd::geteuid().is_root() {
        println!("left out: only root can run servers as other users");
        return;
    }
    let mut world = World::new();
    let steps = r#"command: "sleep", args: ["600"], user: "nobody", working_dir: "/""#;
    world.write("other", &format!("Process({steps}, {AT_ONCE})"));
    let client = world.boot().await;
    let pid = ready(&client, "other").await;
    let owner = |pid: u32| fs::metadata(format!("/proc/{pid}")).expect("it runs").uid();
    let nobody = owner(pid);
    assert_ne!(nobody, 0);
    let client = upgrade(&world, client).await;
    let client = upgrade(&world, client).await;
    assert_eq!((ready(&client, "other").await, owner(pid)), (pid, nobody));
    // It is still ours: its end is noticed, and the next one is of that user, too.
    send(pid, Signal::SIGKILL);
    let next =
        until_status(&client, "other", |now| now.summary.ready && now.summary.restart_count == 1).await;
    assert_eq!(owner(next.summary.pid.expect("it runs")), nobody);
    let client = upgrade(&world, client).await;
    assert_eq!(stop(&client, "other").await.stopped, ["other"]);
    ends(world, client).await;
}

#[tokio::test]
async fn groups_in_groups_keep_pids_and_counts_and_their_strategy() {
    let mut world = World::new();
    let quick = r#"restart: (backoff_initial: "1ms", backoff_max: "1ms")"#;
    let child = |name: &str| script("sleep-forever", &format!("name: {name:?}, {quick}"));
    let pool = format!(
        r#"Supervisor(name: "pool", strategy: RestForOne, children: [{}, {}])"#,
        child("x"),
        child("y")
    );
    let group =
        format!("Supervisor(strategy: OneForAll, children: [{}, {pool}, {}])", child("a"), child("b"));
    world.write("g", &group);
    let client = world.boot().await;
    const ALL: [&str; 4] = ["g/a", "g/pool/x", "g/pool/y", "g/b"];
    let pids = async |client: &Client| {
        let mut pids = Vec::new();
        for name in ALL {
            pids.push(ready(client, name).await);
        }
        pids
    };
    let first = pids(&client).await;
    send(first[2], Signal::SIGKILL);
    until_status(&client, "g/pool/y", |now| now.summary.ready && now.summary.restart_count == 1).await;
    let before = pids(&client).await;
    assert_eq!((&before[..2], before[3]), (&first[..2], first[3]), "`y` is the last of its group");
    let client = upgrade(&world, client).await;
    let client = upgrade(&world, client).await;
    assert_eq!(pids(&client).await, before);
    for (name, restarts) in ALL.into_iter().zip([0, 0, 1, 0]) {
        assert_eq!(status(&client, name).await.summary.restart_count, restarts, "{name}");
    }
    // `x` takes `y` along, which comes after it, and nobody else.
    send(before[1], Signal::SIGKILL);
    until_status(&client, "g/pool/y", |now| now.summary.ready && now.summary.pid != Some(before[2])).await;
    let after = pids(&client).await;
    assert!(after[1] != before[1] && after[0] == before[0] && after[3] == before[3], "{before:?} {after:?}");
    // `a` takes everybody along.
    send(after[0], Signal::SIGKILL);
    until_status(&client, "g/b", |now| now.summary.ready && now.summary.pid != Some(after[3])).await;
    let last = pids(&client).await;
    assert!(last.iter().zip(&after).all(|(last, after)| last != after), "{after:?} {last:?}");
    ends(world, client).await;
}
