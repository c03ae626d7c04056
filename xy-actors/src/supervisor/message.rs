//! What a supervisor actor is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::child::{Child, StartError, StartErrorKind, StartInfo, Started};
use crate::exit::{Exit, ExitReport};
use crate::policy::{ChildKey, Incarnation, Operation, Outcome, Refusal};
use crate::snapshot::Counts;
use crate::spec::ChildSpec;
use crate::supervisor::line::Line;
use crate::supervisor::{ChildHistory, ChildInfo, ChildRef, SignalError, Supervisor};

/// Which child an operation is about, and why it is asked for.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) child: ChildRef,
    pub(crate) reason: Option<Arc<str>>,
}

/// The answer to an operation, with what policy does not know.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) outcome: Outcome,
    /// How the child's last incarnation ended, or why its last start failed.
    pub(crate) exit: Option<Arc<ExitReport>>,
    pub(crate) start_error: Option<StartErrorKind>,
    /// What the start handed back.
    pub(crate) info: Option<StartInfo>,
}

/// What a health check says about an incarnation that was ready.
#[derive(Debug)]
pub(crate) enum Health {
    /// It can serve again.
    Good,
    /// It cannot serve at present, for this reason.
    Poor(Arc<str>),
    /// It is to be replaced, for this reason.
    Failed(Arc<str>),
}

/// The messages of a supervisor actor.
pub(crate) enum SupervisorMessage {
    /// Start the initial children.
    Begin,
    StartChild {
        spec: Arc<ChildSpec>,
        child: Arc<dyn Child>,
        reply: oneshot::Sender<Reply>,
    },
    Operate {
        target: Target,
        operation: fn(ChildKey) -> Operation,
        reply: oneshot::Sender<Reply>,
    },
    Update {
        spec: Arc<ChildSpec>,
        child: Option<Arc<dyn Child>>,
        reply: oneshot::Sender<Reply>,
    },
    Signal {
        child: ChildRef,
        signal: i32,
        reply: oneshot::Sender<Result<(), SignalError>>,
    },
    WhichChildren {
        reply: oneshot::Sender<Vec<ChildInfo>>,
    },
    WhichChild {
        child: ChildRef,
        reply: oneshot::Sender<Result<Box<(ChildInfo, ChildHistory)>, Refusal>>,
    },
    ChildSpec {
        child: ChildRef,
        reply: oneshot::Sender<Result<ChildSpec, Refusal>>,
    },
    ChildSupervisor {
        child: ChildRef,
        reply: oneshot::Sender<Result<Supervisor, Refusal>>,
    },
    /// Somebody has an address of the child.
    Line {
        child: ChildRef,
        reply: oneshot::Sender<Result<watch::Receiver<Line>, Refusal>>,
    },
    CountChildren {
        reply: oneshot::Sender<Counts>,
    },
    /// A start that was not done at its first poll has come to this; `None` if it was called off.
    StartFinished {
        child: ChildKey,
        incarnation: Incarnation,
        result: Option<Result<Started, StartError>>,
    },
    Ready {
        child: ChildKey,
        incarnation: Incarnation,
    },
    Exited {
        child: ChildKey,
        incarnation: Incarnation,
        report: Box<ExitReport>,
    },
    /// An incarnation that was ready cannot serve, or can again.
    Health {
        child: ChildKey,
        incarnation: Incarnation,
        health: Health,
    },
    /// A start asks for more time.
    ExtendStart {
        child: ChildKey,
        incarnation: Incarnation,
        by: Duration,
    },
    /// A stop needs so much less time than was planned.
    StopAhead {
        child: ChildKey,
        incarnation: Incarnation,
        by: Duration,
    },
    WaitsFor {
        child: ChildKey,
        incarnation: Incarnation,
        what: Option<Arc<str>>,
    },
    /// Timers are due.
    TimersDue,
    /// Stop all children in order and end like this.
    Shutdown {
        exit: Exit,
        reason: Option<String>,
    },
    /// Kill all children and end.
    Kill,
    /// Begin no start any more; when those under way have ended, ask the children what they are, as of `now`.
    #[cfg(feature = "process")]
    Hold {
        now: std::time::Instant,
        reply: super::actor::HoldReply,
    },
    /// Call off the starts that are still under way.
    #[cfg(feature = "process")]
    HoldNow,
    /// Say what is so as of `now`; nothing, if the supervisor is ending.
    #[cfg(feature = "process")]
    HandOver {
        now: std::time::Instant,
        reply: oneshot::Sender<Option<super::handover::SupervisorState>>,
    },
    /// Go on: there is no next program.
    #[cfg(feature = "process")]
    GoOn,
}

#[cfg(feature = "cluster")]
impl ractor::Message for SupervisorMessage {}
