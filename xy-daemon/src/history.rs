//! The past of each server that outlives the daemon: how it ended, and what was asked of it.
//!
//! One file of JSON lines under the state directory, appended to as things happen and written anew when most of it is out
//! of date. What cannot be written is still known to this daemon; what cannot be read is as if it had never been. A line is
//! not flushed to the disk by itself, which would cost each crash of a server more than its restart: a loss of power costs
//! the lines of the last seconds and never the file. It is written a moment after the event, or as soon as somebody asks.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use xy_actors::event::stream::{Event, EventItem, EventKind, EventStream};
use xy_actors::event::{ChildReport, Next};
use xy_actors::exit::ExitReport;

use crate::durable;
use crate::journal::GATHER;

/// How many entries are kept of one server.
const KEPT: usize = 40;

/// How many lines more than are kept the file may have.
const SLACK: usize = 2_000;

/// The longest text of a cause that is kept, in characters.
const LONGEST: usize = 1_000;

/// Something that happened to a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// It ended, or failed to start.
    Exit(ExitEntry),
    /// An operator asked for something.
    Asked {
        /// When, in milliseconds since the Unix epoch.
        at_unix_ms: u64,
        /// What.
        operation: String,
        /// Why, if that was said.
        reason: Option<String>,
    },
}

/// One end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ExitEntry {
    /// When, in milliseconds since the Unix epoch.
    pub(crate) at_unix_ms: u64,
    /// When it had started, if this daemon saw it.
    pub(crate) started_at_unix_ms: Option<u64>,
    /// Which incarnation.
    pub(crate) incarnation: u64,
    /// The name of the event.
    pub(crate) event: String,
    /// How and why.
    pub(crate) report: ExitReport,
    /// What followed, unless it had been asked to end.
    pub(crate) next: Option<Next>,
}

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    name: String,
    #[serde(flatten)]
    entry: Entry,
}

/// The past of all servers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct History(Arc<Mutex<Past>>);

#[derive(Debug)]
struct Past {
    /// Where it is kept; `None` keeps it only as long as this daemon runs.
    path: Option<PathBuf>,
    /// What is told and not yet noted.
    events: Option<EventStream>,
    entries: BTreeMap<String, VecDeque<Entry>>,
    /// When the current incarnation of a server was started.
    started: BTreeMap<String, u64>,
    file: Option<File>,
    lines: usize,
    /// Whether the file still has what was forgotten.
    is_stale: bool,
    is_failing: bool,
    /// The file may end within a line.
    is_torn: bool,
}

impl History {
    /// Reads the past from a file; there may be none. Without a path, nothing outlives this daemon.
    ///
    /// Blocking.
    pub(crate) fn open(path: Option<&Path>) -> Self {
        let mut past = Past {
            path: path.map(Path::to_owned),
            events: None,
            entries: BTreeMap::new(),
            started: BTreeMap::new(),
            file: None,
            lines: 0,
            is_stale: false,
            is_failing: false,
            is_torn: false,
        };
        match path.map(fs::read) {
            Some(Ok(text)) => past.read(&text),
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(?path, %error, "the past of the servers cannot be read");
            }
            _ => {}
        }
        Self(Arc::new(Mutex::new(past)))
    }

    /// Returns the past up to now.
    fn past(&self) -> MutexGuard<'_, Past> {
        // Each critical section leaves the maps valid at every step.
        let mut past = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        past.catch_up();
        past
    }

    /// Returns what is known of a server, oldest first.
    pub(crate) fn of(&self, name: &str) -> Vec<Entry> {
        self.past().entries.get(name).into_iter().flatten().cloned().collect()
    }

    /// Returns when the present incarnation of a server was started, if there is one.
    pub(crate) fn started(&self, name: &str) -> Option<u64> {
        self.past().started.get(name).copied()
    }

    /// Notes that something was asked of a server.
    pub(crate) fn asked(&self, name: &str, operation: &str, reason: Option<&str>, at_unix_ms: u64) {
        let (operation, reason) = (operation.to_owned(), reason.map(shortened));
        self.past().add(name, Entry::Asked { at_unix_ms, operation, reason });
    }

    /// Forgets a server that was removed by hand.
    pub(crate) fn forget(&self, name: &str) {
        let mut past = self.past();
        past.entries.remove(name);
        past.write_anew();
    }

    /// Notes what these events tell, when somebody asks or [`follow`](Self::follow) gets to it.
    pub(crate) fn listen(&self, events: EventStream) {
        self.past().events = Some(events);
    }

    /// Notes what was told until now.
    pub(crate) fn catch_up(&self) {
        drop(self.past());
    }

    /// Notes, a moment after each, what the events of a tree tell, until the tree has ended; `waiting` hears of those to which
    /// it listens.
    ///
    /// # Cancel safety
    /// What was told before is noted when somebody asks.
    pub(crate) async fn follow(self, mut waiting: EventStream) {
        while waiting.next().await.is_some() {
            tokio::time::sleep(GATHER).await;
            while waiting.try_next().is_ok() {}
            self.catch_up();
        }
    }
}

