//! `xyctl why`: the answer to "why is it not running", on one screen.

use xy_daemon::protocol::method::{PastExit, Why, WhyParams, WhyResult};

use super::list;
use crate::args::WhyArgs;
use crate::error::{CommandError, exit_code};
use crate::output::text::{neutral, neutral_line, processes};
use crate::output::time::{self, Clock};
use crate::output::{Output, Style};
use crate::session::{Session, call, explain};

/// Runs the command.
pub(super) async fn run(args: &WhyArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = match call::<Why>(&client, WhyParams { name: args.name.clone() }).await {
        Ok(answer) => answer,
        Err(error) => return Err(explain(&client, &args.name, error).await),
    };
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
    } else {
        write(&answer.result, time::now_unix_ms(), &Clock::local(), session.output)?;
    }
    Ok(exit_code::SUCCESS)
}

fn write(why: &WhyResult, now_unix_ms: u64, clock: &Clock, output: &mut Output) -> Result<(), CommandError> {
    let server = &why.server;
    let state = output.paint(list::style(server.state, server.ready), server.state.as_str()).into_owned();
    let ready = if server.ready { ", ready" } else { "" };
    let up = server.uptime_secs.map(|seconds| format!(" for {}", time::span(seconds))).unwrap_or_default();
    let name = output.paint(Style::Bold, &neutral(&server.name)).into_owned();
    output.line(&format!("{name}: {state}{ready}{up}"))?;
    let next = list::next(server).or_else(|| server.pid.is_none().then(|| "nothing by itself".to_owned()));
    if let Some(next) = next {
        output.line(&format!("  next: {}", neutral(&next)))?;
    }
    if let Some(error) = &why.config_error {
        for line in error.lines() {
            output.line(&format!("  file: {}", neutral(line)))?;
        }
    }
    if why.exits.is_empty() {
        output.line("")?;
        output.line("it has not ended yet, as far as is known")?;
    }
    for exit in &why.exits {
        output.line("")?;
        write_exit(exit, now_unix_ms, clock, output)?;
    }
    if !why.asked.is_empty() {
        heading("asked for", output)?;
        for asked in &why.asked {
            let at = clock.short(asked.at_unix_ms, now_unix_ms);
            let reason =
                asked.reason.as_deref().map(|reason| format!(": {}", neutral(reason))).unwrap_or_default();
            output.line(&format!("  {at}  {}{reason}", neutral(&asked.operation)))?;
        }
    }
    if !why.advice.is_empty() {
        heading("what to try", output)?;
        for advice in &why.advice {
            output.line(&format!("  - {}", neutral(advice)))?;
        }
    }
    Ok(())
}

fn write_exit(
    exit: &PastExit,
    now_unix_ms: u64,
    clock: &Clock,
    output: &mut Output,
) -> Result<(), CommandError> {
    let at = clock.short(exit.at_unix_ms, now_unix_ms);
    let (what, style) = match exit.event.as_str() {
        "child_start_failed" => ("start failed", Style::Bad),
        "child_stopped" => ("stopped", Style::Plain),
        "child_leaked" => ("could not be ended", Style::Bad),
        _ => ("exited", Style::Busy),
    };
    let what = output.paint(style, what).into_owned();
    let ran = exit.started_at_unix_ms.map(|started| exit.at_unix_ms.saturating_sub(started));
    let ran = ran.map(|ms| format!(" after {}", lasted(ms))).unwrap_or_default();
    let next = exit.next.as_deref().map(|next| format!("; {}", neutral(next))).unwrap_or_default();
    output.line(&format!("{at}  {what}{ran}: {}{next}", neutral(&exit.cause)))?;
    if !exit.killed.is_empty() {
        output.line(&format!("  had to be killed: {}", processes(&exit.killed)))?;
    }
    for line in &exit.lines {
        output.line(&format!("  | {}", neutral_line(line)))?;
    }
    Ok(())
}

/// Writes how long something ran.
fn lasted(ms: u64) -> String {
    if ms < 60_000 { time::tenths(std::time::Duration::from_millis(ms)) } else { time::span(ms / 1000) }
}

fn heading(text: &str, output: &mut Output) -> Result<(), CommandError> {
    output.line("")?;
    let text = output.paint(Style::Bold, text).into_owned();
    output.line(&text)
}
