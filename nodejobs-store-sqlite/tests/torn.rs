//! What a loss of power can make of the write-ahead log and of the file that it is folded into.

mod common;

use std::fs;
use std::path::Path;

use common::{id, insert, remove, update};
use nodejobs_core::Status;
use nodejobs_core::store::content::{Item, walk};
use nodejobs_core::store::{DocumentChange, DocumentKind, JobStore, StoreError, Unit};
use nodejobs_store_sqlite::SqliteStore;
use rusqlite::Connection;

/// A frame of the log is a page with a header, and before the first one is the header of the log.
const FRAME: usize = 24 + 4096;
const LOG_HEADER: usize = 32;
const COMMITS: u64 = 6;

fn content(store: &dyn JobStore) -> Vec<Item> {
    let mut items = Vec::new();
    walk(store, |item| {
        items.push(item);
        Ok::<_, StoreError>(())
    })
    .expect("readable");
    items
}

fn commit_of(number: u64) -> Vec<Unit> {
    let [left, right] = ["left", "right"].map(|side| format!("{side}-{number}"));
    let mut unit = insert(&left, Status::Running);
    let body = vec![7; 2000 * usize::try_from(number).expect("small")];
    unit.documents.push(DocumentChange::Put { kind: DocumentKind::Input, key: left.clone(), body });
    let mut units = vec![unit, insert(&right, Status::Finished)];
    if let Some(earlier) = number.checked_sub(1) {
        units.push(update(&format!("left-{earlier}"), 1, Status::Lost));
        units.push(remove(&format!("right-{earlier}"), 1));
    }
    units
}

/// What is done to a log at an offset.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// It ends there.
    Cut,
    /// One bit there is another one.
    Bit,
    /// Blocks that were not written are zeros, and those behind them are there.
    Hole,
    /// What was there before.
    Garbage,
}

impl Harm {
    fn to(self, log: &[u8], at: usize) -> Vec<u8> {
        let mut log = log.to_vec();
        let end = log.len().min(at + 512);
        match self {
            Harm::Cut => log.truncate(at),
            Harm::Bit => log[at] ^= 0x10,
            Harm::Hole => log[at..end].fill(0),
            Harm::Garbage => log[at..].fill(0xa5),
        }
        log
    }
}

/// How many commits a check says are dropped; 0 if it says nothing.
fn said_dropped(problems: &[String]) -> usize {
    let said = problems.iter().find_map(|problem| {
        assert!(problem.contains("b.sqlite-wal'"), "{problem}");
        problem.split_once("drops at least ")?.1.split(' ').next()?.parse().ok()
    });
    said.unwrap_or(0)
}

