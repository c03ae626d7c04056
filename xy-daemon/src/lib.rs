//! The daemon around a supervision tree.

#[cfg(feature = "server")]
pub mod activation;
#[cfg(feature = "server")]
pub mod args;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod control;
#[cfg(feature = "server")]
pub mod daemon;
#[cfg(feature = "server")]
mod durable;
#[cfg(feature = "server")]
pub mod embed;
#[cfg(feature = "server")]
mod history;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod instance;
#[cfg(feature = "server")]
pub mod intent;
#[cfg(feature = "client")]
pub mod paths;
pub mod protocol;
#[cfg(feature = "server")]
pub mod registry;
#[cfg(feature = "server")]
pub mod reload;
#[cfg(feature = "server")]
pub mod rpc;
#[cfg(feature = "server")]
pub mod service;
#[cfg(feature = "server")]
pub mod signal;
#[cfg(feature = "server")]
pub mod socket;
#[cfg(feature = "server")]
pub mod telemetry;
#[cfg(feature = "server")]
pub mod upgrade;

#[cfg(feature = "server")]
pub use embed::{ServeError, ServeOptions, Server, serve};
