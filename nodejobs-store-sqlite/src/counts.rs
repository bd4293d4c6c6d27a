//! How many jobs have which status, kept by the writing connection: once a commit, and not at each row as the triggers of
//! the schema do for whoever else writes. A row whose table has triggers makes SQLite copy each page first that it changes.

use std::collections::BTreeMap;

use nodejobs_core::status::Status;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, params};

const ADD: &str = "INSERT INTO counts (status, jobs) VALUES (?1, ?2)
    ON CONFLICT (status) DO UPDATE SET jobs = jobs + excluded.jobs";
const SUBTRACT: &str = "UPDATE counts SET jobs = jobs - ?2 WHERE status = ?1";

/// To be found wrong when the file is opened, if they are.
pub(crate) const STATEMENTS: [&str; 2] = [ADD, SUBTRACT];

/// From now on this connection counts by itself: whatever it does to `jobs` goes through a [`Counts`].
pub(crate) fn without_triggers(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).map(drop)
}

/// What a transaction has changed about the counts so far.
#[derive(Default)]
pub(crate) struct Counts(BTreeMap<Status, i64>);

impl Counts {
    /// A job had that status, and has this one now; nothing if it was not there, or is not any more.
    pub(crate) fn note(&mut self, before: Option<Status>, after: Option<Status>) {
        if before == after {
            return;
        }
        for (status, change) in
            before.map(|status| (status, -1)).into_iter().chain(after.map(|status| (status, 1)))
        {
            *self.0.entry(status).or_insert(0) += change;
        }
    }

    /// Writes it, in the transaction that holds the jobs.
    pub(crate) fn write(self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        for (status, change) in self.0 {
            let (statement, jobs) = match change {
                0 => continue,
                1.. => (ADD, change),
                ..0 => (SUBTRACT, -change),
            };
            transaction.prepare_cached(statement)?.execute(params![status.as_str(), jobs])?;
        }
        Ok(())
    }
}
