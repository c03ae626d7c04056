//! What a process gets beside its command line: user, limits, priority, environment, standard input.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

mod env_file;
mod identity;
mod own_limits;
pub(super) mod secret;
pub mod trust;
mod trusted_file;

pub use self::env_file::{EnvFile, EnvFileError};
pub use self::identity::{Identity, IdentityError};
pub use self::own_limits::{OwnLimitsError, is_reserved, prepare_own_limits};
pub(super) use self::own_limits::{original_limits, set_original_limits};
pub use self::secret::{Secret, SecretError, SecretSource, masked};

/// What a process gets beside its command line. The default changes nothing but `oom_score_adj`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProcessSettings {
    /// The user it runs as, by name or number; `None` stays ours. Only root can start processes as somebody else.
    ///
    /// Supplementary groups are those of the user, and `HOME`, `USER`, `LOGNAME` and `SHELL` follow (inherited `XDG_*`
    /// variables, which are another user's, are left out). Without a `working_dir` it runs in the user's home.
    pub user: Option<String>,
    /// The group it runs as, by name or number; `None` is the user's own.
    pub group: Option<String>,
    /// The permissions that new files do not get; `None` inherits ours.
    pub umask: Option<u32>,
    /// Its niceness, -20 (first) to 19 (last); `None` inherits ours. Only root can go below its own.
    pub nice: Option<i32>,
    /// Limits on what it may use, each at most once; others are inherited.
    pub limits: Vec<ResourceLimit>,
    /// Whether setuid programs and file capabilities give it nothing (Linux); `None` means exactly if `user` or `group`
    /// is another than ours.
    pub no_new_privs: Option<bool>,
    /// How readily the kernel ends it when memory runs out, -1000 to 1000 (Linux).
    ///
    /// `None` is one more than our own, so that a child is ended before its supervisor.
    pub oom_score_adj: Option<i32>,
    /// What it reads from descriptor 0.
    pub stdin: Stdin,
    /// Files with variables, read at each start; a later file wins over an earlier one.
    pub env_files: Vec<EnvFile>,
    /// Variables whose values are had at each start, and shown nowhere. They win over all others.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Which of our own variables it inherits.
    pub env_base: EnvBase,
    /// Its `PATH`, unless `env` or an environment file sets one.
    pub path: SearchPath,
}

/// What a process reads from descriptor 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Stdin {
    /// Nothing: `/dev/null`.
    #[default]
    Null,
    /// A file, opened at each start before the user changes; a relative path starts at the working directory.
    File(PathBuf),
}

/// Which variables a process inherits. The host's own (`LISTEN_*`, `NOTIFY_SOCKET`, `WATCHDOG_*`, `XY_TOKEN*`) never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum EnvBase {
    /// All others.
    #[default]
    Inherit,
    /// `PATH`, `HOME`, `USER`, `LOGNAME`, `LANG`, `TMPDIR` and `XDG_*`.
    Clean,
}

impl EnvBase {
    /// Returns whether a variable is inherited.
    pub fn keeps(self, key: &[u8]) -> bool {
        match self {
            Self::Inherit => true,
            Self::Clean => {
                key.starts_with(b"XDG_")
                    || [b"PATH".as_slice(), b"HOME", b"USER", b"LOGNAME", b"LANG", b"TMPDIR"].contains(&key)
            }
        }
    }
}

/// Where a process finds programs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SearchPath {
    /// In our own `PATH`.
    #[default]
    Inherit,
    /// In the `PATH` that the user's login shell sets up.
    ///
    /// [`login_path`](super::login_path) asks it, for at most five seconds. If it fails, the inherited `PATH` serves, which
    /// is logged, in the process's own log, too, and the next start after a minute asks again.
    Login,
    /// In these directories, separated by colons.
    Literal(String),
}

/// A limit on one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ResourceLimit {
    /// What is limited.
    pub resource: Resource,
    /// What holds at first; the process may raise it up to `hard`.
    pub soft: u64,
    /// What only root can raise.
    pub hard: u64,
}

impl ResourceLimit {
    /// Stands for "no limit".
    pub const UNLIMITED: u64 = u64::MAX;

    /// Creates a limit that the process cannot raise.
    pub fn new(resource: Resource, value: u64) -> Self {
        Self { resource, soft: value, hard: value }
    }
}

impl fmt::Display for ResourceLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: u64| match value {
            Self::UNLIMITED => "unlimited".to_owned(),
            value => value.to_string(),
        };
        write!(f, "{} (soft {}, hard {})", self.resource.as_str(), shown(self.soft), shown(self.hard))
    }
}

/// What [`ResourceLimit`] limits; see `getrlimit(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Resource {
    /// The address space, in bytes.
    As,
    /// The size of a core file, in bytes.
    Core,
    /// The processor time, in seconds.
    Cpu,
    /// The heap, in bytes.
    Data,
    /// The size of a file it writes, in bytes.
    Fsize,
    /// Locked memory, in bytes.
    Memlock,
    /// Open files: one more than the largest descriptor.
    Nofile,
    /// The processes of its user.
    Nproc,
    /// The stack of its first thread, in bytes.
    Stack,
}

impl Resource {
    /// Returns the name, as in configuration files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::As => "as",
            Self::Core => "core",
            Self::Cpu => "cpu",
            Self::Data => "data",
            Self::Fsize => "fsize",
            Self::Memlock => "memlock",
            Self::Nofile => "nofile",
            Self::Nproc => "nproc",
            Self::Stack => "stack",
        }
    }

    /// Returns the kernel's number.
    pub(super) fn number(self) -> libc::c_int {
        let number = match self {
            Self::As => libc::RLIMIT_AS,
            Self::Core => libc::RLIMIT_CORE,
            Self::Cpu => libc::RLIMIT_CPU,
            Self::Data => libc::RLIMIT_DATA,
            Self::Fsize => libc::RLIMIT_FSIZE,
            Self::Memlock => libc::RLIMIT_MEMLOCK,
            Self::Nofile => libc::RLIMIT_NOFILE,
            Self::Nproc => libc::RLIMIT_NPROC,
            Self::Stack => libc::RLIMIT_STACK,
        };
        // Small and positive, whatever type this system's headers give it.
        number as libc::c_int
    }
}
