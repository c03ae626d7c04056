//! Every operation on a tree, once: the socket and HTTP only frame it.
//!
//! | operation | of the library |
//! |---|---|
//! | `start` | the operator's start: wanted up, limit and backoff cleared, waits until ready |
//! | `stop` | the operator's stop: wanted down, waits until the whole tree is gone |
//! | `restart` | the operator's restart; a stopped server is started |
//! | `pause`, `resume` | automatic restarts off and on |
//! | `reload` | [`reload::plan`] over `start_child`, `update`, `stop`, `start` and `remove` |
//!
//! It translates and holds no lifecycle state. What it keeps is the configuration in force. A tree that a program has put
//! together itself has none: then what is about files is refused, and everything else is the same.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use xy_actors::child::StartErrorKind;
use xy_actors::event::stream::{EventCursor, unix_ms};
use xy_actors::exit::Cause;
use xy_actors::log::{LinePattern, Log, LogHealth, LogHub, LogQuery, LogSettings, Stream};
use xy_actors::policy::Refusal;
use xy_actors::process::readiness::McpQuestion;
use xy_actors::process::{Ownership, ProcessHost};
use xy_actors::spec::ChildType;
use xy_actors::supervisor::{ChildInfo, LastExit, OperationError, SignalError, StopOutcome, Supervisor};

use crate::audit::AuditLog;
use crate::config::{Config, EventSettings, LoadError, LoadOptions, RejectedFile, ServerConfig};
use crate::daemon::{Asked, DaemonSignal};
use crate::history::History;
use crate::http::plane::HttpPlane;
use crate::idle::{Clients, Presence};
use crate::intent::Intent;
use crate::journal::{Journal, JournalState};
use crate::operations::{self, OperationTable};
use crate::permission::PermissionPolicy;
use crate::permission::gate::{Gate, GateOptions};
use crate::protocol::error::{ErrorKind, RpcError};
use crate::protocol::method::{
    self, AddParams, AddResult, AnswerResult, Call, CallParams, CatalogParams, Diagnostics,
    DiagnosticsParams, DiagnosticsResult, DisableResult, EnableResult, EventFacts, EventsParams, Failed,
    Killed, KilledProcess, ListParams, ListResult, LogsParams, OperationParams, PauseResult, Prompt,
    PromptParams, Prompts, PromptsResult, Reload, ReloadParams, ReloadResult, Reloaded, RemoveParams,
    RemoveResult, Resource, ResourceParams, Resources, ResourcesResult, RestartResult, ResumeResult,
    ServerSummary, ServerUsage, ShowParams, ShowResult, ShutdownParams, ShutdownResult, SignalParams,
    SignalResult, StartResult, StatusParams, StatusResult, StopResult, Targets, Tools, ToolsResult,
    Transition, UpgradeParams, UpgradeResult, UsageParams, UsageResult, VersionParams, VersionResult,
    WhyParams, WhyResult,
};
use crate::protocol::{Method as _, PROTOCOL_VERSION};
use crate::registry::Registry;
use crate::reload;
use crate::rpc::{self, Service, Subscription};
use crate::telemetry;
use crate::upgrade::{ConfigurationState, UpgradeError};

mod adhoc;
mod apply;
mod catalog;
mod select;
mod show;
mod subscription;
mod tree;
mod why;
mod words;

pub(crate) use subscription::wire_event;
pub(crate) use tree::{add_children, child_of, group_of};

use subscription::{EventSubscription, LogSubscription};

/// How many lines `logs` begins with, unless told otherwise.
const DEFAULT_TAIL: u64 = 100;

/// How long the last events may take to be noted.
const NOTING_TIME: Duration = Duration::from_secs(1);

/// How many of the latest lines are searched for those of standard error, and how many of these `status` shows.
const STDERR_SEARCHED: usize = 400;
const STDERR_SHOWN: usize = 10;

/// How many requests about the whole tree run at a time, so that the turn of short ones comes in between.
const LONG_AT_A_TIME: usize = 4;

/// The operations of one daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: Supervisor,
    /// Owns the processes of the tree, if it has some.
    host: Option<ProcessHost>,
    logs: LogHub,
    /// Where the configuration is; `None` if the program has put the tree together itself.
    source: Option<Source>,
    in_force: Mutex<InForce>,
    /// The servers that were added for the daemon's life, which no file describes.
    adhoc: Mutex<BTreeMap<String, ServerConfig>>,
    history: History,
    journal: Journal,
    /// The number of the first event of this daemon.
    first_event: u64,
    /// What keeps the history and the journal; taken by who waits for their end.
    noting: Mutex<Vec<JoinHandle<()>>>,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    /// For requests about the whole tree. Never closed.
    long: Semaphore,
    asks: mpsc::Sender<Asked>,
    started_at_unix_ms: u64,
    place: Place,
    embedding: Option<Embedding>,
    /// Permissions and audit.
    gate: Gate,
    operations: Arc<OperationTable>,
    http: Mutex<Weak<HttpPlane>>,
    /// A program that was to take over has handed the process back.
    is_handed_back: AtomicBool,
    clients: Clients,
    /// Room for questions to MCP servers.
    questions: Semaphore,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The tree may go on for long after nobody asks about it any more.
        let noting = self.noting.get_mut().unwrap_or_else(PoisonError::into_inner);
        noting.iter().for_each(JoinHandle::abort);
    }
}

