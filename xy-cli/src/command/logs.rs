//! `xyctl logs`: the output of servers, line by line.

mod merged;

use std::future;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use xy_daemon::client::{Client, ClientError, Subscription};
use xy_daemon::protocol::method::{
    Gap, List, ListParams, LogLine, LogStream, Logs, LogsParams, Notification, Version, VersionParams,
};
use xy_daemon::protocol::pattern;

use crate::args::LogsArgs;
use crate::error::{CommandError, exit_code};
use crate::output::text::{count, from_base64, neutral_line};
use crate::output::{Output, Style, reader_gone};
use crate::session::{Selection, Session, explain, nearest};

/// Runs the command.
pub(super) async fn run(args: &LogsArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let name = match &args.names[..] {
        // The daemon knows best whether there is one of that name.
        [name] if !pattern::is_pattern(name) => name,
        names => return several(args, names, &client, session).await,
    };
    let mut lines = match client.subscribe::<Logs>(params(args, name, session.output)).await {
        Ok(lines) => lines,
        Err(error) => {
            // It may be the name of a file with instances, or of a group.
            let error = explain(&client, name, error.into()).await;
            if matches!(error, CommandError::ServerNotFound { .. })
                && !meant(&args.names, &client).await?.0.is_empty()
            {
                return several(args, &args.names, &client, session).await;
            }
            return Err(error);
        }
    };
    let output = &mut *session.output;
    let mut printer = Printer { prefix: args.stream, open: None };
    let end =
        follow(&mut lines, output, args.follow, |notification, output| printer.print(notification, output))
            .await?;
    printer.close(output)?;
    output.flush()?;
    if args.follow && end == End::Source {
        ended(&client, name, output).await?;
    }
    Ok(exit_code::SUCCESS)
}

fn params(args: &LogsArgs, name: &str, output: &Output) -> LogsParams {
    LogsParams {
        output_only: !shows_remarks(args.stream, output),
        tail: args.tail,
        follow: args.follow,
        since_unix_ms: args.since,
        until_unix_ms: args.until,
        previous: args.previous,
        grep: args.grep.clone(),
        ..LogsParams::new(name)
    }
}

/// Returns whether remarks between the lines are shown: a pipe gets the server's bytes and nothing else.
fn shows_remarks(prefix: bool, output: &Output) -> bool {
    prefix || output.is_terminal() || output.is_json()
}

/// Returns the servers that are meant, and the names that mean none.
async fn meant(names: &[String], client: &Client) -> Result<(Vec<String>, Vec<String>), CommandError> {
    let servers = client.call::<List>(ListParams {}).await?.servers;
    let selection = Selection::of(names);
    let meant = servers.iter().filter(|server| selection.means(server)).map(|server| server.name.clone());
    Ok((merged::unique(meant), selection.missing(&servers)))
}

async fn several(
    args: &LogsArgs,
    names: &[String],
    client: &Client,
    session: &mut Session<'_>,
) -> Result<u8, CommandError> {
    let (servers, missing) = meant(names, client).await?;
    let mut code = exit_code::SUCCESS;
    for name in missing {
        let nearest = nearest(client, &name).await;
        session.output.error(&CommandError::ServerNotFound { name, nearest });
        code = exit_code::FAILED;
    }
    if !servers.is_empty() {
        merged::run(args, &servers, session).await?;
    }
    Ok(code)
}

/// Why nothing more is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The daemon has no more to say.
    Source,
    /// Ctrl-C, or nobody reads.
    Reader,
}

/// Hands every notification to `print` until the subscription ends, nobody reads any more, or Ctrl-C is typed.
///
/// Results are written when no more of them are waiting.
pub(super) async fn follow(
    subscription: &mut Subscription,
    output: &mut Output,
    interruptible: bool,
    mut print: impl FnMut(Notification, &mut Output) -> Result<(), CommandError>,
) -> Result<End, CommandError> {
    // Without following, Ctrl-C ends the process as it ends every other program.
    let mut interrupt = match interruptible {
        true => Some(signal(SignalKind::interrupt()).map_err(CommandError::Signals)?),
        false => None,
    };
    let interrupted = async {
        match &mut interrupt {
            Some(interrupt) => _ = interrupt.recv().await,
            None => future::pending().await,
        }
    };
    let (mut interrupted, mut gone) = (std::pin::pin!(interrupted), std::pin::pin!(reader_gone()));
    loop {
        let waiting = tokio::select! {
            biased;
            next = subscription.next() => Some(next),
            () = future::ready(()) => None,
        };
        let next = match waiting {
            Some(next) => next,
            None => {
                output.flush()?;
                tokio::select! {
                    biased;
                    () = &mut interrupted => return Ok(End::Reader),
                    () = &mut gone => return Ok(End::Reader),
                    next = subscription.next() => next,
                }
            }
        };
        match next? {
            Some(notification) => print(notification, output)?,
            None => return Ok(End::Source),
        }
        if output.is_closed() {
            return Ok(End::Reader);
        }
    }
}

