//! `xyd` itself with HTTP switched on.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use xy_daemon::http::connection_file::Connection;

use super::script::within;
use super::server::{Answer, Wire};

/// The directories of one user and a daemon.
pub(crate) struct World {
    directory: tempfile::TempDir,
    daemon: Child,
    arguments: Vec<String>,
}

impl World {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_with("()", arguments, environment)
    }

    /// Starts a daemon with settings of its own.
    pub(crate) fn start_with(settings: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(directory.path().join("config/xy/servers")).expect("created");
        fs::write(directory.path().join("config/xy/xyd.ron"), settings).expect("written");
        let server = "Process(command: \"/bin/sleep\", args: [\"1000\"])";
        fs::write(directory.path().join("config/xy/servers/nap.ron"), server).expect("written");
        let daemon = Self::run(&directory, arguments, environment);
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self { directory, daemon, arguments }
    }

    fn run(directory: &tempfile::TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
        let log = File::options().create(true).append(true).open(directory.path().join("xyd.log"));
        Command::new(env!("CARGO_BIN_EXE_xyd"))
            .env_clear()
            .env("HOME", directory.path())
            .env("XDG_CONFIG_HOME", directory.path().join("config"))
            .env("XDG_STATE_HOME", directory.path().join("state"))
            .env("XDG_RUNTIME_DIR", directory.path().join("run"))
            .envs(environment.iter().copied())
            .args(["--no-cgroup", "--no-guard"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("opened"))
            .spawn()
            .expect("xyd can be run")
    }

    /// Ends the daemon and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.ended().await, Some(0));
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.daemon = Self::run(&self.directory, &arguments, &[]);
    }

    /// Writes other settings.
    pub(crate) fn configure(&self, settings: &str) {
        fs::write(self.directory.path().join("config/xy/xyd.ron"), settings).expect("written");
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("run/xy/xyd.sock")
    }

    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.directory.path().join("state/xy").join(name)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.directory.path().join("xyd.log")).unwrap_or_default()
    }

    pub(crate) async fn connection(&self) -> Connection {
        self.until("the connection file", async || Connection::read(&self.state("xyd.json")).ok()).await
    }

    pub(crate) async fn until<T>(&self, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
        within(what, async {
            loop {
                if let Some(found) = probe().await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.daemon.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }

    async fn ended(&mut self) -> Option<i32> {
        within("the end of xyd", async {
            loop {
                if let Some(status) = self.daemon.try_wait().expect("it is our child") {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("xyd said:\n{}", self.said());
        }
        // It may have ended long ago. What it runs dies with it.
        let _ended = self.daemon.kill();
        let _reaped = self.daemon.wait();
    }
}

/// Asks without a body.
pub(crate) async fn ask(connection: &Connection, method: &str, target: &str) -> Answer {
    let address = connection.base_url["http://".len()..].parse().expect("an address");
    let token = connection.token.expose();
    let mut wire = Wire::connect(address).await;
    let body = if method == "GET" { "" } else { "Content-Type: application/json\r\nContent-Length: 0\r\n" };
    wire.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n{body}\r\n"
    ))
    .await;
    wire.answer().await
}

/// Sends a `POST` with more head lines and a body.
pub(crate) async fn post(connection: &Connection, target: &str, more: &str, body: &str) -> Answer {
    let address = connection.base_url["http://".len()..].parse().expect("an address");
    let token = connection.token.expose();
    let mut wire = Wire::connect(address).await;
    wire.send(format!(
        "POST {target} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n{more}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    wire.answer().await
}

#[tokio::test]
async fn the_settings_say_how_often_the_token_is_replaced_and_an_upgrade_keeps_to_it() {
    let mut world = World::start_with("(http: (rotate_token: \"12h\"))", &["--http", "127.0.0.1:0"], &[]);
    let every = async |connection: &Connection| {
        ask(connection, "GET", "/v1/diagnostics").await.json()["http"]["limits"]["rotate_token_secs"].clone()
    };
    let connection = world.connection().await;
    assert_eq!(every(&connection).await, 43200.0);
    // What its file says by now counts from the next start on.
    world.configure("(http: (rotate_token: \"6h\"))");
    let token = connection.token;
    assert_eq!(post(&world.connection().await, "/v1/admin/upgrade", "", "").await.status, 202);
    let next = world
        .until("the next program", async || {
            Connection::read(&world.state("xyd.json")).ok().filter(|one| one.token != token)
        })
        .await;
    assert_eq!(every(&next).await, 43200.0);
    world.restart().await;
    let token = next.token;
    let next = world
        .until("the next daemon", async || {
            Connection::read(&world.state("xyd.json")).ok().filter(|one| one.token != token)
        })
        .await;
    assert_eq!(every(&next).await, 21600.0);
}

#[tokio::test]
async fn a_token_file_that_others_may_read_is_a_mistake_of_the_configuration() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("token");
    fs::write(&file, "0123456789abcdef0123456789abcdef").expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("ours");
    let file = file.to_str().expect("text");
    let mut world = World::start(&["--http", "127.0.0.1:0", "--http-token-file", file], &[]);
    assert_eq!(world.ended().await, Some(3), "{}", world.said());
    assert!(world.said().contains("must be a file of ours with mode 600"), "{}", world.said());
}

#[tokio::test]
async fn xyd_is_found_asked_told_and_ended_over_http_and_never_shows_its_token() {
    let mut world = World::start(&["--http", "127.0.0.1:0"], &[]);
    let connection = world.connection().await;
    assert_eq!(connection.pid, world.daemon.id());
    for file in ["xyd.json", "http.token"] {
        assert_eq!(fs::metadata(world.state(file)).expect("it is there").mode() & 0o777, 0o600, "{file}");
    }
    let nap = async |state: &str| {
        world
            .until(state, async || {
                let nap = ask(&connection, "GET", "/v1/servers/nap").await.json();
                (nap["state"] == state).then_some(nap)
            })
            .await
    };
    let running: Value = nap("running").await;
    let stopped = ask(&connection, "POST", "/v1/servers/nap/stop?wait=true").await;
    assert_eq!((stopped.status, stopped.json()["stopped"][0].as_str()), (200, Some("nap")), "{stopped:?}");
    nap("stopped").await;
    assert_eq!(ask(&connection, "POST", "/v1/servers/nap/start").await.status, 202);
    assert_ne!(nap("running").await["pid"], running["pid"]);
    let reload = ask(&connection, "POST", "/v1/admin/reload?wait=true").await;
    assert_eq!(reload.json()["unchanged"][0]["name"], "nap", "{reload:?}");
    let missing = ask(&connection, "POST", "/v1/servers/none/start?wait=true").await;
    assert_eq!((missing.status, missing.kind().as_str()), (404, "server_not_found"));
    world
        .until("the counters", async || {
            let metrics = ask(&connection, "GET", "/metrics").await.body;
            (metrics.contains("xy_server_starts_total{server=\"nap\"} 2\n")
                && metrics.contains("xy_server_log_dropped_lines_total{server=\"nap\"} 0\n")
                && metrics.contains("xy_start_to_ready_seconds_count 2\n"))
            .then_some(())
        })
        .await;

    assert_eq!(ask(&connection, "POST", "/v1/admin/shutdown").await.status, 202);
    assert_eq!(world.ended().await, Some(0));
    assert!(!world.said().contains(connection.token.expose()), "{}", world.said());
    for file in ["xyd.json", "http.token"] {
        assert!(!world.state(file).exists(), "{file}");
    }
}

#[tokio::test]
async fn a_signal_makes_a_new_token() {
    let world = World::start(&["--http", "[::1]:0"], &[]);
    let old = world.connection().await;
    assert_eq!(ask(&old, "GET", "/v1/status").await.status, 200);
    world.signal(Signal::SIGUSR2);
    let new = world
        .until("a new token", async || {
            Connection::read(&world.state("xyd.json")).ok().filter(|new| new.token != old.token)
        })
        .await;
    for connection in [&old, &new] {
        assert_eq!(ask(connection, "GET", "/v1/status").await.status, 200);
    }
}

#[tokio::test]
async fn the_token_of_the_environment_is_used_and_no_server_inherits_it() {
    let token = "0123456789abcdef0123456789abcdef-from-the-environment";
    let world = World::start(&["--http", "127.0.0.1:0"], &[("XY_TOKEN", token)]);
    let connection = world.connection().await;
    assert_eq!(connection.token.expose(), token);
    let diagnostics = ask(&connection, "GET", "/v1/diagnostics").await;
    assert_eq!(diagnostics.json()["http"]["token_source"], "environment");
    assert!(!diagnostics.body.contains(token));
    let pid = world
        .until("a process", async || ask(&connection, "GET", "/v1/servers/nap").await.json()["pid"].as_u64())
        .await;
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("it runs");
    let shown = String::from_utf8_lossy(&environment);
    assert!(shown.contains("XY_INSTANCE") && !shown.contains("XY_TOKEN"), "{shown}");
}

#[tokio::test]
async fn http_is_off_unless_it_is_asked_for_and_a_useless_token_is_an_error() {
    let mut world = World::start(&["--http", "127.0.0.1:0"], &[("XY_TOKEN", "hunter2")]);
    assert_eq!(world.ended().await, Some(3));
    let said = world.said();
    assert!(said.contains("XY_TOKEN") && !said.contains("hunter2"), "{said}");

    let mut world = World::start(&["--http", "0.0.0.0:0"], &[]);
    assert_eq!(world.ended().await, Some(64));
    assert!(world.said().contains("loopback"), "{}", world.said());

    let mut world = World::start(&[], &[]);
    world.until("the start", async || world.said().contains("listening").then_some(())).await;
    assert!(!world.state("xyd.json").exists());
    world.signal(Signal::SIGUSR2);
    world.until("the warning", async || world.said().contains("http is off").then_some(())).await;
    world.signal(Signal::SIGTERM);
    assert_eq!(world.ended().await, Some(0));
}
