//! Readiness and health, of scripted servers on loopback and of real processes, with the real clock.

#![cfg(target_os = "linux")]

mod catalog;
mod exec;
mod http;
mod liveness;
mod log;
mod mcp;
mod notify;
mod owner;
mod server;
mod support;
mod watchdog;
