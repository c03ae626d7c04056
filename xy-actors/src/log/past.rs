//! Reads the newest lines back from files, across rotation and earlier runs of the host.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use memchr::memchr;

use super::lines::MAX_LINE;
use super::record::LogLine;

/// How much is read at once.
const BLOCK: usize = 64 << 10;

/// What [`Log::tail_with_files`](super::Log::tail_with_files) found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The lines, oldest first.
    pub lines: Vec<LogLine>,
    /// The number of the line after them, for [`Cursor::At`](super::Cursor::At).
    pub next: u64,
    /// Whether the lines come from files, where they have no numbers: then the number of each is 0.
    pub from_files: bool,
}

/// A log's files as they were before line `next` was added.
#[derive(Debug)]
pub(crate) struct Past {
    pub(crate) next: u64,
    /// Newest first, with the sizes they had.
    pub(crate) files: Vec<(File, u64)>,
}

impl Past {
    /// Reads the last `n` lines; this blocks on the disk.
    pub(crate) fn tail(&self, n: usize) -> io::Result<Tail> {
        let mut lines = Vec::new();
        for (file, size) in &self.files {
            read_backwards(*size, |buffer, at| file.read_exact_at(buffer, at), n, &mut lines)?;
        }
        lines.reverse();
        Ok(Tail { lines, next: self.next, from_files: true })
    }
}

/// Appends the last lines of a file, newest first, until there are `n`; what is no record is passed over.
fn read_backwards(
    size: u64,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    n: usize,
    lines: &mut Vec<LogLine>,
) -> io::Result<()> {
    let mut end = size;
    // The later part of a record whose beginning was not read yet.
    let mut rest = Vec::new();
    while end > 0 && lines.len() < n {
        let start = end.saturating_sub(BLOCK as u64);
        let mut block = vec![0; (end - start) as usize];
        read(&mut block, start)?;
        block.append(&mut rest);
        end = start;
        let whole = if start == 0 { Some(0) } else { memchr(b'\n', &block).map(|newline| newline + 1) };
        match whole {
            Some(whole) => {
                let records = block[whole..].rsplit(|byte| *byte == b'\n');
                let room = n - lines.len();
                lines.extend(records.filter_map(|record| LogLine::parse(record, 0)).take(room));
                block.truncate(whole);
                rest = block;
            }
            // No record of ours is that long.
            None if block.len() > 2 * MAX_LINE => {}
            None => rest = block,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::record::{Stamp, Stream};
    use super::*;

    fn tail(file: &[u8], n: usize) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let read = |buffer: &mut [u8], at: u64| {
            buffer.copy_from_slice(&file[at as usize..][..buffer.len()]);
            Ok(())
        };
        read_backwards(file.len() as u64, read, n, &mut lines).unwrap();
        lines.into_iter().rev().map(|line| line.bytes.into()).collect()
    }

    #[test]
    fn records_are_found_wherever_blocks_are_cut() {
        for length in [0, 1, 10, 1_000, BLOCK - 30, BLOCK - 28, BLOCK - 29, MAX_LINE] {
            let lines: Vec<Vec<u8>> = (0..200_000 / (length + 20) + 3)
                .map(|line| [format!("{line} ").as_bytes(), &b"x".repeat(length)].concat())
                .map(|line| line[..line.len().min(MAX_LINE)].to_vec())
                .collect();
            let mut file = Vec::new();
            for line in &lines {
                Stamp::at(0).record(Stream::Out, false, line, &mut file);
            }
            for n in [0, 1, 2, lines.len() - 1, lines.len(), lines.len() + 1] {
                assert!(tail(&file, n) == lines[lines.len().saturating_sub(n)..], "{n} of length {length}");
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
        assert_eq!(tail(&file, 10), [b"one", b"two"]);
        assert!(tail(b"", 10).is_empty());
    }
}
