//! `xyctl events`: what happened to the servers, by number.

use std::future;

use xy_daemon::client::{Client, Subscription};
use xy_daemon::protocol::method::{Events, EventsParams, Notification, Version, VersionParams};

use super::logs::{End, Tagged, follow, skipped};
use crate::args::EventsArgs;
use crate::error::{CommandError, exit_code};
use crate::output::time::Clock;
use crate::output::{Output, event};
use crate::session::Session;

/// The number of the first event there ever is.
pub(super) const FIRST: u64 = 1;

/// How many answers must come without an event before them until the past is taken to be over.
const SILENT_ROUNDS: usize = 2;

/// Runs the command.
pub(super) async fn run(args: &EventsArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let from = if args.follow { args.from } else { Some(args.from.unwrap_or(FIRST)) };
    let mut events = client.subscribe::<Events>(EventsParams { from }).await?;
    let output = &mut *session.output;
    let mut printer = Printer { clock: Clock::local(), is_asked_for: args.from.is_some() };
    if !args.follow {
        past(&client, &mut events, output, &mut printer).await?;
        return Ok(exit_code::SUCCESS);
    }
    let end =
        follow(&mut events, output, true, |notification, output| printer.print(notification, output)).await?;
    output.flush()?;
    if end == End::Source {
        // Events end only with the daemon; asking tells whether it is gone already.
        client.call::<Version>(VersionParams {}).await?;
        output.note("the events have ended: the daemon is stopping");
    }
    Ok(exit_code::SUCCESS)
}

/// Prints the events that there are.
///
/// The protocol does not say where the past ends and the future begins. The daemon takes turns between what it owes one
/// connection, so the past is over when it answers again and again without an event in between.
async fn past(
    client: &Client,
    events: &mut Subscription,
    output: &mut Output,
    printer: &mut Printer,
) -> Result<(), CommandError> {
    let mut silent = 0;
    while silent < SILENT_ROUNDS && !output.is_closed() {
        client.call::<Version>(VersionParams {}).await?;
        silent += 1;
        loop {
            let waiting = tokio::select! {
                biased;
                next = events.next() => next?,
                () = future::ready(()) => break,
            };
            match waiting {
                Some(notification) => printer.print(notification, output)?,
                None => return Ok(()),
            }
            silent = 0;
        }
    }
    Ok(())
}

/// Writes events as lines for people or objects for programs.
#[derive(Debug)]
struct Printer {
    clock: Clock,
    /// Whether the first event was asked for, so that a gap before it is news.
    is_asked_for: bool,
}

impl Printer {
    fn print(&mut self, notification: Notification, output: &mut Output) -> Result<(), CommandError> {
        let is_asked_for = std::mem::replace(&mut self.is_asked_for, true);
        let method = notification.method();
        match notification {
            // An event has a type of its own.
            Notification::Event(event) if output.is_json() => output.json(&event),
            Notification::EventGap(gap) if output.is_json() => output.json(&Tagged { method, body: &gap }),
            Notification::Event(event) => {
                let line = event::line(&event, &self.clock, output);
                output.line(&format!("{:>6}  {line}", event.seq))
            }
            Notification::EventGap(gap) => {
                if is_asked_for {
                    output.note(&skipped(gap, "event"));
                }
                Ok(())
            }
            // Nothing else belongs to events.
            _ => Ok(()),
        }
    }
}
