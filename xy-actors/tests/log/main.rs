//! The log pipeline on real pipes, files and threads.

mod accounting;
mod disk;
mod drain;
mod flood;
mod follow;
mod handover;
mod output;
mod past;
mod watch;

use std::io::{ErrorKind, PipeWriter, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use xy_actors::log::{Attachment, Drained, LineWatch, Log, LogHub, LogLine, LogSettings};

/// The one limit for everything that is awaited; reaching it means failure.
const DEADLINE: Duration = Duration::from_secs(60);

/// Settings with a buffer that holds whatever a test writes.
fn ample() -> LogSettings {
    LogSettings { buffer: 256 << 20, ..LogSettings::default() }
}

/// Opens a log in memory.
fn in_memory(settings: LogSettings) -> Log {
    LogHub::new(None).open("web", settings).unwrap()
}

/// Attaches new pipes and returns their write ends.
fn attach(log: &Log, incarnation: u64) -> (Attachment, PipeWriter, PipeWriter) {
    let (stdout, out) = std::io::pipe().unwrap();
    let (stderr, err) = std::io::pipe().unwrap();
    (log.attach(incarnation, stdout.into(), stderr.into()).unwrap(), out, err)
}

/// Attaches new pipes with a watch and returns their write ends.
fn attach_watched(log: &Log, incarnation: u64, watch: LineWatch) -> (Attachment, PipeWriter, PipeWriter) {
    let (stdout, out) = std::io::pipe().unwrap();
    let (stderr, err) = std::io::pipe().unwrap();
    (log.attach_watched(incarnation, stdout.into(), stderr.into(), watch).unwrap(), out, err)
}

/// Makes the log thread stand still within a line that it has read, as it does in a write to a disk that hangs, until the
/// sender is dropped; the receiver hears when it does.
fn stall() -> (LineWatch, oneshot::Receiver<()>, mpsc::Sender<()>) {
    let (stalled, is_stalled) = oneshot::channel();
    let (goes_on, go_on) = mpsc::channel::<()>();
    let mut stalled = Some(stalled);
    let watch = LineWatch::new(move |_| {
        if let Some(stalled) = stalled.take() {
            let _ = stalled.send(());
        }
        let _ = go_on.recv();
        ControlFlow::Break(())
    });
    (watch, is_stalled, goes_on)
}

/// Writes the numbers of a range as lines, from another thread.
fn write_numbers(mut pipe: PipeWriter, numbers: std::ops::Range<u64>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut chunk = Vec::new();
        for number in numbers {
            writeln!(chunk, "{number}").unwrap();
            if chunk.len() > 60_000 {
                pipe.write_all(&chunk).unwrap();
                chunk.clear();
            }
        }
        pipe.write_all(&chunk).unwrap();
    })
}

/// Awaits a future, or fails.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it took too long")
}

/// Reads pipes whose writers are gone to their end, however long that takes here.
async fn read_to_end(attachment: Attachment) {
    assert_eq!(soon(attachment.drain(DEADLINE)).await, Drained::default());
}

/// Asks again and again until the answer is yes, or fails.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let waiting = async {
        while !condition() {
            ticks.tick().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "still waiting until {what}");
}

/// Reads all records of a log's files, oldest first; each line must be a record.
fn read_files(root: &Path, name: &str) -> Vec<LogLine> {
    let path = |index| match index {
        0 => root.join(format!("{name}.log")),
        _ => root.join(format!("{name}.log.{index}")),
    };
    let read = |index| match std::fs::read(path(index)) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        read => Some(read.unwrap()),
    };
    let files: Vec<Vec<u8>> = (0..).map_while(read).collect();
    let mut lines = Vec::new();
    for file in files.iter().rev() {
        let records = file.strip_suffix(b"\n").expect("a file ends with a newline");
        for record in records.split(|byte| *byte == b'\n') {
            let number = lines.len() as u64;
            let line = LogLine::parse(record, number);
            lines.push(line.unwrap_or_else(|| panic!("torn: {}", String::from_utf8_lossy(record))));
        }
    }
    lines
}

fn text(line: &LogLine) -> &str {
    std::str::from_utf8(&line.bytes).unwrap()
}

fn number(line: &LogLine) -> u64 {
    text(line).parse().unwrap()
}
