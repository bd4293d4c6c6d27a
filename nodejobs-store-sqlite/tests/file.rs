//! The file, where SQLite's own marks, tables, pages and log matter; what holds for every store is in the conformance suite.

mod common;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use common::{applied, execute, id, insert, remove, update};
use nodejobs_core::Status;
use nodejobs_core::store::{JobStore, StoreError, Unit};
use nodejobs_store_sqlite::SqliteStore;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// Every file of the directory with what is in it.
fn contents(directory: &Path) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    entries.map(|entry| (entry.file_name(), fs::read(entry.path()).expect("a file"))).collect()
}

fn refused(path: &Path) -> StoreError {
    let error = SqliteStore::open(path).expect_err("this must be refused");
    assert!(error.to_string().contains(&path.display().to_string()), "{error} does not name the path");
    error
}

#[test]
fn a_file_of_another_program_is_refused_and_left_as_it_is() {
    for (pragma, expected) in [("application_id = 1", 1), ("application_id = 0", 0)] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("nodejobs.sqlite");
        let store = SqliteStore::open(&path).expect("open");
        store.commit(&[insert("a", Status::Queued)]).expect("commit");
        drop(store);
        execute(&path, &format!("PRAGMA {pragma}"));
        // So wide a mode would be narrowed if it were ours.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        let before = contents(directory.path());
        let error = refused(&path);
        assert!(
            matches!(error, StoreError::UnknownFormat { found, known: 4, .. } if found == expected),
            "{error:?}"
        );
        assert!(contents(directory.path()) == before, "{pragma}: something was written");
        assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o644);
    }
}

#[test]
fn a_format_that_only_the_write_ahead_log_tells_is_refused_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    drop(SqliteStore::open(&path).expect("open"));
    let raw = Connection::open(&path).expect("raw");
    raw.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("config");
    raw.execute_batch("PRAGMA user_version = 9").expect("raw");
    drop(raw);
    let wal = directory.path().join("nodejobs.sqlite-wal");
    let before = (fs::read(&path).expect("a file"), fs::read(&wal).expect("a log"));
    let error = refused(&path);
    assert!(matches!(error, StoreError::UnknownFormat { found: 9, known: 4, .. }), "{error:?}");
    assert!(
        (fs::read(&path).expect("a file"), fs::read(&wal).expect("a log")) == before,
        "something was written"
    );
}

#[test]
fn a_torn_file_and_a_log_without_one_are_damaged_and_never_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let whole = directory.path().join("whole");
    drop(SqliteStore::open(&whole).expect("open"));
    let whole = fs::read(&whole).expect("a file");
    let mut torn = whole[..4096].to_vec();
    torn[100..].fill(0xff);
    let mut other_magic = whole.clone();
    other_magic[0] = b's';
    let cases: [(&str, &[u8]); 3] =
        [("only a header", &whole[..100]), ("a torn first page", &torn), ("another magic", &other_magic)];
    for (what, bytes) in cases {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("nodejobs.sqlite");
        fs::write(&path, bytes).expect("write");
        let error = refused(&path);
        assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error:?}");
        assert!(error.source().is_some(), "{what}: no source");
        assert!(fs::read(&path).expect("a file") == bytes, "{what}: something was written");
    }

    // A log without its file: a new file would be mixed with it.
    let path = directory.path().join("gone");
    fs::write(directory.path().join("gone-wal"), b"log").expect("write");
    assert!(matches!(refused(&path), StoreError::Damaged { .. }));
    assert!(!path.exists());
}

#[test]
fn a_store_without_its_tables_is_damaged() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    drop(SqliteStore::open(&path).expect("open"));
    Connection::open(&path).and_then(|raw| raw.execute_batch("DROP TABLE attempts")).expect("raw");
    assert!(matches!(refused(&path), StoreError::Damaged { .. }));
}

