//! From a parsed command line to the module that carries it out.

mod daemon;
mod events;
mod import;
mod list;
mod logs;
mod operation;
mod pause;
mod reload;
mod restart;
mod resume;
mod shutdown;
mod signal;
mod start;
mod status;
mod stop;
mod up;
mod version;

use crate::args::{Cli, Command};
use crate::error::CommandError;
use crate::output::Output;
use crate::session::Session;

/// Runs a command and returns the exit code.
pub(crate) async fn run(cli: &Cli, output: &mut Output) -> Result<u8, CommandError> {
    let session = &mut Session::new(cli.global.socket.as_deref(), output);
    match &cli.command {
        Command::List => list::run(session).await,
        Command::Status(args) => status::run(args, session).await,
        Command::Logs(args) => logs::run(args, session).await,
        Command::Events(args) => events::run(args, session).await,
        Command::Start(args) => start::run(args, session).await,
        Command::Stop(args) => stop::run(args, session).await,
        Command::Restart(args) => restart::run(args, session).await,
        Command::Pause(args) => pause::run(args, session).await,
        Command::Resume(args) => resume::run(args, session).await,
        Command::Signal(args) => signal::run(args, session).await,
        Command::Reload(args) => reload::run(args, session).await,
        Command::Daemon(args) => daemon::run(args, session).await,
        Command::Shutdown(args) => shutdown::run(args, session).await,
        Command::Import(args) => import::run(args, session),
        Command::Up(args) => up::run(args, session).await,
        Command::Version => version::run(session).await,
    }
}
