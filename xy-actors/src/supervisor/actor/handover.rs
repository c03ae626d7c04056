//! The actor's side of a hand-over: standing still, saying what is, going on, and taking up.

use std::collections::BTreeMap;
use std::time::Instant;

use ractor::ActorRef;
use tokio::sync::{oneshot, watch};

use super::{SupervisorArguments, SupervisorState};
use crate::child::Reporter;
use crate::exit::{Cause, Exit, ExitReport};
use crate::path::TreePath;
use crate::policy::decision::handover::{Alive, StateError, moment, offset};
use crate::policy::{ChildKey, Incarnation, Policy, TimerToken};
use crate::spec::SupervisorSpec;
use crate::supervisor::handover::{self as state, HandOverFuture, LiveState};
use crate::supervisor::message::SupervisorMessage;
use crate::supervisor::record::{Live, Record};
use crate::supervisor::{Life, Recipes, Tree};

/// Who is told what the children say about themselves, once nothing is being started any more.
pub(crate) type HoldReply = oneshot::Sender<Vec<(ChildKey, HandOverFuture)>>;

/// What a supervisor gets from the program before this one.
pub(super) struct Inheritance {
    lives: BTreeMap<ChildKey, LiveState>,
    timers: Vec<(ChildKey, TimerToken, Instant)>,
}

/// Whether a supervisor stands still.
#[derive(Default)]
pub(super) enum Standstill {
    /// It does not.
    #[default]
    No,
    /// It begins no start and waits for those under way; times are asked for as of this moment.
    Waits(Instant, HoldReply),
    /// It begins no start, and its children have been asked.
    Held,
}

impl SupervisorArguments {
    /// Describes a supervisor that goes on where one of an earlier program stopped, at the moment that is `now` here.
    pub(crate) fn taken_up(
        spec: SupervisorSpec,
        children: Recipes,
        state: state::SupervisorState,
        now: Instant,
        path: TreePath,
        tree: Tree,
        parent: Option<Reporter>,
    ) -> Result<(Self, watch::Receiver<Life>), StateError> {
        let mut policy = Policy::restored(spec, children, &state.policy, now, |spec, recipe| {
            Record::new(recipe, path.join(&spec.id))
        })?;
        let mut inheritance = Inheritance { lives: BTreeMap::new(), timers: Vec::new() };
        for child in state.children {
            let key = ChildKey::new(child.key);
            if let (Some(due), Some(token)) = (child.due, policy.timer(key)) {
                inheritance.timers.push((key, token, moment(due, now)));
            }
            if let Some(live) = child.live {
                inheritance.lives.insert(key, live);
            }
            if let Some(record) = policy.data_mut(key) {
                record.restore(child.record, now);
            }
        }
        let (life, receiver) = watch::channel(Life::Starting);
        Ok((Self { policy, path, tree, parent, life, inheritance: Some(inheritance) }, receiver))
    }
}

impl SupervisorState {
    pub(super) fn is_held(&self) -> bool {
        !matches!(self.standstill, Standstill::No)
    }

    pub(super) fn on_hold(&mut self, now: Instant, reply: HoldReply) {
        self.standstill = Standstill::Waits(now, reply);
        self.hold_if_quiet();
    }

    /// Calls off what is still being started.
    pub(super) fn on_hold_now(&mut self) {
        for (child, _, _) in self.policy.incarnations() {
            if let Some(record) = self.policy.data_mut(child)
                && let Live::Pending { task, .. } = &record.live
            {
                task.abort();
                record.live = Live::None;
            }
        }
        self.pending_starts = 0;
        self.hold_if_quiet();
    }

    /// Asks the children once nothing is being started any more.
    pub(super) fn hold_if_quiet(&mut self) {
        if self.pending_starts > 0 || !matches!(self.standstill, Standstill::Waits(..)) {
            return;
        }
        let Standstill::Waits(now, reply) = std::mem::replace(&mut self.standstill, Standstill::Held) else {
            return;
        };
        let mut futures = Vec::new();
        for (child, _, _) in self.policy.incarnations() {
            if let Some(Live::Running(running)) = self.policy.data_mut(child).map(|record| &mut record.live)
                && let Some(future) = running.hand_over(now)
            {
                futures.push((child, future));
            }
        }
        // Whoever asked and is gone has told us to go on.
        let _gone = reply.send(futures);
    }

    pub(super) fn on_hand_over(&mut self, now: Instant) -> Option<state::SupervisorState> {
        let policy = self.policy.state(now)?;
        let children = policy.children.iter().filter_map(|child| {
            let key = ChildKey::new(child.key);
            let record = self.policy.data(key)?;
            let due = self.policy.timer(key).and_then(|token| self.timers.due(token));
            Some(state::ChildState {
                key: child.key,
                due: due.map(|due| offset(due, now)),
                record: record.state(now),
                live: None,
            })
        });
        let children = children.collect();
        Some(state::SupervisorState { policy, children })
    }

    pub(super) fn on_go_on(&mut self, myself: &ActorRef<SupervisorMessage>) {
        if !self.is_held() {
            return;
        }
        self.standstill = Standstill::No;
        for (child, incarnation, alive) in self.policy.incarnations() {
            let Some(record) = self.policy.data_mut(child) else { continue };
            match &mut record.live {
                Live::Running(running) => {
                    running.go_on();
                    // It heard nothing of what it was asked meanwhile.
                    if record.kill_asked {
                        record.live.kill();
                    } else if record.stop_asked {
                        record.live.stop();
                    }
                }
                Live::None => self.bring(myself, child, incarnation, alive, None),
                Live::Pending { .. } | Live::Actor(_) => {}
            }
        }
    }

    pub(super) fn on_take_up(&mut self, myself: &ActorRef<SupervisorMessage>, inheritance: Inheritance) {
        let Inheritance { mut lives, timers } = inheritance;
        if self.policy.is_started() {
            self.end.life.send_replace(Life::Started);
            if let Some(parent) = &self.end.parent {
                parent.ready();
            }
        }
        for (child, token, at) in timers {
            self.timers.arm(child, token, at, self.clock.now, myself);
        }
        for (child, incarnation, alive) in self.policy.incarnations() {
            self.bring(myself, child, incarnation, alive, lives.remove(&child));
        }
    }

    /// Sees to it that there is what policy believes in: an incarnation that lives on, or its beginning or end.
    fn bring(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        child: ChildKey,
        incarnation: Incarnation,
        alive: Alive,
        live: Option<LiveState>,
    ) {
        let input = match (live, alive) {
            (Some(live), _) => {
                self.begin(myself, child, incarnation, |recipe, context| recipe.take_up(context, live))
            }
            (None, Alive::Starting) => self.begin_start(myself, child, incarnation),
            (None, Alive::Stopping) => Some(self.called_off(child, incarnation)),
            (None, Alive::Ready) => {
                let report = self.alike.share(ExitReport::new(Exit::Abnormal, Cause::Aborted));
                Some(self.note_exit(child, incarnation, report))
            }
        };
        if let Some(input) = input {
            self.feed(myself, input);
        }
    }
}
