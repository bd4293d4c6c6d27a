//! The in-memory store keeps the rules of every store.

use std::path::Path;

use nodejobs_core::store::conformance::Subject;
use nodejobs_core::store::memory::MemoryStore;
use nodejobs_core::store::{JobStore, StoreError};

struct Memory;

impl Subject for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn open(&self, _: &Path) -> Result<Box<dyn JobStore>, StoreError> {
        Ok(Box::new(MemoryStore::new()))
    }
}

nodejobs_core::store_conformance!(logic: Memory);
