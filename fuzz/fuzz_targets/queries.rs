//! See `nodejobs::fuzzing::queries`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nodejobs::fuzzing::queries(bytes));
