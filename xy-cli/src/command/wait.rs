//! `xyctl wait`: returns when servers are where they should be.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout_at};
use xy_daemon::client::{Client, ClientError};
use xy_daemon::protocol::error::ErrorKind;
use xy_daemon::protocol::method::{
    Events, EventsParams, Failed, List, ListParams, ServerSummary, State, Targets,
};

use crate::args::{Goal, WaitArgs};
use crate::error::{CommandError, exit_code};
use crate::output::Style;
use crate::output::text::neutral;
use crate::session::{Selection, Session, nearest};

/// What counts without an event, such as the end of a wait for a port, is looked for this often.
const PERIOD: Duration = Duration::from_secs(1);

/// Runs the command.
pub(super) async fn run(args: &WaitArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let selection = match args.targets.targets() {
        Targets::All => Selection::of(&[]),
        Targets::Names(names) => Selection::of(&names),
    };
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    // Subscribed before the first look, so that nothing is missed between the two.
    let mut events = client.subscribe::<Events>(EventsParams::default()).await?;
    let mut before: Option<BTreeMap<String, Option<u64>>> = None;
    let mut failed: Vec<Failed> = Vec::new();
    let mut done: Vec<String> = Vec::new();
    loop {
        let servers = client.call::<List>(ListParams {}).await?.servers;
        let first = before.is_none();
        let before = before.get_or_insert_with(|| {
            let incarnation = |server: &ServerSummary| server.pid.map(u64::from);
            servers
                .iter()
                .filter(|server| selection.means(server))
                .map(|server| (server.name.clone(), incarnation(server)))
                .collect()
        });
        if first {
            for name in selection.missing(&servers) {
                failed.push(not_found(name));
            }
        }
        let mut is_pending = false;
        for (name, pid) in &*before {
            if done.contains(name) || failed.iter().any(|failed| failed.name == *name) {
                continue;
            }
            let Some(server) = servers.iter().find(|server| server.name == *name) else {
                match args.goal {
                    // What is not there any more has ended.
                    Goal::Stopped | Goal::Exit => done.push(name.clone()),
                    Goal::Ready | Goal::Healthy => failed.push(not_found(name.clone())),
                }
                continue;
            };
            match reached(args.goal, server, *pid) {
                Some(true) => done.push(name.clone()),
                Some(false) => failed.push(Failed {
                    name: name.clone(),
                    kind: ErrorKind::NotReady,
                    message: match &server.last_exit {
                        Some(exit) => format!("failed: {}", exit.cause),
                        None => "failed".to_owned(),
                    },
                }),
                None => is_pending = true,
            }
        }
        if !is_pending {
            break;
        }
        let wake = Instant::now() + PERIOD;
        let wake = deadline.map_or(wake, |deadline| deadline.min(wake));
        match timeout_at(wake, events.next()).await {
            Ok(event) => {
                if event?.is_none() {
                    return Err(CommandError::Client(ClientError::Closed));
                }
            }
            Err(_) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                let waiting = before.keys().filter(|name| {
                    !done.contains(name) && !failed.iter().any(|failed| failed.name == **name)
                });
                let late: Vec<Failed> = waiting.map(|name| late(name, args.goal, &servers)).collect();
                failed.extend(late);
                break;
            }
            Err(_) => {}
        }
    }
    write(args.goal, &done, &failed, &client, session).await
}

/// Returns whether a server is where it should be; `Some(false)` if it never will be by itself.
fn reached(goal: Goal, server: &ServerSummary, pid: Option<u64>) -> Option<bool> {
    match goal {
        Goal::Ready if server.state == State::Running => Some(true),
        Goal::Healthy if server.state == State::Running && server.ready && !server.unproven => Some(true),
        Goal::Ready | Goal::Healthy if server.state == State::Failed => Some(false),
        Goal::Stopped if matches!(server.state, State::Stopped | State::Failed) => Some(true),
        Goal::Exit if server.pid.is_none() || server.pid.map(u64::from) != pid => Some(true),
        _ => None,
    }
}