#[test]
fn a_log_that_is_torn_anywhere_has_what_was_committed_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.sqlite");
    let store = SqliteStore::open(&path).expect("open");
    store.commit(&commit_of(0)).expect("commit");
    // Folded in by the end of the last handle.
    drop(store);
    let store = SqliteStore::open(&path).expect("open again");
    let log_path = directory.path().join("a.sqlite-wal");
    let mut states = vec![(0, content(&store))];
    for number in 1..=COMMITS {
        store.commit(&commit_of(number)).expect("commit");
        states.push((fs::read(&log_path).expect("a log").len(), content(&store)));
    }
    let (file, log) = (fs::read(&path).expect("a file"), fs::read(&log_path).expect("a log"));
    drop(store);
    let frames = (log.len() - LOG_HEADER) / FRAME;
    assert_eq!(log.len(), LOG_HEADER + frames * FRAME, "a log of whole frames");
    assert!(states.windows(2).all(|pair| pair[0].0 < pair[1].0), "nothing was folded in meanwhile");

    let harmed = directory.path().join("harmed");
    let mut tried = 0;
    let mut assert_recovers = |harm: Harm, at: usize| {
        let bytes = harm.to(&log, at);
        if bytes == log {
            return;
        }
        tried += 1;
        fs::create_dir(&harmed).expect("a directory");
        let place = harmed.join("b.sqlite");
        fs::write(&place, &file).expect("written");
        fs::write(harmed.join("b.sqlite-wal"), &bytes).expect("written");
        let first_changed =
            bytes.iter().zip(&log).position(|(now, before)| now != before).unwrap_or(bytes.len());
        let (_, expected) =
            states.iter().rev().find(|(length, _)| *length <= first_changed).expect("the first");
        let store = SqliteStore::open(&place).unwrap_or_else(|error| panic!("{harm:?} at {at}: {error:?}"));
        assert!(content(&store) == *expected, "{harm:?} at {at} of {}: not what was there before", log.len());
        let check = store.check(&mut |_| {}).expect("checked");
        let dropped = states.iter().filter(|(length, _)| *length > first_changed).count();
        let said = said_dropped(&check.problems);
        match harm {
            // What is behind it is gone, or was never there.
            Harm::Cut | Harm::Garbage => assert_eq!(said, 0, "{harm:?} at {at}: {check:?}"),
            // Of the last commit nobody can know whether it was acknowledged, and one that has its mark in a bad frame is not
            // counted.
            Harm::Bit | Harm::Hole => {
                assert!(
                    (dropped.saturating_sub(2)..dropped.max(1)).contains(&said),
                    "{harm:?} at {at}: {check:?}"
                );
            }
        }
        assert_eq!(check.problems.len(), usize::from(said > 0), "{harm:?} at {at}: {check:?}");
        assert_eq!(harmed.join("b.sqlite-wal.damaged").exists(), said > 0);
        if tried % 8 == 0 {
            store.commit(&[insert("next", Status::Queued)]).expect("it goes on");
            drop(store);
            assert!(SqliteStore::open(&place).expect("open").job(&id("next")).expect("read").is_some());
        }
        fs::remove_dir_all(&harmed).expect("removed");
    };
    for at in [0, 1, 16, LOG_HEADER - 1] {
        assert_recovers(Harm::Cut, at);
        assert_recovers(Harm::Bit, at);
    }
    for frame in 0..frames {
        let begin = LOG_HEADER + frame * FRAME;
        for at in [begin, begin + 24 + frame * 89 % 4000] {
            assert_recovers(Harm::Cut, at);
        }
        let harm = [Harm::Bit, Harm::Hole, Harm::Garbage][frame % 3];
        assert_recovers(harm, begin + frame * 97 % FRAME);
    }
    assert!(frames > 20 && tried > 2 * frames, "{tried} harms to {frames} frames");
}

/// What a log has behind its end in ordinary life: an earlier generation of it, and a transaction that was taken back.
#[test]
fn what_is_left_behind_the_end_of_a_log_is_no_damage() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.sqlite");
    let store = SqliteStore::open(&path).expect("open");
    let raw = Connection::open(&path).expect("raw");
    raw.execute_batch("PRAGMA cache_size = 5").expect("a small cache");
    let look = |name: &str, lengths: std::ops::Range<u64>| {
        let copy = directory.path().join(name);
        for ending in ["", "-wal"] {
            let from = directory.path().join(format!("a.sqlite{ending}"));
            fs::copy(from, directory.path().join(format!("{name}{ending}"))).expect("copied");
        }
        let log = directory.path().join(format!("{name}-wal"));
        let length = fs::metadata(&log).expect("a log").len();
        assert!(lengths.contains(&length), "{name}: {length}");
        let store = SqliteStore::open(&copy).expect("open");
        assert_eq!(store.damage(), None, "{name}");
        assert!(store.check(&mut |_| {}).expect("checked").is_sound(), "{name}");
    };
    for number in 0..=COMMITS {
        store.commit(&commit_of(number)).expect("commit");
    }
    raw.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).expect("folded in");
    store.commit(&[insert("new", Status::Queued)]).expect("commit");
    look("generation", 100_000..1_000_000);

    let spill = "BEGIN; CREATE TABLE t (b); INSERT INTO t
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT randomblob(2000) FROM n;
        ROLLBACK";
    raw.execute_batch(spill).expect("taken back");
    store.commit(&[insert("newer", Status::Queued)]).expect("commit");
    look("taken-back", 1_000_000..10_000_000);
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
