//! The states of one child: what is wanted, what is observed, whether it is ready.
//!
//! ```text
//!            Start                 ready                 exit, no restart
//! Stopped ────────────► Starting ────────► Ready ──────────────────────────► Stopped
//!    │  ▲                  │ ▲                │ exit, restart                   (or removed)
//!    │  │ gone             │ │ timer          ▼
//!    │  └──── Stopping ◄───┴─┼────────── Waiting ──── limit, give up ──────► Failed
//!    │            ▲  stop    └──────────────┘  │
//!    └► Queued ───┘ (its turn, a dependency)   └──── paused ───────────────► Held ── resume ► Starting
//! ```
//!
//! `Starting`, `Ready` and `Stopping` are *alive*: an incarnation exists. Only the supervisor's
//! [`Policy`](crate::policy::Policy) moves a child.

use std::fmt;
use std::time::Instant;

use crate::policy::shutdown::Rung;

/// A child's identity within its supervisor. Keys grow, so their order is the start order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildKey(u64);

impl ChildKey {
    /// The lowest key.
    pub const FIRST: Self = Self(0);

    /// Creates a key.
    pub fn new(key: u64) -> Self {
        Self(key)
    }

    /// Returns the key as a number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for ChildKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// One start of a child, counted from 1. Every timer, probe result and exit carries it; a stale one is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Incarnation(u64);

impl Incarnation {
    /// The value of a child that was never started.
    pub const NONE: Self = Self(0);

    /// Creates an incarnation.
    pub fn new(incarnation: u64) -> Self {
        Self(incarnation)
    }

    /// Returns the number.
    pub fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What the operator asked for, as opposed to what is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Wanted {
    /// It should run.
    Up,
    /// It should stay down until somebody starts it; group restarts respect that.
    Down,
}

impl Wanted {
    /// Returns the stable name used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a child is observed to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum State {
    /// No incarnation, and none is planned.
    Stopped,
    /// Until the incarnation is first ready, waiting for its turn or a dependency included.
    Starting,
    /// Ready, or ready once and now failing its liveness check.
    Running,
    /// Ended and about to be started again, now or after a delay.
    Restarting,
    /// Given up: its own restart limit is reached, or its start failed and its restart type allows no other.
    Failed,
    /// Asked to end, and not gone yet.
    Stopping,
}

impl State {
    /// Returns the stable name used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who asked for a start, which decides what a failure of it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum Origin {
    /// The supervisor's own start: a failure unwinds it (as in OTP).
    Initial,
    /// `start_child`: a failure drops the spec.
    Added,
    /// An operator or `restart_child`: a failure leaves the child stopped.
    Asked,
    /// A restart: a failure counts and is tried again.
    Automatic,
}

/// What follows once a stopping child is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) enum After {
    /// It stays stopped; a temporary or dynamic child is removed.
    Rest,
    /// It is started again.
    Start,
    /// It is removed, whatever its restart type.
    Remove,
    /// It was part of a group restart and waits for its turn.
    Group,
    /// It did not become ready in time: a failed start of this origin.
    StartFailed(Origin),
    /// It failed its health check: a crash.
    Unhealthy,
}

/// A child's phase, finer than its [`State`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Phase {
    Stopped,
    Failed,
    /// Ended while paused; `resume` restarts it.
    Held,
    Queued(Origin),
    Waiting {
        until: Instant,
    },
    Starting(Origin),
    Ready {
        since: Instant,
    },
    Stopping {
        rung: Rung,
        after: After,
    },
}

impl Phase {
    pub(crate) fn is_alive(self) -> bool {
        matches!(self, Self::Starting(_) | Self::Ready { .. } | Self::Stopping { .. })
    }

    pub(crate) fn state(self) -> State {
        match self {
            Self::Stopped | Self::Held => State::Stopped,
            Self::Failed => State::Failed,
            Self::Queued(Origin::Automatic) | Self::Waiting { .. } => State::Restarting,
            Self::Queued(_) | Self::Starting(_) => State::Starting,
            Self::Ready { .. } => State::Running,
            Self::Stopping { .. } => State::Stopping,
        }
    }
}
