//! `xyctl completions`: what a shell needs to complete commands and the names of servers.

use clap_complete::env::Shells;

use crate::args::CompletionsArgs;
use crate::error::{CommandError, exit_code};
use crate::output::Output;

/// The variable by which a shell asks for completions.
const VARIABLE: &str = "COMPLETE";

/// Runs the command.
pub(super) fn run(args: &CompletionsArgs, output: &mut Output) -> Result<u8, CommandError> {
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(&args.shell) else {
        return Err(CommandError::Usage(format!("completions for `{}` are not known", args.shell)));
    };
    let mut script = Vec::new();
    // By name, so that an update of the program needs no update of the script.
    shell
        .write_registration(VARIABLE, "xyctl", "xyctl", "xyctl", &mut script)
        .map_err(CommandError::Output)?;
    output.bytes(&script)?;
    Ok(exit_code::SUCCESS)
}
