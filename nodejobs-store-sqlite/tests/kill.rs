//! A process that is killed while it commits loses nothing that it was told is on disk.

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{all_jobs, id, insert, remove, update};
use nodejobs_core::Status;
use nodejobs_core::store::{DocumentChange, DocumentKind, JobStore};
use nodejobs_store_sqlite::SqliteStore;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// Set for the process that will be killed: the store it commits to.
const STORE: &str = "NODEJOBS_TEST_KILL_STORE";
/// Set for the same: the first number it may use.
const FIRST: &str = "NODEJOBS_TEST_KILL_FIRST";

/// Not a test of its own: the body of the process that will be killed. Without its variables it does nothing.
#[test]
fn child() {
    let (Ok(path), Ok(first)) = (std::env::var(STORE), std::env::var(FIRST)) else { return };
    let store = SqliteStore::open(Path::new(&path)).expect("open");
    let mut stdout = std::io::stdout();
    for number in first.parse::<u64>().expect("a number").. {
        let [left, right, gone] = names(number);
        // Two that belong together, and one that comes and goes.
        store
            .commit(&[
                insert(&left, Status::Starting),
                insert(&right, Status::Starting),
                insert(&gone, Status::Finished),
            ])
            .expect("commit");
        writeln!(stdout, "inserted {number}").expect("the parent reads");
        store
            .commit(&[
                update(&left, 1, Status::Running),
                remove(&gone, 1),
                update(&right, 1, Status::Running),
            ])
            .expect("commit");
        writeln!(stdout, "updated {number}").expect("the parent reads");
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    let mut first = 0;
    let mut last_event = 0;
    // The log is never folded in by an orderly end, so each round goes on with what the kills before it left.
    for round in 0..20 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child", "--nocapture", "--test-threads", "1"])
            .env(STORE, &path)
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut acknowledged = Vec::new();
        for line in output.lines() {
            let line = line.expect("text");
            if let Some((what @ ("inserted" | "updated"), number)) = line.split_once(' ') {
                acknowledged.push((what == "updated", number.parse::<u64>().expect("a number")));
            }
            // Killed once, and then read to the end: what was printed meanwhile was acknowledged as well. The kill
            // itself lands anywhere in the commits that go on after the line.
            if acknowledged.len() == 1 + round * 7 {
                child.kill().expect("kill");
            }
        }
        child.wait().expect("wait");
        assert!(acknowledged.len() > round * 7, "the child ended by itself");

        let raw = Connection::open(&path).expect("raw");
        raw.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("config");
        let verdict: String = raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("check");
        assert_eq!(verdict, "ok");
        let store = SqliteStore::open(&path).expect("open");
        for (updated, number) in &acknowledged {
            let [left, right, gone] = names(*number);
            let jobs = [&left, &right].map(|name| store.job(&id(name)).expect("read").expect("acknowledged"));
            for job in &jobs {
                assert!(job.revision == 2 || (!updated && job.revision == 1), "{job:?}");
            }
            assert_eq!(jobs[0].revision, jobs[1].revision, "half a commit");
            // Gone with the update, whether that was acknowledged or not.
            assert_eq!(
                store.job(&id(&gone)).expect("read").is_none(),
                jobs[0].revision == 2,
                "half a commit"
            );
        }
        // At most one commit was not acknowledged, and it is there wholly or not at all.
        let left = all_jobs(&store).iter().filter(|job| job.id.as_str().starts_with("left")).count();
        let right = all_jobs(&store).iter().filter(|job| job.id.as_str().starts_with("right")).count();
        let next = acknowledged.last().expect("at least one").1 + 1;
        assert_eq!(left, right);
        assert!((next..=next + 1).contains(&(left as u64)), "{left} for {next}");
        let events = store.events(0, usize::MAX).expect("events");
        assert!(events.iter().zip(1..).all(|(event, number)| event.seq == number), "a gap");
        assert!(events.len() > last_event);
        last_event = events.len();
        first = left as u64;
        // Closed last, `raw` leaves the log in place.
        drop(store);
        drop(raw);
    }
}

fn names(number: u64) -> [String; 3] {
    ["left", "right", "gone"].map(|name| format!("{name}-{number}"))
}

/// The log is folded in page by page, and the first page says how many there are.
#[test]
fn a_process_that_is_killed_while_it_folds_the_log_in_leaves_a_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let [path, other] = ["a.sqlite", "b.sqlite"].map(|name| directory.path().join(name));
    let log_of = |path: &Path| directory.path().join(format!("{}-wal", path.display()));
    let store = SqliteStore::open(&path).expect("open");
    let body = vec![7; 1 << 20];
    let put = DocumentChange::Put { kind: DocumentKind::Input, key: "k".to_owned(), body: body.clone() };
    let mut unit = insert("a", Status::Finished);
    unit.documents.push(put);
    store.commit(&[unit]).expect("commit");
    let (mut file, log) = (std::fs::read(&path).expect("read"), std::fs::read(log_of(&path)).expect("read"));
    assert!(file.len() < body.len() && log.len() > body.len(), "nothing is folded in yet");
    drop(store);
    let whole = std::fs::read(&path).expect("read");
    assert!(whole.len() > body.len() && !log_of(&path).exists(), "all of it is folded in");
    file[..4096].copy_from_slice(&whole[..4096]);
    std::fs::write(&other, file).expect("written");
    std::fs::write(log_of(&other), log).expect("written");

    let store = SqliteStore::open(&other).expect("open");
    assert!(store.document(DocumentKind::Input, "k").expect("read") == Some(body));
    assert!(store.job(&id("a")).expect("read").is_some());
    drop(store);
    let raw = Connection::open(&other).expect("raw");
    let verdict: String = raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("check");
    assert_eq!(verdict, "ok");
}
