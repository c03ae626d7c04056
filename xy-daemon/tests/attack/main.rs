//! What somebody on the same machine may try against the real `xyd`, and that it comes to nothing.

#![cfg(target_os = "linux")]
#![cfg(feature = "testkit")]

mod links;
mod names;
mod other_user;
mod server;
#[expect(dead_code, reason = "the daemon's tests need more of it")]
#[path = "../daemon/support.rs"]
mod support;
