//! The daemon's life: locks, socket, sweep, tree, and its end.
//!
//! The order matters. The lock of the state directory comes first, so that only one daemon ever sweeps; then the socket,
//! so that a second one is refused before anything happens; then the sweep, so that nothing an earlier daemon left is
//! still there when the first server is started.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use xy_actors::event::ChildReport;
use xy_actors::event::stream::{EventCursor, EventItem, EventKind, EventStream, unix_ms};
use xy_actors::exit::ExitReport;
use xy_actors::log::LogHub;
use xy_actors::policy::Incarnation;
use xy_actors::process::guard::Guarded;
use xy_actors::process::handover;
use xy_actors::process::memory;
use xy_actors::process::settings::prepare_own_limits;
use xy_actors::process::{
    EndedIncarnation, HostError, HostOptions, LostIncarnation, Member, ProcessHost, SweepReport,
};
use xy_actors::spec::{ChildSpec, Order, SupervisorSpec};
use xy_actors::supervisor::{EarlierExit, SpawnTreeError, Supervisor, SupervisorBuilder};

use crate::activation::Activated;
use crate::config::{Config, EventSettings, LoadError, LoadOptions, Trust};
use crate::control::{Control, InForce, Place, Source, add_children, child_of, group_of, killed};
use crate::http::credentials::{Credentials, TokenError};
use crate::http::private_file::PrivateFileError;
use crate::http::{self, HttpError, HttpOptions};
use crate::idle::{IdleShutdown, until_idle};
use crate::instance::{InstanceLock, LockError};
use crate::intent::Intent;
use crate::journal::{JOURNAL_FILE, Journal, Untold};
use crate::protocol::method::Killed;
use crate::rpc;
use crate::service::ServiceManager;
use crate::socket::{BindError, Listener, SharedListener};
use crate::upgrade::{Inheritance, Upgrade, UpgradeError};

/// What a kill at the end of the shutdown time may still take.
const KILL_TIME: Duration = Duration::from_secs(5);

/// How long the last answers before an upgrade may take to be written.
const LAST_ANSWERS: Duration = Duration::from_millis(300);

/// How long the end of the daemon waits for the last lines of the logs: a disk that hangs does not keep it.
const LOGS_PATIENCE: Duration = Duration::from_secs(5);

/// How long what another instance holds may still be given up.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long nothing must have happened for a start or an upheaval to be over.
const CALM: Duration = Duration::from_millis(500);

/// After how many events it is worth to wait for calm once more.
const UPHEAVAL: usize = 200;

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
    /// The path of the program that takes this process over when it is told to upgrade; `None` if it cannot.
    pub program: Option<PathBuf>,
    /// Whether the daemon ends when nobody needs it.
    pub idle_shutdown: IdleShutdown,
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
    /// Let the program on disk take over, while the servers run on.
    Upgrade,
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
    /// Whether it goes on with the servers of the program before this one.
    pub is_taken_over: bool,
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
    /// What the program before this one handed over cannot be used.
    #[error("the servers cannot be taken over: {0}")]
    Handoff(String),
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
            | Self::Http(
                HttpError::Address(_)
                | HttpError::Token(
                    TokenError::Unusable { .. } | TokenError::File(PrivateFileError::NotPrivate(_)),
                ),
            ) => EXIT_CONFIG,
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
    signals: mpsc::Receiver<DaemonSignal>,
    listening: impl FnOnce(Listening),
) -> Result<RunReport, RunError> {
    run_on(options, Activated::default(), signals, listening).await
}

