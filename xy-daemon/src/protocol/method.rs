//! One type per method of the control protocol, with its parameters, its result and its notifications.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use xy_actors::exit::Exit;
pub use xy_actors::policy::{State, Wanted};

use super::Method;
use super::error::ErrorKind;

mod catalog;
mod daemon;

pub use self::catalog::{
    AnswerResult, CallParams, CatalogParams, PromptParams, PromptsResult, ResourceParams, ResourcesResult,
    ToolsResult,
};

pub use self::daemon::{
    ClientToken, DiagnosticsParams, DiagnosticsResult, EventFacts, HttpFacts, HttpLimits, Operation,
    OperationStatusParams, OperationsParams, OperationsResult, Progress, RecentError, RotateTokenParams,
    RotateTokenResult, SocketFacts, TokenAddParams, TokenAddResult, TokenRemoveParams, TokenRemoveResult,
    TokenSource, TokensParams, TokensResult,
};

macro_rules! methods {
    ($($(#[doc = $doc:literal])+ $method:ident = $name:literal: $params:ty => $result:ty;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug)]
            pub enum $method {}

            impl Method for $method {
                const NAME: &'static str = $name;
                type Params = $params;
                type Result = $result;
            }
        )+

        /// The name of every method, in the order of this file.
        pub const METHODS: &[&str] = &[$($name),+];

        /// Describes every method, in the order of this file, with results that refer to these definitions, or that are
        /// complete in themselves.
        #[cfg(feature = "schema")]
        pub fn descriptions(
            mut results: Option<&mut super::schema::Definitions>,
        ) -> Vec<super::schema::MethodSchema> {
            vec![$(super::schema::MethodSchema::of::<$method>(concat!($($doc),+), results.as_deref_mut())),+]
        }
    };
}

methods! {
    /// Lists all servers.
    List = "list": ListParams => ListResult;
    /// Says everything about one server.
    Status = "status": StatusParams => StatusResult;
    /// Starts servers; one that runs already is not an error.
    Start = "start": OperationParams => StartResult;
    /// Stops servers; one that does not run is not an error.
    Stop = "stop": OperationParams => StopResult;
    /// Restarts servers; one that does not run is started.
    Restart = "restart": OperationParams => RestartResult;
    /// Keeps servers from being restarted automatically, without touching them.
    Pause = "pause": OperationParams => PauseResult;
    /// Lifts a pause.
    Resume = "resume": OperationParams => ResumeResult;
    /// Remembers that servers are started with the daemon, whatever their files say.
    Enable = "enable": OperationParams => EnableResult;
    /// Remembers that servers are not started with the daemon; what runs goes on.
    Disable = "disable": OperationParams => DisableResult;
    /// Sends a signal to the process groups of servers.
    Signal = "signal": SignalParams => SignalResult;
    /// Reads the configuration again and applies what changed.
    Reload = "reload": ReloadParams => ReloadResult;
    /// Adds a server: by a file of its own, or for the daemon's life.
    Add = "add": AddParams => AddResult;
    /// Stops a server and forgets it, with the file that describes it alone.
    Remove = "remove": RemoveParams => RemoveResult;
    /// Says what the process trees of the servers use.
    Usage = "usage": UsageParams => UsageResult;
    /// Says why a server is as it is: its last ends with their causes, also those under an earlier daemon.
    Why = "why": WhyParams => WhyResult;
    /// Says what a server is run with, and where each of its variables comes from.
    Show = "show": ShowParams => ShowResult;
    /// Lists the tools of an MCP server.
    Tools = "tools": CatalogParams => ToolsResult;
    /// Lists the prompts of an MCP server.
    Prompts = "prompts": CatalogParams => PromptsResult;
    /// Fills in a prompt of an MCP server.
    Prompt = "prompt": PromptParams => AnswerResult;
    /// Lists the resources of an MCP server.
    Resources = "resources": CatalogParams => ResourcesResult;
    /// Reads a resource of an MCP server.
    Resource = "resource": ResourceParams => AnswerResult;
    /// Calls a tool of an MCP server; a tool that fails is a result that says so.
    Call = "call": CallParams => AnswerResult;
    /// Subscribes to a server's output.
    Logs = "logs": LogsParams => SubscribeResult;
    /// Ends a subscription to output.
    LogsCancel = "logs_cancel": CancelParams => CancelResult;
    /// Subscribes to events.
    Events = "events": EventsParams => SubscribeResult;
    /// Ends a subscription to events.
    EventsCancel = "events_cancel": CancelParams => CancelResult;
    /// Says what can be asked: every method, and with their schemas those that the program has registered.
    Capabilities = "capabilities": CapabilitiesParams => CapabilitiesResult;
    /// Says which daemon answers, and refuses a client that speaks another protocol.
    Version = "version": VersionParams => VersionResult;
    /// Says what the daemon stands on, and what it is doing, without secrets.
    DaemonDiagnostics = "diagnostics": DiagnosticsParams => DiagnosticsResult;
    /// Lists what was asked for lately and changes something, the latest first, without results.
    Operations = "operations": OperationsParams => OperationsResult;
    /// Shows one of them, with its result once it is done.
    OperationStatus = "operation": OperationStatusParams => Operation;
    /// Makes a new token for HTTP: that of the daemon, or that of a client. The old one is accepted for a while more.
    RotateToken = "rotate_token": RotateTokenParams => RotateTokenResult;
    /// Lists the clients that have a token of their own.
    Tokens = "tokens": TokensParams => TokensResult;
    /// Makes a token for a client, which is told this once.
    TokenAdd = "token_add": TokenAddParams => TokenAddResult;
    /// Takes a client's token back; its streams end.
    TokenRemove = "token_remove": TokenRemoveParams => TokenRemoveResult;
    /// Stops every server and ends the daemon.
    Shutdown = "shutdown": ShutdownParams => ShutdownResult;
    /// Lets the program on disk take over the daemon's process, while the servers run on.
    Upgrade = "upgrade": UpgradeParams => UpgradeResult;
    /// Says who asks on this connection, once; permissions and audit go by it.
    Identify = "identify": IdentifyParams => IdentifyResult;
    /// Lists the requests that wait for an operator's answer.
    Approvals = "approvals": ApprovalsParams => ApprovalsResult;
    /// Lets a request that waits be carried out.
    Approve = "approve": ApproveParams => ApproveResult;
    /// Refuses a request that waits.
    Deny = "deny": DenyParams => DenyResult;
    /// Lists what operators have allowed for longer than once.
    Grants = "grants": GrantsParams => GrantsResult;
    /// Forgets such a grant, so that the next request asks again.
    Forget = "forget": ForgetParams => ForgetResult;
}

/// The parameters of [`List`]: none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ListParams {}

/// The result of [`List`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListResult {
    /// Every server, by name.
    pub servers: Vec<ServerSummary>,
}

