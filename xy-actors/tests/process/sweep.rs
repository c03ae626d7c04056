//! What a host left behind is ended by the next start, and nothing else is.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use xy_actors::process::{HostError, HostOptions, ProcessHost, SweepReport};

use crate::support::{child, deadline, is_running, pid_in, run, scenario, wait_until};

const MARKER: &str = "00112233445566778899aabbccddeeff";
const OTHER: &str = "ffeeddccbbaa99887766554433221100";

fn start(ledger: &Path) -> (ProcessHost, SweepReport) {
    let options = HostOptions { ledger: Some(ledger.to_owned()), ..HostOptions::default() };
    ProcessHost::start(options).expect("a host starts")
}

#[test]
fn the_next_start_ends_what_a_killed_host_left_before_it_returns() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ledger = dir.path().join("ledger");
    let mut first = scenario("sweep", dir.path());
    let grandchild = pid_in(&dir.path().join("grandchild"));
    let main = pid_in(&dir.path().join("main"));
    let in_use = HostOptions { ledger: Some(ledger.clone()), ..HostOptions::default() };
    assert!(matches!(ProcessHost::start(in_use), Err(HostError::LedgerInUse(path)) if path == ledger));
    first.kill();
    wait_until("the main process died with its host", || !is_running(main));
    assert!(is_running(grandchild), "the grandchild is in a session of its own");

    let (host, report) = start(&ledger);
    assert!(!is_running(grandchild));
    let killed: Vec<_> = report
        .killed
        .iter()
        .map(|process| (process.pid, process.label.as_str(), process.command.as_str()))
        .collect();
    assert_eq!(killed, [(grandchild, "web/one", "xy-testchild")]);
    assert_eq!((report.left.len(), report.stale, report.set_aside), (0, 0, None));
    drop(host);
    assert_eq!(start(&ledger).1, SweepReport::default());
}

/// A process that carries the marker, or not, and is ours to wait for.
struct Canary(Child);

impl Canary {
    fn new(marker: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xy-testchild"));
        command.arg("sleep-forever").env_remove("XY_INSTANCE").stdin(Stdio::null());
        if let Some(marker) = marker {
            command.env("XY_INSTANCE", marker);
        }
        Self(command.spawn().expect("starts"))
    }

    fn start_time(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it is there");
        let fields = stat.rsplit_once(") ").expect("a name").1;
        fields.split(' ').nth(19).expect("22 fields").parse().expect("a number")
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().expect("our child").is_none()
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Linux 6.9 and later.
fn has_process_inodes() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("readable");
    let mut numbers =
        release.split(|letter: char| !letter.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 9)
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("readable").trim().to_owned()
}

fn ledger_text(boot: &str, marker: &str, pid: u32, start_time: u64) -> String {
    format!("xy-ledger 1 {boot}\nintent {marker} web\nborn {marker} {pid} {start_time}\n")
}

#[test]
fn a_process_is_ended_only_if_every_field_of_its_identity_matches() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ledger = dir.path().join("ledger");
    let mut marked = Canary::new(Some(MARKER));
    let mut stranger = Canary::new(None);
    // The environment of a process is its own only after it has become its program.
    wait_until("it carries its marker", || crate::support::carriers(MARKER) == [marked.0.id()]);
    let (pid, start_time) = (marked.0.id(), marked.start_time());
    let forged = [
        ("start time", ledger_text(&boot_id(), MARKER, pid, start_time + 1)),
        ("boot", ledger_text("another-boot", MARKER, pid, start_time)),
        ("marker", ledger_text(&boot_id(), OTHER, pid, start_time)),
        ("pid", ledger_text(&boot_id(), OTHER, stranger.0.id(), stranger.start_time())),
        ("pid of init", ledger_text(&boot_id(), OTHER, 1, 0)),
        ("pid of nobody", ledger_text(&boot_id(), OTHER, 0, 0)),
        ("a directory of control groups", {
            let text = ledger_text(&boot_id(), OTHER, pid, start_time);
            text.replacen('\n', "\ncgroup /sys/fs/cgroup\n", 1)
        }),
    ];
    for (field, text) in forged {
        fs::write(&ledger, text).expect("written");
        let (_, report) = start(&ledger);
        assert_eq!((report.killed.len(), report.left.len()), (0, 0), "forged {field}");
        assert!(marked.is_alive() && stranger.is_alive(), "forged {field}");
    }
    // Only where the kernel gives each process an inode of its own, which none has in common with the number 1.
    if has_process_inodes() {
        let text = ledger_text(&boot_id(), MARKER, pid, start_time).trim_end().to_owned() + " 1\n";
        fs::write(&ledger, text).expect("written");
        assert_eq!(start(&ledger).1.killed.len(), 0, "forged inode");
        assert!(marked.is_alive());
    }
    fs::write(&ledger, ledger_text(&boot_id(), MARKER, pid, start_time)).expect("written");
    let (_, report) = start(&ledger);
    assert_eq!((report.killed.len(), report.killed[0].pid), (1, pid));
    assert!(!marked.is_alive() && stranger.is_alive());
}