/// Where the daemon is, for its diagnostics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The directory of lock, ledger and logs.
    pub state_dir: PathBuf,
    /// The process id of the guard, if there is one.
    pub guard: Option<u32>,
}

/// What a program says whose own tree this is.
#[derive(Debug, Clone)]
pub(crate) struct Embedding {
    /// The program's name.
    pub(crate) program: String,
    /// What it answers beside the methods of every daemon.
    pub(crate) registry: Registry,
    /// Whether a client may end the tree.
    pub(crate) permits_shutdown: bool,
    /// Who may ask for what.
    pub(crate) permissions: Permissions,
}

/// How a program decides who may ask for what.
#[derive(Debug, Clone)]
pub(crate) struct Permissions {
    /// What decides.
    pub(crate) policy: Arc<dyn PermissionPolicy>,
    /// How long an operator has to answer.
    pub(crate) ask_timeout: Duration,
    /// The directory of the grants that last and of the audit log, if they are kept.
    pub(crate) records: Option<PathBuf>,
}

/// Why the configuration was not read again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The configuration as a whole cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The tree was not made from files.
    #[error("the program has put its tree together itself: there are no files to read")]
    NoFiles,
}

/// Where the configuration is read from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The directory with `xyd.ron`.
    pub config_dir: PathBuf,
    /// How it is read.
    pub options: LoadOptions,
    /// What operators said about which servers are started.
    pub intent: Intent,
}

impl Source {
    /// Reads the configuration, away from the threads that must not wait.
    ///
    /// # Errors
    /// See [`Config::load`].
    ///
    /// # Cancel safety
    /// Cancel safe: reading changes nothing.
    pub async fn load(&self) -> Result<Config, LoadError> {
        let Self { config_dir, options, intent } = self.clone();
        let directory = config_dir.clone();
        let loaded = tokio::task::spawn_blocking(move || {
            let mut config = Config::load(&config_dir, &options)?;
            intent.apply(&mut config);
            Ok(config)
        })
        .await;
        loaded.unwrap_or_else(|error| {
            Err(LoadError::Directory { path: directory, source: std::io::Error::other(error) })
        })
    }
}

/// The configuration in force: what each server of the tree was made from, and the files that are not in use.
#[derive(Debug, Default)]
pub(crate) struct InForce {
    pub(crate) config: Config,
    pub(crate) rejected: BTreeMap<String, String>,
}

impl InForce {
    pub(crate) fn of(config: Config) -> Self {
        let rejected = config.rejected.iter().map(|file| (file.name.clone(), errors_of(file))).collect();
        Self { config, rejected }
    }

    /// Returns whether there is a server or group of this name or path.
    fn has(&self, name: &str) -> bool {
        self.config.servers.contains_key(name) || self.config.groups.contains_key(name)
    }
}

fn errors_of(file: &RejectedFile) -> String {
    let errors: Vec<String> = file.errors.iter().map(ToString::to_string).collect();
    errors.join("\n")
}

impl Control {
    /// Creates the operations around a root supervisor that was made from the configuration in force; `noted` is the number
    /// of the last event that an earlier program of this process has put into the history.
    pub(crate) fn new(
        (root, host, logs): (Supervisor, ProcessHost, LogHub),
        source: Source,
        in_force: InForce,
        (journal, noted): (Journal, u64),
        asks: mpsc::Sender<Asked>,
        place: Place,
    ) -> Self {
        Self::of(Parts {
            root,
            host: Some(host),
            logs,
            source: Some(source),
            in_force,
            journal,
            noted,
            asks,
            place,
            embedding: None,
        })
    }

    /// Creates the operations around a tree that a program has put together itself.
    pub(crate) fn around(
        root: Supervisor,
        host: Option<ProcessHost>,
        logs: LogHub,
        asks: mpsc::Sender<Asked>,
        embedding: Embedding,
    ) -> Self {
        Self::of(Parts {
            root,
            host,
            logs,
            source: None,
            in_force: InForce::default(),
            journal: Journal::open(None, EventSettings::default()),
            noted: 0,
            asks,
            place: Place::default(),
            embedding: Some(embedding),
        })
    }

    fn of(parts: Parts) -> Self {
        let Parts { root, host, logs, source, in_force, journal, noted, asks, place, embedding } = parts;
        let state_dir = Some(place.state_dir.as_path()).filter(|path| !path.as_os_str().is_empty());
        let history = History::open(state_dir.map(|path| path.join("history")).as_deref());
        let permissions = embedding.as_ref().map(|embedding| &embedding.permissions);
        let records = permissions.map_or(state_dir, |permissions| permissions.records.as_deref());
        let audit = records.map(|records| AuditLog::open(&records.join("audit.log")));
        let audit = audit.and_then(|opened| {
            opened.inspect_err(|error| tracing::error!(%error, "there is no audit log")).ok()
        });
        let grants = records.map(|records| records.join("grants.json"));
        let options =
            GateOptions { grants: grants.as_deref(), audit, events: Some(root.event_log().clone()) };
        let gate = match permissions {
            Some(Permissions { policy, ask_timeout, .. }) => {
                Gate::with_timeout(Arc::clone(policy), *ask_timeout, options)
            }
            None => Gate::of_settings(in_force.config.permissions.clone(), options),
        };
        let not_noted = EventCursor::Seq(noted + 1);
        history.listen(root.events(not_noted));
        let noting = vec![
            tokio::spawn(history.clone().follow(root.events(not_noted))),
            tokio::spawn(journal.clone().keep(root.event_log().clone())),
        ];
        Self(Arc::new(Inner {
            adhoc: Mutex::default(),
            history,
            journal,
            first_event: root.event_log().first(),
            noting: Mutex::new(noting),
            root,
            host,
            logs,
            source,
            in_force: Mutex::new(in_force),
            reloading: tokio::sync::Mutex::new(()),
            long: Semaphore::new(LONG_AT_A_TIME),
            asks,
            started_at_unix_ms: unix_ms(),
            place,
            embedding,
            gate,
            operations: Arc::new(OperationTable::new(format!("{:x}", unix_ms()), operations::MOST)),
            http: Mutex::default(),
            is_handed_back: AtomicBool::new(false),
            clients: Clients::default(),
            questions: Semaphore::new(catalog::QUESTIONS),
        }))
    }

