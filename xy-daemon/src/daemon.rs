//! The daemon's life: locks, socket, sweep, tree, and its end.
//!
//! The order matters. The lock of the state directory comes first, so that only one daemon ever sweeps; then the socket,
//! so that a second one is refused before anything happens; then the sweep, so that nothing an earlier daemon left is
//! still there when the first server is started.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use xy_actors::event::ChildReport;
use xy_actors::event::stream::{EventCursor, EventItem, EventKind, EventStream, unix_ms};
use xy_actors::exit::{Cause, Exit, ExitReport};
use xy_actors::log::LogHub;
use xy_actors::policy::Incarnation;
use xy_actors::process::settings::prepare_own_limits;
use xy_actors::process::{HostError, HostOptions, LostIncarnation, Member, ProcessHost, SweepReport};
use xy_actors::spec::{Order, SupervisorSpec};
use xy_actors::supervisor::{EarlierExit, SpawnTreeError, Supervisor};

use crate::config::{Config, LoadError, LoadOptions, Trust};
use crate::control::{Control, Place, Source, add_children, killed};
use crate::http::credentials::{Credentials, TokenError};
use crate::http::{self, HttpError, HttpOptions};
use crate::instance::{InstanceLock, LockError};
use crate::intent::Intent;
use crate::protocol::method::Killed;
use crate::rpc;
use crate::service::ServiceManager;
use crate::socket::{BindError, Listener};

/// What a kill at the end of the shutdown time may still take.
const KILL_TIME: Duration = Duration::from_secs(5);

/// How long what another instance holds may still be given up.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where a daemon finds and keeps things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOptions {
    /// The directory with `xyd.ron`.
    pub config_dir: PathBuf,
    /// The directory of server files, which the operator named and vouches for; `None` means `servers` in the
    /// configuration directory, whose owner and mode are checked.
    pub servers_dir: Option<PathBuf>,
    /// The directory for lock, ledger and logs.
    pub state_dir: PathBuf,
    /// The local socket.
    pub socket: PathBuf,
    /// The directory servers run in unless their file names one.
    pub working_dir: PathBuf,
    /// Whether each server gets a control group of its own where one is delegated.
    pub cgroups: bool,
    /// The process id of the guard above this process, if there is one.
    pub guard: Option<u32>,
    /// What the operator says about HTTP.
    pub http: HttpOptions,
    /// The service manager that is to be told how the daemon is, if there is one.
    pub service: Option<ServiceManager>,
}

/// What a daemon is told from outside the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaemonSignal {
    /// Stop every server in order and end.
    Shutdown,
    /// Kill every server and end.
    ShutdownNow,
    /// Read the configuration again.
    Reload,
    /// Make a new token for HTTP.
    RotateToken,
}

/// A daemon that accepts connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// Where.
    pub socket: PathBuf,
    /// Where it answers HTTP, if it does, as a URL.
    pub http: Option<String>,
    /// How many servers it has.
    pub servers: usize,
    /// The files that are not in use, with what is wrong.
    pub rejected: Vec<Rejected>,
    /// The processes an earlier daemon had left, which were killed, as `pid (command) of server`.
    pub swept: Vec<String>,
}

/// A server file that is not in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The server.
    pub name: String,
    /// What is wrong, a line per mistake.
    pub errors: Vec<String>,
}

/// How a daemon ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RunReport {
    /// The servers of which something had to be killed in the shutdown.
    pub killed: Vec<Killed>,
    /// The processes that survived even that, as `pid (command) of server`.
    pub left: Vec<String>,
    /// The processes that belonged to no server any more and were killed at the very end, as `pid (command)`.
    pub strangers: Vec<String>,
}

