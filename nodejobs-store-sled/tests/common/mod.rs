//! What only this store can do to its files.

use std::fs;
use std::path::Path;

use nodejobs_core::JobId;
use nodejobs_core::store::conformance::{OnDisk, Subject, damage_state};
use nodejobs_core::store::{JobStore, StoreError};
use nodejobs_store_sled::{SledEngine, SledStore};

/// The store, for the rules of `nodejobs_core::store::conformance`.
pub(crate) struct Sled;

impl Subject for Sled {
    fn name(&self) -> &'static str {
        "sled"
    }

    fn open(&self, path: &Path) -> Result<Box<dyn JobStore>, StoreError> {
        Ok(Box::new(SledStore::open(path)?))
    }
}

impl OnDisk for Sled {
    fn is_directory(&self) -> bool {
        true
    }

    fn leaves_damage_alone(&self) -> bool {
        false
    }

    fn set_format(&self, path: &Path, format: u32) {
        let mark = path.join("nodejobs");
        let text = fs::read_to_string(&mark).expect("the mark");
        let (_, count) = text.split_once('\n').expect("two lines");
        fs::write(mark, format!("nodejobs sled store, format {format}\n{count}")).expect("written");
    }

    fn damage_record(&self, path: &Path, id: &JobId) {
        damage_state::<SledEngine>(path, id);
    }
}
