//! The other subjects: `cat`, and the loggers of other supervisors with rotation at 10 MB and with their time stamps.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike as _;
use nix::unistd::Pid;

use crate::{Taken, Writes, peers, writer};

/// The names of the peers that were unpacked.
pub(crate) fn available() -> impl Iterator<Item = &'static str> {
    [
        ("s6-log", "s6-log"),
        ("s6-log T", "s6-log"),
        ("multilog t", "multilog"),
        ("svlogd -tt", "svlogd"),
        ("supervisord", "supervisord"),
    ]
    .into_iter()
    .filter(|(_, program)| peers().join("usr/bin").join(program).exists())
    .map(|(name, _)| name)
}

/// Captures one writer's output.
pub(crate) fn run(peer: &str, directory: &Path, writes: Writes) -> Taken {
    match peer {
        "supervisord" => supervised(directory, writes),
        _ => piped(peer, directory, writes),
    }
}

/// Runs a peer that reads standard input until its end.
fn piped(peer: &str, directory: &Path, writes: Writes) -> Taken {
    let libraries = peers().join("usr/lib/x86_64-linux-gnu");
    let (program, arguments): (_, &[&str]) = match peer {
        "cat" => ("/usr/bin/cat".into(), &[]),
        "s6-log" => (peers().join("usr/bin/s6-log"), &["n5", "s10485760", "."]),
        "s6-log T" => (peers().join("usr/bin/s6-log"), &["n5", "s10485760", "T", "."]),
        "multilog t" => (peers().join("usr/bin/multilog"), &["t", "n5", "s10485760", "."]),
        "svlogd -tt" => {
            std::fs::write(directory.join("config"), "s10485760\nn5\n").expect("written");
            (peers().join("usr/bin/svlogd"), &["-tt", "."])
        }
        other => panic!("{other} is not known"),
    };
    let (input, out) = std::io::pipe().expect("a pipe");
    let mut logger = Command::new(program);
    logger.args(arguments).current_dir(directory).env("LD_LIBRARY_PATH", libraries).stdin(input);
    match peer {
        "cat" => logger.stdout(std::fs::File::create(directory.join("writer.log")).expect("a file")),
        _ => logger.stdout(Stdio::null()),
    };
    // Their remarks about each rotation are none of ours.
    let mut logger = logger.stderr(Stdio::null()).spawn().expect("it runs");
    let start = Instant::now();
    let mut child = writer(writes).stdout(out).stderr(Stdio::inherit()).spawn().expect("it runs");
    assert!(child.wait().expect("it is our child").success(), "the writer failed");
    let of_writer = children();
    assert!(logger.wait().expect("it is our child").success(), "{peer} failed");
    Taken { wall: start.elapsed(), cpu: children() - of_writer }
}

/// Runs the peer that starts the writer itself, until the writer has written everything.
fn supervised(directory: &Path, writes: Writes) -> Taken {
    let command = writer(writes);
    let command: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
    let command = command.join(" ".as_ref());
    let configuration = format!(
        "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={0}/pid\n\
         [program:writer]\ncommand=/bin/sh -c \"{1} && echo > {0}/done; sleep 600\"\nautorestart=false\nstartsecs=0\n\
         stdout_logfile={0}/writer.log\nstdout_logfile_maxbytes=10MB\nstdout_logfile_backups=5\nstopasgroup=true\n",
        directory.display(),
        command.display(),
    );
    std::fs::write(directory.join("supervisord.conf"), configuration).expect("written");
    let start = Instant::now();
    let mut supervisor = Command::new("python3")
        .arg(peers().join("usr/bin/supervisord"))
        .arg("-c")
        .arg(directory.join("supervisord.conf"))
        .env("PYTHONPATH", peers().join("usr/lib/python3/dist-packages"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    // Its start is part of the time, which is the smaller the longer the run is.
    while !directory.join("done").exists() {
        std::thread::park_timeout(Duration::from_millis(5));
        assert!(start.elapsed() < Duration::from_secs(600), "supervisord takes too long");
    }
    let wall = start.elapsed();
    let pid = Pid::from_raw(i32::try_from(supervisor.id()).expect("a process id"));
    let ticks = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is running");
    let fields: Vec<&str> = ticks.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    kill(pid, Signal::SIGTERM).expect("it is our child");
    supervisor.wait().expect("it is our child");
    Taken { wall, cpu: Duration::from_millis(ticks * 10) }
}

fn children() -> Duration {
    let total = |usage: Usage| usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(total(getrusage(UsageWho::RUSAGE_CHILDREN).expect("known")).unsigned_abs())
}
