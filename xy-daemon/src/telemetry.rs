//! What the daemon says about itself: `tracing` events as lines on stderr, and bounded where that is a file of ours.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};
use xy_actors::event::stream::unix_ms;

use crate::protocol::method::RecentError;

/// How large the daemon's own log may become before it is put aside; one older file is kept.
pub const LARGEST_LOG: u64 = 1 << 20;

/// Sends `tracing` events to stderr: what `XY_LOG` says in the syntax of `tracing_subscriber`, else what `default` says.
///
/// Does nothing if the program has a subscriber already.
pub fn to_stderr(default: &str) {
    subscribe(default, io::stderr);
}

/// Like [`to_stderr`]; if stderr is the file `log`, that is kept below [`LARGEST_LOG`] by copying it to `LOG.1` and emptying it.
///
/// It is emptied and not replaced, because the guard writes to the same file.
pub fn to_log(log: &Path, default: &str) {
    match BoundedLog::of_stderr(log, LARGEST_LOG) {
        Some(log) => subscribe(default, log),
        None => to_stderr(default),
    }
}

fn subscribe(default: &str, writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static) {
    // The spans that ractor opens around each actor say nothing here, and each would be kept as long as its actor.
    let usual = || EnvFilter::new(format!("{default},ractor=warn"));
    let filter = EnvFilter::try_from_env("XY_LOG").unwrap_or_else(|_| usual());
    let ansi = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(ansi)
        .with_target(false)
        .finish()
        .with(Recent);
    let _already_set = subscriber.try_init();
}

/// How many of the latest warnings and errors are held.
const MOST_RECENT: usize = 32;

/// The longest text of one of them that is held, in characters.
const LONGEST_RECENT: usize = 500;

/// The latest warnings and errors of this process, which has one log.
static RECENT: Mutex<VecDeque<RecentError>> = Mutex::new(VecDeque::new());

/// Returns the latest warnings and errors, oldest first. Nothing that is secret is ever logged.
pub fn recent_errors() -> Vec<RecentError> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// Holds the latest warnings and errors.
struct Recent;

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let message: String = (text.message + &text.fields).chars().take(LONGEST_RECENT).collect();
        let level = level.as_str().to_ascii_lowercase();
        let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == MOST_RECENT {
            recent.pop_front();
        }
        recent.push_back(RecentError { at_unix_ms: unix_ms(), level, message });
    }
}

/// The text of an event and its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a text cannot fail.
        let _written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// A log file that others append to as well.
#[derive(Debug, Clone)]
struct BoundedLog {
    file: Arc<File>,
    path: PathBuf,
    limit: u64,
}

impl BoundedLog {
    /// Returns stderr if it is the file at `path`: whatever else somebody sends it to is not ours to empty.
    fn of_stderr(path: &Path, limit: u64) -> Option<Self> {
        let file = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?);
        Self::of(file, path, limit)
    }

    fn of(file: File, path: &Path, limit: u64) -> Option<Self> {
        let (ours, named) = (file.metadata().ok()?, fs::symlink_metadata(path).ok()?);
        let is_same = ours.is_file() && (ours.dev(), ours.ino()) == (named.dev(), named.ino());
        is_same.then(|| Self { file: Arc::new(file), path: path.to_owned(), limit })
    }

    /// Puts aside what is in the file if it has grown too large.
    fn bound(&self) -> io::Result<()> {
        if self.file.metadata()?.len() <= self.limit {
            return Ok(());
        }
        // Without room for a copy the old lines are lost, which is better than a disk that fills up.
        let copied = fs::copy(&self.path, self.path.with_added_extension("1"));
        self.file.set_len(0)?;
        copied.map(drop)
    }
}

impl Write for BoundedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = (&*self.file).write(bytes)?;
        // There is nobody to be told that it could not be bounded.
        let _unbounded = self.bound();
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for BoundedLog {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(path: &Path) -> File {
        File::options().create(true).append(true).open(path).expect("opened")
    }

    #[test]
    fn a_log_that_grows_is_bounded_and_loses_no_recent_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("xyd.log");
        let mut log = BoundedLog::of(append(&path), &path, 1000).expect("the same file");
        let mut guard = append(&path);
        for number in 0..500 {
            writeln!(log, "line {number}").expect("written");
            writeln!(guard, "guard {number}").expect("written");
            assert!(fs::metadata(&path).expect("there").len() <= 1020);
        }
        let text = fs::read_to_string(directory.path().join("xyd.log.1")).expect("put aside")
            + &fs::read_to_string(&path).expect("there");
        assert!(text.len() < 2100, "{}", text.len());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[lines.len() - 2..], ["line 499", "guard 499"]);
        for pair in lines.iter().filter_map(|line| line.strip_prefix("line ")).collect::<Vec<_>>().windows(2)
        {
            let number = |text: &str| text.parse::<u32>().expect("a number");
            assert_eq!(number(pair[0]) + 1, number(pair[1]));
        }
    }

    #[test]
    fn a_file_of_another_name_is_not_touched() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, other) = (directory.path().join("xyd.log"), directory.path().join("mine"));
        append(&path);
        assert!(BoundedLog::of(append(&other), &path, 1).is_none());
        assert!(BoundedLog::of(append(&other), &directory.path().join("absent"), 1).is_none());
    }
}
