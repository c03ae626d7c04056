//! The log pipeline: bytes from a child's pipes become bounded lines in a file, a ring buffer and subscriptions.
//!
//! One thread, `xy-log`, reads all pipes of a [`LogHub`]. It cuts what it reads into lines of at most [`MAX_LINE`] bytes,
//! keeps the newest in memory under absolute numbers, and writes all of them to a file that is rotated by size. Readers
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
//! - A line of a file is an RFC 3339 time in UTC, a space, `out`, `err` or `xy` (with a `+` if the line is partial), a
//!   space, the bytes, a newline; [`LogLine::parse`] reads it.
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
mod hub;
mod lines;
mod name;
mod past;
mod pump;
mod record;
mod rotation;

pub use follow::{Cursor, LogFollower, LogItem};
pub use hub::{Attachment, DRAIN_GRACE, Drained, Log, LogError, LogHealth, LogHub};
pub use lines::MAX_LINE;
pub use name::NameFault;
pub use past::Tail;
pub(crate) use pump::LineWatch;
pub use record::{LogLine, Stream};

/// How much of a child's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// A log file is rotated before it grows beyond this many bytes.
    pub max_size: u64,
    /// How many files are kept, the current one included. At least 1.
    pub keep: u32,
    /// The bytes of recent output held in memory for `tail` and followers.
    pub buffer: usize,
}

impl Default for LogSettings {
    /// Returns 5 files of 10 MiB and a 1 MiB buffer.
    fn default() -> Self {
        Self { max_size: 10 << 20, keep: 5, buffer: 1 << 20 }
    }
}
