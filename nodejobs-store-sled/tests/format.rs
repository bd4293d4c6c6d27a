//! What becomes of a store of an older format.

use std::fs;
use std::path::Path;

use nodejobs_core::store::JobStore as _;
use nodejobs_store_sled::SledStore;

#[test]
fn opening_an_older_format_makes_it_the_present_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.sled");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1.sled");
    copy(&fixture, &path);
    let count = fs::read_to_string(fixture.join("nodejobs")).expect("a mark");
    let store = SledStore::open(&path).expect("open");
    assert_eq!(store.info().format, 2);
    drop(store);
    let mark = fs::read_to_string(path.join("nodejobs")).expect("a mark");
    assert_eq!(mark, count.replace("format 1", "format 2"), "and the count of commits is as it was");
    SledStore::open(&path).expect("opened again");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}
