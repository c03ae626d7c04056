//! Fuzzes the reader `history`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xy_daemon::readers::history(bytes));
