//! The recent lines of one log in bounded memory, under absolute numbers; pure.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use memchr::{memchr, memchr_iter, memrchr};

use super::record::{LogLine, Stream};

/// What a run of lines costs besides its bytes.
const RUN_COST: usize = size_of::<Run>();

/// The most bytes of a run, which are searched for one line of it.
const MAX_RUN: u64 = 64 << 10;

/// Lines of one stream that were read at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Where its bytes begin, counted from the first byte ever pushed, newlines included.
    pub(crate) start: u64,
    /// The number of its first line.
    pub(crate) first: u64,
    pub(crate) unix_ms: i64,
    pub(crate) stream: Stream,
    /// Whether it is a piece of a line; then it is the only one of its run.
    pub(crate) partial: bool,
}

/// The newest lines, as many as fit; the oldest go first.
///
/// All bytes lie in one ring, each line with a newline, and what they share is kept once for all lines of a run: adding
/// what was read is one copy, however many lines it holds. The newest line is held even if it is larger than the limit.
#[derive(Debug)]
pub(crate) struct Buffer {
    limit: usize,
    bytes: VecDeque<u8>,
    runs: VecDeque<Run>,
    /// Bytes ever pushed, newlines included: the end of the newest line.
    end: u64,
    /// The number that the next line will have.
    next: u64,
}

