//! What the engine says, sorted by what the caller can do next.

use std::path::Path;

use nodejobs_core::store::{StoreError, disk};

pub(crate) fn store_error(error: sled::Error, operation: &'static str, path: &Path) -> StoreError {
    match error {
        // It has no code for this.
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            StoreError::InUse { path: path.to_owned() }
        }
        sled::Error::Io(error) => disk::failed(operation, path, error),
        error @ (sled::Error::Corruption { .. } | sled::Error::CollectionNotFound(_)) => {
            disk::damaged(path, error)
        }
        error => StoreError::Failed { operation, path: path.to_owned(), source: error.into() },
    }
}