    /// Returns what servers from files are made with.
    fn files(&self, method: &str) -> Result<(&Source, &ProcessHost), RpcError> {
        match (&self.0.source, &self.0.host) {
            (Some(source), Some(host)) => Ok((source, host)),
            _ => {
                let message = format!("`{method}` is about server files; this program made its tree itself");
                Err(RpcError::new(ErrorKind::Unsupported, message))
            }
        }
    }

    /// Waits until the end of the tree is in the history, and forgets those of whom nothing is to be left. To be called
    /// when the tree has ended.
    ///
    /// # Cancel safety
    /// Cancel safe, but a second call waits for nothing.
    pub(crate) async fn finish(&self) {
        let noting = std::mem::take(&mut *self.0.noting.lock().unwrap_or_else(PoisonError::into_inner));
        let deadline = tokio::time::Instant::now() + NOTING_TIME;
        for noting in noting {
            // A panic in it has been reported by the runtime. The end of the daemon is worth more than its notes.
            let _panicked = tokio::time::timeout_at(deadline, noting).await;
        }
        self.forget_adhoc();
        self.0.gate.flush().await;
    }

    /// Returns what every request passes.
    pub(crate) fn gate_of(&self) -> &Gate {
        &self.0.gate
    }

    /// Learns what HTTP is, for as long as that is there.
    pub(crate) fn set_http(&self, plane: &Arc<HttpPlane>) {
        *self.0.http.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(plane);
    }

    /// Notes in the history what was told until now, and returns the number of the last event.
    pub(crate) fn note_history(&self) -> u64 {
        let latest = self.0.root.event_log().latest();
        self.0.history.catch_up();
        latest
    }

    /// Returns what the journal's next keeper has to know.
    pub(crate) fn journal_state(&self) -> JournalState {
        self.0.journal.state()
    }

    /// Notes that a program that was to take over has handed the process back to this one.
    pub(crate) fn set_handed_back(&self, is_handed_back: bool) {
        self.0.is_handed_back.store(is_handed_back, Ordering::Relaxed);
    }

    /// Returns who is connected.
    pub(crate) fn clients(&self) -> &Clients {
        &self.0.clients
    }

    /// Asks the daemon for what a signal would.
    pub(crate) fn signal_daemon(&self, signal: DaemonSignal) {
        // A full queue holds such a request already.
        let _queued = self.0.asks.try_send(Asked::Signal(signal));
    }

    /// Returns the configuration in force for the next program of this process; `None` if a reload takes longer than that.
    pub(crate) async fn hand_over(&self, patience: Duration) -> Option<ConfigurationState> {
        let _quiet = tokio::time::timeout(patience, self.0.reloading.lock()).await.ok()?;
        self.0.gate.flush().await;
        let in_force = self.in_force();
        Some(ConfigurationState::of(&in_force.config, in_force.rejected.clone(), self.adhoc_names()))
    }

    /// Returns what the daemon stands on; of a tree without processes there is nothing to say.
    fn diagnostics(&self) -> Option<Diagnostics> {
        let host = self.0.host.as_ref()?;
        let (ownership, cgroup) = match host.ownership() {
            Ownership::Cgroup { path } => ("cgroup", Some(path.display().to_string())),
            Ownership::Subreaper => ("subreaper", None),
            _ => ("walk", None),
        };
        let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        let strangers = host.strangers();
        Some(Diagnostics {
            ownership: ownership.to_owned(),
            cgroup,
            guard_pid: self.0.place.guard,
            handed_back: self.0.is_handed_back.load(Ordering::Relaxed),
            state_dir: self.0.place.state_dir.display().to_string(),
            config_dir: match &self.0.source {
                Some(source) => source.config_dir.display().to_string(),
                None => String::new(),
            },
            open_files_limit: limit.ok().map(|(soft, _)| soft),
            strangers: strangers
                .iter()
                .map(|member| format!("{} ({})", member.pid, member.command))
                .collect(),
        })
    }

    fn in_force(&self) -> MutexGuard<'_, InForce> {
        // Each critical section leaves the maps valid at every step.
        self.0.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn port_of(&self, name: &str) -> Option<u16> {
        self.in_force().config.servers.get(name).and_then(|server| server.process.port)
    }

    fn tags_of(&self, name: &str) -> Vec<String> {
        self.in_force().config.servers.get(name).map(|server| server.tags.clone()).unwrap_or_default()
    }

    fn log_settings_of(&self, name: &str) -> Option<LogSettings> {
        self.in_force().config.servers.get(name).map(|server| server.log)
    }

