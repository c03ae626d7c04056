//! The table of error codes and their stable names.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What went wrong, by a name that programs can rely on (`data.kind` of an error, `kind` of a failed row).
///
/// ```
/// use xy_daemon::protocol::error::ErrorKind;
///
/// assert_eq!(ErrorKind::PortConflict.as_str(), "port_conflict");
/// assert_eq!(ErrorKind::PortConflict.code(), -32002);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text is not JSON as this protocol reads it.
    ParseError,
    /// The JSON is not a JSON-RPC 2.0 request.
    InvalidRequest,
    /// There is no such method.
    MethodNotFound,
    /// A parameter is missing, unknown or wrong.
    InvalidParams,
    /// The daemon failed; its log says how.
    InternalError,
    /// No server has this name.
    ServerNotFound,
    /// The server's port is held by somebody else.
    PortConflict,
    /// The server's configuration is invalid.
    ConfigInvalid,
    /// The operation needs a server that does not run.
    AlreadyRunning,
    /// The operation needs a server that runs.
    NotRunning,
    /// The server's program could not be executed.
    SpawnFailed,
    /// The server ended before it was ready.
    NotReady,
    /// The server did not reach the state in the time given.
    Timeout,
    /// Something of the server's process tree could not be ended.
    StopFailed,
    /// Another operation on the same server took precedence.
    Superseded,
    /// A limit of the protocol is reached.
    LimitExceeded,
    /// The daemon is shutting down.
    ShuttingDown,
    /// The operation does not exist for this daemon or this server.
    Unsupported,
    /// The program that was to take over cannot, or this one cannot hand over to it.
    UpgradeRefused,
    /// The client speaks a version of the protocol that the daemon does not.
    UnsupportedProtocol,
    /// A method that the program has registered, or an MCP server that was asked, refused or failed.
    MethodFailed,
    /// The permissions, or the operator who was asked, refused it.
    PermissionDenied,
    /// A name that this version does not know. Never sent.
    #[serde(other)]
    Unknown,
}

impl ErrorKind {
    /// Every kind that can be sent, in the order of the table.
    pub const ALL: [Self; 22] = [
        Self::ParseError,
        Self::InvalidRequest,
        Self::MethodNotFound,
        Self::InvalidParams,
        Self::InternalError,
        Self::ServerNotFound,
        Self::PortConflict,
        Self::ConfigInvalid,
        Self::AlreadyRunning,
        Self::NotRunning,
        Self::SpawnFailed,
        Self::NotReady,
        Self::Timeout,
        Self::StopFailed,
        Self::Superseded,
        Self::LimitExceeded,
        Self::ShuttingDown,
        Self::Unsupported,
        Self::UpgradeRefused,
        Self::UnsupportedProtocol,
        Self::MethodFailed,
        Self::PermissionDenied,
    ];

    /// Returns the JSON-RPC code; kinds without a code of their own share -32000.
    pub fn code(self) -> i32 {
        match self {
            Self::ParseError => -32700,
            Self::InvalidRequest => -32600,
            Self::MethodNotFound => -32601,
            Self::InvalidParams => -32602,
            Self::InternalError => -32603,
            Self::ServerNotFound => -32001,
            Self::PortConflict => -32002,
            Self::ConfigInvalid => -32003,
            Self::AlreadyRunning => -32004,
            Self::NotRunning => -32005,
            Self::SpawnFailed => -32006,
            Self::NotReady
            | Self::Timeout
            | Self::StopFailed
            | Self::Superseded
            | Self::LimitExceeded
            | Self::ShuttingDown
            | Self::Unsupported
            | Self::UpgradeRefused
            | Self::UnsupportedProtocol
            | Self::MethodFailed
            | Self::PermissionDenied
            | Self::Unknown => -32000,
        }
    }

    /// Returns the stable name used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ParseError => "parse_error",
            Self::InvalidRequest => "invalid_request",
            Self::MethodNotFound => "method_not_found",
            Self::InvalidParams => "invalid_params",
            Self::InternalError => "internal_error",
            Self::ServerNotFound => "server_not_found",
            Self::PortConflict => "port_conflict",
            Self::ConfigInvalid => "config_invalid",
            Self::AlreadyRunning => "already_running",
            Self::NotRunning => "not_running",
            Self::SpawnFailed => "spawn_failed",
            Self::NotReady => "not_ready",
            Self::Timeout => "timeout",
            Self::StopFailed => "stop_failed",
            Self::Superseded => "superseded",
            Self::LimitExceeded => "limit_exceeded",
            Self::ShuttingDown => "shutting_down",
            Self::Unsupported => "unsupported",
            Self::UpgradeRefused => "upgrade_refused",
            Self::UnsupportedProtocol => "unsupported_protocol",
            Self::MethodFailed => "method_failed",
            Self::PermissionDenied => "permission_denied",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal or failure as it travels: code, message for people, kind for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[error("{message}")]
pub struct RpcError {
    /// The JSON-RPC code; [`ErrorKind::code`] of the kind.
    pub code: i32,
    /// The text for people.
    pub message: String,
    /// The facts for programs. Absent only in errors of other JSON-RPC servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ErrorData>,
}

/// The `data` member of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ErrorData {
    /// The stable name.
    pub kind: ErrorKind,
    /// The parameter at fault, for [`ErrorKind::InvalidParams`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
}

impl RpcError {
    /// Creates an error of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { code: kind.code(), message: message.into(), data: Some(ErrorData { kind, parameter: None }) }
    }

    /// Creates a refusal of one parameter; `problem` follows its name, for instance "must not be empty".
    pub fn invalid_parameter(parameter: impl Into<String>, problem: impl fmt::Display) -> Self {
        let parameter = parameter.into();
        Self {
            code: ErrorKind::InvalidParams.code(),
            message: format!("parameter `{parameter}`: {problem}"),
            data: Some(ErrorData { kind: ErrorKind::InvalidParams, parameter: Some(parameter) }),
        }
    }

    /// Creates the answer for a name that no server has.
    pub fn server_not_found(name: &str) -> Self {
        Self::new(ErrorKind::ServerNotFound, format!("no server is named `{name}`"))
    }

    /// Returns the kind, from `data` or else from the code.
    pub fn kind(&self) -> ErrorKind {
        match &self.data {
            Some(data) => data.kind,
            None => ErrorKind::ALL
                .into_iter()
                .find(|kind| kind.code() == self.code && self.code != -32000)
                .unwrap_or(ErrorKind::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_spelling_in_code_and_on_the_wire() {
        for kind in ErrorKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn a_kind_of_a_newer_daemon_is_read_as_unknown() {
        let kind: ErrorKind = serde_json::from_str("\"invented_later\"").unwrap();
        assert_eq!(kind, ErrorKind::Unknown);
    }

    #[test]
    fn a_code_without_data_still_has_its_kind() {
        let error = RpcError { code: -32601, message: String::new(), data: None };
        assert_eq!(error.kind(), ErrorKind::MethodNotFound);
        let error = RpcError { code: -32000, message: String::new(), data: None };
        assert_eq!(error.kind(), ErrorKind::Unknown);
    }

    #[test]
    fn a_parameter_is_named_in_text_and_in_data() {
        let error = RpcError::invalid_parameter("names", "must not be empty");
        assert_eq!(error.to_string(), "parameter `names`: must not be empty");
        assert_eq!(error.data.unwrap().parameter.as_deref(), Some("names"));
    }
}
