//! `xyctl daemon status`: whether the daemon runs, and on what.

use std::time::Duration;

use serde_json::{Value, json};
use xy_daemon::protocol::method::{DaemonDiagnostics, DiagnosticsParams, DiagnosticsResult, TokenSource};

use super::super::version::diagnostics;
use super::found::{Found, Place, Silence};
use crate::error::{CommandError, exit_code};
use crate::output::text::neutral;
use crate::output::time::{self, Clock};
use crate::session::Session;

/// Runs the command.
pub(super) async fn run(session: &mut Session<'_>) -> Result<u8, CommandError> {
    let place = Place::of(session)?;
    let socket = place.socket.display().to_string();
    let (word, code, lines, daemon) = match place.look().await? {
        Found::Running(client, answer) => {
            let daemon = &answer.result;
            let since = Clock::local().date_time(daemon.started_at_unix_ms);
            let ago = time::ago(daemon.started_at_unix_ms, time::now_unix_ms());
            let mut lines = vec![
                format!("running: pid {}, since {since} ({ago})", daemon.pid),
                format!("  version: {}, protocol {}", neutral(&daemon.version), daemon.protocol),
                format!("  socket: {socket}"),
            ];
            lines.extend(daemon.diagnostics.iter().flat_map(diagnostics));
            // A daemon of an earlier version says no more.
            let more = client.call::<DaemonDiagnostics>(DiagnosticsParams {}).await.ok();
            lines.extend(more.iter().flat_map(facts));
            let log = place.directories.daemon_log();
            lines.extend(log.exists().then(|| format!("  log: {}", log.display())));
            ("running", exit_code::SUCCESS, lines, serde_json::from_str(answer.text.get()).ok())
        }
        Found::Silent(pid) => {
            let silence = Silence::of_holder(pid, &place);
            let lines = vec![silence.to_string(), format!("  {}", silence.hint())];
            let pid = pid.map(|pid| json!({ "pid": pid }));
            ("not_answering", exit_code::FAILED, lines, pid)
        }
        Found::Stale => {
            let line = format!("stopped: it has ended without removing {socket}");
            ("stale", exit_code::UNREACHABLE, vec![line, START.to_owned()], None)
        }
        Found::Stopped => {
            ("stopped", exit_code::UNREACHABLE, vec!["stopped".to_owned(), START.to_owned()], None)
        }
    };
    if session.output.is_json() {
        let daemon: Option<Value> = daemon;
        let status = json!({ "status": word, "socket": socket, "daemon": daemon });
        session.output.json(&status)?;
    } else {
        for line in lines {
            session.output.line(&line)?;
        }
    }
    Ok(code)
}

/// Says what the daemon is doing, a line per fact.
fn facts(facts: &DiagnosticsResult) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(http) = &facts.http {
        let (clients, refused) = (http.clients, http.refused_tokens);
        let token = match http.token_source {
            TokenSource::File => "token from its file",
            TokenSource::Environment => "token from XY_TOKEN",
            TokenSource::Generated => "token generated",
            // One that only a later daemon knows.
            _ => "token from elsewhere",
        };
        lines.push(format!(
            "  http: {}, {token}, {clients} clients with tokens of their own, {refused} refused requests",
            neutral(&http.base_url)
        ));
    }
    if let Some(connections) = facts.connections {
        let asked = facts.last_activity_unix_ms.map(|at| time::ago(at, time::now_unix_ms()));
        let asked =
            asked.map_or_else(|| "nothing asked for yet".to_owned(), |ago| format!("last request {ago}"));
        lines.push(format!("  clients: {connections} connected, this one included; {asked}"));
    }
    if let Some(events) = facts.events {
        lines.push(match events.keep {
            0 => "  events: none outlives the daemon".to_owned(),
            keep => {
                let age = Duration::from_secs(events.age_secs);
                format!("  events: up to {}; the latest {keep} of the last {age:?} are kept", events.latest)
            }
        });
    }
    lines.push(format!("  under way: {} operations", facts.operations));
    for error in &facts.recent_errors {
        let at = Clock::local().date_time(error.at_unix_ms);
        lines.push(format!("  {at} {}: {}", neutral(&error.level), neutral(&error.message)));
    }
    lines
}

const START: &str = "  `xyctl daemon start` starts it";