/// Runs a daemon as [`run`] does, on sockets that a service manager has bound, instead of those in the options.
///
/// # Errors
/// As [`run`].
///
/// # Cancel safety
/// Dropping the future kills every server.
pub async fn run_on(
    mut options: RunOptions,
    activated: Activated,
    signals: mpsc::Receiver<DaemonSignal>,
    listening: impl FnOnce(Listening),
) -> Result<RunReport, RunError> {
    let instance = patiently(async || Ok(InstanceLock::acquire(&options.state_dir)?)).await?;
    if let Err(error) = prepare_own_limits() {
        tracing::warn!("{}", crate::control::chain(&error));
    }
    let source = source(&options);
    let config = source.load().await?;
    let listener = match activated.control {
        Some((socket, path)) => {
            options.socket = path;
            patiently(async || {
                let socket = socket.try_clone().map_err(RunError::Thread)?;
                Ok(Listener::inherited(socket.into(), &options.socket)?)
            })
            .await?
        }
        None => patiently(async || Ok(Listener::bind(&options.socket)?)).await?,
    };
    let http_socket = activated.http;
    let rotate_every = config.settings.rotate_token;
    let http = match (&http_socket, options.http.listen.address(config.settings.http)) {
        (Some(socket), _) => Some(listen_for_http_on(&options, rotate_every, socket).await?),
        (None, Some(address)) => Some(listen_for_http(&options, rotate_every, address).await?),
        (None, None) => None,
    };
    let (host, sweep) = patiently(async || {
        let options = host_options(&options)?;
        Ok(blocking(move || ProcessHost::start(options)).await??)
    })
    .await?;
    let swept = report_sweep(&sweep);
    let logs = LogHub::new(Some(options.state_dir.join("logs")));
    let journal = open_journal(&options, config.settings.events).await?;
    let untold = untold(&journal, sweep.lost, sweep.ended).await?;
    let root = spawn_root(&config, &host, &logs, untold, journal.first()).await?;
    let shared = listener.shared().map_err(RunError::Thread)?;
    let rejected = config.rejected.iter().map(|file| Rejected {
        name: file.name.clone(),
        errors: file.errors.iter().map(ToString::to_string).collect(),
    });
    let told = Listening {
        socket: options.socket.clone(),
        http: http.as_ref().map(http::Listener::base_url),
        servers: config.servers.len(),
        rejected: rejected.collect(),
        swept,
        is_taken_over: false,
    };
    let in_force = InForce::of(config);
    let place = (instance, shared);
    let mut daemon = Daemon::new(options, (host, logs, root), source, in_force, (journal, 0), place);
    daemon.http_socket = http_socket;
    daemon.serve(listener, http, signals, || listening(told)).await
}

/// Runs a daemon on what the program before this one handed over, until it is told to shut down and everything has ended.
///
/// # Errors
/// If it cannot go on; nothing has changed then, and the program before this one can. Later, as [`run`].
///
/// # Cancel safety
/// Dropping the future kills every server.
pub async fn take_up(
    mut options: RunOptions,
    inheritance: Inheritance,
    signals: mpsc::Receiver<DaemonSignal>,
    listening: impl FnOnce(Listening),
) -> Result<RunReport, RunError> {
    let Inheritance { handoff, mut luggage, keep, is_handed_back } = inheritance;
    let damaged = |what: &str| RunError::Handoff(format!("{what} is missing"));
    let source = source(&options);
    let mut config = handoff
        .configuration(&source.options)
        .map_err(|error| RunError::Handoff(crate::control::chain(&error)))?;
    source.intent.apply(&mut config);
    let mut take = |number, what| luggage.take(number).ok_or_else(|| damaged(what));
    let numbers = handoff.descriptors;
    let instance =
        InstanceLock::taken_up(take(numbers.instance, "the lock of the state directory")?, keep.clone());
    let lock = take(numbers.socket_lock, "the lock of the socket")?;
    let socket = take(numbers.listener, "the socket")?;
    let pipes = numbers.pipes.into_iter().map(|number| take(number, "the output of a server"));
    let pipes = pipes.collect::<Result<Vec<_>, _>>()?;
    let http_socket = numbers.http.map(|number| take(number, "the socket of http")).transpose()?;
    let http_socket = http_socket.map(std::net::TcpListener::from);
    if numbers.is_listener_inherited
        && let Some(path) = path_of(&socket)
    {
        options.socket = path;
    }
    let is_inherited = numbers.is_listener_inherited;
    let shared = SharedListener::taken_up(socket, lock, options.socket.clone(), keep.clone(), is_inherited);
    let listener = shared.listener().map_err(RunError::Thread)?;
    let markers = handoff.tree.markers();
    let checked = handoff.tree.check(root_spec(), root_specs(&config));
    checked.map_err(|error| RunError::Handoff(error.to_string()))?;
    let host = ProcessHost::take_up(host_options(&options)?, handoff.host, luggage)?;
    // From here on there is a way back only if nothing was read: this is the last thing that can fail.
    let (logs, attachments) = LogHub::take_up(Some(options.state_dir.join("logs")), handoff.logs, pipes)
        .map_err(|error| RunError::Handoff(crate::control::chain(&error)))?;
    handover::settle();
    keep.store(false);
    // Before, they would be lost if the program before this one went on.
    handover::release_signals();
    host.give_attachments(attachments);
    let root = builder(&config, &host, &logs).take_up(handoff.tree).spawn().await?;
    host.end_unclaimed(&markers);
    start_missing(&config, &root, &host, &logs).await;
    let rotate_every = config.settings.rotate_token;
    let http = take_up_http(&options, rotate_every, http_socket.as_ref(), handoff.http).await;
    let told = Listening {
        socket: options.socket.clone(),
        http: http.as_ref().map(http::Listener::base_url),
        servers: config.servers.len(),
        rejected: Vec::new(),
        swept: Vec::new(),
        is_taken_over: true,
    };
    let journal = match handoff.journal {
        Some(state) => {
            let path = options.state_dir.join(JOURNAL_FILE);
            blocking(move || Journal::take_up(&path, &state)).await?
        }
        None => open_journal(&options, config.settings.events).await?,
    };
    let adhoc = handoff.configuration.adhoc;
    let in_force = InForce { config, rejected: handoff.configuration.rejected };
    // One that does not say noted everything at once.
    let noted = handoff.noted.unwrap_or_else(|| root.event_log().latest());
    let journal = (journal, noted);
    let place = (instance, shared);
    let mut daemon = Daemon::new(options, (host, logs, root), source, in_force, journal, place);
    daemon.is_handed_back = is_handed_back;
    daemon.http_socket = http_socket;
    daemon.control.take_up_adhoc(&adhoc);
    daemon.serve(listener, http, signals, || listening(told)).await
}

