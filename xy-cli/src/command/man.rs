//! `xyctl man`: manual pages from the definitions of the command lines.

use clap::CommandFactory as _;
use clap_mangen::Man;
use xy_daemon::args::Arguments;

use crate::args::{self, ManArgs};
use crate::error::{CommandError, exit_code};
use crate::output::Output;

/// Runs the command.
pub(super) fn run(args: &ManArgs, output: &mut Output) -> Result<u8, CommandError> {
    let command = args::command();
    match &args.directory {
        None => {
            let mut page = Vec::new();
            Man::new(command).render(&mut page).map_err(CommandError::Output)?;
            output.bytes(&page)?;
        }
        Some(directory) => {
            let write = |source| CommandError::Write { path: directory.clone(), source };
            std::fs::create_dir_all(directory).map_err(write)?;
            clap_mangen::generate_to(command, directory).map_err(write)?;
            clap_mangen::generate_to(Arguments::command(), directory).map_err(write)?;
        }
    }
    Ok(exit_code::SUCCESS)
}
