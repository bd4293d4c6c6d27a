//! What the engine says, sorted by what the caller can do next.

use std::path::Path;

use nodejobs_core::store::{StoreError, disk};

/// What can go wrong inside an operation.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The engine refused.
    Engine(redb::Error),
    /// It is known already what the caller can do.
    Store(StoreError),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Fault::Engine(error.into())
    }
}

impl Fault {
    pub(crate) fn into_store_error(self, operation: &'static str, path: &Path) -> StoreError {
        match self {
            Fault::Store(error) => error,
            Fault::Engine(redb::Error::Io(error)) => disk::failed(operation, path, error),
            Fault::Engine(redb::Error::DatabaseAlreadyOpen) => StoreError::InUse { path: path.to_owned() },
            Fault::Engine(
                error @ (redb::Error::Corrupted(_)
                | redb::Error::TableDoesNotExist(_)
                | redb::Error::TableTypeMismatch { .. }
                | redb::Error::UpgradeRequired(_)),
            ) => disk::damaged(path, error),
            Fault::Engine(error) => {
                StoreError::Failed { operation, path: path.to_owned(), source: error.into() }
            }
        }
    }
}
