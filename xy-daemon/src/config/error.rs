//! What is wrong in a configuration file, as data and as a compiler-like line of text.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One mistake in one configuration file.
///
/// Its text reads like a compiler's: file, line, column, key, what is wrong, and a hint. Environment values never
/// appear in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigError {
    /// The file, relative to the configuration directory (`servers/web.ron`) where it lies in it.
    pub file: PathBuf,
    /// The line, counted from 1; `None` where the mistake has no place in the text.
    pub line: Option<usize>,
    /// The column in characters, counted from 1.
    pub column: Option<usize>,
    /// The key path, for instance `restart.backoff_initial`; `None` for the file as a whole.
    pub key: Option<String>,
    /// What is wrong and what was expected: a fragment without a period.
    pub message: String,
    /// What probably helps.
    pub hint: Option<String>,
}

impl ConfigError {
    /// Creates an error about the file as a whole.
    pub fn of_file(file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self { file: file.into(), line: None, column: None, key: None, message: message.into(), hint: None }
    }

    /// Adds what probably helps.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {}", Printable(key))?;
        }
        write!(f, ": {}", Printable(&self.message))?;
        if let Some(hint) = &self.hint {
            write!(f, "; {}", Printable(hint))?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Text from a file on its way to a terminal: control characters are escaped, so that a file cannot drive it.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for character in self.0.chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// Returns the candidate that was probably meant by `found`, if one is near enough.
pub(super) fn nearest<'a>(found: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let folded = found.to_lowercase().replace('-', "_");
    // People write `SIGTERM`, and it is too far from `TERM` for a spelling distance.
    let bare = folded.strip_prefix("sig").unwrap_or(&folded);
    candidates
        .iter()
        .map(|candidate| {
            let known = candidate.to_lowercase();
            let distance = if known == bare { 0 } else { strsim::damerau_levenshtein(&folded, &known) };
            (distance, *candidate)
        })
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_slips_of_case_prefix_and_spelling_and_nothing_far() {
        let words = ["OnFailure", "Always", "Never", "TERM", "working_dir"];
        for (found, expected) in [
            ("onfailure", Some("OnFailure")),
            ("on_failure", Some("OnFailure")),
            ("alway", Some("Always")),
            ("SIGTERM", Some("TERM")),
            ("working-dir", Some("working_dir")),
            ("workingdir", Some("working_dir")),
            ("banana", None),
            ("", None),
        ] {
            assert_eq!(nearest(found, &words), expected, "{found}");
        }
    }

    #[test]
    fn control_characters_are_escaped_in_the_text() {
        let error = ConfigError::of_file("servers/a.ron", "unknown key `\u{1b}[2J`");
        assert_eq!(error.to_string(), "servers/a.ron: unknown key `\\u{1b}[2J`");
    }
}
