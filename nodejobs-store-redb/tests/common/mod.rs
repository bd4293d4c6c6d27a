//! What only this store can do to its files.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use nodejobs_core::JobId;
use nodejobs_core::store::conformance::{OnDisk, Subject, damage_state};
use nodejobs_core::store::{JobStore, StoreError};
use nodejobs_store_redb::{RedbEngine, RedbStore};

/// The store, for the rules of `nodejobs_core::store::conformance`.
pub(crate) struct Redb;

impl Subject for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn open(&self, path: &Path) -> Result<Box<dyn JobStore>, StoreError> {
        Ok(Box::new(RedbStore::open(path)?))
    }
}

impl OnDisk for Redb {
    fn set_format(&self, path: &Path, format: u32) {
        // Behind the mark there is nothing to the end of its page.
        let mark = OpenOptions::new().write(true).open(path).expect("the mark");
        let at = "nodejobs redb store, format ".len() as u64;
        mark.write_all_at(format!("{format}\n").as_bytes(), at).expect("written");
    }

    fn damage_record(&self, path: &Path, id: &JobId) {
        damage_state::<RedbEngine>(path, id);
    }
}
