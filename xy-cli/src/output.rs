//! Where results and messages go: tables and lines for people, JSON for programs, errors apart from both.

pub(crate) mod event;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod time;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;
use xy_daemon::client::ClientError;
use xy_daemon::protocol::error::ErrorKind;

use crate::args::ColorChoice;
use crate::error::CommandError;

/// How many bytes are collected before they are written.
const BUFFER: usize = 64 << 10;

/// Standard output for results, standard error for everything else.
pub(crate) struct Output {
    results: BufWriter<Box<dyn Write + Send>>,
    settings: Settings,
    /// Whether the reader of the results is gone.
    is_closed: bool,
    /// Whether lines are written over earlier ones.
    is_screen: bool,
}

/// What an output needs to know about where it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Who reads the results.
    pub(crate) format: Format,
    /// Whether results go to a terminal, which would act on control characters.
    pub(crate) is_terminal: bool,
    /// Whether results are colored.
    pub(crate) color: bool,
    /// Whether messages are colored.
    pub(crate) color_messages: bool,
    /// Whether messages go to a terminal that can take a line back.
    pub(crate) has_progress: bool,
}

/// Who reads the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// People.
    Text,
    /// Programs.
    Json,
}

/// How a piece of text stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it is.
    Plain,
    /// A heading.
    Bold,
    /// Of less interest.
    Dim,
    /// As wanted.
    Good,
    /// On its way.
    Busy,
    /// Needs somebody.
    Bad,
    /// One of several, told apart by color.
    Cyan,
    /// Another one.
    Magenta,
    /// Another one.
    Blue,
}

impl Output {
    /// Creates the output of this process.
    pub(crate) fn of_process(json: bool, color: ColorChoice) -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let is_terminal = out.is_terminal();
        // https://no-color.org: present and not empty. A dumb terminal shows escape sequences as they are.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let wanted = |is_terminal: bool| match color {
            ColorChoice::Auto => is_terminal && !plain,
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        let settings = Settings {
            format: if json { Format::Json } else { Format::Text },
            is_terminal,
            color: wanted(is_terminal),
            color_messages: wanted(err.is_terminal()),
            has_progress: err.is_terminal()
                && !json
                && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb"),
        };
        Self::new(out, settings)
    }

    /// Creates an output whose results go to `results`.
    pub(crate) fn new(results: impl Write + Send + 'static, settings: Settings) -> Self {
        Self {
            results: BufWriter::with_capacity(BUFFER, Box::new(results)),
            settings,
            is_closed: false,
            is_screen: false,
        }
    }

    /// Creates another output of this process with the same settings, for another thread.
    pub(crate) fn another(&self) -> Self {
        Self::new(io::stdout(), self.settings)
    }

    /// Returns whether results are written for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.settings.format == Format::Json
    }

    /// Returns whether results are colored.
    pub(crate) fn is_colored(&self) -> bool {
        self.settings.color
    }

    /// Returns whether results go to a terminal, which control characters would reach.
    pub(crate) fn is_terminal(&self) -> bool {
        self.settings.is_terminal
    }

    /// Returns how many characters a line of the terminal has that results go to, if they go to one.
    pub(crate) fn width(&self) -> Option<usize> {
        let (columns, _) =
            self.settings.is_terminal.then(|| ratatui::crossterm::terminal::size().ok()).flatten()?;
        (columns > 0).then_some(usize::from(columns))
    }

    /// Returns whether nobody reads the results any more (`xyctl logs | head`).
    ///
    /// What is written after that is dropped, so that an operation still ends with its own exit code.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Writes a line for people.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), CommandError> {
        self.bytes(text.as_bytes())?;
        // A shorter line in the place of a longer one would leave its end.
        self.bytes(if self.is_screen { b"\x1b[K\n" } else { b"\n" })
    }

    /// Begins a picture of the whole screen in the place of the one before.
    pub(crate) fn begin_screen(&mut self) -> Result<(), CommandError> {
        self.is_screen = true;
        self.bytes(b"\x1b[H")
    }

    /// Ends it: what is left of an earlier one goes.
    pub(crate) fn end_screen(&mut self) -> Result<(), CommandError> {
        self.is_screen = false;
        self.bytes(b"\x1b[J")
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        if self.is_closed {
            return Ok(());
        }
        let written = self.results.write_all(bytes);
        self.check(written)
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), CommandError> {
        // Results are made of strings, numbers, lists and maps with string keys, which always have a JSON form.
        let mut line = serde_json::to_vec(value).expect("results have a JSON form");
        line.push(b'\n');
        self.bytes(&line)
    }

    /// Writes a result as the daemon sent it.
    pub(crate) fn verbatim(&mut self, text: &RawValue) -> Result<(), CommandError> {
        self.line(text.get())
    }

    /// Hands on what is buffered.
    pub(crate) fn flush(&mut self) -> Result<(), CommandError> {
        if self.is_closed {
            return Ok(());
        }
        let flushed = self.results.flush();
        self.check(flushed)
    }

    fn check(&mut self, written: io::Result<()>) -> Result<(), CommandError> {
        match written {
            Ok(()) => Ok(()),
            Err(error) => {
                self.is_closed = true;
                // What could not be written must not be tried again when the buffer is dropped.
                let sink: Box<dyn Write + Send> = Box::new(io::sink());
                let old = std::mem::replace(&mut self.results, BufWriter::new(sink));
                drop(old.into_parts());
                if error.kind() == io::ErrorKind::BrokenPipe {
                    return Ok(());
                }
                Err(CommandError::Output(error))
            }
        }
    }

    /// Returns the text in its style, if results are colored.
    pub(crate) fn paint<'t>(&self, style: Style, text: &'t str) -> Cow<'t, str> {
        paint(self.settings.color, style, text)
    }

    /// Reports an error: its text, its causes, and what to do.
    pub(crate) fn error(&mut self, error: &CommandError) {
        if let CommandError::Client(ClientError::Rpc(rejected)) = error
            && rejected.kind() == ErrorKind::ConfigInvalid
        {
            // One line for each mistake.
            for line in rejected.message.lines() {
                self.problem(line, None);
            }
            return;
        }
        self.failure(error, error.hint().as_deref());
    }

    /// Reports a failure and what to do about it.
    pub(crate) fn failure(&mut self, error: &dyn Error, hint: Option<&str>) {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.problem(&text, hint);
    }

    /// Reports a problem in words, and what to do about it.
    pub(crate) fn problem(&mut self, text: &str, hint: Option<&str>) {
        self.message(Style::Bad, "error:", text);
        if let Some(hint) = hint {
            self.message(Style::Busy, "hint:", hint);
        }
    }

    /// Says something that is no result.
    pub(crate) fn note(&mut self, text: &str) {
        self.message(Style::Dim, "", text);
    }

    /// Returns whether it can be shown how far something is.
    pub(crate) fn has_progress(&self) -> bool {
        self.settings.has_progress
    }

    /// Shows how far something is in the place of what was shown before; nothing takes that away.
    pub(crate) fn progress(&mut self, text: &str) {
        if self.settings.has_progress {
            // A line that is wrapped could not be taken back.
            let columns =
                ratatui::crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns));
            let text: String = text::neutral(text).chars().take(columns.saturating_sub(1)).collect();
            // There is nowhere to report that standard error is gone.
            _ = io::stderr().write_all(format!("\r\x1b[K{text}").as_bytes());
        }
    }

    /// Writes bytes of somebody else to standard error as they are.
    pub(crate) fn raw_message(&mut self, bytes: &[u8]) {
        _ = self.flush();
        // There is nowhere to report that standard error is gone.
        _ = io::stderr().write_all(bytes);
    }

    fn message(&mut self, style: Style, label: &str, text: &str) {
        // Results that are already there come first where both go to one terminal. If that fails, so does the next
        // write, which reports it.
        _ = self.flush();
        let text = text::neutral(text);
        let space = if label.is_empty() { "" } else { " " };
        let line = format!("{}{space}{text}\n", paint(self.settings.color_messages, style, label));
        // There is nowhere to report that standard error is gone.
        _ = io::stderr().write_all(line.as_bytes());
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn paint(color: bool, style: Style, text: &str) -> Cow<'_, str> {
    let code = match style {
        Style::Plain => return Cow::Borrowed(text),
        Style::Bold => "1",
        Style::Dim => "2",
        Style::Good => "32",
        Style::Busy => "33",
        Style::Bad => "1;31",
        Style::Cyan => "36",
        Style::Magenta => "35",
        Style::Blue => "34",
    };
    if color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m").into() } else { text.into() }
}