/// One server in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServerSummary {
    /// Its name; a child of a group is `group/child`. The rows of a group's children follow its own.
    pub name: String,
    /// Whether it is a group of servers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub group: bool,
    /// What it is doing.
    pub state: State,
    /// Whether the current incarnation can serve.
    pub ready: bool,
    /// Whether it can and yet is not healthy, because it has not passed its liveness check so far.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unproven: bool,
    /// What the operator asked for.
    pub wanted: Wanted,
    /// Whether automatic restarts are held back.
    pub paused: bool,
    /// The current process, if there is one.
    pub pid: Option<u32>,
    /// The declared port, if any.
    pub port: Option<u16>,
    /// Seconds since the current incarnation was ready.
    pub uptime_secs: Option<u64>,
    /// Automatic restarts since the operator's last start.
    pub restart_count: u64,
    /// How the last incarnation ended, if one has.
    pub last_exit: Option<LastExit>,
    /// What happens next by itself and when, in words, for instance "restart 3 of 5 in 1.6 s".
    pub next: Option<String>,
    /// Its tags, by which `@tag` means it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// How an incarnation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LastExit {
    /// What policy decided by.
    pub exit: Exit,
    /// The cause in words.
    pub cause: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Which incarnation.
    pub incarnation: u64,
}

/// The parameters of [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StatusParams {
    /// The server.
    #[serde(deserialize_with = "name")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: String,
}

