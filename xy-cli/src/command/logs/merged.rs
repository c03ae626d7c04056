//! The output of several servers as one, by time.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use xy_daemon::client::{Client, ClientError};
use xy_daemon::protocol::method::{LogLine, LogStream, Logs, Notification};

use super::{Tagged, params, shows_remarks, skipped};
use crate::args::LogsArgs;
use crate::error::CommandError;
use crate::output::text::{from_base64, neutral, neutral_line};
use crate::output::{Output, Style, reader_gone};
use crate::session::Session;

/// How many subscriptions one connection has; the daemon allows a few more.
const PER_CONNECTION: usize = 60;

/// How many notifications of one server wait for their turn here.
const AHEAD: usize = 256;

/// How long a line that is there waits for earlier ones of servers that say nothing. Only while following.
const PATIENCE: Duration = Duration::from_millis(100);

/// The output of one server.
struct Source {
    name: String,
    lines: mpsc::Receiver<Result<Notification, ClientError>>,
    head: Option<Notification>,
    has_ended: bool,
}

impl Source {
    fn open(name: String, mut lines: xy_daemon::client::Subscription) -> Self {
        let (sender, receiver) = mpsc::channel(AHEAD);
        // In a task of its own each is read while others are waited for.
        tokio::spawn(async move {
            loop {
                let next = lines.next().await.transpose();
                let is_last = !matches!(next, Some(Ok(_)));
                let Some(next) = next else { return };
                // Nobody takes more when the reader is gone.
                if sender.send(next).await.is_err() || is_last {
                    return;
                }
            }
        });
        Self { name, lines: receiver, head: None, has_ended: false }
    }

    /// Returns the time of what comes next; what has none comes at once.
    fn at(&self) -> Option<u64> {
        self.head.as_ref().map(|head| match head {
            Notification::Log(line) => line.ts_unix_ms,
            _ => 0,
        })
    }
}

/// Prints the output of several servers until it ends, nobody reads, or Ctrl-C is typed.
pub(super) async fn run(
    args: &LogsArgs,
    names: &[String],
    session: &mut Session<'_>,
) -> Result<(), CommandError> {
    let mut sources = Vec::with_capacity(names.len());
    let mut connections: Vec<Client> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        if index % PER_CONNECTION == 0 {
            connections.push(session.connect().await?);
        }
        let Some(client) = connections.last() else { continue };
        let lines = client.subscribe::<Logs>(params(args, name, session.output)).await?;
        sources.push(Source::open(name.clone(), lines));
    }
    let output = &mut *session.output;
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let mut printer = Printer { width, prefix: args.stream, open: None };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CommandError::Signals)?;
    let mut gone = std::pin::pin!(reader_gone());
    loop {
        let is_quiet = sources.iter().all(|source| source.lines.is_empty() && source.head.is_none());
        if is_quiet {
            output.flush()?;
        }
        tokio::select! {
            biased;
            _ = interrupt.recv() => break,
            () = &mut gone => break,
            settled = settle(&mut sources, args.follow) => settled?,
        }
        let next = sources.iter_mut().filter(|source| source.head.is_some()).min_by_key(|source| source.at());
        let Some(source) = next else { break };
        if let Some(head) = source.head.take() {
            printer.print(&source.name, head, output)?;
        }
        if output.is_closed() {
            break;
        }
    }
    printer.close(output)?;
    output.flush()
}

/// Waits until the earliest line is known: until each server has one or has ended, and while following not much longer
/// than until one of them has.
async fn settle(sources: &mut [Source], follow: bool) -> Result<(), ClientError> {
    look(sources, false).await?;
    let is_complete = sources.iter().all(|source| source.has_ended || source.head.is_some());
    if is_complete {
        return Ok(());
    }
    let all = look(sources, true);
    match follow {
        false => all.await,
        // What is still missing then is late, and is printed when it comes.
        true => tokio::time::timeout(PATIENCE, all).await.unwrap_or(Ok(())),
    }
}

/// Takes what is there, and waits until each server has something or has ended, or one of them has.
async fn look(sources: &mut [Source], each: bool) -> Result<(), ClientError> {
    poll_fn(|context| {
        let mut is_missing = false;
        for source in sources.iter_mut().filter(|source| source.head.is_none() && !source.has_ended) {
            match source.lines.poll_recv(context) {
                Poll::Ready(Some(Ok(notification))) => source.head = Some(notification),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => source.has_ended = true,
                Poll::Pending => is_missing = true,
            }
        }
        let has_one = sources.iter().any(|source| source.head.is_some());
        if !is_missing || (has_one && !each) { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// Writes each line after the name of its server.
struct Printer {
    width: usize,
    prefix: bool,
    /// Whose line goes on in its next notification.
    open: Option<(String, LogStream)>,
}

impl Printer {
    fn print(
        &mut self,
        name: &str,
        notification: Notification,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        let method = notification.method();
        match notification {
            Notification::Log(line) if output.is_json() => output.json(&Tagged { method, body: &line }),
            Notification::LogGap(gap) if output.is_json() => output.json(&Tagged { method, body: &gap }),
            Notification::Log(line) => self.line(&line, output),
            Notification::LogGap(gap) => {
                self.close(output)?;
                output.note(&format!("{name}: {}", skipped(gap, "line")));
                Ok(())
            }
            // Nothing else belongs to a log.
            _ => Ok(()),
        }
    }

    fn line(&mut self, line: &LogLine, output: &mut Output) -> Result<(), CommandError> {
        if line.stream == LogStream::Xy && !shows_remarks(self.prefix, output) {
            return Ok(());
        }
        let key = (line.name.clone(), line.stream);
        if self.open.as_ref() != Some(&key) {
            self.close(output)?;
            let stream = match line.stream {
                LogStream::Out if self.prefix => " out",
                LogStream::Err if self.prefix => " err",
                LogStream::Xy if self.prefix => " xy ",
                _ => "",
            };
            let prefix = format!("{:<width$}{stream} |", neutral(&line.name), width = self.width);
            let style = COLORS[color_of(&line.name)];
            let prefix = format!("{} ", output.paint(style, &prefix));
            output.bytes(prefix.as_bytes())?;
        }
        let exact = line.line_base64.as_deref().and_then(from_base64);
        match exact {
            Some(exact) if !output.is_terminal() => output.bytes(&exact)?,
            _ if output.is_terminal() => {
                let text = neutral_line(&line.line);
                let text = match line.stream {
                    LogStream::Xy => output.paint(Style::Dim, &format!("-- {text} --")).into_owned(),
                    _ => text.into_owned(),
                };
                output.bytes(text.as_bytes())?;
            }
            _ => output.bytes(line.line.as_bytes())?,
        }
        if line.partial {
            self.open = Some(key);
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

/// How the names of servers are told apart.
const COLORS: [Style; 4] = [Style::Cyan, Style::Magenta, Style::Blue, Style::Good];

/// Returns the color of a server, the same in every call.
fn color_of(name: &str) -> usize {
    name.bytes().fold(0, |sum, byte| (sum * 31 + usize::from(byte)) % 65_521) % COLORS.len()
}

/// Returns the servers of a list without doubles, in its order.
pub(super) fn unique(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(name.clone())).collect()
}
