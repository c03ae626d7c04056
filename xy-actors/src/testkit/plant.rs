//! Panics that tests plant where none should ever be: in the tasks that work for a process.

use std::sync::{Mutex, PoisonError};

use crate::process::Helper;

/// By the path of the child.
static PLANTED: Mutex<Vec<(String, Helper)>> = Mutex::new(Vec::new());

/// Makes the next task panic that does this for the process at this path.
///
/// The plants are the whole program's: give the child a name that no other test has.
pub fn plant_panic(path: &str, helper: Helper) {
    PLANTED.lock().unwrap_or_else(PoisonError::into_inner).push((path.to_owned(), helper));
}

/// Takes the plant, if there is one.
pub(crate) fn has_planted_panic(path: &str, helper: Helper) -> bool {
    let mut planted = PLANTED.lock().unwrap_or_else(PoisonError::into_inner);
    let found = planted.iter().position(|(at, what)| at == path && *what == helper);
    found.map(|index| planted.swap_remove(index)).is_some()
}
