//! `xyctl` as a process against a daemon whose answers are scripted, or the real one: standard output, standard error and exit code.

mod daemon;
mod errors;
mod lifecycle;
mod operations;
mod queries;
mod streams;
mod up;
mod xyctl;
