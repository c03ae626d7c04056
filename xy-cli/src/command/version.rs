//! `xyctl version`: which versions of the command line and of the daemon these are.

use xy_daemon::protocol::PROTOCOL_VERSION;
use xy_daemon::protocol::method::{Version, VersionParams};

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
    let answer = call::<Version>(&client, VersionParams {}).await?;
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
    } else {
        let daemon = &answer.result;
        let since = Clock::local().date_time(daemon.started_at_unix_ms);
        let ago = time::ago(daemon.started_at_unix_ms, time::now_unix_ms());
        let (version, protocol, pid) = (neutral(&daemon.version), daemon.protocol, daemon.pid);
        let line = format!("daemon {version}, protocol {protocol}, pid {pid}, since {since} ({ago})");
        session.output.line(&line)?;
    }
    Ok(exit_code::SUCCESS)
}
