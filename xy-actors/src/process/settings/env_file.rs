//! Environment files: a trusted file of `KEY=VALUE` lines -> variables; errors with file and line, never with a value.

use std::collections::BTreeMap;
use std::io;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::str::CharIndices;

use super::trust;
use super::trusted_file::{self, Unread};

/// A file with environment variables.
///
/// # Format
/// UTF-8 text of at most 1 MiB. Empty lines and lines that begin with `#` or `;` are comments. Every other line is
/// `KEY=VALUE`, optionally after the word `export`; blanks around key and value do not count. A key consists of letters,
/// digits and `_`, does not begin with a digit, and appears once. A value is one of
///
/// - text without quotes, up to the end of the line. It contains neither quotes nor a backslash, and no `#` after a blank:
///   what these mean there differs from program to program, so they have to be quoted;
/// - text in single quotes, taken as it is;
/// - text in double quotes, in which `\\`, `\"`, `\$`, `` \` ``, `\n`, `\r` and `\t` stand for the one character, and a
///   backslash at the end of a line continues it.
///
/// Quoted text may extend over lines, and may be followed by a comment. A `$` is a character like any other: nothing is
/// replaced.
///
/// # Trust
/// The file must be in the right hands, see [`trust`]; a shared directory with the sticky bit may hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvFile {
    /// The file; a relative path starts at the working directory.
    pub path: PathBuf,
    /// Whether it may be missing.
    pub optional: bool,
}

/// Why an environment file cannot be used. Values never appear.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvFileError {
    /// It cannot be read.
    #[error("environment file `{}` cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a device, or larger than 1 MiB.
    #[error("environment file `{}` {problem}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What it is.
        problem: &'static str,
    },
    /// Somebody else could have written it.
    #[error("environment file `{}` {reason}", path.display())]
    Distrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong and what helps.
        reason: trust::Distrusted,
    },
    /// A line is not as it should be.
    #[error("environment file `{}`, line {line}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong and what was expected.
        problem: String,
    },
}

impl EnvFile {
    /// Reads the variables; none if the file is optional and missing. Blocking.
    ///
    /// # Errors
    /// If the file cannot be read or trusted, or a line is malformed.
    pub fn read(&self) -> Result<BTreeMap<String, String>, EnvFileError> {
        self.read_in(Path::new(""))
    }

    /// Like [`read`](Self::read), with the directory where relative paths start.
    pub(in super::super) fn read_in(
        &self,
        directory: &Path,
    ) -> Result<BTreeMap<String, String>, EnvFileError> {
        let path = directory.join(&self.path);
        match text_of(&path) {
            Err(EnvFileError::Unreadable { source, .. })
                if self.optional && source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(BTreeMap::new())
            }
            text => parse(&text?).map_err(|(line, problem)| EnvFileError::Malformed { path, line, problem }),
        }
    }
}

fn text_of(path: &Path) -> Result<String, EnvFileError> {
    let (bytes, _) = trusted_file::read(path).map_err(|unread| {
        let path = path.to_owned();
        match unread {
            Unread::Io(source) => EnvFileError::Unreadable { path, source },
            Unread::NotText(problem) => EnvFileError::NotText { path, problem },
            Unread::Distrusted(reason) => EnvFileError::Distrusted { path, reason },
        }
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        EnvFileError::Malformed { path: path.to_owned(), line, problem: "is not UTF-8 text".to_owned() }
    })
}

/// A line and what is wrong with it.
type Fault = (usize, String);

fn parse(text: &str) -> Result<BTreeMap<String, String>, Fault> {
    let mut scanner = Scanner { text: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let mut variables = BTreeMap::new();
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    while let Some((line, key, value)) = scanner.entry()? {
        if let Some(first) = lines.insert(key.clone(), line) {
            return Err((line, format!("`{key}` is set twice, first in line {first}")));
        }
        variables.insert(key, value);
    }
    Ok(variables)
}

struct Scanner<'a> {
    /// What is still to be read; begins at the start of a line.
    text: &'a str,
    line: usize,
}

impl<'a> Scanner<'a> {
    /// Returns the next variable with the line of its key.
    fn entry(&mut self) -> Result<Option<(usize, String, String)>, Fault> {
        loop {
            if self.text.is_empty() {
                return Ok(None);
            }
            let whole = self.text.split_inclusive('\n').next().unwrap_or_default();
            let content = whole.trim();
            if content.is_empty() || content.starts_with(['#', ';']) {
                self.skip(whole.len());
                continue;
            }
            let line = self.line;
            let Some((key, _)) = whole.split_once('=') else {
                return Err((line, "expected `KEY=VALUE`".to_owned()));
            };
            let value_at = key.len() + 1;
            let key = key.trim();
            let key = key
                .strip_prefix("export")
                .filter(|rest| rest.starts_with([' ', '\t']))
                .map_or(key, str::trim_start);
            let is_start = |c: char| c.is_ascii_alphabetic() || c == '_';
            if !key.starts_with(is_start) || !key.chars().all(|c| is_start(c) || c.is_ascii_digit()) {
                // Not shown: without its `=`, a line may be the middle of a secret.
                return Err((line, "the key is no name of letters, digits and `_`".to_owned()));
            }
            let key = key.to_owned();
            self.skip(value_at);
            let value = self.value()?;
            if value.contains('\0') {
                return Err((line, format!("the value of `{key}` contains a NUL character")));
            }
            return Ok(Some((line, key, value)));
        }
    }

    fn skip(&mut self, length: usize) {
        let (skipped, rest) = self.text.split_at(length);
        self.line += skipped.matches('\n').count();
        self.text = rest;
    }

