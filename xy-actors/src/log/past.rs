//! Reads a log's files, across rotation and earlier runs of the host, with memory for one block.

use std::io;
use std::ops::ControlFlow;

use memchr::{memchr, memrchr};

use super::file::PastFile;
use super::lines::MAX_LINE;
use super::query::{Locator, LogQuery};
use super::record::{LogLine, Record};

/// How much is read at once: more than two records.
const BLOCK: usize = 160 << 10;

/// How much is read for one batch if its lines are not long.
const PIECE: usize = 32 << 10;

/// How much is searched before a batch is returned although nothing was found.
const SEARCHED: u64 = 4 << 20;

/// The most lines of one batch, and the size from which it gets no further line.
const BATCH_LINES: usize = 1_024;
const BATCH_BYTES: usize = 256 << 10;

/// A log's files as they were before line `next` was added.
#[derive(Debug)]
pub(crate) struct Past {
    pub(crate) next: u64,
    /// Newest first, with the sizes they had.
    pub(crate) files: Vec<PastFile>,
    /// The first line from which on the files have every one; [`u64::MAX`] while they are failing.
    pub(crate) complete_from: u64,
    /// Whether the files have every line that memory holds.
    pub(crate) is_complete: bool,
}

/// A place in the files: how many newer files there are, and an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    file: usize,
    offset: u64,
}

/// A piece of the files that has not been read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    from: Place,
    to: Place,
    /// The number of its first line, if it is known.
    number: Option<u64>,
}

impl Stretch {
    /// Returns the number of its first line, if it is known.
    pub(crate) fn number(&self) -> Option<u64> {
        self.number
    }
}

impl Past {
    /// Finds the lines of a query; this blocks on the disk.
    pub(crate) fn locate(&self, query: &LogQuery) -> io::Result<Stretch> {
        let newest = Place { file: 0, offset: self.files.first().map_or(0, PastFile::size) };
        let oldest = Place { file: self.files.len().saturating_sub(1), offset: 0 };
        if query.is_plain() && query.tail.is_none() {
            return Ok(Stretch { from: oldest, to: newest, number: None });
        }
        let mut locator = Locator::new(query);
        self.visit_backwards(&mut |record, place| locator.see(record, place))?;
        let to = locator.end.unwrap_or(newest);
        Ok(Stretch { from: locator.start.unwrap_or(to), to, number: None })
    }

    /// Finds the lines from number `first` on; none if the files do not hold all of them. This blocks on the disk.
    pub(crate) fn locate_number(&self, first: u64) -> io::Result<Option<Stretch>> {
        if first < self.complete_from {
            return Ok(None);
        }
        let wanted = usize::try_from(self.next.saturating_sub(first)).unwrap_or(usize::MAX);
        let query = LogQuery { tail: Some(wanted), ..LogQuery::default() };
        let mut locator = Locator::new(&query);
        self.visit_backwards(&mut |record, place| locator.see(record, place))?;
        let to = Place { file: 0, offset: self.files.first().map_or(0, PastFile::size) };
        let from = locator.start.filter(|_| locator.found == wanted);
        Ok(from.map(|from| Stretch { from, to, number: Some(first) }))
    }

