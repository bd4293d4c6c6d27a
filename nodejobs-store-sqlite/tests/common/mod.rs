//! Jobs for tests.

// Each test file uses some of these.
#![allow(dead_code, unreachable_pub)]

use std::path::Path;

use nodejobs_core::job::{Definition, Job, JobState};
use nodejobs_core::spec::{Command, JobSpec};
use nodejobs_core::store::conformance::{OnDisk, Subject};
use nodejobs_core::store::{JobChange, JobStore, Order, PageRequest, StoreError, Unit, UnitOutcome};
use nodejobs_core::{JobId, Status, Timestamp};
use nodejobs_store_sqlite::SqliteStore;
use rusqlite::Connection;

pub const NOW: i64 = 1_784_000_000_000;

pub fn id(text: &str) -> JobId {
    JobId::new(text).expect("a valid id")
}

pub fn definition(command: Command) -> Definition {
    Definition::new(&JobSpec::new(command, "/tmp"), "/logs".into(), Timestamp::from_millis(NOW))
}

pub fn state(attempt: u32, status: Status) -> JobState {
    JobState::new(attempt, status, Timestamp::from_millis(NOW))
}

pub fn insert(name: &str, status: Status) -> Unit {
    let definition = Box::new(definition(Command::argv(["echo", name])));
    JobChange::Insert { id: id(name), definition, state: state(1, status) }.into()
}

pub fn update(name: &str, expected: u64, status: Status) -> Unit {
    JobChange::Update { id: id(name), expected, state: state(1, status) }.into()
}

pub fn new_attempt(name: &str, expected: u64, attempt: u32, status: Status) -> Unit {
    let definition = Box::new(definition(Command::shell(format!("echo {name}"))));
    JobChange::NewAttempt { id: id(name), expected, definition, state: state(attempt, status) }.into()
}

pub fn remove(name: &str, expected: u64) -> Unit {
    JobChange::Remove { id: id(name), expected }.into()
}

pub fn applied(seq: u64, event: u64) -> UnitOutcome {
    UnitOutcome::Applied { seq, event }
}

pub fn all_jobs(store: &dyn JobStore) -> Vec<Job> {
    let request =
        PageRequest { filter: Default::default(), order: Order::OldestFirst, after: None, limit: usize::MAX };
    store.jobs(&request).expect("a listing").jobs
}

/// The store, for the rules of `nodejobs_core::store::conformance`.
pub struct Sqlite;

impl Subject for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn open(&self, path: &Path) -> Result<Box<dyn JobStore>, StoreError> {
        Ok(Box::new(SqliteStore::open(path)?))
    }
}

impl OnDisk for Sqlite {
    fn has_checksums(&self) -> bool {
        false
    }

    fn set_format(&self, path: &Path, format: u32) {
        execute(path, &format!("PRAGMA user_version = {format}"));
    }

    fn damage_record(&self, path: &Path, id: &JobId) {
        execute(path, &format!("UPDATE jobs SET command = '{{' WHERE id = '{id}'"));
    }
}

/// What somebody with a shell can do to the file.
pub fn execute(path: &Path, sql: &str) {
    Connection::open(path).and_then(|raw| raw.execute_batch(sql)).expect("raw");
}
