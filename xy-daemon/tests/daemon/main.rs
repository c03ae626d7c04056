//! The real `xyd` in a directory of its own, asked through the typed client.

#![cfg(target_os = "linux")]

mod activation;
mod boot;
mod catalog;
mod chaos;
mod crashes;
mod dependencies;
mod ends;
mod exhaustion;
mod faults;
mod groups;
mod guard;
mod health;
mod idle;
mod journal;
mod logs;
mod operations;
mod reload;
mod secrets;
mod service;
mod settings;
mod support;
mod taken_over;
mod upgrade;
