//! `xyctl start`: begins servers and waits until they are ready.

use xy_daemon::protocol::method::Start;

use super::operation::Report;
use crate::args::OperationArgs;
use crate::error::CommandError;
use crate::session::{Session, call};

/// Runs the command.
pub(super) async fn run(args: &OperationArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<Start>(&client, args.params()).await?;
    let result = &answer.result;
    let started = if args.no_wait { "starting" } else { "started" };
    Report::new(&result.failed)
        .done(&result.started, started)
        .nothing(&result.already_running, "already running")
        .write(&answer.text, &client, session)
        .await
}
