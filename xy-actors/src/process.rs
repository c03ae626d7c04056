//! Operating system processes as children: what to run, and the one place that spawns, signals and reaps.
//!
//! [`process`] makes a child of a [`ProcessSpec`]; there is an example on its page. It needs two values that a program makes
//! once and shares between all its trees: a [`ProcessHost`], which spawns, signals and reaps, and a
//! [`LogHub`](crate::log::LogHub), which reads what processes print.
//!
//! - **Start**: an own session and group, default signal dispositions, no inherited descriptor but the standard three; the
//!   environment is inherited, with [`ProcessSpec::env`] laid over it. A start that fails says which step, and of what
//!   path ([`SpawnErrorKind`]).
//! - **Ready**: when [`ProcessSpec::ready`] is proven, and with a port only by a socket of the child's own processes.
//! - **Stop**: the signal to the whole group, the kill after [`ChildSpec::shutdown`](crate::spec::ChildSpec::shutdown), and
//!   an answer only when the whole tree is gone, with the names of those that had to be killed.
//! - **Death of this program**: if it is killed, its processes live on, unless it asks for more: [`HostOptions`] has a signal
//!   at the parent's death, and a ledger by which the next start ends what was left; [`guard`] ends it at once.

pub mod guard;
pub mod handover;
pub mod health;
pub mod memory;
pub mod port;
pub mod readiness;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

mod actor;
mod cgroup;
mod child;
mod command;
mod host;
mod ledger;
#[cfg(all(feature = "testkit", feature = "probe-http"))]
#[doc(hidden)]
pub mod readers;
pub mod settings;
mod stop_command;
mod sys;
mod tree;

#[cfg(feature = "testkit")]
#[doc(hidden)]
pub use self::actor::Helper;
pub use self::child::{ProcessChild, process};
use self::health::Liveness;
use self::readiness::{LogPattern, ProbeHeader, ProbeTimes, StatusSet};

pub use self::command::{
    LoginPathError, SpawnError, SpawnErrorKind, is_withheld, known_login_path, login_path,
};
pub use self::host::{
    HostError, HostOptions, KillReport, LiveProcess, Member, OsProcess, Ownership, ProcessExit, ProcessHost,
    ProcessOutput, TreeUsage,
};
pub use self::ledger::{EndedIncarnation, LostIncarnation, SweepReport, SweptProcess};
pub use self::settings::ProcessSettings;
pub use self::stop_command::StopCommand;

/// What to run as one OS process, and when it counts as ready.
///
/// The restart half (restart type, backoff, limits, and the grace of a stop as
/// [`Shutdown::Timeout`](crate::spec::Shutdown)) is in [`ChildSpec`](crate::spec::ChildSpec).
#[derive(Clone, PartialEq)]
pub struct ProcessSpec {
    /// The program: a name looked up in the child's `PATH`, or a path (relative ones start at `working_dir`).
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables laid over the inherited environment. Their values never appear in `Debug`, errors or events.
    pub env: BTreeMap<String, String>,
    /// The directory it runs in; `None` inherits the host's, or is the home of the user it runs as.
    ///
    /// A leading `~` stands for its `HOME`.
    pub working_dir: Option<PathBuf>,
    /// User, limits, priority, where variables and input come from.
    pub settings: ProcessSettings,
    /// The TCP port it serves, if any.
    pub port: Option<u16>,
    /// Whether the listening socket must belong to the child's own processes.
    pub port_owner: PortOwner,
    /// When it counts as ready; `None` means [`Readiness::Tcp`] with a `port`, else [`Readiness::Started`].
    pub ready: Option<Readiness>,
    /// How often and how patiently it is asked whether it is ready.
    pub ready_times: ProbeTimes,
    /// What is asked of it while it is ready, if anything.
    pub liveness: Option<Liveness>,
    /// The longest time between two `WATCHDOG=1` of it once it is ready, if it is to send them.
    ///
    /// It gets `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` as from systemd.
    pub watchdog: Option<Duration>,
    /// The signal that asks it to end.
    pub stop_signal: StopSignal,
    /// What is run to end it before the signal is sent.
    pub stop_command: Option<StopCommand>,
}

