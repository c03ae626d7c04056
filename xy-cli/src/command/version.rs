//! `xyctl version`: which versions of the command line and of the daemon these are.

use xy_daemon::protocol::PROTOCOL_VERSION;
use xy_daemon::protocol::method::{Version, VersionParams, VersionResult};

use super::diagnostics::foundation;
use crate::error::{CommandError, exit_code};
use crate::output::text::neutral;
use crate::output::time::{self, Clock};
use crate::session::{Session, call};

/// Runs the command.
pub(super) async fn run(session: &mut Session<'_>) -> Result<u8, CommandError> {
    if !session.output.is_json() {
        // This much is known without a daemon.
        let version = env!("CARGO_PKG_VERSION");
        session.output.line(&format!("xyctl {version}, protocol {PROTOCOL_VERSION}"))?;
    }
    let client = session.connect().await?;
    let answer = call::<Version>(&client, VersionParams::default()).await?;
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
    } else {
        let result = &answer.result;
        let name = if result.program.is_none() { "daemon " } else { "" };
        session.output.line(&format!("{name}{}", neutral(&daemon(result))))?;
        for (what, known) in result.diagnostics.iter().flat_map(foundation) {
            session.output.line(&format!("  {what}: {}", neutral(&known)))?;
        }
    }
    Ok(exit_code::SUCCESS)
}

/// Says which daemon it is, and since when.
pub(super) fn daemon(daemon: &VersionResult) -> String {
    let since = Clock::local().date_time(daemon.started_at_unix_ms);
    let ago = time::ago(daemon.started_at_unix_ms, time::now_unix_ms());
    let VersionResult { version, protocol, pid, .. } = daemon;
    let who = match &daemon.program {
        Some(program) => format!("{program}, with xy {version}"),
        None => version.clone(),
    };
    format!("{who}, protocol {protocol}, pid {pid}, since {since} ({ago})")
}
