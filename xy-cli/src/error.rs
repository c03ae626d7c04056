//! What can go wrong in a command: its text, its exit code and what to do about it.

use std::io;
use std::path::PathBuf;

use xy_daemon::client::ClientError;
use xy_daemon::config::LoadError;
use xy_daemon::daemon::RunError;
use xy_daemon::paths::DirectoriesError;
use xy_daemon::protocol::error::{ErrorKind, RpcError};
use xy_daemon::protocol::pattern::is_pattern;

pub(crate) use self::import::ImportError;
pub(crate) use self::lifecycle::LifecycleError;

mod import;
mod lifecycle;

/// The exit codes of `xyctl`.
pub(crate) mod exit_code {
    /// Everything that was asked for is so.
    pub(crate) const SUCCESS: u8 = 0;
    /// The operation failed, for all or for some of the servers.
    pub(crate) const FAILED: u8 = 1;
    /// No daemon can be reached, or it went away.
    pub(crate) const UNREACHABLE: u8 = 2;
    /// The configuration is invalid; also a reload that rejected files.
    pub(crate) const CONFIG: u8 = 3;
    /// The command line itself is wrong (`EX_USAGE` of sysexits).
    pub(crate) const USAGE: u8 = 64;
}

/// The daemon's code for an invalid configuration.
const DAEMON_CONFIG: u8 = 3;

/// The daemon's code for another instance that runs already.
const DAEMON_ANOTHER: u8 = 75;

