//! A directory with servers, the daemon that runs them, and what is seen from outside.

use std::fs::{self, DirBuilder, File};
use std::future::Future;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use xy_daemon::client::Client;
use xy_daemon::protocol::method::{
    List, ListParams, OperationParams, ServerSummary, State, Status, StatusParams, StatusResult, Stop,
    StopResult, Version, VersionParams,
};

/// How long anything may take before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The scripted server.
pub(crate) const SERVER: &str = env!("CARGO_BIN_EXE_xy-testserver");

/// Has every process below a daemon of these tests in its environment, with the directory of its test.
const TAG: &str = "XY_TEST_DIRECTORY";

/// Polls until `probe` answers; for what only the system can be asked.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let polled = async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, polled).await
}

/// Fails the test if `future` takes too long.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} took too long"))
}

/// Picks a port that nobody uses.
pub(crate) fn free_port() -> u16 {
    hold_port().local_addr().expect("a bound socket").port()
}

pub(crate) fn hold_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

/// Writes a server file's text: the scripted server with these steps, and more keys.
pub(crate) fn script(steps: &str, more: &str) -> String {
    let args: Vec<String> = steps.split_whitespace().map(|step| format!("{step:?}")).collect();
    format!("Process(command: {SERVER:?}, args: [{}], {more})", args.join(", "))
}

/// The directories of one user, and at most one daemon that a test looks at.
pub(crate) struct World {
    pub(crate) directory: TempDir,
    daemon: Option<Child>,
    arguments: Vec<&'static str>,
    /// What is run as xyd.
    program: PathBuf,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let program = env!("CARGO_BIN_EXE_xyd").into();
        let world = Self { directory, daemon: None, arguments: vec!["--no-cgroup"], program };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(world.path("config/xy/servers"))
            .expect("created");
        world
    }

    pub(crate) fn with(servers: &[(&str, String)]) -> Self {
        let world = Self::new();
        for (name, text) in servers {
            world.write(name, text);
        }
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a server's file.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).expect("written");
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path(&format!("config/xy/servers/{name}.ron"))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/xy/xyd.sock")
    }

    /// What the daemon said on its stderr.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.path("xyd.log")).unwrap_or_default()
    }

    /// The daemon's command with an environment of its own.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.directory.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env(TAG, self.directory.path())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Lets daemons use control groups, where the machine grants them. The other tests do without: what they prove is to
    /// hold everywhere, and a daemon that is killed for good leaves empty groups behind.
    pub(crate) fn with_cgroups(mut self) -> Self {
        self.arguments.retain(|argument| *argument != "--no-cgroup");
        self
    }

    /// Gives daemons a program of their own, which a test may replace.
    pub(crate) fn with_own_program(mut self) -> Self {
        self.program = self.path("xyd");
        let original = env!("CARGO_BIN_EXE_xyd");
        if fs::hard_link(original, &self.program).is_err() {
            // On another disk.
            fs::copy(original, &self.program).expect("copied");
        }
        self
    }

    /// Puts a shell script in the place of the program that daemons have of their own.
    pub(crate) fn replace_program(&self, script: &str) {
        let new = self.path("xyd.new");
        fs::write(&new, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("ours");
        fs::rename(new, &self.program).expect("replaced");
    }

    /// Gives daemons this argument from here on. With `--no-guard`, what is started is the daemon itself.
    pub(crate) fn argument(mut self, argument: &'static str) -> Self {
        self.arguments.push(argument);
        self
    }

    /// Starts the daemon without waiting for anything.
    pub(crate) fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("xyd.log")).expect("opened");
        self.daemon = Some(self.command().stderr(log).spawn().expect("xyd can be run"));
    }

    /// Takes a daemon that the test has started in its own way.
    pub(crate) fn adopt(&mut self, daemon: Child) {
        self.daemon = Some(daemon);
    }

    /// Starts the daemon and connects to it.
    pub(crate) async fn boot(&mut self) -> Client {
        self.start();
        self.connect().await
    }

    /// Starts the daemon from a shell that has run this script before.
    pub(crate) async fn boot_after(&mut self, script: &str) -> Client {
        let log = File::options().create(true).append(true).open(self.path("xyd.log")).expect("opened");
        let daemon = self.command();
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("{script}; exec \"$0\" \"$@\"")]);
        shell.arg(daemon.get_program()).args(daemon.get_args()).env_clear();
        shell.envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.daemon = Some(shell.spawn().expect("a shell can be run"));
        self.connect().await
    }

    pub(crate) async fn connect(&self) -> Client {
        let socket = self.socket();
        // An answer, not just a connection: for a moment after a kill, a child that was being spawned keeps the dead
        // daemon's socket open, where nobody answers.
        until("an answer on the socket", || async {
            let client = Client::connect(&socket).await.ok()?;
            client.call::<Version>(VersionParams::default()).await.ok().map(|_| client)
        })
        .await
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon was started").id()
    }

    /// Returns the pid of the daemon itself, which is not that of the guard that was started.
    pub(crate) fn daemon_pid(&self) -> Option<u32> {
        fs::read_to_string(self.path("state/xy/xyd.lock")).ok()?.trim().parse().ok()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Returns how the daemon has ended, if it has.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.daemon.as_mut().expect("a daemon was started").try_wait().expect("it is our child")
    }

    /// Waits for the daemon's own end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let daemon = self.daemon.as_mut().expect("a daemon was started");
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            if let Some(status) = daemon.try_wait().expect("it is our child") {
                return status;
            }
            assert!(tokio::time::Instant::now() < deadline, "the end of xyd took too long");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns the live processes of this test except the daemon and its guard.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let tag = format!("{TAG}={}", self.directory.path().display());
        let is_xyd = |pid: &u32| {
            fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|path| path == Path::new(env!("CARGO_BIN_EXE_xyd")) || path == self.program)
        };
        processes_with(&tag).into_iter().filter(|pid| !is_xyd(pid)).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("xyd said:\n{}", self.said());
        }
        if let Some(daemon) = &mut self.daemon {
            // It may have ended long ago.
            let _ended = daemon.kill();
            let _reaped = daemon.wait();
        }
        // One that lost its guard is about to end, and must not be left to it.
        let tag = format!("{TAG}={}", self.directory.path().display());
        for pid in processes_with(&tag) {
            let _gone = kill(pid_of(pid), Signal::SIGKILL);
        }
    }
}

