//! Fuzzes the reader `handoff`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xy_daemon::readers::handoff(bytes));
