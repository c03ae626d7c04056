//! The starts and exits of incarnations, as lines between the output; pure.

use std::fmt;

use super::record::{LogLine, Record, Stream};

/// A remark of stream [`Stream::Xy`] that says where an incarnation begins or ends.
///
/// ```
/// use xy_actors::log::{LogLine, Marker};
///
/// let line = LogLine::parse(b"2026-03-01T09:30:00.250Z xy exited: incarnation 3, pid 42: exit code 1", 7);
/// let marker = line.as_ref().and_then(Marker::of).ok_or("no marker")?;
/// assert!(matches!(marker, Marker::Exited { incarnation: 3, pid: 42, cause: "exit code 1" }));
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker<'a> {
    /// What follows is the output of this incarnation.
    Started {
        /// The number of the start; it counts from 1 in each run of the host.
        incarnation: u64,
        /// The main process.
        pid: u32,
    },
    /// The output of this incarnation is complete.
    Exited {
        /// The number of the start.
        incarnation: u64,
        /// The main process.
        pid: u32,
        /// How it ended.
        cause: &'a str,
    },
}

impl<'a> Marker<'a> {
    /// Reads the marker that a line is; `None` for output and for other remarks.
    pub fn of(line: &'a LogLine) -> Option<Self> {
        Self::of_record(Record::of(line))
    }

    pub(super) fn of_record(record: Record<'a>) -> Option<Self> {
        if record.stream != Stream::Xy || record.partial {
            return None;
        }
        Self::parse(std::str::from_utf8(record.bytes).ok()?)
    }

    pub(super) fn is_start(record: Record<'_>) -> bool {
        matches!(Marker::of_record(record), Some(Marker::Started { .. }))
    }

    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (word, rest) = text.split_once(": incarnation ")?;
        let (incarnation, rest) = rest.split_once(", pid ")?;
        let incarnation = incarnation.parse().ok()?;
        match word {
            "started" => Some(Self::Started { incarnation, pid: rest.parse().ok()? }),
            "exited" => {
                let (pid, cause) = rest.split_once(": ")?;
                Some(Self::Exited { incarnation, pid: pid.parse().ok()?, cause })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Marker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { incarnation, pid } => {
                write!(f, "started: incarnation {incarnation}, pid {pid}")
            }
            Self::Exited { incarnation, pid, cause } => {
                write!(f, "exited: incarnation {incarnation}, pid {pid}: {cause}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stream: Stream, text: &str) -> LogLine {
        LogLine { number: 0, stream, unix_ms: 0, bytes: text.as_bytes().into(), partial: false }
    }

    #[test]
    fn a_marker_reads_back_as_what_it_was() {
        for marker in [
            Marker::Started { incarnation: 1, pid: 4_242 },
            Marker::Exited { incarnation: u64::MAX, pid: 1, cause: "signal 9: it was, pid 7: killed" },
            Marker::Exited { incarnation: 2, pid: 1, cause: "" },
        ] {
            let line = line(Stream::Xy, &marker.to_string());
            assert_eq!(Marker::of(&line), Some(marker));
        }
    }

    #[test]
    fn output_that_looks_like_a_marker_is_none() {
        let marker = Marker::Started { incarnation: 1, pid: 4_242 }.to_string();
        assert_eq!(Marker::of(&line(Stream::Out, &marker)), None);
        assert_eq!(Marker::of(&LogLine { partial: true, ..line(Stream::Xy, &marker) }), None);
        for text in [
            "",
            "started",
            "started: incarnation x, pid 1",
            "exited: incarnation 1, pid 1",
            "5 lines dropped: full",
        ] {
            assert_eq!(Marker::of(&line(Stream::Xy, text)), None, "{text}");
        }
    }
}