#[test]
fn a_damaged_record_is_named_and_never_left_out() {
    for (column, value) in [
        ("command", "'{'"),
        ("status", "'done'"),
        ("id", "'../x'"),
        ("reason", "'?'"),
        ("policy", "'{}x'"),
        ("slots", "-1"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("nodejobs.sqlite");
        let store = SqliteStore::open(&path).expect("open");
        store.commit(&["a", "b", "c"].map(|name| insert(name, Status::Running))).expect("commit");
        let raw = Connection::open(&path).expect("raw");
        raw.execute_batch(&format!("UPDATE jobs SET {column} = {value} WHERE seq = 2")).expect("raw");
        let request = nodejobs_core::store::PageRequest {
            filter: Default::default(),
            order: Default::default(),
            after: None,
            limit: 10,
        };
        let mut errors = vec![store.jobs(&request).expect_err("damaged")];
        if column != "id" {
            errors.push(store.job(&id("b")).expect_err("damaged"));
            errors.push(store.attempts(&id("b")).expect_err("damaged"));
        }
        if column == "status" {
            errors.push(store.counts().expect_err("damaged"));
            // Nothing of the commit is done, and what follows is not disturbed.
            let units = [update("a", 1, Status::Finished), update("b", 1, Status::Finished)];
            errors.push(store.commit(&units).expect_err("damaged"));
            assert_eq!(store.job(&id("a")).expect("read").map(|job| job.revision), Some(1));
            assert_eq!(store.commit(&units[..1]).expect("commit"), [applied(1, 4)]);
        }
        for error in errors {
            let text = error.to_string();
            assert!(matches!(error, StoreError::Damaged { .. }), "{column}: {error:?}");
            assert!(text.contains("seq 2") && text.contains(column), "{column}: {text}");
            assert!(error.source().is_some());
        }
        // The others can still be read one by one.
        assert!(store.job(&id("c")).expect("read").is_some());
    }
}

#[test]
fn a_damaged_page_is_an_error_that_names_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    let store = SqliteStore::open(&path).expect("open");
    let units: Vec<Unit> = (0..500).map(|number| insert(&format!("job{number}"), Status::Finished)).collect();
    store.commit(&units).expect("commit");
    drop(store);
    let mut bytes = fs::read(&path).expect("a file");
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 8 * 4096].fill(0xa5);
    fs::write(&path, &bytes).expect("write");
    let store = SqliteStore::open(&path).expect("the head is whole");
    let request = nodejobs_core::store::PageRequest {
        filter: Default::default(),
        order: Default::default(),
        after: None,
        limit: usize::MAX,
    };
    let error = store.jobs(&request).expect_err("damaged");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}

#[test]
fn counts_that_are_wrong_are_found_by_the_check() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    let store = SqliteStore::open(&path).expect("open");
    store.commit(&[insert("a", Status::Running)]).expect("commit");
    assert!(store.check(&mut |_| ()).expect("checked").is_sound());
    execute(&path, "UPDATE counts SET jobs = 2");
    let check = store.check(&mut |_| ()).expect("checked");
    assert!(!check.is_sound() && check.problems.iter().any(|said| said.contains("counts")), "{check:?}");
}

#[test]
fn the_store_and_whoever_else_writes_count_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    let store = SqliteStore::open(&path).expect("open");
    store.commit(&[insert("a", Status::Running), insert("b", Status::Running)]).expect("commit");
    execute(&path, "UPDATE jobs SET status = 'failed' WHERE id = 'a'");
    assert_eq!(store.counts().expect("counts"), [(Status::Running, 1), (Status::Failed, 1)].into());
    store.commit(&[update("b", 1, Status::Finished), remove("a", 1), remove("a", 1)]).expect("commit");
    assert_eq!(store.counts().expect("counts"), [(Status::Finished, 1)].into());
    execute(&path, "DELETE FROM jobs");
    assert_eq!(store.counts().expect("counts"), [].into());
}

#[test]
fn a_look_at_an_older_format_leaves_it_as_it_is_and_opening_it_makes_it_the_present_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    let old = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/format-2.sqlite");
    fs::copy(old, &path).expect("copied");
    let before = contents(directory.path());
    let look = SqliteStore::look(&path, || true).expect("a store");
    assert_eq!((look.format, look.complete), (2, true));
    assert_eq!(contents(directory.path()), before);
    let store = SqliteStore::open(&path).expect("open");
    let header = fs::read(&path).expect("a file");
    assert_eq!(header[60..64], [0, 0, 0, 4], "the header tells it to whoever does not look into the log");
    let jobs = look.jobs.expect("counted");
    assert_eq!(store.counts().expect("counts").values().sum::<u64>(), jobs);
}

#[test]
fn a_look_reads_all_it_has_time_for_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    let store = SqliteStore::open(&path).expect("open");
    let units: Vec<Unit> = (0..500).map(|number| insert(&format!("job{number}"), Status::Finished)).collect();
    store.commit(&units).expect("commit");
    drop(store);
    let before = contents(directory.path());
    let look = SqliteStore::look(&path, || true).expect("a store");
    assert_eq!((look.jobs, look.complete), (Some(500), true));
    let look = SqliteStore::look(&path, || false).expect("a store");
    assert!(!look.complete);
    assert_eq!(contents(directory.path()), before);

    let mut bytes = fs::read(&path).expect("a file");
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 8 * 4096].fill(0xa5);
    fs::write(&path, &bytes).expect("write");
    let error = SqliteStore::look(&path, || true).expect_err("damaged");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    let error = SqliteStore::look(&directory.path().join("nowhere"), || true).expect_err("missing");
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
}
