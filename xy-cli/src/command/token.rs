//! `xyctl token`: which programs have a token of their own for HTTP.

use xy_daemon::protocol::method::{RotateToken, TokenAdd, TokenRemove, Tokens, TokensParams};

use crate::args::token::{TokenAddArgs, TokenArgs, TokenCommand, TokenRmArgs, TokenRotateArgs};
use crate::error::{CommandError, exit_code};
use crate::output::table::{Align, Table};
use crate::output::text::neutral;
use crate::output::{Style, time};
use crate::session::{Session, call};

/// Runs the command.
pub(super) async fn run(args: &TokenArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    match &args.command {
        TokenCommand::Add(args) => add(args, session).await,
        TokenCommand::List => list(session).await,
        TokenCommand::Rotate(args) => rotate(args, session).await,
        TokenCommand::Rm(args) => remove(args, session).await,
    }
}

async fn add(args: &TokenAddArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<TokenAdd>(&client, args.params()).await?;
    let output = &mut *session.output;
    if output.is_json() {
        output.verbatim(&answer.text)?;
    } else {
        // Alone, so that it can be stored by a pipe.
        output.line(&answer.result.token)?;
        output.note("this is the only time that it is shown");
    }
    Ok(exit_code::SUCCESS)
}

async fn list(session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<Tokens>(&client, TokensParams {}).await?;
    let output = &mut *session.output;
    if output.is_json() {
        output.verbatim(&answer.text)?;
        return Ok(exit_code::SUCCESS);
    }
    if answer.result.tokens.is_empty() {
        output.note("no program has a token of its own");
        return Ok(exit_code::SUCCESS);
    }
    let mut table = Table::new(&["NAME", "SCOPE", "CREATED"].map(|title| (title, Align::Left)));
    let now = time::now_unix_ms();
    for token in &answer.result.tokens {
        let cells = [
            neutral(&token.name).to_string(),
            token.scope.as_str().to_owned(),
            time::ago(token.created_at_unix_ms, now),
        ];
        table.row(cells.map(|cell| (cell, Style::Plain)));
    }
    table.write("", output)?;
    Ok(exit_code::SUCCESS)
}

async fn rotate(args: &TokenRotateArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<RotateToken>(&client, args.params()).await?;
    let output = &mut *session.output;
    if output.is_json() {
        output.verbatim(&answer.text)?;
        return Ok(exit_code::SUCCESS);
    }
    let told = &answer.result;
    if let Some(token) = &told.token {
        output.line(token)?;
    }
    if let Some(file) = &told.token_file {
        output.line(&format!("the new token is in {}", neutral(file)))?;
    }
    output.note(&format!("the old one is accepted for {} s more", told.old_token_valid_secs));
    Ok(exit_code::SUCCESS)
}

async fn remove(args: &TokenRmArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let client = session.connect().await?;
    let answer = call::<TokenRemove>(&client, args.params()).await?;
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
    } else {
        session.output.line(&format!("removed the token of {}", neutral(&answer.result.removed.name)))?;
    }
    Ok(exit_code::SUCCESS)
}
