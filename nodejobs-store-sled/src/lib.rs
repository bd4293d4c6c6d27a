//! The sled store of nodejobs: **not implemented yet**.
//!
//! It will keep jobs in a sled directory: pure Rust, one process at a time. What sled cannot promise when power
//! is lost will be listed by `info`.
//!
//! Until then [`SledStore::open`] answers with an error that says so, before it touches the path, and there is no
//! dependency on the engine. Use the sqlite store.
//!
//! ```
//! use std::error::Error as _;
//! use nodejobs_store_sled::SledStore;
//!
//! let error = SledStore::open("jobs.sled".as_ref()).unwrap_err();
//! assert!(error.source().is_some_and(|source| source.to_string().contains("use sqlite")));
//! ```

use std::path::Path;

use nodejobs_core::store::StoreError;

/// The store that will be here. It has no value yet, so nothing can be kept in it by mistake.
#[derive(Debug)]
pub enum SledStore {}

/// What [`SledStore::open`] says for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sled store is not implemented yet; use sqlite")]
pub struct NotImplementedYet;

impl SledStore {
    /// Refuses, and leaves the path as it is.
    ///
    /// # Errors
    /// Always [`StoreError::Failed`] with [`NotImplementedYet`] as its source.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Err(StoreError::Failed { operation: "open", path: path.to_owned(), source: NotImplementedYet.into() })
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn opening_says_that_it_is_not_implemented_and_creates_nothing() {
        let path = std::env::temp_dir().join(format!("nodejobs-no-sled-{}", std::process::id()));
        let error = SledStore::open(&path).expect_err("not implemented");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        let source = error.source().expect("a source").to_string();
        assert!(source.contains("not implemented yet; use sqlite"), "{source}");
        assert!(!path.exists());
    }
}
