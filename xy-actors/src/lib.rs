//! Erlang-style supervision trees.

pub mod event;
pub mod exit;
pub mod policy;
pub mod snapshot;
pub mod spec;

#[cfg(feature = "runtime")]
pub mod child;
#[cfg(feature = "runtime")]
pub mod path;
#[cfg(feature = "runtime")]
pub mod supervisor;

#[cfg(feature = "process")]
pub mod log;
#[cfg(feature = "process")]
pub mod process;

#[cfg(feature = "testkit")]
pub mod testkit;
