//! The control protocol over a real socket, against a scripted service.
#![cfg(feature = "server")]

mod client;
mod connection;
mod harness;
mod jsonrpc;
mod permission;
mod reference;
mod short;
mod socket;
mod subscription;
mod versions;
mod wire;
