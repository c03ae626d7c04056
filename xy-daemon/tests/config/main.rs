//! Configuration files, checked in and written on the spot: what loads, what is refused and in which words, and what
//! a reload makes of it.
#![cfg(feature = "server")]

mod accepted;
mod dependencies;
mod files;
mod groups;
mod mutation;
mod refused;
mod reload;
mod settings;
mod support;