/// Why a daemon did not run, or did not end as it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Another daemon uses the state directory or the socket's lock.
    #[error(transparent)]
    Instance(#[from] LockError),
    /// The configuration as a whole cannot be read.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// The socket cannot be bound.
    #[error(transparent)]
    Socket(BindError),
    /// HTTP was asked for and is not possible.
    #[error("http is not possible")]
    Http(#[from] HttpError),
    /// Processes cannot be owned.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The tree did not start.
    #[error(transparent)]
    Tree(#[from] SpawnTreeError),
    /// The root supervisor ended by itself; every server was ended with it.
    #[error("the root supervisor ended: {0}")]
    RootEnded(String),
    /// A thread of the daemon failed.
    #[error("a thread of the daemon failed")]
    Thread(#[source] io::Error),
}

/// Nothing went wrong.
pub const EXIT_OK: u8 = 0;
/// The configuration is invalid.
pub const EXIT_CONFIG: u8 = 3;
/// The command line is wrong.
pub const EXIT_USAGE: u8 = 64;
/// The daemon failed.
pub const EXIT_INTERNAL: u8 = 70;
/// Another instance runs.
pub const EXIT_ANOTHER_INSTANCE: u8 = 75;

impl RunError {
    /// Returns whether somebody else holds a lock or the socket.
    fn is_held(&self) -> bool {
        matches!(
            self,
            Self::Instance(LockError::AlreadyRunning { .. })
                | Self::Socket(
                    BindError::Lock(LockError::AlreadyRunning { .. }) | BindError::Occupied { .. }
                )
                | Self::Host(HostError::LedgerInUse(_))
        )
    }

    /// Returns whether what is missing may become free in a moment.
    fn is_momentary(&self) -> bool {
        let is_in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        self.is_held() || matches!(self, Self::Http(HttpError::Bind { source, .. }) if is_in_use(source))
    }

    /// Returns the exit code of `xyd`.
    pub fn exit_code(&self) -> u8 {
        match self {
            held if held.is_held() => EXIT_ANOTHER_INSTANCE,
            Self::Config(_)
            | Self::Socket(BindError::Path(_))
            | Self::Http(HttpError::Address(_) | HttpError::Token(TokenError::Unusable { .. })) => {
                EXIT_CONFIG
            }
            _ => EXIT_INTERNAL,
        }
    }
}

impl From<BindError> for RunError {
    fn from(error: BindError) -> Self {
        Self::Socket(error)
    }
}

/// Runs a daemon until it is told to shut down and everything has ended.
///
/// `listening` is called once the socket accepts and the servers are being started.
///
/// # Errors
/// If it cannot start (nothing runs then), or if the root supervisor ends by itself.
///
/// # Cancel safety
/// Dropping the future kills every server.
pub async fn run(
    options: RunOptions,
    mut signals: mpsc::Receiver<DaemonSignal>,
    listening: impl FnOnce(Listening),
) -> Result<RunReport, RunError> {
    let _instance = patiently(async || Ok(InstanceLock::acquire(&options.state_dir)?)).await?;
    if let Err(error) = prepare_own_limits() {
        tracing::warn!("{}", crate::control::chain(&error));
    }
    let source = source(&options);
    let config = source.load().await?;
    let listener = patiently(async || Ok(Listener::bind(&options.socket)?)).await?;
    let http = match options.http.listen.address(config.settings.http) {
        Some(address) => {
            let bind = async || {
                let limits = http::Limits::default();
                Ok(http::Listener::bind(address, &options.http.token, &options.state_dir, limits).await?)
            };
            Some(patiently(bind).await?)
        }
        None => None,
    };
    let (host, sweep) = patiently(async || {
        let ledger = Some(options.state_dir.join("processes.ledger"));
        // Children have other working directories than we.
        let notify_dir =
            Some(std::path::absolute(options.state_dir.join("notify")).map_err(RunError::Thread)?);
        let cgroups = options.cgroups;
        let options = HostOptions { subreaper: true, parent_death_signal: true, ledger, cgroups, notify_dir };
        Ok(blocking(move || ProcessHost::start(options)).await??)
    })
    .await?;
    let swept = report_sweep(&sweep);
    let logs = LogHub::new(Some(options.state_dir.join("logs")));
    let root = spawn_root(&config, &host, &logs, &sweep.lost).await?;
    let (own_signals, mut asked) = mpsc::channel(4);
    let place = Place { state_dir: options.state_dir.clone(), guard: options.guard };
    let control = Control::new(root.clone(), host.clone(), logs.clone(), source, &config, own_signals, place);

    let (close, closing) = watch::channel(());
    let closed = || {
        let mut closing = closing.clone();
        async move {
            // It never changes; it ends when the sender is dropped.
            let _dropped = closing.changed().await;
        }
    };
    let service_of_all = Arc::new(control.clone());
    let served = tokio::spawn(rpc::serve(listener, Arc::clone(&service_of_all), closed()));
    let (base_url, credentials) = http.as_ref().map(|http| (http.base_url(), http.credentials())).unzip();
    let http_served = tokio::spawn({
        let closed = closed();
        async move {
            if let Some(http) = http {
                http::serve(http, service_of_all, closed).await;
            }
        }
    });
    let service = options.service;
    if let Some(service) = &service {
        service.ready(&in_short(&config));
    }
    listening(Listening {
        socket: options.socket,
        http: base_url,
        servers: config.servers.len(),
        rejected: config
            .rejected
            .iter()
            .map(|file| Rejected {
                name: file.name.clone(),
                errors: file.errors.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        swept,
    });

    let keep_alive = tokio::spawn({
        let (service, root) = (service.clone(), root.clone());
        async move {
            if let Some(service) = service {
                service.keep_alive(&root).await;
            }
        }
    });
    let told = until_shutdown(&root, &control, service.as_ref(), credentials, &mut signals, &mut asked).await;
    if let Some(service) = &service {
        service.stopping();
    }
    let ended = match told {
        Some(how) => Ok(shut_down(&root, how, config.settings.shutdown_timeout, &mut signals).await),
        None => Err(RunError::RootEnded(root.ended().await.to_string())),
    };
    let strangers = host.end_strangers().await;
    keep_alive.abort();
    control.finish().await;
    logs.flush().await;
    drop(close);
    // A panic in the accept loop has been reported by the runtime; the socket is gone either way.
    let _panicked = served.await;
    let _panicked = http_served.await;
    let name = |member: &Member| format!("{} ({})", member.pid, member.command);
    ended.map(|report| RunReport { strangers: strangers.iter().map(name).collect(), ..report })
}

/// Tries again for a moment while somebody else holds what is needed.
///
/// A daemon that is killed while it spawns leaves a child that is about to execute its program. Until then, or until it
/// dies with its parent, that child has copies of the daemon's locks and of its listening socket.
async fn patiently<T>(mut attempt: impl AsyncFnMut() -> Result<T, RunError>) -> Result<T, RunError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Err(error) if error.is_momentary() && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            result => return result,
        }
    }
}

fn source(options: &RunOptions) -> Source {
    let home = dirs::home_dir();
    let load = LoadOptions {
        servers: options.servers_dir.clone(),
        default_dir: options.working_dir.clone(),
        trust: if options.servers_dir.is_some() { Trust::Unchecked } else { Trust::Checked },
        ..LoadOptions::new(home)
    };
    let intent = Intent::open(&options.state_dir.join("intent"));
    Source { config_dir: options.config_dir.clone(), options: load, intent }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RunError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| RunError::Thread(io::Error::other(error)))
}

fn report_sweep(sweep: &SweepReport) -> Vec<String> {
    for process in &sweep.left {
        tracing::error!(
            child = process.label,
            pid = process.pid,
            command = process.command,
            "a process of an earlier daemon could not be ended"
        );
    }
    let name = |process: &xy_actors::process::SweptProcess| {
        tracing::warn!(
            child = process.label,
            pid = process.pid,
            command = process.command,
            "a process that an earlier daemon left was killed"
        );
        format!("{} ({}) of {}", process.pid, process.command, process.label)
    };
    sweep.killed.iter().map(name).collect()
}

async fn spawn_root(
    config: &Config,
    host: &ProcessHost,
    logs: &LogHub,
    lost: &[LostIncarnation],
) -> Result<Supervisor, RunError> {
    let spec = SupervisorSpec { order: Order::Concurrent, intensity: None, ..SupervisorSpec::default() };
    let builder = add_children(Supervisor::builder(spec), config, host, logs);
    let builder = lost.iter().fold(builder, |builder, lost| {
        let exit = EarlierExit {
            incarnation: Incarnation::new(lost.incarnation),
            pid: lost.pid,
            report: ExitReport::new(Exit::Killed, Cause::HostDied),
        };
        builder.earlier_exit(&lost.label, exit)
    });
    Ok(builder.seed(unix_ms()).spawn().await?)
}

/// Says what a daemon on this configuration does, for its service manager.
fn in_short(config: &Config) -> String {
    format!("{} servers, {} files rejected", config.servers.len(), config.rejected.len())
}

/// Waits for a reason to end; `None` if the root has ended by itself. Reloads meanwhile.
async fn until_shutdown(
    root: &Supervisor,
    control: &Control,
    service: Option<&ServiceManager>,
    credentials: Option<Arc<Credentials>>,
    signals: &mut mpsc::Receiver<DaemonSignal>,
    asked: &mut mpsc::Receiver<DaemonSignal>,
) -> Option<DaemonSignal> {
    loop {
        let signal = tokio::select! {
            Some(signal) = signals.recv() => signal,
            Some(signal) = asked.recv() => signal,
            _ = root.ended() => return None,
        };
        match signal {
            DaemonSignal::Reload => {}
            DaemonSignal::RotateToken => {
                tokio::spawn(rotate_token(credentials.clone()));
                continue;
            }
            DaemonSignal::Shutdown | DaemonSignal::ShutdownNow => return Some(signal),
        }
        let (control, service) = (control.clone(), service.cloned());
        tokio::spawn(async move {
            if let Some(service) = &service {
                service.reloading();
            }
            let status = match control.reload(false).await {
                Ok(result) => {
                    let (added, changed) = (result.added.len(), result.changed.len());
                    let (removed, rejected) = (result.removed.len(), result.rejected.len());
                    tracing::info!(added, changed, removed, rejected, "configuration reloaded");
                    let servers = added + changed + result.unchanged.len();
                    format!("reloaded: {servers} servers, {rejected} files rejected")
                }
                Err(error) => {
                    tracing::error!("configuration not reloaded: {}", crate::control::chain(&error));
                    "configuration not reloaded".to_owned()
                }
            };
            if let Some(service) = &service {
                service.ready(&status);
            }
        });
    }
}

async fn rotate_token(credentials: Option<Arc<Credentials>>) {
    let Some(credentials) = credentials else {
        tracing::warn!("there is no token to rotate: http is off");
        return;
    };
    match credentials.rotate().await {
        Ok(()) => tracing::info!(file = %credentials.token_file().display(), "the token of http was rotated"),
        Err(error) => tracing::error!("the token was not rotated: {}", crate::control::chain(&error)),
    }
}

/// Ends the tree within the shutdown time, or at once if told so, and says what had to be killed.
async fn shut_down(
    root: &Supervisor,
    how: DaemonSignal,
    timeout: Duration,
    signals: &mut mpsc::Receiver<DaemonSignal>,
) -> RunReport {
    let events = root.events(EventCursor::Now);
    if how == DaemonSignal::ShutdownNow {
        root.kill().await;
        return tally(events).await;
    }
    let patience = tokio::time::sleep(timeout.saturating_sub(KILL_TIME));
    let second = async {
        while let Some(signal) = signals.recv().await {
            if signal == DaemonSignal::ShutdownNow {
                return;
            }
        }
        std::future::pending().await
    };
    if ended_first(root.shutdown(), patience, second).await {
        return tally(events).await;
    }
    tracing::warn!("servers that have not ended are killed");
    root.kill().await;
    tally(events).await
}

/// Returns whether the first of these is done first.
async fn ended_first<T>(
    ended: impl Future<Output = T>,
    patience: impl Future<Output = ()>,
    second: impl Future<Output = ()>,
) -> bool {
    tokio::select! {
        _ = ended => true,
        () = patience => false,
        () = second => false,
    }
}

/// Reads from the events of the shutdown what had to be killed.
async fn tally(mut events: EventStream) -> RunReport {
    let mut report = RunReport::default();
    while let Some(item) = events.next().await {
        let EventItem::Event(event) = item else { continue };
        let EventKind::Child { report: ChildReport::Stopped { .. }, exit: Some(exit), .. } = &event.kind
        else {
            continue;
        };
        let ExitReport { killed: dead, left, .. } = &**exit;
        if !dead.is_empty() {
            report.killed.push(killed(event.path.as_str(), dead));
        }
        report.left.extend(left.iter().map(|p| format!("{} ({}) of {}", p.pid, p.command, event.path)));
    }
    report
}
