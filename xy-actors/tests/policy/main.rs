//! The pure half against OTP's rules: no clock, no actor, no process.

mod dependencies;
mod harness;
mod health;
mod limits;
mod operations;
mod order;
mod races;
mod restarts;
mod significant;
