//! `xyctl daemon`: the daemon itself, started, stopped, looked at and exchanged.

mod found;
mod install;
mod logs;
pub(super) mod patience;
pub(crate) mod start;
mod status;
mod stop;
mod upgrade;

pub(crate) use self::found::Silence;
use crate::args::{DaemonArgs, DaemonCommand};
use crate::error::CommandError;
use crate::session::Session;

/// Runs the command.
pub(super) async fn run(args: &DaemonArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    match &args.command {
        DaemonCommand::Start(args) => start::run(args, session).await,
        DaemonCommand::Stop(args) => stop::run(args, session).await,
        DaemonCommand::Restart(args) => start::again(args, session).await,
        DaemonCommand::Status => status::run(session).await,
        DaemonCommand::Logs(args) => logs::run(args, session).await,
        DaemonCommand::Install(args) => install::install(args, session),
        DaemonCommand::Uninstall(args) => install::uninstall(args, session),
        DaemonCommand::Upgrade => upgrade::run(session).await,
    }
}
