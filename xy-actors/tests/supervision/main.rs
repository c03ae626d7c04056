//! Real actors with scripted children, on a paused clock.

mod actors;
mod events;
mod health;
mod lifecycle;
mod never_blocks;
mod support;
