//! A supervisor's table of deadlines, with one sleeping task for the earliest of them.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use ractor::ActorRef;
use tokio::task::AbortHandle;

use crate::policy::{ChildKey, TimerToken};
use crate::supervisor::message::SupervisorMessage;

#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeMap<(Instant, TimerToken), ChildKey>,
    at: HashMap<TimerToken, Instant>,
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
        self.due.insert((at, token), child);
        self.at.insert(token, at);
        self.sleep(now, supervisor);
    }

    /// Forgets a timer. The sleeper is left alone: waking up once for nothing is cheaper than a new task.
    pub(crate) fn disarm(&mut self, token: TimerToken) {
        if let Some(at) = self.at.remove(&token) {
            self.due.remove(&(at, token));
        }
    }

    /// Takes the timers that are due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<(ChildKey, TimerToken)> {
        // One that sleeps longer was not what woke us; forgetting it would leave it asleep beside its successor.
        if self.sleeper.as_ref().is_some_and(|(wakes, _)| *wakes <= now) {
            self.sleeper = None;
        }
        let mut taken = Vec::new();
        while let Some((&(at, token), &child)) = self.due.first_key_value()
            && at <= now
        {
            self.due.remove(&(at, token));
            self.at.remove(&token);
            taken.push((child, token));
        }
        taken
    }

    /// Sees to it that the sleeper wakes up for the earliest timer.
    pub(crate) fn sleep(&mut self, now: Instant, supervisor: &ActorRef<SupervisorMessage>) {
        let Some((&(at, _), _)) = self.due.first_key_value() else { return };
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
}

impl Drop for Timers {
    fn drop(&mut self) {
        if let Some((_, sleeper)) = self.sleeper.take() {
            sleeper.abort();
        }
    }
}
