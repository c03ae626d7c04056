//! The recent lines of one log in bounded memory, under absolute numbers.

use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use memchr::{memchr, memchr_iter, memrchr};

use super::record::{LogLine, Stream};
use super::ring::{Inherited, Pool, Ring, RingState};

/// What a run of lines costs besides its bytes: three numbers and a word with what else there is.
const RUN_COST: usize = 4 * size_of::<u64>();

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

impl Run {
    /// Returns it as it lies in memory.
    pub(crate) fn to_bytes(self) -> [u8; RUN_COST] {
        let stream = match self.stream {
            Stream::Xy => 0,
            Stream::Out => 1,
            Stream::Err => 2,
        };
        let rest = stream | u64::from(self.partial) << 8;
        let words = [self.start, self.first, self.unix_ms.cast_unsigned(), rest];
        let mut bytes = [0; RUN_COST];
        for (place, word) in bytes.chunks_exact_mut(size_of::<u64>()).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Run::to_bytes`] has made; there are no bytes that it would not read.
    fn from_bytes(bytes: &[u8; RUN_COST]) -> Self {
        let (words, _) = bytes.as_chunks();
        let word = |at: usize| u64::from_le_bytes(words[at]);
        let stream = match word(3) & 0xff {
            1 => Stream::Out,
            2 => Stream::Err,
            _ => Stream::Xy,
        };
        let partial = word(3) >> 8 & 1 == 1;
        Self { start: word(0), first: word(1), unix_ms: word(2).cast_signed(), stream, partial }
    }
}

/// Runs in the order of their lines.
#[derive(Debug)]
struct Runs(Ring);

impl Runs {
    fn len(&self) -> usize {
        self.0.len() / RUN_COST
    }

    fn get(&self, index: usize) -> Option<Run> {
        let [front, back] = self.0.slices();
        // The memory begins with a whole one, so that none is cut where it ends.
        let (front, back) = (front.as_chunks().0, back.as_chunks().0);
        let found = front.get(index).or_else(|| back.get(index - front.len()))?;
        Some(Run::from_bytes(found))
    }

    fn front(&self) -> Option<Run> {
        self.get(0)
    }

    fn back(&self) -> Option<Run> {
        self.get(self.len().checked_sub(1)?)
    }

    /// Returns the index of the first one that does not begin at or before a line, by halves.
    fn after(&self, number: u64) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.get(middle).is_some_and(|run| run.first <= number) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// What a buffer knows, for the next program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BufferState {
    pub(super) end: u64,
    pub(super) next: u64,
    pub(super) runs: RingState,
    pub(super) bytes: RingState,
}

impl BufferState {
    /// Says whether there can be such a buffer. What lies in shared memory is not looked at: it is this process's own, and
    /// no bytes in it can do harm.
    pub(super) fn is_sound(&self) -> bool {
        let sizes = self.bytes.is_sound() && self.runs.is_sound();
        let begins = self.end.checked_sub(self.bytes.len());
        let (true, Some(begin)) = (sizes && self.runs.len().is_multiple_of(RUN_COST as u64), begins) else {
            return false;
        };
        match (&self.runs, &self.bytes) {
            (RingState::Copied(runs), RingState::Copied(bytes)) => {
                self.fits(runs.as_chunks().0, bytes, begin)
            }
            (RingState::Shared { capacity, start, .. }, _) => {
                [capacity, start].iter().all(|number| number.is_multiple_of(RUN_COST as u64))
            }
            (RingState::Copied(_), RingState::Shared { .. }) => true,
        }
    }

    /// Says whether the runs are those of the bytes, which begin at an offset.
    fn fits(&self, runs: &[[u8; RUN_COST]], bytes: &[u8], begin: u64) -> bool {
        let count = |bytes: &[u8]| memchr_iter(b'\n', bytes).count() as u64;
        let Some(first) = self.next.checked_sub(count(bytes)) else { return false };
        let mut expected = (begin, first);
        for (index, run) in runs.iter().enumerate() {
            let run = Run::from_bytes(run);
            let stop = runs.get(index + 1).map_or(self.end, |next| Run::from_bytes(next).start);
            if (run.start, run.first) != expected || stop <= run.start || stop > self.end {
                return false;
            }
            let lines = &bytes[(run.start - begin) as usize..(stop - begin) as usize];
            let count = count(lines);
            if !lines.ends_with(b"\n") || (run.partial && count != 1) {
                return false;
            }
            expected = (stop, run.first + count);
        }
        expected == (self.end, self.next)
    }
}

/// The newest lines, as many as fit; the oldest go first.
///
/// All bytes lie in one ring, each line with a newline, and what they share is kept once for all lines of a run: adding
/// what was read is one copy, however many lines it holds. The newest line is held even if it is larger than the limit.
#[derive(Debug)]
pub(crate) struct Buffer {
    limit: usize,
    bytes: Ring,
    runs: Runs,
    /// Bytes ever pushed, newlines included: the end of the newest line.
    end: u64,
    /// The number that the next line will have.
    next: u64,
}

impl Buffer {
    /// Creates an empty buffer for `limit` bytes, newlines and a fixed cost per run included.
    pub(crate) fn new(limit: usize, pool: &Arc<Pool>) -> Self {
        let ring = || Ring::new(Arc::clone(pool));
        Self { limit, bytes: ring(), runs: Runs(ring()), end: 0, next: 0 }
    }

    /// Restores a buffer from its [`state`](Buffer::state), which [is sound](BufferState::is_sound).
    ///
    /// # Errors
    ///
    /// If its memory is not there, or the system refuses it.
    pub(super) fn restored(
        limit: usize,
        state: BufferState,
        pool: &Arc<Pool>,
        inherited: Option<&Inherited>,
    ) -> io::Result<Self> {
        let BufferState { end, next, runs, bytes } = state;
        let ring = |state| Ring::restored(Arc::clone(pool), state, inherited);
        let mut buffer = Self { limit, bytes: ring(bytes)?, runs: Runs(ring(runs)?), end, next };
        buffer.evict(0, true);
        Ok(buffer)
    }

    /// Returns everything, the memory of large ones by where it is.
    pub(super) fn state(&self) -> BufferState {
        BufferState { end: self.end, next: self.next, runs: self.runs.0.state(), bytes: self.bytes.state() }
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
            self.runs.0.clear();
            self.next += count - kept_count;
            self.end += (lines.len() - kept.len()) as u64;
        }
        self.push(Run { start: self.end, first: self.next, unix_ms, stream, partial: false }, kept);
        self.next += kept_count;
    }

    /// Adds a piece of a line, without a newline.
    pub(crate) fn push_part(&mut self, stream: Stream, unix_ms: i64, part: &[u8]) {
        self.push(Run { start: self.end, first: self.next, unix_ms, stream, partial: true }, part);
        self.bytes.push(b"\n");
        self.end += 1;
        self.next += 1;
    }

    fn push(&mut self, run: Run, bytes: &[u8]) {
        let length = bytes.len() + usize::from(run.partial);
        let joins = self.runs.back().is_some_and(|last: Run| {
            let alike = (last.unix_ms, last.stream) == (run.unix_ms, run.stream);
            alike && !last.partial && !run.partial && self.end + length as u64 - last.start <= MAX_RUN
        });
        self.evict(length + if joins { 0 } else { RUN_COST }, false);
        self.bytes.reserve(length, self.limit);
        if !joins || self.runs.len() == 0 {
            self.runs.0.reserve(RUN_COST, self.limit / RUN_COST * RUN_COST);
            self.runs.0.push(&run.to_bytes());
        }
        self.bytes.push(bytes);
        self.end += bytes.len() as u64;
    }

    /// Returns the numbers of the lines held; its end is the number of the next line.
    pub(crate) fn held(&self) -> Range<u64> {
        self.runs.front().map_or(self.next, |run| run.first.min(self.next))..self.next
    }

    /// Returns how many bytes were ever pushed, without newlines.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.end - self.next
    }

    /// Copies held lines from number `from` on: at most `max_lines`, and no further line once `max_bytes` are reached.
    pub(crate) fn copy(&self, from: u64, max_lines: usize, max_bytes: usize) -> Vec<LogLine> {
        let mut lines = Vec::new();
        let mut copied = 0;
        let mut index = self.runs.after(from).saturating_sub(1);
        while let Some(run) = self.runs.get(index) {
            index += 1;
            let stop = self.runs.get(index).map_or(self.end, |next| next.start);
            let bytes = self.slice(run.start, stop);
            let mut start = 0;
            for (number, end) in (run.first..).zip(memchr_iter(b'\n', &bytes)) {
                if number >= from {
                    if lines.len() == max_lines || copied >= max_bytes {
                        return lines;
                    }
                    copied += end - start;
                    let Run { unix_ms, stream, partial, .. } = run;
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
            self.runs.0.shrink_to(limit / RUN_COST * RUN_COST);
        }
    }

    /// Returns the bytes between two absolute offsets, as far as they are held.
    fn slice(&self, start: u64, end: u64) -> Cow<'_, [u8]> {
        let (start, end) = (self.place(start), self.place(end.max(start)));
        let [front, back] = self.bytes.slices();
        if start >= front.len() {
            Cow::Borrowed(&back[start - front.len()..end - front.len()])
        } else if end <= front.len() {
            Cow::Borrowed(&front[start..end])
        } else {
            Cow::Owned([&front[start..], &back[..end - front.len()]].concat())
        }
    }

    /// Returns where among the bytes held an absolute offset lies, or the end that is nearer to it.
    fn place(&self, offset: u64) -> usize {
        let begin = self.end - self.bytes.len() as u64;
        (offset.clamp(begin, self.end) - begin) as usize
    }

    /// Forgets the oldest lines until `wanted` more bytes of cost fit or nothing is left.
    ///
    /// With `spare`, the newest line stays whatever it costs.
    fn evict(&mut self, wanted: usize, spare: bool) {
        loop {
            let cost = self.bytes.len() + self.runs.len() * RUN_COST + wanted;
            let Some(run) = self.runs.front() else { return };
            if cost <= self.limit {
                return;
            }
            let excess = cost - self.limit;
            let is_last = self.runs.len() == 1;
            let stop = self.runs.get(1).map_or(self.end, |next| next.start);
            let length = self.place(stop.max(run.start)) - self.place(run.start);
            if excess >= length && !(spare && is_last) {
                self.runs.0.pop(RUN_COST);
                self.bytes.pop(length);
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
            self.bytes.pop(cut);
            if cut == length {
                self.runs.0.pop(RUN_COST);
            } else {
                let front =
                    Run { start: run.start + cut as u64, first: run.first.saturating_add(gone), ..run };
                self.runs.0.write_front(&front.to_bytes());
                return;
            }
        }
    }
}

/// Returns where the last of some lines begins.
fn last_line(lines: &[u8]) -> usize {
    memrchr(b'\n', &lines[..lines.len().saturating_sub(1)]).map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn new(limit: usize) -> Buffer {
        Buffer::new(limit, &Arc::default())
    }

    fn memory(buffer: &Buffer) -> usize {
        buffer.bytes.capacity() + buffer.runs.0.capacity()
    }

    /// Passes a buffer on to another program, which has no memory in common with this one.
    fn passed_on(limit: usize, buffer: &Buffer) -> Buffer {
        let mut state = buffer.state();
        state.bytes = RingState::Copied(buffer.bytes.slices().concat());
        state.runs = RingState::Copied(buffer.runs.0.slices().concat());
        assert!(state.is_sound());
        Buffer::restored(limit, state, &Arc::default(), None).unwrap()
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
        let mut buffer = new(3 * (RUN_COST + 6));
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
        let mut buffer = new(RUN_COST + 3 * 6);
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
        let mut buffer = new(RUN_COST + 4 * 10 + 3);
        push(&mut buffer, b"before");
        buffer.push_lines(Stream::Out, 0, lines.as_bytes(), 1_000);
        assert_eq!(buffer.held(), 991..1_001);
        assert_eq!(texts(&buffer)[0], (991, "990".into()));
        assert_eq!(buffer.total_bytes(), 6 + 3_000);
    }

    #[test]
    fn empty_lines_use_up_the_limit_too() {
        let mut buffer = new(RUN_COST + 100);
        buffer.push_lines(Stream::Out, 0, &[b'\n'; 1_000], 1_000);
        assert_eq!(buffer.held(), 900..1_000);
    }

    #[test]
    fn the_newest_line_is_held_even_without_room() {
        let mut buffer = new(0);
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
        let mut buffer = new(1 << 20);
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
        let mut buffer = new(1 << 20);
        for _ in 0..100 {
            push(&mut buffer, &[b'x'; 1_000]);
        }
        assert_eq!(buffer.copy(0, 10, usize::MAX).len(), 10);
        assert_eq!(buffer.copy(0, 100, 2_500).len(), 3);
        assert_eq!(buffer.copy(0, 100, 1).len(), 1);
    }

    #[test]
    fn contents_that_contradict_each_other_are_not_taken_up() {
        let mut buffer = new(1 << 20);
        buffer.push_lines(Stream::Out, 1, b"a\nb\n", 2);
        buffer.push_part(Stream::Err, 2, b"half");
        let state = buffer.state();
        let again = Buffer::restored(1 << 20, state.clone(), &Arc::default(), None).unwrap();
        assert_eq!(again.state(), state);
        let BufferState { end, next, runs: RingState::Copied(runs), bytes: RingState::Copied(bytes) } = state
        else {
            panic!("small ones are copied")
        };
        let runs: Vec<Run> = runs.as_chunks().0.iter().map(Run::from_bytes).collect();
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
            let runs = RingState::Copied(runs.into_iter().flat_map(Run::to_bytes).collect());
            assert!(!BufferState { end, next, runs, bytes: RingState::Copied(bytes) }.is_sound());
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
            let mut buffer = new(limit);
            let mut pushed = Vec::new();
            let resize_at = pushes.len() / 2;
            for (index, (lines, unix_ms, partial)) in pushes.iter().enumerate() {
                if index == resize_at {
                    buffer.resize(later);
                    buffer = passed_on(later, &buffer);
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
