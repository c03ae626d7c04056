//! `xyctl approvals`, `approve` and `deny`: requests that wait for an operator's answer.

use xy_daemon::protocol::method::{Approvals, ApprovalsParams, Approve, Deny};

use crate::args::{ApproveArgs, DenyArgs};
use crate::error::{CommandError, exit_code};
use crate::output::table::{Align, Table};
use crate::output::{Style, time};
use crate::session::{Session, call};

/// Runs `approvals`.
pub(super) async fn list(session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<Approvals>(&client, ApprovalsParams {}).await?;
    let output = &mut *session.output;
    if output.is_json() {
        output.verbatim(&answer.text)?;
        return Ok(exit_code::SUCCESS);
    }
    let approvals = &answer.result.approvals;
    if approvals.is_empty() {
        output.note("nothing waits for an answer");
        return Ok(exit_code::SUCCESS);
    }
    let columns = ["ID", "CLIENT", "ACTION", "SERVERS", "LEFT", "REASON"].map(|title| (title, Align::Left));
    let mut table = Table::new(&columns);
    let now = time::now_unix_ms();
    for approval in approvals {
        let left = time::span(approval.expires_at_unix_ms.saturating_sub(now).div_ceil(1000));
        let cells = [
            approval.id.clone(),
            approval.client.clone(),
            approval.action.clone(),
            approval.targets.join(","),
            left,
            approval.reason.clone().unwrap_or_default(),
        ];
        table.row(cells.map(|cell| (cell, Style::Plain)));
    }
    table.write("", output)?;
    Ok(exit_code::SUCCESS)
}

/// Runs `approve`.
pub(super) async fn approve(args: &ApproveArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<Approve>(&client, args.params()).await?;
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
    } else {
        let grants = &answer.result.grants;
        let remembered =
            if grants.is_empty() { String::new() } else { format!(", remembered as {}", grants.join(", ")) };
        session.output.line(&format!("approved {}{remembered}", answer.result.id))?;
    }
    Ok(exit_code::SUCCESS)
}

/// Runs `deny`.
pub(super) async fn deny(args: &DenyArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<Deny>(&client, args.params()).await?;
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
    } else {
        session.output.line(&format!("denied {}", answer.result.id))?;
    }
    Ok(exit_code::SUCCESS)
}
