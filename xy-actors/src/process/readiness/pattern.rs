//! The pattern of a log line that proves readiness.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// The most memory a compiled pattern takes.
const SIZE_LIMIT: usize = 1 << 20;

/// A regular expression over the bytes of one line of output.
///
/// The syntax is that of the crate `regex`, which matches in time linear in the line, without Unicode: `.` is any byte,
/// `\d`, `\w` and `(?i)` mean ASCII, so that output in any encoding can be matched. It may match anywhere in the line;
/// `^` and `$` are the line's ends, without a carriage return.
///
/// ```
/// use xy_actors::process::readiness::LogPattern;
///
/// let pattern = LogPattern::new(r"listening on .*:\d+$")?;
/// assert!(pattern.is_match(b"12:00 listening on http://localhost:8421\r"));
/// # Ok::<(), xy_actors::process::readiness::PatternError>(())
/// ```
#[derive(Clone)]
pub struct LogPattern(Regex);

impl LogPattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// Says what is wrong with it and where.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let compiled = RegexBuilder::new(pattern).unicode(false).size_limit(SIZE_LIMIT).build();
        compiled.map(Self).map_err(|error| PatternError::of(pattern, &error))
    }

    /// Returns the pattern as written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns whether a line, without its newline, has a match.
    pub fn is_match(&self, line: &[u8]) -> bool {
        self.0.is_match(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

impl fmt::Debug for LogPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogPattern").field(&self.as_str()).finish()
    }
}

impl PartialEq for LogPattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for LogPattern {}

/// Why a pattern is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// It breaks a rule of the syntax.
    #[error("{problem} at character {position}")]
    Syntax {
        /// The rule.
        problem: String,
        /// Where, counted in characters from 1.
        position: usize,
    },
    /// It needs too much memory, as large repetitions do.
    #[error("the pattern is too large")]
    TooLarge,
}

impl PatternError {
    fn of(pattern: &str, error: &regex::Error) -> Self {
        if let regex::Error::CompiledTooBig(_) = error {
            return Self::TooLarge;
        }
        // The error of `regex` is text for a terminal; its parser says the same in pieces.
        let parsed = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern);
        let (problem, offset) = match parsed {
            Err(regex_syntax::Error::Parse(error)) => (error.kind().to_string(), error.span().start.offset),
            Err(regex_syntax::Error::Translate(error)) => {
                (error.kind().to_string(), error.span().start.offset)
            }
            _ => ("not a regular expression".to_owned(), 0),
        };
        let position = pattern.get(..offset).map_or(0, |before| before.chars().count()) + 1;
        Self::Syntax { problem, position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_do_not_hide_a_match() {
        let pattern = LogPattern::new("ready.$").expect("valid");
        assert!(pattern.is_match(b"\xff\xfe ready\xff"));
        assert!(!pattern.is_match(b"ready"));
    }

    #[test]
    fn a_carriage_return_belongs_to_the_line_end() {
        let pattern = LogPattern::new("^ready$").expect("valid");
        assert!(pattern.is_match(b"ready\r"));
        assert!(!pattern.is_match(b"ready\r\r"));
    }

    #[test]
    fn a_bad_pattern_is_refused_with_rule_and_place() {
        for (pattern, text) in [
            ("on (port", "unclosed group at character 4"),
            ("é[", "unclosed character class at character 2"),
            ("*", "repetition operator missing expression at character 1"),
            (r"\p{Greek}", "Unicode not allowed here at character 1"),
        ] {
            assert_eq!(LogPattern::new(pattern).expect_err(pattern).to_string(), text);
        }
        assert_eq!(LogPattern::new(r"((\w{99}){99}){99}"), Err(PatternError::TooLarge));
    }
}