    /// Returns the output of a server, if it has some.
    fn log_of(&self, name: &str) -> Option<Log> {
        match (&self.0.source, self.log_settings_of(name)) {
            (_, Some(settings)) => self.0.logs.open(name, settings).ok(),
            (Some(_), None) => None,
            // Its own program has opened it with the first start.
            (None, None) => self.0.logs.find(name),
        }
    }

    /// Returns whether there is a server or group of this name or path.
    async fn exists(&self, name: &str) -> bool {
        match self.0.source {
            Some(_) => self.in_force().has(name),
            None => self.0.root.lookup(name).await.is_ok(),
        }
    }

    /// Returns every server and group, each group's row before those in it.
    async fn rows(&self) -> Result<Vec<ServerSummary>, OperationError> {
        let mut children = self.0.root.which_children().await?;
        children.sort_by(|a, b| a.id.cmp(&b.id));
        let mut rows = Vec::with_capacity(children.len());
        for child in &children {
            rows.push(self.summary(child));
            rows.extend(self.rows_in(&self.0.root, child).await);
        }
        Ok(rows)
    }

    fn summary(&self, child: &ChildInfo) -> ServerSummary {
        ServerSummary {
            name: child.path.to_string(),
            group: child.child_type == ChildType::Supervisor,
            state: child.state,
            ready: child.ready,
            unproven: child.ready && !child.healthy,
            wanted: child.wanted,
            paused: child.paused,
            pid: child.pid,
            port: self.port_of(child.path.as_str()),
            uptime_secs: child.ready_for.map(|time| time.as_secs()),
            restart_count: child.restarts,
            last_exit: child.last_exit.as_ref().map(last_exit),
            next: words::next(child),
            tags: self.tags_of(child.path.as_str()),
        }
    }

    /// Returns the names that an operation is about.
    async fn names(&self, targets: Targets) -> Result<Vec<String>, RpcError> {
        match targets {
            Targets::Names(names) => {
                let names = self.matching(names).await?;
                let mut unique: Vec<String> = Vec::with_capacity(names.len());
                for name in names.into_iter().flat_map(|name| self.instances_of(name)) {
                    if !unique.contains(&name) {
                        unique.push(name);
                    }
                }
                Ok(unique)
            }
            Targets::All => {
                let children = self.0.root.which_children().await.map_err(gone)?;
                let mut names: Vec<String> = children.iter().map(|child| child.id.to_string()).collect();
                names.sort();
                Ok(names)
            }
        }
    }

    /// Returns the servers that a name stands for: itself, or every instance that a file describes by that name.
    fn instances_of(&self, name: String) -> Vec<String> {
        let in_force = self.in_force();
        if in_force.has(&name) {
            return vec![name];
        }
        let mut instances: Vec<&ServerConfig> =
            in_force.config.servers.values().filter(|server| server.base == name).collect();
        // As numbers: `web-10` comes after `web-9`.
        instances.sort_by_key(|server| (server.name.len(), &server.name));
        let names: Vec<String> = instances.into_iter().map(|server| server.name.clone()).collect();
        if names.is_empty() { vec![name] } else { names }
    }

    /// Returns what is wrong with the file of a server or group, if that is not in use.
    fn config_error_of(&self, name: &str) -> Option<String> {
        let in_force = self.in_force();
        let Config { servers, groups, .. } = &in_force.config;
        let origin = servers.get(name).map(|server| &server.origin);
        let origin = origin.or_else(|| groups.get(name).map(|group| &group.origin));
        let rejected = |name: &str| in_force.rejected.get(name).cloned();
        rejected(name).or_else(|| rejected(origin?))
    }

