//! Reads a log by a query: what files and memory hold, then what comes.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::follow::{Cursor, LogFollower, LogItem};
use super::hub::Log;
use super::past::{Past, Stretch};
use super::pump::Command;
use super::query::{LogQuery, select};
use super::record::{LogLine, Record};

/// The most lines that one batch holds.
const BATCH: usize = 256;

/// How long the log thread is waited for before memory alone answers.
const PATIENCE: Duration = Duration::from_secs(2);

/// The lines that a [`LogQuery`] wants, made by [`Log::read`].
///
/// It holds one batch of what files hold, whatever their size, and what memory held if the files lack some of that. A reader
/// that falls behind what memory holds goes on in the files; only what they do not hold either is a [`LogItem::Gap`].
#[derive(Debug)]
pub struct LogReader {
    log: Log,
    query: Arc<LogQuery>,
    stage: Stage,
    /// What memory tells behind the files, where they lack lines that it holds.
    held: VecDeque<LogLine>,
    /// The number of the first line after the past.
    next: u64,
}

#[derive(Debug)]
enum Stage {
    Memory(VecDeque<LogLine>),
    Files(Arc<Past>, Stretch),
    Live(LogFollower),
    Ended,
}

impl LogReader {
    /// Begins with the past.
    pub(super) async fn begin(log: Log, query: LogQuery) -> Self {
        let query = Arc::new(query);
        if let Some(most) = query.most_of_memory() {
            let (lines, next) = memory(&log, most);
            let (lines, is_all) = select(&query, lines);
            if is_all {
                return Self::of_memory(log, query, (lines, next));
            }
        }
        // A thread that hangs in a write is not waited for.
        let past = tokio::time::timeout(PATIENCE, past(&log)).await.ok().flatten();
        let past = past.filter(|past| !past.files.is_empty());
        if let Some(past) = past.as_ref().filter(|past| past.is_complete)
            && let Some(stretch) = located(&log, past, &query).await
        {
            let (stage, next) = (Stage::Files(Arc::clone(past), stretch), past.next);
            return Self { log, query, stage, held: VecDeque::new(), next };
        }
        // In memory only, or the files lack lines.
        let (lines, next) = memory(&log, usize::MAX);
        let first = lines.first().map(|line| line.unix_ms);
        let (held, _) = select(&query, lines);
        let older = match first {
            Some(first) => query.before(first, held.len()).map(Arc::new),
            None => Some(Arc::clone(&query)),
        };
        if let Some((past, older)) = past.filter(|past| !past.is_complete).zip(older)
            && let Some(stretch) = located(&log, &past, &older).await
        {
            return Self { log, query: older, stage: Stage::Files(past, stretch), held: held.into(), next };
        }
        Self::of_memory(log, query, (held, next))
    }

    fn of_memory(log: Log, query: Arc<LogQuery>, (lines, next): (Vec<LogLine>, u64)) -> Self {
        Self { log, query, stage: Stage::Memory(lines.into()), held: VecDeque::new(), next }
    }

    /// Waits for the next items, a bounded batch that is never empty; `None` when there are no more: with
    /// [`LogQuery::follow`] that is when the log was closed and everything was delivered.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: an item that was not returned comes with the next call.
    pub async fn next(&mut self) -> Option<Vec<LogItem>> {
        loop {
            match &mut self.stage {
                Stage::Memory(lines) => {
                    if !lines.is_empty() {
                        let count = lines.len().min(BATCH);
                        return Some(lines.drain(..count).map(LogItem::Line).collect());
                    }
                    self.stage = self.after_the_past();
                }
                Stage::Files(past, stretch) => {
                    let mut left = *stretch;
                    let batch = blocking(past, &self.query, move |past, query| {
                        past.batch(&mut left, query).map(|lines| (lines, left))
                    });
                    match batch.await {
                        Ok((Some(lines), left)) => {
                            *stretch = left;
                            if !lines.is_empty() {
                                return Some(lines.into_iter().map(LogItem::Line).collect());
                            }
                        }
                        Ok((None, _)) => self.stage = self.after_the_past(),
                        Err(error) => {
                            tracing::warn!(log = self.log.name(), %error, "reading a log file failed");
                            let first = stretch.number().unwrap_or(self.next);
                            self.stage = self.after_the_past();
                            if first < self.next {
                                return Some(vec![LogItem::Gap { first, last: self.next - 1 }]);
                            }
                        }
                    }
                }
                Stage::Live(follower) => {
                    let Some(mut items) = follower.next().await else {
                        self.stage = Stage::Ended;
                        continue;
                    };
                    if let Some(LogItem::Gap { first, .. }) = items.first() {
                        // Back to before the gap, also for a caller that gives up while the files are searched.
                        let first = *first;
                        *follower = self.log.follow(Cursor::At(first));
                        if let Some((past, stretch)) = behind(&self.log, first).await {
                            self.next = past.next;
                            self.stage = Stage::Files(past, stretch);
                            continue;
                        }
                        items = follower.next().await.unwrap_or_default();
                    }
                    items.retain(|item| match item {
                        LogItem::Line(line) => self.query.matches(Record::of(line)),
                        LogItem::Gap { .. } => true,
                    });
                    if !items.is_empty() {
                        return Some(items);
                    }
                }
                Stage::Ended => return None,
            }
        }
    }

