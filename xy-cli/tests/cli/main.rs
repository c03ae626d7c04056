//! `xyctl` as a process: standard output, standard error and exit code, against a daemon whose answers are scripted, and
//! against a real one with real servers.

mod agent_host;
mod catalog;
mod daemon;
mod embedded;
mod end_to_end;
mod errors;
mod every;
mod import;
mod lifecycle;
mod mcp;
mod operations;
mod permission;
mod queries;
mod real;
mod shapes;
mod streams;
mod token;
mod tools;
mod top;
mod up;
mod xyctl;
