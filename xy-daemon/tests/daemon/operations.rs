//! Start, stop and restart are real when they are answered, and may be repeated.

use std::net::TcpListener;

use xy_daemon::protocol::method::{OperationParams, Restart, Start, State, Targets};

use super::support::{World, free_port, marker, processes_with, ready, script, send, status, stop, within};

#[tokio::test]
async fn a_stop_is_answered_when_the_whole_tree_is_gone_and_the_port_free() {
    let port = free_port();
    let steps = format!("spawn 3 setsid serve {port} sleep-forever");
    let mut world = World::with(&[("web", script(&steps, &format!("port: {port}")))]);
    let client = world.boot().await;
    let pid = ready(&client, "web").await;
    let old = marker(pid);

    let stopped = stop(&client, "web").await;
    assert_eq!(processes_with(&old), Vec::<u32>::new());
    drop(TcpListener::bind(("127.0.0.1", port)).expect("the port is free"));
    assert_eq!(stopped.stopped, ["web"], "{stopped:?}");
    assert_eq!(stop(&client, "web").await.not_running, ["web"]);
    let after = status(&client, "web").await.summary;
    assert_eq!((after.state, after.pid), (State::Stopped, None));

    let call = || within("start", client.call::<Start>(OperationParams::named("web")));
    assert_eq!(call().await.expect("answered").started, ["web"]);
    let second = ready(&client, "web").await;
    assert_eq!(call().await.expect("answered").already_running, ["web"]);
    assert_eq!(ready(&client, "web").await, second);
}

#[tokio::test]
async fn whoever_ignores_the_stop_signal_is_killed_after_the_grace_and_named() {
    let mut world = World::new();
    let started = world.path("started");
    let steps = format!("ignore-term touch {} sleep-forever", started.display());
    world.write("stubborn", &script(&steps, r#"stop: (grace: "300ms")"#));
    let client = world.boot().await;
    let pid = ready(&client, "stubborn").await;
    super::support::until("the signal is ignored", || async { started.exists().then_some(()) }).await;

    let before = std::time::Instant::now();
    let stopped = stop(&client, "stubborn").await;
    assert!(before.elapsed() >= std::time::Duration::from_millis(300), "the grace was given");
    let [killed] = stopped.killed.as_slice() else { panic!("{stopped:?}") };
    assert_eq!(killed.name, "stubborn");
    assert!(killed.processes.iter().any(|process| process.pid == pid), "{killed:?}");
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_suspended_server_hears_its_stop_signal() {
    let mut world = World::with(&[("frozen", script("sleep-forever", r#"stop: (grace: "60s")"#))]);
    let client = world.boot().await;
    let pid = ready(&client, "frozen").await;
    send(pid, nix::sys::signal::Signal::SIGSTOP);

    let stopped = stop(&client, "frozen").await;
    assert_eq!(stopped.stopped, ["frozen"], "{stopped:?}");
    assert!(stopped.killed.is_empty(), "{stopped:?}");
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_restart_of_all_replaces_each_and_starts_the_stopped() {
    let mut world = World::with(&[
        ("a", script("sleep-forever", "")),
        ("b", script("sleep-forever", "")),
        ("c", script("sleep-forever", "autostart: false")),
    ]);
    let client = world.boot().await;
    let before = [ready(&client, "a").await, ready(&client, "b").await];
    let params = OperationParams::new(Targets::All);
    let result = within("restart", client.call::<Restart>(params)).await.expect("answered");
    assert_eq!(result.restarted, ["a", "b", "c"], "{result:?}");
    let after = [ready(&client, "a").await, ready(&client, "b").await];
    assert!(before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
    ready(&client, "c").await;
    assert_eq!(status(&client, "a").await.summary.restart_count, 0, "only automatic restarts count");
}
