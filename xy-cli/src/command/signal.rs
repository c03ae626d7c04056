//! `xyctl signal`: sends a signal to all processes of servers.

use xy_daemon::protocol::method::Signal;

use super::operation::Report;
use crate::args::SignalArgs;
use crate::error::CommandError;
use crate::session::{Session, call};

/// Runs the command.
pub(super) async fn run(args: &SignalArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let params = args.params().map_err(CommandError::Usage)?;
    let client = session.connect().await?;
    let answer = call::<Signal>(&client, params).await?;
    Report::new(&answer.result.failed)
        .done(&answer.result.signaled, "signaled")
        .write(&answer.text, &client, session)
        .await
}
