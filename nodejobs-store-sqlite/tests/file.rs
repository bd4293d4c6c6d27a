//! The file: who may read it, what is refused and left as it is, what a reopened one still knows.

mod common;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use common::{all_jobs, applied, id, insert, new_attempt, remove, update};
use nodejobs_core::Status;
use nodejobs_core::store::{DocumentChange, DocumentKind, JobStore, StoreError, Unit};
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
fn files_are_for_their_owner_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    let store = SqliteStore::open(&path).expect("open");
    store.commit(&[insert("a", Status::Queued)]).expect("commit");
    let modes = || -> BTreeMap<_, _> {
        let entries =
            fs::read_dir(directory.path()).expect("a directory").map(|entry| entry.expect("an entry"));
        let mode = |entry: &fs::DirEntry| entry.metadata().expect("metadata").permissions().mode() & 0o777;
        entries.map(|entry| (entry.file_name().into_string().expect("UTF-8"), mode(&entry))).collect()
    };
    let expected = ["nodejobs.sqlite", "nodejobs.sqlite-shm", "nodejobs.sqlite-wal"]
        .map(|name| (name.to_owned(), 0o600));
    assert_eq!(modes(), expected.clone().into());

    // A copy that came back with a wider mode is narrowed.
    drop(store);
    assert_eq!(modes(), expected[..1].iter().cloned().collect());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
    let _store = SqliteStore::open(&path).expect("open again");
    assert_eq!(modes()["nodejobs.sqlite"], 0o600);
}

#[test]
fn a_reopened_store_knows_everything_and_gives_no_number_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    let store = SqliteStore::open(&path).expect("open");
    let put = DocumentChange::Put { kind: DocumentKind::Meta, key: "k".to_owned(), body: b"v".to_vec() };
    let outcomes = store
        .commit(&[
            insert("a", Status::Finished),
            insert("b", Status::Lost),
            new_attempt("a", 1, 2, Status::Running),
            Unit { job: None, documents: vec![put] },
            remove("b", 1),
        ])
        .expect("commit");
    assert_eq!(outcomes, [applied(1, 1), applied(2, 2), applied(1, 3), applied(0, 0), applied(2, 0)]);
    let everything = |store: &SqliteStore| {
        (
            all_jobs(store),
            store.attempts(&id("a")).expect("attempts"),
            store.events(0, 9).expect("events"),
            store.documents(DocumentKind::Meta, "", None, 9).expect("documents"),
            store.counts().expect("counts"),
        )
    };
    let before = everything(&store);
    drop(store);
    let store = SqliteStore::open(&path).expect("open again");
    assert_eq!(everything(&store), before);
    // The number of the removed job, the last one there was, is not given again.
    assert_eq!(store.commit(&[insert("b", Status::Queued)]).expect("commit"), [applied(3, 4)]);
    let info = store.info();
    assert_eq!(
        (info.engine.as_str(), info.format, info.path, info.weaker),
        ("sqlite", 2, Some(path), vec![])
    );
}

#[test]
fn a_format_that_is_unknown_is_refused_and_left_as_it_is() {
    for (pragma, expected) in [
        ("user_version = 1", 1),
        ("user_version = 3", 3),
        ("user_version = 0", 0),
        ("application_id = 1", 1),
        ("application_id = 0", 0),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("nodejobs.sqlite");
        let store = SqliteStore::open(&path).expect("open");
        store.commit(&[insert("a", Status::Queued)]).expect("commit");
        drop(store);
        Connection::open(&path).and_then(|raw| raw.execute_batch(&format!("PRAGMA {pragma}"))).expect("raw");
        // So wide a mode would be narrowed if it were ours.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        let before = contents(directory.path());
        let error = refused(&path);
        assert!(
            matches!(error, StoreError::UnknownFormat { found, known: 2, .. } if found == expected),
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
    raw.execute_batch("PRAGMA user_version = 7").expect("raw");
    drop(raw);
    let wal = directory.path().join("nodejobs.sqlite-wal");
    let before = (fs::read(&path).expect("a file"), fs::read(&wal).expect("a log"));
    let error = refused(&path);
    assert!(matches!(error, StoreError::UnknownFormat { found: 7, known: 2, .. }), "{error:?}");
    assert!(
        (fs::read(&path).expect("a file"), fs::read(&wal).expect("a log")) == before,
        "something was written"
    );
}

#[test]
fn what_is_no_store_is_called_damaged_and_never_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let whole = directory.path().join("whole");
    drop(SqliteStore::open(&whole).expect("open"));
    let whole = fs::read(&whole).expect("a file");
    let mut torn = whole[..4096].to_vec();
    torn[100..].fill(0xff);
    let mut other_magic = whole.clone();
    other_magic[0] = b's';
    let cases: [(&str, &[u8]); 6] = [
        ("empty", b""),
        ("text", b"id,status\n"),
        ("zeros", &[0; 8192]),
        ("only a header", &whole[..100]),
        ("a torn first page", &torn),
        ("another magic", &other_magic),
    ];
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

/// Tests may run as root, whom no permission stops; a path below a regular file is refused to everybody.
#[test]
fn a_place_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    fs::write(&file, "x").expect("write");
    for path in [
        file.join("nodejobs.sqlite"),
        directory.path().join("no/such/nodejobs.sqlite"),
        directory.path().into(),
    ] {
        let error = refused(&path);
        assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
        assert!(error.source().is_some());
    }
    assert_eq!(contents(directory.path()).len(), 1);
}

#[test]
fn odd_names_are_files_all_the_same() {
    use std::os::unix::ffi::OsStrExt as _;
    let directory = tempfile::tempdir().expect("a directory");
    for name in [&b":memory:"[..], b"file:x?mode=memory", b"100%41 #?&.db", b"\xff\xfe"] {
        let path = directory.path().join(std::ffi::OsStr::from_bytes(name));
        let store = SqliteStore::open(&path).expect("open");
        store.commit(&[insert("a", Status::Queued)]).expect("commit");
        drop(store);
        assert!(path.is_file());
        assert_eq!(all_jobs(&SqliteStore::open(&path).expect("open again")).len(), 1);
    }
}

#[test]
fn racing_creators_get_one_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    let barrier = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (path, barrier) = (&path, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let store = SqliteStore::open(path).expect("open");
                store.commit(&[insert(&format!("job{number}"), Status::Queued)]).expect("commit");
            });
        }
    });
    assert_eq!(all_jobs(&SqliteStore::open(&path).expect("open")).len(), 8);
    assert_eq!(contents(directory.path()).len(), 1, "something was left over");
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
