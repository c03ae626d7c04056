//! `xyctl daemon start` and `restart`: a daemon in the background that answers when the command returns.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use xy_daemon::protocol::method::{List, ListParams, Reload, ReloadParams, VersionResult};
use xy_daemon::telemetry::LARGEST_LOG;

use super::found::{Found, PACE, Place};
use super::{logs, stop};
use crate::args::{DaemonStartArgs, DaemonStopArgs};
use crate::error::{CommandError, LifecycleError, exit_code};
use crate::output::text::count;
use crate::session::Session;

/// How many lines of the log an error shows.
const LAST_LINES: usize = 30;

/// How long a daemon may take that is started because a command needs it.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `daemon start`.
pub(super) async fn run(args: &DaemonStartArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let place = Place::of(session)?;
    if let Found::Running(_, version) = place.look().await? {
        let pid = version.result.pid;
        if session.output.is_json() {
            session.output.json(&json!({ "started": false, "pid": pid, "socket": place.socket }))?;
        } else {
            session.output.line(&format!("xyd runs already: pid {pid}"))?;
        }
        return Ok(exit_code::SUCCESS);
    }
    start(args, place, session).await
}

/// Runs `daemon restart`.
pub(super) async fn again(args: &DaemonStartArgs, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let place = Place::of(session)?;
    let mut args = args.clone();
    if let Found::Running(_, version) = place.look().await? {
        let facts = version.result.diagnostics.as_ref();
        // As it ran, unless something else is asked for.
        args.config = args.config.or_else(|| facts.map(|facts| PathBuf::from(&facts.config_dir)));
    }
    let stop = DaemonStopArgs { kill: false, timeout: std::time::Duration::from_secs(60) };
    stop::end(&stop, &place, session).await?;
    start(&args, place, session).await
}

async fn start(args: &DaemonStartArgs, place: Place, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let version = bring_up(args, &place, session).await?;
    tell(&place, &version, session).await
}

/// Starts a daemon for a command that needs one.
pub(crate) async fn on_demand(session: &mut Session<'_>) -> Result<(), CommandError> {
    let place = Place::of(session)?;
    let args = DaemonStartArgs { config: None, timeout: PATIENCE };
    let version = bring_up(&args, &place, session).await?;
    session.output.note(&format!("started xyd in the background: pid {}", version.pid));
    Ok(())
}

/// Starts a daemon and waits until it answers.
async fn bring_up(
    args: &DaemonStartArgs,
    place: &Place,
    session: &mut Session<'_>,
) -> Result<VersionResult, CommandError> {
    let deadline = Instant::now() + args.timeout;
    let version = match place.holder()? {
        // Somebody starts one at this moment, or has one at another socket.
        Some(pid) => answer_of(place, deadline, || Ok(())).await?.ok_or_else(|| LifecycleError::Another {
            pid,
            state: place.directories.state.clone(),
            socket: place.socket.clone(),
        })?,
        None => {
            let log = place.directories.daemon_log();
            let (mut child, begun) = spawn(args, place, &log)?;
            let pid = child.id();
            let mut ended = || match child.try_wait() {
                Ok(Some(status)) => Err(LifecycleError::Ended { how: in_words(status), code: status.code() }),
                Ok(None) | Err(_) => Ok(()),
            };
            let answer = answer_of(place, deadline, &mut ended).await;
            let answer = answer
                .and_then(|version| version.ok_or(LifecycleError::NoAnswer { pid, limit: args.timeout }));
            if answer.is_err() {
                let said = logs::last_lines(&log, LAST_LINES, begun).unwrap_or_default();
                session.output.note(&format!("the end of {}:", log.display()));
                said.iter().for_each(|line| session.output.note(&format!("  {line}")));
            }
            answer?
        }
    };
    Ok(version)
}

/// Waits until the daemon answers; `None` if it has not by then.
async fn answer_of(
    place: &Place,
    deadline: Instant,
    mut check: impl FnMut() -> Result<(), LifecycleError>,
) -> Result<Option<VersionResult>, LifecycleError> {
    loop {
        if let Some((_, version)) = place.ask().await {
            return Ok(Some(version.result));
        }
        check()?;
        if Instant::now() >= deadline {
            return Ok(None);
        }
        sleep(PACE).await;
    }
}

async fn tell(place: &Place, version: &VersionResult, session: &mut Session<'_>) -> Result<u8, CommandError> {
    let log = place.directories.daemon_log();
    if session.output.is_json() {
        let result = json!({ "started": true, "pid": version.pid, "socket": place.socket, "log": log });
        session.output.json(&result)?;
        return Ok(exit_code::SUCCESS);
    }
    let client = session.connect().await?;
    let number = |number: usize| number.try_into().unwrap_or(u64::MAX);
    let servers = count(number(client.call::<List>(ListParams {}).await?.servers.len()), "server");
    session.output.line(&format!("xyd runs in the background: pid {}, {servers}", version.pid))?;
    session.output.line(&format!("  socket: {}", place.socket.display()))?;
    session.output.line(&format!("  log: {}", log.display()))?;
    // Nobody reads its log as long as it runs. A daemon that cannot say it has started all the same.
    let plan = client.call::<Reload>(ReloadParams { dry_run: true }).await;
    let rejected = plan.map_or(0, |plan| plan.rejected.len());
    if rejected > 0 {
        let problem = format!("{} rejected", count(number(rejected), "file"));
        session.output.problem(&problem, Some("`xyctl reload --dry-run` says what is wrong"));
    }
    Ok(exit_code::SUCCESS)
}

/// Starts it; returns where in the log its own words begin, too.
fn spawn(args: &DaemonStartArgs, place: &Place, log: &Path) -> Result<(Child, u64), LifecycleError> {
    let program = program()?;
    let state = &place.directories.state;
    let failed = |source| LifecycleError::File { path: log.to_owned(), source };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)
        .map_err(|source| LifecycleError::File { path: state.clone(), source })?;
    if log_size(log) > LARGEST_LOG {
        fs::rename(log, log.with_extension("log.1")).map_err(failed)?;
    }
    let out = OpenOptions::new().create(true).append(true).mode(0o600).open(log).map_err(failed)?;
    let begun = log_size(log);
    let err: File = out.try_clone().map_err(failed)?;
    let mut command = Command::new(&program);
    command.arg("--detach").arg("--socket").arg(&place.socket);
    if let Some(config) = &args.config {
        let config = std::path::absolute(config)
            .map_err(|source| LifecycleError::File { path: config.clone(), source })?;
        command.arg("--config").arg(config);
    }
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    match command.spawn() {
        Ok(child) => Ok((child, begun)),
        Err(source) => Err(LifecycleError::Spawn { program, source }),
    }
}

fn log_size(log: &Path) -> u64 {
    fs::metadata(log).map_or(0, |metadata| metadata.len())
}

/// Finds `xyd`: the one that was installed together with this program, else the one in `PATH`.
pub(super) fn program() -> Result<PathBuf, LifecycleError> {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("xyd"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|directory| directory.join("xyd"));
    beside.into_iter().chain(in_path).find(|path| path.is_file()).ok_or(LifecycleError::NoProgram)
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
