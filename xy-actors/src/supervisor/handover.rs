//! A tree as plain data, for the next program of this process, which goes on with the same children.
//!
//! ```text
//! hand_over(): hold (no start begins, those under way end) ─► each child says what it is ─► policy and history
//!    go on ◄── dropped: there is no next program                             │ TreeHandOver::state, then the exchange
//!                                                                            ▼
//!              SupervisorBuilder::take_up(state) ─► policy believes what it believed ─► Child::take_up for each
//! ```
//! From the hold on a supervisor takes in what happens and decides, but performs no start: what it has decided is part of
//! the state and done by whoever goes on. A start that is called off leaves nothing running and is begun anew.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::event::stream::EventLogState;
use crate::path::TreePath;
use crate::policy::decision::handover::PolicyState;
pub use crate::policy::decision::handover::StateError;
use crate::policy::{ChildKey, Policy};
use crate::process::handover::{ProcessState, monotonic};
use crate::spec::{ChildSpec, SupervisorSpec};
use crate::supervisor::Supervisor;
use crate::supervisor::message::SupervisorMessage;
use crate::supervisor::record::RecordState;

/// How long a start may go on before it is called off.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// How long children may take to say what they are; most do at once, one whose stop command runs when that has ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a child says about itself, with the descriptors that go with it; `None` if it has ended meanwhile.
pub type HandOverFuture =
    Pin<Box<dyn Future<Output = Result<Option<(LiveState, Vec<OwnedFd>)>, HandOverError>> + Send>>;

/// A living incarnation.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum LiveState {
    /// A process.
    Process(Box<ProcessState>),
    /// A supervisor.
    Supervisor(Box<SupervisorState>),
}

/// Everything about one tree but the specs and recipes of its children.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TreeState {
    root: SupervisorState,
    events: EventLogState,
    /// The moment that times are relative to.
    at: Duration,
}

/// Everything about one supervisor but the specs and recipes of its children.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SupervisorState {
    pub(super) policy: PolicyState,
    pub(super) children: Vec<ChildState>,
}

/// What belongs to one child beside policy.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct ChildState {
    pub(super) key: u64,
    /// When its timer is due.
    pub(super) due: Option<i64>,
    pub(super) record: RecordState,
    pub(super) live: Option<LiveState>,
}

/// Why a tree cannot be handed over. It goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// A supervisor is ending, or is of a kind that has no state.
    #[error("supervisor `{0}` is ending, or cannot be handed over")]
    Ending(TreePath),
    /// A child has something under way that cannot be interrupted.
    #[error("a child is busy with its end; try again later")]
    Busy,
    /// A descriptor could not be duplicated.
    #[error("a descriptor of a child cannot be duplicated")]
    Descriptor(#[source] io::Error),
    /// The supervisor has ended.
    #[error("the supervisor has ended")]
    Gone,
}

impl TreeState {
    /// Returns the markers of the processes that children have.
    pub fn markers(&self) -> BTreeSet<String> {
        let mut markers = BTreeSet::new();
        self.root.collect_markers(&mut markers);
        markers
    }

    /// Checks that it can be taken up by a root with these flags and children.
    ///
    /// # Errors
    /// If a child has no spec, or the state contradicts itself.
    pub fn check(&self, spec: SupervisorSpec, children: Vec<ChildSpec>) -> Result<(), StateError> {
        let recipes = children.into_iter().map(|spec| (spec.into(), ())).collect();
        Policy::restored(spec, recipes, &self.root.policy, super::actor::now(), |_, ()| ()).map(drop)
    }

    pub(super) fn into_parts(self) -> (SupervisorState, EventLogState, Instant) {
        // What has gone by since belongs to every delay and every deadline.
        let gone_by = monotonic().saturating_sub(self.at);
        let now = super::actor::now();
        (self.root, self.events, now.checked_sub(gone_by).unwrap_or(now))
    }
}