impl StatusParams {
    /// Asks about one server.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

/// The result of [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StatusResult {
    /// What [`List`] says about it.
    #[serde(flatten)]
    pub summary: ServerSummary,
    /// The number of the current incarnation, or of the last one; 0 before the first.
    pub incarnation: u64,
    /// Its latest changes of state, oldest first.
    pub transitions: Vec<Transition>,
    /// The children of a group, in start order.
    pub children: Vec<ServerSummary>,
    /// Where its output is written.
    pub log_path: Option<String>,
    /// The last lines of its standard error, oldest first.
    pub stderr_tail: Vec<String>,
    /// Why the server's file was rejected, while the last valid configuration stays in force.
    pub config_error: Option<String>,
}

/// One change of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Why.
    pub reason: String,
}

/// Which servers an operation is about. On the wire `names: [..]` or `all: true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// The servers of these names, at least one.
    Names(Vec<String>),
    /// Every server.
    All,
}

/// The parameters of [`Start`], [`Stop`], [`Restart`], [`Pause`] and [`Resume`].
///
/// ```
/// use xy_daemon::protocol::method::{OperationParams, Targets};
///
/// let params: OperationParams = serde_json::from_str(r#"{"names": ["files"], "reason": "new version"}"#)?;
/// assert_eq!(params.targets, Targets::Names(vec!["files".into()]));
/// assert!(params.wait);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "OperationMembers", into = "OperationMembers")]
pub struct OperationParams {
    /// The servers.
    pub targets: Targets,
    /// Whether to answer only when the result is real (ready, or gone). True if not given.
    pub wait: bool,
    /// The longest wait in seconds; what is not done by then is a failed row of kind `timeout` and goes on.
    pub timeout_secs: Option<u64>,
    /// Why, for the server's history.
    pub reason: Option<String>,
}

impl OperationParams {
    /// Asks for an operation on these servers, waiting for the result.
    pub fn new(targets: Targets) -> Self {
        Self { targets, wait: true, timeout_secs: None, reason: None }
    }

    /// Asks for an operation on one server, waiting for the result.
    pub fn named(name: impl Into<String>) -> Self {
        Self::new(Targets::Names(vec![name.into()]))
    }
}

/// The members of [`OperationParams`] as they travel.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct OperationMembers {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "names")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    names: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    all: bool,
    #[serde(default = "yes")]
    wait: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_secs: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl TryFrom<OperationMembers> for OperationParams {
    type Error = TargetsError;

    fn try_from(members: OperationMembers) -> Result<Self, TargetsError> {
        let OperationMembers { names, all, wait, timeout_secs, reason } = members;
        Ok(Self { targets: Targets::from_members(names, all)?, wait, timeout_secs, reason })
    }
}

impl From<OperationParams> for OperationMembers {
    fn from(params: OperationParams) -> Self {
        let OperationParams { targets, wait, timeout_secs, reason } = params;
        let (names, all) = targets.into_members();
        Self { names, all, wait, timeout_secs, reason }
    }
}

/// Why `names` and `all` do not say which servers are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetsError {
    /// Neither or both are given.
    #[error("exactly one of `names` and `all: true` is needed")]
    NotOne,
    /// The list is empty.
    #[error("`names` must not be empty")]
    Empty,
}

impl Targets {
    fn from_members(names: Option<Vec<String>>, all: bool) -> Result<Self, TargetsError> {
        match (names, all) {
            (None, true) => Ok(Self::All),
            (Some(names), false) if names.is_empty() => Err(TargetsError::Empty),
            (Some(names), false) => Ok(Self::Names(names)),
            (None, false) | (Some(_), true) => Err(TargetsError::NotOne),
        }
    }

    fn into_members(self) -> (Option<Vec<String>>, bool) {
        match self {
            Self::Names(names) => (Some(names), false),
            Self::All => (None, true),
        }
    }
}

/// One server for which an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Failed {
    /// The server.
    pub name: String,
    /// The stable name of what went wrong.
    pub kind: ErrorKind,
    /// The text for people.
    pub message: String,
}

/// The result of [`Start`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StartResult {
    /// Those that were started, and with `wait` are ready.
    pub started: Vec<String>,
    /// Those that needed nothing.
    pub already_running: Vec<String>,
    /// Those that were not started.
    pub failed: Vec<Failed>,
}

/// The result of [`Stop`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StopResult {
    /// Those that were stopped, and with `wait` are gone with all their processes.
    pub stopped: Vec<String>,
    /// Those that needed nothing.
    pub not_running: Vec<String>,
    /// Those of the stopped that did not end in their grace period, with the processes that had to be killed.
    pub killed: Vec<Killed>,
    /// Those that were not stopped.
    pub failed: Vec<Failed>,
}

