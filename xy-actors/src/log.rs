//! The log pipeline: bytes from a child's pipes become bounded lines in a file, a ring buffer and subscriptions.
//!
//! One thread, `xy-log`, reads all pipes of a [`LogHub`]. It cuts what it reads into lines of at most [`MAX_LINE`] bytes,
//! keeps the newest in memory under absolute numbers, and writes all of them to a file that is rotated by size and age. Readers
//! are cursors into that memory, so that none of them can slow a child down:
//!
//! ```text
//! pipe ─► LineCutter ─► ring buffer ─► LogFollower, tail
//!                   └─► LogFile ─► NAME.log, NAME.log.1, ..
//! ```
//!
//! - Bytes pass unchanged; a line that was cut, and a last one without a newline, is flagged [`LogLine::partial`].
//! - A follower gets every line once or in a [`LogItem::Gap`], never both and never neither.
//! - A disk that fails costs lines of the file, counted and named there when it works again; memory and followers still
//!   get them. A disk that hangs slows the children of its hub, whose pipes then fill, and nobody else.
//! - A file that can be written and not be rotated costs nothing: it grows beyond its limits until that works again, and a
//!   line of the log, and [`LogHealth::unrotated`], say why.
//! - Starts and exits of incarnations are lines of their own stream, see [`Marker`]. An exit is marked when the output
//!   before it is complete; if the host dies first, the next start says that lines may be missing.
//! - A line of a file is an RFC 3339 time in UTC, a space, `out`, `err` or `xy` (with a `+` if the line is partial), a
//!   space, the bytes, a newline; [`LogLine::parse`] reads it.
//!
//! A [process](crate::process::process()) feeds the log of its path by itself, and keeps as much as
//! [`ProcessChild::log`](crate::process::ProcessChild::log) says. Open that log by the same path and with the same settings
//! to read it, also while no incarnation runs: `logs.open("group/web", LogSettings::default())?.tail(10)`.
//!
//! What happens in between, with pipes of one's own:
//!
//! ```
//! use std::io::Write as _;
//! use xy_actors::log::{Cursor, DRAIN_GRACE, LogHub, LogItem, LogSettings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = LogHub::new(None);
//! let log = hub.open("group/web", LogSettings::default())?;
//! let (stdout, mut child) = std::io::pipe()?;
//! let (stderr, _) = std::io::pipe()?;
//! let attachment = log.attach(1, stdout.into(), stderr.into())?;
//! child.write_all(b"hello\n")?;
//!
//! let mut follower = log.follow(Cursor::At(0));
//! let items = follower.next().await.ok_or("the log is open")?;
//! assert!(matches!(&items[0], LogItem::Line(line) if *line.bytes == *b"hello"));
//!
//! drop(child);
//! assert!(!attachment.drain(DRAIN_GRACE).await.held);
//! # Ok(())
//! # }
//! ```

mod buffer;
mod file;
mod follow;
mod handover;
mod holder;
mod hub;
mod lines;
mod marker;
mod name;
mod past;
mod pump;
mod query;
mod reader;
mod record;
mod ring;
mod rotation;
mod sink;
mod watch;

pub use follow::{Cursor, LogFollower, LogItem};
pub use handover::{HubState, StateError};
pub use holder::PipeHolder;
pub use hub::{Attachment, DRAIN_GRACE, Drained, HandOver, Log, LogError, LogHealth, LogHub};
pub use lines::MAX_LINE;
pub use marker::Marker;
pub use name::NameFault;
pub use query::{LinePattern, LogQuery, PatternError};
pub use reader::LogReader;
pub use record::{LogLine, Stream};
pub use watch::{LineWatch, WatchedLine};

use std::time::Duration;

/// How much of a child's output is kept; by default 5 files of 10 MiB and 1 MiB in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// A log file is rotated before it grows beyond this many bytes.
    pub max_size: u64,
    /// A log file is also rotated before a line is added to it that is this much younger than its first one; `None`
    /// for no such limit.
    pub max_age: Option<Duration>,
    /// How many files are kept, the current one included. At least 1.
    pub keep: u32,
    /// The bytes of recent output held in memory for `tail` and followers.
    pub buffer: usize,
}

impl Default for LogSettings {
    /// Returns 5 files of 10 MiB, whatever their age, and a 1 MiB buffer.
    fn default() -> Self {
        Self { max_size: 10 << 20, max_age: None, keep: 5, buffer: 1 << 20 }
    }
}
