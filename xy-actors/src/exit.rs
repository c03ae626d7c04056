//! How a child ended: the classification that policy decides by, and the cause that people read.

use std::fmt;

/// How one incarnation of a child ended, as far as restart decisions go.
///
/// `Normal` and `Shutdown` are OTP's "asked-to-stop" reasons (`normal`, `shutdown`, `{shutdown, _}`); everything else is
/// abnormal. `Escalated` is xy's own: a supervisor that exceeded its restart intensity ends with it, and its parent
/// treats that as a crash (OTP uses `shutdown` there, so that a transient supervisor that gave up is silently not
/// restarted).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Exit {
    /// The child finished by itself, successfully.
    Normal,
    /// The child ended because it was asked to.
    Shutdown,
    /// The child failed: an error, a panic, a non-zero exit code, a signal nobody of us sent.
    Abnormal,
    /// The child was ended without a chance to clean up.
    Killed,
    /// The child was a supervisor that exceeded its restart intensity.
    Escalated,
}

impl Exit {
    /// Returns whether a transient child is restarted after this exit.
    pub fn is_abnormal(self) -> bool {
        !matches!(self, Self::Normal | Self::Shutdown)
    }

    /// Returns the stable lower-case name used on the wire and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Shutdown => "shutdown",
            Self::Abnormal => "abnormal",
            Self::Killed => "killed",
            Self::Escalated => "escalated",
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an incarnation ended, in terms a person can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(tag = "kind", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Cause {
    /// The child returned, or an actor stopped, without saying more.
    Finished {
        /// The reason given to `stop`, if any.
        reason: Option<String>,
    },
    /// An operating system process ended with this exit code.
    ExitCode {
        /// The code, 0 to 255.
        code: i32,
    },
    /// An operating system process was ended by this signal.
    Signal {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core dump.
        core_dumped: bool,
    },
    /// The kernel killed the process for want of memory. Told only where each tree has a control group with a memory
    /// controller; elsewhere it is a death by SIGKILL.
    OutOfMemory,
    /// The child returned an error or panicked.
    Error {
        /// The error's text.
        message: String,
    },
    /// The child could not be started.
    StartFailed {
        /// What failed, where, and what to do.
        message: String,
    },
    /// The child did not become ready in time and was ended.
    StartTimeout {
        /// What the last readiness check saw.
        message: String,
    },
    /// It was ended because it failed its liveness check or its watchdog.
    Probe {
        /// Which of them, and how, as in "liveness: ..".
        message: String,
    },
    /// The supervisor ended it with its restart intensity exceeded.
    LimitReached {
        /// Which limit.
        message: String,
    },
    /// The program that supervised it died, so that nobody saw how it ended. Told by the next one, from what the dead one
    /// had written down.
    HostDied,
    /// The task or actor was aborted from outside.
    Aborted,
    /// The child did not end after it was killed; it may still exist.
    Leaked,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished { reason: Some(reason) } => write!(f, "stopped: {reason}"),
            Self::Finished { reason: None } => f.write_str("finished"),
            Self::ExitCode { code } => write!(f, "exit code {code}"),
            Self::Signal { signal, core_dumped } => {
                write!(f, "signal {signal}")?;
                if let Some(name) = signal_name(*signal) {
                    write!(f, " ({name})")?;
                }
                if *core_dumped {
                    f.write_str(", core dumped")?;
                }
                Ok(())
            }
            Self::OutOfMemory => f.write_str("out of memory: killed by the kernel"),
            Self::Error { message } => write!(f, "error: {message}"),
            Self::StartFailed { message } => f.write_str(message),
            Self::StartTimeout { message } => write!(f, "not ready in time: {message}"),
            Self::Probe { message } => f.write_str(message),
            Self::LimitReached { message } => write!(f, "limit reached: {message}"),
            Self::HostDied => f.write_str("the daemon died; how this ended is not known"),
            Self::Aborted => f.write_str("aborted"),
            Self::Leaked => f.write_str("did not end after it was killed"),
        }
    }
}

/// One operating system process, as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ProcessRef {
    /// Its process id at the time.
    pub pid: u32,
    /// Its command, as far as it could be read.
    pub command: String,
}

