//! What becomes of a store of an older format.

use std::fs;

use nodejobs_core::store::JobStore as _;
use nodejobs_store_redb::RedbStore;

#[test]
fn opening_an_older_format_makes_it_the_present_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.redb");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/format-1.redb"), &path).expect("copied");
    let store = RedbStore::open(&path).expect("open");
    assert_eq!(store.info().format, 2);
    drop(store);
    assert!(fs::read(&path).expect("a file").starts_with(b"nodejobs redb store, format 2\n\0"));
    RedbStore::open(&path).expect("opened again");
}
