//! Readiness probes against scripted servers on loopback, with the real clock.

#![cfg(target_os = "linux")]

mod http;
mod mcp;
mod owner;
mod server;
