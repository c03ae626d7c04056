//! The pure half against naive models: its small modules, and the laws of a whole supervisor.

mod backoff;
mod intensity;
mod supervisor;