impl Buffer {
    /// Creates an empty buffer for `limit` bytes, newlines and a fixed cost per run included.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, bytes: VecDeque::new(), runs: VecDeque::new(), end: 0, next: 0 }
    }

    /// Restores a buffer from what [`Buffer::contents`] gave; `None` if the parts contradict each other.
    pub(crate) fn restored(
        limit: usize,
        end: u64,
        next: u64,
        runs: Vec<Run>,
        bytes: Vec<u8>,
    ) -> Option<Self> {
        let begin = end.checked_sub(bytes.len() as u64)?;
        let mut expected = (begin, next.checked_sub(memchr_iter(b'\n', &bytes).count() as u64)?);
        for (index, run) in runs.iter().enumerate() {
            let stop = runs.get(index + 1).map_or(end, |next| next.start);
            if (run.start, run.first) != expected || stop <= run.start || stop > end {
                return None;
            }
            let lines = &bytes[(run.start - begin) as usize..(stop - begin) as usize];
            let count = memchr_iter(b'\n', lines).count() as u64;
            if !lines.ends_with(b"\n") || (run.partial && count != 1) {
                return None;
            }
            expected = (stop, run.first + count);
        }
        if expected != (end, next) {
            return None;
        }
        let mut buffer = Self { limit, bytes: bytes.into(), runs: runs.into(), end, next };
        buffer.evict(0, true);
        Some(buffer)
    }

    /// Returns everything: the end offset, the next number, the runs and their bytes.
    pub(crate) fn contents(&self) -> (u64, u64, Vec<Run>, Vec<u8>) {
        let (front, back) = self.bytes.as_slices();
        (self.end, self.next, self.runs.iter().copied().collect(), [front, back].concat())
    }

    /// Adds `count` whole lines, each with its newline, and forgets old ones that no longer fit.
    pub(crate) fn push_lines(&mut self, stream: Stream, unix_ms: i64, lines: &[u8], count: u64) {
        debug_assert_eq!(count, memchr_iter(b'\n', lines).count() as u64);
        let fits = self.limit.saturating_sub(RUN_COST);
        let (mut kept, mut kept_count) = (lines, count);
        if lines.len() > fits {
            // Only the end of it can be held, and nothing from before.
            let from = lines.len() - fits;
            let start = memchr(b'\n', &lines[from - 1..]).map_or(lines.len(), |at| from + at);
            kept = &lines[start.min(last_line(lines))..];
            kept_count = memchr_iter(b'\n', kept).count() as u64;
            self.bytes.clear();
            self.runs.clear();
            self.next += count - kept_count;
            self.end += (lines.len() - kept.len()) as u64;
        }
        self.push(Run { start: self.end, first: self.next, unix_ms, stream, partial: false }, kept);
        self.next += kept_count;
    }

    /// Adds a piece of a line, without a newline.
    pub(crate) fn push_part(&mut self, stream: Stream, unix_ms: i64, part: &[u8]) {
        self.push(Run { start: self.end, first: self.next, unix_ms, stream, partial: true }, part);
        self.bytes.push_back(b'\n');
        self.end += 1;
        self.next += 1;
    }

    fn push(&mut self, run: Run, bytes: &[u8]) {
        let length = bytes.len() + usize::from(run.partial);
        let joins = self.runs.back().is_some_and(|last| {
            let alike = (last.unix_ms, last.stream) == (run.unix_ms, run.stream);
            alike && !last.partial && !run.partial && self.end + length as u64 - last.start <= MAX_RUN
        });
        self.evict(length + if joins { 0 } else { RUN_COST }, false);
        reserve(&mut self.bytes, length, self.limit);
        if !joins || self.runs.is_empty() {
            reserve(&mut self.runs, 1, self.limit / RUN_COST);
            self.runs.push_back(run);
        }
        self.bytes.extend(bytes);
        self.end += bytes.len() as u64;
    }

    /// Returns the numbers of the lines held; its end is the number of the next line.
    pub(crate) fn held(&self) -> Range<u64> {
        self.runs.front().map_or(self.next, |run| run.first)..self.next
    }

    /// Returns how many bytes were ever pushed, without newlines.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.end - self.next
    }

    /// Copies held lines from number `from` on: at most `max_lines`, and no further line once `max_bytes` are reached.
    pub(crate) fn copy(&self, from: u64, max_lines: usize, max_bytes: usize) -> Vec<LogLine> {
        let mut lines = Vec::new();
        let mut copied = 0;
        let begin = self.runs.partition_point(|run| run.first <= from).saturating_sub(1);
        for (index, run) in self.runs.iter().enumerate().skip(begin) {
            let stop = self.runs.get(index + 1).map_or(self.end, |next| next.start);
            let bytes = self.slice(run.start, stop);
            let mut start = 0;
            for (number, end) in (run.first..).zip(memchr_iter(b'\n', &bytes)) {
                if number >= from {
                    if lines.len() == max_lines || copied >= max_bytes {
                        return lines;
                    }
                    copied += end - start;
                    let Run { unix_ms, stream, partial, .. } = *run;
                    lines.push(LogLine { number, stream, unix_ms, bytes: bytes[start..end].into(), partial });
                }
                start = end + 1;
            }
        }
        lines
    }

    /// Changes the limit, forgetting lines that no longer fit.
    pub(crate) fn resize(&mut self, limit: usize) {
        let shrinks = limit < self.limit;
        self.limit = limit;
        if shrinks {
            self.evict(0, true);
            self.bytes.shrink_to(limit);
            self.runs.shrink_to(limit / RUN_COST);
        }
    }

    /// Returns the bytes between two absolute offsets, both held.
    fn slice(&self, start: u64, end: u64) -> Cow<'_, [u8]> {
        let first = self.end - self.bytes.len() as u64;
        let (start, end) = ((start - first) as usize, (end - first) as usize);
        let (front, back) = self.bytes.as_slices();
        if start >= front.len() {
            Cow::Borrowed(&back[start - front.len()..end - front.len()])
        } else if end <= front.len() {
            Cow::Borrowed(&front[start..end])
        } else {
            Cow::Owned([&front[start..], &back[..end - front.len()]].concat())
        }
    }

    /// Forgets the oldest lines until `wanted` more bytes of cost fit or nothing is left.
    ///
    /// With `spare`, the newest line stays whatever it costs.
    fn evict(&mut self, wanted: usize, spare: bool) {
        loop {
            let cost = self.bytes.len() + self.runs.len() * RUN_COST + wanted;
            let Some(run) = self.runs.front().copied() else { return };
            if cost <= self.limit {
                return;
            }
            let excess = cost - self.limit;
            let is_last = self.runs.len() == 1;
            let stop = self.runs.get(1).map_or(self.end, |next| next.start);
            let length = (stop - run.start) as usize;
            if excess >= length && !(spare && is_last) {
                self.runs.pop_front();
                self.bytes.drain(..length);
                continue;
            }
            let bytes = self.slice(run.start, stop);
            let mut cut = match excess.checked_sub(1).filter(|from| *from < length) {
                Some(from) => memchr(b'\n', &bytes[from..]).map_or(length, |at| from + at + 1),
                None => length,
            };
            if spare && is_last {
                cut = cut.min(last_line(&bytes));
            }
            let gone = memchr_iter(b'\n', &bytes[..cut]).count() as u64;
            drop(bytes);
            self.bytes.drain(..cut);
            if cut == length {
                self.runs.pop_front();
            } else if let Some(front) = self.runs.front_mut() {
                front.start += cut as u64;
                front.first += gone;
                return;
            }
        }
    }
}

/// Returns where the last of some lines begins.
fn last_line(lines: &[u8]) -> usize {
    memrchr(b'\n', &lines[..lines.len().saturating_sub(1)]).map_or(0, |end| end + 1)
}