    fn after_the_past(&mut self) -> Stage {
        if !self.held.is_empty() {
            return Stage::Memory(std::mem::take(&mut self.held));
        }
        if !self.query.follow {
            return Stage::Ended;
        }
        // Times and places are conditions on the past.
        if !self.query.is_plain() {
            self.query = Arc::new(self.query.of_what_follows());
        }
        Stage::Live(self.log.follow(Cursor::At(self.next)))
    }
}

/// Copies the newest lines that memory holds, and returns the number after them.
fn memory(log: &Log, n: usize) -> (Vec<LogLine>, u64) {
    let state = log.shared().lock();
    let next = state.buffer.held().end;
    (state.buffer.copy(next.saturating_sub(n as u64), n, usize::MAX), next)
}

/// Finds the lines of a query in the files, if they can be read.
async fn located(log: &Log, past: &Arc<Past>, query: &Arc<LogQuery>) -> Option<Stretch> {
    let found = blocking(past, query, Past::locate).await;
    found
        .inspect_err(|error| {
            tracing::warn!(log = log.name(), %error, "log files cannot be read, memory alone is");
        })
        .ok()
}

/// Asks the log thread for the files as they are.
async fn past(log: &Log) -> Option<Arc<Past>> {
    let shared = log.shared();
    shared.place()?;
    let (reply, past) = oneshot::channel();
    log.send(Command::Past { shared: Arc::clone(shared), reply })?;
    past.await.ok().map(Arc::new)
}

/// Finds the lines from a number on in the files, if memory does not hold them any more and the files do.
async fn behind(log: &Log, position: u64) -> Option<(Arc<Past>, Stretch)> {
    {
        let state = log.shared().lock();
        if position >= state.buffer.held().start || state.failing || position < state.complete_from {
            return None;
        }
    }
    let past = past(log).await?;
    let query = Arc::new(LogQuery::default());
    let stretch = blocking(&past, &query, move |past, _| past.locate_number(position)).await.ok()??;
    Some((past, stretch))
}

/// Reads files on a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(
    past: &Arc<Past>,
    query: &Arc<LogQuery>,
    read: impl FnOnce(&Past, &LogQuery) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (past, query) = (Arc::clone(past), Arc::clone(query));
    let read = tokio::task::spawn_blocking(move || read(&past, &query));
    read.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::file::PastFile;
    use super::super::record::{Stamp, Stream};
    use super::super::{LogHub, LogSettings};
    use super::*;

    #[tokio::test]
    async fn lines_that_cannot_be_read_any_more_are_a_gap() {
        let mut records = Vec::new();
        for number in 5..10 {
            Stamp::at(0).record(Stream::Out, false, number.to_string().as_bytes(), &mut records);
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&records).unwrap();
        let held = PastFile::held(file.try_clone().unwrap(), records.len() as u64);
        let past = Past { next: 10, files: vec![held], complete_from: 0, is_complete: true };
        let stretch = past.locate_number(7).unwrap().unwrap();
        file.set_len(0).unwrap();
        let log = LogHub::new(None).open("web", LogSettings::default()).unwrap();
        let stage = Stage::Files(Arc::new(past), stretch);
        let mut reader =
            LogReader { log, query: Arc::new(LogQuery::default()), stage, held: VecDeque::new(), next: 10 };
        assert_eq!(reader.next().await, Some(vec![LogItem::Gap { first: 7, last: 9 }]));
        assert_eq!(reader.next().await, None);
    }
}
