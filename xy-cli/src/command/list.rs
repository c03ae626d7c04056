//! `xyctl list`: all servers in one table.

use xy_daemon::protocol::method::{List, ListParams, ServerSummary, State};

use crate::error::{CommandError, exit_code};
use crate::output::table::{Align, Table};
use crate::output::{Output, Style, time};
use crate::session::{Session, call};

/// Runs the command.
pub(super) async fn run(session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<List>(&client, ListParams {}).await?;
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
    } else if answer.result.servers.is_empty() {
        session.output.note("no servers are configured");
    } else {
        table("", &answer.result.servers, session.output)?;
    }
    Ok(exit_code::SUCCESS)
}

/// Writes servers as a table, each line after `indent`.
pub(super) fn table(
    indent: &str,
    servers: &[ServerSummary],
    output: &mut Output,
) -> Result<(), CommandError> {
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("READY", Align::Left),
        ("PID", Align::Right),
        ("UP", Align::Right),
        ("RESTARTS", Align::Right),
        ("PORT", Align::Right),
        ("NEXT", Align::Left),
    ]);
    for server in servers {
        let plain = |text: Option<String>| (text.unwrap_or_default(), Style::Plain);
        table.row([
            plain(Some(indented(&server.name, output.is_terminal()))),
            (server.state.to_string(), style(server.state, server.ready)),
            plain(Some(if server.ready { "yes" } else { "no" }.to_owned())),
            plain(server.pid.map(|pid| pid.to_string())),
            // One word, so that each line has as many words as columns up to the last.
            plain(server.uptime_secs.map(|seconds| time::span(seconds).replace(' ', ""))),
            plain(Some(server.restart_count.to_string())),
            plain(server.port.map(|port| port.to_string())),
            plain(next(server)),
        ]);
    }
    table.write(indent, output)
}

/// Indents what lies in a group for people; for programs each line begins with the name.
fn indented(name: &str, is_terminal: bool) -> String {
    let depth = if is_terminal { name.matches('/').count() } else { 0 };
    "  ".repeat(depth) + name
}

/// Returns how a state stands out; one that runs without being ready does not look well.
pub(super) fn style(state: State, ready: bool) -> Style {
    match state {
        State::Running if ready => Style::Good,
        State::Running | State::Starting | State::Restarting | State::Stopping => Style::Busy,
        State::Failed => Style::Bad,
        State::Stopped => Style::Dim,
    }
}

fn next(server: &ServerSummary) -> Option<String> {
    match (&server.next, server.paused) {
        (Some(next), true) => Some(format!("paused; {next}")),
        (None, true) => Some("paused".to_owned()),
        (Some(next), false) => Some(next.clone()),
        // Why it does not run says more than nothing.
        (None, false) if server.state == State::Failed => {
            server.last_exit.as_ref().map(|exit| format!("none; {}", exit.cause))
        }
        (None, false) => None,
    }
}
