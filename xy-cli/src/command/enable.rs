//! `xyctl enable` and `xyctl disable`: which servers start with the daemon.

use xy_daemon::protocol::method::{Disable, Enable, OperationParams, Start, Stop, Targets};

use super::operation::Report;
use crate::args::EnableArgs;
use crate::error::CommandError;
use crate::session::{Session, call};

/// Runs `enable`.
pub(super) async fn enable(args: &EnableArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<Enable>(&client, args.params()).await?;
    let result = &answer.result;
    let report = Report::new(&result.failed).done(&result.enabled, "enabled");
    let code = report.write(&answer.text, &client, session).await?;
    if !args.now || result.enabled.is_empty() || session.output.is_json() {
        if args.now && !result.enabled.is_empty() {
            client.call::<Start>(now(args, &result.enabled)).await?;
        }
        return Ok(code);
    }
    let answer = call::<Start>(&client, now(args, &result.enabled)).await?;
    let result = &answer.result;
    let report = Report::new(&result.failed)
        .done(&result.started, "started")
        .nothing(&result.already_running, "already running");
    Ok(code.max(report.write(&answer.text, &client, session).await?))
}

/// Runs `disable`.
pub(super) async fn disable(args: &EnableArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<Disable>(&client, args.params()).await?;
    let result = &answer.result;
    let report = Report::new(&result.failed).done(&result.disabled, "disabled");
    let code = report.write(&answer.text, &client, session).await?;
    if !args.now || result.disabled.is_empty() || session.output.is_json() {
        if args.now && !result.disabled.is_empty() {
            client.call::<Stop>(now(args, &result.disabled)).await?;
        }
        return Ok(code);
    }
    let answer = call::<Stop>(&client, now(args, &result.disabled)).await?;
    let result = &answer.result;
    let report = Report::new(&result.failed)
        .done(&result.stopped, "stopped")
        .killed(&result.killed)
        .nothing(&result.not_running, "not running");
    Ok(code.max(report.write(&answer.text, &client, session).await?))
}

fn now(args: &EnableArgs, names: &[String]) -> OperationParams {
    OperationParams { targets: Targets::Names(names.to_vec()), ..args.params() }
}
