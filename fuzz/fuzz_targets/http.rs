//! See `nodejobs::fuzzing::http`.
#![no_main]

use std::sync::LazyLock;

static DIRECTORY: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a directory"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nodejobs::fuzzing::http(DIRECTORY.path(), bytes));
