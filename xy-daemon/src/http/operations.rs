//! What was asked for and may take longer than a client waits: a bounded table of operations and their results.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::protocol::error::RpcError;

/// What an operation is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Progress {
    /// It waits for its turn.
    Queued,
    /// It has begun.
    Running,
    /// It has a result or an error.
    Done,
}

/// One operation, as clients see it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct Operation {
    /// What `/v1/operations/{id}` knows it by.
    pub(super) id: String,
    /// The method of the control protocol.
    pub(super) method: &'static str,
    /// The server, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<String>,
    /// What it is doing.
    pub(super) state: Progress,
    /// When it was asked for, in milliseconds since the Unix epoch.
    pub(super) asked_at_unix_ms: u64,
    /// When it was done, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) done_at_unix_ms: Option<u64>,
    /// The method's result, once it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub(super) result: Option<Box<RawValue>>,
    /// Why there is none, once it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<RpcError>,
}

/// Many operations, as clients see them.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Operations {
    /// The latest first, without their results.
    pub(super) operations: Vec<Operation>,
}

/// The operations of one server, the latest `capacity` of them.
#[derive(Debug)]
pub(super) struct OperationTable {
    /// What tells ids of this daemon from those of an earlier one.
    epoch: String,
    capacity: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    operations: VecDeque<Operation>,
    asked: u64,
}

impl OperationTable {
    pub(super) fn new(epoch: String, capacity: usize) -> Self {
        Self { epoch, capacity, table: Mutex::default() }
    }

    /// Enters an operation; the oldest one that is done makes room. `None` if all of them are under way.
    pub(super) fn enter(&self, method: &'static str, server: Option<String>, now: u64) -> Option<Operation> {
        let mut table = self.table();
        if table.operations.len() >= self.capacity {
            let oldest = table.operations.iter().position(|one| one.state == Progress::Done)?;
            table.operations.remove(oldest);
        }
        table.asked += 1;
        let operation = Operation {
            id: format!("{}-{}", self.epoch, table.asked),
            method,
            server,
            state: Progress::Queued,
            asked_at_unix_ms: now,
            done_at_unix_ms: None,
            result: None,
            error: None,
        };
        table.operations.push_back(operation.clone());
        Some(operation)
    }

    /// Notes that an operation has begun.
    pub(super) fn begin(&self, id: &str) {
        self.change(id, |operation| operation.state = Progress::Running);
    }

    /// Notes what an operation came to.
    pub(super) fn finish(&self, id: &str, outcome: &Result<Box<RawValue>, RpcError>, now: u64) {
        self.change(id, |operation| {
            operation.state = Progress::Done;
            operation.done_at_unix_ms = Some(now);
            match outcome {
                Ok(result) => operation.result = Some(result.clone()),
                Err(error) => operation.error = Some(error.clone()),
            }
        });
    }

    /// Returns one operation.
    pub(super) fn get(&self, id: &str) -> Option<Operation> {
        self.table().operations.iter().find(|operation| operation.id == id).cloned()
    }

    /// Returns all operations, the latest first, without their results.
    pub(super) fn list(&self) -> Operations {
        let short = |operation: &Operation| Operation { result: None, ..operation.clone() };
        Operations { operations: self.table().operations.iter().rev().map(short).collect() }
    }

    /// Returns how many are under way.
    pub(super) fn under_way(&self) -> usize {
        self.table().operations.iter().filter(|operation| operation.state != Progress::Done).count()
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Operation)) {
        if let Some(operation) = self.table().operations.iter_mut().find(|operation| operation.id == id) {
            change(operation);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each critical section leaves the table valid at every step.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::error::ErrorKind;

    fn done() -> Result<Box<RawValue>, RpcError> {
        Ok(RawValue::from_string("{}".to_owned()).unwrap())
    }

    #[test]
    fn an_operation_is_queued_then_running_then_done_with_its_result() {
        let operations = OperationTable::new("e".to_owned(), 2);
        let id = operations.enter("start", Some("web".to_owned()), 5).unwrap().id;
        assert_eq!(operations.get(&id).unwrap().state, Progress::Queued);
        operations.begin(&id);
        assert_eq!(operations.get(&id).unwrap().state, Progress::Running);
        assert_eq!(operations.under_way(), 1);
        operations.finish(&id, &done(), 7);
        let operation = operations.get(&id).unwrap();
        assert_eq!((operation.state, operation.done_at_unix_ms), (Progress::Done, Some(7)));
        assert_eq!(operation.result.unwrap().get(), "{}");
        assert_eq!(operations.under_way(), 0);
    }

    #[test]
    fn a_full_table_gives_up_what_is_done_and_never_what_is_under_way() {
        let operations = OperationTable::new("e".to_owned(), 2);
        let [first, second] = [(); 2].map(|()| operations.enter("stop", None, 0).unwrap().id);
        assert!(operations.enter("stop", None, 0).is_none());
        let refused = Err(RpcError::new(ErrorKind::NotReady, "no"));
        operations.finish(&second, &refused, 1);
        let third = operations.enter("stop", None, 0).unwrap().id;
        assert!(operations.get(&second).is_none());
        let ids: Vec<String> =
            operations.list().operations.into_iter().map(|operation| operation.id).collect();
        assert_eq!(ids, [third, first]);
    }
}
