//! The daemon around a supervision tree.

#[cfg(feature = "server")]
pub mod args;
#[cfg(feature = "server")]
pub mod config;
pub mod protocol;
#[cfg(feature = "server")]
pub mod reload;
