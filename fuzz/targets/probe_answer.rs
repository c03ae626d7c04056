//! Fuzzes the reader `probe_answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xy_daemon::readers::probe_answer(bytes));
