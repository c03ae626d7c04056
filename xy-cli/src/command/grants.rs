//! `xyctl grants` and `forget`: what operators have allowed for longer than once.

use xy_daemon::protocol::method::{Forget, GrantScope, Grants, GrantsParams};

use crate::args::ForgetArgs;
use crate::error::{CommandError, exit_code};
use crate::output::table::{Align, Table};
use crate::output::{Style, time};
use crate::session::{Session, call};

/// Runs `grants`.
pub(super) async fn list(session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<Grants>(&client, GrantsParams {}).await?;
    let output = &mut *session.output;
    if output.is_json() {
        output.verbatim(&answer.text)?;
        return Ok(exit_code::SUCCESS);
    }
    let grants = &answer.result.grants;
    if grants.is_empty() {
        output.note("nothing is granted beyond what the rules allow");
        return Ok(exit_code::SUCCESS);
    }
    let columns = ["ID", "SCOPE", "CLIENT", "ACTION", "SERVER", "CREATED"].map(|title| (title, Align::Left));
    let mut table = Table::new(&columns);
    let now = time::now_unix_ms();
    for grant in grants {
        let scope = match grant.scope {
            GrantScope::Once => "once",
            GrantScope::Session => "session",
            GrantScope::Always => "always",
        };
        let cells = [
            grant.id.clone(),
            scope.to_owned(),
            grant.client.clone(),
            grant.action.clone(),
            grant.target.clone().unwrap_or_default(),
            time::ago(grant.created_at_unix_ms, now),
        ];
        table.row(cells.map(|cell| (cell, Style::Plain)));
    }
    table.write("", output)?;
    Ok(exit_code::SUCCESS)
}

/// Runs `forget`.
pub(super) async fn forget(args: &ForgetArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<Forget>(&client, args.params()).await?;
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
    } else {
        session.output.line(&format!("forgotten {}", answer.result.forgotten.id))?;
    }
    Ok(exit_code::SUCCESS)
}
