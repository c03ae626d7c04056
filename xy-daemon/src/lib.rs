//! The daemon around a supervision tree.
//!
//! | for | there is |
//! |---|---|
//! | a program that asks a daemon | [`client`] and the types of [`protocol`] |
//! | a program with a tree of its own that `xyctl` is to control | [`serve`], with [`registry`] for its own methods |
//! | servers from files | [`daemon::run`], which `xyd` and `xyctl up` are made of |
//!
//! All of them answer by one [`control`], over the local socket ([`rpc`], [`socket`]) and over loopback HTTP ([`http`]).

#[cfg(feature = "server")]
pub mod activation;
#[cfg(feature = "server")]
pub mod args;
#[cfg(feature = "server")]
pub mod audit;
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
pub mod idle;
#[cfg(feature = "server")]
pub mod instance;
#[cfg(feature = "server")]
pub mod intent;
#[cfg(feature = "server")]
mod journal;
#[cfg(feature = "server")]
pub mod mcp_server;
#[cfg(feature = "server")]
pub mod operations;
#[cfg(feature = "client")]
pub mod paths;
#[cfg(feature = "server")]
pub mod permission;
pub mod protocol;
#[cfg(feature = "testkit")]
#[doc(hidden)]
pub mod readers;
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
pub mod unread;
#[cfg(feature = "server")]
pub mod upgrade;

#[cfg(feature = "server")]
pub use embed::{ServeError, ServeOptions, Server, serve};
