//! Whatever way `xyd` ends, its servers end with it, and the next one starts each exactly once.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use xy_daemon::protocol::method::State;

use super::support::{World, free_port, lines, list, ready, script, until, until_status};

const SLOW_GRACE: &str = r#"stop: (grace: "60s")"#;

#[tokio::test]
async fn sigterm_leaves_no_process_and_no_socket() {
    let port = free_port();
    let steps = format!("spawn 3 setsid serve {port} sleep-forever");
    let mut world =
        World::with(&[("a", script(&steps, &format!("port: {port}"))), ("b", script("sleep-forever", ""))]);
    let client = world.boot().await;
    ready(&client, "a").await;
    ready(&client, "b").await;
    world.signal(Signal::SIGTERM);
    let status = world.ended().await;
    assert_eq!(status.code(), Some(0), "{}", world.said());
    assert_eq!(world.processes(), Vec::<u32>::new());
    assert!(!world.socket().exists());
}

/// Servers in each state that a shutdown could get stuck on.
async fn difficult(grace: &str) -> World {
    let mut world = World::new();
    let ignores = world.path("ignores");
    let stubborn = format!("ignore-term touch {} sleep-forever", ignores.display());
    world.write("hangs", &script("sleep-forever", &format!("port: {}", free_port())));
    world.write("waits", &script("exit 1", r#"restart: (backoff_initial: "60s", backoff_max: "60s")"#));
    world.write("stubborn", &script(&stubborn, grace));
    let client = world.boot().await;
    until_status(&client, "waits", |now| now.summary.state == State::Restarting).await;
    until_status(&client, "hangs", |now| now.summary.state == State::Starting && now.summary.pid.is_some())
        .await;
    until("the signal is ignored", || async { ignores.exists().then_some(()) }).await;
    world
}

#[tokio::test]
async fn sigterm_ends_within_the_grace_whatever_state_servers_are_in() {
    let mut world = difficult(r#"stop: (grace: "500ms")"#).await;
    world.signal(Signal::SIGTERM);
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    assert_eq!(world.processes(), Vec::<u32>::new());
    assert!(world.said().contains("had to be killed"), "{}", world.said());
}

#[tokio::test]
async fn a_second_sigterm_kills_at_once() {
    let mut world = difficult(SLOW_GRACE).await;
    let client = world.connect().await;
    world.signal(Signal::SIGTERM);
    // The first has been taken when the one that obeys is gone; two pending signals would be one.
    until("the first signal's effect", || async { (world.processes().len() == 1).then_some(()) }).await;
    drop(client);
    let asked = Instant::now();
    // Until it counts: one that comes right after the first only repeats it.
    until("the kill", || async {
        world.signal(Signal::SIGTERM);
        world.processes().is_empty().then_some(())
    })
    .await;
    assert_eq!(world.ended().await.code(), Some(0), "{}", world.said());
    assert!(asked.elapsed() < Duration::from_secs(10), "neither grace nor shutdown time was waited for");
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn after_ten_kills_of_the_daemon_each_server_runs_exactly_once() {
    let port = free_port();
    let mut world = World::new().argument("--no-guard");
    let (main, helper, plain) = (world.path("main"), world.path("helper"), world.path("plain"));
    let steps = format!(
        "alone {} spawn 5 setsid alone {} serve {port} sleep-forever",
        main.display(),
        helper.display()
    );
    let quick = r#"restart: (backoff_initial: "10ms", backoff_max: "80ms")"#;
    world.write("web", &script(&steps, &format!("port: {port}, {quick}")));
    world.write("plain", &script(&format!("alone {} ignore-term sleep-forever", plain.display()), quick));

    for round in 0..10_u32 {
        world.start();
        match round % 5 {
            // In the sweep or before, in the first start, with one server up, with all up, and when all is quiet.
            0 => {}
            1 => drop(world.connect().await),
            2 => until("the first start", || async { (lines(&main) > 0).then_some(()) }).await,
            3 => drop(ready(&world.connect().await, "plain").await),
            _ => {
                let client = world.connect().await;
                ready(&client, "plain").await;
                ready(&client, "web").await;
            }
        }
        world.signal(Signal::SIGKILL);
        world.ended().await;
    }
    let client = world.boot().await;
    ready(&client, "plain").await;
    ready(&client, "web").await;
    assert_eq!(world.processes().len(), 3, "main, helper and plain");
    for file in [&main, &helper, &plain] {
        let doubled = file.with_extension("doubled");
        assert!(!doubled.exists(), "{} had two holders at once", file.display());
    }
    assert!(list(&client).await.iter().all(|server| server.restart_count == 0), "none had to be tried twice");
}
