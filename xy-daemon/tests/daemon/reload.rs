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