async fn listen_for_http(
    options: &RunOptions,
    rotate_every: Duration,
    address: SocketAddr,
) -> Result<http::Listener, RunError> {
    patiently(async || {
        let limits = http::Limits { rotate_every, ..http::Limits::default() };
        Ok(http::Listener::bind(address, &options.http.token, &options.state_dir, limits).await?)
    })
    .await
}

/// Listens for HTTP on a socket that a service manager has bound, of which it keeps the original.
async fn listen_for_http_on(
    options: &RunOptions,
    rotate_every: Duration,
    socket: &std::net::TcpListener,
) -> Result<http::Listener, RunError> {
    let own = socket.try_clone().and_then(tokio::net::TcpListener::from_std).map_err(HttpError::Socket)?;
    let limits = http::Limits { rotate_every, ..http::Limits::default() };
    Ok(http::Listener::on(own, &options.http.token, &options.state_dir, limits).await?)
}

async fn open_journal(options: &RunOptions, settings: EventSettings) -> Result<Journal, RunError> {
    let path = options.state_dir.join(JOURNAL_FILE);
    blocking(move || Journal::open(Some(&path), settings)).await
}

/// Returns which starts of the daemon before this one have ended without anybody having been told.
async fn untold(
    journal: &Journal,
    lost: Vec<LostIncarnation>,
    ended: Vec<EndedIncarnation>,
) -> Result<Vec<Untold>, RunError> {
    let journal = journal.clone();
    blocking(move || journal.starts().untold(&lost, &ended)).await
}

/// Returns the path that a socket is bound to.
fn path_of(socket: &OwnedFd) -> Option<PathBuf> {
    let socket = UnixListener::from(socket.try_clone().ok()?);
    socket.local_addr().ok()?.as_pathname().map(ToOwned::to_owned)
}

/// Listens for HTTP where the program before did; without it the servers run on all the same.
async fn take_up_http(
    options: &RunOptions,
    rotate_every: Duration,
    socket: Option<&std::net::TcpListener>,
    address: Option<SocketAddr>,
) -> Option<http::Listener> {
    let bound = match socket {
        Some(socket) => listen_for_http_on(options, rotate_every, socket).await,
        None => listen_for_http(options, rotate_every, address?).await,
    };
    bound.inspect_err(|error| tracing::error!("no HTTP: {}", crate::control::chain(error))).ok()
}

