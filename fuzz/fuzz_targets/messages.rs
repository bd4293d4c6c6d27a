//! See `nodejobs_proc::fuzzing::messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nodejobs_proc::fuzzing::messages(bytes));
