//! `xyctl`: reads the arguments, runs one command and exits with its code.

mod args;
mod command;
mod error;
mod habits;
mod output;
mod session;

use std::process::ExitCode;

use crate::args::Parsed;
use crate::error::CommandError;
use crate::output::Output;

fn main() -> ExitCode {
    // A shell that asks for completions says so by a variable; answering ends the process.
    clap_complete::CompleteEnv::with_factory(args::command).complete();
    let cli = match args::parse(std::env::args_os()) {
        Parsed::Run(cli) => cli,
        Parsed::Exit(code) => return code.into(),
    };
    let mut output = Output::of_process(cli.global.json, cli.global.color);
    let outcome = run(&cli, &mut output);
    // What is still buffered counts as well: a full disk must not end in success.
    let outcome = outcome.and_then(|code| output.flush().map(|()| code));
    match outcome {
        Ok(code) => code.into(),
        Err(error) => {
            output.error(&error);
            error.exit_code().into()
        }
    }
}

fn run(cli: &args::Cli, output: &mut Output) -> Result<u8, CommandError> {
    if let Some(outcome) = command::run_at_once(cli, output) {
        return outcome;
    }
    // One thread is all that a client needs, and the fastest to start.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::Runtime)?;
    runtime.block_on(command::run(cli, output))
}
