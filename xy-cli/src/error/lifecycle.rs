//! What can go wrong when the daemon itself is started, stopped or looked for.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::exit_code;
use crate::command::daemon::Silence;

/// Why the daemon is not as it was asked to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LifecycleError {
    /// There is no program to start.
    #[error("there is no `xyd` beside `xyctl` and none in PATH")]
    NoProgram,
    /// The program could not be executed.
    #[error("`{}` could not be started", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file of the daemon could not be used.
    #[error("`{}` could not be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ended while it started.
    #[error("xyd ended while it started: {how}")]
    Ended {
        /// Its exit.
        how: String,
        /// Its code, if it exited.
        code: Option<i32>,
    },
    /// It runs and does not answer.
    #[error("xyd (pid {pid}) does not answer within {}", Seconds(*limit))]
    NoAnswer {
        /// The process.
        pid: u32,
        /// How long was waited.
        limit: Duration,
    },
    /// It is there, and has not answered in the time that there was.
    #[error("{0}")]
    Silent(Silence),
    /// Another instance has the state directory and is not reached over the socket.
    #[error("another xyd{} owns `{}` and does not answer at `{}`", Pid(*pid), state.display(), socket.display())]
    Another {
        /// Its process, if known.
        pid: Option<u32>,
        /// What it owns.
        state: PathBuf,
        /// Where it was looked for.
        socket: PathBuf,
    },
    /// It is still there.
    #[error("xyd (pid {pid}) has not ended within {}{}", Seconds(*limit), Still(still))]
    NotEnded {
        /// The process.
        pid: u32,
        /// How long was waited.
        limit: Duration,
        /// The servers that still run, if it says so.
        still: Vec<String>,
    },
    /// The process could not be told to end.
    #[error("xyd{} cannot be told to end", Pid(*pid))]
    CannotSignal {
        /// The process, if known.
        pid: Option<u32>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file of a service manager is somebody else's.
    #[error("`{}` was not written by `xyctl daemon install`", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A path contains what no file of a service manager can hold.
    #[error("the path {path:?} contains a control character or is no UTF-8, and cannot stand in a unit")]
    Unwritable {
        /// The path.
        path: PathBuf,
    },
    /// The home directory is not known.
    #[error("the home directory is not known; set `HOME`")]
    NoHome,
    /// It was not started in the background.
    #[error("there is no log of the daemon at `{}`", path.display())]
    NoLog {
        /// Where it would be.
        path: PathBuf,
    },
}

impl From<Silence> for LifecycleError {
    fn from(silence: Silence) -> Self {
        Self::Silent(silence)
    }
}

impl LifecycleError {
    /// Returns the code that the process exits with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Ended { code: Some(3), .. } => exit_code::CONFIG,
            Self::Silent(_) => exit_code::UNREACHABLE,
            _ => exit_code::FAILED,
        }
    }

    /// Returns what a person could do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoProgram => "install xyd, or put the directory with it into PATH".to_owned(),
            Self::Ended { code: Some(3), .. } => "`xyd --check` shows every mistake".to_owned(),
            Self::Ended { code: Some(75), .. } => {
                "`xyctl daemon status` says who runs; with another `XDG_STATE_HOME` and `--socket` a second one can \
                 run"
                .to_owned()
            }
            Self::NoAnswer { .. } => {
                "it goes on starting: see `xyctl daemon status`, or end it with `xyctl daemon stop`".to_owned()
            }
            Self::Silent(silence) => silence.hint(),
            Self::Another { .. } => {
                "name its socket with `--socket` or `XY_SOCKET`, or end it with `xyctl daemon stop`".to_owned()
            }
            Self::NotEnded { .. } => "`xyctl daemon stop --kill` kills what is left".to_owned(),
            Self::Foreign { .. } => "move it away; `xyctl daemon install --force` overwrites it".to_owned(),
            Self::Unwritable { .. } => "install or move it to a plain path".to_owned(),
            Self::NoLog { .. } => {
                "it has one when `xyctl daemon start` started it; under systemd see `journalctl --user -u xyd`"
                    .to_owned()
            }
            Self::NoHome | Self::Ended { .. } | Self::Spawn { .. } | Self::File { .. } | Self::CannotSignal { .. } => return None,
        })
    }
}

struct Pid(Option<u32>);

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |pid| write!(f, " (pid {pid})"))
    }
}

struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}

struct Still<'a>(&'a [String]);

impl std::fmt::Display for Still<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; still there: {}", self.0.join(", ")) }
    }
}
