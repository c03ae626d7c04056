//! `xyctl tools`, `prompts`, `resources` and `call`: what an MCP server offers, and using it.

use serde_json::{Map, Value};
use xy_daemon::protocol::Method;
use xy_daemon::protocol::method::{
    Call, CallParams, CatalogParams, Prompt, PromptParams, Prompts, Resource, ResourceParams, Resources,
    Tools,
};

use crate::args::catalog::{CallArgs, PromptsArgs, ResourcesArgs, ServerArgs, ToolsArgs};
use crate::error::{CommandError, exit_code};
use crate::output::table::{Align, Table};
use crate::output::text::{from_base64, neutral, neutral_line};
use crate::output::{Output, Style};
use crate::session::{Answer, Session, call, explain};

/// Runs `tools`.
pub(super) async fn tools(args: &ToolsArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let Some(answer) = ask::<Tools>(&args.server, of(&args.server), session).await? else {
        return Ok(exit_code::SUCCESS);
    };
    let mut table = Table::new(&[("TOOL", Align::Left), ("DESCRIPTION", Align::Left)]);
    for tool in &answer.result.tools {
        table.row([plain(text(tool, "name")), plain(description(tool))]);
    }
    table.write("", session.output)?;
    Ok(exit_code::SUCCESS)
}

/// Runs `prompts`.
pub(super) async fn prompts(args: &PromptsArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    if let Some(prompt) = &args.prompt {
        let params = PromptParams {
            name: args.server.name.clone(),
            prompt: prompt.clone(),
            arguments: args.arguments(),
            endpoint: args.server.endpoint.clone(),
        };
        if let Some(answer) = ask::<Prompt>(&args.server, params, session).await? {
            for message in objects(&answer.result.result, "messages") {
                let role = session.output.paint(Style::Bold, &neutral(&text(message, "role"))).into_owned();
                session.output.line(&format!("{role}:"))?;
                if let Some(content) = message.get("content").and_then(Value::as_object) {
                    write_block(content, session.output)?;
                }
            }
        }
        return Ok(exit_code::SUCCESS);
    }
    let Some(answer) = ask::<Prompts>(&args.server, of(&args.server), session).await? else {
        return Ok(exit_code::SUCCESS);
    };
    let columns = [("PROMPT", Align::Left), ("ARGUMENTS", Align::Left), ("DESCRIPTION", Align::Left)];
    let mut table = Table::new(&columns);
    for prompt in &answer.result.prompts {
        let arguments: Vec<_> = objects(prompt, "arguments").map(|argument| text(argument, "name")).collect();
        table.row([plain(text(prompt, "name")), plain(arguments.join(", ")), plain(description(prompt))]);
    }
    table.write("", session.output)?;
    Ok(exit_code::SUCCESS)
}

/// Runs `resources`.
pub(super) async fn resources(args: &ResourcesArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    if let Some(uri) = &args.uri {
        let params = ResourceParams {
            name: args.server.name.clone(),
            uri: uri.clone(),
            endpoint: args.server.endpoint.clone(),
        };
        if let Some(answer) = ask::<Resource>(&args.server, params, session).await? {
            for content in objects(&answer.result.result, "contents") {
                write_content(content, session.output)?;
            }
        }
        return Ok(exit_code::SUCCESS);
    }
    let Some(answer) = ask::<Resources>(&args.server, of(&args.server), session).await? else {
        return Ok(exit_code::SUCCESS);
    };
    let columns = [("URI", Align::Left), ("NAME", Align::Left), ("DESCRIPTION", Align::Left)];
    let mut table = Table::new(&columns);
    for resource in &answer.result.resources {
        table.row([
            plain(text(resource, "uri")),
            plain(text(resource, "name")),
            plain(description(resource)),
        ]);
    }
    for template in &answer.result.resource_templates {
        let uri = text(template, "uriTemplate");
        table.row([plain(uri), plain(text(template, "name")), plain(description(template))]);
    }
    table.write("", session.output)?;
    Ok(exit_code::SUCCESS)
}

/// Runs `call`.
pub(super) async fn run_tool(args: &CallArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let params = CallParams {
        name: args.server.name.clone(),
        tool: args.tool.clone(),
        arguments: args.arguments(),
        timeout_secs: args.timeout_secs(),
        endpoint: args.server.endpoint.clone(),
    };
    let client = session.connect().await?;
    let answer = match call::<Call>(&client, params).await {
        Ok(answer) => answer,
        Err(error) => return Err(explain(&client, &args.server.name, error).await),
    };
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
    } else {
        for block in objects(&answer.result.result, "content") {
            write_block(block, session.output)?;
        }
    }
    let has_failed = answer.result.result.get("isError") == Some(&Value::Bool(true));
    Ok(if has_failed { exit_code::FAILED } else { exit_code::SUCCESS })
}

/// Asks, and returns the answer if it is still to be written, for people.
async fn ask<M: Method>(
    server: &ServerArgs,
    params: M::Params,
    session: &mut Session<'_>,
) -> Result<Option<Answer<M::Result>>, CommandError> {
    let client = session.connect().await?;
    let answer = match call::<M>(&client, params).await {
        Ok(answer) => answer,
        Err(error) => return Err(explain(&client, &server.name, error).await),
    };
    if session.output.is_json() {
        session.output.verbatim(&answer.text)?;
        return Ok(None);
    }
    Ok(Some(answer))
}

fn of(server: &ServerArgs) -> CatalogParams {
    CatalogParams { name: server.name.clone(), endpoint: server.endpoint.clone() }
}

fn plain(text: String) -> (String, Style) {
    (text, Style::Plain)
}

fn text(object: &Map<String, Value>, key: &str) -> String {
    object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Returns the first line of what a server says about something.
fn description(object: &Map<String, Value>) -> String {
    text(object, "description").lines().next().unwrap_or_default().to_owned()
}

fn objects<'a>(object: &'a Map<String, Value>, key: &str) -> impl Iterator<Item = &'a Map<String, Value>> {
    object.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}

/// Writes one block of content: a text as it is, anything else as JSON.
fn write_block(block: &Map<String, Value>, output: &mut Output) -> Result<(), CommandError> {
    match block.get("text").and_then(Value::as_str) {
        Some(text) => write_text(text, output),
        None => output.json(block),
    }
}

fn write_text(text: &str, output: &mut Output) -> Result<(), CommandError> {
    if output.is_terminal() {
        return text.lines().try_for_each(|line| output.line(&neutral_line(line)));
    }
    output.bytes(text.as_bytes())?;
    if text.ends_with('\n') { Ok(()) } else { output.bytes(b"\n") }
}

/// Writes what a resource holds.
fn write_content(content: &Map<String, Value>, output: &mut Output) -> Result<(), CommandError> {
    let bytes = content.get("blob").and_then(Value::as_str).and_then(from_base64);
    match (bytes, content.get("text").and_then(Value::as_str)) {
        (Some(bytes), _) if !output.is_terminal() => output.bytes(&bytes),
        (Some(bytes), _) => write_text(&String::from_utf8_lossy(&bytes), output),
        (None, Some(text)) if !output.is_terminal() => output.bytes(text.as_bytes()),
        (None, Some(text)) => write_text(text, output),
        (None, None) => output.json(content),
    }
}
