//! `xyctl pause`: holds back automatic restarts.

use xy_daemon::protocol::method::Pause;

use super::operation::Report;
use crate::args::HoldArgs;
use crate::error::CommandError;
use crate::session::{Session, call};

/// Runs the command.
pub(super) async fn run(args: &HoldArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<Pause>(&client, args.params()).await?;
    let result = &answer.result;
    Report::new(&result.failed).done(&result.paused, "paused").write(&answer.text, &client, session).await
}