    /// Shows every record, from the newest on, until `visit` breaks; what is no record is passed over.
    pub(super) fn visit_backwards(
        &self,
        visit: &mut dyn FnMut(Record<'_>, Place) -> ControlFlow<()>,
    ) -> io::Result<()> {
        for (index, file) in self.files.iter().enumerate() {
            let read = |buffer: &mut [u8], at| file.read_exact_at(buffer, at);
            let flow = backwards(file.size(), read, &mut |record, offset| match Record::parse(record) {
                Some(record) => visit(record, Place { file: index, offset }),
                None => ControlFlow::Continue(()),
            });
            match flow {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break,
                // It was deleted meanwhile, and with it all that are older.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads some more lines of a stretch that a query wants, and shortens it; `None` if it is empty. This blocks on the
    /// disk.
    pub(crate) fn batch(&self, stretch: &mut Stretch, query: &LogQuery) -> io::Result<Option<Vec<LogLine>>> {
        let (mut lines, mut bytes, mut searched) = (Vec::new(), 0, 0);
        while searched < SEARCHED && lines.len() < BATCH_LINES && bytes < BATCH_BYTES {
            let Place { file: index, offset } = stretch.from;
            let is_last = index == stretch.to.file;
            let Some(file) = self.files.get(index) else { break };
            let end = if is_last { stretch.to.offset } else { file.size() };
            if offset >= end {
                if is_last || index == 0 {
                    break;
                }
                stretch.from = Place { file: index - 1, offset: 0 };
                continue;
            }
            let left = |most: usize| usize::try_from(end - offset).map_or(most, |left| left.min(most));
            let mut block = vec![0; left(PIECE)];
            match file.read_exact_at(&mut block, offset) {
                Ok(()) => {}
                // It was deleted meanwhile: whoever begins to read now finds what is left, too.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && stretch.number.is_none() && !is_last =>
                {
                    stretch.from = Place { file: index - 1, offset: 0 };
                    continue;
                }
                Err(error) => return Err(error),
            }
            if memchr(b'\n', &block).is_none() {
                block.resize(left(BLOCK), 0);
                file.read_exact_at(&mut block, offset)?;
            }
            let mut start = 0;
            while start < block.len() && lines.len() < BATCH_LINES && bytes < BATCH_BYTES {
                let stop = match memchr(b'\n', &block[start..]) {
                    Some(newline) => start + newline,
                    // The rest of this record is in the next block.
                    None if start > 0 && offset + (block.len() as u64) < end => break,
                    // The end of the file, or no record of ours.
                    None => block.len(),
                };
                if let Some(record) = Record::parse(&block[start..stop]) {
                    let number = stretch.number.unwrap_or(0);
                    if query.accepts(record) {
                        bytes += record.bytes.len();
                        lines.push(record.line(number));
                    }
                    stretch.number = stretch.number.map(|number| number + 1);
                }
                start = (stop + 1).min(block.len());
            }
            stretch.from.offset += start as u64;
            searched += start as u64;
        }
        Ok((searched > 0).then_some(lines))
    }
}

/// Shows what stands between newlines in a file, from its end on, with the offsets.
fn backwards(
    size: u64,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    visit: &mut dyn FnMut(&[u8], u64) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut end = size;
    // The later part of a record whose beginning was not read yet.
    let mut rest = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let mut block = vec![0; (end - start) as usize];
        read(&mut block, start)?;
        block.append(&mut rest);
        end = start;
        let whole = if start == 0 { Some(0) } else { memchr(b'\n', &block).map(|newline| newline + 1) };
        match whole {
            Some(whole) => {
                let mut stop = block.len();
                while stop > whole {
                    let text = stop - usize::from(block[stop - 1] == b'\n');
                    let begin = memrchr(b'\n', &block[whole..text]).map_or(whole, |at| whole + at + 1);
                    if visit(&block[begin..text], start + begin as u64).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    stop = begin;
                }
                block.truncate(whole);
                rest = block;
            }
            // No record of ours is that long.
            None if block.len() > 2 * MAX_LINE => {}
            None => rest = block,
        }
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::query::LinePattern;
    use super::super::record::{Stamp, Stream};
    use super::*;

    /// Files with these contents, newest first.
    fn past(contents: &[&[u8]]) -> Past {
        let file = |content: &&[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(content).unwrap();
            PastFile::held(file, content.len() as u64)
        };
        let files = contents.iter().map(file).collect();
        Past { next: 0, files, complete_from: 0, is_complete: true }
    }

    fn read(past: &Past, query: &LogQuery) -> Vec<Vec<u8>> {
        let mut stretch = past.locate(query).unwrap();
        let mut lines = Vec::new();
        while let Some(batch) = past.batch(&mut stretch, query).unwrap() {
            assert!(batch.len() <= BATCH_LINES);
            lines.extend(batch.into_iter().map(|line| Vec::from(line.bytes)));
        }
        lines
    }

    fn tail(n: usize) -> LogQuery {
        LogQuery { tail: Some(n), ..LogQuery::default() }
    }

    #[test]
    fn records_are_found_wherever_blocks_are_cut() {
        for length in [0, 1, 10, 1_000, BLOCK - 30, BLOCK - 29, BLOCK - 28, MAX_LINE] {
            let count = 400_000 / (length + 20) + 3;
            let line = |line| [format!("{line} ").as_bytes(), &b"x".repeat(length)].concat();
            let lines: Vec<Vec<u8>> =
                (0..count).map(line).map(|line| line[..line.len().min(MAX_LINE)].to_vec()).collect();
            let (mut older, mut newer) = (Vec::new(), Vec::new());
            for (index, line) in lines.iter().enumerate() {
                let file = if index < count / 2 { &mut older } else { &mut newer };
                Stamp::at(0).record(Stream::Out, false, line, file);
            }
            for past in [past(&[&newer, &older]), past(&[b"", &newer, b"", &older])] {
                for n in [0, 1, 2, count / 2, count / 2 + 1, count - 1, count, count + 1] {
                    assert!(
                        read(&past, &tail(n)) == lines[count.saturating_sub(n)..],
                        "{n} of length {length}"
                    );
                }
                assert!(read(&past, &LogQuery::default()) == lines);
            }
        }
    }

    #[test]
    fn what_is_no_record_is_passed_over() {
        let mut file = vec![b'x'; 5 * BLOCK];
        file.push(b'\n');
        Stamp::at(0).record(Stream::Out, false, b"one", &mut file);
        file.extend(b"2026-03-01T09:\n");
        Stamp::at(0).record(Stream::Out, false, b"two", &mut file);
        file.extend(b"2026-03-01T09:30:00.250Z out to");
        for query in [tail(10), LogQuery::default()] {
            assert_eq!(read(&past(&[&file]), &query), [&b"one"[..], b"two", b"to"]);
        }
        assert!(read(&past(&[]), &tail(10)).is_empty());
        assert!(read(&past(&[b""]), &LogQuery::default()).is_empty());
    }

    #[test]
    fn a_few_matches_among_many_lines_are_found_and_only_they_are_held() {
        let mut file = Vec::new();
        for number in 0..200_000 {
            Stamp::at(number).record(Stream::Out, false, number.to_string().as_bytes(), &mut file);
        }
        let past = past(&[&file]);
        let pattern = Some(LinePattern::new("7777$").unwrap());
        let query = LogQuery { pattern, tail: Some(3), ..LogQuery::default() };
        assert_eq!(read(&past, &query), [b"177777", b"187777", b"197777"]);
        let query = LogQuery { since_unix_ms: Some(199_998), ..LogQuery::default() };
        assert_eq!(read(&past, &query), [b"199998", b"199999"]);
        let query = LogQuery { until_unix_ms: Some(100_000), tail: Some(1), ..LogQuery::default() };
        assert_eq!(read(&past, &query), [b"99999"]);
    }

    #[test]
    fn lines_are_found_by_number_or_not_at_all() {
        let mut file = Vec::new();
        for number in 5..10 {
            Stamp::at(0).record(Stream::Out, false, number.to_string().as_bytes(), &mut file);
        }
        let past = Past { next: 10, ..past(&[&file]) };
        let mut stretch = past.locate_number(7).unwrap().unwrap();
        let lines = past.batch(&mut stretch, &LogQuery::default()).unwrap().unwrap();
        let lines: Vec<_> = lines.iter().map(|line| (line.number, &*line.bytes)).collect();
        assert_eq!(lines, [(7, &b"7"[..]), (8, b"8"), (9, b"9")]);
        assert_eq!(past.locate_number(4).unwrap(), None);
        let past = Past { complete_from: 8, ..past };
        assert!(past.locate_number(8).unwrap().is_some());
        assert_eq!(past.locate_number(7).unwrap(), None, "nobody knows which is the seventh");
    }
}