impl fmt::Debug for ProcessSpec {
    /// Shows the names of environment variables, never their values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            command,
            args,
            env,
            working_dir,
            settings,
            port,
            port_owner,
            ready,
            ready_times,
            liveness,
            watchdog,
            stop_signal,
            stop_command,
        } = self;
        f.debug_struct("ProcessSpec")
            .field("command", command)
            .field("args", args)
            .field("env", &env.keys())
            .field("working_dir", working_dir)
            .field("settings", settings)
            .field("port", port)
            .field("port_owner", port_owner)
            .field("ready", ready)
            .field("ready_times", ready_times)
            .field("liveness", liveness)
            .field("watchdog", watchdog)
            .field("stop_signal", stop_signal)
            .field("stop_command", stop_command)
            .finish()
    }
}

impl ProcessSpec {
    /// A sensible limit for the time from start to ready: 5 minutes, as a cold `npx` or `uvx` downloads first. It is in force
    /// only where [`ChildSpec::start_timeout`](crate::spec::ChildSpec::start_timeout) is set to it.
    pub const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(300);

    /// Creates a spec that runs `command` without arguments, in this program's environment and directory, and that is asked
    /// to end by SIGTERM.
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            working_dir: None,
            settings: ProcessSettings::default(),
            port: None,
            port_owner: PortOwner::Own,
            ready: None,
            ready_times: ProbeTimes::default(),
            liveness: None,
            watchdog: None,
            stop_signal: StopSignal::Term,
            stop_command: None,
        }
    }

    /// Returns the readiness in force.
    pub fn readiness(&self) -> Readiness {
        match (&self.ready, self.port) {
            (Some(ready), _) => ready.clone(),
            (None, Some(_)) => Readiness::Tcp,
            (None, None) => Readiness::Started,
        }
    }
}

/// Whose listening socket proves readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PortOwner {
    /// Only one of the child's own processes.
    #[default]
    Own,
    /// Anybody's, for ports published by a container engine.
    Any,
}

/// What "ready" means for a process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// The program was executed.
    Started,
    /// Its port accepts connections.
    Tcp,
    /// `GET path` on its port answers with one of these statuses. Redirects are not followed.
    Http {
        /// The path, beginning with `/`.
        path: String,
        /// The statuses that mean yes.
        status: StatusSet,
        /// One more header of the request.
        header: Option<ProbeHeader>,
    },
    /// An MCP server on its port answers `tools/list` in either protocol era.
    Mcp {
        /// The endpoint's path, `/mcp` by default.
        path: String,
        /// The host in URL and `Host` header, `localhost` by default.
        host: String,
    },
    /// A command, run in its environment and directory, ends with code 0.
    Exec {
        /// The program, looked up as the child's own.
        command: String,
        /// Its arguments.
        args: Vec<String>,
    },
    /// It prints a line with a match, on either stream.
    Log {
        /// What to look for.
        pattern: LogPattern,
    },
    /// It says so itself.
    Notify {
        /// Through a newline on this descriptor (as in s6), 3 or higher; `None` means `READY=1` to `NOTIFY_SOCKET` (as in
        /// systemd).
        fd: Option<u16>,
    },
}

impl Readiness {
    /// Returns an [`Readiness::Http`] that is content with any status from 200 to 399.
    pub fn http(path: impl Into<String>) -> Self {
        Self::Http { path: path.into(), status: StatusSet::default(), header: None }
    }

    /// Returns its name, as in configuration files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started => "Started",
            Self::Tcp => "Tcp",
            Self::Http { .. } => "Http",
            Self::Mcp { .. } => "Mcp",
            Self::Exec { .. } => "Exec",
            Self::Log { .. } => "Log",
            Self::Notify { .. } => "Notify",
        }
    }

    /// Returns whether it is found out by asking, so that it can be asked again.
    pub fn is_asked(&self) -> bool {
        matches!(self, Self::Tcp | Self::Http { .. } | Self::Mcp { .. } | Self::Exec { .. })
    }
}

/// The signal that asks a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "UPPERCASE"))]
pub enum StopSignal {
    /// SIGTERM.
    #[default]
    Term,
    /// SIGINT.
    Int,
    /// SIGHUP.
    Hup,
    /// SIGQUIT.
    Quit,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGKILL.
    Kill,
}

impl StopSignal {
    /// Returns the signal's number on this system.
    pub fn number(self) -> i32 {
        match self {
            Self::Term => libc::SIGTERM,
            Self::Int => libc::SIGINT,
            Self::Hup => libc::SIGHUP,
            Self::Quit => libc::SIGQUIT,
            Self::Usr1 => libc::SIGUSR1,
            Self::Usr2 => libc::SIGUSR2,
            Self::Kill => libc::SIGKILL,
        }
    }
}
