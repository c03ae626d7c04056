//! `xyctl show`: what a server is run with, and where each of its variables comes from.

use xy_daemon::protocol::method::{Show, ShowParams, ShowResult};

use crate::args::ShowArgs;
use crate::error::{CommandError, exit_code};
use crate::output::table::{Align, Table};
use crate::output::text::neutral;
use crate::output::{Output, Style};
use crate::session::{Session, call, explain};

/// What stands in the place of a value that is not told.
const HIDDEN: &str = "***";

/// Runs the command.
pub(super) async fn run(args: &ShowArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = match call::<Show>(&client, ShowParams { name: args.name.clone() }).await {
        Ok(answer) => answer,
        Err(error) => return Err(explain(&client, &args.name, error).await),
    };
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
    } else {
        write(&answer.result, session.output)?;
    }
    Ok(exit_code::SUCCESS)
}

fn write(show: &ShowResult, output: &mut Output) -> Result<(), CommandError> {
    let name = output.paint(Style::Bold, &neutral(&show.name)).into_owned();
    output.line(&name)?;
    let width = show.settings.iter().map(|setting| setting.key.chars().count()).max().unwrap_or_default();
    let file = show.file.as_deref().unwrap_or("none; it is forgotten with the daemon");
    output.line(&format!("  {:<width$}  {}", "file", neutral(file)))?;
    for setting in &show.settings {
        output.line(&format!("  {:<width$}  {}", neutral(&setting.key), neutral(&setting.value)))?;
    }
    output.line("")?;
    let mut table = Table::new(&[("VARIABLE", Align::Left), ("FROM", Align::Left), ("VALUE", Align::Left)]);
    for variable in &show.environment {
        let style = if variable.value.is_some() { Style::Plain } else { Style::Dim };
        table.row([
            (variable.name.clone(), Style::Plain),
            (variable.source.clone(), Style::Plain),
            (variable.value.clone().unwrap_or_else(|| HIDDEN.to_owned()), style),
        ]);
    }
    table.write("  ", output)
}
