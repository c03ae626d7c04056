//! `xyctl events`: what happened to the servers, by number.

use std::collections::BTreeSet;

use xy_daemon::client::Client;
use xy_daemon::protocol::method::{
    Event, Events, EventsParams, List, ListParams, Notification, Version, VersionParams,
};
use xy_daemon::protocol::pattern;

use super::logs::{End, Tagged, follow, skipped};
use crate::args::EventsArgs;
use crate::error::{CommandError, exit_code};
use crate::output::time::Clock;
use crate::output::{Output, event};
use crate::session::{Selection, Session, nearest};

/// The number that stands for the first event of the daemon that runs.
pub(super) const OF_THIS_DAEMON: u64 = 0;

/// The number of the first event there ever is.
const FIRST: u64 = 1;

/// Runs the command.
pub(super) async fn run(args: &EventsArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    // What is asked for of the past is looked for from its beginning.
    let is_about_the_past = args.after.is_none() && (!args.follow || args.since.is_some());
    let from = args.from.or(is_about_the_past.then_some(FIRST));
    let params = EventsParams { from, after: args.after.clone(), follow: args.follow };
    let mut events = client.subscribe::<Events>(params).await?;
    let wanted = Wanted::new(args.since, &args.names, &client).await?;
    let output = &mut *session.output;
    let mut printer =
        Printer { clock: Clock::local(), is_asked_for: args.from.is_some() || args.after.is_some(), wanted };
    let end =
        follow(&mut events, output, args.follow, |notification, output| printer.print(notification, output))
            .await?;
    output.flush()?;
    if end == End::Source && args.follow {
        // Events end only with the daemon; asking tells whether it is gone already.
        client.call::<Version>(VersionParams::default()).await?;
        output.note("the events have ended: the daemon is stopping");
    }
    let mut code = exit_code::SUCCESS;
    // Who follows may wait for a server that is still to come.
    let unknown = if args.follow { BTreeSet::new() } else { printer.wanted.unknown };
    for name in unknown {
        let nearest = nearest(&client, &name).await;
        output.error(&CommandError::ServerNotFound { name, nearest });
        code = exit_code::FAILED;
    }
    Ok(code)
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
    /// Names and patterns as they were given, for servers of the past.
    names: Vec<String>,
    /// The servers of the present that are meant, by tags and files as well.
    servers: BTreeSet<String>,
    /// The names that have meant nothing so far.
    unknown: BTreeSet<String>,
}

impl Wanted {
    async fn new(since: Option<u64>, names: &[String], client: &Client) -> Result<Self, CommandError> {
        let (mut servers, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        if !names.is_empty() {
            let listed = client.call::<List>(ListParams {}).await?.servers;
            let selection = Selection::of(names);
            unknown.extend(selection.missing(&listed));
            let meant = listed.into_iter().filter(|server| selection.means(server));
            servers.extend(meant.map(|server| server.name));
        }
        Ok(Self { since, names: names.to_vec(), servers, unknown })
    }

    fn has(&mut self, event: &Event) -> bool {
        let is_meant = |name: &String| {
            let below = event.path.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('/'));
            below || pattern::matches(name, &event.path, &[])
        };
        self.unknown.retain(|name| !is_meant(name));
        self.since.is_none_or(|since| event.at_unix_ms >= since)
            && (self.names.is_empty()
                || self.servers.contains(&event.path)
                || self.names.iter().any(is_meant))
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
