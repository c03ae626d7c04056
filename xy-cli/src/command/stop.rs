//! `xyctl stop`: ends servers and waits until nothing of them is left.

use xy_daemon::protocol::method::Stop;

use super::operation::Report;
use super::progress::{Goal, call_with_progress};
use crate::args::OperationArgs;
use crate::error::CommandError;
use crate::session::Session;

/// Runs the command.
pub(super) async fn run(args: &OperationArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call_with_progress::<Stop>(Goal::Gone, args.params(), &client, session).await?;
    let result = &answer.result;
    let stopped = if args.no_wait { "stopping" } else { "stopped" };
    Report::new(&result.failed)
        .done(&result.stopped, stopped)
        .killed(&result.killed)
        .nothing(&result.not_running, "not running")
        .write(&answer.text, &client, session)
        .await
}
