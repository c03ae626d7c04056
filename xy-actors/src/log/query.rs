//! Which lines of a log are wanted, and where they begin; pure.

use std::ops::ControlFlow;

use super::marker::Marker;
use super::record::{LogLine, Record, Stream};
use crate::process::readiness::{self, LogPattern};

/// After so many lines in a row that are too old, the rest is taken to be older still.
///
/// The times are those of a wall clock, which may have been set back for a moment.
const OLD_ENOUGH: usize = 1_024;

/// Which lines [`Log::read`](super::Log::read) returns: those that all of its conditions hold for.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// At most this many of the past, the newest ones; all if not given.
    pub tail: Option<usize>,
    /// Not older than this, in milliseconds since the Unix epoch.
    pub since_unix_ms: Option<i64>,
    /// Older than this, in milliseconds since the Unix epoch. It ends the past and does not limit what follows.
    pub until_unix_ms: Option<i64>,
    /// Only those of the incarnation before the latest one, its markers included.
    pub previous: bool,
    /// Matched by this pattern.
    pub pattern: Option<LinePattern>,
    /// Whether new lines follow the past, without a hole between them.
    pub follow: bool,
    /// Only what the child wrote: remarks of [`Stream::Xy`] are left out, and do not count.
    pub output_only: bool,
}

/// A regular expression for lines, matched in time linear in their length.
///
/// Its syntax and what it matches are those of the [`LogPattern`] that proves readiness.
#[derive(Debug, Clone)]
pub struct LinePattern(LogPattern);

