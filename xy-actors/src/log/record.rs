//! One line of output: as a value, and as the record it becomes in a file.

use std::fmt;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use memchr::memchr_iter;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Stream {
    /// The child's standard output.
    Out,
    /// The child's standard error.
    Err,
    /// Notes by xy itself: starts, exits, dropped lines.
    Xy,
}

impl Stream {
    /// Returns the name used in files and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Err => "err",
            Self::Xy => "xy",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One line of a child's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Its number within the log, counted from 0 since the log was opened.
    pub number: u64,
    /// Where it came from.
    pub stream: Stream,
    /// When it was read, in milliseconds since the Unix epoch.
    pub unix_ms: i64,
    /// The bytes as the child wrote them, without the newline.
    pub bytes: Box<[u8]>,
    /// Whether no newline followed: the line goes on in the stream's next line, or the stream ended here.
    pub partial: bool,
}

impl LogLine {
    /// Reads a line of a log file back, without its newline; `None` if it is not a whole record.
    ///
    /// Files hold no numbers, so the caller gives one.
    ///
    /// ```
    /// use xy_actors::log::{LogLine, Stream};
    ///
    /// let line = LogLine::parse(b"2026-03-01T09:30:00.250Z err+ half a li", 7);
    /// let line = line.ok_or("not a record")?;
    /// assert_eq!((line.number, line.stream, line.partial), (7, Stream::Err, true));
    /// assert_eq!(&*line.bytes, b"half a li");
    /// # Ok::<(), &str>(())
    /// ```
    pub fn parse(record: &[u8], number: u64) -> Option<Self> {
        Record::parse(record).map(|record| record.line(number))
    }
}

/// A line of a log file, without its newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) unix_ms: i64,
    pub(crate) stream: Stream,
    pub(crate) partial: bool,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads a record; `None` if it is not a whole one.
    pub(crate) fn parse(record: &'a [u8]) -> Option<Self> {
        let (time, rest) = record.split_at_checked(Stamp::LENGTH)?;
        let unix_ms = Stamp::parse(time)?;
        let rest = rest.strip_prefix(b" ")?;
        let (stream, rest) = [Stream::Out, Stream::Err, Stream::Xy]
            .into_iter()
            .find_map(|stream| Some((stream, rest.strip_prefix(stream.as_str().as_bytes())?)))?;
        let (partial, rest) = match rest.strip_prefix(b"+") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        Some(Self { unix_ms, stream, partial, bytes: rest.strip_prefix(b" ")? })
    }

    /// Returns the record that a line would be.
    pub(crate) fn of(line: &'a LogLine) -> Self {
        let LogLine { stream, unix_ms, ref bytes, partial, .. } = *line;
        Self { unix_ms, stream, partial, bytes }
    }

    /// Copies it as a line with a number.
    pub(crate) fn line(self, number: u64) -> LogLine {
        let Self { unix_ms, stream, partial, bytes } = self;
        LogLine { number, stream, unix_ms, bytes: bytes.into(), partial }
    }
}

/// The time of one batch of lines, as number and as text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) unix_ms: i64,
    text: [u8; Self::LENGTH],
}

impl Stamp {
    /// The length of an RFC 3339 time in UTC with milliseconds.
    pub(crate) const LENGTH: usize = "2026-03-01T09:30:00.250Z".len();

