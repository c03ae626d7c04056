//! What was asked for and may take longer than a client waits: a bounded table of operations and their results.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;

use crate::protocol::error::RpcError;
use crate::protocol::method::{Operation, OperationsResult, Progress};

/// How many operations are remembered.
pub const MOST: usize = 256;

/// The operations of one daemon, the latest `capacity` of them.
#[derive(Debug)]
pub struct OperationTable {
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
    /// Creates an empty table for so many; ids begin with the epoch.
    pub fn new(epoch: String, capacity: usize) -> Self {
        Self { epoch, capacity, table: Mutex::default() }
    }

    /// Enters an operation; the oldest one that is done makes room. `None` if all of them are under way.
    pub fn enter(&self, method: &str, server: Option<String>, now: u64) -> Option<Operation> {
        let mut table = self.table();
        if table.operations.len() >= self.capacity {
            let oldest = table.operations.iter().position(|one| one.state == Progress::Done)?;
            table.operations.remove(oldest);
        }
        table.asked += 1;
        let operation = Operation {
            id: format!("{}-{}", self.epoch, table.asked),
            method: method.to_owned(),
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
    pub fn begin(&self, id: &str) {
        self.change(id, |operation| operation.state = Progress::Running);
    }

    /// Notes what an operation came to.
    pub fn finish(&self, id: &str, outcome: &Result<Box<RawValue>, RpcError>, now: u64) {
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
    pub fn get(&self, id: &str) -> Option<Operation> {
        self.table().operations.iter().find(|operation| operation.id == id).cloned()
    }

    /// Returns all operations, the latest first, without their results.
    pub fn list(&self) -> OperationsResult {
        let short = |operation: &Operation| Operation { result: None, ..operation.clone() };
        OperationsResult { operations: self.table().operations.iter().rev().map(short).collect() }
    }

    /// Returns how many are under way.
    pub fn under_way(&self) -> usize {
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
