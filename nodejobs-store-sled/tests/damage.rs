//! A log that is damaged, cut or replaced is told, wherever that is: sled itself goes on with what comes before it.

use std::path::Path;

use nodejobs_core::job::{Definition, JobState};
use nodejobs_core::spec::{Command, JobSpec};
use nodejobs_core::store::{JobChange, JobStore, StoreError};
use nodejobs_core::{JobId, Status, Timestamp};
use nodejobs_store_sled::SledStore;

const JOBS: usize = 200;

fn insert(store: &SledStore, number: usize) {
    let now = Timestamp::from_millis(1_784_000_000_000);
    let definition = Definition::new(&JobSpec::new(Command::argv(["true"]), "/"), "/var/log".into(), now);
    let change = JobChange::Insert {
        id: JobId::new(&format!("job-{number}")).expect("an id"),
        definition: Box::new(definition),
        state: JobState::new(1, Status::Queued, now),
    };
    store.commit(&[change.into()]).expect("committed");
}

fn count(store: &SledStore) -> u64 {
    store.counts().expect("counts").values().sum()
}

/// Opens a copy of the store with another log.
fn with_log(good: &Path, log: &[u8]) -> Result<u64, StoreError> {
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("store");
    std::fs::create_dir(&copy).expect("made");
    for entry in std::fs::read_dir(good).expect("a store").map(|entry| entry.expect("an entry")) {
        if entry.file_type().expect("a type").is_file() {
            std::fs::copy(entry.path(), copy.join(entry.file_name())).expect("copied");
        }
    }
    std::fs::write(copy.join("db"), log).expect("written");
    SledStore::open(&copy).map(|store| count(&store))
}

#[test]
fn commits_that_sled_has_forgotten_are_missed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let store = SledStore::open(&path).expect("new");
    (0..JOBS / 2).for_each(|number| insert(&store, number));
    drop(store);
    let half = std::fs::read(path.join("db")).expect("a log");
    let store = SledStore::open(&path).expect("there");
    (JOBS / 2..JOBS).for_each(|number| insert(&store, number));
    drop(store);
    let good = std::fs::read(path.join("db")).expect("a log");
    assert_eq!(with_log(&path, &good).expect("sound"), JOBS as u64);

    let written = good.iter().rposition(|byte| *byte != 0).expect("a log with something in it");
    let mut refused = 0;
    for tenth in 0..10 {
        let mut damaged = good.clone();
        let at = 64 + written / 10 * tenth;
        damaged[at..at + 64].fill(0xAB);
        // Some of it may be what sled does not need any more. What counts is that nothing is gone unsaid.
        match with_log(&path, &damaged) {
            Ok(count) => assert_eq!(count, JOBS as u64, "damaged at {at}"),
            Err(StoreError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("damaged at {at}: {error}"),
        }
    }
    assert!(refused > 0, "nothing was damaged");
    let error = with_log(&path, &half).expect_err("an older log");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    // Without the file nothing is known, and nothing is in the way.
    std::fs::remove_file(path.join("commits")).expect("removed");
    assert_eq!(with_log(&path, &good).expect("sound"), JOBS as u64);
}