    /// Returns the stamp of a moment; one before 1970 or too far away counts as the epoch.
    pub(crate) fn at(unix_ms: i64) -> Self {
        let time = jiff::Timestamp::from_millisecond(unix_ms.max(0)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let mut text = [b' '; Self::LENGTH];
        // A time between the years 1970 and 9999 has exactly this length.
        let written = write!(&mut text[..], "{time:.3}");
        debug_assert!(written.is_ok() && text[Self::LENGTH - 1] == b'Z');
        Self { unix_ms: time.as_millisecond(), text }
    }

    /// Reads the text of a stamp as milliseconds since the Unix epoch.
    pub(crate) fn parse(text: &[u8]) -> Option<i64> {
        let time: jiff::Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
        Some(time.as_millisecond())
    }

    /// Returns the stamp of this moment by the wall clock.
    pub(crate) fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::at(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// Appends the records of whole lines, each with its newline; returns how many lines there are.
    pub(crate) fn records(&self, stream: Stream, lines: &[u8], into: &mut Vec<u8>) -> u64 {
        let mut prefix = self.text.to_vec();
        prefix.push(b' ');
        prefix.extend_from_slice(stream.as_str().as_bytes());
        prefix.push(b' ');
        let (mut start, mut count) = (0, 0);
        for end in memchr_iter(b'\n', lines) {
            into.extend_from_slice(&prefix);
            into.extend_from_slice(&lines[start..=end]);
            start = end + 1;
            count += 1;
        }
        count
    }

    /// Appends one record: time, stream (with `+` if partial), bytes, newline.
    pub(crate) fn record(&self, stream: Stream, partial: bool, bytes: &[u8], into: &mut Vec<u8>) {
        into.extend_from_slice(&self.text);
        into.push(b' ');
        into.extend_from_slice(stream.as_str().as_bytes());
        into.extend_from_slice(if partial { b"+ " } else { b" " });
        into.extend_from_slice(bytes);
        into.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_the_line_it_was() {
        let bytes: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
        for stream in [Stream::Out, Stream::Err, Stream::Xy] {
            for partial in [false, true] {
                let mut record = Vec::new();
                Stamp::at(1_772_357_400_250).record(stream, partial, &bytes, &mut record);
                assert_eq!(record.pop(), Some(b'\n'));
                let line = LogLine {
                    number: 3,
                    stream,
                    unix_ms: 1_772_357_400_250,
                    bytes: bytes.clone().into(),
                    partial,
                };
                assert_eq!(LogLine::parse(&record, 3), Some(line));
            }
        }
    }

    #[test]
    fn records_of_many_lines_are_those_of_each() {
        let stamp = Stamp::at(1_772_357_400_250);
        for lines in [&b""[..], b"\n", b"one\n", b"one\n\ntwo\n"] {
            let (mut together, mut one_by_one) = (Vec::new(), Vec::new());
            let count = stamp.records(Stream::Xy, lines, &mut together);
            let split = lines.split_inclusive(|byte| *byte == b'\n');
            let each =
                split.map(|line| stamp.record(Stream::Xy, false, &line[..line.len() - 1], &mut one_by_one));
            assert_eq!(count, each.count() as u64);
            assert_eq!(together, one_by_one);
        }
    }

    #[test]
    fn the_format_of_a_record_is_fixed() {
        let mut record = Vec::new();
        Stamp::at(1_772_357_400_250).record(Stream::Out, false, b"hello", &mut record);
        Stamp::at(0).record(Stream::Err, true, b"", &mut record);
        assert_eq!(record, b"2026-03-01T09:30:00.250Z out hello\n1970-01-01T00:00:00.000Z err+ \n");
    }

    #[test]
    fn what_is_no_record_is_not_read_as_one() {
        let mut record = Vec::new();
        Stamp::at(5).record(Stream::Out, false, b"", &mut record);
        record.pop();
        assert!(LogLine::parse(&record, 0).is_some());
        for end in 0..record.len() {
            assert_eq!(LogLine::parse(&record[..end], 0), None, "cut at {end}");
        }
        assert_eq!(LogLine::parse(b"2026-03-01T09:30:00.250Z in hello", 0), None);
        assert_eq!(LogLine::parse(b"2026-03-41T09:30:00.250Z out hello", 0), None);
    }

    #[test]
    fn impossible_times_still_make_records_of_fixed_width() {
        for unix_ms in [i64::MIN, -1, i64::MAX] {
            assert_eq!(Stamp::at(unix_ms).unix_ms, 0);
            assert_eq!(Stamp::at(unix_ms).text, *b"1970-01-01T00:00:00.000Z");
        }
    }
}
