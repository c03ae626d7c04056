//! `xyctl start`: begins servers and waits until they are ready.

use xy_daemon::protocol::method::Start;

use super::operation::Report;
use super::progress::{Goal, call_with_progress};
use crate::args::OperationArgs;
use crate::error::CommandError;
use crate::session::Session;

/// Runs the command.
pub(super) async fn run(args: &OperationArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call_with_progress::<Start>(Goal::Ready, args.params(), &client, session).await?;
    let result = &answer.result;
    let started = if args.no_wait { "starting" } else { "started" };
    Report::new(&result.failed)
        .done(&result.started, started)
        .nothing(&result.already_running, "already running")
        .write(&answer.text, &client, session)
        .await
}