/// One server of which something had to be killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Killed {
    /// The server.
    pub name: String,
    /// The processes.
    pub processes: Vec<KilledProcess>,
}

/// One process that had to be killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KilledProcess {
    /// Its process id.
    pub pid: u32,
    /// Its command line, as far as it could be read.
    pub command: String,
}

/// The result of [`Restart`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RestartResult {
    /// Those that were restarted, and with `wait` are ready.
    pub restarted: Vec<String>,
    /// Those that were not.
    pub failed: Vec<Failed>,
}

/// The result of [`Pause`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PauseResult {
    /// Those that are paused now.
    pub paused: Vec<String>,
    /// Those that are not.
    pub failed: Vec<Failed>,
}

/// The result of [`Resume`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ResumeResult {
    /// Those that are not paused any more.
    pub resumed: Vec<String>,
    /// Those that still are.
    pub failed: Vec<Failed>,
}

/// A signal that [`Signal`] sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum SignalName {
    /// SIGHUP.
    Hup,
    /// SIGINT.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Term,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
}

#[cfg(feature = "server")]
impl From<SignalName> for xy_actors::process::StopSignal {
    fn from(signal: SignalName) -> Self {
        match signal {
            SignalName::Hup => Self::Hup,
            SignalName::Int => Self::Int,
            SignalName::Quit => Self::Quit,
            SignalName::Kill => Self::Kill,
            SignalName::Term => Self::Term,
            SignalName::Usr1 => Self::Usr1,
            SignalName::Usr2 => Self::Usr2,
        }
    }
}

/// The parameters of [`Signal`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "SignalMembers", into = "SignalMembers")]
pub struct SignalParams {
    /// The servers.
    pub targets: Targets,
    /// The signal, without `SIG` on the wire.
    pub signal: SignalName,
    /// Why, for the server's history.
    pub reason: Option<String>,
}

/// The members of [`SignalParams`] as they travel.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct SignalMembers {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "names")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    names: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    all: bool,
    signal: SignalName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl TryFrom<SignalMembers> for SignalParams {
    type Error = TargetsError;

    fn try_from(members: SignalMembers) -> Result<Self, TargetsError> {
        let SignalMembers { names, all, signal, reason } = members;
        Ok(Self { targets: Targets::from_members(names, all)?, signal, reason })
    }
}

impl From<SignalParams> for SignalMembers {
    fn from(params: SignalParams) -> Self {
        let SignalParams { targets, signal, reason } = params;
        let (names, all) = targets.into_members();
        Self { names, all, signal, reason }
    }
}

/// The result of [`Signal`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SignalResult {
    /// Those that got the signal.
    pub signaled: Vec<String>,
    /// Those that did not.
    pub failed: Vec<Failed>,
}

/// The parameters of [`Reload`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReloadParams {
    /// Whether to answer what would change, and change nothing; the scope `read` is enough for that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// The result of [`Reload`]: each server is in exactly one list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReloadResult {
    /// New servers.
    pub added: Vec<Reloaded>,
    /// Servers whose configuration is another one now.
    pub changed: Vec<Reloaded>,
    /// Servers whose file is gone.
    pub removed: Vec<Reloaded>,
    /// Servers that nothing happened to.
    pub unchanged: Vec<Reloaded>,
    /// Servers whose file is invalid; what runs under that name was left alone.
    pub rejected: Vec<Reloaded>,
}

/// What a reload did with one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reloaded {
    /// The server.
    pub name: String,
    /// Why, and what was done.
    pub reason: String,
}

/// The result of [`Enable`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EnableResult {
    /// Those that the next daemon starts.
    pub enabled: Vec<String>,
    /// Those that there are none of.
    pub failed: Vec<Failed>,
}

/// The result of [`Disable`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DisableResult {
    /// Those that the next daemon does not start.
    pub disabled: Vec<String>,
    /// Those that there are none of.
    pub failed: Vec<Failed>,
}

/// The parameters of [`Add`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AddParams {
    /// The new server.
    #[serde(deserialize_with = "name")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: String,
    /// The program.
    pub command: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Variables laid over the environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The directory it runs in; the daemon's default if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The TCP port it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Whether it is never restarted automatically.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
    /// Whether no file is written, so that it is forgotten with the daemon.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub temporary: bool,
    /// Whether it is only added, and not started. One of a file is then not started with the daemon either.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
}

