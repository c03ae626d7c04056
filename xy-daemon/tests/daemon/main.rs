//! The real `xyd` in a directory of its own, asked through the typed client.

#![cfg(target_os = "linux")]

mod boot;
mod chaos;
mod crashes;
mod ends;
mod guard;
mod logs;
mod operations;
mod reload;
mod settings;
mod support;
