//! The recent lines of one log in bounded memory, under absolute numbers; pure.

use std::collections::VecDeque;
use std::ops::Range;

use super::record::{LogLine, Stream};

/// What one held line costs besides its bytes.
const LINE_COST: usize = size_of::<Entry>();

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where its bytes begin, counted from the first byte ever pushed.
    start: u64,
    unix_ms: i64,
    stream: Stream,
    partial: bool,
}

/// The newest lines, as many as fit; the oldest go first.
///
/// All bytes lie in one ring, so that a line costs no allocation. The newest line is held even if it is larger than
/// the limit.
#[derive(Debug)]
pub(crate) struct Buffer {
    limit: usize,
    bytes: VecDeque<u8>,
    entries: VecDeque<Entry>,
    /// Bytes ever pushed: the end of the newest line.
    end: u64,
    /// The number that the next line will have.
    next: u64,
}

impl Buffer {
    /// Creates an empty buffer for `limit` bytes, a fixed cost per line included.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, bytes: VecDeque::new(), entries: VecDeque::new(), end: 0, next: 0 }
    }

    /// Adds a line and forgets old ones that no longer fit.
    pub(crate) fn push(&mut self, stream: Stream, unix_ms: i64, bytes: &[u8], partial: bool) {
        self.evict(bytes.len() + LINE_COST);
        self.reserve(bytes.len());
        self.entries.push_back(Entry { start: self.end, unix_ms, stream, partial });
        self.bytes.extend(bytes);
        self.end += bytes.len() as u64;
        self.next += 1;
    }

    /// Returns the numbers of the lines held; its end is the number of the next line.
    pub(crate) fn held(&self) -> Range<u64> {
        self.next - self.entries.len() as u64..self.next
    }

    /// Returns how many bytes were ever pushed.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.end
    }

    /// Copies held lines from number `from` on: at most `max_lines`, and no further line once `max_bytes` are reached.
    pub(crate) fn copy(&self, from: u64, max_lines: usize, max_bytes: usize) -> Vec<LogLine> {
        let held = self.held();
        let mut lines = Vec::new();
        let mut copied = 0;
        for number in from.max(held.start)..held.end {
            if lines.len() == max_lines || copied >= max_bytes {
                break;
            }
            // The difference is below the number of entries, which is a usize.
            let index = (number - held.start) as usize;
            let Entry { start, unix_ms, stream, partial } = self.entries[index];
            let end = self.entries.get(index + 1).map_or(self.end, |next| next.start);
            let bytes = self.slice(start, end);
            copied += bytes.len();
            lines.push(LogLine { number, stream, unix_ms, bytes, partial });
        }
        lines
    }

    /// Changes the limit, forgetting lines that no longer fit.
    pub(crate) fn resize(&mut self, limit: usize) {
        if limit < self.limit {
            self.limit = limit;
            self.evict(0);
            self.bytes.shrink_to(limit);
            self.entries.shrink_to(limit / LINE_COST);
        }
        self.limit = limit;
    }

    /// Copies the bytes between two absolute offsets, both held.
    fn slice(&self, start: u64, end: u64) -> Box<[u8]> {
        let first = self.end - self.bytes.len() as u64;
        let (start, end) = ((start - first) as usize, (end - first) as usize);
        let (front, back) = self.bytes.as_slices();
        if start >= front.len() {
            back[start - front.len()..end - front.len()].into()
        } else if end <= front.len() {
            front[start..end].into()
        } else {
            [&front[start..], &back[..end - front.len()]].concat().into()
        }
    }

    /// Forgets the oldest lines until `wanted` more bytes of cost fit or nothing is left.
    ///
    /// With nothing wanted, the newest line stays whatever it costs.
    fn evict(&mut self, wanted: usize) {
        let spared = usize::from(wanted == 0);
        let mut gone = 0;
        let mut kept = self.entries.len();
        let mut bytes = self.bytes.len();
        while kept > spared && bytes + kept * LINE_COST + wanted > self.limit {
            gone += 1;
            kept -= 1;
            let first = self.entries.get(gone).map_or(self.end, |entry| entry.start);
            bytes = (self.end - first) as usize;
        }
        self.entries.drain(..gone);
        self.bytes.drain(..self.bytes.len() - bytes);
    }

    /// Grows by doubling like any vector, but never beyond the limit unless one line alone is larger.
    fn reserve(&mut self, wanted: usize) {
        reserve(&mut self.bytes, wanted, self.limit);
        reserve(&mut self.entries, 1, self.limit / LINE_COST);
    }
}

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
        buffer.bytes.capacity() + buffer.entries.capacity() * LINE_COST
    }

    fn push(buffer: &mut Buffer, bytes: &[u8]) {
        buffer.push(Stream::Out, 0, bytes, false);
    }

    #[test]
    fn numbers_go_on_after_old_lines_are_forgotten() {
        let mut buffer = Buffer::new(3 * (LINE_COST + 5));
        for number in 0..10 {
            push(&mut buffer, format!("line{number}").as_bytes());
        }
        assert_eq!(buffer.held(), 7..10);
        let lines = buffer.copy(0, usize::MAX, usize::MAX);
        let read: Vec<_> = lines.iter().map(|line| (line.number, &*line.bytes)).collect();
        assert_eq!(read, [(7, &b"line7"[..]), (8, b"line8"), (9, b"line9")]);
        assert_eq!(buffer.copy(8, 1, usize::MAX)[0].number, 8);
        assert!(buffer.copy(10, 1, usize::MAX).is_empty());
    }

    #[test]
    fn empty_lines_use_up_the_limit_too() {
        let mut buffer = Buffer::new(100 * LINE_COST);
        for _ in 0..1_000 {
            push(&mut buffer, b"");
        }
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

    proptest! {
        #[test]
        fn held_lines_are_always_the_newest_and_unchanged(
            limit in 0usize..3_000,
            later in 0usize..3_000,
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..100),
        ) {
            let mut buffer = Buffer::new(limit);
            let resize_at = lines.len() / 2;
            for (index, line) in lines.iter().enumerate() {
                if index == resize_at {
                    buffer.resize(later);
                }
                buffer.push(Stream::Err, index as i64, line, index.is_multiple_of(2));
                let current = if index < resize_at { limit } else { later };
                prop_assert!(memory(&buffer) <= 2 * current.max(limit).max(100 + LINE_COST) + LINE_COST);
            }
            let held = buffer.held();
            prop_assert_eq!(held.end, lines.len() as u64);
            prop_assert!(!held.is_empty());
            let read = buffer.copy(0, usize::MAX, usize::MAX);
            prop_assert_eq!(read.len() as u64, held.end - held.start);
            for line in read {
                let index = line.number as usize;
                prop_assert_eq!(&*line.bytes, &lines[index][..]);
                prop_assert_eq!((line.unix_ms, line.partial), (index as i64, index.is_multiple_of(2)));
            }
            let room = held.start > 0 && {
                let newer: usize = lines[held.start as usize..].iter().map(|line| line.len() + LINE_COST).sum();
                newer + lines[held.start as usize - 1].len() + LINE_COST <= limit.min(later)
            };
            prop_assert!(!room, "a line was forgotten although it fitted");
        }
    }
}
