//! Log capture: xy beside `cat`, which only copies, and beside the loggers of other supervisors.
//!
//! `cargo run --release -p benches --bin logs` measures every subject in turn, five rounds, and prints medians, spread and
//! the ratio to `cat`. Each writer is a process of its own that writes lines of 100 bytes into a pipe; what is captured
//! goes to a memory file system under rotation. `logs run SUBJECT WRITES` does one run, `logs write SIZE TOTAL` is the
//! writer. Peers are found where `benches/peers/setup` unpacks them; those that are missing are left out.

mod peer;
mod xy;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often each subject is measured.
const ROUNDS: usize = 5;

/// The length of a line, its newline included.
pub(crate) const LINE: usize = 100;

/// How many bytes are written at once, how many in all, and under which name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writes {
    name: &'static str,
    size: usize,
    total: u64,
}

/// Large writes are cut anywhere within a line; each small one is a line.
const WRITES: [Writes; 2] = [
    Writes { name: "64k", size: 64 << 10, total: 1 << 30 },
    Writes { name: "100b", size: LINE, total: 300 << 20 },
];

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) wall: Duration,
    /// Of the capturing side alone.
    pub(crate) cpu: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["write", size, total] => {
            write(size.parse().expect("a number of bytes"), total.parse().expect("a number of bytes"));
        }
        ["run", subject, writes] => {
            let writes = WRITES.into_iter().find(|known| known.name == writes).expect("64k or 100b");
            let taken = run(subject, writes);
            let megabytes = writes.total as f64 / 1e6;
            println!(
                "{:.1} {:.2}",
                megabytes / taken.wall.as_secs_f64(),
                taken.cpu.as_secs_f64() / megabytes * 1e3
            );
        }
        _ => compare(),
    }
}

/// Runs one subject with its files in a directory of a memory file system that is gone afterwards.
fn run(subject: &str, writes: Writes) -> Taken {
    let directory = tempfile::Builder::new().prefix("xy-logs.").tempdir_in("/dev/shm");
    let directory = directory.expect("a directory on the memory file system");
    match subject {
        "xy" => xy::run(directory.path(), writes),
        peer => peer::run(peer, directory.path(), writes),
    }
}

/// Makes the writer of a run, whose output is not set.
pub(crate) fn writer(writes: Writes) -> Command {
    let mut writer = Command::new(std::env::current_exe().expect("this program has a path"));
    writer.args(["write", &writes.size.to_string(), &writes.total.to_string()]).stdin(Stdio::null());
    writer
}

/// Writes lines to standard output, `size` bytes at once.
fn write(size: usize, total: u64) {
    // A whole number of lines and of writes.
    let lines = b"0123456789".repeat(LINE / 10).repeat(64 << 10);
    let mut lines: Vec<u8> = lines;
    lines.iter_mut().skip(LINE - 1).step_by(LINE).for_each(|end| *end = b'\n');
    let mut output = io::stdout().lock().into_inner_file();
    let mut left = usize::try_from(total).expect("it fits into memory sizes");
    while left > 0 {
        for chunk in lines.chunks(size) {
            let chunk = &chunk[..chunk.len().min(left)];
            output.write_all(chunk).expect("somebody reads");
            left -= chunk.len();
        }
    }
}

/// Standard output without a buffer of its own.
trait Unbuffered {
    fn into_inner_file(self) -> std::fs::File;
}

impl Unbuffered for io::StdoutLock<'_> {
    fn into_inner_file(self) -> std::fs::File {
        use std::os::fd::AsFd as _;
        self.as_fd().try_clone_to_owned().expect("standard output is open").into()
    }
}

fn compare() {
    let subjects: Vec<&str> = ["cat", "xy"].into_iter().chain(peer::available()).collect();
    for writes in WRITES {
        let mut results: Vec<Vec<(f64, f64)>> = vec![Vec::new(); subjects.len()];
        for _ in 0..ROUNDS {
            for (subject, results) in subjects.iter().zip(&mut results) {
                results.push(measured(subject, writes));
            }
        }
        println!("\nwrites of {}: MB/s (spread), ratio to cat, CPU s per GB", writes.name);
        let medians: Vec<f64> =
            results.iter().map(|results| median(results.iter().map(|result| result.0))).collect();
        for ((subject, results), speed) in subjects.iter().zip(&results).zip(&medians) {
            let low = results.iter().map(|result| result.0).fold(f64::INFINITY, f64::min);
            let high = results.iter().map(|result| result.0).fold(0.0, f64::max);
            let cpu = median(results.iter().map(|result| result.1));
            let ratio = speed / medians[0];
            println!("{subject:>12}  {speed:6.0} ({low:.0}..{high:.0})  {ratio:5.2}  {cpu:5.2}");
        }
    }
}

/// Does one run in a process of its own, so that its processor time is only its own.
fn measured(subject: &str, writes: Writes) -> (f64, f64) {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program).args(["run", subject, writes.name]).stderr(Stdio::inherit()).output();
    let output = output.expect("this program runs");
    assert!(output.status.success(), "{subject} failed");
    let text = String::from_utf8(output.stdout).expect("numbers");
    let mut numbers = text.split_whitespace().map(|number| number.parse().expect("a number"));
    (numbers.next().expect("a speed"), numbers.next().expect("a time"))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Where the peers lie.
pub(crate) fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers")
}
