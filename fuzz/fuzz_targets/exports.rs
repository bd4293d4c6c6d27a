//! See `nodejobs_core::fuzzing::exports`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nodejobs_core::fuzzing::exports(bytes));
