//! The subject itself: a hub whose log thread reads the writer's pipe.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use xy_actors::log::{LogHub, LogSettings};

use crate::{LINE, Taken, Writes, writer};

/// Captures one writer's output and checks that no line is missing.
pub(crate) fn run(directory: &Path, writes: Writes) -> Taken {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime without I/O");
    let hub = LogHub::new(Some(directory.to_owned()));
    let log = hub.open("writer", LogSettings::default()).expect("a plain name");
    let (stdout, out) = std::io::pipe().expect("a pipe");
    let (stderr, err) = std::io::pipe().expect("a pipe");
    let attachment = log.attach(1, stdout.into(), stderr.into()).expect("the log is open");
    let start = Instant::now();
    let mut child =
        writer(writes).stdout(Stdio::from(out)).stderr(Stdio::from(err)).spawn().expect("it runs");
    // As in real life the drain comes after the writer's end.
    assert!(child.wait().expect("it is our child").success(), "the writer failed");
    runtime.block_on(async {
        attachment.drain(Duration::from_secs(600)).await;
        hub.flush().await;
    });
    let wall = start.elapsed();
    let health = log.health();
    assert_eq!(health.lines, writes.total.div_ceil(LINE as u64), "lines are missing");
    assert_eq!(health.dropped_lines, 0, "the file lacks lines");
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("our own usage");
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Taken { wall, cpu: Duration::from_micros(microseconds.unsigned_abs()) }
}
