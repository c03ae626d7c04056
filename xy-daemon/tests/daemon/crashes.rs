//! Servers that crash come back, those that cannot are given up, and waiting costs nothing.

use nix::sys::signal::Signal;
use xy_daemon::protocol::error::ErrorKind;
use xy_daemon::protocol::method::{
    Events, EventsParams, Notification, OperationParams, Start, State, Wanted, Why, WhyParams,
};

use super::support::{
    World, children, free_port, hold_port, lines, marker, processes_with, ready, script, send, status, stop,
    until_status, within,
};

const QUICK: &str = r#"restart: (backoff_initial: "10ms", backoff_max: "80ms")"#;

#[tokio::test]
async fn a_server_that_runs_and_does_not_listen_yet_is_not_ready() {
    let port = free_port();
    let mut world = World::new();
    let go = world.path("go");
    let steps = format!("wait-for {} serve {port}", go.display());
    world.write("web", &script(&steps, &format!("port: {port}, ready: Tcp")));
    let client = world.boot().await;
    let running = until_status(&client, "web", |status| status.summary.pid.is_some()).await;
    assert!(!running.summary.ready, "{running:#?}");
    assert_eq!(running.summary.state, State::Starting, "{running:#?}");
    let says = until_status(&client, "web", |status| status.summary.next.is_some()).await;
    let next = format!("waiting to be ready: nothing listens on port {port}");
    assert_eq!(says.summary.next, Some(next));
    std::fs::write(&go, "").expect("written");
    assert_eq!(Some(ready(&client, "web").await), running.summary.pid, "it was never replaced");
}

#[tokio::test]
async fn a_killed_server_comes_back_and_nothing_of_the_old_start_is_left() {
    let port = free_port();
    // The port is held by a grandchild in a session of its own.
    let steps = format!("spawn 3 setsid serve {port} sleep-forever");
    let mut world = World::with(&[("web", script(&steps, &format!("port: {port}, {QUICK}")))]);
    let client = world.boot().await;
    for round in 1..=3 {
        let pid = ready(&client, "web").await;
        let old = marker(pid);
        let mut left = processes_with(&old);
        assert_eq!(left.len(), 2, "main process and grandchild");
        left.retain(|process| *process != pid);
        send(pid, Signal::SIGKILL);
        let back = until_status(&client, "web", |now| {
            now.summary.restart_count == round && now.summary.state == State::Running
        })
        .await;
        assert!(back.summary.ready);
        assert_eq!(processes_with(&old), Vec::<u32>::new());
        assert_ne!(marker(back.summary.pid.expect("ready")), old);
        let cause = back.summary.last_exit.expect("it was killed").cause;
        assert!(cause.contains("SIGKILL"), "{cause}");
        let why =
            within("why", client.call::<Why>(WhyParams { name: "web".into() })).await.expect("answered");
        let killed: Vec<u32> = why.exits[0].killed.iter().map(|process| process.pid).collect();
        assert_eq!(killed, left, "what was killed with it is named");
    }
}

#[tokio::test]
async fn the_next_daemon_tells_of_each_server_that_the_dead_one_left_running() {
    // A check in flight has the server's name, too, and is no start of it.
    let more = format!(
        "{QUICK}, liveness: (probe: Exec(command: \"sleep\", args: [\"60\"]), interval: \"10ms\", timeout: \"90s\")"
    );
    let mut world =
        World::with(&[("web", script("sleep-forever", &more)), ("idle", script("sleep-forever", ""))])
            .argument("--no-guard");
    let client = world.boot().await;
    let first = ready(&client, "web").await;
    send(first, Signal::SIGKILL);
    let second =
        until_status(&client, "web", |now| now.summary.ready && now.summary.pid != Some(first)).await;
    assert_eq!(second.incarnation, 2);
    stop(&client, "idle").await;
    let name = "web";
    world.signal(Signal::SIGKILL);
    world.ended().await;
    let client = world.boot().await;
    ready(&client, name).await;
    let last = status(&client, name).await.summary.last_exit.expect("it ran before");
    assert_eq!((last.cause.as_str(), last.incarnation), ("the daemon died; how this ended is not known", 2));
    let params = EventsParams::held(0);
    let mut events = within("events", client.subscribe::<Events>(params)).await.expect("subscribed");
    let mut told = Vec::new();
    while let Some(Notification::Event(event)) = within("an event", events.next()).await.expect("connected") {
        // The stop of the other one may not have been written in the instant before the kill; then it is told as what it was.
        if event.event_type == "child_exited" || event.path == "idle" && event.event_type == "child_stopped" {
            told.push((event.path.clone(), event.event_type.clone(), event.incarnation));
        }
    }
    told.retain(|told| *told != ("idle".to_owned(), "child_stopped".to_owned(), Some(1)));
    assert_eq!(told, [(name.to_owned(), "child_exited".to_owned(), Some(2))]);
}

