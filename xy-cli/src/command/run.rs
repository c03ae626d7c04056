//! `xyctl run`: a command as a server of which nothing is left when the daemon ends.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use xy_daemon::client::Client;
use xy_daemon::protocol::method::{
    Add, AddParams, Event, Events, EventsParams, LogLine, LogStream, Logs, LogsParams, Notification,
    OperationParams, Remove, RemoveParams, Start, Stop,
};

use super::add::{recipe, started, told};
use crate::args::RunArgs;
use crate::error::{CommandError, exit_code};
use crate::output::Output;
use crate::output::text::from_base64;
use crate::session::{Session, call};

/// What a shell adds to the number of the signal that ended a command.
const SIGNALED: u64 = 128;

/// How the remark begins that stands behind the last line of an incarnation.
const EXITED: &str = "exited: ";

/// How long the last lines may take when a command has ended.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Runs the command.
pub(super) async fn run(args: &RunArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let params = AddParams { temporary: true, ..recipe(&args.recipe)? };
    let client = session.connect().await?;
    if args.attach {
        return attach(params, &client, session.output).await;
    }
    let added = call::<Add>(&client, params).await?;
    told(&added, session)?;
    started(&client, &added.result, !args.no_wait, session).await
}

/// Runs a command to its end and returns its exit code.
async fn attach(params: AddParams, client: &Client, output: &mut Output) -> Result<u8, CommandError> {
    let name = params.name.clone();
    // Subscribed before, so that the end is seen however soon it comes.
    let mut events = client.subscribe::<Events>(EventsParams::default()).await?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CommandError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(CommandError::Signals)?;
    client.call::<Add>(AddParams { once: true, stopped: true, ..params }).await?;
    let logs = LogsParams { tail: Some(0), follow: true, ..LogsParams::new(&name) };
    let mut lines = client.subscribe::<Logs>(logs).await?;
    client.call::<Start>(OperationParams { wait: false, ..OperationParams::named(&name) }).await?;
    let mut is_complete = false;
    let code = loop {
        tokio::select! {
            biased;
            line = lines.next() => match line? {
                Some(Notification::Log(line)) => {
                    is_complete |= line.stream == LogStream::Xy && line.line.starts_with(EXITED);
                    write(&line, output)?;
                }
                Some(_) => {}
                None => break exit_code::FAILED,
            },
            event = events.next() => match event? {
                Some(Notification::Event(event)) if event.path == name => {
                    if let Some(code) = ended(&event, output) {
                        break code;
                    }
                }
                Some(_) => {}
                None => break exit_code::FAILED,
            },
            _ = interrupt.recv() => stop(client, &name).await?,
            _ = terminate.recv() => stop(client, &name).await?,
        }
    };
    // Behind its last line is a remark that it has ended. One that did not start has none.
    while !is_complete && let Ok(Ok(Some(Notification::Log(line)))) = timeout(LAST_LINES, lines.next()).await
    {
        is_complete = line.stream == LogStream::Xy && line.line.starts_with(EXITED);
        write(&line, output)?;
    }
    client.call::<Remove>(RemoveParams { name }).await?;
    Ok(code)
}

async fn stop(client: &Client, name: &str) -> Result<(), CommandError> {
    client.call::<Stop>(OperationParams { wait: false, ..OperationParams::named(name) }).await?;
    Ok(())
}

/// Returns the exit code of a process that an event tells the end of.
fn ended(event: &Event, output: &mut Output) -> Option<u8> {
    let number = |key: &str| event.payload.get(key).and_then(serde_json::Value::as_u64);
    match event.event_type.as_str() {
        "child_exited" | "child_stopped" | "child_start_failed" | "child_leaked" => {}
        _ => return None,
    }
    let code = number("code").or_else(|| number("signal").map(|signal| SIGNALED + signal));
    if code.is_none() {
        let cause =
            event.payload.get("cause").and_then(serde_json::Value::as_str).unwrap_or("it did not run");
        output.problem(cause, None);
    }
    Some(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit_code::FAILED))
}

/// Writes a line to the stream it came from.
fn write(line: &LogLine, output: &mut Output) -> Result<(), CommandError> {
    let exact = line.line_base64.as_deref().and_then(from_base64);
    let mut bytes = exact.unwrap_or_else(|| line.line.clone().into_bytes());
    if !line.partial {
        bytes.push(b'\n');
    }
    match line.stream {
        LogStream::Out => {
            output.bytes(&bytes)?;
            output.flush()
        }
        LogStream::Err => {
            output.raw_message(&bytes);
            Ok(())
        }
        LogStream::Xy => Ok(()),
    }
}
