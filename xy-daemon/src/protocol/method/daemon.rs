//! What the daemon says of itself and of what was asked of it, and who has a token for HTTP.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::VersionResult;
use crate::protocol::error::RpcError;
use crate::protocol::scope::Scope;

/// The parameters of [`DaemonDiagnostics`](super::DaemonDiagnostics): none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DiagnosticsParams {}

/// The result of [`DaemonDiagnostics`](super::DaemonDiagnostics).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DiagnosticsResult {
    /// What `version` says.
    pub daemon: VersionResult,
    /// What is known of the local socket.
    pub socket: SocketFacts,
    /// What is known of HTTP, if it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpFacts>,
    /// What is known of events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<EventFacts>,
    /// How many operations are under way.
    pub operations: usize,
    /// How many clients are connected, over the socket and over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<usize>,
    /// When a client last asked for anything but `version`, `identify` and `diagnostics`, in milliseconds since the Unix
    /// epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_activity_unix_ms: Option<u64>,
    /// The latest warnings and errors in the daemon's own log, oldest first.
    #[serde(default)]
    pub recent_errors: Vec<RecentError>,
}

/// What is known of the local socket: the limits in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SocketFacts {
    /// The most connections.
    pub connections: usize,
    /// The most requests in flight on each.
    pub in_flight: usize,
    /// The most subscriptions of each.
    pub subscriptions: usize,
    /// The most bytes of a line.
    pub line_bytes: usize,
    /// How long a client may read nothing of what is written to it.
    pub write_stall_secs: u64,
}

/// What is known of HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HttpFacts {
    /// Where it is answered.
    pub base_url: String,
    /// Where the token comes from.
    pub token_source: TokenSource,
    /// The file that it is kept in.
    pub token_file: String,
    /// How many clients have a token of their own.
    pub clients: usize,
    /// Requests without a right token.
    pub refused_tokens: u64,
    /// Open connections.
    pub connections: usize,
    /// The limits in force.
    pub limits: HttpLimits,
}

/// Where the token in force comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TokenSource {
    /// From the file that the operator has named.
    File,
    /// From the environment variable `XY_TOKEN`.
    Environment,
    /// The daemon has made it.
    Generated,
}

/// The limits of HTTP in force.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HttpLimits {
    /// The most connections.
    pub connections: usize,
    /// The most bytes of a body.
    pub body_bytes: usize,
    /// The time for a request's head.
    pub head_secs: f64,
    /// The time for a whole request.
    pub request_secs: f64,
    /// The time between two requests of a connection.
    pub idle_secs: f64,
    /// How long a client may read nothing of what is written to it.
    pub write_stall_secs: f64,
    /// The most operations remembered.
    pub operations: usize,
    /// How often the token is replaced; an earlier daemon does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_token_secs: Option<f64>,
}

/// What is known of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EventFacts {
    /// The number of the first event of this daemon.
    pub first: u64,
    /// The number of the latest event; one less than `first` before there is any.
    pub latest: u64,
    /// How many outlive the daemon; 0 if none does.
    pub keep: u32,
    /// For how long.
    pub age_secs: u64,
}

/// A warning or an error of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RecentError {
    /// When, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// `warn` or `error`.
    pub level: String,
    /// The text.
    pub message: String,
}

/// The parameters of [`Operations`](super::Operations): none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OperationsParams {}

/// The result of [`Operations`](super::Operations).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OperationsResult {
    /// The latest first, without their results.
    pub operations: Vec<Operation>,
}

/// The parameters of [`OperationStatus`](super::OperationStatus).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OperationStatusParams {
    /// The operation.
    pub id: String,
}

/// What an operation is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// It waits for its turn.
    Queued,
    /// It has begun.
    Running,
    /// It has a result or an error.
    Done,
}

/// One operation; the result of [`OperationStatus`](super::OperationStatus).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Operation {
    /// What it is known by.
    pub id: String,
    /// The method of the control protocol.
    pub method: String,
    /// The server, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What it is doing.
    pub state: Progress,
    /// When it was asked for, in milliseconds since the Unix epoch.
    pub asked_at_unix_ms: u64,
    /// When it was done, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_at_unix_ms: Option<u64>,
    /// The method's result, once it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<serde_json::Value>"))]
    pub result: Option<Box<RawValue>>,
    /// Why there is none, once it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RpcError>,
}

/// The parameters of [`RotateToken`](super::RotateToken).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RotateTokenParams {
    /// The client whose token it is; that of the daemon if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The result of [`RotateToken`](super::RotateToken).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RotateTokenResult {
    /// The file to read it from, if it is that of the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
    /// The token, if it is that of a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// How long the old one is accepted, in seconds.
    pub old_token_valid_secs: u64,
}

/// The parameters of [`Tokens`](super::Tokens): none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokensParams {}

/// The result of [`Tokens`](super::Tokens).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokensResult {
    /// The clients, by name.
    pub tokens: Vec<ClientToken>,
}

/// A client that has a token of its own. The token is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClientToken {
    /// What permissions and the audit log call it.
    pub name: String,
    /// How much it may do.
    pub scope: Scope,
    /// When its token was made, in milliseconds since the Unix epoch.
    pub created_at_unix_ms: u64,
}

/// The parameters of [`TokenAdd`](super::TokenAdd).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenAddParams {
    /// What permissions and the audit log are to call the client.
    pub name: String,
    /// How much it may do.
    pub scope: Scope,
}

/// The result of [`TokenAdd`](super::TokenAdd).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenAddResult {
    /// The client.
    pub name: String,
    /// How much it may do.
    pub scope: Scope,
    /// The token, which is told this once.
    pub token: String,
}

/// The parameters of [`TokenRemove`](super::TokenRemove).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenRemoveParams {
    /// The client.
    pub name: String,
}

/// The result of [`TokenRemove`](super::TokenRemove).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenRemoveResult {
    /// Whose token it was.
    pub removed: ClientToken,
}
