//! Where the lines of one log go: memory, its followers, its file.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use memchr::memchr_iter;

use super::file::{Limits, LogFile, Place};
use super::hub::Shared;
use super::lines::Piece;
use super::marker::Marker;
use super::past::Past;
use super::record::{Stamp, Stream};

/// Above this size the memory for records is freed after use; only floods of tiny lines need more.
const KEPT_RECORDS: usize = 512 << 10;

/// How far the end of the files is searched for the exit of the last incarnation.
const SEARCHED_FOR_EXIT: usize = 1 << 20;

/// One log within the log thread.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) shared: Arc<Shared>,
    file: Option<LogFile<Place>>,
    /// How many pipes feed it.
    pub(super) pipes: usize,
    /// Nobody holds the log any more.
    pub(super) forgotten: bool,
    /// Whether the end of what an earlier host left in the files was looked at.
    is_checked: bool,
}

impl Sink {
    /// Creates the sink of a log.
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let (loss, is_checked) = {
            let mut state = shared.lock();
            (state.inherited_loss.take(), state.continued)
        };
        let file = shared.place().map(|place| LogFile::new(place).with_loss(loss, Instant::now()));
        Self { shared: Arc::clone(shared), file, pipes: 0, forgotten: false, is_checked }
    }

    /// Takes the pieces that `cut` emits, and says behind them if the file cannot be rotated, or can be again.
    pub(super) fn write(
        &mut self,
        stream: Stream,
        records: &mut Vec<u8>,
        cut: impl FnOnce(&mut dyn FnMut(Piece<'_>)),
    ) {
        let mut was_overdue = self.is_overdue();
        self.take(stream, records, cut);
        // A rotation that fails is not tried with the next line: this ends.
        while self.is_overdue() != was_overdue {
            was_overdue = !was_overdue;
            let line = format!("{}\n", self.told_of_rotation());
            self.take(Stream::Xy, records, |emit| emit(Piece::Lines(line.as_bytes())));
        }
    }

    /// Takes pieces: into memory, to the file with one write, with one wake-up of followers.
    fn take(&mut self, stream: Stream, records: &mut Vec<u8>, cut: impl FnOnce(&mut dyn FnMut(Piece<'_>))) {
        let now = Instant::now();
        let stamp = Stamp::now();
        let recorded = self.file.as_ref().is_some_and(|file| file.is_due(now));
        let mut lines = 0;
        records.clear();
        cut(&mut |piece| match piece {
            Piece::Lines(bytes) => {
                let count = if recorded {
                    stamp.records(stream, bytes, records)
                } else {
                    memchr_iter(b'\n', bytes).count() as u64
                };
                self.shared.lock().buffer.push_lines(stream, stamp.unix_ms, bytes, count);
                lines += count;
            }
            Piece::Part(bytes) => {
                if recorded {
                    stamp.record(stream, true, bytes, records);
                }
                self.shared.lock().buffer.push_part(stream, stamp.unix_ms, bytes);
                lines += 1;
            }
        });
        if lines == 0 {
            return;
        }
        self.shared.changed.notify_waiters();
        if self.file.is_some() {
            let limits = self.limits();
            self.with_file(|file| {
                if recorded {
                    file.append(records, limits, &stamp, now);
                } else {
                    file.skip(lines);
                }
            });
        }
        if records.capacity() > KEPT_RECORDS {
            *records = Vec::new();
        }
    }

    /// Returns whether the file is to be rotated and cannot be.
    fn is_overdue(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.rotation_error().is_some())
    }

    /// Makes known whether the file can be rotated, and returns it as a remark.
    fn told_of_rotation(&self) -> String {
        let place = self.shared.place();
        let path = place.map(|place| place.path().display().to_string()).unwrap_or_default();
        let error = self.file.as_ref().and_then(|file| file.rotation_error());
        let mut state = self.shared.lock();
        match error {
            Some(error) => {
                let remark = format!("`{path}` cannot be rotated and grows beyond its limits: {error}");
                state.last_error = Some(remark.clone());
                state.unrotated = Some(remark.as_str().into());
                drop(state);
                tracing::warn!(log = self.shared.name, path, error, "log file cannot be rotated and grows");
                remark
            }
            None => {
                state.unrotated = None;
                drop(state);
                tracing::info!(log = self.shared.name, path, "log file is within its limits again");
                format!("`{path}` is within its limits again")
            }
        }
    }

    /// Returns what is to be said before the first start that is marked: whether the host died before it marked an exit.
    pub(super) fn unfinished(&mut self) -> Option<String> {
        if std::mem::replace(&mut self.is_checked, true) {
            return None;
        }
        let files = self.shared.place()?.readers().ok()?;
        let past = Past { next: 0, files, complete_from: 0, is_complete: true };
        let (mut searched, mut found) = (0, None);
        let visited = past.visit_backwards(&mut |record, _| {
            searched += record.bytes.len();
            found = Marker::of_record(record).map(|marker| match marker {
                Marker::Started { incarnation, pid } => {
                    Some(format!("incarnation {incarnation} (pid {pid})"))
                }
                Marker::Exited { .. } => None,
            });
            if found.is_some() || searched > SEARCHED_FOR_EXIT {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let whose = match found {
            _ if visited.is_err() => return None,
            Some(None) => return None,
            Some(Some(whose)) => whose,
            // An exit is near the end: what came after it is a few remarks.
            None if searched > SEARCHED_FOR_EXIT => "an incarnation".to_owned(),
            None => return None,
        };
        Some(format!("gap: xy ended while {whose} ran; at most 64 KiB of each stream may be missing"))
    }

    /// Returns the lines that the files lack and do not tell of yet, and why.
    pub(super) fn loss(&self) -> Option<(u64, String)> {
        self.file.as_ref()?.loss()
    }

    /// Ends the file.
    pub(super) fn finish(&mut self) {
        let limits = self.limits();
        self.with_file(|file| file.finish(limits, &Stamp::now(), Instant::now()));
    }

    fn limits(&self) -> Limits {
        let settings = self.shared.lock().settings;
        Limits { max_size: settings.max_size, max_age: settings.max_age, keep: settings.keep }
    }

    /// Does something with the file, if there is one, and makes its troubles known.
    fn with_file(&mut self, act: impl FnOnce(&mut LogFile<Place>)) {
        let Some(file) = &mut self.file else { return };
        let (dropped, failing) = (file.dropped(), file.is_failing());
        act(file);
        let (missing, is_altered) = (file.dropped() - dropped, file.take_altered());
        let has_trouble = failing || file.is_failing();
        if !has_trouble && !is_altered {
            return;
        }
        let mut state = self.shared.lock();
        if missing > 0 || is_altered {
            // Only this thread adds lines, and the missing ones are among the newest. Of a file that somebody has altered nobody
            // knows what it lacks.
            state.complete_from = state.buffer.held().end;
        }
        if !has_trouble {
            return;
        }
        state.dropped_lines += missing;
        state.failing = file.is_failing();
        state.last_error = file.last_error().map(str::to_owned);
        drop(state);
        if !failing {
            let error = file.last_error().unwrap_or_default();
            tracing::warn!(log = self.shared.name, error, "log file cannot be written, lines are dropped");
        }
    }
}
