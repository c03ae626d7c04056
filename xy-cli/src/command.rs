//! From a parsed command line to the module that carries it out.

mod add;
mod approvals;
mod catalog;
mod check;
mod completions;
pub(crate) mod daemon;
mod diagnostics;
mod enable;
mod events;
mod export;
mod grants;
mod import;
mod list;
mod logs;
mod man;
mod mcp;
mod operation;
mod pause;
mod progress;
mod reload;
mod restart;
mod resume;
mod rm;
mod run;
mod show;
mod shutdown;
mod signal;
mod start;
mod status;
mod stop;
mod token;
mod top;
mod up;
mod version;
mod wait;
mod why;

use crate::args::{Cli, Command};
use crate::error::CommandError;
use crate::output::Output;
use crate::session::Session;

/// Runs a command that asks once and is answered at once, and returns the exit code; `None` leaves it to [`fn@run`].
///
/// A runtime takes longer to begin and to end than such a question.
pub(crate) fn run_at_once(cli: &Cli, output: &mut Output) -> Option<Result<u8, CommandError>> {
    match &cli.command {
        Command::List(args) => list::run_at_once(args, &mut session(cli, output)),
        _ => None,
    }
}

/// Runs a command and returns the exit code.
pub(crate) async fn run(cli: &Cli, output: &mut Output) -> Result<u8, CommandError> {
    let mut messages = output.another();
    let place = session(cli, &mut messages);
    tokio::select! {
        biased;
        outcome = carry_out(cli, output) => outcome,
        error = daemon::patience::watch(cli, place) => Err(error.into()),
    }
}

async fn carry_out(cli: &Cli, output: &mut Output) -> Result<u8, CommandError> {
    let session = &mut session(cli, output);
    match &cli.command {
        Command::List(args) => list::run(args, session).await,
        Command::Status(args) => status::run(args, session).await,
        Command::Why(args) => why::run(args, session).await,
        Command::Show(args) => show::run(args, session).await,
        Command::Top => top::run(session).await,
        Command::Logs(args) => logs::run(args, session).await,
        Command::Events(args) => events::run(args, session).await,
        Command::Start(args) => start::run(args, session).await,
        Command::Stop(args) => stop::run(args, session).await,
        Command::Restart(args) => restart::run(args, session).await,
        Command::Pause(args) => pause::run(args, session).await,
        Command::Resume(args) => resume::run(args, session).await,
        Command::Wait(args) => wait::run(args, session).await,
        Command::Enable(args) => enable::enable(args, session).await,
        Command::Disable(args) => enable::disable(args, session).await,
        Command::Signal(args) => signal::run(args, session).await,
        Command::Tools(args) => catalog::tools(args, session).await,
        Command::Prompts(args) => catalog::prompts(args, session).await,
        Command::Resources(args) => catalog::resources(args, session).await,
        Command::Call(args) => catalog::run_tool(args, session).await,
        Command::Add(args) => add::run(args, session).await,
        Command::Run(args) => run::run(args, session).await,
        Command::Rm(args) => rm::run(args, session).await,
        Command::Check(args) => check::run(args, session).await,
        Command::Reload(args) => reload::run(args, session).await,
        Command::Daemon(args) => daemon::run(args, session).await,
        Command::Shutdown(args) => shutdown::run(args, session).await,
        Command::Import(args) => import::run(args, session),
        Command::Export(args) => export::run(args, session).await,
        Command::Up(args) => up::run(args, session).await,
        Command::Version => version::run(session).await,
        Command::Diagnostics => diagnostics::run(session).await,
        Command::Approvals => approvals::list(session).await,
        Command::Approve(args) => approvals::approve(args, session).await,
        Command::Deny(args) => approvals::deny(args, session).await,
        Command::Grants => grants::list(session).await,
        Command::Forget(args) => grants::forget(args, session).await,
        Command::Token(args) => token::run(args, session).await,
        Command::Mcp(args) => mcp::run(args, session).await,
        Command::Completions(args) => completions::run(args, session.output),
        Command::Man(args) => man::run(args, session.output),
    }
}

fn session<'a>(cli: &'a Cli, output: &'a mut Output) -> Session<'a> {
    // What is about the daemon itself does not bring one up by the way.
    let starts = cli.global.start && !matches!(cli.command, Command::Daemon(_) | Command::Shutdown(_));
    Session::new(cli.global.socket.as_deref(), starts, output)
}