fn not_found(name: String) -> Failed {
    Failed { message: format!("server not found: `{name}`"), name, kind: ErrorKind::ServerNotFound }
}

fn late(name: &str, goal: Goal, servers: &[ServerSummary]) -> Failed {
    let state = servers.iter().find(|server| server.name == name).map(|server| match &server.next {
        Some(next) => format!(", it is {} ({next})", server.state),
        None => format!(", it is {}", server.state),
    });
    let message = format!("not {} in the time given{}", word(goal), state.unwrap_or_default());
    Failed { name: name.to_owned(), kind: ErrorKind::Timeout, message }
}

fn word(goal: Goal) -> &'static str {
    match goal {
        Goal::Ready => "ready",
        Goal::Healthy => "healthy",
        Goal::Stopped => "stopped",
        Goal::Exit => "ended",
    }
}

async fn write(
    goal: Goal,
    done: &[String],
    failed: &[Failed],
    client: &Client,
    session: &mut Session<'_>,
) -> Result<u8, CommandError> {
    if session.output.is_json() {
        session.output.json(&json!({ "done": done, "failed": failed }))?;
    } else {
        for name in done {
            let line = format!("{}: {}", neutral(name), session.output.paint(Style::Good, word(goal)));
            session.output.line(&line)?;
        }
        for failed in failed {
            if failed.kind == ErrorKind::ServerNotFound {
                let (name, nearest) = (failed.name.clone(), nearest(client, &failed.name).await);
                session.output.error(&CommandError::ServerNotFound { name, nearest });
            } else {
                let hint = format!("`xyctl why {}` says more", failed.name);
                session.output.problem(&format!("{}: {}", failed.name, failed.message), Some(&hint));
            }
        }
    }
    Ok(if failed.is_empty() { exit_code::SUCCESS } else { exit_code::FAILED })
}

#[cfg(test)]
mod tests {
    use xy_daemon::protocol::method::Wanted;

    use super::*;

    #[test]
    fn each_goal_is_reached_in_its_states_only() {
        let server = |state, ready, pid| ServerSummary {
            name: "web".to_owned(),
            group: false,
            state,
            ready,
            unproven: false,
            wanted: Wanted::Up,
            paused: false,
            pid,
            port: None,
            uptime_secs: None,
            restart_count: 0,
            last_exit: None,
            next: None,
            tags: Vec::new(),
        };
        use State::{Failed, Restarting, Running, Starting, Stopped, Stopping};
        for (state, ready, pid, expected) in [
            (Starting, false, Some(7), [None, None, None, None]),
            (Running, true, Some(7), [Some(true), Some(true), None, None]),
            (Running, false, Some(7), [Some(true), None, None, None]),
            (Running, true, Some(8), [Some(true), Some(true), None, Some(true)]),
            (Restarting, false, None, [None, None, None, Some(true)]),
            (Stopping, false, Some(7), [None, None, None, None]),
            (Stopped, false, None, [None, None, Some(true), Some(true)]),
            (Failed, false, None, [Some(false), Some(false), Some(true), Some(true)]),
        ] {
            // A liveness check that has not been passed yet keeps nobody waiting but for `healthy`.
            let unproven = ServerSummary { unproven: true, ..server(state, ready, pid) };
            assert_ne!(reached(Goal::Healthy, &unproven, Some(7)), Some(true), "{state}");
            assert_eq!(reached(Goal::Ready, &unproven, Some(7)), expected[0], "{state}");
            let goals = [Goal::Ready, Goal::Healthy, Goal::Stopped, Goal::Exit];
            let found = goals.map(|goal| reached(goal, &server(state, ready, pid), Some(7)));
            assert_eq!(found, expected, "{state} {ready} {pid:?}");
        }
    }
}
