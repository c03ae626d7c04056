//! `xyctl restart`: ends servers and begins them again.

use xy_daemon::protocol::method::Restart;

use super::operation::Report;
use super::progress::{Goal, call_with_progress};
use crate::args::OperationArgs;
use crate::error::CommandError;
use crate::session::Session;

/// Runs the command.
pub(super) async fn run(args: &OperationArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call_with_progress::<Restart>(Goal::ReadyAgain, args.params(), &client, session).await?;
    let result = &answer.result;
    let restarted = if args.no_wait { "restarting" } else { "restarted" };
    Report::new(&result.failed).done(&result.restarted, restarted).write(&answer.text, &client, session).await
}