/// A server was about to be added when the program was exchanged.
async fn start_missing(config: &Config, root: &Supervisor, host: &ProcessHost, logs: &LogHub) {
    let Ok(children) = root.which_children().await else { return };
    let is_missing = |name: &str| !children.iter().any(|child| child.id.as_str() == name);
    for server in
        config.servers.values().filter(|server| is_at_root(&server.name) && is_missing(&server.name))
    {
        let (root, spec, child) = (root.clone(), server.child.clone(), child_of(server, host, logs));
        tokio::spawn(async move { root.start_child(spec, child).await });
    }
    for group in config.groups.values().filter(|group| is_at_root(&group.name) && is_missing(&group.name)) {
        let (root, spec, child) = (root.clone(), group.child.clone(), group_of(group, config, host, logs));
        tokio::spawn(async move { root.start_child(spec, child).await });
    }
}

/// A daemon whose tree runs.
struct Daemon {
    options: RunOptions,
    host: ProcessHost,
    logs: LogHub,
    root: Supervisor,
    control: Control,
    asked: mpsc::Receiver<Asked>,
    instance: InstanceLock,
    shared: SharedListener,
    /// The socket of HTTP, if a service manager has bound that.
    http_socket: Option<std::net::TcpListener>,
    shutdown_timeout: Duration,
    /// As configured.
    idle_shutdown: Option<Duration>,
    /// How often the token of HTTP is replaced.
    rotate_token: Duration,
    in_short: String,
    is_handed_back: bool,
}

/// What is being served.
struct Served {
    /// Dropped, it ends the tasks.
    close: watch::Sender<()>,
    socket: tokio::task::JoinHandle<()>,
    http: tokio::task::JoinHandle<()>,
    /// Where HTTP is answered, if at all.
    http_address: Option<SocketAddr>,
    credentials: Option<Arc<Credentials>>,
}

impl Served {
    /// Waits for the end of what is under way; a panic in it has been reported by the runtime.
    async fn ended(self) {
        drop(self.close);
        let _panicked = self.socket.await;
        let _panicked = self.http.await;
    }
}

/// What clients ask of the daemon itself.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The same as a signal.
    Signal(DaemonSignal),
    /// An upgrade, and where to say whether it takes place; with the new program's version.
    Upgrade(oneshot::Sender<Result<String, UpgradeError>>),
}

/// Why the daemon stops to wait.
enum Told {
    End(DaemonSignal),
    Upgrade(Option<oneshot::Sender<Result<String, UpgradeError>>>),
    RootEnded,
}

impl Daemon {
    fn new(
        options: RunOptions,
        (host, logs, root): (ProcessHost, LogHub, Supervisor),
        source: Source,
        in_force: InForce,
        (journal, noted): (Journal, u64),
        (instance, shared): (InstanceLock, SharedListener),
    ) -> Self {
        let (own_signals, asked) = mpsc::channel(4);
        let place = Place { state_dir: options.state_dir.clone(), guard: options.guard };
        let shutdown_timeout = in_force.config.settings.shutdown_timeout;
        let idle_shutdown = in_force.config.settings.idle_shutdown;
        let rotate_token = in_force.config.settings.rotate_token;
        let in_short = in_short(&in_force.config);
        let tree = (root.clone(), host.clone(), logs.clone());
        let control = Control::new(tree, source, in_force, (journal, noted), own_signals, place);
        Self {
            options,
            host,
            logs,
            root,
            control,
            asked,
            instance,
            shared,
            http_socket: None,
            shutdown_timeout,
            idle_shutdown,
            rotate_token,
            in_short,
            is_handed_back: false,
        }
    }

