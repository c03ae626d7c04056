//! A reload does what its answer says, all or nothing per server.

use nix::sys::signal::Signal;
use xy_daemon::client::Client;
use xy_daemon::protocol::method::{Reload, ReloadParams, ReloadResult, Reloaded};

use super::support::{World, free_port, list, ready, script, status, until, until_status, within};

async fn reload(client: &Client, dry_run: bool) -> ReloadResult {
    within("reload", client.call::<Reload>(ReloadParams { dry_run })).await.expect("answered")
}

fn names(rows: &[Reloaded]) -> Vec<&str> {
    rows.iter().map(|row| row.name.as_str()).collect()
}

#[tokio::test]
async fn one_reload_adds_changes_removes_and_rejects_exactly_what_the_files_say() {
    let sleeper = || script("sleep-forever", "");
    let mut world = World::with(&[
        ("breaks", sleeper()),
        ("changes", sleeper()),
        ("leaves", sleeper()),
        ("policy", sleeper()),
        ("same", sleeper()),
    ]);
    let client = world.boot().await;
    let mut before = Vec::new();
    for name in ["breaks", "changes", "leaves", "policy", "same"] {
        before.push(ready(&client, name).await);
    }
    world.write("added", &sleeper());
    world.write("breaks", "Process(command: 7)");
    world.write("changes", &script("ignore-term sleep-forever", r#"stop: (grace: "100ms")"#));
    world.write("policy", &script("sleep-forever", "restart: (policy: Always)"));
    std::fs::remove_file(world.file("leaves")).expect("removed");

    let tried = reload(&client, true).await;
    let untouched: Vec<u32> = list(&client).await.iter().filter_map(|server| server.pid).collect();
    assert_eq!(untouched, before, "a dry run changes nothing");

    let result = reload(&client, false).await;
    assert_eq!(result, tried, "and says what would be done");
    assert_eq!(names(&result.added), ["added"]);
    assert_eq!(names(&result.changed), ["changes", "policy"]);
    assert_eq!(names(&result.removed), ["leaves"]);
    assert_eq!(names(&result.unchanged), ["same"]);
    assert_eq!(names(&result.rejected), ["breaks"]);

    ready(&client, "added").await;
    assert_ne!(ready(&client, "changes").await, before[1]);
    assert_eq!(ready(&client, "breaks").await, before[0]);
    assert_eq!(ready(&client, "policy").await, before[3]);
    assert_eq!(ready(&client, "same").await, before[4]);
    assert!(!list(&client).await.iter().any(|server| server.name == "leaves"));
    let error = status(&client, "breaks").await.config_error.expect("the file is broken");
    assert!(error.contains("breaks.ron:1"), "{error}");
    assert_eq!(status(&client, "same").await.config_error, None);
}

#[tokio::test]
async fn two_servers_swap_their_ports() {
    let (one, two) = (free_port(), free_port());
    let web = |port: u16| script(&format!("serve {port}"), &format!("port: {port}"));
    let mut world = World::with(&[("a", web(one)), ("b", web(two))]);
    let client = world.boot().await;
    let before = [ready(&client, "a").await, ready(&client, "b").await];
    world.write("a", &web(two));
    world.write("b", &web(one));
    assert_eq!(names(&reload(&client, false).await.changed), ["a", "b"]);
    for (name, old, port) in [("a", before[0], two), ("b", before[1], one)] {
        let now = until_status(&client, name, |now| now.summary.ready && now.summary.pid != Some(old)).await;
        assert_eq!((now.summary.port, now.summary.restart_count), (Some(port), 0), "{name}");
    }
}

#[tokio::test]
async fn sighup_reloads() {
    let mut world = World::with(&[("a", script("sleep-forever", ""))]);
    let client = world.boot().await;
    let before = ready(&client, "a").await;
    world.write("b", &script("sleep-forever", ""));
    world.signal(Signal::SIGHUP);
    until("the new server", || async { list(&client).await.iter().any(|s| s.name == "b").then_some(()) })
        .await;
    ready(&client, "b").await;
    assert_eq!(ready(&client, "a").await, before);
}

#[tokio::test]
async fn a_changed_stop_signal_or_command_reaches_the_process_that_runs() {
    let mut world = World::new();
    let quit = world.path("quit");
    let stubborn = |stop: &str| script("ignore-term sleep-forever", stop);
    let waits = format!("ignore-term wait-for {}", quit.display());
    world.write("by_signal", &stubborn(""));
    world.write("by_command", &script(&waits, ""));
    let client = world.boot().await;
    let before = [ready(&client, "by_signal").await, ready(&client, "by_command").await];

    world.write("by_signal", &stubborn(r#"stop: (signal: INT, grace: "60s")"#));
    let command = format!(r#"stop: (command: ["touch", {quit:?}], grace: "60s")"#);
    world.write("by_command", &script(&waits, &command));
    assert_eq!(names(&reload(&client, false).await.changed), ["by_command", "by_signal"]);
    assert_eq!([ready(&client, "by_signal").await, ready(&client, "by_command").await], before);
    for name in ["by_signal", "by_command"] {
        let stopped = super::support::stop(&client, name).await;
        assert_eq!((stopped.stopped.as_slice(), stopped.killed.len()), ([name.to_owned()].as_slice(), 0));
    }
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[tokio::test]
async fn instances_come_and_go_without_touching_the_others() {
    // Numbers next to each other, of which none is taken; the same test elsewhere on the machine begins with others.
    let begin = 20_000 + u16::try_from(std::process::id() % 3000).expect("small") * 3;
    let first = (begin..32_000)
        .step_by(3)
        .find(|port| (0..3).all(|more| std::net::TcpListener::bind(("127.0.0.1", port + more)).is_ok()))
        .expect("three free ports in a row");
    let web = |count: u32| script("serve {port}", &format!("port: {first}, instances: {count}"));
    let mut world = World::with(&[("web", web(2))]);
    let client = world.boot().await;
    let before = [ready(&client, "web-1").await, ready(&client, "web-2").await];
    world.write("web", &web(3));
    let result = reload(&client, false).await;
    assert_eq!((names(&result.added), names(&result.unchanged)), (vec!["web-3"], vec!["web-1", "web-2"]));
    ready(&client, "web-3").await;
    assert_eq!(
        list(&client).await.iter().filter_map(|web| web.port).collect::<Vec<_>>(),
        [first, first + 1, first + 2]
    );
    // To look at, each is a server; to operate on, the file's name stands for all of them.
    let asked = client
        .call::<xy_daemon::protocol::method::Status>(xy_daemon::protocol::method::StatusParams::new("web"));
    let error = within("status", asked).await.expect_err("there is no such server").to_string();
    assert!(error.contains("its instances are web-1, web-2, web-3"), "{error}");
    let restarted = super::support::stop(&client, "web").await;
    assert_eq!(restarted.stopped, ["web-1", "web-2", "web-3"]);
    let params = xy_daemon::protocol::method::OperationParams::named("web");
    within("start", client.call::<xy_daemon::protocol::method::Start>(params)).await.expect("answered");
    let after = [ready(&client, "web-1").await, ready(&client, "web-2").await];
    assert!(after != before);

    world.write("web", "Process(command: 7, instances: 3)");
    assert_eq!(names(&reload(&client, false).await.rejected), ["web"]);
    assert_eq!([ready(&client, "web-1").await, ready(&client, "web-2").await], after);
    assert!(status(&client, "web-1").await.config_error.is_some());
    world.write("web", &web(1));
    assert_eq!(names(&reload(&client, false).await.removed), ["web-2", "web-3"]);
    assert_eq!(ready(&client, "web-1").await, after[0]);
}
