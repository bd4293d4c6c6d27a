//! See `nodejobs_core::fuzzing::words`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nodejobs_core::fuzzing::words(bytes));
