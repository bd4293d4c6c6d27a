//! Values at their edges, and several threads at once.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{all_jobs, definition, id, insert, new_attempt, remove, state, update};
use nodejobs_core::spec::Command;
use nodejobs_core::store::{
    DocumentChange, DocumentKind, JobChange, JobStore, PageRequest, Rejection, Unit, UnitOutcome,
};
use nodejobs_core::{RawText, Status};
use nodejobs_store_sqlite::SqliteStore;
use rusqlite::Connection;

#[test]
fn bytes_that_are_not_utf8_come_back_and_the_rest_is_readable_text() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    let store = SqliteStore::open(&path).expect("open");
    let odd = RawText::from(b"/srv/\xff\xfe\x80".to_vec());
    let mut raw = definition(Command::Argv(vec![odd.clone(), "ü".into()]));
    raw.cwd = odd.clone();
    raw.logs.path = odd.clone();
    let mut plain = definition(Command::shell("echo 'ü'"));
    plain.cwd = "/srv/ü".into();
    let document = DocumentChange::Put { kind: DocumentKind::Meta, key: "k".to_owned(), body: vec![0xff, 0] };
    let units = [("odd", &raw), ("plain", &plain)].map(|(name, definition)| {
        let definition = Box::new(definition.clone());
        let job = JobChange::Insert { id: id(name), definition, state: state(1, Status::Queued) };
        Unit { job: Some(job), documents: vec![document.clone()] }
    });
    store.commit(&units).expect("commit");
    assert_eq!(store.job(&id("odd")).expect("read").map(|job| job.definition), Some(raw));
    assert_eq!(store.job(&id("plain")).expect("read").map(|job| job.definition), Some(plain));
    assert_eq!(store.document(DocumentKind::Meta, "k").expect("read"), Some(vec![0xff, 0]));

    // What a person with a shell sees while the store is open.
    let shell = Connection::open(&path).expect("raw");
    let sql = "SELECT id || ' ' || typeof(cwd) || ' ' || dirname || ' ' || command FROM jobs WHERE id = 'plain'
               UNION ALL SELECT id || ' ' || typeof(cwd) || ' ' || typeof(logfile) FROM jobs WHERE id = 'odd'";
    let mut statement = shell.prepare(sql).expect("prepare");
    let lines: Vec<String> =
        statement.query_map([], |row| row.get(0)).expect("query").map(|line| line.expect("a line")).collect();
    assert_eq!(lines, [r#"plain text ü {"shell":"echo 'ü'"}"#, "odd blob blob"]);
}

#[test]
fn values_of_a_mebibyte_come_back_through_every_change() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&directory.path().join("nodejobs.sqlite")).expect("open");
    let big = "x".repeat(1 << 20);
    let mut large = definition(Command::argv(["echo", &big]));
    large.labels.insert("l".to_owned(), big.clone());
    large.cwd = vec![0xff; 1 << 20].into();
    let key = "k".repeat(1 << 20);
    let body = vec![0xfe; 1 << 20];
    let mut running = state(1, Status::Running);
    running.detail = Some(big.clone());
    let insert = JobChange::Insert {
        id: id("a"),
        definition: Box::new(large.clone()),
        state: state(1, Status::Starting),
    };
    let put = DocumentChange::Put { kind: DocumentKind::Context, key: key.clone(), body: body.clone() };
    let update = JobChange::Update { id: id("a"), expected: 1, state: running.clone() };
    store.commit(&[Unit { job: Some(insert), documents: vec![put] }, update.into()]).expect("commit");
    let job = store.job(&id("a")).expect("read").expect("there");
    assert!(job.definition == large && job.state == running);
    assert!(store.document(DocumentKind::Context, &key).expect("read") == Some(body));
    let mut request =
        PageRequest { filter: Default::default(), order: Default::default(), after: None, limit: 1 };
    request.filter.label.push(("l".to_owned(), Some(big)));
    assert_eq!(store.jobs(&request).expect("page").jobs.len(), 1);
}

#[test]
fn removed_jobs_leave_nothing_but_their_events() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    let store = SqliteStore::open(&path).expect("open");
    let mut labelled = definition(Command::argv(["true"]));
    labelled.labels.insert("a".to_owned(), "b".to_owned());
    let labelled =
        JobChange::Insert { id: id("x"), definition: Box::new(labelled), state: state(1, Status::Finished) };
    store
        .commit(&[labelled.into(), new_attempt("x", 1, 2, Status::Running), {
            JobChange::Update { id: id("x"), expected: 2, state: state(2, Status::Lost) }.into()
        }])
        .expect("commit");
    assert_eq!(store.attempts(&id("x")).expect("attempts").len(), 2);
    store.commit(&[remove("x", 3)]).expect("commit");
    assert_eq!(store.attempts(&id("x")).expect("attempts"), []);
    assert_eq!(store.events(0, 9).expect("events").len(), 3);
    let raw = Connection::open(&path).expect("raw");
    for table in ["jobs", "attempts", "job_labels"] {
        let sql = format!("SELECT count(*) FROM {table}");
        assert_eq!(raw.query_row(&sql, [], |row| row.get::<_, i64>(0)).expect(table), 0, "{table}");
    }
}

#[test]
fn of_racing_changes_one_wins_and_the_others_hear_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&directory.path().join("nodejobs.sqlite")).expect("open");
    let barrier = std::sync::Barrier::new(8);
    let (inserted, updated) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                match store.commit(&[insert("a", Status::Starting)]).expect("commit")[0] {
                    UnitOutcome::Applied { .. } => inserted.fetch_add(1, Ordering::Relaxed),
                    UnitOutcome::Rejected(rejection) => {
                        assert_eq!(rejection, Rejection::Exists);
                        0
                    }
                };
                match store.commit(&[update("a", 1, Status::Running)]).expect("commit")[0] {
                    UnitOutcome::Applied { .. } => updated.fetch_add(1, Ordering::Relaxed),
                    UnitOutcome::Rejected(rejection) => {
                        assert_eq!(rejection, Rejection::Stale { found: 2 });
                        0
                    }
                };
            });
        }
    });
    assert_eq!((inserted.into_inner(), updated.into_inner()), (1, 1));
    assert_eq!(store.events(0, 9).expect("events").len(), 2);
}

#[test]
fn readers_see_whole_commits_while_others_are_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&directory.path().join("nodejobs.sqlite")).expect("open");
    let (done, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut seen = 0;
                while !done.load(Ordering::Acquire) {
                    let before = acknowledged.load(Ordering::Acquire);
                    let jobs = all_jobs(&store).len() as u64;
                    assert!(
                        jobs >= before && jobs >= seen && jobs.is_multiple_of(3),
                        "{jobs} after {before}, {seen}"
                    );
                    seen = jobs;
                    assert!(store.counts().expect("counts").values().sum::<u64>() >= seen);
                }
            });
        }
        for number in 0..100 {
            let units = ["a", "b", "c"].map(|name| insert(&format!("{name}{number}"), Status::Running));
            store.commit(&units).expect("commit");
            acknowledged.fetch_add(3, Ordering::Release);
        }
        done.store(true, Ordering::Release);
    });
}
