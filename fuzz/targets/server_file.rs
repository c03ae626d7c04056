//! Fuzzes the reader `server_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xy_daemon::readers::server_file(bytes));
