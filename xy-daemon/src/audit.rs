//! The audit log: a JSON line for every request that would change something, and for every one that was not simply allowed.
//!
//! One thread writes it, so that a disk that hangs holds up nobody. A file holds 1 MiB, and five of them are kept; what cannot
//! be written is counted, and told when it can be again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use xy_actors::event::stream::unix_ms;
use xy_actors::process::handover::HeldSignals;

use crate::permission::Surface;

/// A file is put aside before it grows beyond this many bytes.
const LARGEST: u64 = 1 << 20;

/// How many files are kept, the current one included.
const FILES: u32 = 5;

/// How many lines wait for the disk.
const QUEUE: usize = 1024;

/// What was decided about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A rule, or none, allowed it.
    Allowed,
    /// A rule refused it.
    Denied,
    /// An operator was asked and approved it.
    Approved,
    /// An operator was asked and refused it.
    Refused,
    /// An operator was asked and did not answer in time.
    TimedOut,
    /// It was granted before.
    Granted,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// When it was asked for, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// What the client calls itself.
    pub client: String,
    /// By which way it came.
    pub surface: Surface,
    /// Which of the client's sessions.
    pub session: String,
    /// The method.
    pub action: String,
    /// The tool of MCP, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The servers it was about, as far as they are known: the names that were given, or those that they mean.
    pub targets: Vec<String>,
    /// Why, if the client said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was decided.
    pub decision: Verdict,
    /// Who answered, or the grant that counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What it came to: `ok`, `failed` (for some of the servers), `abandoned` (the daemon ended first), or an error kind.
    pub outcome: String,
    /// The servers for which it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
    /// How long it took, in milliseconds, with the time in which an operator was asked.
    pub took_ms: u64,
}

/// The audit log of one daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AuditLog {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(String),
    Flush(oneshot::Sender<()>),
}

impl AuditLog {
    /// Opens the log at a path; files before it have a number behind theirs.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (queue, messages) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { path: path.to_owned(), file: None, length: 0, lost: Arc::clone(&lost) };
        // It begins with what its maker holds back: a signal that it took would be lost in an exchange of the program.
        let held = HeldSignals::hold();
        thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&messages))?;
        drop(held);
        Ok(Self { queue, lost })
    }

    /// Writes a line, or counts it as lost if the disk is too far behind.
    pub fn write(&self, line: &AuditLine) {
        // Texts and numbers have a JSON form.
        let text = serde_json::to_string(line).unwrap_or_default();
        if self.queue.try_send(Message::Line(text)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything before is written.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            // The thread ends only with this value.
            _ = written.await;
        }
    }
}

struct Writer {
    path: PathBuf,
    file: Option<File>,
    length: u64,
    lost: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut is_failing = false;
        while let Ok(message) = messages.recv() {
            let text = match message {
                Message::Line(text) => text,
                Message::Flush(done) => {
                    // Nobody may wait any more.
                    _ = done.send(());
                    continue;
                }
            };
            match self.write(&text) {
                Ok(()) => is_failing = false,
                Err(error) => {
                    self.file = None;
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    if !is_failing {
                        tracing::error!(path = %self.path.display(), %error, "the audit log cannot be written");
                    }
                    is_failing = true;
                }
            }
        }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        let mut line = String::new();
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            line = format!("{{\"at_unix_ms\":{},\"lost\":{lost}}}\n", unix_ms());
        }
        line.push_str(text);
        line.push('\n');
        if self.file.is_some() && self.length + line.len() as u64 > LARGEST {
            self.rotate()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o600)
                    .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
                    .open(&self.path)?;
                self.length = file.metadata()?.len();
                self.file.insert(file)
            }
        };
        // One call, so that a line is whole or not there.
        file.write_all(line.as_bytes())?;
        self.length += line.len() as u64;
        self.lost.fetch_sub(lost, Ordering::Relaxed);
        Ok(())
    }

    /// Moves each file to the next number; the last one is overwritten.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let numbered = |number: u32| {
            let mut name = self.path.as_os_str().to_owned();
            if number > 0 {
                name.push(format!(".{number}"));
            }
            PathBuf::from(name)
        };
        for number in (0..FILES - 1).rev() {
            match std::fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn line(reason: &str) -> AuditLine {
        AuditLine {
            at_unix_ms: 5,
            client: "xyctl".to_owned(),
            surface: Surface::Socket,
            session: "socket-1".to_owned(),
            action: "stop".to_owned(),
            tool: None,
            targets: vec!["web".to_owned()],
            reason: Some(reason.to_owned()),
            decision: Verdict::Allowed,
            by: None,
            outcome: "ok".to_owned(),
            failed: Vec::new(),
            took_ms: 3,
        }
    }

    fn lines(path: &Path) -> Vec<AuditLine> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn lines_are_whole_private_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let log = AuditLog::open(&path).unwrap();
        log.write(&line("one\ntwo"));
        log.write(&line("three"));
        log.flush().await;
        assert_eq!(lines(&path), [line("one\ntwo"), line("three")]);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn the_files_are_bounded_in_size_and_number() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let log = AuditLog::open(&path).unwrap();
        // Eight files, of which five are kept.
        let long = "x".repeat(64 << 10);
        for _ in 0..16 * 8 {
            log.write(&line(&long));
            log.flush().await;
        }
        let mut sizes = Vec::new();
        for entry in directory.path().read_dir().unwrap() {
            sizes.push(entry.unwrap().metadata().unwrap().len());
        }
        assert_eq!(sizes.len(), FILES as usize);
        assert!(sizes.iter().all(|size| *size <= LARGEST), "{sizes:?}");
        assert!(!lines(&path).is_empty());
    }

    #[tokio::test]
    async fn what_was_lost_is_told_when_writing_works_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing/audit.log");
        let log = AuditLog::open(&path).unwrap();
        log.write(&line("lost"));
        log.write(&line("lost"));
        log.flush().await;
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        log.write(&line("kept"));
        log.flush().await;
        let text = std::fs::read_to_string(&path).unwrap();
        let (first, second) = text.trim_end().split_once('\n').unwrap();
        assert!(first.contains("\"lost\":2"), "{text}");
        assert_eq!(serde_json::from_str::<AuditLine>(second).unwrap(), line("kept"));
    }
}