/// Says why a followed log ended: the server is gone, or the daemon is.
async fn ended(client: &Client, name: &str, output: &mut Output) -> Result<(), CommandError> {
    match client.call::<Version>(VersionParams::default()).await {
        Ok(_) | Err(ClientError::Rpc(_)) => {
            output.note(&format!(
                "the log of `{name}` has ended: the server was removed, or the daemon is stopping"
            ));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// A notification as an object of its own.
#[derive(Serialize)]
pub(super) struct Tagged<'a, T> {
    /// The notification's method.
    #[serde(rename = "type")]
    pub(super) method: &'static str,
    /// Its parameters.
    #[serde(flatten)]
    pub(super) body: &'a T,
}

/// Writes lines so that a pipe gets the server's bytes.
#[derive(Debug)]
struct Printer {
    prefix: bool,
    /// The stream whose line goes on in its next notification.
    open: Option<LogStream>,
}

impl Printer {
    fn print(&mut self, notification: Notification, output: &mut Output) -> Result<(), CommandError> {
        let method = notification.method();
        match notification {
            Notification::Log(line) if output.is_json() => output.json(&Tagged { method, body: &line }),
            Notification::LogGap(gap) if output.is_json() => output.json(&Tagged { method, body: &gap }),
            Notification::Log(line) => self.line(&line, output),
            Notification::LogGap(gap) => {
                self.close(output)?;
                output.note(&skipped(gap, "line"));
                Ok(())
            }
            // Nothing else belongs to a log.
            _ => Ok(()),
        }
    }

    fn line(&mut self, line: &LogLine, output: &mut Output) -> Result<(), CommandError> {
        if line.stream == LogStream::Xy && !self.prefix {
            if !shows_remarks(self.prefix, output) {
                return Ok(());
            }
            self.close(output)?;
            let remark = format!("-- {} --", neutral_line(&line.line));
            let remark = format!("{}\n", output.paint(Style::Dim, &remark));
            return output.bytes(remark.as_bytes());
        }
        if self.open.is_some_and(|stream| stream != line.stream) {
            self.close(output)?;
        }
        if self.prefix && self.open.is_none() {
            let (prefix, style) = match line.stream {
                LogStream::Out => ("out |", Style::Dim),
                LogStream::Err => ("err |", Style::Busy),
                LogStream::Xy => ("xy  |", Style::Dim),
            };
            let prefix = format!("{} ", output.paint(style, prefix));
            output.bytes(prefix.as_bytes())?;
        }
        if output.is_terminal() {
            output.bytes(neutral_line(&line.line).as_bytes())?;
        } else {
            match line.line_base64.as_deref().and_then(from_base64) {
                Some(exact) => output.bytes(&exact)?,
                None => output.bytes(line.line.as_bytes())?,
            }
        }
        if line.partial {
            self.open = Some(line.stream);
            return Ok(());
        }
        self.open = None;
        output.bytes(b"\n")
    }

    /// Ends a line that was not whole.
    fn close(&mut self, output: &mut Output) -> Result<(), CommandError> {
        if self.open.take().is_some() { output.bytes(b"\n") } else { Ok(()) }
    }
}

/// Says how many were missed.
pub(super) fn skipped(gap: Gap, noun: &str) -> String {
    format!("… {} skipped", count((gap.last.saturating_sub(gap.first)).saturating_add(1), noun))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::output::{Format, Settings};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics with it").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printed(is_terminal: bool, line: LogLine) -> Vec<u8> {
        let written = Written::default();
        let settings = Settings {
            format: Format::Text,
            is_terminal,
            color: false,
            color_messages: false,
            has_progress: false,
        };
        let mut output = Output::new(written.clone(), settings);
        Printer { prefix: false, open: None }.print(Notification::Log(line), &mut output).unwrap();
        output.flush().unwrap();
        written.0.lock().unwrap().clone()
    }

    fn line(text: &str, exact: Option<&str>) -> LogLine {
        LogLine {
            name: "web".into(),
            stream: LogStream::Out,
            line: text.into(),
            line_base64: exact.map(ToOwned::to_owned),
            ts_unix_ms: 0,
            number: 1,
            partial: false,
        }
    }

    #[test]
    fn a_terminal_is_shown_control_characters_and_a_pipe_gets_them() {
        let hostile = "\x1b[2Jgone\tback";
        assert_eq!(printed(true, line(hostile, None)), b"\\x1b[2Jgone\tback\n");
        assert_eq!(printed(false, line(hostile, None)), b"\x1b[2Jgone\tback\n");
    }

    #[test]
    fn a_terminal_never_gets_the_exact_bytes() {
        assert_eq!(printed(true, line("\u{fffd}", Some("mzFt"))), "\u{fffd}\n".as_bytes());
        assert_eq!(printed(false, line("\u{fffd}", Some("mzFt"))), b"\x9b1m\n");
    }

    #[test]
    fn remarks_stand_between_the_lines_on_a_terminal_and_not_in_a_pipe() {
        let remark = || LogLine { stream: LogStream::Xy, ..line("started: incarnation 1, pid 5", None) };
        assert_eq!(printed(true, remark()), b"-- started: incarnation 1, pid 5 --\n");
        assert_eq!(printed(false, remark()), b"");
    }

    #[test]
    fn a_gap_counts_both_ends() {
        assert_eq!(skipped(Gap { first: 7, last: 7 }, "line"), "… 1 line skipped");
        assert_eq!(
            skipped(Gap { first: 0, last: u64::MAX }, "line"),
            "… 18,446,744,073,709,551,615 lines skipped"
        );
    }
}