/// Reads a file, and again what would be kept of it.
#[cfg(feature = "testkit")]
pub(crate) fn read_twice(bytes: &[u8]) {
    let read = |bytes: &[u8]| {
        let History(past) = History::open(None);
        let mut past = past.lock().unwrap_or_else(PoisonError::into_inner);
        past.read(bytes);
        std::mem::take(&mut past.entries)
    };
    let once = read(bytes);
    assert!(once.values().all(|entries| entries.len() <= KEPT), "more is kept than {KEPT}");
    let mut text = Vec::new();
    for (name, entries) in &once {
        for entry in entries {
            let line = Line { name: name.clone(), entry: entry.clone() };
            serde_json::to_writer(&mut text, &line).expect("what was JSON is JSON");
            text.push(b'\n');
        }
    }
    assert_eq!(read(&text), once);
}

impl Past {
    fn catch_up(&mut self) {
        while let Some(Ok(item)) = self.events.as_mut().map(EventStream::try_next) {
            if let EventItem::Event(event) = item {
                self.note(&event);
            }
        }
        // Once for all that were removed together.
        if std::mem::take(&mut self.is_stale) {
            self.write_anew();
        }
    }

    fn read(&mut self, text: &[u8]) {
        self.is_torn = text.last().is_some_and(|last| *last != b'\n');
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.lines += 1;
            // A line that was cut off by a crash, or is of another version, is left out.
            if let Ok(Line { name, entry }) = serde_json::from_slice(line) {
                self.keep(name, entry);
            }
        }
    }

    fn keep(&mut self, name: String, entry: Entry) {
        let entries = self.entries.entry(name).or_default();
        if entries.len() == KEPT {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    fn note(&mut self, event: &Event) {
        let EventKind::Child { incarnation, report, exit, .. } = &event.kind else { return };
        let name = event.path.to_string();
        let next = match report {
            ChildReport::Starting => {
                self.started.insert(name, event.at_unix_ms);
                return;
            }
            // A server that is not configured any more has no past.
            ChildReport::Removed => {
                self.started.remove(&name);
                self.is_stale |= self.entries.remove(&name).is_some();
                return;
            }
            ChildReport::Exited { next, .. } | ChildReport::StartFailed { next } => Some(*next),
            ChildReport::Stopped { .. } | ChildReport::Leaked => None,
            _ => return,
        };
        let Some(exit) = exit else { return };
        let mut report = ExitReport::clone(exit);
        shorten(&mut report);
        let started_at_unix_ms = self.started.remove(&name);
        let entry = ExitEntry {
            at_unix_ms: event.at_unix_ms,
            started_at_unix_ms,
            incarnation: incarnation.get(),
            event: event.kind.name().to_owned(),
            report,
            next,
        };
        self.add(&name, Entry::Exit(entry));
    }

    fn add(&mut self, name: &str, entry: Entry) {
        let written = self.append(name, &entry);
        self.keep(name.to_owned(), entry);
        let kept: usize = self.entries.values().map(VecDeque::len).sum();
        if self.lines > kept + SLACK {
            self.write_anew();
        }
        self.tell(written);
    }

    fn append(&mut self, name: &str, entry: &Entry) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut line = serde_json::to_vec(&Line { name: name.to_owned(), entry: entry.clone() })?;
        line.push(b'\n');
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            // A link in its place leads to what is not ours to write to.
            options.append(true).create(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
            self.file = Some(options.open(path)?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        self.lines += 1;
        if std::mem::replace(&mut self.is_torn, false) {
            // What is torn costs no other line.
            line.insert(0, b'\n');
        }
        file.write_all(&line)
    }

    /// Writes only what is kept, and then takes the place of the old file.
    fn write_anew(&mut self) {
        let Some(path) = &self.path else { return };
        let mut text = Vec::new();
        let mut lines = 0;
        for (name, entries) in &self.entries {
            for entry in entries {
                if serde_json::to_writer(&mut text, &Line { name: name.clone(), entry: entry.clone() })
                    .is_ok()
                {
                    text.push(b'\n');
                    lines += 1;
                }
            }
        }
        let written = durable::replace(path, &durable::temporary(path), &text);
        if written.is_ok() {
            (self.file, self.lines, self.is_torn) = (None, lines, false);
        }
        self.tell(written);
    }

    /// Says once that writing fails, and once that it works again.
    fn tell(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) => self.is_failing = false,
            Err(error) => {
                (self.file, self.is_torn) = (None, true);
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(path = ?self.path, %error, "the past of the servers cannot be written");
                }
            }
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn shorten(report: &mut ExitReport) {
    use xy_actors::exit::Cause;
    match &mut report.cause {
        Cause::Error { message }
        | Cause::StartFailed { message }
        | Cause::StartTimeout { message }
        | Cause::Probe { message }
        | Cause::LimitReached { message } => *message = shortened(message),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations(history: &History, name: &str) -> Vec<String> {
        let entries = history.of(name).into_iter();
        entries
            .map(|entry| match entry {
                Entry::Asked { operation, .. } => operation,
                Entry::Exit(exit) => exit.event,
            })
            .collect()
    }

    #[test]
    fn the_past_is_found_again_and_bounded_for_each_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        let history = History::open(Some(&path));
        history.asked("other", "start", Some("first"), 1);
        for number in 0..(KEPT + SLACK + 100) {
            history.asked("web", &format!("stop {number}"), None, 1);
        }
        let again = History::open(Some(&path));
        assert_eq!(operations(&again, "web"), operations(&history, "web"));
        assert_eq!(operations(&again, "web").len(), KEPT);
        assert_eq!(operations(&again, "other"), ["start"]);
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= KEPT + 1 + SLACK, "{lines} lines");
    }

    #[test]
    fn a_line_that_was_cut_off_costs_only_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        History::open(Some(&path)).asked("web", "start", None, 1);
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"name\":\"web\",\"ty\nnonsense\n{\"name\":\"web\",\"ty");
        fs::write(&path, text).unwrap();
        let history = History::open(Some(&path));
        history.asked("web", "stop", None, 2);
        assert_eq!(operations(&History::open(Some(&path)), "web"), ["start", "stop"]);
    }

    #[test]
    fn what_cannot_be_written_is_still_known() {
        let history = History::open(Some(Path::new("/nonexistent/history")));
        history.asked("web", "start", None, 1);
        assert_eq!(operations(&history, "web"), ["start"]);
        history.forget("web");
        assert!(operations(&history, "web").is_empty());
    }
}
