//! `xyctl add`: writes a server file and starts the server.

use xy_daemon::client::Client;
use xy_daemon::protocol::method::{Add, AddParams, AddResult, OperationParams, Start, Targets};

use super::operation::Report;
use crate::args::{AddArgs, RecipeArgs};
use crate::error::{CommandError, exit_code};
use crate::output::Style;
use crate::output::text::neutral;
use crate::session::{Answer, Session, call};

/// Runs the command.
pub(super) async fn run(args: &AddArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let params = AddParams { stopped: args.stopped, ..recipe(&args.recipe)? };
    let client = session.connect().await?;
    let added = call::<Add>(&client, params).await?;
    told(&added, session)?;
    if args.stopped {
        return Ok(exit_code::SUCCESS);
    }
    started(&client, &added.result, !args.no_wait, session).await
}

/// Makes the protocol's parameters of what `add` and `run` were given.
pub(super) fn recipe(recipe: &RecipeArgs) -> Result<AddParams, CommandError> {
    let dir = recipe.dir.clone().unwrap_or_else(|| ".".into());
    let dir = std::path::absolute(&dir)
        .and_then(|absolute| std::fs::read_dir(&dir).map(|_| absolute))
        .map_err(|source| CommandError::Directory { path: dir, source })?;
    let mut command = recipe.command.iter().cloned();
    Ok(AddParams {
        name: recipe.name.clone(),
        // The definitions require at least one word.
        command: command.next().unwrap_or_default(),
        args: command.collect(),
        env: recipe.env.iter().cloned().collect(),
        working_dir: Some(dir.display().to_string()),
        port: recipe.port,
        tags: recipe.tags.clone(),
        ..AddParams::default()
    })
}

/// Says what was added.
pub(super) fn told(added: &Answer<AddResult>, session: &mut Session<'_>) -> Result<(), CommandError> {
    let output = &mut *session.output;
    if output.is_json() {
        return output.verbatim(&added.text);
    }
    let file = added.result.file.as_deref().map(|file| format!(", {file}")).unwrap_or_default();
    for name in &added.result.added {
        let line = format!("{}: {}{}", neutral(name), output.paint(Style::Good, "added"), neutral(&file));
        output.line(&line)?;
    }
    output.flush()
}

/// Waits until what was added is ready, and says how that went.
pub(super) async fn started(
    client: &Client,
    added: &AddResult,
    wait: bool,
    session: &mut Session<'_>,
) -> Result<u8, CommandError> {
    if !wait {
        return Ok(exit_code::SUCCESS);
    }
    let params = OperationParams::new(Targets::Names(added.added.clone()));
    let answer = call::<Start>(client, params).await?;
    let result = &answer.result;
    if session.output.is_json() {
        // The one document of the output has been written; what failed is in the exit code.
        return Ok(if result.failed.is_empty() { exit_code::SUCCESS } else { exit_code::FAILED });
    }
    Report::new(&result.failed)
        .done(&result.started, "started")
        .done(&result.already_running, "started")
        .write(&answer.text, client, session)
        .await
}