/// Grows by doubling like any vector, but never beyond the limit unless one line alone is larger.
fn reserve<T>(queue: &mut VecDeque<T>, wanted: usize, limit: usize) {
    let needed = queue.len() + wanted;
    if needed > queue.capacity() {
        let target = (queue.capacity() * 2).min(limit).max(needed);
        queue.reserve_exact(target - queue.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn memory(buffer: &Buffer) -> usize {
        buffer.bytes.capacity() + buffer.runs.capacity() * RUN_COST
    }

    /// Pushes a line that joins no run.
    fn push(buffer: &mut Buffer, bytes: &[u8]) {
        let unix_ms = i64::try_from(buffer.next).unwrap();
        buffer.push_lines(Stream::Out, unix_ms, &[bytes, b"\n"].concat(), 1);
    }

    fn texts(buffer: &Buffer) -> Vec<(u64, String)> {
        let lines = buffer.copy(0, usize::MAX, usize::MAX);
        lines.iter().map(|line| (line.number, String::from_utf8_lossy(&line.bytes).into_owned())).collect()
    }

    #[test]
    fn numbers_go_on_after_old_lines_are_forgotten() {
        let mut buffer = Buffer::new(3 * (RUN_COST + 6));
        for number in 0..10 {
            push(&mut buffer, format!("line{number}").as_bytes());
        }
        assert_eq!(buffer.held(), 7..10);
        assert_eq!(texts(&buffer), [(7, "line7".into()), (8, "line8".into()), (9, "line9".into())]);
        assert_eq!(buffer.copy(8, 1, usize::MAX)[0].number, 8);
        assert!(buffer.copy(10, 1, usize::MAX).is_empty());
        assert_eq!(buffer.total_bytes(), 50);
    }

    #[test]
    fn lines_read_together_cost_their_bytes_and_are_forgotten_one_by_one() {
        let mut buffer = Buffer::new(RUN_COST + 3 * 6);
        for number in 0..100 {
            buffer.push_lines(Stream::Out, 5, format!("line{}\n", number % 10).as_bytes(), 1);
        }
        assert_eq!(buffer.held(), 97..100);
        buffer.push_lines(Stream::Out, 5, b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n", 10);
        assert_eq!(buffer.held(), 101..110);
        assert_eq!(texts(&buffer)[0], (101, "b".into()));
        assert_eq!(buffer.runs.len(), 1);
    }

    #[test]
    fn of_more_lines_than_fit_the_newest_are_held() {
        let lines: String = (0..1_000).map(|number| format!("{number:03}\n")).collect();
        let mut buffer = Buffer::new(RUN_COST + 4 * 10 + 3);
        push(&mut buffer, b"before");
        buffer.push_lines(Stream::Out, 0, lines.as_bytes(), 1_000);
        assert_eq!(buffer.held(), 991..1_001);
        assert_eq!(texts(&buffer)[0], (991, "990".into()));
        assert_eq!(buffer.total_bytes(), 6 + 3_000);
    }

    #[test]
    fn empty_lines_use_up_the_limit_too() {
        let mut buffer = Buffer::new(RUN_COST + 100);
        buffer.push_lines(Stream::Out, 0, &[b'\n'; 1_000], 1_000);
        assert_eq!(buffer.held(), 900..1_000);
    }

    #[test]
    fn the_newest_line_is_held_even_without_room() {
        let mut buffer = Buffer::new(0);
        push(&mut buffer, b"first");
        push(&mut buffer, &[7; 70_000]);
        assert_eq!(buffer.held(), 1..2);
        assert_eq!(&*buffer.copy(0, 9, usize::MAX)[0].bytes, &[7; 70_000]);
        buffer.resize(0);
        assert_eq!(buffer.held(), 1..2);
        buffer.push_lines(Stream::Out, 9, b"a\nb\n", 2);
        assert_eq!(texts(&buffer), [(3, "b".into())]);
    }

    #[test]
    fn shrinking_forgets_the_oldest_and_frees_memory() {
        let mut buffer = Buffer::new(1 << 20);
        for _ in 0..20_000 {
            push(&mut buffer, &[b'x'; 100]);
        }
        buffer.resize(10_000);
        assert_eq!(buffer.held().end, 20_000);
        assert!(memory(&buffer) <= 2 * 10_000);
        buffer.resize(20_000);
        push(&mut buffer, b"on");
        assert_eq!(buffer.held().end, 20_001);
    }

    #[test]
    fn one_copy_is_bounded_in_lines_and_bytes_but_never_empty() {
        let mut buffer = Buffer::new(1 << 20);
        for _ in 0..100 {
            push(&mut buffer, &[b'x'; 1_000]);
        }
        assert_eq!(buffer.copy(0, 10, usize::MAX).len(), 10);
        assert_eq!(buffer.copy(0, 100, 2_500).len(), 3);
        assert_eq!(buffer.copy(0, 100, 1).len(), 1);
    }

    #[test]
    fn contents_that_contradict_each_other_are_not_taken_up() {
        let mut buffer = Buffer::new(1 << 20);
        buffer.push_lines(Stream::Out, 1, b"a\nb\n", 2);
        buffer.push_part(Stream::Err, 2, b"half");
        let (end, next, runs, bytes) = buffer.contents();
        let restored = Buffer::restored(1 << 20, end, next, runs.clone(), bytes.clone()).unwrap();
        assert_eq!(restored.contents(), buffer.contents());
        let shorter = bytes[..bytes.len() - 1].to_vec();
        let mut moved = runs.clone();
        moved[1].start -= 1;
        let mut renumbered = runs.clone();
        renumbered[1].first += 1;
        let mut joined = runs.clone();
        joined[0].partial = true;
        for (end, next, runs, bytes) in [
            (end, next, runs.clone(), shorter),
            (end + 1, next, runs.clone(), bytes.clone()),
            (end, next + 1, runs.clone(), bytes.clone()),
            (1, next, runs.clone(), bytes.clone()),
            (end, 0, runs, bytes.clone()),
            (end, next, moved, bytes.clone()),
            (end, next, renumbered, bytes.clone()),
            (end, next, joined, bytes.clone()),
            (end, next, Vec::new(), bytes),
        ] {
            assert!(Buffer::restored(1 << 20, end, next, runs, bytes).is_none());
        }
    }

    proptest! {
        #[test]
        fn held_lines_are_always_the_newest_and_unchanged(
            limit in 0usize..3_000,
            later in 0usize..3_000,
            pushes in prop::collection::vec(
                (prop::collection::vec(prop::collection::vec(b'a'..=b'z', 0..60), 1..5), 0i64..3, any::<bool>()),
                1..100,
            ),
        ) {
            let mut buffer = Buffer::new(limit);
            let mut pushed = Vec::new();
            let resize_at = pushes.len() / 2;
            for (index, (lines, unix_ms, partial)) in pushes.iter().enumerate() {
                if index == resize_at {
                    buffer.resize(later);
                    let (end, next, runs, bytes) = buffer.contents();
                    buffer = Buffer::restored(later, end, next, runs, bytes).unwrap();
                }
                if *partial {
                    buffer.push_part(Stream::Err, *unix_ms, &lines[0]);
                    pushed.push((lines[0].clone(), *unix_ms, true));
                } else {
                    let joined: Vec<u8> = lines.iter().flat_map(|line| [&line[..], b"\n"].concat()).collect();
                    buffer.push_lines(Stream::Out, *unix_ms, &joined, lines.len() as u64);
                    pushed.extend(lines.iter().map(|line| (line.clone(), *unix_ms, false)));
                }
                let current = if index < resize_at { limit } else { later };
                prop_assert!(memory(&buffer) <= 2 * current.max(limit).max(300 + RUN_COST) + RUN_COST);
                let held = buffer.held();
                let cost = buffer.bytes.len() + buffer.runs.len() * RUN_COST;
                prop_assert!(cost <= current || held.end - held.start == 1);
                prop_assert_eq!(held.end, pushed.len() as u64);
                prop_assert!(!held.is_empty());
                let read = buffer.copy(0, usize::MAX, usize::MAX);
                prop_assert_eq!(read.len() as u64, held.end - held.start);
                for line in read {
                    let (bytes, unix_ms, partial) = &pushed[line.number as usize];
                    prop_assert_eq!((&*line.bytes, line.unix_ms, line.partial), (&bytes[..], *unix_ms, *partial));
                }
                let from = held.start + (held.end - held.start) / 2;
                prop_assert_eq!(buffer.copy(from, 1, usize::MAX)[0].number, from);
            }
            let length: usize = pushed.iter().map(|(line, _, _)| line.len()).sum();
            prop_assert_eq!(buffer.total_bytes(), length as u64);
            // Nothing was forgotten that would fit even as a run of its own.
            let held = buffer.held();
            if held.start > 0 {
                let oldest = pushed[held.start as usize - 1].0.len() + 1 + RUN_COST;
                let cost = buffer.bytes.len() + buffer.runs.len() * RUN_COST;
                prop_assert!(limit.min(later) < cost + oldest + RUN_COST + 300);
            }
        }
    }
}
