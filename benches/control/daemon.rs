//! An `xyd` with many servers that do nothing, and what is seen of it from outside.

use std::fs::{self, DirBuilder, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The token of HTTP.
pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// How long the servers may take to be up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running daemon; it and its servers end when the value is dropped.
pub(crate) struct Daemon {
    child: Child,
    directory: TempDir,
    pub(crate) servers: usize,
}

impl Daemon {
    pub(crate) fn start(programs: &Path, servers: usize) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = |name: &str| directory.path().join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(place("config/xy/servers")).expect("created");
        for index in 0..servers {
            let file = place(&format!("config/xy/servers/s{index}.ron"));
            fs::write(file, "Process(command: \"/bin/sleep\", args: [\"infinity\"])").expect("written");
        }
        let log = File::create(place("log")).expect("created");
        let child = Command::new(programs.join("xyd"))
            .args(["--no-cgroup", "--no-guard", "--http", "127.0.0.1:0"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", directory.path())
            .env("XDG_CONFIG_HOME", place("config"))
            .env("XDG_STATE_HOME", place("state"))
            .env("XDG_RUNTIME_DIR", place("run"))
            .env("XY_TOKEN", TOKEN)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("xyd can be run");
        let daemon = Self { child, directory, servers };
        let deadline = Instant::now() + PATIENCE;
        loop {
            if daemon.running() == Some(servers) {
                return daemon;
            }
            assert!(Instant::now() < deadline, "the servers are not up: {}", daemon.said());
            pause(Duration::from_millis(50));
        }
    }

    /// Returns how many servers run.
    pub(crate) fn running(&self) -> Option<usize> {
        let mut line = Line::connect(&self.socket())?;
        let answer = line.ask(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}\n")?;
        Some(String::from_utf8_lossy(&answer).matches("\"state\":\"running\"").count())
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("run/xy/xyd.sock")
    }

    /// Returns where HTTP listens.
    pub(crate) fn http(&self) -> SocketAddr {
        let text = fs::read_to_string(self.directory.path().join("state/xy/xyd.json")).expect("written");
        let rest = text.split_once("http://").expect("a base URL").1;
        rest.split('"').next().and_then(|address| address.parse().ok()).expect("an address")
    }

    /// Returns a figure of its process in kB, for instance `VmRSS`.
    pub(crate) fn memory(&self, what: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).expect(what);
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // It ends its servers first; without an end by then, their parent-death signal does.
        _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            pause(Duration::from_millis(20));
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Waits before the next look at a process of which no event is heard.
#[expect(
    clippy::disallowed_methods,
    reason = "a bench looks at another process from outside, and has no runtime there"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A blocking connection to the socket.
pub(crate) struct Line {
    reader: BufReader<UnixStream>,
}

impl Line {
    pub(crate) fn connect(path: &Path) -> Option<Self> {
        Some(Self { reader: BufReader::with_capacity(64 << 10, UnixStream::connect(path).ok()?) })
    }

    pub(crate) fn send(&mut self, text: &[u8]) -> Option<()> {
        self.reader.get_mut().write_all(text).ok()
    }

    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let mut answer = Vec::new();
        (self.reader.read_until(b'\n', &mut answer).ok()? > 0).then_some(answer)
    }

    pub(crate) fn ask(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        self.send(text)?;
        self.receive()
    }
}
