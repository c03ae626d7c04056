//! Erlang-style supervision trees.

pub mod event;
pub mod exit;
pub mod policy;
pub mod snapshot;
pub mod spec;

#[cfg(feature = "process")]
pub mod log;
#[cfg(feature = "process")]
pub mod process;