    /// Performs an operation on each server at the same time; returns what each came to, in the order of the names.
    async fn each<T, F, Fut>(
        &self,
        verb: &str,
        params: OperationParams,
        operation: F,
    ) -> Result<Vec<Row<T>>, RpcError>
    where
        T: Send + 'static,
        F: Fn(Supervisor, String, Option<String>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<T, Trouble>> + Send + 'static,
    {
        let OperationParams { targets, wait, timeout_secs, reason } = params;
        let names = self.names(targets).await?;
        let mut tasks = Vec::with_capacity(names.len());
        for name in names {
            let exists = self.exists(&name).await;
            if exists {
                self.0.history.asked(&name, verb, reason.as_deref(), unix_ms());
            }
            let (control, operation) = (self.clone(), operation.clone());
            let (path, reason) = (name.clone(), reason.clone());
            // In a task of its own the operation goes on when its client is gone or does not wait.
            let task = tokio::spawn(async move {
                let (owner, id) = control.owner_of(&path).await?;
                operation(owner, id, reason).await
            });
            tasks.push((name, exists, task));
        }
        // A time that no clock reaches is no limit.
        let deadline =
            timeout_secs.and_then(|secs| tokio::time::Instant::now().checked_add(Duration::from_secs(secs)));
        let mut rows = Vec::with_capacity(tasks.len());
        for (name, exists, task) in tasks {
            let result = if !wait && exists {
                Ok(None)
            } else {
                let done = match deadline {
                    Some(deadline) => tokio::time::timeout_at(deadline, task).await.ok(),
                    None => Some(task.await),
                };
                match done {
                    Some(Ok(done)) => done.map(Some),
                    Some(Err(error)) => {
                        tracing::error!(child = name, reason = %error, "operation failed");
                        Err(Trouble::new(ErrorKind::InternalError, "the operation failed inside the daemon"))
                    }
                    None => Err(Trouble::new(ErrorKind::Timeout, "not done in the time given; it goes on")),
                }
            };
            rows.push(Row { result: result.map_err(|trouble| self.failed(&name, trouble)), name });
        }
        Ok(rows)
    }

    /// Makes a failed row; a server that is missing because its file is invalid is told so.
    fn failed(&self, name: &str, trouble: Trouble) -> Failed {
        let Trouble { mut kind, mut message } = trouble;
        if kind == ErrorKind::ServerNotFound
            && let Some(errors) = self.in_force().rejected.get(name)
        {
            kind = ErrorKind::ConfigInvalid;
            message = errors.clone();
        }
        Failed { name: name.to_owned(), kind, message }
    }

    fn not_found(&self, name: &str) -> RpcError {
        let errors = self.in_force().rejected.get(name).cloned();
        if let Some(errors) = errors {
            return RpcError::new(ErrorKind::ConfigInvalid, errors);
        }
        match self.instances_of(name.to_owned()) {
            instances if instances != [name] => RpcError::new(
                ErrorKind::ServerNotFound,
                format!("no server is named `{name}`; its instances are {}", instances.join(", ")),
            ),
            _ => RpcError::server_not_found(name),
        }
    }

    /// Reads the configuration again and applies what changed.
    ///
    /// # Errors
    /// If the configuration as a whole cannot be read, or there is none; then nothing changes.
    ///
    /// # Cancel safety
    /// Not cancel safe: call it in a task of its own, as the socket does.
    pub async fn reload(&self, dry_run: bool) -> Result<ReloadResult, ReloadError> {
        let (Some(source), Some(host)) = (&self.0.source, &self.0.host) else {
            return Err(ReloadError::NoFiles);
        };
        let _one_at_a_time = self.0.reloading.lock().await;
        let mut config = source.load().await?;
        self.keep_adhoc(&mut config);
        let permissions = config.permissions.clone();
        let plan = reload::plan(&self.in_force().config, &config);
        let result = words::reload_result(&plan);
        if !dry_run {
            self.0.gate.set_settings(permissions);
            self.apply(plan, host).await;
        }
        Ok(result)
    }
}

/// What [`Control`] is made of.
struct Parts {
    root: Supervisor,
    host: Option<ProcessHost>,
    logs: LogHub,
    source: Option<Source>,
    in_force: InForce,
    journal: Journal,
    noted: u64,
    asks: mpsc::Sender<Asked>,
    place: Place,
    embedding: Option<Embedding>,
}

/// What one server's operation came to: `None` if nobody waits for it.
struct Row<T> {
    name: String,
    result: Result<Option<T>, Failed>,
}

/// Why an operation on one server failed.
struct Trouble {
    kind: ErrorKind,
    message: String,
}

impl Trouble {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<OperationError> for Trouble {
    fn from(error: OperationError) -> Self {
        let kind = match &error {
            OperationError::NotFound(_) => ErrorKind::ServerNotFound,
            OperationError::StartFailed { kind: StartErrorKind::PortConflict, .. } => ErrorKind::PortConflict,
            OperationError::StartFailed { cause: Cause::StartFailed { .. }, .. } => ErrorKind::SpawnFailed,
            OperationError::StartFailed { .. } => ErrorKind::NotReady,
            OperationError::Refused { refusal: Refusal::Superseded, .. } => ErrorKind::Superseded,
            OperationError::Refused { refusal: Refusal::SimpleOneForOne, .. } => ErrorKind::Unsupported,
            OperationError::Refused { refusal: Refusal::ShuttingDown, .. }
            | OperationError::SupervisorGone => ErrorKind::ShuttingDown,
            _ => ErrorKind::InternalError,
        };
        let message = match error {
            OperationError::NotFound(id) => format!("server not found: `{id}`"),
            OperationError::StartFailed { cause: Cause::StartFailed { message }, .. } => message,
            OperationError::StartFailed { cause, .. } => format!("ended before it was ready: {cause}"),
            OperationError::Refused { refusal, .. } => refusal.to_string(),
            other => other.to_string(),
        };
        Self { kind, message }
    }
}

impl From<SignalError> for Trouble {
    fn from(error: SignalError) -> Self {
        let (kind, message) = match error {
            SignalError::NotFound(id) => (ErrorKind::ServerNotFound, format!("server not found: `{id}`")),
            SignalError::NotRunning(_) => (ErrorKind::NotRunning, "not running".to_owned()),
            SignalError::NoProcess(_) => (ErrorKind::Unsupported, "no process".to_owned()),
            SignalError::System { source, .. } => (ErrorKind::InternalError, source.to_string()),
            other => (ErrorKind::ShuttingDown, other.to_string()),
        };
        Self { kind, message }
    }
}

fn gone(error: OperationError) -> RpcError {
    let Trouble { kind, message } = error.into();
    RpcError::new(kind, message)
}

fn last_exit(last: &LastExit) -> method::LastExit {
    method::LastExit {
        exit: last.report.exit,
        cause: last.report.to_string(),
        at_unix_ms: last.at_unix_ms,
        incarnation: last.incarnation.get(),
    }
}

impl Service for Control {
    fn arrive(&self) -> Presence {
        self.0.clients.arrive()
    }

    fn note_request(&self, method: &str) {
        self.0.clients.note(method);
    }