    async fn serve(
        mut self,
        listener: Listener,
        http: Option<http::Listener>,
        mut signals: mpsc::Receiver<DaemonSignal>,
        listening: impl FnOnce(),
    ) -> Result<RunReport, RunError> {
        self.control.set_handed_back(self.is_handed_back);
        let mut served = self.serve_on(listener, http);
        let service = self.options.service.clone();
        if let Some(service) = &service {
            service.ready(&self.in_short);
        }
        listening();
        let settling = tokio::spawn(settle(self.root.clone()));
        let keep_alive = tokio::spawn({
            let (service, root) = (service.clone(), self.root.clone());
            async move {
                if let Some(service) = service {
                    service.keep_alive(&root).await;
                }
            }
        });
        let told = loop {
            let credentials = served.credentials.clone();
            let (root, control) = (&self.root, &self.control);
            let idle = self.options.idle_shutdown.after(self.idle_shutdown);
            let told = tokio::select! {
                told = until_told(root, control, service.as_ref(), credentials, &mut signals, &mut self.asked) => told,
                () = until_idle(idle, root, control) => {
                    tracing::info!("nobody has needed this daemon for {:?}: it ends", idle.unwrap_or_default());
                    Told::End(DaemonSignal::Shutdown)
                }
            };
            match told {
                Told::Upgrade(reply) => served = self.upgrade(reply, served, &mut signals).await?,
                Told::End(how) => break Some(how),
                Told::RootEnded => break None,
            }
        };
        if let Some(service) = &service {
            service.stopping();
        }
        let ended = match told {
            Some(how) => Ok(shut_down(&self.root, how, self.shutdown_timeout, &mut signals).await),
            None => Err(RunError::RootEnded(self.root.ended().await.to_string())),
        };
        let strangers = self.host.end_strangers().await;
        keep_alive.abort();
        settling.abort();
        self.control.finish().await;
        if timeout(LOGS_PATIENCE, self.logs.flush()).await.is_err() {
            tracing::warn!("the logs hang in a write; their last lines may be missing");
        }
        served.ended().await;
        let name = |member: &Member| format!("{} ({})", member.pid, member.command);
        ended.map(|report| RunReport { strangers: strangers.iter().map(name).collect(), ..report })
    }

    fn serve_on(&self, listener: Listener, http: Option<http::Listener>) -> Served {
        let (close, closing) = watch::channel(());
        let closed = || {
            let mut closing = closing.clone();
            async move {
                // It never changes; it ends when the sender is dropped.
                let _dropped = closing.changed().await;
            }
        };
        if let Some(http) = &http {
            self.control.set_http(&http.plane());
        }
        let control = Arc::new(self.control.clone());
        let socket = tokio::spawn(rpc::serve(listener, Arc::clone(&control), closed()));
        let http_address = http.as_ref().map(http::Listener::address);
        let credentials = http.as_ref().map(http::Listener::credentials);
        let http = tokio::spawn({
            let closed = closed();
            async move {
                if let Some(http) = http {
                    http::serve(http, control, closed).await;
                }
            }
        });
        Served { close, socket, http, http_address, credentials }
    }

    /// Lets the program on disk take over, or says why not. Returns only if it does not, and serves on.
    async fn upgrade(
        &self,
        reply: Option<oneshot::Sender<Result<String, UpgradeError>>>,
        served: Served,
        signals: &mut mpsc::Receiver<DaemonSignal>,
    ) -> Result<Served, RunError> {
        let upgrade = Upgrade {
            program: self.options.program.as_deref(),
            guard: self.options.guard,
            root: &self.root,
            host: &self.host,
            logs: &self.logs,
            control: &self.control,
            instance: &self.instance,
            listener: &self.shared,
            http_socket: self.http_socket.as_ref(),
            shutdown_timeout: self.shutdown_timeout,
            idle_shutdown: self.idle_shutdown,
            rotate_token: self.rotate_token,
            http: served.http_address,
        };
        let checked = upgrade.check().await;
        if let Err(error) = &checked {
            tracing::error!("not upgraded: {}", crate::control::chain(error));
        }
        let takes_place = checked.is_ok();
        if let Some(reply) = reply {
            let _gone = reply.send(checked);
        }
        if !takes_place {
            return Ok(served);
        }
        // The answers that are due are written; who connects from now on is answered by the next program.
        self.shared.keep().store(true);
        let http_address = served.http_address;
        drop(served.close);
        let deadline = Instant::now() + LAST_ANSWERS;
        for mut task in [served.socket, served.http] {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
                let _aborted = task.await;
            }
        }
        let guard = self.options.guard.and_then(|guard| Guarded::attach(guard).ok());
        if let Some(guard) = &guard {
            guard.report_exchange();
        }
        let mut ending = None;
        let error = upgrade
            .exchange(|| {
                while let Ok(signal) = signals.try_recv() {
                    ending = ending.or(matches!(signal, DaemonSignal::Shutdown | DaemonSignal::ShutdownNow)
                        .then_some(signal));
                }
                ending.is_some()
            })
            .await;
        tracing::error!("not upgraded: {}", crate::control::chain(&error));
        self.shared.keep().store(false);
        if let Some(guard) = &guard {
            guard.report_up();
        }
        if let Some(signal) = ending {
            self.control.signal_daemon(signal);
        }
        let socket = self.http_socket.as_ref();
        let http = take_up_http(&self.options, self.rotate_token, socket, http_address).await;
        Ok(self.serve_on(self.shared.listener().map_err(RunError::Thread)?, http))
    }
}