/// Why a text is no [`LinePattern`].
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{pattern}` is not a regular expression that can be used")]
pub struct PatternError {
    pattern: String,
    #[source]
    source: readiness::PatternError,
}

impl LinePattern {
    /// Reads a regular expression.
    ///
    /// # Errors
    ///
    /// [`PatternError`] if it is none, or if it is too large.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let compiled = LogPattern::new(pattern);
        compiled.map(Self).map_err(|source| PatternError { pattern: pattern.to_owned(), source })
    }

    /// Returns whether it matches somewhere in a line.
    pub fn matches(&self, line: &[u8]) -> bool {
        self.0.is_match(line)
    }
}

impl LogQuery {
    /// Returns whether a line of the past is wanted, its place aside.
    pub(super) fn accepts(&self, record: Record<'_>) -> bool {
        self.since_unix_ms.is_none_or(|since| record.unix_ms >= since)
            && self.until_unix_ms.is_none_or(|until| record.unix_ms < until)
            && self.matches(record)
    }

    /// Returns whether a new line is wanted.
    pub(super) fn matches(&self, record: Record<'_>) -> bool {
        !(self.output_only && record.stream == Stream::Xy)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.matches(record.bytes))
    }

    /// Returns what is wanted of the files before a time, if memory has told of what is newer, and had so many lines of it;
    /// `None` if that cannot be said.
    pub(super) fn before(&self, unix_ms: i64, found: usize) -> Option<Self> {
        let until = self.until_unix_ms.map_or(unix_ms, |until| until.min(unix_ms));
        let tail = self.tail.map(|tail| tail.saturating_sub(found));
        (!self.previous).then(|| Self { tail, until_unix_ms: Some(until), ..self.clone() })
    }

    /// Returns what of it still holds for the lines that follow the past.
    pub(super) fn of_what_follows(&self) -> Self {
        let Self { ref pattern, follow, output_only, .. } = *self;
        Self { pattern: pattern.clone(), follow, output_only, ..Self::default() }
    }

    /// Returns how many of the newest lines may show all that is wanted; `None` if that takes the oldest ones, too.
    pub(super) fn most_of_memory(&self) -> Option<usize> {
        match self.tail {
            Some(tail) if self.is_plain() => Some(tail),
            _ if self.tail.is_some() || self.since_unix_ms.is_some() || self.previous => Some(usize::MAX),
            _ => None,
        }
    }

    /// Returns whether the newest lines are wanted, whatever they are.
    pub(super) fn is_plain(&self) -> bool {
        !self.previous
            && !self.output_only
            && self.pattern.is_none()
            && self.since_unix_ms.is_none()
            && self.until_unix_ms.is_none()
    }
}

/// Finds where the lines of a query begin and end: it is shown the lines from the newest on, with their places.
#[derive(Debug)]
pub(super) struct Locator<'a, P> {
    query: &'a LogQuery,
    starts: usize,
    old: usize,
    /// How many wanted lines were seen.
    pub(super) found: usize,
    /// The place of the oldest wanted line so far.
    pub(super) start: Option<P>,
    /// The place after the newest line that can be wanted, if that is not the end.
    pub(super) end: Option<P>,
}

impl<'a, P: Copy> Locator<'a, P> {
    pub(super) fn new(query: &'a LogQuery) -> Self {
        Self { query, starts: 0, old: 0, found: 0, start: None, end: None }
    }

    /// Looks at the next older line; breaks when no further one can be wanted.
    pub(super) fn see(&mut self, record: Record<'_>, place: P) -> ControlFlow<()> {
        if self.query.tail.is_some_and(|tail| self.found >= tail) {
            return ControlFlow::Break(());
        }
        if self.query.previous {
            if record.stream == Stream::Xy && Marker::is_start(record) {
                self.starts += 1;
                if self.starts == 1 {
                    self.end = Some(place);
                    return ControlFlow::Continue(());
                }
            }
            if self.starts == 0 {
                return ControlFlow::Continue(());
            }
        }
        if self.query.since_unix_ms.is_some_and(|since| record.unix_ms < since) {
            self.old += 1;
            return if self.old < OLD_ENOUGH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        }
        self.old = 0;
        if self.query.accepts(record) {
            self.found += 1;
            self.start = Some(place);
        }
        if self.starts == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Returns those of the newest lines, oldest first, that a query wants, and whether no older ones can be wanted.
pub(super) fn select(query: &LogQuery, mut lines: Vec<LogLine>) -> (Vec<LogLine>, bool) {
    let mut locator = Locator::new(query);
    let has_ended =
        lines.iter().enumerate().rev().any(|(index, line)| locator.see(Record::of(line), index).is_break());
    let is_filled = query.tail.is_some_and(|tail| locator.found >= tail);
    let is_old = |line: &LogLine| query.since_unix_ms.is_some_and(|since| line.unix_ms < since);
    let is_all = has_ended || is_filled || lines.first().is_some_and(is_old);
    let Some(start) = locator.start else { return (Vec::new(), is_all) };
    lines.truncate(locator.end.unwrap_or(lines.len()));
    lines.drain(..start);
    lines.retain(|line| query.accepts(Record::of(line)));
    (lines, is_all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<LogLine> {
        let line = |(index, text): (usize, &&str)| LogLine {
            number: index as u64,
            stream: if text.contains(": incarnation") { Stream::Xy } else { Stream::Out },
            unix_ms: index as i64 * 10,
            bytes: text.as_bytes().into(),
            partial: false,
        };
        texts.iter().enumerate().map(line).collect()
    }

    fn selected(query: &LogQuery, texts: &[&str]) -> Vec<u64> {
        select(query, lines(texts)).0.iter().map(|line| line.number).collect()
    }

    const RUNS: [&str; 9] = [
        "old",
        "started: incarnation 1, pid 5",
        "one",
        "exited: incarnation 1, pid 5: exit code 1",
        "started: incarnation 2, pid 6",
        "two",
        "exited: incarnation 2, pid 6: exit code 1",
        "started: incarnation 3, pid 7",
        "three",
    ];

    #[test]
    fn each_condition_limits_what_is_returned_and_all_hold() {
        let pattern = |text| Some(LinePattern::new(text).unwrap());
        let all = LogQuery::default();
        let cases = [
            (all.clone(), vec![0, 1, 2, 3, 4, 5, 6, 7, 8]),
            (LogQuery { tail: Some(0), ..all.clone() }, vec![]),
            (LogQuery { tail: Some(2), ..all.clone() }, vec![7, 8]),
            (LogQuery { since_unix_ms: Some(70), ..all.clone() }, vec![7, 8]),
            (LogQuery { until_unix_ms: Some(20), ..all.clone() }, vec![0, 1]),
            (LogQuery { until_unix_ms: Some(20), tail: Some(1), ..all.clone() }, vec![1]),
            (LogQuery { pattern: pattern("^(one|two)$"), ..all.clone() }, vec![2, 5]),
            (LogQuery { pattern: pattern("(?i)^T"), tail: Some(1), ..all.clone() }, vec![8]),
            (LogQuery { previous: true, ..all.clone() }, vec![4, 5, 6]),
            (LogQuery { previous: true, tail: Some(2), ..all.clone() }, vec![5, 6]),
            (LogQuery { output_only: true, ..all.clone() }, vec![0, 2, 5, 8]),
            (LogQuery { output_only: true, tail: Some(3), ..all.clone() }, vec![2, 5, 8]),
            (LogQuery { output_only: true, previous: true, ..all.clone() }, vec![5]),
            (LogQuery { output_only: true, pattern: pattern("i"), ..all.clone() }, vec![]),
            (LogQuery { previous: true, pattern: pattern("t"), since_unix_ms: Some(50), ..all }, vec![5, 6]),
        ];
        for (query, expected) in cases {
            assert_eq!(selected(&query, &RUNS), expected, "{query:?}");
        }
    }

    #[test]
    fn without_an_earlier_start_the_previous_incarnation_is_what_is_there_or_nothing() {
        let previous = LogQuery { previous: true, ..LogQuery::default() };
        assert_eq!(selected(&previous, &RUNS[2..6]), [0, 1]);
        assert_eq!(selected(&previous, &RUNS[7..]), [] as [u64; 0]);
        assert_eq!(selected(&previous, &RUNS[8..]), [] as [u64; 0]);
    }

    #[test]
    fn a_clock_that_was_set_back_hides_nothing() {
        let mut lines = lines(&RUNS);
        lines[4].unix_ms = 0;
        let query = LogQuery { since_unix_ms: Some(30), ..LogQuery::default() };
        let selected: Vec<u64> = select(&query, lines).0.iter().map(|line| line.number).collect();
        assert_eq!(selected, [3, 5, 6, 7, 8]);
    }

    #[test]
    fn whether_older_lines_can_be_wanted_is_known() {
        let all = LogQuery::default();
        for (query, is_all) in [
            (all.clone(), false),
            (LogQuery { tail: Some(9), ..all.clone() }, true),
            (LogQuery { tail: Some(10), ..all.clone() }, false),
            (LogQuery { tail: Some(4), output_only: true, ..all.clone() }, true),
            (LogQuery { tail: Some(5), output_only: true, ..all.clone() }, false),
            (LogQuery { since_unix_ms: Some(0), ..all.clone() }, false),
            (LogQuery { since_unix_ms: Some(1), ..all.clone() }, true),
            (LogQuery { since_unix_ms: Some(0), tail: Some(1), ..all.clone() }, true),
            (LogQuery { previous: true, ..all.clone() }, true),
        ] {
            assert_eq!(select(&query, lines(&RUNS)).1, is_all, "{query:?}");
        }
        let previous = LogQuery { previous: true, ..all };
        assert!(!select(&previous, lines(&RUNS[5..])).1, "it began before");
    }

    #[test]
    fn a_carriage_return_hides_no_end_of_a_line() {
        assert!(LinePattern::new("done$").unwrap().matches(b"done\r"));
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        for wrong in ["(", "*", "\\w{1000000}", "(?P<"] {
            let error = LinePattern::new(wrong).unwrap_err();
            assert!(error.to_string().contains(wrong));
            let source = std::error::Error::source(&error).expect("says what is wrong").to_string();
            assert!(!source.contains('\n'), "one line: {source}");
        }
        assert!(LinePattern::new("\\d+ caf\u{e9}").unwrap().matches("\u{ff}7 caf\u{e9}".as_bytes()));
    }
}
