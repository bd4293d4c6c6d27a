//! What the engine says, sorted by what the caller can do next.

use std::fmt;
use std::path::Path;

use nodejobs_core::store::StoreError;
use rusqlite::{ErrorCode, ffi};

/// Anything that can go wrong inside an operation, before it is known which operation on which file that was.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The engine refused.
    Engine(rusqlite::Error),
    /// It is known already what the caller can do.
    Store(StoreError),
    /// A record cannot be understood.
    Record { what: String, source: Box<dyn std::error::Error + Send + Sync> },
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Fault::Engine(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Fault::Store(error)
    }
}

impl Fault {
    pub(crate) fn into_store_error(self, operation: &'static str, path: &Path) -> StoreError {
        match self {
            Fault::Record { what, source } => {
                StoreError::Damaged { what: format!("{what} in {}", path.display()), source }
            }
            Fault::Store(error) => error,
            Fault::Engine(error) => from_engine(error, operation, path),
        }
    }
}

fn from_engine(error: rusqlite::Error, operation: &'static str, path: &Path) -> StoreError {
    let path = path.to_owned();
    // The index beside the WAL grows by its own system call, whose failure has no code of its own for a full disk.
    let no_room_for_index = matches!(
        &error,
        rusqlite::Error::SqliteFailure(failure, _) if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE
    );
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { operation, path },
        _ if no_room_for_index => StoreError::Full { operation, path },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Damaged { what: path.display().to_string(), source: Said(error).into() }
        }
        _ => StoreError::Failed { operation, path, source: Said(error).into() },
    }
}

/// An error of the engine, whose text says what its source would say again.
#[derive(Debug)]
struct Said(rusqlite::Error);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            rusqlite::Error::SqliteFailure(failure, Some(message)) => {
                write!(f, "{message} (SQLite error {})", failure.extended_code)
            }
            other => other.fmt(f),
        }
    }
}

impl std::error::Error for Said {}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn the_engine_s_words_are_said_once() {
        let failure = ffi::Error::new(ffi::SQLITE_NOTADB);
        let error = rusqlite::Error::SqliteFailure(failure, Some("file is not a database".to_owned()));
        let error = Fault::Engine(error).into_store_error("open", Path::new("/d/jobs.sqlite"));
        assert_eq!(error.to_string(), "store is damaged at /d/jobs.sqlite");
        let source = error.source().expect("what the engine said");
        assert_eq!(source.to_string(), "file is not a database (SQLite error 26)");
        assert!(source.source().is_none(), "it is all said");
    }
}
