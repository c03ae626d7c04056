//! Erlang-style supervision trees.

pub mod exit;
pub mod spec;

#[cfg(feature = "process")]
pub mod log;
#[cfg(feature = "process")]
pub mod process;
