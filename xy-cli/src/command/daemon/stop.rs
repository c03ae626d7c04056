//! `xyctl daemon stop`: ends the daemon and every server, whether it answers or not.

use std::io;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use xy_daemon::client::Client;
use xy_daemon::protocol::method::{List, ListParams, Shutdown, ShutdownParams, State};
use xy_daemon::signal::SAME_REQUEST;

use super::found::{Found, Place, is_free_by};
use crate::args::DaemonStopArgs;
use crate::error::{CommandError, LifecycleError, exit_code};
use crate::session::Session;

/// How long the servers may take to be named in an error.
const NAMING: Duration = Duration::from_secs(1);

/// The time between two signals of which the second is to be taken as one more, with some to spare.
const APART: Duration = SAME_REQUEST.saturating_add(Duration::from_millis(100));

/// How long a guard may take to end what a killed daemon leaves behind.
const SWEEP: Duration = Duration::from_secs(10);

/// Runs the command.
pub(super) async fn run(args: &DaemonStopArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let place = Place::of(session)?;
    let pid = end(args, &place, session).await?;
    if session.output.is_json() {
        session.output.json(&json!({ "stopped": pid.is_some(), "pid": pid }))?;
    } else {
        session.output.line(match pid {
            Some(_) => "the daemon has ended",
            None => "the daemon is not running",
        })?;
    }
    Ok(exit_code::SUCCESS)
}

/// Ends the daemon, if there is one; returns its process id.
pub(super) async fn end(
    args: &DaemonStopArgs,
    place: &Place,
    session: &mut Session<'_>,
) -> Result<Option<u32>, CommandError> {
    let deadline = Instant::now() + args.timeout;
    let (pid, state, client) = match place.look().await? {
        Found::Stopped | Found::Stale => return Ok(None),
        Found::Running(client, version) => {
            let version = version.result;
            // The daemon at this socket may have another state directory than we would have.
            let state = version
                .diagnostics
                .map_or_else(|| place.directories.state.clone(), |facts| facts.state_dir.into());
            client.call::<Shutdown>(ShutdownParams { reason: Some("xyctl daemon stop".to_owned()) }).await?;
            (version.pid, state, Some(client))
        }
        Found::Silent(pid) => {
            let pid = pid.ok_or_else(|| LifecycleError::CannotSignal {
                pid,
                source: io::Error::other("its process id is not known"),
            })?;
            signal(pid, Signal::SIGTERM)?;
            (pid, place.directories.state.clone(), None)
        }
    };
    if !session.output.is_json() {
        session.output.line("stopping every server")?;
        session.output.flush()?;
    }
    if args.kill {
        // The second request to end is the one that kills; the first may not have been a signal.
        for _ in 0..2 {
            if is_free_by(&state, Instant::now() + APART).await? {
                return Ok(Some(pid));
            }
            signal(pid, Signal::SIGTERM)?;
        }
    }
    if is_free_by(&state, deadline).await? {
        return Ok(Some(pid));
    }
    if args.kill && client.is_none() {
        // A guard that was asked to end does not bring it back.
        if let Some(guard) = guard_of(pid) {
            signal(guard, Signal::SIGTERM)?;
            sleep(APART).await;
        }
        // It holds the lock, so the number is still its own.
        signal(pid, Signal::SIGKILL)?;
        if is_free_by(&state, Instant::now() + SWEEP).await? {
            return Ok(Some(pid));
        }
    }
    let still = match client {
        Some(client) => timeout(NAMING, still_there(&client)).await.unwrap_or_default(),
        None => Vec::new(),
    };
    Err(LifecycleError::NotEnded { pid, limit: args.timeout, still }.into())
}

fn signal(pid: u32, signal: Signal) -> Result<(), LifecycleError> {
    let sent = i32::try_from(pid).map_err(io::Error::other);
    sent.and_then(|number| Ok(kill(Pid::from_raw(number), signal)?))
        .map_err(|source| LifecycleError::CannotSignal { pid: Some(pid), source })
}

/// Returns the guard of a daemon that cannot be asked: its parent, if that runs the same program (Linux).
fn guard_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may contain anything.
    let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    let program = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    (program(parent)? == program(pid)?).then_some(parent)
}

async fn still_there(client: &Client) -> Vec<String> {
    let Ok(list) = client.call::<List>(ListParams {}).await else { return Vec::new() };
    let runs = |state: &State| !matches!(state, State::Stopped | State::Failed);
    list.servers.into_iter().filter(|server| runs(&server.state)).map(|server| server.name).collect()
}
