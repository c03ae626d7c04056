//! Secrets of servers: the server has them, and nobody else hears of their values.

use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use xy_daemon::client::{Client, ClientError};
use xy_daemon::protocol::method::{
    Events, EventsParams, List, ListParams, Logs, LogsParams, OperationParams, Reload, ReloadParams, Restart,
    Show, ShowParams, Status, StatusParams, StatusResult, Upgrade, UpgradeParams, Version, VersionParams,
    Why, WhyParams,
};

use super::support::{World, environment, free_port, hold_port, list, ready, script, status, until, within};

/// In every value that must not come out.
const CANARY: &str = "canary-51d2";

/// The real program, for scripts that stand in for it.
const XYD: &str = env!("CARGO_BIN_EXE_xyd");

const SLOW: &str = r#"restart: (backoff_initial: "60s", backoff_max: "60s")"#;

/// What was told, and by whom.
#[derive(Default)]
struct Told(Vec<(String, String)>);

impl Told {
    fn note(&mut self, what: impl Into<String>, answer: impl Debug) {
        self.0.push((what.into(), format!("{answer:?}")));
    }

    fn file(&mut self, path: &Path) {
        let bytes = fs::read(path).unwrap_or_default();
        self.0.push((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
    }

    fn assert_clean(&self) {
        for (what, text) in &self.0 {
            assert!(!text.contains(CANARY), "{what}: {text}");
        }
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own");
}

async fn ask_everything(client: &Client, world: &World, names: &[&str]) -> Told {
    let mut told = Told::default();
    told.note("list", within("list", client.call::<List>(ListParams {})).await);
    told.note("version", within("version", client.call::<Version>(VersionParams::default())).await);
    for name in names {
        let own = || (*name).to_owned();
        told.note(
            format!("status {name}"),
            within(name, client.call::<Status>(StatusParams::new(*name))).await,
        );
        told.note(format!("why {name}"), within(name, client.call::<Why>(WhyParams { name: own() })).await);
        told.note(
            format!("show {name}"),
            within(name, client.call::<Show>(ShowParams { name: own() })).await,
        );
        let params = LogsParams { tail: Some(100), ..LogsParams::new(*name) };
        let Ok(mut logs) = within("logs", client.subscribe::<Logs>(params)).await else { continue };
        while let Ok(Some(line)) = within("a line", logs.next()).await {
            told.note(format!("log of {name}"), line);
        }
    }
    let events = client.subscribe::<Events>(EventsParams::held(1));
    let mut events = within("events", events).await.expect("subscribed");
    while let Some(event) = within("an event", events.next()).await.expect("connected") {
        told.note("event", event);
    }
    told.file(&world.path("xyd.log"));
    files_below(&world.path("state")).iter().for_each(|path| told.file(path));
    told
}

/// Asks over HTTP for what can be read there.
async fn ask_http(world: &World, told: &mut Told, names: &[&str]) {
    let file = fs::read(world.path("state/xy/xyd.json")).expect("HTTP is on");
    let file: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
    let address = file["base_url"].as_str().expect("a URL").trim_start_matches("http://").to_owned();
    let token = file["token"].as_str().expect("a token");
    let paths =
        ["/v1/health", "/v1/status", "/v1/servers", "/v1/diagnostics", "/v1/capabilities", "/metrics"];
    let each = names.iter().map(|name| format!("/v1/servers/{name}"));
    for path in paths.iter().map(ToString::to_string).chain(each) {
        let mut stream = TcpStream::connect(&address).await.expect("it listens");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        within(&path, stream.read_to_string(&mut answer)).await.expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        told.note(path, answer);
    }
}

#[tokio::test]
async fn values_of_secrets_come_out_nowhere() {
    let mut world = World::new().argument("--http").argument("127.0.0.1:0");
    let secret = world.path("token");
    private(&secret, &format!("{CANARY}-file\n"));
    let secrets = format!(
        r#"secrets: {{"FROM_ENV": Env("XY_TEST_SOURCE"), "FROM_FILE": File({secret:?}),
           "FROM_COMMAND": Command(["/bin/sh", "-c", "printf %s {CANARY}-; echo command"])}}"#
    );
    let probe = format!(
        r#"liveness: (probe: Exec(command: "/bin/sh", args: ["-c", "echo {CANARY}-file; exit 1", "{CANARY}-command"]),
        interval: "10ms", failures: 1000)"#
    );
    let held = hold_port();
    let port = held.local_addr().expect("bound").port();
    let conflict = format!("port: {port}");
    let runs = format!(
        r#"Process(command: "/bin/sh", args: ["-c", "sleep 600", "--key", "{CANARY}-file", "x{CANARY}-envx"], {secrets}, {probe},
           env: {{"COPY": "{CANARY}-env"}}, stop: (command: ["/bin/true", "{CANARY}-file"]))"#
    );
    world.write("runs", &runs);
    world.write("fails", &script("exit 3", &format!("{secrets}, {SLOW}")));
    world.write("conflicts", &script("exit 0", &format!("{secrets}, {conflict}, {SLOW}")));
    world.write("plain", &script("sleep-forever", ""));
    world.write("literal", &script("exit 0", &format!(r#"secrets: {{"A": "{CANARY}-literal"}}"#)));
    let bad = |source: &str| script("exit 0", &format!(r#"secrets: {{"BAD": {source}}}, {SLOW}"#));
    world.write("unset", &bad(r#"Env("XY_TEST_UNSET")"#));
    world.write("exits", &bad(&format!(r#"Command(["/bin/sh", "-c", "echo {CANARY}; exit 4"])"#)));
    let shared = world.path("shared");
    private(&shared, &format!("{CANARY}-shared"));
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o644)).expect("our own");
    world.write("shared", &bad(&format!("File({shared:?})")));

    let client = world.boot_after(&format!("export XY_TEST_SOURCE={CANARY}-env")).await;
    let own: Vec<String> = environment(
        super::support::until_status(&client, "runs", |now| now.summary.pid.is_some())
            .await
            .summary
            .pid
            .expect("it runs"),
    )
    .expect("it runs");
    for (key, value) in [("FROM_ENV", "env"), ("FROM_FILE", "file"), ("FROM_COMMAND", "command")] {
        assert!(own.contains(&format!("{key}={CANARY}-{value}")), "the server itself has {key}: {own:?}");
    }
    // A start that fails says whose secret, and where it was looked for.
    for (name, words) in [
        ("unset", "secret `BAD` cannot be had from variable `XY_TEST_UNSET`: the variable is not set"),
        ("exits", "secret `BAD` cannot be had from command `/bin/sh`: the command ended with code 4"),
        ("shared", "secret `BAD` cannot be had from file `"),
    ] {
        let failed = super::support::until_status(&client, name, |now| now.summary.last_exit.is_some()).await;
        let text = format!("{:?}", failed.summary.last_exit);
        assert!(text.contains(words), "{name}: {text}");
    }
    let rejected = world.said();
    assert!(rejected.contains("literal.ron") && rejected.contains("write where it comes from"), "{rejected}");
    super::support::until_status(&client, "fails", |now| now.summary.last_exit.is_some()).await;
    super::support::until_status(&client, "conflicts", |now| now.summary.last_exit.is_some()).await;

    // Its probe fails, and what that printed is told.
    let is_unhealthy = |now: &StatusResult| now.summary.pid.is_some() && !now.summary.ready;
    super::support::until_status(&client, "runs", is_unhealthy).await;
    let names = ["runs", "fails", "conflicts", "plain", "unset", "exits", "shared"];
    let mut told = ask_everything(&client, &world, &names).await;
    let shown =
        within("show", client.call::<Show>(ShowParams { name: "runs".to_owned() })).await.expect("shown");
    let source = |name: &str| {
        let variable = shown.environment.iter().find(|variable| variable.name == name).expect("shown");
        assert_eq!(variable.value, None);
        variable.source.clone()
    };
    assert_eq!(source("FROM_ENV"), "secret from variable `XY_TEST_SOURCE`");
    assert_eq!(source("FROM_FILE"), format!("secret from file `{}`", secret.display()));
    assert_eq!(source("FROM_COMMAND"), "secret from command `/bin/sh`");
    let args = shown.settings.iter().find(|setting| setting.key == "args").expect("shown");
    assert_eq!(args.value, r#"["-c", "sleep 600", "--key", "***", "x***x"]"#);
    ask_http(&world, &mut told, &names).await;
    told.note("restart", within("restart", client.call::<Restart>(OperationParams::named("fails"))).await);
    // Only a changed declaration is a change.
    private(&secret, &format!("{CANARY}-changed"));
    let reload = || client.call::<Reload>(ReloadParams { dry_run: false });
    let result = within("reload", reload()).await.expect("reloaded");
    assert!(result.changed.is_empty(), "{result:?}");
    world.write("plain", &script("sleep-forever", &secrets));
    let result = within("reload", reload()).await.expect("reloaded");
    assert_eq!(result.changed.len(), 1, "{result:?}");
    assert!(format!("{result:?}").contains("secret FROM_ENV added"), "{result:?}");
    told.note("reload", result);
    told.0.extend(ask_everything(&client, &world, &names).await.0);
    told.assert_clean();
}

#[tokio::test]
async fn an_upgrade_hands_no_secret_over_and_the_server_keeps_its_own() {
    let mut world = World::new().with_own_program();
    let (secret, port) = (world.path("token"), free_port());
    private(&secret, CANARY);
    let secrets = format!(
        r#"secrets: {{"KEY": File({secret:?})}}, port: {port}, ready: Exec(command: "/bin/sh", args: ["-c", "test -n \"$KEY\""])"#
    );
    world.write("web", &script(&format!("serve {port}"), &secrets));
    let client = world.boot().await;
    let pid = ready(&client, "web").await;
    let handoff = world.path("handoff");
    world.replace_program(&format!(
        "case \"$*\" in *--check-handoff*) cat > {0}; exec {XYD} \"$@\" < {0};; esac\nexec {XYD} \"$@\"",
        handoff.display()
    ));
    match within("upgrade", client.call::<Upgrade>(UpgradeParams {})).await {
        Ok(_) | Err(ClientError::Closed) => {}
        other => panic!("{other:?}"),
    }
    until("the next program", || async { (world.said().matches("taken over").count() == 1).then_some(()) })
        .await;
    let client = world.connect().await;
    assert_eq!(ready(&client, "web").await, pid);
    let state = fs::read(&handoff).expect("it was checked");
    let state = String::from_utf8_lossy(&state);
    assert!(state.contains("secrets:"), "the declaration goes along");
    assert!(!state.contains(CANARY), "{state}");
    // Another start has the value again.
    within("restart", client.call::<Restart>(OperationParams::named("web"))).await.expect("restarted");
    let pid = ready(&client, "web").await;
    assert!(environment(pid).expect("it runs").contains(&format!("KEY={CANARY}")));
    assert_eq!(list(&client).await.len(), 1);
    assert!(status(&client, "web").await.summary.ready);
    ask_everything(&client, &world, &["web"]).await.assert_clean();
}
