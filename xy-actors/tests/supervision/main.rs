//! Real supervisors with scripted children, on a paused clock unless threads are involved.

mod actors;
mod addresses;
mod events;
mod health;
mod ledger;
mod lifecycle;
mod nesting;
mod never_blocks;
mod own_child;
mod partitions;
mod run;
mod spawning;
mod start_context;
mod support;