    /// Reads a value and the rest of its last line.
    fn value(&mut self) -> Result<String, Fault> {
        let line = self.line;
        let rest_of_line = self.text.split_inclusive('\n').next().unwrap_or_default();
        let blanks = rest_of_line.len() - rest_of_line.trim_start().len();
        let quote = match rest_of_line[blanks..].chars().next() {
            Some(quote @ ('"' | '\'')) => quote,
            _ => {
                let value = rest_of_line.trim();
                if value.contains(['"', '\'', '\\']) {
                    return Err((line, "put a value with quotes or backslashes in quotes".to_owned()));
                }
                if value.starts_with('#') || value.contains(" #") || value.contains("\t#") {
                    return Err((
                        line,
                        "put a value with ` #` in quotes, or the comment on a line of its own".to_owned(),
                    ));
                }
                let value = value.to_owned();
                self.skip(rest_of_line.len());
                return Ok(value);
            }
        };
        self.skip(blanks + 1);
        let mut characters = self.text.char_indices().peekable();
        let (value, length) = match quote {
            '\'' => single_quoted(&mut characters),
            _ => double_quoted(&mut characters)
                .map_err(|(at, problem)| (line + self.text[..at].matches('\n').count(), problem))?,
        }
        .ok_or_else(|| (line, "the closing quote is missing".to_owned()))?;
        self.skip(length);
        let rest = self.text.split_inclusive('\n').next().unwrap_or_default();
        let after = rest.trim();
        if !after.is_empty() && !after.starts_with('#') {
            return Err((self.line, "expected the end of the line after the closing quote".to_owned()));
        }
        self.skip(rest.len());
        Ok(value)
    }
}

/// Returns the text and how many bytes it takes with its closing quote; `None` without one.
fn single_quoted(characters: &mut Peekable<CharIndices<'_>>) -> Option<(String, usize)> {
    let mut value = String::new();
    for (at, character) in characters {
        if character == '\'' {
            return Some((value, at + 1));
        }
        value.push(character);
    }
    None
}

/// The same; an error comes with its offset.
fn double_quoted(
    characters: &mut Peekable<CharIndices<'_>>,
) -> Result<Option<(String, usize)>, (usize, String)> {
    let mut value = String::new();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok(Some((value, at + 1))),
            '\\' => match characters.next() {
                Some((_, plain @ ('\\' | '"' | '$' | '`'))) => value.push(plain),
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 't')) => value.push('\t'),
                Some((_, '\n')) => {}
                Some((_, '\r')) if characters.next_if(|(_, next)| *next == '\n').is_some() => {}
                Some(_) => {
                    let known = "`\\\\`, `\\\"`, `\\$`, `` \\` ``, `\\n`, `\\r`, `\\t`";
                    return Err((at, format!("unknown escape, expected one of {known}")));
                }
                None => return Ok(None),
            },
            plain => value.push(plain),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<(String, String)>, Fault> {
        parse(text).map(|variables| variables.into_iter().collect())
    }

    #[test]
    fn values_are_read_by_the_grammar() {
        for (text, value) in [
            ("A=", ""),
            ("A=plain", "plain"),
            ("  A =  two words \t\r\n", "two words"),
            ("export A=1", "1"),
            ("export\tA=1", "1"),
            ("\u{feff}# comment\n; another\n\n   # third\nA=1\n", "1"),
            ("A=a#b", "a#b"),
            ("A=$HOME", "$HOME"),
            ("A=a=b", "a=b"),
            ("A='it is $x \\n # \"'", "it is $x \\n # \""),
            ("A='two\nlines'  # comment", "two\nlines"),
            ("A=\"a \\\"b\\\" \\\\ \\$x \\` \\n\\r\\t\"", "a \"b\" \\ $x ` \n\r\t"),
            ("A=\"one \\\n  line\"", "one   line"),
            ("A=\"one \\\r\n  line\"", "one   line"),
            ("A=''", ""),
        ] {
            assert_eq!(parsed(text), Ok(vec![("A".to_owned(), value.to_owned())]), "{text:?}");
        }
        assert_eq!(parsed(" \n# nothing"), Ok(Vec::new()));
        let many: Vec<_> = [("A", "x\ny"), ("_b2", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(parsed("_b2=\nA=\"x\ny\"\n"), Ok(many));
    }

    #[test]
    fn a_malformed_line_is_told_by_number_and_without_its_content() {
        for (text, line, problem) in [
            ("\nhunter2", 2, "expected `KEY=VALUE`"),
            ("1A=hunter2", 1, "no name"),
            ("=hunter2", 1, "no name"),
            ("A B=hunter2", 1, "no name"),
            ("exportA B=hunter2", 1, "no name"),
            ("A=hunter2\\n", 1, "backslashes in quotes"),
            ("A=hunter2'", 1, "quotes or backslashes"),
            ("A=hunter2 # x", 1, "put a value with ` #` in quotes"),
            ("A='hunter2", 1, "closing quote is missing"),
            ("A=\"hunter2\nB=\\\"", 1, "closing quote is missing"),
            ("A='a\nhunter2' x", 2, "end of the line"),
            ("A=\"a\nhunter2\\x\"", 2, "unknown escape"),
            ("A=1\nB=2\nA=hunter2", 3, "`A` is set twice, first in line 1"),
            ("A=hunter2\0", 1, "the value of `A` contains a NUL character"),
        ] {
            let (found_line, found) = parsed(text).expect_err(text);
            assert_eq!(found_line, line, "{text:?}: {found}");
            assert!(found.contains(problem) && !found.contains("hunter2"), "{text:?}: {found}");
        }
    }
}