    async fn list(&self, _params: ListParams) -> Result<ListResult, RpcError> {
        let _turn = self.0.long.acquire().await;
        Ok(ListResult { servers: self.rows().await.map_err(gone)? })
    }

    async fn status(&self, params: StatusParams) -> Result<StatusResult, RpcError> {
        let name = params.name;
        let (owner, id) = match self.owner_of(&name).await {
            Ok(found) => found,
            Err(Trouble { kind: ErrorKind::ServerNotFound, .. }) => return Err(self.not_found(&name)),
            Err(Trouble { kind, message }) => return Err(RpcError::new(kind, message)),
        };
        let (child, history) = match owner.which_child_with_history(id).await {
            Ok(found) => found,
            Err(OperationError::NotFound(_)) => return Err(self.not_found(&name)),
            Err(error) => return Err(gone(error)),
        };
        let children = self.rows_in(&owner, &child).await;
        let log = self.log_of(&name);
        let mut stderr_tail = Vec::new();
        if let Some(log) = &log {
            let lines = log.tail(STDERR_SEARCHED);
            let errors = lines.iter().rev().filter(|line| line.stream == Stream::Err).take(STDERR_SHOWN);
            stderr_tail = errors.map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect();
            stderr_tail.reverse();
        }
        Ok(StatusResult {
            summary: self.summary(&child),
            incarnation: child.incarnation.get(),
            transitions: history
                .transitions
                .iter()
                .map(|transition| Transition {
                    from: transition.from,
                    to: transition.to,
                    at_unix_ms: transition.at_unix_ms,
                    reason: transition.reason(),
                })
                .collect(),
            children,
            log_path: log.and_then(|log| log.path()).map(|path| path.display().to_string()),
            stderr_tail,
            config_error: self.config_error_of(&name),
        })
    }

    async fn start(&self, params: OperationParams) -> Result<StartResult, RpcError> {
        let rows = self.each("start", params, tree::start).await?;
        let mut result = StartResult::default();
        for Row { name, result: row } in rows {
            match row {
                Ok(Some(false)) => result.already_running.push(name),
                Ok(_) => result.started.push(name),
                Err(failed) => result.failed.push(failed),
            }
        }
        Ok(result)
    }

    async fn stop(&self, params: OperationParams) -> Result<StopResult, RpcError> {
        let rows = self.each("stop", params, tree::stop).await?;
        let mut result = StopResult::default();
        for Row { name, result: row } in rows {
            match row {
                Ok(Some((StopOutcome::NotRunning, _))) => result.not_running.push(name),
                Ok(Some((StopOutcome::Stopped(report), inside))) => {
                    result.killed.extend(inside);
                    if !report.left.is_empty() {
                        let left: Vec<String> =
                            report.left.iter().map(|p| format!("pid {} ({})", p.pid, p.command)).collect();
                        let message = format!("still there after SIGKILL: {}", left.join(", "));
                        result.failed.push(Failed { name, kind: ErrorKind::StopFailed, message });
                        continue;
                    }
                    if !report.killed.is_empty() {
                        result.killed.push(killed(&name, &report.killed));
                    }
                    result.stopped.push(name);
                }
                Ok(_) => result.stopped.push(name),
                Err(failed) => result.failed.push(failed),
            }
        }
        Ok(result)
    }

    async fn restart(&self, params: OperationParams) -> Result<RestartResult, RpcError> {
        let rows = self
            .each("restart", params, |owner, id, reason| async move { Ok(owner.restart(id, reason).await?) })
            .await?;
        let mut result = RestartResult::default();
        for Row { name, result: row } in rows {
            match row {
                Ok(_) => result.restarted.push(name),
                Err(failed) => result.failed.push(failed),
            }
        }
        Ok(result)
    }

    async fn pause(&self, params: OperationParams) -> Result<PauseResult, RpcError> {
        let rows = self.each("pause", params, tree::pause).await?;
        let (paused, failed) = split(rows);
        Ok(PauseResult { paused, failed })
    }

    async fn resume(&self, params: OperationParams) -> Result<ResumeResult, RpcError> {
        let rows = self.each("resume", params, tree::resume).await?;
        let (resumed, failed) = split(rows);
        Ok(ResumeResult { resumed, failed })
    }

    async fn signal(&self, params: SignalParams) -> Result<SignalResult, RpcError> {
        let SignalParams { targets, signal, reason } = params;
        let signal = xy_actors::process::StopSignal::from(signal);
        let number = signal.number();
        let verb = format!("signal {}", words::signal(signal));
        let rows = self
            .each(
                &verb,
                OperationParams { reason, ..OperationParams::new(targets) },
                move |owner, id, _| async move { Ok(owner.signal(id, number).await?) },
            )
            .await?;
        let (signaled, failed) = split(rows);
        Ok(SignalResult { signaled, failed })
    }

    async fn reload(&self, params: ReloadParams) -> Result<ReloadResult, RpcError> {
        self.files(Reload::NAME)?;
        let control = self.clone();
        // In a task of its own it is not cut off in the middle when its client goes away.
        let reload = tokio::spawn(async move { Self::reload(&control, params.dry_run).await });
        match reload.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(RpcError::new(ErrorKind::ConfigInvalid, chain(&error))),
            Err(error) => {
                tracing::error!(reason = %error, "reload failed");
                Err(RpcError::new(ErrorKind::InternalError, "the reload failed inside the daemon"))
            }
        }
    }

