//! Secrets of a process: where each comes from, and a value that no formatting shows.

use std::borrow::Cow;
use std::env;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::trust::Distrusted;
use super::trusted_file::{self, Unread};

/// A text that must not be seen: it has no `Display`, `Serialize` or way to print, and `Debug` hides it.
///
/// ```
/// use xy_actors::process::settings::Secret;
///
/// let secret = Secret::new("hunter2");
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// assert_eq!(secret.expose(), "hunter2");
/// ```
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes a text into custody.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Returns the text in the clear, for whoever it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A shorter value would be found in innocent texts, so that it is hidden only where it stands alone.
const SHORTEST_PART: usize = 4;

/// Returns a text with `***` in the place of each secret that stands in it.
pub fn masked<'t>(text: &'t str, secrets: &[Secret]) -> Cow<'t, str> {
    let mut hidden: Vec<&str> = secrets.iter().map(Secret::expose).collect();
    if hidden.contains(&text) && !text.is_empty() {
        return Cow::Borrowed("***");
    }
    hidden.retain(|secret| secret.len() >= SHORTEST_PART && text.contains(secret));
    // One that contains another is hidden as a whole.
    hidden.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    hidden.into_iter().fold(Cow::Borrowed(text), |text, secret| Cow::Owned(text.replace(secret, "***")))
}

/// Where the value of a secret comes from. It is asked for at each start, never kept in a file of ours.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretSource {
    /// A variable of this program's own environment.
    Env(String),
    /// The content of a file without the newline at its end; a relative path starts at the working directory.
    ///
    /// It must be in the right hands as an [`EnvFile`](super::EnvFile) must, and nobody but its owner and group may read it.
    File(PathBuf),
    /// What a program prints on its standard output, without the newline at its end: the program and its arguments.
    ///
    /// It runs as the process will (user, directory, environment and the rest of its settings) but without secrets, for at
    /// most 30 seconds, and may print 64 KiB. What it prints on standard error is thrown away, since it may be secret too.
    Command(Vec<String>),
}

impl fmt::Display for SecretSource {
    /// Names the source; of a command only the program, whose arguments may be private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "variable `{name}`"),
            Self::File(path) => write!(f, "file `{}`", path.display()),
            Self::Command(words) => {
                write!(f, "command `{}`", words.first().map(String::as_str).unwrap_or_default())
            }
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a secret cannot be had. The text names neither its value nor anything that was read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// This program's environment has no such variable.
    #[error("the variable is not set")]
    Unset,
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Unreadable(#[source] io::Error),
    /// It is a directory, a device, or larger than 1 MiB.
    #[error("the file {0}")]
    NotText(&'static str),
    /// Somebody else could have written it.
    #[error("the file {0}")]
    Distrusted(Distrusted),
    /// Everybody can read it.
    #[error("the file has mode {mode:o}, so that everybody can read it; `chmod o= {}`", path.display())]
    Shared {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It cannot be the value of a variable.
    #[error("it is not UTF-8 text without NUL characters")]
    NoText,
    /// The command did not answer.
    #[error("the command {0}")]
    Command(String),
}

impl SecretSource {
    /// Reads a variable or a file, blocking; `None` for a command, which only a start runs.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn read(&self, directory: &Path) -> Option<Result<Secret, SecretError>> {
        match self {
            Self::Env(name) => Some(of_environment(name)),
            Self::File(path) => Some(of_file(&directory.join(path))),
            Self::Command(_) => None,
        }
    }
}

fn of_environment(name: &str) -> Result<Secret, SecretError> {
    match env::var(name) {
        Ok(text) if text.is_empty() => Err(SecretError::Empty),
        Ok(text) => Ok(Secret::new(text)),
        Err(env::VarError::NotPresent) => Err(SecretError::Unset),
        Err(env::VarError::NotUnicode(_)) => Err(SecretError::NoText),
    }
}

fn of_file(path: &Path) -> Result<Secret, SecretError> {
    let (bytes, metadata) = trusted_file::read(path).map_err(|unread| match unread {
        Unread::Io(error) => SecretError::Unreadable(error),
        Unread::NotText(problem) => SecretError::NotText(problem),
        Unread::Distrusted(reason) => SecretError::Distrusted(reason),
    })?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(SecretError::Shared { path: path.to_owned(), mode });
    }
    of_output(bytes)
}

/// Makes a secret of what a file holds or a command has printed.
pub(in super::super) fn of_output(mut bytes: Vec<u8>) -> Result<Secret, SecretError> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(SecretError::Empty);
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(Secret::new(text)),
        _ => Err(SecretError::NoText),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_at_the_end_does_not_count() {
        for (output, secret) in [("a\n", Ok("a")), ("a\n\n", Ok("a\n")), (" a b", Ok(" a b"))] {
            assert_eq!(of_output(output.into()).as_ref().map(Secret::expose).map_err(drop), secret);
        }
    }

    #[test]
    fn nothing_and_what_is_no_text_are_refused_without_their_content() {
        assert!(matches!(of_output(Vec::new()), Err(SecretError::Empty)));
        assert!(matches!(of_output(b"\n".to_vec()), Err(SecretError::Empty)));
        for bytes in [&b"hunter2\0"[..], b"hunter2\xff"] {
            let error = of_output(bytes.to_vec()).expect_err("refused");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_secret_is_hidden_wherever_it_stands() {
        let secrets = ["hunter", "hunter2", "abc", ""].map(Secret::new);
        for (text, shown) in [
            ("--key=hunter2", "--key=***"),
            ("hunter2hunter", "******"),
            ("abc", "***"),
            ("xabcx", "xabcx"),
            ("", ""),
            ("plain", "plain"),
        ] {
            assert_eq!(masked(text, &secrets), shown, "{text}");
        }
    }

    #[test]
    fn a_source_names_a_program_without_its_arguments() {
        let source = SecretSource::Command(vec!["pass".to_owned(), "hunter2".to_owned()]);
        assert_eq!(format!("{source} {source:?}"), "command `pass` command `pass`");
    }
}
