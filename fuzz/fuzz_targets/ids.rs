//! See `nodejobs_core::fuzzing::ids`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nodejobs_core::fuzzing::ids(bytes));