#[tokio::test]
async fn a_server_whose_helper_lost_its_parent_is_replaced_whole() {
    let port = free_port();
    // main -> helper -> the holder of the port; the helper dies, then the main process.
    let steps = format!("spawn 6 spawn 3 setsid serve {port} sleep-forever sleep-forever");
    let mut world = World::with(&[("web", script(&steps, &format!("port: {port}, {QUICK}")))]);
    let client = world.boot().await;
    let pid = ready(&client, "web").await;
    let old = marker(pid);
    let helper = *children(pid).first().expect("the helper runs");
    send(helper, Signal::SIGKILL);
    send(pid, Signal::SIGKILL);
    until_status(&client, "web", |now| now.summary.restart_count == 1 && now.summary.ready).await;
    assert_eq!(processes_with(&old), Vec::<u32>::new());
}

#[tokio::test]
async fn a_crash_loop_slows_down_and_ends_and_touches_nobody_else() {
    let mut world = World::with(&[
        ("bystander", script("sleep-forever", "")),
        ("loop", script("exit 1", &format!("autostart: false, {QUICK}"))),
    ]);
    let client = world.boot().await;
    let bystander = ready(&client, "bystander").await;
    let mut events = client.subscribe::<Events>(EventsParams::default()).await.expect("subscribed");
    // Started is ready, so the start itself succeeds or fails depending on who sees what first.
    let _either =
        within("start", client.call::<Start>(OperationParams::named("loop"))).await.expect("answered");

    let mut delays = Vec::new();
    loop {
        let next = within("the next event", events.next()).await.expect("connected");
        let Some(Notification::Event(event)) = next else { panic!("{next:?}") };
        if event.path != "loop" || event.event_type != "child_exited" {
            continue;
        }
        match event.payload.get("delay_ms").and_then(serde_json::Value::as_u64) {
            Some(delay) => delays.push(delay),
            None => {
                assert_eq!(event.payload["next"], "failed");
                break;
            }
        }
    }
    assert_eq!(delays.len(), 5, "the sixth exit within a minute is the last: {delays:?}");
    assert!(delays.windows(2).take(3).all(|pair| pair[0] < pair[1]), "{delays:?}");

    let failed = status(&client, "loop").await.summary;
    assert_eq!((failed.state, failed.restart_count), (State::Failed, 5));
    assert!(failed.last_exit.expect("it ended").cause.contains("exit code 1"));
    assert_eq!(ready(&client, "bystander").await, bystander);
}

#[tokio::test]
async fn a_stop_during_a_delay_is_answered_at_once() {
    let slow = r#"restart: (backoff_initial: "60s", backoff_max: "60s")"#;
    let mut world = World::with(&[("crasher", script("exit 1", slow))]);
    let client = world.boot().await;
    let waits = until_status(&client, "crasher", |now| now.summary.state == State::Restarting).await;
    let next = waits.summary.next.expect("a restart is planned");
    assert!(next.starts_with("restart 1 of 5"), "{next}");
    // `within` is shorter than the delay.
    stop(&client, "crasher").await;
    let stopped = status(&client, "crasher").await.summary;
    assert_eq!((stopped.state, stopped.wanted, stopped.next), (State::Stopped, Wanted::Down, None));
}

#[tokio::test]
async fn a_foreign_holder_of_the_port_is_named_and_costs_nothing() {
    let holder = hold_port();
    let port = holder.local_addr().expect("bound").port();
    let mut world = World::new();
    let starts = world.path("starts");
    let steps = format!("alone {} serve {port}", starts.display());
    world.write("web", &script(&steps, &format!("port: {port}, autostart: false")));
    let client = world.boot().await;

    let started =
        within("start", client.call::<Start>(OperationParams::named("web"))).await.expect("answered");
    let [failed] = started.failed.as_slice() else { panic!("{started:?}") };
    assert_eq!(failed.kind, ErrorKind::PortConflict);
    assert!(failed.message.contains(&std::process::id().to_string()), "{}", failed.message);
    assert!(failed.message.contains("daemon"), "the command is named: {}", failed.message);

    drop(holder);
    ready(&client, "web").await;
    assert_eq!(lines(&starts), 1, "nothing was started against a held port");
    // Each event up to this one: no attempt used up the budget.
    let mut events = client.subscribe::<Events>(EventsParams::following(1)).await.expect("subscribed");
    let mut attempts = 0;
    loop {
        let next = within("the next event", events.next()).await.expect("connected");
        let Some(Notification::Event(event)) = next else { panic!("{next:?}") };
        match event.event_type.as_str() {
            "child_start_failed" => {
                attempts += 1;
                assert_eq!(event.payload["nth"], 0, "{event:?}");
            }
            "child_exited" => panic!("{event:?}"),
            "child_ready" => break,
            _ => {}
        }
    }
    assert!(attempts > 0, "the port was held at first");
}
