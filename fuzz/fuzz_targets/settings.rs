//! See `nodejobs::fuzzing::settings`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nodejobs::fuzzing::settings(bytes));
