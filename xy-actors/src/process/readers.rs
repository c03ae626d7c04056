//! What reads bytes that others have written, one function each, so that a fuzzer and the tests run the same code.
//!
//! Each panics if what it read breaks a promise of its reader.

use super::{ledger, readiness};

/// Reads a ledger; what it says is the same once it is written anew.
///
/// # Panics
/// If a promise is broken.
pub fn ledger(bytes: &[u8]) {
    ledger::read_twice(bytes);
}

/// Reads the answer to an HTTP or MCP probe as a connection may bring it. The first byte says in what pieces, and the second
/// of which kind it is.
///
/// # Panics
/// If a promise is broken.
pub fn probe_answer(bytes: &[u8]) {
    let [step, kind, answer @ ..] = bytes else { return };
    readiness::read_answer(answer, usize::from(*step).max(1), kind % 2 == 1);
}

/// Reads a datagram as in sd_notify(3).
///
/// # Panics
/// If a promise is broken.
pub fn notification(bytes: &[u8]) {
    readiness::notify::read_datagram(bytes);
}
