//! `xyctl daemon status`: whether the daemon runs, and on what.

use serde_json::{Value, json};

use super::super::version::diagnostics;
use super::found::{Found, Place};
use crate::error::{CommandError, exit_code};
use crate::output::text::neutral;
use crate::output::time::{self, Clock};
use crate::session::Session;

/// Runs the command.
pub(super) async fn run(session: &mut Session<'_>) -> Result<u8, CommandError> {
    let place = Place::of(session)?;
    let socket = place.socket.display().to_string();
    let (word, code, lines, daemon) = match place.look().await? {
        Found::Running(_, answer) => {
            let daemon = &answer.result;
            let since = Clock::local().date_time(daemon.started_at_unix_ms);
            let ago = time::ago(daemon.started_at_unix_ms, time::now_unix_ms());
            let mut lines = vec![
                format!("running: pid {}, since {since} ({ago})", daemon.pid),
                format!("  version: {}, protocol {}", neutral(&daemon.version), daemon.protocol),
                format!("  socket: {socket}"),
            ];
            lines.extend(daemon.diagnostics.iter().flat_map(diagnostics));
            let log = place.directories.daemon_log();
            lines.extend(log.exists().then(|| format!("  log: {}", log.display())));
            ("running", exit_code::SUCCESS, lines, serde_json::from_str(answer.text.get()).ok())
        }
        Found::Silent(pid) => {
            let who = pid.map(|pid| format!("pid {pid} ")).unwrap_or_default();
            let line = format!("not answering: {who}owns {}", place.directories.state.display());
            let hint = format!(
                "  nothing answers at {socket}; it may be starting, ending, hung, or listen at another socket"
            );
            let pid = pid.map(|pid| json!({ "pid": pid }));
            ("not_answering", exit_code::FAILED, vec![line, hint], pid)
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