    async fn enable(&self, params: OperationParams) -> Result<EnableResult, RpcError> {
        let (enabled, failed) = self.set_enabled("enable", params, true).await?;
        Ok(EnableResult { enabled, failed })
    }

    async fn disable(&self, params: OperationParams) -> Result<DisableResult, RpcError> {
        let (disabled, failed) = self.set_enabled("disable", params, false).await?;
        Ok(DisableResult { disabled, failed })
    }

    async fn add(&self, params: AddParams) -> Result<AddResult, RpcError> {
        self.add_server(params).await
    }

    async fn remove(&self, params: RemoveParams) -> Result<RemoveResult, RpcError> {
        self.remove_server(params.name).await
    }

    async fn usage(&self, _params: UsageParams) -> Result<UsageResult, RpcError> {
        let Some(host) = self.0.host.clone() else { return Ok(UsageResult::default()) };
        let _turn = self.0.long.acquire().await;
        // It reads many files.
        let usage = tokio::task::spawn_blocking(move || host.usage()).await.unwrap_or_default();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut servers: Vec<ServerUsage> = usage
            .into_iter()
            .map(|(name, pid, usage)| ServerUsage {
                name,
                pid,
                cpu_ms: millis(usage.cpu),
                memory_bytes: usage.memory_bytes,
                processes: usage.processes,
                age_ms: millis(usage.age),
            })
            .collect();
        servers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(UsageResult { servers })
    }

    async fn why(&self, params: WhyParams) -> Result<WhyResult, RpcError> {
        self.explain(params.name).await
    }

    async fn show(&self, params: ShowParams) -> Result<ShowResult, RpcError> {
        self.show_server(params.name).await
    }

    async fn tools(&self, params: CatalogParams) -> Result<ToolsResult, RpcError> {
        self.ask_mcp(Tools::NAME, &params.name, params.endpoint, McpQuestion::Tools, None).await
    }

    async fn prompts(&self, params: CatalogParams) -> Result<PromptsResult, RpcError> {
        self.ask_mcp(Prompts::NAME, &params.name, params.endpoint, McpQuestion::Prompts, None).await
    }

    async fn resources(&self, params: CatalogParams) -> Result<ResourcesResult, RpcError> {
        self.ask_mcp(Resources::NAME, &params.name, params.endpoint, McpQuestion::Resources, None).await
    }

    async fn prompt(&self, params: PromptParams) -> Result<AnswerResult, RpcError> {
        let PromptParams { name, prompt, arguments, endpoint } = params;
        let question = McpQuestion::Prompt { name: prompt, arguments };
        Ok(AnswerResult { result: self.ask_server(Prompt::NAME, &name, endpoint, question, None).await? })
    }

    async fn resource(&self, params: ResourceParams) -> Result<AnswerResult, RpcError> {
        let ResourceParams { name, uri, endpoint } = params;
        let question = McpQuestion::Resource { uri };
        Ok(AnswerResult { result: self.ask_server(Resource::NAME, &name, endpoint, question, None).await? })
    }

    async fn call(&self, params: CallParams) -> Result<AnswerResult, RpcError> {
        let CallParams { name, tool, arguments, timeout_secs, endpoint } = params;
        let question = McpQuestion::Call { name: tool, arguments };
        let result = self.ask_server(Call::NAME, &name, endpoint, question, timeout_secs).await?;
        Ok(AnswerResult { result })
    }

    async fn logs(&self, params: LogsParams) -> Result<Box<dyn Subscription>, RpcError> {
        let LogsParams { name, tail, follow, since_unix_ms, until_unix_ms, previous, grep, output_only } =
            params;
        let Some(log) = self.log_of(&name) else { return Err(self.no_log(&name).await) };
        if follow && (previous || until_unix_ms.is_some()) {
            let parameter = if previous { "previous" } else { "until_unix_ms" };
            return Err(RpcError::invalid_parameter(
                parameter,
                "is about the past and does not go with `follow`",
            ));
        }
        let pattern = match grep.as_deref().map(LinePattern::new).transpose() {
            Ok(pattern) => pattern,
            Err(error) => return Err(RpcError::invalid_parameter("grep", chain(&error))),
        };
        let is_selected = since_unix_ms.is_some() || until_unix_ms.is_some() || previous || pattern.is_some();
        let tail = tail.or((!is_selected).then_some(DEFAULT_TAIL));
        let time = |unix_ms: Option<u64>| unix_ms.map(|unix_ms| i64::try_from(unix_ms).unwrap_or(i64::MAX));
        let query = LogQuery {
            tail: tail.map(|tail| usize::try_from(tail).unwrap_or(usize::MAX)),
            since_unix_ms: time(since_unix_ms),
            until_unix_ms: time(until_unix_ms),
            previous,
            pattern,
            follow,
            output_only,
        };
        Ok(Box::new(LogSubscription::new(name, log.read(query).await)))
    }

