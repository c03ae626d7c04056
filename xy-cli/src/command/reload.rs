//! `xyctl reload`: applies what changed in the server files, and says what that was.

use xy_daemon::protocol::method::{Reload, ReloadParams, ReloadResult, Reloaded};

use crate::args::ReloadArgs;
use crate::error::{CommandError, exit_code};
use crate::output::text::{count, neutral};
use crate::output::{Output, Style};
use crate::session::{Session, call};

/// Runs the command.
pub(super) async fn run(args: &ReloadArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<Reload>(&client, ReloadParams { dry_run: args.dry_run }).await?;
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
    } else {
        write(&answer.result, args.dry_run, session.output)?;
    }
    Ok(if answer.result.rejected.is_empty() { exit_code::SUCCESS } else { exit_code::CONFIG })
}

fn write(result: &ReloadResult, dry_run: bool, output: &mut Output) -> Result<(), CommandError> {
    let done = |done: &'static str, planned: &'static str| if dry_run { planned } else { done };
    rows(done("added", "would be added"), Style::Good, &result.added, output)?;
    rows(done("changed", "would be changed"), Style::Busy, &result.changed, output)?;
    rows(done("removed", "would be removed"), Style::Busy, &result.removed, output)?;
    if !result.unchanged.is_empty() {
        let number = u64::try_from(result.unchanged.len()).unwrap_or(u64::MAX);
        let text = format!("{} unchanged", count(number, "server"));
        output.line(&output.paint(Style::Dim, &text))?;
    }
    rejected(&result.rejected, output);
    Ok(())
}

fn rows(what: &str, style: Style, rows: &[Reloaded], output: &mut Output) -> Result<(), CommandError> {
    for Reloaded { name, reason } in rows {
        let mut line = format!("{}: {}", neutral(name), output.paint(style, what));
        if !reason.is_empty() {
            line.push_str(&format!(" ({})", neutral(reason)));
        }
        output.line(&line)?;
    }
    Ok(())
}

/// Reports files that were not taken over.
pub(super) fn rejected(rejected: &[Reloaded], output: &mut Output) {
    for Reloaded { name, reason } in rejected {
        // A reason has a line for each mistake in the file.
        for line in reason.lines() {
            output.problem(&format!("{name}: {line}"), None);
        }
        if reason.is_empty() {
            output.problem(&format!("{name}: rejected"), None);
        }
    }
}
