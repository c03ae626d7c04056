//! `xyctl events`: what happened to the servers, by number.

use xy_daemon::protocol::method::{Event, Events, EventsParams, Notification, Version, VersionParams};
use xy_daemon::protocol::pattern;

use super::logs::{End, Tagged, follow, skipped};
use crate::args::EventsArgs;
use crate::error::{CommandError, exit_code};
use crate::output::time::Clock;
use crate::output::{Output, event};
use crate::session::Session;

/// The number that stands for the first event of the daemon that runs.
pub(super) const OF_THIS_DAEMON: u64 = 0;

/// The number of the first event there ever is.
const FIRST: u64 = 1;

/// Runs the command.
pub(super) async fn run(args: &EventsArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    // What is asked for of the past is looked for from its beginning.
    let from = if args.follow && args.since.is_none() { args.from } else { Some(args.from.unwrap_or(FIRST)) };
    let mut events =
        client.subscribe::<Events>(EventsParams { from, after: None, follow: args.follow }).await?;
    let output = &mut *session.output;
    let wanted = Wanted { since: args.since, names: args.names.clone() };
    let mut printer = Printer { clock: Clock::local(), is_asked_for: args.from.is_some(), wanted };
    let end =
        follow(&mut events, output, args.follow, |notification, output| printer.print(notification, output))
            .await?;
    output.flush()?;
    if end == End::Source && args.follow {
        // Events end only with the daemon; asking tells whether it is gone already.
        client.call::<Version>(VersionParams::default()).await?;
        output.note("the events have ended: the daemon is stopping");
    }
    Ok(exit_code::SUCCESS)
}

/// Writes events as lines for people or objects for programs.
#[derive(Debug)]
struct Printer {
    clock: Clock,
    /// Whether the first event was asked for, so that a gap before it is news.
    is_asked_for: bool,
    wanted: Wanted,
}

/// Which events are printed.
#[derive(Debug)]
struct Wanted {
    since: Option<u64>,
    names: Vec<String>,
}

impl Wanted {
    fn has(&self, event: &Event) -> bool {
        let is_meant = |name: &String| {
            let below = event.path.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('/'));
            // An event does not say the tags of its server.
            below || pattern::matches(name, &event.path, &[])
        };
        self.since.is_none_or(|since| event.at_unix_ms >= since)
            && (self.names.is_empty() || self.names.iter().any(is_meant))
    }
}

impl Printer {
    fn print(&mut self, notification: Notification, output: &mut Output) -> Result<(), CommandError> {
        let is_asked_for = std::mem::replace(&mut self.is_asked_for, true);
        let method = notification.method();
        match notification {
            Notification::Event(event) if !self.wanted.has(&event) => Ok(()),
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
