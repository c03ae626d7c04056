//! Fuzzes the reader `journal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xy_daemon::readers::journal(bytes));