/// The result of [`Add`]. It is being started, unless it was to stay down; [`Start`] waits until it is ready.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AddResult {
    /// The servers, more than one if the name has instances.
    pub added: Vec<String>,
    /// The file, if one was written.
    pub file: Option<String>,
}

/// The parameters of [`Remove`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RemoveParams {
    /// The server, or the name of its file.
    #[serde(deserialize_with = "name")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: String,
}

/// The result of [`Remove`], answered when all processes are gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RemoveResult {
    /// The servers, more than one if the name has instances.
    pub removed: Vec<String>,
    /// The file that was deleted, if there was one.
    pub file: Option<String>,
}

/// The parameters of [`Usage`]: none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UsageParams {}

/// The result of [`Usage`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UsageResult {
    /// The servers that run, by name.
    pub servers: Vec<ServerUsage>,
}

/// What the process tree of one server uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServerUsage {
    /// The server.
    pub name: String,
    /// The process id of its main process, which tells one start from the next.
    pub pid: u32,
    /// Processor time in milliseconds since `age_ms` ago, by all processes.
    pub cpu_ms: u64,
    /// Resident memory in bytes; what several processes share counts for each.
    pub memory_bytes: u64,
    /// How many processes it has.
    pub processes: u32,
    /// How long ago its main process started, in milliseconds.
    pub age_ms: u64,
}

/// The parameters of [`Why`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WhyParams {
    /// The server.
    #[serde(deserialize_with = "name")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: String,
}

/// The result of [`Why`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WhyResult {
    /// What [`List`] says about it.
    pub server: ServerSummary,
    /// Its last ends, the latest first.
    pub exits: Vec<PastExit>,
    /// What was asked of it, the latest first.
    pub asked: Vec<Asked>,
    /// What probably helps, the most likely first.
    pub advice: Vec<String>,
    /// Why the server's file was rejected, while the last valid configuration stays in force.
    pub config_error: Option<String>,
}

/// One end of a server, or a start that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PastExit {
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// When the incarnation started, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_unix_ms: Option<u64>,
    /// The number of the incarnation; it begins again with each daemon.
    pub incarnation: u64,
    /// The event: `child_exited`, `child_start_failed`, `child_stopped` or `child_leaked`.
    pub event: String,
    /// What policy decided by.
    pub exit: Exit,
    /// The cause in words.
    pub cause: String,
    /// What followed, in words; `None` after a stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The processes of its tree that had to be killed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub killed: Vec<KilledProcess>,
    /// The last lines it wrote, as far as the log still has them, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

/// Something that an operator asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Asked {
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// The operation, for instance `stop` or `signal HUP`.
    pub operation: String,
    /// Why, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The parameters of [`Show`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ShowParams {
    /// The server.
    #[serde(deserialize_with = "name")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: String,
}

/// The result of [`Show`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShowResult {
    /// The server.
    pub name: String,
    /// Its file; `None` for one that was added for the daemon's life.
    pub file: Option<String>,
    /// What is in force, by the keys of server files, defaults included.
    pub settings: Vec<Setting>,
    /// The variables that its next start gets, by name.
    pub environment: Vec<Variable>,
}

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Setting {
    /// The key path, for instance `restart.policy`.
    pub key: String,
    /// The value as people write it.
    pub value: String,
}

/// One variable of a server's environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value; `None` if it is, or looks like, a secret, or is made at each start.
    pub value: Option<String>,
    /// Where it comes from, in words: `xyd`, `server file`, the path of an environment file, `xy`.
    pub source: String,
}

/// The parameters of [`Logs`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LogsParams {
    /// The server.
    #[serde(deserialize_with = "name")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: String,
    /// How many of the latest lines come first; the daemon's default if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u64>,
    /// Whether new lines follow until the subscription is canceled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
    /// Only lines of the past that are not older than this, in milliseconds since the Unix epoch. With this or one of the
    /// next three, `tail` has no default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_unix_ms: Option<u64>,
    /// Only lines of the past that are older than this, in milliseconds since the Unix epoch. Not with `follow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_unix_ms: Option<u64>,
    /// Only lines of the incarnation before the latest one. Not with `follow`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub previous: bool,
    /// Only lines that this regular expression matches, in the syntax of the `regex` crate, on bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grep: Option<String>,
    /// Only what the server wrote: starts, exits and other remarks of stream `xy` are left out, and do not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_only: bool,
}

