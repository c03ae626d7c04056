//! Readers of a live log: cursors that see every line once or in a gap.

use std::sync::Arc;

use super::hub::Shared;
use super::record::LogLine;

/// The most lines that one batch holds; the log thread waits at most as long as copying them takes.
const BATCH_LINES: usize = 256;

/// The size from which a batch gets no further line.
const BATCH_BYTES: usize = 256 << 10;

/// Where a follower begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cursor {
    /// This many lines before the end, or as many as are held.
    Tail(usize),
    /// With the next line.
    Now,
    /// With the line of this number; a number that no line has yet means [`Cursor::Now`].
    ///
    /// To resume, this is the number after the last one seen. What is no longer held is reported as a gap.
    At(u64),
}

/// One thing a follower sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogItem {
    /// A line.
    Line(LogLine),
    /// Lines that were forgotten before this follower read them.
    Gap {
        /// The number of the first line missed.
        first: u64,
        /// The number of the last line missed.
        last: u64,
    },
}

/// A cursor into a log, made by [`Log::follow`](super::Log::follow).
///
/// It reads by number, so that old and new lines come from one place and no line can fall between them. It holds no
/// queue: one that is never read costs nothing, and gets one gap when it is.
#[derive(Debug)]
pub struct LogFollower {
    shared: Arc<Shared>,
    next: u64,
}

impl LogFollower {
    pub(super) fn new(shared: Arc<Shared>, from: Cursor) -> Self {
        let held = shared.lock().buffer.held();
        let next = match from {
            Cursor::Tail(lines) => held.end.saturating_sub(lines as u64).max(held.start),
            Cursor::Now => held.end,
            Cursor::At(number) => number.min(held.end),
        };
        Self { shared, next }
    }

    /// Returns the number of the line that comes next, for [`Cursor::At`].
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Waits for the next items, a bounded batch that is never empty; `None` when the log was closed and everything
    /// was delivered.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: an item that was not returned comes with the next call.
    pub async fn next(&mut self) -> Option<Vec<LogItem>> {
        // A flood always has more: without this the task would starve its thread.
        tokio::task::coop::consume_budget().await;
        let shared = Arc::clone(&self.shared);
        loop {
            // Made before looking: it hears of what happens between the look and the wait.
            let changed = shared.changed.notified();
            let (items, closed) = self.take();
            if !items.is_empty() {
                return Some(items);
            }
            if closed {
                return None;
            }
            changed.await;
        }
    }

    /// Takes what is there, and says whether the log is closed.
    fn take(&mut self) -> (Vec<LogItem>, bool) {
        let state = self.shared.lock();
        let first = state.buffer.held().start;
        let lines = state.buffer.copy(self.next, BATCH_LINES, BATCH_BYTES);
        let closed = state.closed;
        drop(state);

        let mut items = Vec::with_capacity(lines.len() + 1);
        if self.next < first {
            items.push(LogItem::Gap { first: self.next, last: first - 1 });
            self.next = first;
        }
        self.next += lines.len() as u64;
        items.extend(lines.into_iter().map(LogItem::Line));
        (items, closed)
    }
}
