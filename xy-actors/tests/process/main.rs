//! Real programs under a process host: what they get, how they end, and that nothing of them is left.

mod cgroup;
mod helpers;
mod host_process;
mod ledger;
mod port;
mod secrets;
mod settings;
mod spawn;
mod spawn_errors;
mod stop_command;
mod support;
mod sweep;
mod tree;