/// Returns the flags of the root supervisor.
pub(crate) fn root_spec() -> SupervisorSpec {
    SupervisorSpec { order: Order::Concurrent, intensity: None, ..SupervisorSpec::default() }
}

fn is_at_root(path: &str) -> bool {
    !path.contains('/')
}

/// Returns what the root knows of its children.
pub(crate) fn root_specs(config: &Config) -> Vec<ChildSpec> {
    let servers = config.servers.values().filter(|server| is_at_root(&server.name));
    let groups = config.groups.values().filter(|group| is_at_root(&group.name));
    let specs = servers.map(|server| &server.child).chain(groups.map(|group| &group.child));
    specs.map(|spec| ChildSpec::clone(spec)).collect()
}

fn host_options(options: &RunOptions) -> Result<HostOptions, RunError> {
    // Children have other working directories than we.
    let notify_dir = std::path::absolute(options.state_dir.join("notify")).map_err(RunError::Thread)?;
    Ok(HostOptions {
        subreaper: true,
        parent_death_signal: true,
        ledger: Some(options.state_dir.join("processes.ledger")),
        cgroups: options.cgroups,
        notify_dir: Some(notify_dir),
    })
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
    untold: Vec<Untold>,
    first_event: u64,
) -> Result<Supervisor, RunError> {
    let builder = untold.into_iter().fold(builder(config, host, logs), |builder, untold| {
        let exit = EarlierExit {
            incarnation: Incarnation::new(untold.incarnation),
            pid: untold.pid,
            report: untold.report,
        };
        builder.earlier_exit(untold.path, exit)
    });
    Ok(builder.seed(unix_ms()).first_event(first_event).spawn().await?)
}

fn builder(config: &Config, host: &ProcessHost, logs: &LogHub) -> SupervisorBuilder {
    add_children(Supervisor::builder(root_spec()), config, host, logs)
}

/// Says what a daemon on this configuration does, for its service manager.
fn in_short(config: &Config) -> String {
    format!("{} servers, {} files rejected", config.servers.len(), config.rejected.len())
}

/// Gives back the memory that only the start has needed, once that is over, and again after each larger upheaval.
async fn settle(root: Supervisor) {
    let mut events = root.events(EventCursor::Now);
    loop {
        match tokio::time::timeout(CALM, events.next()).await {
            Ok(Some(_)) => continue,
            Ok(None) => return,
            Err(_) => memory::release_unused(),
        }
        for _ in 0..UPHEAVAL {
            if events.next().await.is_none() {
                return;
            }
        }
    }
}

/// Waits for a reason to end or to be upgraded. Reloads meanwhile.
async fn until_told(
    root: &Supervisor,
    control: &Control,
    service: Option<&ServiceManager>,
    credentials: Option<Arc<Credentials>>,
    signals: &mut mpsc::Receiver<DaemonSignal>,
    asked: &mut mpsc::Receiver<Asked>,
) -> Told {
    loop {
        let asked = tokio::select! {
            Some(signal) = signals.recv() => Asked::Signal(signal),
            Some(asked) = asked.recv() => asked,
            _ = root.ended() => return Told::RootEnded,
        };
        match asked {
            Asked::Signal(DaemonSignal::Reload) => {}
            Asked::Signal(DaemonSignal::RotateToken) => {
                tokio::spawn(rotate_token(credentials.clone()));
                continue;
            }
            Asked::Signal(DaemonSignal::Upgrade) => return Told::Upgrade(None),
            Asked::Signal(signal @ (DaemonSignal::Shutdown | DaemonSignal::ShutdownNow)) => {
                return Told::End(signal);
            }
            Asked::Upgrade(reply) => return Told::Upgrade(Some(reply)),
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
