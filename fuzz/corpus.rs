//! Runs a property over the corpus of its fuzz target; part of the tests of each crate that has properties.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Panics, with the names of the files, where the property does not hold, and where there is no corpus.
pub(crate) fn for_each(target: &str, property: impl Fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries =
        std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    assert!(!files.is_empty(), "{} is empty", directory.display());
    files.sort();
    files.retain(|file| {
        let bytes = std::fs::read(file).expect("a readable file");
        catch_unwind(AssertUnwindSafe(|| property(&bytes))).is_err()
    });
    assert!(files.is_empty(), "the property of {target} does not hold for {files:#?}");
}
