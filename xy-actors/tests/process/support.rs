//! What the tests here share: the scripted program, a host, and waiting with a deadline.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use xy_actors::process::{HostOptions, OsProcess, ProcessExit, ProcessHost, ProcessOutput, ProcessSpec};

/// Nothing here takes longer, on a busy machine, unless it is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Names the scenario that [`host_process`](crate::host_process::host_process) runs.
pub(crate) const SCENARIO: &str = "XY_TEST_SCENARIO";
/// A directory for what scenario and test tell each other.
pub(crate) const SCENARIO_DIR: &str = "XY_TEST_DIR";

/// The scripted program with this script, words separated by blanks.
pub(crate) fn child(script: &str) -> ProcessSpec {
    let mut spec = ProcessSpec::new(env!("CARGO_BIN_EXE_xy-testchild"));
    spec.args = script.split_whitespace().map(str::to_owned).collect();
    spec
}

/// A host that leaves the test program as it is.
pub(crate) fn host() -> ProcessHost {
    ProcessHost::start(HostOptions::default()).expect("a host starts").0
}

pub(crate) fn deadline() -> tokio::time::Instant {
    tokio::time::Instant::now() + DEADLINE
}

/// Reads descriptor 1 until everybody has closed it.
pub(crate) async fn output_of(process: &mut OsProcess) -> String {
    let ProcessOutput { stdout, .. } = process.take_output().expect("taken once");
    tokio::task::spawn_blocking(move || {
        let flags = nix::fcntl::OFlag::empty();
        nix::fcntl::fcntl(&stdout, nix::fcntl::FcntlArg::F_SETFL(flags)).expect("blocking again");
        let mut text = String::new();
        fs::File::from(stdout).read_to_string(&mut text).expect("readable");
        text
    })
    .await
    .expect("no panic")
}

/// Runs a script to its end and returns what it wrote and how it ended.
pub(crate) async fn run(host: &ProcessHost, spec: &ProcessSpec) -> (String, ProcessExit) {
    let mut process = host.spawn("test", spec).await.expect("starts");
    let output = output_of(&mut process).await;
    let exit = process.exited().await;
    process.tree_gone(deadline()).await.expect("nothing is left");
    (output, process.reap().expect("ended").also(|reaped| assert_eq!(*reaped, exit)))
}

/// Looks at a value in passing.
trait Also: Sized {
    fn also(self, look: impl FnOnce(&Self)) -> Self {
        look(&self);
        self
    }
}

impl Also for ProcessExit {}

/// Polls a condition until it holds.
#[expect(clippy::disallowed_methods, reason = "polls other processes, which cannot wake us")]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Polls a condition until it holds, letting the runtime go on.
pub(crate) async fn wait_until_async(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The pid that a script's `touch` wrote.
pub(crate) fn pid_in(path: &Path) -> u32 {
    wait_until(&format!("{} exists", path.display()), || path.exists());
    fs::read_to_string(path).expect("readable").trim().parse().expect("a pid")
}

/// One letter for what the process does, as in `/proc/PID/stat`; `None` if it is not there.
pub(crate) fn state_of(pid: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}

pub(crate) fn is_running(pid: u32) -> bool {
    state_of(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// The running processes that carry this marker.
pub(crate) fn carriers(marker: &str) -> Vec<u32> {
    let entry = format!("XY_INSTANCE={marker}");
    let pids = fs::read_dir("/proc").expect("proc").flatten();
    pids.filter_map(|pid| pid.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|found| found == entry.as_bytes()) && is_running(*pid)
        })
        .collect()
}

/// Starts this test program again as a process of its own that runs one scenario. Scenarios change what is process-wide, or
/// are killed.
pub(crate) fn scenario(name: &str, dir: &Path) -> Scenario {
    scenario_after(r#"exec "$0" "$@""#, name, dir)
}

/// The same, started by a shell in which this script becomes the program `$0` with the arguments `$@`.
pub(crate) fn scenario_after(script: &str, name: &str, dir: &Path) -> Scenario {
    let child = Command::new("/bin/sh")
        .args(["-c", script])
        .arg(std::env::current_exe().expect("we have a path"))
        .args(["host_process::host_process", "--exact", "--nocapture", "--test-threads=1"])
        .env(SCENARIO, name)
        .env(SCENARIO_DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    Scenario(child)
}

/// A scenario under way; killed when dropped.
pub(crate) struct Scenario(pub(crate) Child);

impl Scenario {
    /// Waits for its end, which must be a success.
    pub(crate) fn succeed(mut self) {
        let status = self.0.wait().expect("our child");
        assert!(status.success(), "the scenario failed: {status}");
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("signaled");
        self.0.wait().expect("our child");
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