/// Completes when nobody reads standard output any more; never, where that cannot be known.
///
/// A follower that has nothing to write would otherwise outlive the `head` behind it.
pub(crate) async fn reader_gone() {
    let out = io::stdout();
    if !out.is_terminal()
        && let Ok(out) = out.as_fd().try_clone_to_owned()
        // Unchecked, because the checked way makes standard output non-blocking for everybody who shares it; nothing is
        // written this way. Regular files cannot be watched, and have no reader that could go.
        && let Ok(out) = Sender::from_owned_fd_unchecked(out)
        && out.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Refusing(io::ErrorKind);

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn output(results: impl Write + Send + 'static, color: bool) -> Output {
        let settings = Settings {
            format: Format::Text,
            is_terminal: false,
            color,
            color_messages: false,
            has_progress: false,
        };
        Output::new(results, settings)
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error() {
        let mut output = output(Refusing(io::ErrorKind::BrokenPipe), false);
        output.line("one").unwrap();
        output.flush().unwrap();
        assert!(output.is_closed());
        output.line("two").unwrap();
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut output = output(Refusing(io::ErrorKind::StorageFull), false);
        output.line("one").unwrap();
        assert!(matches!(output.flush(), Err(CommandError::Output(_))));
    }

    #[test]
    fn styles_appear_only_with_color() {
        assert_eq!(output(io::sink(), false).paint(Style::Bad, "failed"), "failed");
        assert_eq!(output(io::sink(), true).paint(Style::Bad, "failed"), "\x1b[1;31mfailed\x1b[0m");
        assert_eq!(output(io::sink(), true).paint(Style::Plain, "failed"), "failed");
    }
}
