//! Real actors with scripted children, on a paused clock.

mod actors;
mod addresses;
mod events;
mod ledger;
mod lifecycle;
mod never_blocks;
mod partitions;
mod run;
mod support;
