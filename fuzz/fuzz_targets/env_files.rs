//! See `nodejobs_core::fuzzing::env_files`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nodejobs_core::fuzzing::env_files(bytes));
