//! Runs the real binary with nothing in its environment but the socket.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Run {
    /// Returns standard output as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("the output is text")
    }

    /// Checks all three.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, stdout: &str, stderr: &str) {
        assert_eq!((self.code, self.text(), self.stderr.as_str()), (Some(code), stdout, stderr));
    }
}

/// Starts the binary for the daemon at `socket`.
pub(crate) fn start(socket: &Path, arguments: &[&str]) -> Child {
    start_in(Path::new("/nonexistent"), socket, arguments)
}

/// Starts the binary with its home in `home`.
pub(crate) fn start_in(home: &Path, socket: &Path, arguments: &[&str]) -> Child {
    start_in_with(home, socket, arguments, &[])
}

/// Starts the binary with its home in `home` and more variables in its environment.
pub(crate) fn start_in_with(
    home: &Path,
    socket: &Path,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> Child {
    command(home, socket, arguments, variables).spawn().expect("the binary is built before its tests")
}

fn command(home: &Path, socket: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xyctl"));
    command
        .args(arguments)
        .env_clear()
        .env("XY_SOCKET", socket)
        .env("HOME", home)
        .env("TZ", "UTC")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts the binary with its home in `home`, to be written to.
pub(crate) fn start_piped(home: &Path, socket: &Path, arguments: &[&str]) -> Child {
    command(home, socket, arguments, &[])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the binary is built before its tests")
}

/// Waits for the end of a run.
pub(crate) fn finish(child: Child) -> Run {
    let pid = pid(&child);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(DEADLINE) else {
        // It is not reaped yet, so the number is still its own.
        _ = kill(pid, Signal::SIGKILL);
        panic!("it did not end in time");
    };
    let output = output.expect("a child can be waited for");
    let stderr = String::from_utf8(output.stderr).expect("messages are text");
    Run { code: output.status.code(), stdout: output.stdout, stderr }
}

/// Sends a signal; SIGINT is what Ctrl-C sends.
pub(crate) fn signal(child: &Child, signal: Signal) {
    kill(pid(child), signal).expect("it runs");
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("a process id fits"))
}

/// Says that a test proves nothing here, where somebody sees it.
pub(crate) fn skipped(why: &str) {
    use std::io::Write as _;
    // Not captured by the test runner.
    _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Runs the binary to its end.
pub(crate) fn run(socket: &Path, arguments: &[&str]) -> Run {
    finish(start(socket, arguments))
}
