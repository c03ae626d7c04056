//! The guard: who kills what, and what is there afterwards.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use xy_daemon::client::Client;
use xy_daemon::protocol::method::{Version, VersionParams};

use super::support::{SERVER, World, lines, ready, script, send, until};

/// A server with a helper in its session, one in its own, and one that has left session, parent and environment behind.
fn server(world: &World, name: &str) -> String {
    let file = |role: &str| world.path(&format!("{name}.{role}")).display().to_string();
    let steps = format!(
        "alone {} spawn 3 alone {} sleep-forever spawn 4 setsid alone {} sleep-forever \
         spawn 7 setsid spawn 4 clear-env alone {} sleep-forever sleep-forever",
        file("main"),
        file("helper"),
        file("session"),
        file("fled")
    );
    script(&steps, "")
}

const ROLES: [&str; 4] = ["main", "helper", "session", "fled"];

/// The last process that wrote itself down.
fn last_pid(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.lines().last()?.parse().ok()
}

/// Waits until each role of the server has been taken this many times, and returns who has them now.
async fn taken(world: &World, name: &str, times: usize) -> Vec<u32> {
    let mut pids = Vec::new();
    for role in ROLES {
        let path = world.path(&format!("{name}.{role}"));
        let what = format!("{name}.{role} for the {times}th time");
        let taken = || async { if lines(&path) >= times { last_pid(&path) } else { None } };
        pids.push(until(&what, taken).await);
    }
    pids
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

async fn until_gone(pids: &[u32]) {
    until("all of them are gone", || async { (!pids.iter().any(|pid| is_running(*pid))).then_some(()) })
        .await;
}

fn assert_nobody_doubled(world: &World, names: &[&str]) {
    for name in names {
        for role in ROLES {
            assert!(
                !world.path(&format!("{name}.{role}.doubled")).exists(),
                "{name} had two of {role} at once"
            );
        }
    }
}

async fn boot(world: &mut World) -> (Client, Vec<u32>) {
    for name in ["a", "b"] {
        world.write(name, &server(world, name));
    }
    let client = world.boot().await;
    let mut pids = Vec::new();
    for name in ["a", "b"] {
        ready(&client, name).await;
        pids.extend(taken(world, name, 1).await);
    }
    (client, pids)
}

#[tokio::test]
async fn a_killed_daemon_comes_back_and_of_the_old_one_nothing_is_left() {
    let mut world = World::new();
    let (_, old) = boot(&mut world).await;
    let daemon = world.daemon_pid().expect("it runs");
    assert_ne!(daemon, world.pid(), "the guard is another process");
    send(daemon, Signal::SIGKILL);

    for name in ["a", "b"] {
        let new = taken(&world, name, 2).await;
        assert!(!old.iter().any(|pid| new.contains(pid)));
    }
    until_gone(&old).await;
    let client = world.connect().await;
    ready(&client, "a").await;
    ready(&client, "b").await;
    assert_nobody_doubled(&world, &["a", "b"]);
    assert_ne!(world.daemon_pid(), Some(daemon));
    assert!(world.said().contains("was ended by SIGKILL; it was started again"), "{}", world.said());
    // In order, because what has fled could not be found by its environment.
    world.signal(Signal::SIGTERM);
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
}

#[tokio::test]
async fn a_killed_guard_takes_the_daemon_and_every_server_along() {
    let mut world = World::new();
    let (client, old) = boot(&mut world).await;
    drop(client);
    let daemon = world.daemon_pid().expect("it runs");
    world.signal(Signal::SIGKILL);
    world.ended().await;
    until_gone(&[daemon]).await;
    assert!(!old.iter().any(|pid| is_running(*pid)), "{}", world.said());
    assert!(!world.socket().exists());
}

#[tokio::test]
async fn with_control_groups_too_a_killed_daemon_comes_back_and_its_end_leaves_nothing() {
    let mut world = World::new().with_cgroups();
    let (_, mut old) = boot(&mut world).await;
    for times in 2..4 {
        let daemon = world.daemon_pid().expect("it runs");
        send(daemon, Signal::SIGKILL);
        let mut new = Vec::new();
        for name in ["a", "b"] {
            new.extend(taken(&world, name, times).await);
        }
        until_gone(&old).await;
        let client = world.connect().await;
        ready(&client, "a").await;
        ready(&client, "b").await;
        old = new;
    }
    assert_nobody_doubled(&world, &["a", "b"]);
    world.signal(Signal::SIGTERM);
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    assert!(!old.iter().any(|pid| is_running(*pid)), "{}", world.said());
}

#[tokio::test]
async fn an_end_that_was_asked_for_ends_guard_and_daemon_with_code_0() {
    for to_daemon in [false, true] {
        let mut world = World::new();
        let (client, old) = boot(&mut world).await;
        drop(client);
        send(if to_daemon { world.daemon_pid().expect("it runs") } else { world.pid() }, Signal::SIGTERM);
        assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
        assert!(!old.iter().any(|pid| is_running(*pid)), "{}", world.said());
        assert_eq!(world.said().matches("listening").count(), 1, "{}", world.said());
    }
}

#[tokio::test]
async fn a_service_manager_gets_no_guard() {
    for managed in [false, true] {
        let mut world = World::with(&[("a", script("sleep-forever", ""))]);
        let mut command = world.command();
        if managed {
            command.env("NOTIFY_SOCKET", world.path("nobody"));
        } else {
            command.arg("--no-guard");
        }
        world.adopt(command.spawn().expect("xyd can be run"));
        let client = world.connect().await;
        ready(&client, "a").await;
        assert_eq!(world.daemon_pid(), Some(world.pid()));
        world.signal(Signal::SIGKILL);
        world.ended().await;
        // Whether the server has been told by the kernel already is the kernel's affair.
        until("the server is gone", || async { world.processes().is_empty().then_some(()) }).await;
    }
}

#[tokio::test]
async fn children_that_whoever_became_the_guard_had_before_are_spared() {
    use std::process::Command;
    let mut world = World::new();
    let [before, main, session] = ["before", "main", "session"].map(|name| world.path(name));
    let steps = format!(
        "alone {} spawn 4 setsid alone {} sleep-forever sleep-forever",
        main.display(),
        session.display()
    );
    world.write("a", &script(&steps, ""));
    let command = world.command();
    let mut shell = Command::new("/bin/sh");
    let line = format!("{SERVER} alone {} sleep-forever & exec \"$0\" --no-cgroup", before.display());
    shell.arg("-c").arg(line).arg(command.get_program()).env_clear();
    shell.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    world.adopt(shell.spawn().expect("a shell can be run"));
    let client = world.connect().await;
    ready(&client, "a").await;
    let bystander = until("it runs", || async { last_pid(&before) }).await;
    let old = until("the helper runs", || async { last_pid(&session) }).await;
    send(world.daemon_pid().expect("it runs"), Signal::SIGKILL);
    until("the next helper", || async { (lines(&session) == 2).then_some(()) }).await;
    until_gone(&[old]).await;
    assert!(is_running(bystander));
    world.signal(Signal::SIGTERM);
    assert_eq!(world.ended().await.code(), Some(0));
    assert!(is_running(bystander));
    send(bystander, Signal::SIGKILL);
}

#[tokio::test]
async fn version_tells_the_guard_and_how_processes_are_owned() {
    for has_guard in [true, false] {
        let mut world = World::new();
        if !has_guard {
            world = world.argument("--no-guard");
        }
        let client = world.boot().await;
        let version = client.call::<Version>(VersionParams::default()).await.expect("answered");
        assert_eq!(Some(version.pid), world.daemon_pid());
        let facts = version.diagnostics.expect("a real daemon tells");
        assert_eq!(facts.guard_pid, has_guard.then(|| world.pid()));
        assert_eq!((facts.ownership.as_str(), facts.cgroup), ("subreaper", None));
        assert_eq!(facts.state_dir, world.path("state/xy").display().to_string());
        assert_eq!(facts.strangers, Vec::<String>::new());
    }
}

#[tokio::test]
async fn signals_that_whoever_started_it_ignored_or_blocked_are_heard() {
    use std::process::Command;
    let mut world = World::with(&[("a", script("sleep-forever", ""))]);
    let command = world.command();
    let mut shell = Command::new("/bin/sh");
    shell
        .arg("-c")
        .arg("trap '' TERM INT HUP CHLD USR1; exec \"$0\" --no-cgroup")
        .arg(command.get_program())
        .env_clear();
    shell.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    world.adopt(shell.spawn().expect("a shell can be run"));
    let client = world.connect().await;
    ready(&client, "a").await;
    drop(client);
    world.signal(Signal::SIGTERM);
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    assert_eq!(world.processes(), Vec::<u32>::new());
}