impl LogsParams {
    /// Asks for the latest lines of one server.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            tail: None,
            follow: false,
            since_unix_ms: None,
            until_unix_ms: None,
            previous: false,
            grep: None,
            output_only: false,
        }
    }
}

/// The parameters of [`Events`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EventsParams {
    /// The number of the first event wanted, 0 for the first one of this daemon; only new ones if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// The id of the last event that was seen, instead of a number. One that is not known, or no more, is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Whether new events follow until the subscription is canceled; else it ends after those that are there. True if
    /// not given.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub follow: bool,
}

impl Default for EventsParams {
    /// Asks for new events only.
    fn default() -> Self {
        Self { from: None, after: None, follow: true }
    }
}

impl EventsParams {
    /// Asks for the events from this number on, and for new ones.
    pub fn following(from: u64) -> Self {
        Self { from: Some(from), ..Self::default() }
    }

    /// Asks for the events from this number on that are there, and for no new ones.
    pub fn held(from: u64) -> Self {
        Self { from: Some(from), after: None, follow: false }
    }
}

/// Names a subscription of one connection; other connections do not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct SubscriptionId(pub u64);

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The result of [`Logs`] and [`Events`]; it is written before the first notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SubscribeResult {
    /// Which notifications belong to it.
    pub subscription_id: SubscriptionId,
}

/// The parameters of [`LogsCancel`] and [`EventsCancel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CancelParams {
    /// The subscription to end.
    pub subscription_id: SubscriptionId,
}

/// The result of [`LogsCancel`] and [`EventsCancel`]; no notification of the subscription follows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CancelResult {}

/// The parameters of [`Capabilities`]: none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CapabilitiesParams {}

/// The result of [`Capabilities`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CapabilitiesResult {
    /// The daemon's version.
    pub version: String,
    /// [`PROTOCOL_VERSION`](super::PROTOCOL_VERSION) of the daemon.
    pub protocol: u32,
    /// [`OLDEST_PROTOCOL`](super::OLDEST_PROTOCOL) of the daemon.
    pub oldest_protocol: u32,
    /// The names of the methods that every daemon of this version has.
    pub methods: Vec<String>,
    /// What the program has registered beside them, by name.
    pub registered: Vec<RegisteredMethod>,
}

/// A method that a program has registered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RegisteredMethod {
    /// Its name, which has a dot.
    pub name: String,
    /// What kind it is.
    pub kind: MethodKind,
    /// What it does, in a sentence.
    pub description: String,
    /// The JSON Schema of its parameters.
    pub params: Value,
    /// The JSON Schema of its result.
    pub result: Value,
}

/// What kind of method a program has registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MethodKind {
    /// It takes parameters and answers a result.
    Method,
    /// It takes parameters, answers a result, and changes nothing.
    Query,
    /// It takes none, changes nothing, and answers `{"items": [..]}`.
    Catalog,
    /// A kind that this version does not know. Never sent.
    #[serde(other)]
    Unknown,
}

/// The parameters of [`Version`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VersionParams {
    /// The version of the protocol that the client speaks; with one that the daemon does not, the call is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u32>,
}

/// The result of [`Version`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VersionResult {
    /// The daemon's version.
    pub version: String,
    /// [`PROTOCOL_VERSION`](super::PROTOCOL_VERSION) of the daemon.
    pub protocol: u32,
    /// The program that has put the tree together itself, if one has; else it is `xyd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// The daemon's process id.
    pub pid: u32,
    /// When it started, in milliseconds since the Unix epoch.
    pub started_at_unix_ms: u64,
    /// What it stands on; `None` if it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<Diagnostics>,
}

/// What a daemon stands on: for finding out why a machine behaves unlike another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Diagnostics {
    /// By which means all processes of a server are known: `cgroup`, `subreaper` or `walk`.
    pub ownership: String,
    /// The directory of the servers' control groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The process id of the guard, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard_pid: Option<u32>,
    /// The directory of lock, ledger and logs; empty for a program with a tree of its own.
    pub state_dir: String,
    /// The directory of the configuration; empty for a program with a tree of its own.
    pub config_dir: String,
    /// How many files the daemon may have open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files_limit: Option<u64>,
    /// Processes that belong to no server and came to the daemon as orphans, as `pid (command)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strangers: Vec<String>,
    /// Whether a program that was to take over did not come up, so that this one went on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub handed_back: bool,
}

