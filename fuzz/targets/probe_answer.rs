//! Fuzzes the reader `probe_answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xy_daemon::readers::run("probe_answer", bytes));
