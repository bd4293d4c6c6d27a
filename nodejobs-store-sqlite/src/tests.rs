//! Tests that have to reach inside: a disk that is full, a lock that somebody holds.

use std::time::Duration;

use nodejobs_core::job::{Definition, JobState};
use nodejobs_core::spec::{Command, JobSpec};
use nodejobs_core::store::{JobChange, JobStore, StoreError, Unit, UnitOutcome};
use nodejobs_core::{JobId, Status, Timestamp};
use rusqlite::Connection;

use crate::SqliteStore;

fn insert(name: &str, argument: &str) -> Unit {
    let now = Timestamp::default();
    let spec = JobSpec::new(Command::argv(["echo", argument]), "/");
    JobChange::Insert {
        id: JobId::new(name).expect("a valid id"),
        definition: Box::new(Definition::new(&spec, "/logs".into(), now)),
        state: JobState::new(1, Status::Queued, now),
    }
    .into()
}

#[test]
fn a_full_disk_takes_the_whole_commit_back_and_the_store_works_again_later() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&directory.path().join("nodejobs.sqlite")).expect("open");
    store.commit(&[insert("before", "x")]).expect("commit");
    let pages: i64 =
        store.writer().pragma_query_value(None, "page_count", |row| row.get(0)).expect("page count");
    // The engine's own limit answers as the disk does.
    let limit = |pages: i64| {
        store
            .writer()
            .pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, i64>(0))
            .expect("limit");
    };
    limit(pages + 2);
    let units = [insert("small", "x"), insert("large", &"x".repeat(1 << 20))];
    let error = store.commit(&units).expect_err("full");
    assert!(matches!(error, StoreError::Full { operation: "write to", .. }), "{error:?}");
    let gone = store.job(&JobId::new("small").expect("a valid id")).expect("read");
    assert_eq!(gone, None);
    limit(1_000_000);
    let outcomes = store.commit(&units).expect("commit");
    let expected = [UnitOutcome::Applied { seq: 2, event: 2 }, UnitOutcome::Applied { seq: 3, event: 3 }];
    assert_eq!(outcomes, expected);
}

#[test]
fn a_lock_of_somebody_else_is_in_use_and_disturbs_no_reader() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    let store = SqliteStore::open(&path).expect("open");
    store.writer().busy_timeout(Duration::ZERO).expect("no patience");
    let other = Connection::open(&path).expect("open");
    other.execute_batch("BEGIN IMMEDIATE").expect("lock");
    let error = store.commit(&[insert("a", "x")]).expect_err("locked");
    assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
    assert_eq!(store.counts().expect("readable").len(), 0);
    other.execute_batch("ROLLBACK").expect("unlock");
    assert_eq!(store.commit(&[insert("a", "x")]).expect("commit").len(), 1);
}

#[test]
fn reads_do_not_wait_for_the_writer_and_cannot_write() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&directory.path().join("nodejobs.sqlite")).expect("open");
    store.commit(&[insert("a", "x")]).expect("commit");
    let writer = store.writer();
    writer.execute_batch("BEGIN IMMEDIATE; DELETE FROM jobs").expect("a commit that takes its time");
    assert_eq!(store.counts().expect("readable").len(), 1);
    writer.execute_batch("ROLLBACK").expect("rollback");
    let refused = store.read(|connection| Ok(connection.execute_batch("DELETE FROM jobs")?));
    assert!(refused.is_err());
}

#[test]
fn a_store_at_rest_has_an_empty_log_and_waits_for_no_reader() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    let store = SqliteStore::open(&path).expect("open");
    let wal = || std::fs::metadata(directory.path().join("nodejobs.sqlite-wal")).expect("a log").len();
    assert!(!store.has_put_off());
    store.commit(&[insert("a", "x")]).expect("commit");
    assert!(store.has_put_off() && wal() > 0);
    store.rest().expect("rest");
    assert!(!store.has_put_off());
    assert_eq!((wal(), store.counts().expect("readable").len()), (0, 1));

    let reader = Connection::open(&path).expect("a reader");
    reader.execute_batch("BEGIN; SELECT count(*) FROM jobs").expect("it reads");
    store.commit(&[insert("b", "x")]).expect("commit");
    let started = std::time::Instant::now();
    store.rest().expect("as far as it gets");
    assert!(started.elapsed() < crate::open::BUSY_TIMEOUT / 2);
    assert!(wal() > 0, "the reader still needs it");
    reader.execute_batch("COMMIT").expect("it has read");
    store.commit(&[insert("c", "x")]).expect("commit");
    store.rest().expect("rest");
    assert_eq!(wal(), 0);
    drop(store);
    assert_eq!(SqliteStore::open(&path).expect("open").counts().expect("readable").values().sum::<u64>(), 3);
}

#[test]
fn the_log_is_cut_after_a_burst_and_gone_after_the_last_handle() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    let store = SqliteStore::open(&path).expect("open");
    let wal = || std::fs::metadata(directory.path().join("nodejobs.sqlite-wal")).map(|log| log.len());
    let burst: Vec<Unit> = (0..40).map(|n| insert(&format!("big{n}"), &"x".repeat(1 << 20))).collect();
    store.commit(&burst).expect("commit");
    assert!(wal().expect("a log") > 32 << 20);
    // The commit after the one that folded it in starts the log anew.
    store.commit(&[insert("a", "x")]).expect("commit");
    assert!(wal().expect("a log") <= 16 << 20);
    drop(store);
    assert!(wal().is_err(), "the log is still there");
}
