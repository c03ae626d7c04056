//! `xyctl shutdown`: ends the daemon and every server.

use serde_json::json;
use xy_daemon::client::{Client, ClientError};
use xy_daemon::protocol::method::{Events, EventsParams, Shutdown, ShutdownParams, Version, VersionParams};

use crate::args::ShutdownArgs;
use crate::error::{CommandError, exit_code};
use crate::session::{Session, call, is_absent};

/// Runs the command.
pub(super) async fn run(args: &ShutdownArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = match session.connect().await {
        Ok(client) => client,
        Err(CommandError::Client(ClientError::Unreachable { source, .. })) if is_absent(&source) => {
            if session.output.is_json() {
                session.output.json(&json!({ "stopping": false }))?;
            } else {
                session.output.line("the daemon is not running")?;
            }
            return Ok(exit_code::SUCCESS);
        }
        Err(error) => return Err(error),
    };
    // Subscribed before, so that the end of the connection is seen however soon it comes.
    let mut events = client.subscribe::<Events>(EventsParams::default()).await?;
    let answer = call::<Shutdown>(&client, ShutdownParams { reason: args.reason.clone() }).await?;
    if !session.output.is_json() {
        session.output.line("stopping every server")?;
        session.output.flush()?;
    }
    if !args.no_wait {
        while let Ok(Some(_)) = events.next().await {}
        closed(&client).await?;
    }
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
    } else if !args.no_wait {
        session.output.line("the daemon has ended")?;
    }
    Ok(exit_code::SUCCESS)
}

/// Waits until the daemon closes the connection, which it does when everything has ended.
async fn closed(client: &Client) -> Result<(), CommandError> {
    loop {
        // The events may end a little earlier than the daemon. What it answers meanwhile does not matter.
        match client.call::<Version>(VersionParams::default()).await {
            Ok(_) | Err(ClientError::Rpc(_)) => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await
            }
            Err(ClientError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
