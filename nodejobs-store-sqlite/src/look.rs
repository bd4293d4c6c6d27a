//! A look into a store that nobody has open: whether it can be read, without changing it.

use std::fs;
use std::io;
use std::path::Path;

use nodejobs_core::store::StoreError;
use nodejobs_core::store::disk::{self, Kind};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::Fault;
use crate::{log, open, read, schema};

/// How often SQLite asks whether it may go on, in steps of its virtual machine: some ten thousand times a second.
const STEPS: i32 = 1_000;

/// What a look into a store has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Version of its format.
    pub format: u32,
    /// Jobs in it; `None` if there was no time to count them.
    pub jobs: Option<u64>,
    /// Whether every page was read; if not, `may_go_on` has said stop.
    pub complete: bool,
    /// What damage to the log drops, in words.
    pub damage: Option<String>,
}

/// Reads a store through, as long as `may_go_on` says so. The caller sees to it that nobody else has it open.
pub(crate) fn look(
    path: &Path,
    mut may_go_on: impl FnMut() -> bool + Send + 'static,
) -> Result<Look, StoreError> {
    if !disk::is_there(path, Kind::File)? {
        return Err(disk::failed("open", path, io::ErrorKind::NotFound.into()));
    }
    open::refuse_unknown(path)?;
    let look = || -> Result<Look, Fault> {
        let mut connection = connect(path)?;
        connection.progress_handler(STEPS, Some(move || !may_go_on()))?;
        let format = open::check_format(&connection, path)?;
        // Those of an older format are known only once it is upgraded.
        let known = if format == schema::FORMAT { read::STATEMENTS } else { &[] };
        for statement in known {
            connection.prepare(statement)?;
        }
        let damage = log::damage(path);
        let mut look = Look { format, jobs: None, complete: false, damage };
        let count = connection.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0));
        look.jobs = unless_stopped(count)?.and_then(|count| u64::try_from(count).ok());
        let check = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        match unless_stopped(check)?.as_deref() {
            None => {}
            Some("ok") => look.complete = true,
            Some(words) => {
                let what = path.display().to_string();
                return Err(StoreError::Damaged { what, source: words.to_owned().into() }.into());
            }
        }
        Ok(look)
    };
    look().map_err(|fault| fault.into_store_error("read", path))
}

/// A connection that only reads. Where no write-ahead log has to be heeded, not even the files beside it are made.
fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let has_log = fs::metadata(disk::beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if has_log {
        Connection::open_with_flags(open::absolute(path)?, flags)
    } else {
        Connection::open_with_flags(open::immutable_uri(path)?, flags | OpenFlags::SQLITE_OPEN_URI)
    }
}

/// `None` for what was stopped.
fn unless_stopped<T>(result: Result<T, rusqlite::Error>) -> Result<Option<T>, rusqlite::Error> {
    match result {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(None),
        result => result.map(Some),
    }
}
