//! `xyctl resume`: lets automatic restarts happen again.

use xy_daemon::protocol::method::Resume;

use super::operation::Report;
use crate::args::HoldArgs;
use crate::error::CommandError;
use crate::session::{Session, call};

/// Runs the command.
pub(super) async fn run(args: &HoldArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<Resume>(&client, args.params()).await?;
    let result = &answer.result;
    Report::new(&result.failed).done(&result.resumed, "resumed").write(&answer.text, &client, session).await
}
