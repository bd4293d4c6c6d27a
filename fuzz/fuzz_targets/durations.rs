//! See `nodejobs_core::fuzzing::durations`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nodejobs_core::fuzzing::durations(bytes));
