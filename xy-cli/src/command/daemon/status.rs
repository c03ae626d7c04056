//! `xyctl daemon status`: whether the daemon runs, and on what.

use serde_json::{Value, json};
use xy_daemon::protocol::method::{DaemonDiagnostics, DiagnosticsParams};

use super::super::diagnostics::{Fact, doing, foundation, recent_errors};
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
            let line = |(what, known): Fact| format!("  {what}: {}", neutral(&known));
            lines.extend(daemon.diagnostics.iter().flat_map(foundation).map(line));
            // A daemon of an earlier version says no more.
            let more = client.call::<DaemonDiagnostics>(DiagnosticsParams {}).await.ok();
            lines.extend(
                more.iter().flat_map(|more| doing(more).into_iter().chain(recent_errors(more))).map(line),
            );
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

const START: &str = "  `xyctl daemon start` starts it";
