//! The small pure modules against naive models.

mod backoff;
mod intensity;