    async fn events(&self, params: EventsParams) -> Result<Box<dyn Subscription>, RpcError> {
        let EventsParams { from, after, follow } = params;
        let (log, journal) = (self.0.root.event_log(), &self.0.journal);
        let from = match (from, after) {
            (None, None) => EventCursor::Now,
            // A number that comes yet is that of another event than was meant: the next one is as good.
            (Some(from), None) => EventCursor::Seq(match from {
                0 => self.0.first_event,
                from => from.min(log.latest() + 1),
            }),
            (None, Some(id)) => match journal.number_of(&id, log.latest()) {
                Some(seq) => EventCursor::Seq(seq + 1),
                None => {
                    return Err(RpcError::invalid_parameter("after", "is the id of no event that is known"));
                }
            },
            (Some(_), Some(_)) => {
                return Err(RpcError::invalid_parameter("after", "does not go with `from`"));
            }
        };
        Ok(Box::new(EventSubscription::new(log.clone(), journal.clone(), from, follow)))
    }

    async fn version(&self, _params: VersionParams) -> Result<VersionResult, RpcError> {
        Ok(VersionResult {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL_VERSION,
            program: self.0.embedding.as_ref().map(|embedding| embedding.program.clone()),
            pid: std::process::id(),
            started_at_unix_ms: self.0.started_at_unix_ms,
            diagnostics: self.diagnostics(),
        })
    }

    async fn shutdown(&self, params: ShutdownParams) -> Result<ShutdownResult, RpcError> {
        if let Some(Embedding { program, permits_shutdown: false, .. }) = &self.0.embedding {
            let message = format!("`{program}` does not let itself be ended from outside; end the program");
            return Err(RpcError::new(ErrorKind::Unsupported, message));
        }
        tracing::info!(reason = params.reason.as_deref().unwrap_or_default(), "shutdown was asked for");
        self.signal_daemon(DaemonSignal::Shutdown);
        Ok(ShutdownResult { stopping: true })
    }

    async fn diagnostics(&self, _: DiagnosticsParams) -> Result<DiagnosticsResult, RpcError> {
        let EventSettings { keep, age } = self.0.journal.settings();
        let (first, latest) = (self.0.first_event, self.0.root.event_log().latest());
        Ok(DiagnosticsResult {
            daemon: self.version(VersionParams::default()).await?,
            socket: rpc::socket_facts(),
            http: self.http().map(|http| http.facts()),
            events: Some(EventFacts { first, latest, keep, age_secs: age.as_secs() }),
            operations: self.0.operations.under_way(),
            connections: Some(self.0.clients.count()),
            last_activity_unix_ms: self.0.clients.last_activity_unix_ms(),
            recent_errors: telemetry::recent_errors(),
        })
    }

    fn operations(&self) -> Option<Arc<OperationTable>> {
        Some(Arc::clone(&self.0.operations))
    }

    fn output_health(&self, name: &str) -> Option<LogHealth> {
        self.0.logs.find(name).map(|log| log.health())
    }

    fn http(&self) -> Option<Arc<HttpPlane>> {
        self.0.http.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    fn registry(&self) -> Option<&Registry> {
        self.0.embedding.as_ref().map(|embedding| &embedding.registry)
    }

    fn gate(&self) -> Option<&Gate> {
        Some(&self.0.gate)
    }

    async fn affected(&self, targets: Targets) -> Vec<String> {
        // A name that means nothing is refused later, and is itself what the rules are asked about.
        let given = match &targets {
            Targets::Names(names) => names.clone(),
            Targets::All => Vec::new(),
        };
        let Ok(mut affected) = self.names(targets).await else { return given };
        if let Ok(rows) = self.list(ListParams {}).await {
            let is_in = |name: &str| {
                affected
                    .iter()
                    .any(|above| name.strip_prefix(above).is_some_and(|rest| rest.starts_with('/')))
            };
            let inside: Vec<String> =
                rows.servers.into_iter().map(|row| row.name).filter(|name| is_in(name)).collect();
            affected.extend(inside.into_iter().filter(|name| !affected.contains(name)).collect::<Vec<_>>());
        }
        affected
    }

    async fn upgrade(&self, _params: UpgradeParams) -> Result<UpgradeResult, RpcError> {
        let (reply, verdict) = oneshot::channel();
        let gone = || RpcError::new(ErrorKind::ShuttingDown, "the daemon is ending");
        self.0.asks.send(Asked::Upgrade(reply)).await.map_err(|_| gone())?;
        match verdict.await.map_err(|_| gone())? {
            Ok(to) => Ok(UpgradeResult { from: env!("CARGO_PKG_VERSION").to_owned(), to }),
            Err(error) => {
                let kind = match error {
                    UpgradeError::NoProgram => ErrorKind::Unsupported,
                    UpgradeError::Reloading | UpgradeError::Ending => ErrorKind::Superseded,
                    _ => ErrorKind::UpgradeRefused,
                };
                Err(RpcError::new(kind, chain(&error)))
            }
        }
    }
}

fn split<T>(rows: Vec<Row<T>>) -> (Vec<String>, Vec<Failed>) {
    let mut done = Vec::new();
    let mut failed = Vec::new();
    for Row { name, result } in rows {
        match result {
            Ok(_) => done.push(name),
            Err(row) => failed.push(row),
        }
    }
    (done, failed)
}

pub(crate) fn killed(name: &str, processes: &[xy_actors::exit::ProcessRef]) -> Killed {
    let processes =
        processes.iter().map(|p| KilledProcess { pid: p.pid, command: p.command.clone() }).collect();
    Killed { name: name.to_owned(), processes }
}

/// Returns an error's text with those of its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Says what a reload does with one server.
fn reloaded(name: impl Into<String>, reason: impl Into<String>) -> Reloaded {
    Reloaded { name: name.into(), reason: reason.into() }
}