/// Why a command ended without its result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CommandError {
    /// The daemon could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The default socket is not known.
    #[error(transparent)]
    Directories(#[from] DirectoriesError),
    /// No server has this name.
    #[error("{}", not_found(name))]
    ServerNotFound {
        /// What was asked for.
        name: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// The daemon's result does not have the shape that this version knows.
    #[error("the daemon's result of `{method}` is not understood")]
    Result {
        /// The method.
        method: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Standard output took no more, for another reason than its reader being gone.
    #[error("writing to standard output failed")]
    Output(#[source] io::Error),
    /// The runtime could not be set up.
    #[error("setting up the asynchronous runtime failed")]
    Runtime(#[source] io::Error),
    /// The daemon was not started, stopped or found.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError),
    /// A file could not be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The directory of server files cannot be read.
    #[error("the directory `{}` cannot be read", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The daemon in this process did not start, or failed.
    #[error(transparent)]
    Daemon(#[from] RunError),
    /// The command line is wrong in a way that its definitions cannot say.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be written.
    #[error("`{}` cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The configuration cannot be loaded at all.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The full screen cannot be used.
    #[error("the full screen cannot be used")]
    Screen(#[source] io::Error),
    /// The full screen needs a terminal.
    #[error("standard output is not a terminal")]
    NoTerminal,
    /// A program that was to take over did not, after it had said that it could.
    #[error("not upgraded: the new program did not come up, or nobody answers")]
    NotUpgraded,
    /// Ctrl-C could not be listened to.
    #[error("listening to signals failed")]
    Signals(#[source] io::Error),
}

impl CommandError {
    /// Returns the code that the process exits with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Client(ClientError::Unreachable { .. } | ClientError::Path(_) | ClientError::Closed)
            | Self::Directories(_) => exit_code::UNREACHABLE,
            Self::Client(ClientError::Rpc(error)) if error.kind() == ErrorKind::ConfigInvalid => {
                exit_code::CONFIG
            }
            Self::Lifecycle(error) => error.exit_code(),
            Self::Import(ImportError::Unreadable { .. }) => exit_code::CONFIG,
            Self::Directory { .. } | Self::Load(_) => exit_code::CONFIG,
            Self::Usage(_) => exit_code::USAGE,
            Self::Daemon(error) if error.exit_code() == DAEMON_CONFIG => exit_code::CONFIG,
            _ => exit_code::FAILED,
        }
    }

    /// Returns what a person could do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Client(ClientError::Closed) => {
                Some("see whether the daemon still runs with `xyctl version`".to_owned())
            }
            Self::Client(ClientError::Rpc(error)) => rpc_hint(error).map(ToOwned::to_owned),
            Self::Client(error) => error.hint().map(ToOwned::to_owned),
            Self::Directories(_) => {
                Some("or name the daemon's socket with `--socket` or `XY_SOCKET`".to_owned())
            }
            Self::Lifecycle(error) => error.hint(),
            Self::Import(error) => error.hint().map(ToOwned::to_owned),
            Self::ServerNotFound { name, nearest } => Some(not_found_hint(name, nearest.as_deref())),
            Self::Result { .. } => {
                Some("compare the versions of `xyctl` and the daemon with `xyctl version`".to_owned())
            }
            Self::Daemon(error) if error.exit_code() == DAEMON_ANOTHER => Some(
                "`xyctl list` shows what it runs and `xyctl shutdown` ends it; with another `XDG_STATE_HOME` and \
                 `--socket` a second one can run"
                    .to_owned(),
            ),
            Self::NoTerminal => Some("`xyctl list -w` and `xyctl events -f` work everywhere".to_owned()),
            Self::Usage(_) | Self::Write { .. } | Self::Load(_) | Self::Screen(_) => None,
            Self::NotUpgraded => Some("what the daemon wrote to its standard error says why".to_owned()),
            Self::Directory { .. } | Self::Daemon(_) | Self::Output(_) | Self::Runtime(_) | Self::Signals(_) => None,
        }
    }
}

/// Says that there is no server of a name, or none that a pattern means.
pub(crate) fn not_found(name: &str) -> String {
    if is_pattern(name) {
        format!("no server matches `{name}`")
    } else {
        format!("server not found: `{name}`")
    }
}

/// Returns what to do about a name that no server has.
pub(crate) fn not_found_hint(name: &str, nearest: Option<&str>) -> String {
    match nearest {
        _ if is_pattern(name) => {
            "`xyctl list` shows the servers, `xyctl list --json` also their tags".to_owned()
        }
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => "`xyctl list` shows the servers; `xyctl reload` reads new files".to_owned(),
    }
}

fn rpc_hint(error: &RpcError) -> Option<&'static str> {
    let parameter = error.data.as_ref().and_then(|data| data.parameter.as_deref());
    match error.kind() {
        ErrorKind::InvalidParams if parameter == Some("id") => {
            Some("`xyctl approvals` lists what waits, and `xyctl grants` what is remembered")
        }
        ErrorKind::InvalidParams if parameter == Some("grep") => {
            Some("a `\\` before a character such as `(` or `[` takes it as it is")
        }
        // Only whoever adds a server needs that there is none.
        ErrorKind::AlreadyRunning => Some(
            "choose another name, or change its file, which `xyctl show NAME` names, or `xyctl rm` it first",
        ),
        ErrorKind::PermissionDenied => Some("the rules are `permissions` in `xyd.ron`"),
        ErrorKind::MethodNotFound | ErrorKind::InvalidParams | ErrorKind::InvalidRequest => {
            Some("compare the versions of `xyctl` and the daemon with `xyctl version`")
        }
        ErrorKind::InternalError => Some("the daemon's own output says more"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_daemon_and_a_lost_one_exit_alike() {
        let unreachable =
            ClientError::Unreachable { path: "/s".into(), source: io::ErrorKind::NotFound.into() };
        for error in [unreachable, ClientError::Closed] {
            assert_eq!(CommandError::from(error).exit_code(), exit_code::UNREACHABLE);
        }
    }

    #[test]
    fn an_invalid_configuration_has_its_own_code() {
        let error = |kind| CommandError::from(ClientError::Rpc(RpcError::new(kind, "no")));
        assert_eq!(error(ErrorKind::ConfigInvalid).exit_code(), exit_code::CONFIG);
        assert_eq!(error(ErrorKind::Timeout).exit_code(), exit_code::FAILED);
    }
}