/// The parameters of [`Shutdown`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ShutdownParams {
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The result of [`Shutdown`], answered at once; the connection is closed when everything has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShutdownResult {
    /// Always true.
    pub stopping: bool,
}

/// The parameters of [`Upgrade`]: none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpgradeParams {}

/// The result of [`Upgrade`], answered when the new program has said that it can take over. It does so then: all connections
/// are closed, and a client that connects again is answered by it, or, if it does not come up after all, by the old one,
/// whose diagnostics say so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UpgradeResult {
    /// The version of the program that answers.
    pub from: String,
    /// The version of the program that takes over.
    pub to: String,
}

/// The parameters of [`Identify`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct IdentifyParams {
    /// What the client calls itself; else it is the name of its program.
    pub client: String,
    /// Whether its requests are tools that an assistant calls.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub agent: bool,
}

/// The result of [`Identify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IdentifyResult {
    /// The name in force, cut and without the characters that mean something in patterns.
    pub client: String,
    /// The name of the session, as in the audit log.
    pub session: String,
}

/// The parameters of [`Approvals`]: none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ApprovalsParams {}

/// The result of [`Approvals`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApprovalsResult {
    /// What waits, the oldest first.
    pub approvals: Vec<Approval>,
}

/// A request that waits for an operator's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Approval {
    /// By which it is answered.
    pub id: String,
    /// What the client calls itself.
    pub client: String,
    /// By which way it came: `socket`, `http` or `mcp`.
    pub surface: String,
    /// Which of the client's sessions.
    pub session: String,
    /// The method.
    pub action: String,
    /// The tool of MCP, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The servers that nobody has allowed it for; none if it is about no server.
    pub targets: Vec<String>,
    /// Why, if the client said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was asked for, in milliseconds since the Unix epoch.
    pub asked_at_unix_ms: u64,
    /// When it is refused if nobody answers, in milliseconds since the Unix epoch.
    pub expires_at_unix_ms: u64,
}

/// For how long an approval counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum GrantScope {
    /// For this request.
    #[default]
    Once,
    /// For the same request of the same session.
    Session,
    /// For the same request of the same client, until it is forgotten.
    Always,
}

/// The parameters of [`Approve`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ApproveParams {
    /// The request.
    pub id: String,
    /// For how long; once if not given.
    #[serde(default)]
    pub remember: GrantScope,
}

/// The result of [`Approve`]; the request is carried out from then on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApproveResult {
    /// The request.
    pub id: String,
    /// The new grants, one for each server, unless it counts only once.
    pub grants: Vec<String>,
}

/// The parameters of [`Deny`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DenyParams {
    /// The request.
    pub id: String,
    /// Why, for the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The result of [`Deny`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DenyResult {
    /// The request.
    pub id: String,
}

/// The parameters of [`Grants`]: none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GrantsParams {}

/// The result of [`Grants`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GrantsResult {
    /// What counts, the oldest first.
    pub grants: Vec<Grant>,
}

/// What an operator has allowed for longer than once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Grant {
    /// By which it is forgotten.
    pub id: String,
    /// For how long it counts.
    pub scope: GrantScope,
    /// The user whose daemon it is.
    pub owner: String,
    /// To whom, by what it calls itself.
    pub client: String,
    /// To which of its sessions, if only to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The tool of MCP, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The method.
    pub action: String,
    /// The server; `None` if it is about no server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// When, in milliseconds since the Unix epoch.
    pub created_at_unix_ms: u64,
}

/// The parameters of [`Forget`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ForgetParams {
    /// The grant.
    pub id: String,
}

/// The result of [`Forget`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ForgetResult {
    /// What counted until now.
    pub forgotten: Grant,
}

/// What a subscription tells its subscriber.
#[derive(Debug, Clone, PartialEq)]
pub enum Notification {
    /// A line of output.
    Log(LogLine),
    /// Lines of output that this subscription missed.
    LogGap(Gap),
    /// No more output comes; the subscription has ended.
    LogEnd,
    /// An event.
    Event(Event),
    /// Events that this subscription missed.
    EventGap(Gap),
    /// No more events come; the subscription has ended.
    EventEnd,
}