impl SupervisorState {
    fn collect_markers(&self, markers: &mut BTreeSet<String>) {
        for live in self.children.iter().filter_map(|child| child.live.as_ref()) {
            match live {
                LiveState::Process(process) => {
                    markers.insert(process.marker().to_owned());
                }
                LiveState::Supervisor(supervisor) => supervisor.collect_markers(markers),
            }
        }
    }
}

/// A tree that stands still, and what it is.
///
/// Dropping it lets the tree go on as if nothing had been: that is for a program that could not be exchanged.
#[derive(Debug)]
#[must_use = "the tree stands still as long as this is held"]
pub struct TreeHandOver {
    state: TreeState,
    descriptors: Vec<OwnedFd>,
    _held: Held,
}

impl TreeHandOver {
    /// Returns what the tree is.
    pub fn state(&self) -> &TreeState {
        &self.state
    }

    /// Takes the descriptors that the state refers to by their numbers. They must stay open under these.
    pub fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }
}

/// Lets a supervisor go on when it is dropped.
#[derive(Debug)]
struct Held(Supervisor);

impl Drop for Held {
    fn drop(&mut self) {
        // One that is gone does not go on.
        let _gone = self.0.actor.send_message(SupervisorMessage::GoOn);
    }
}

impl Supervisor {
    /// Brings the whole tree to a standstill and says what it is; see [`SupervisorBuilder::take_up`].
    ///
    /// Its children run on. Children that are neither processes nor supervisors begin anew where it is taken up.
    ///
    /// # Errors
    /// If the tree is ending, or a child does not come to rest in time. It goes on then.
    ///
    /// # Cancel safety
    /// Cancel safe: a tree whose state is not asked for any more goes on by itself.
    ///
    /// [`SupervisorBuilder::take_up`]: crate::supervisor::SupervisorBuilder::take_up
    pub async fn hand_over(&self) -> Result<TreeHandOver, HandOverError> {
        let held = Held(self.clone());
        let (now, at) = (super::actor::now(), monotonic());
        let (root, descriptors) = self.hand_over_at(now).await?;
        let state = TreeState { root, events: self.tree.events.state(), at };
        Ok(TreeHandOver { state, descriptors, _held: held })
    }

    pub(super) async fn hand_over_at(
        &self,
        now: Instant,
    ) -> Result<(SupervisorState, Vec<OwnedFd>), HandOverError> {
        let futures = self.hold(now).await?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let (mut lives, mut descriptors) = (Vec::new(), Vec::new());
        for (key, future) in futures {
            let answer =
                tokio::time::timeout_at(deadline, future).await.map_err(|_| HandOverError::Busy)??;
            if let Some((live, fds)) = answer {
                lives.push((key, live));
                descriptors.extend(fds);
            }
        }
        // After everything that the children have reported before.
        let (reply, state) = oneshot::channel();
        let message = SupervisorMessage::HandOver { now, reply };
        self.actor.send_message(message).map_err(|_| HandOverError::Gone)?;
        let state = state.await.map_err(|_| HandOverError::Gone)?;
        let mut state = state.ok_or_else(|| HandOverError::Ending(self.path.clone()))?;
        for (key, live) in lives {
            // One that has ended after it had said what it is has no life any more.
            if let Some(child) = state.children.iter_mut().find(|child| child.key == key.get()) {
                child.live = Some(live);
            }
        }
        Ok((state, descriptors))
    }

    async fn hold(&self, now: Instant) -> Result<Vec<(ChildKey, HandOverFuture)>, HandOverError> {
        let (reply, mut held) = oneshot::channel();
        let message = SupervisorMessage::Hold { now, reply };
        self.actor.send_message(message).map_err(|_| HandOverError::Gone)?;
        let answer = match tokio::time::timeout(START_PATIENCE, &mut held).await {
            Ok(answer) => answer,
            Err(_) => {
                self.actor.send_message(SupervisorMessage::HoldNow).map_err(|_| HandOverError::Gone)?;
                held.await
            }
        };
        answer.map_err(|_| HandOverError::Gone)
    }
}
