//! `xyctl daemon upgrade`: lets the program on disk take over, and says whether it did.

use std::time::Duration;

use xy_daemon::client::{Client, ClientError};
use xy_daemon::protocol::method::{Upgrade, UpgradeParams, Version, VersionParams, VersionResult};

use crate::error::{CommandError, exit_code};
use crate::output::text::neutral;
use crate::session::{Session, call};

/// How long the new program, or the old one after it, may take to answer.
const PATIENCE: Duration = Duration::from_secs(40);

/// The pause between two questions.
const PACE: Duration = Duration::from_millis(20);

/// Runs the command.
pub(super) async fn run(session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let before = call::<Version>(&client, VersionParams::default()).await?.result;
    let answer = call::<Upgrade>(&client, UpgradeParams {}).await?;
    let after = tokio::time::timeout(PATIENCE, successor(session, client, &before)).await;
    let after = after.map_err(|_| CommandError::NotUpgraded)??;
    let is_handed_back = after.diagnostics.as_ref().is_some_and(|facts| facts.handed_back);
    // The program that answers is another one if it came into being later, in the same process.
    let is_another = after.started_at_unix_ms > before.started_at_unix_ms && after.pid == before.pid;
    if is_handed_back || !is_another {
        return Err(CommandError::NotUpgraded);
    }
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
    } else {
        let (from, to) = (neutral(&before.version), neutral(&after.version));
        session.output.line(&format!("upgraded from {from} to {to}, pid {}", after.pid))?;
    }
    Ok(exit_code::SUCCESS)
}

/// Waits until another program answers, or whoever does after the end of this connection.
async fn successor(
    session: &mut Session<'_>,
    client: Client,
    before: &VersionResult,
) -> Result<VersionResult, CommandError> {
    while let Ok(now) = client.call::<Version>(VersionParams::default()).await {
        if now.started_at_unix_ms != before.started_at_unix_ms {
            return Ok(now);
        }
        tokio::time::sleep(PACE).await;
    }
    loop {
        let answer = match session.connect().await {
            Ok(client) => client.call::<Version>(VersionParams::default()).await,
            Err(CommandError::Client(error)) => Err(error),
            Err(error) => return Err(error),
        };
        match answer {
            Ok(version) => return Ok(version),
            // It was asked just before it went.
            Err(ClientError::Closed | ClientError::Unreachable { .. }) => tokio::time::sleep(PACE).await,
            Err(error) => return Err(error.into()),
        }
    }
}