impl Notification {
    /// The method name of [`Notification::Log`].
    pub const LOG: &'static str = "log";
    /// The method name of [`Notification::LogGap`].
    pub const LOG_GAP: &'static str = "log_gap";
    /// The method name of [`Notification::LogEnd`].
    pub const LOG_END: &'static str = "log_end";
    /// The method name of [`Notification::Event`].
    pub const EVENT: &'static str = "event";
    /// The method name of [`Notification::EventGap`].
    pub const EVENT_GAP: &'static str = "event_gap";
    /// The method name of [`Notification::EventEnd`].
    pub const EVENT_END: &'static str = "event_end";

    /// Returns the method name on the wire.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Log(_) => Self::LOG,
            Self::LogGap(_) => Self::LOG_GAP,
            Self::LogEnd => Self::LOG_END,
            Self::Event(_) => Self::EVENT,
            Self::EventGap(_) => Self::EVENT_GAP,
            Self::EventEnd => Self::EVENT_END,
        }
    }
}

/// The parameters of a notification: the subscription's id beside the members of `body`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Subscribed<T> {
    /// The subscription it belongs to.
    pub subscription_id: SubscriptionId,
    /// What it says.
    #[serde(flatten)]
    pub body: T,
}

/// Which output a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// Neither: a remark of the daemon between the lines.
    Xy,
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogLine {
    /// The server.
    pub name: String,
    /// Which output.
    pub stream: LogStream,
    /// The line without its line feed; where it is not UTF-8, replacement characters stand in.
    pub line: String,
    /// The exact bytes in base64 (RFC 4648, padded), only where `line` is not exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_base64: Option<String>,
    /// When it was read, in milliseconds since the Unix epoch.
    pub ts_unix_ms: u64,
    /// Its number among the lines that the daemon has read from the server, without holes; 0 for each of those that
    /// were read back from files, which come before all others.
    pub number: u64,
    /// Whether the line goes on in the next one, because it is longer than a line may be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// A range of numbers that a subscription missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Gap {
    /// The first number missed.
    pub first: u64,
    /// The last number missed.
    pub last: u64,
}

/// One event of the tree: the same over the socket, over HTTP, and in the daemon's own file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    /// The version of this form: [`Event::VERSION`]; 0 from a daemon that did not say.
    #[serde(default)]
    pub version: u32,
    /// Names it among all events there ever were of this daemon's state directory, to go on after it.
    #[serde(default)]
    pub id: String,
    /// Its number, without holes, which go on when the daemon is started again.
    pub seq: u64,
    /// When it happened, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// The child or supervisor it is about.
    pub path: String,
    /// The child's incarnation, if it is about one.
    pub incarnation: Option<u64>,
    /// What happened, for instance `exited`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The facts, by type.
    pub payload: Map<String, Value>,
}

impl Event {
    /// The version that this daemon writes.
    pub const VERSION: u32 = 1;
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// Reads a name, which must not hold the character that ends strings elsewhere.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if name.contains('\0') {
        return Err(D::Error::custom("a name must not contain NUL"));
    }
    Ok(name)
}

fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    if names.iter().any(|name| name.contains('\0')) {
        return Err(D::Error::custom("a name must not contain NUL"));
    }
    Ok(Some(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_needs_exactly_one_of_names_and_all() {
        for refused in [r#"{}"#, r#"{"all": false}"#, r#"{"names": []}"#, r#"{"names": ["a"], "all": true}"#]
        {
            assert!(serde_json::from_str::<OperationParams>(refused).is_err(), "{refused}");
        }
        let all: OperationParams = serde_json::from_str(r#"{"all": true}"#).unwrap();
        assert_eq!(all.targets, Targets::All);
    }

    #[test]
    fn a_name_with_nul_is_refused() {
        assert!(serde_json::from_str::<StatusParams>(r#"{"name": "a\u0000b"}"#).is_err());
        assert!(serde_json::from_str::<OperationParams>(r#"{"names": ["a\u0000b"]}"#).is_err());
    }

    #[test]
    fn method_names_are_unique() {
        let unique: std::collections::BTreeSet<_> = METHODS.iter().collect();
        assert_eq!(unique.len(), METHODS.len());
    }
}