pub(crate) fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("a pid"))
}

pub(crate) fn send(pid: u32, signal: Signal) {
    kill(pid_of(pid), signal).expect("the process exists");
}

/// Returns the processes, zombies excepted, whose environment has this line.
pub(crate) fn processes_with(line: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // A zombie's environment reads as empty.
    pids.filter(|pid| {
        environment(*pid).is_some_and(|environment| environment.iter().any(|entry| entry == line))
    })
    .collect()
}

pub(crate) fn environment(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    Some(bytes.split(|byte| *byte == 0).map(|entry| String::from_utf8_lossy(entry).into_owned()).collect())
}

/// Returns the environment entry that marks all processes of one start of a server.
pub(crate) fn marker(pid: u32) -> String {
    let entries = environment(pid).expect("the process is alive");
    entries.into_iter().find(|entry| entry.starts_with("XY_INSTANCE=")).expect("it is marked")
}

/// Returns the children of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

pub(crate) fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

pub(crate) async fn list(client: &Client) -> Vec<ServerSummary> {
    within("list", client.call::<List>(ListParams {})).await.expect("answered").servers
}

pub(crate) async fn status(client: &Client, name: &str) -> StatusResult {
    within("status", client.call::<Status>(StatusParams::new(name))).await.expect("answered")
}

/// Waits until a server's status is as wanted.
pub(crate) async fn until_status(
    client: &Client,
    name: &str,
    wanted: impl Fn(&StatusResult) -> bool,
) -> StatusResult {
    let mut last = None;
    let polled = async {
        loop {
            let now = status(client, name).await;
            if wanted(&now) {
                return now;
            }
            last = Some(now);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    match tokio::time::timeout(DEADLINE, polled).await {
        Ok(found) => found,
        Err(_) => panic!("`{name}` did not come to be as wanted: {last:#?}"),
    }
}

/// Waits until a server is ready and returns its main process.
pub(crate) async fn ready(client: &Client, name: &str) -> u32 {
    let found =
        until_status(client, name, |status| status.summary.state == State::Running && status.summary.ready);
    found.await.summary.pid.expect("a ready server has a process")
}

pub(crate) async fn stop(client: &Client, name: &str) -> StopResult {
    within("stop", client.call::<Stop>(OperationParams::named(name))).await.expect("answered")
}
