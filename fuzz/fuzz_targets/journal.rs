//! See `nodejobs_proc::fuzzing::journal`.
#![no_main]

use std::sync::LazyLock;

static DIRECTORY: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a directory"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nodejobs_proc::fuzzing::journal(DIRECTORY.path(), bytes));
