//! Fuzzes the reader `settings_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xy_daemon::readers::settings_file(bytes));
