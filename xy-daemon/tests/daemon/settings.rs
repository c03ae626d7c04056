//! What servers get from the daemon, and what of it is told to nobody.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use xy_daemon::protocol::method::{
    Events, EventsParams, List, ListParams, Logs, LogsParams, OperationParams, Restart, Status, StatusParams,
};

use super::support::{SERVER, World, free_port, ready, script, stop, until, within};

/// A value that must not come out anywhere.
const CANARY: &str = "canary-6f1c0a";

fn limits(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs")
}

fn limit(text: &str, name: &str) -> Vec<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    line.split_whitespace().take(2).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_daemon_takes_every_descriptor_it_may_and_servers_get_the_usual_number() {
    let mut world = World::with(&[("web", script("sleep-forever", ""))]).argument("--no-guard");
    // As the shells of most systems have it.
    let client = world.boot_after("ulimit -S -n 200").await;
    let server = limits(ready(&client, "web").await);
    let own = limits(world.pid());
    let (open, core) = ("Max open files", "Max core file size");
    assert_eq!(limit(&server, open)[0], "200");
    assert_eq!(limit(&own, open)[0], limit(&own, open)[1]);
    assert_ne!(limit(&own, open)[0], "200", "the hard limit is above the soft one");
    assert_eq!(limit(&own, core)[0], "0");
    assert_eq!(limit(&server, core), limit(&limits(std::process::id()), core));
}

fn files_below(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).expect("readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

#[tokio::test]
async fn values_of_environment_variables_come_out_nowhere() {
    let mut world = World::new();
    let secret = world.path("secret.env");
    fs::write(&secret, format!("FROM_FILE={CANARY}\n")).expect("written");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("our own");
    let broken = world.path("broken.env");
    fs::write(&broken, format!("{CANARY}\n")).expect("written");
    let env = format!(r#"env: {{"SECRET": "{CANARY}"}}, env_files: [{secret:?}]"#);
    let slow = r#"restart: (backoff_initial: "60s", backoff_max: "60s")"#;
    world.write("runs", &script("lines 1 sleep-forever", &env));
    world.write("fails", &script("exit 3", &format!("{env}, {slow}")));
    world.write("missing", &format!("Process(command: \"/no/such\", {env}, {slow})"));
    world.write("nul", &script("exit 0", &format!(r#"env: {{"SECRET": "{CANARY}\u{{0}}"}}"#)));
    world.write("shape", &script("exit 0", &format!(r#"env: {{"SECRET": ["{CANARY}"]}}"#)));
    world.write("file", &script("exit 0", &format!("env_files: [{broken:?}], {slow}")));
    let client = world.boot().await;
    let pid = ready(&client, "runs").await;
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).expect("it runs");
    assert_eq!(environment.matches(CANARY).count(), 2, "the server itself has both");
    until("the failures", || async {
        let servers = super::support::list(&client).await;
        let failed = servers.iter().filter(|server| server.last_exit.is_some()).count();
        (failed == 3).then_some(())
    })
    .await;

    let mut told = Vec::new();
    let mut tell = |what: &str, answer: String| told.push((what.to_owned(), answer));
    tell("list", format!("{:?}", within("list", client.call::<List>(ListParams {})).await));
    for name in ["runs", "fails", "missing", "nul", "shape", "file"] {
        tell(name, format!("{:?}", within(name, client.call::<Status>(StatusParams::new(name))).await));
        tell(name, format!("{:?}", within(name, client.call::<Restart>(OperationParams::named(name))).await));
    }
    // Changed and broken again under a reload.
    world.write("runs", &script("lines 1 sleep-forever", &format!(r#"env: {{"SECRET": "{CANARY}2"}}"#)));
    let reload = xy_daemon::protocol::method::ReloadParams { dry_run: false };
    let reloaded = within("reload", client.call::<xy_daemon::protocol::method::Reload>(reload)).await;
    tell("reload", format!("{reloaded:?}"));
    let events = client.subscribe::<Events>(EventsParams::held(1));
    let mut events = within("events", events).await.expect("subscribed");
    let mut count = 0;
    while let Some(event) = within("an event", events.next()).await.expect("connected") {
        count += 1;
        tell("event", format!("{event:?}"));
    }
    assert!(count > 5, "{count} events");
    let params = LogsParams { tail: Some(100), ..LogsParams::new("file") };
    let mut logs = within("logs", client.subscribe::<Logs>(params)).await.expect("subscribed");
    while let Some(line) = within("a line", logs.next()).await.expect("connected") {
        tell("log", format!("{line:?}"));
    }
    let mut files = vec![world.path("xyd.log")];
    files_below(&world.path("state"), &mut files);
    for file in files {
        let bytes = fs::read(&file).expect("readable");
        tell(&file.display().to_string(), String::from_utf8_lossy(&bytes).into_owned());
    }
    for (what, text) in told {
        assert!(!text.contains(CANARY), "{what}: {text}");
    }
}

#[tokio::test]
async fn a_server_of_another_user_is_ready_by_its_own_port_and_ends_as_a_whole() {
    if !nix::unistd::Uid::effective().is_root() {
        // Nobody else can start it.
        return;
    }
    let port = free_port();
    let mut world = World::new();
    // Where the user can reach it, unlike the directories of these tests.
    let public = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(public.path(), fs::Permissions::from_mode(0o755)).expect("our own");
    let program = public.path().join("server");
    fs::copy(SERVER, &program).expect("copied");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("our own");
    let text = format!(
        r#"Process(command: {program:?}, args: ["spawn", "2", "setsid", "sleep-forever", "serve", "{port}"],
                   port: {port}, user: "nobody", working_dir: "/", stop: (grace: "60s"))"#
    );
    world.write("web", &text);
    let client = world.boot().await;
    let pid = ready(&client, "web").await;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let nobody =
        nix::unistd::User::from_name("nobody").expect("a user database").expect("every system has it");
    assert!(status.contains(&format!("\nUid:\t{0}\t{0}\t{0}\t{0}\n", nobody.uid)), "{status}");
    assert_eq!(world.processes().len(), 2);
    let stopped = stop(&client, "web").await;
    assert_eq!((stopped.stopped.len(), stopped.killed.len()), (1, 0), "{stopped:?}");
    assert_eq!(world.processes(), Vec::<u32>::new());
}
