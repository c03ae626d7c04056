//! What happened: reports of a supervisor about its children and itself.

use std::time::Duration;

use crate::exit::Exit;

#[cfg(feature = "runtime")]
pub(crate) mod ring;
#[cfg(feature = "runtime")]
pub mod stream;

/// What happens to a child after an exit or a failed start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(tag = "next", rename_all = "snake_case"))]
pub enum Next {
    /// It stays down: its restart type says so, or it was stopped.
    Rest,
    /// It is removed from its supervisor.
    Removed,
    /// It is started again.
    Restart {
        /// The wait before it; zero means at once.
        delay: Duration,
        /// Which restart within the period this is, from 1; 0 if it does not count.
        nth: u32,
        /// How many the limit allows; `None` without a limit.
        of: Option<u32>,
    },
    /// It ended while paused; `resume` starts it again.
    Held,
    /// Its own limit is reached: it stays down until somebody starts it.
    Failed,
    /// Its supervisor's limit is reached: the supervisor ends `Escalated`.
    Escalates,
    /// Its supervisor ends, because of it or already before.
    SupervisorEnds,
}

/// A report about one child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(tag = "type", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ChildReport {
    /// The child was added.
    Added,
    /// The child was removed.
    Removed,
    /// A start began.
    Starting,
    /// The incarnation is ready.
    Ready,
    /// The incarnation, ready before, fails its health check.
    Unhealthy,
    /// The incarnation passes its health check again.
    Healthy,
    /// The start said that there is nothing to run.
    Ignored,
    /// A start failed (OTP's `start_error`).
    StartFailed {
        /// What follows.
        #[cfg_attr(feature = "serde", serde(flatten))]
        next: Next,
    },
    /// The incarnation ended by itself (OTP's `child_terminated` if abnormal).
    Exited {
        /// How.
        exit: Exit,
        /// What follows.
        #[cfg_attr(feature = "serde", serde(flatten))]
        next: Next,
    },
    /// The incarnation was asked to end.
    Stopping,
    /// The incarnation was killed because it did not end in time, or at once if so configured.
    Killing,
    /// The incarnation ended as asked.
    Stopped {
        /// How.
        exit: Exit,
        /// Whether that is how this child should end when asked (else OTP's `shutdown_error`).
        clean: bool,
    },
    /// A start or restart that was still to come is called off.
    CalledOff,
    /// The incarnation did not end after it was killed; it is no longer waited for.
    Leaked,
    /// Automatic restarts are off.
    Paused,
    /// Automatic restarts are on again.
    Resumed,
    /// A dependency was started again, and the incarnation is restarted with it.
    Follows,
}

impl ChildReport {
    /// Returns the stable name of the event on the wire and in logs: `child_` and the variant in small letters, such as
    /// `child_start_failed`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Added => "child_added",
            Self::Removed => "child_removed",
            Self::Starting => "child_starting",
            Self::Ready => "child_ready",
            Self::Unhealthy => "child_unhealthy",
            Self::Healthy => "child_healthy",
            Self::Ignored => "child_ignored",
            Self::StartFailed { .. } => "child_start_failed",
            Self::Exited { .. } => "child_exited",
            Self::Stopping => "child_stopping",
            Self::Killing => "child_killing",
            Self::Stopped { .. } => "child_stopped",
            Self::CalledOff => "child_called_off",
            Self::Leaked => "child_leaked",
            Self::Paused => "child_paused",
            Self::Resumed => "child_resumed",
            Self::Follows => "child_follows",
        }
    }

    /// Returns the one copy of a report that says nothing more than its name.
    #[cfg(feature = "runtime")]
    pub(crate) fn plain(self) -> Option<&'static Self> {
        Some(match self {
            Self::Added => &Self::Added,
            Self::Removed => &Self::Removed,
            Self::Starting => &Self::Starting,
            Self::Ready => &Self::Ready,
            Self::Unhealthy => &Self::Unhealthy,
            Self::Healthy => &Self::Healthy,
            Self::Ignored => &Self::Ignored,
            Self::Stopping => &Self::Stopping,
            Self::Killing => &Self::Killing,
            Self::CalledOff => &Self::CalledOff,
            Self::Leaked => &Self::Leaked,
            Self::Paused => &Self::Paused,
            Self::Resumed => &Self::Resumed,
            Self::Follows => &Self::Follows,
            Self::StartFailed { .. } | Self::Exited { .. } | Self::Stopped { .. } => return None,
        })
    }

    /// Returns what happened in words.
    pub fn words(&self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Starting => "started",
            Self::Ready => "ready",
            Self::Unhealthy => "fails its health check",
            Self::Healthy => "healthy again",
            Self::Ignored => "nothing to run",
            Self::StartFailed { .. } => "start failed",
            Self::Exited { .. } => "ended",
            Self::Stopping => "asked to stop",
            Self::Killing => "killed",
            Self::Stopped { .. } => "stopped",
            Self::CalledOff => "restart called off",
            Self::Leaked => "did not end after it was killed",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Follows => "restarted with a dependency",
        }
    }
}

/// A report of a supervisor about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(tag = "type", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum SupervisorReport {
    /// Its initial children have been started.
    Started,
    /// It exceeded its restart intensity (OTP's `reached_max_restart_intensity`).
    LimitReached,
    /// Its significant children ended.
    AutoShutdown,
    /// A first start failed; the children started before are stopped.
    Unwinding,
    /// It stops its children, in order.
    Ending,
    /// Its children are gone.
    Ended {
        /// How it ends.
        exit: Exit,
    },
}

impl SupervisorReport {
    /// Returns the stable name of the event on the wire and in logs: `supervisor_` and the variant in small letters, such
    /// as `supervisor_limit_reached`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started => "supervisor_started",
            Self::LimitReached => "supervisor_limit_reached",
            Self::AutoShutdown => "supervisor_auto_shutdown",
            Self::Unwinding => "supervisor_unwinding",
            Self::Ending => "supervisor_ending",
            Self::Ended { .. } => "supervisor_ended",
        }
    }
}
