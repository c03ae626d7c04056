//! `xyctl status`: everything about one server.

use xy_daemon::protocol::method::{Status, StatusParams, StatusResult, Wanted};

use super::list;
use crate::args::{ListArgs, StatusArgs};
use crate::error::{CommandError, exit_code};
use crate::output::text::{neutral, neutral_line};
use crate::output::time::{self, Clock};
use crate::output::{Output, Style};
use crate::session::{Session, call, explain};

/// How many of the latest changes of state are shown.
const TRANSITIONS: usize = 8;

/// Runs the command.
pub(super) async fn run(args: &StatusArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let [name] = &args.names[..] else {
        // Of several a table says more at a glance.
        return list::run(&ListArgs { names: args.names.clone(), ..ListArgs::default() }, session).await;
    };
    let client = session.connect().await?;
    let answer = match call::<Status>(&client, StatusParams::new(name)).await {
        Ok(answer) => answer,
        Err(error) => return Err(explain(&client, name, error).await),
    };
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
    } else {
        write(&answer.result, time::now_unix_ms(), &Clock::local(), session.output)?;
    }
    Ok(exit_code::SUCCESS)
}

fn write(
    status: &StatusResult,
    now_unix_ms: u64,
    clock: &Clock,
    output: &mut Output,
) -> Result<(), CommandError> {
    let server = &status.summary;
    let name = neutral(&server.name);
    output.line(&output.paint(Style::Bold, &name))?;

    let state = output.paint(list::style(server.state, server.ready), server.state.as_str()).into_owned();
    field("state", &state, output)?;
    field("ready", if server.ready { "yes" } else { "no" }, output)?;
    if server.wanted == Wanted::Down {
        field("wanted", "down, until it is started", output)?;
    }
    if server.paused {
        field("paused", "yes, it is not restarted automatically", output)?;
    }
    let process = server.pid.map(|pid| format!("{pid} (incarnation {})", status.incarnation));
    optional("pid", process.as_deref(), output)?;
    optional("up", server.uptime_secs.map(time::span).as_deref(), output)?;
    field("restarts", &server.restart_count.to_string(), output)?;
    optional("port", server.port.map(|port| port.to_string()).as_deref(), output)?;
    optional("next", server.next.as_deref().map(neutral).as_deref(), output)?;
    if let Some(last) = &server.last_exit {
        let cause = neutral(&last.cause);
        let ago = time::ago(last.at_unix_ms, now_unix_ms);
        let text = format!("{cause} ({}), {ago} (incarnation {})", last.exit, last.incarnation);
        field("last exit", &text, output)?;
    }
    optional("log", status.log_path.as_deref().map(neutral).as_deref(), output)?;
    if let Some(error) = &status.config_error {
        // Such errors have several lines, each with a place in the file.
        for (index, line) in error.lines().enumerate() {
            field(if index == 0 { "file" } else { "" }, &neutral(line), output)?;
        }
    }

    if !status.children.is_empty() {
        heading("children", output)?;
        list::table("  ", &status.children, None, output)?;
    }
    if !status.transitions.is_empty() {
        heading("changes of state", output)?;
        let skip = status.transitions.len().saturating_sub(TRANSITIONS);
        for change in &status.transitions[skip..] {
            let at = clock.short(change.at_unix_ms, now_unix_ms);
            let reason = neutral(&change.reason);
            let line = format!("  {at}  {:<10} -> {:<10}  {reason}", change.from, change.to);
            output.line(line.trim_end())?;
        }
    }
    if !status.stderr_tail.is_empty() {
        heading("last lines of standard error", output)?;
        for line in &status.stderr_tail {
            output.line(&format!("  | {}", neutral_line(line)))?;
        }
    }
    Ok(())
}

fn field(label: &str, value: &str, output: &mut Output) -> Result<(), CommandError> {
    output.line(&format!("  {label:<10} {value}"))
}

fn optional(label: &str, value: Option<&str>, output: &mut Output) -> Result<(), CommandError> {
    value.map_or(Ok(()), |value| field(label, value, output))
}

fn heading(text: &str, output: &mut Output) -> Result<(), CommandError> {
    output.line(&format!("\n{}", output.paint(Style::Bold, text)))
}
