//! `xyctl version`: which versions of the command line and of the daemon these are.

use xy_daemon::protocol::PROTOCOL_VERSION;
use xy_daemon::protocol::method::{Diagnostics, Version, VersionParams};

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
        let daemon = &answer.result;
        let since = Clock::local().date_time(daemon.started_at_unix_ms);
        let ago = time::ago(daemon.started_at_unix_ms, time::now_unix_ms());
        let (version, protocol, pid) = (neutral(&daemon.version), daemon.protocol, daemon.pid);
        let who = match &daemon.program {
            Some(program) => format!("{}, with xy {version}", neutral(program)),
            None => format!("daemon {version}"),
        };
        let line = format!("{who}, protocol {protocol}, pid {pid}, since {since} ({ago})");
        session.output.line(&line)?;
        for line in daemon.diagnostics.iter().flat_map(diagnostics) {
            session.output.line(&line)?;
        }
    }
    Ok(exit_code::SUCCESS)
}

/// Says what the daemon stands on, a line per fact.
pub(super) fn diagnostics(facts: &Diagnostics) -> Vec<String> {
    let ownership = match (facts.ownership.as_str(), &facts.cgroup) {
        ("cgroup", Some(path)) => format!("control groups in {}", neutral(path)),
        ("subreaper", _) => "orphans come to the daemon".to_owned(),
        ("walk", _) => "the daemon looks at every process".to_owned(),
        (other, _) => neutral(other).to_string(),
    };
    let guard = facts.guard_pid.map_or("none".to_owned(), |pid| format!("pid {pid}"));
    let mut lines = vec![format!("  process trees: {ownership}"), format!("  guard: {guard}")];
    // A program with a tree of its own has neither.
    let directories = [("configuration", &facts.config_dir), ("state", &facts.state_dir)];
    let known = directories.into_iter().filter(|(_, directory)| !directory.is_empty());
    lines.extend(known.map(|(what, directory)| format!("  {what}: {}", neutral(directory))));
    lines.extend(facts.open_files_limit.map(|limit| format!("  open files: at most {limit}")));
    lines.extend(
        facts.strangers.iter().map(|stranger| format!("  belongs to no server: {}", neutral(stranger))),
    );
    lines
}
