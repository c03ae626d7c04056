//! Requests that wait for an operator's answer: a bounded table.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::protocol::method::{Approval, GrantScope};

/// The most requests that wait at a time; further ones are refused.
pub const MOST: usize = 64;

/// What an operator says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is carried out.
    Approved {
        /// Who said so.
        by: String,
        /// How often.
        scope: GrantScope,
    },
    /// It is refused.
    Denied {
        /// Who said so.
        by: String,
        /// Why, if that was said.
        reason: Option<String>,
    },
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    asked: u64,
    waiting: BTreeMap<u64, (Approval, oneshot::Sender<Answer>)>,
}

/// A request's place in the table, which it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    table: &'a Waiting,
    number: u64,
    pub(super) approval: Approval,
    pub(super) answer: oneshot::Receiver<Answer>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.table.table().waiting.remove(&self.number);
    }
}

impl Waiting {
    /// Enters a request, and gives it its id; `None` if too many wait.
    pub(super) fn enter(&self, mut approval: Approval) -> Option<Place<'_>> {
        let mut table = self.table();
        if table.waiting.len() >= MOST {
            return None;
        }
        table.asked += 1;
        let number = table.asked;
        approval.id = number.to_string();
        let (sender, answer) = oneshot::channel();
        table.waiting.insert(number, (approval.clone(), sender));
        Some(Place { table: self, number, approval, answer })
    }

    /// Returns what waits, the oldest first.
    pub(super) fn list(&self) -> Vec<Approval> {
        self.table().waiting.values().map(|(approval, _)| approval.clone()).collect()
    }

    /// Returns one that waits.
    pub(super) fn get(&self, id: &str) -> Option<Approval> {
        self.table().waiting.get(&id.parse().ok()?).map(|(approval, _)| approval.clone())
    }

    /// Answers a request; false if it does not wait any more.
    pub(super) fn answer(&self, id: &str, answer: Answer) -> bool {
        let taken = id.parse().ok().and_then(|number: u64| self.table().waiting.remove(&number));
        taken.is_some_and(|(_, sender)| sender.send(answer).is_ok())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each critical section is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
