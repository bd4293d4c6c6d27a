//! Creating, checking and opening the file.
//!
//! A file that exists is looked at without a lock and without its WAL first, so that what is not ours is left exactly
//! as it is. A new one is made under another name and appears under its own only when it is complete and on disk.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nodejobs_core::store::StoreError;
use nodejobs_core::store::disk::{self, Kind};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::Fault;
use crate::{counts, log, schema};

/// How long a lock of another process is waited for before the store counts as in use.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// After so many pages (8 MiB) the WAL is folded into the file, by the commit that gets there: about 7 ms once in some
/// thousand units. Fewer make more commits wait, more make one of them wait longer; the mean stays the same.
const CHECKPOINT_PAGES: i64 = 2000;

/// To this size a WAL that grew in a burst is cut again.
const WAL_BYTES: i64 = 16 << 20;

/// What the writer keeps in memory, in KiB (negative: SQLite's way to say that it is not a number of pages).
const CACHE_KIB: i64 = -2048;

/// Prepared statements the writer keeps: all it has, and a few of the engine's callers.
const STATEMENTS: usize = 24;

/// Opens the writing connection. Says as well what SQLite drops of a log that is damaged.
pub(crate) fn open_or_create(path: &Path) -> Result<(Connection, Option<String>), StoreError> {
    if !disk::is_there(path, Kind::File)? {
        create(path)?;
    }
    refuse_unknown(path)?;
    keep_private(path).map_err(|error| disk::failed("open", path, error))?;
    // Before SQLite has the log: the next commit writes over what is behind the damage.
    let damage = log::keep(path);
    let writer = open_writer(path).map_err(|fault| fault.into_store_error("open", path))?;
    Ok((writer, damage))
}

/// Looks at the header of the file and nothing else: no lock, no WAL, no file beside it.
pub(crate) fn refuse_unknown(path: &Path) -> Result<(), StoreError> {
    let look = || {
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(immutable_uri(path)?, flags)?;
        check_format(&connection, path).map(drop)
    };
    match look() {
        // Whoever was killed while the log was folded in has left a file that is whole only together with its log. It
        // is ours, or nobody's: the writer looks again, and sees both.
        Err(Fault::Engine(error)) if is_corrupt(&error) && has_log(path) => Ok(()),
        looked => looked.map_err(|fault: Fault| fault.into_store_error("open", path)),
    }
}

fn is_corrupt(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt)
}

fn has_log(path: &Path) -> bool {
    fs::metadata(disk::beside(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// The version of a file that is ours and not newer than we are.
pub(crate) fn check_format(connection: &Connection, path: &Path) -> Result<u32, Fault> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id")?;
    let format = pragma("user_version")?;
    let unknown = |found| StoreError::UnknownFormat { path: path.to_owned(), found, known: schema::FORMAT };
    let known = |format: &u32| (schema::OLDEST_FORMAT..=schema::FORMAT).contains(format);
    match (application, u32::try_from(format).ok().filter(known)) {
        (schema::APPLICATION_ID, Some(format)) => Ok(format),
        (schema::APPLICATION_ID, None) => Err(unknown(format).into()),
        // Another program's own number says more than a version that means something else there.
        (application, _) => Err(unknown(application).into()),
    }
}

fn open_writer(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(absolute(path)?, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if connection.is_readonly("main")? {
        return Err(Fault::Store(StoreError::Failed {
            operation: "open",
            path: path.to_owned(),
            source: io::Error::from(io::ErrorKind::PermissionDenied).into(),
        }));
    }
    // The header was checked already, but only here the WAL is seen as well. Whatever is found there stays there.
    let format = match check_format(&connection, path) {
        Ok(format) => format,
        Err(error) => {
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            return Err(error);
        }
    };
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        let message = format!("the file system allows only journal mode '{mode}', not 'wal'");
        let source = io::Error::new(io::ErrorKind::Unsupported, message);
        return Err(Fault::Store(StoreError::Failed {
            operation: "open",
            path: path.to_owned(),
            source: source.into(),
        }));
    }
    let synchronous = if disk::skips_sync() { "off" } else { "full" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES, |_| Ok(()))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // A store that could not be written to is refused now and not at the first job.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if format == schema::FORMAT {
        transaction.rollback()?;
    } else {
        upgrade(&transaction, format)?;
        transaction.commit()?;
        // Folded in, so that the header tells the new format to whoever does not look into the log.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    }
    counts::without_triggers(&connection)?;
    let prepared = || -> Result<(), rusqlite::Error> {
        for statement in crate::read::STATEMENTS {
            connection.prepare(statement)?;
        }
        for statement in crate::write::STATEMENTS.iter().chain(&counts::STATEMENTS) {
            connection.prepare_cached(statement)?;
        }
        Ok(())
    };
    prepared().map_err(|error| StoreError::Damaged {
        what: format!("the tables of {}", path.display()),
        source: error.into(),
    })?;
    Ok(connection)
}

/// Folds the whole log into the file and empties it. Damage to a log drops all commits behind it without a word;
/// an empty one has none to drop. What a reader still needs stays in the log.
pub(crate) fn fold(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(Duration::ZERO)?;
    let folded = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    connection.busy_timeout(BUSY_TIMEOUT)?;
    folded
}

/// Makes a complete, empty store appear at the path. One that appears there meanwhile is left alone.
fn create(path: &Path) -> Result<(), StoreError> {
    // Looked for in this order, since whoever creates the file at the same time makes it appear before its log.
    if disk::beside(path, "-wal").exists() && !path.exists() {
        // A new file would be mixed with what the old one left.
        return Err(disk::damaged(path, "the file is missing, but its write-ahead log is there"));
    }
    disk::create(path, Kind::File, |new| {
        fill(new).map_err(|error| Fault::Engine(error).into_store_error("create", path))
    })
}

/// Writes the tables outside WAL mode, so that the header of the file tells its format from the first instant.
fn fill(new: &Path) -> Result<(), rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(absolute(new)?, flags)?;
    connection.pragma_update(None, "synchronous", "full")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(schema::CREATE)?;
    transaction.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
    upgrade(&transaction, schema::OLDEST_FORMAT)?;
    transaction.commit()?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)
}

/// Makes what has the tables of this format into a store of the present one.
fn upgrade(transaction: &Transaction<'_>, format: u32) -> Result<(), rusqlite::Error> {
    for (_, step) in (schema::OLDEST_FORMAT..).zip(schema::UPGRADES).filter(|(from, _)| *from >= format) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", schema::FORMAT)
}

/// The engine gives the files beside it the mode of the file.
fn keep_private(path: &Path) -> io::Result<()> {
    [path.to_owned(), disk::beside(path, "-wal"), disk::beside(path, "-shm")]
        .iter()
        .try_for_each(|file| disk::keep_private(file))
}

/// An absolute path means a file to the engine, whatever it is called; `:memory:` and `file:x` would not.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, rusqlite::Error> {
    std::path::absolute(path).map_err(|_| rusqlite::Error::InvalidPath(path.to_owned()))
}

pub(crate) fn immutable_uri(path: &Path) -> Result<String, rusqlite::Error> {
    let mut uri = "file:".to_owned();
    for byte in absolute(path)?.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'_' | b'-' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    Ok(uri)
}