#[test]
fn a_finished_process_is_not_looked_for() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ledger = dir.path().join("ledger");
    let mut canary = Canary::new(Some(MARKER));
    wait_until("it carries its marker", || !crate::support::carriers(MARKER).is_empty());
    let text = ledger_text(&boot_id(), MARKER, canary.0.id(), canary.start_time());
    fs::write(&ledger, format!("{text}gone {MARKER}\n")).expect("written");
    assert_eq!(start(&ledger).1, SweepReport::default());
    assert!(canary.is_alive());
}

#[test]
fn entries_without_a_process_are_counted_and_forgotten() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ledger = dir.path().join("ledger");
    let mut text = format!("xy-ledger 1 {}\n", boot_id());
    for number in 0..500 {
        text.push_str(&format!("intent {number:032x} web\nborn {number:032x} {} 7\n", std::process::id()));
    }
    fs::write(&ledger, text).expect("written");
    let (host, report) = start(&ledger);
    assert_eq!((report.stale, report.killed.len(), report.left.len()), (500, 0, 0));
    drop(host);
    assert_eq!(start(&ledger).1, SweepReport::default());
}

#[tokio::test]
async fn a_ledger_cut_at_any_byte_still_starts() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ledger = dir.path().join("ledger");
    let (host, _) = start(&ledger);
    run(&host, &child("exit 0")).await;
    let process = host.spawn("a b/c", &child("sleep-forever")).await.expect("starts");
    let whole = fs::read(&ledger).expect("readable");
    assert_eq!(process.kill_tree(deadline()).await.left, []);
    process.reap().expect("killed");
    drop((process, host));
    for length in 0..=whole.len() {
        fs::write(&ledger, &whole[..length]).expect("written");
        let (_, report) = start(&ledger);
        assert_eq!(
            (report.killed.len(), report.left.len(), report.set_aside),
            (0, 0, None),
            "cut at {length}"
        );
    }
}

#[test]
fn a_ledger_that_is_none_is_set_aside_and_reported() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| dir.path().join(name);
    fs::write(path("target"), "precious\n").expect("written");
    std::os::unix::fs::symlink(path("target"), path("link")).expect("linked");
    fs::create_dir(path("directory")).expect("created");
    fs::write(path("garbage"), b"\xff\xfe\n\x00\n").expect("written");
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("created");
    for name in ["link", "directory", "garbage", "fifo"] {
        let (_, report) = start(&path(name));
        let aside = path(&format!("{name}.bad"));
        assert_eq!(report.set_aside.as_ref(), Some(&aside), "{name}");
        assert!(aside.symlink_metadata().is_ok() && path(name).metadata().expect("new").is_file(), "{name}");
    }
    assert_eq!(fs::read_to_string(path("target")).expect("readable"), "precious\n");
}

#[tokio::test]
async fn the_ledger_tells_nothing_to_others_and_stays_out_of_children() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().expect("temporary directory");
    let ledger = dir.path().join("ledger");
    let (host, _) = start(&ledger);
    assert_eq!(fs::metadata(&ledger).expect("exists").mode() & 0o777, 0o600);
    let (output, _) = run(&host, &child("print-fds")).await;
    assert_eq!(output, "fds 0 1 2\n");
}