/// An exit together with its cause.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ExitReport {
    /// What policy decides by.
    pub exit: Exit,
    /// What people read.
    pub cause: Cause,
    /// The processes of its tree that had to be killed.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub killed: Vec<ProcessRef>,
    /// The processes of its tree that survived even that.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Vec::is_empty"))]
    pub left: Vec<ProcessRef>,
}

impl ExitReport {
    /// Creates a report of an exit after which nothing had to be killed.
    pub fn new(exit: Exit, cause: Cause) -> Self {
        Self { exit, cause, killed: Vec::new(), left: Vec::new() }
    }

    /// Classifies the end of something that returns a result: an error is an abnormal end, with its text as the cause.
    ///
    /// Whether a normal end was asked for need not be known: a supervisor makes it [`Exit::Shutdown`] if it was.
    pub fn of_result<E: fmt::Display>(result: Result<(), E>) -> Self {
        match result {
            Ok(()) => Self::new(Exit::Normal, Cause::Finished { reason: None }),
            Err(error) => Self::new(Exit::Abnormal, Cause::Error { message: error.to_string() }),
        }
    }

    /// Classifies the end of a ractor actor that did not fail, by the reason it was stopped with.
    ///
    /// ractor knows no exit reasons, only texts, and reports a kill with one too. `shutdown` and `shutdown: ..` are
    /// asked-to-stop reasons, as in OTP; any other reason, or none, is a normal end.
    #[cfg(feature = "runtime")]
    pub(crate) fn of_stopped_actor(reason: Option<String>) -> Self {
        match reason.as_deref() {
            Some("killed" | "actor_task_cancelled") => Self::new(Exit::Killed, Cause::Aborted),
            Some(text) if text == "shutdown" || text.starts_with("shutdown:") => {
                Self::new(Exit::Shutdown, Cause::Finished { reason })
            }
            _ => Self::new(Exit::Normal, Cause::Finished { reason }),
        }
    }

    /// Classifies the end of an operating system process.
    ///
    /// When a stop was asked for, the codes 0, 143 and 130 and death by the stop signal are clean: that is how programs
    /// answer SIGTERM and SIGINT.
    #[cfg(feature = "process")]
    pub(crate) fn of_process(
        exit: crate::process::ProcessExit,
        is_stop_asked: bool,
        is_killed: bool,
        stop_signal: i32,
    ) -> Self {
        use crate::process::ProcessExit;
        match exit {
            ProcessExit::Code(code) => {
                let exit = match code {
                    0 | 143 | 130 if is_stop_asked => Exit::Shutdown,
                    0 => Exit::Normal,
                    _ => Exit::Abnormal,
                };
                Self::new(exit, Cause::ExitCode { code })
            }
            ProcessExit::Signal { signal, core_dumped } => {
                let exit = match signal {
                    libc::SIGKILL if stop_signal != libc::SIGKILL || !is_stop_asked => Exit::Killed,
                    libc::SIGTERM | libc::SIGINT if is_stop_asked => Exit::Shutdown,
                    _ if is_stop_asked && !is_killed && signal == stop_signal => Exit::Shutdown,
                    _ => Exit::Abnormal,
                };
                Self::new(exit, Cause::Signal { signal, core_dumped })
            }
        }
    }
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

/// Returns the conventional name of a POSIX signal whose number is the same on Linux and macOS, or a Linux one there.
pub fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        #[cfg(target_os = "linux")]
        7 => "SIGBUS",
        #[cfg(target_os = "linux")]
        10 => "SIGUSR1",
        #[cfg(target_os = "linux")]
        12 => "SIGUSR2",
        #[cfg(target_os = "linux")]
        31 => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_normal_and_shutdown_are_asked_to_stop_reasons() {
        let abnormal = [Exit::Abnormal, Exit::Killed, Exit::Escalated];
        assert!(abnormal.iter().all(|exit| exit.is_abnormal()));
        assert!(![Exit::Normal, Exit::Shutdown].iter().any(|exit| exit.is_abnormal()));
    }

    #[test]
    fn a_signal_cause_names_the_signal() {
        let cause = Cause::Signal { signal: 9, core_dumped: false };
        assert_eq!(cause.to_string(), "signal 9 (SIGKILL)");
    }
}
