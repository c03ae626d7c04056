//! A supervisor's table of deadlines, with one sleeping task for the earliest of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use ractor::ActorRef;
use tokio::task::AbortHandle;

use crate::policy::table::Table;
use crate::policy::{ChildKey, TimerToken};
use crate::supervisor::message::SupervisorMessage;

#[derive(Debug, Default)]
pub(crate) struct Timers {
    armed: Table<TimerToken, ChildKey>,
    /// The deadlines of what is armed, and of some that no longer are.
    due: BinaryHeap<Reverse<(Instant, TimerToken)>>,
    sleeper: Option<(Instant, AbortHandle)>,
}

impl Timers {
    pub(crate) fn arm(
        &mut self,
        child: ChildKey,
        token: TimerToken,
        at: Instant,
        now: Instant,
        supervisor: &ActorRef<SupervisorMessage>,
    ) {
        self.armed.insert(token, child);
        self.due.push(Reverse((at, token)));
        self.sleep(now, supervisor);
    }

    /// Makes a timer due earlier; few ever are.
    pub(crate) fn advance(
        &mut self,
        token: TimerToken,
        by: Duration,
        now: Instant,
        supervisor: &ActorRef<SupervisorMessage>,
    ) {
        let Some(at) = self.due(token) else { return };
        self.due.retain(|Reverse((_, other))| *other != token);
        self.due.push(Reverse((at.checked_sub(by).unwrap_or(now), token)));
        self.sleep(now, supervisor);
    }

    /// Forgets a timer. The sleeper is left alone: waking up once for nothing is cheaper than a new task.
    pub(crate) fn disarm(&mut self, token: TimerToken) {
        self.armed.remove(token);
        if self.due.len() > 2 * self.armed.len() + 64 {
            self.due.retain(|Reverse((_, token))| self.armed.get(*token).is_some());
            self.due.shrink_to(2 * self.due.len());
        }
    }

    /// Takes the timers that are due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<(ChildKey, TimerToken)> {
        // One that sleeps longer was not what woke us; forgetting it would leave it asleep beside its successor.
        if self.sleeper.as_ref().is_some_and(|(wakes, _)| *wakes <= now) {
            self.sleeper = None;
        }
        let mut taken = Vec::new();
        while let Some((at, token)) = self.earliest()
            && at <= now
        {
            self.due.pop();
            taken.extend(self.armed.remove(token).map(|child| (child, token)));
        }
        taken
    }

    /// Returns when an armed timer is due.
    pub(crate) fn due(&self, token: TimerToken) -> Option<Instant> {
        self.armed.get(token)?;
        self.due.iter().find(|Reverse((_, other))| *other == token).map(|Reverse((at, _))| *at)
    }

    /// Sees to it that the sleeper wakes up for the earliest timer.
    pub(crate) fn sleep(&mut self, now: Instant, supervisor: &ActorRef<SupervisorMessage>) {
        let Some((at, _)) = self.earliest() else { return };
        if self.sleeper.as_ref().is_some_and(|(wakes, _)| *wakes <= at) {
            return;
        }
        if let Some((_, sleeper)) = self.sleeper.take() {
            sleeper.abort();
        }
        if at <= now {
            // Through the mailbox, so that whatever is queued there gets in between.
            let _gone = supervisor.send_message(SupervisorMessage::TimersDue);
            return;
        }
        let supervisor = supervisor.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            let _gone = supervisor.send_message(SupervisorMessage::TimersDue);
        });
        self.sleeper = Some((at, task.abort_handle()));
    }

    /// Returns the earliest armed timer, forgetting the deadlines before it.
    fn earliest(&mut self) -> Option<(Instant, TimerToken)> {
        while let Some(&Reverse((at, token))) = self.due.peek() {
            if self.armed.get(token).is_some() {
                return Some((at, token));
            }
            self.due.pop();
        }
        None
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        if let Some((_, sleeper)) = self.sleeper.take() {
            sleeper.abort();
        }
    }
}
