//! The control plane over HTTP on a real socket, against a scripted service, and once against `xyd` itself.
#![cfg(feature = "server")]

mod daemon;
mod description;
mod embedded;
mod guard;
mod limits;
mod mcp;
mod permission;
mod routes;
mod scopes;
#[expect(dead_code, reason = "the socket's tests need more of it")]
#[path = "../protocol/harness.rs"]
mod script;
mod server;
mod stream;
mod token;
