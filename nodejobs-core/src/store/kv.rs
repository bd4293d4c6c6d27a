//! A [`JobStore`] on any ordered map of bytes: keys, records and indexes of the stores that are made of one.
//!
//! An engine has to give little: one consistent [`View`] to read, and [`Changes`] that are on disk, all of them or
//! none, when [`Engine::write`] returns. What is kept under which key is decided here, once for all of them.
//!
//! | file | holds |
//! |---|---|
//! | `keys.rs` | what is kept under which key |
//! | `record.rs` | what is kept there: a checksum and the value |
//! | `write.rs` | `commit` and `load`, and the indexes that follow a job |
//! | `page.rs` | the listing: a filter becomes an index to go along |
//! | `check.rs` | whether indexes and records agree |

mod check;
mod keys;
mod page;
mod record;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use super::content::{Check, Counters, Item, check_content};
use super::{DocumentKind, JobEvent, JobStore, Page, PageRequest, StoreError, StoreInfo, Unit, UnitOutcome};
use crate::id::JobId;
use crate::job::Job;
use crate::status::Status;

/// Version of what is kept under which key. It is part of each engine's own format number.
///
/// Whoever changes a key, a record or a type that is stored in one raises it, and has the stores of the version before
/// migrated: each store crate keeps one in its tests.
pub const FORMAT: u32 = 2;

/// The oldest version that is read. In its records, what came later is absent.
pub const OLDEST_FORMAT: u32 = 1;

/// In which order a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key on.
    Forward,
    /// From the greatest key on.
    Backward,
}

/// What a scan does with an entry, and whether it goes on.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError> + 'v;

/// One state of the map, to read.
pub trait View {
    /// The value of a key.
    ///
    /// # Errors
    /// When the engine cannot read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits the entries with `from <= key < to`.
    ///
    /// # Errors
    /// When the engine cannot read, and what `visit` says.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError>;
}

/// A state of the map that is being changed. Reads see what was changed already.
pub trait Changes: View {
    /// Sets the value of a key.
    ///
    /// # Errors
    /// When the engine cannot write.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Takes a key away, if it is there.
    ///
    /// # Errors
    /// When the engine cannot write.
    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError>;
}

/// An ordered map of bytes on disk. Keys have up to 320 bytes, values up to some MiB.
pub trait Engine: Send + Sync + Sized {
    /// Opens what is at the path, or creates it there.
    ///
    /// # Errors
    /// As [`KeyValueStore::open`].
    fn open(path: &Path) -> Result<Self, StoreError>;

    /// Lets `read` see one state of the map, which holds everything that was written before.
    ///
    /// # Errors
    /// When the engine cannot read, and what `read` says.
    fn read<T>(&self, read: impl FnOnce(&dyn View) -> Result<T, StoreError>) -> Result<T, StoreError>;

    /// Lets `write` make changes; one at a time. They are on disk when this returns `Ok`, and none of them was made
    /// when it returns an error.
    ///
    /// # Errors
    /// When the engine cannot write, and what `write` says.
    fn write<T>(
        &self,
        write: impl FnOnce(&mut dyn Changes) -> Result<T, StoreError>,
    ) -> Result<T, StoreError>;

    /// Notes what the engine's own checks find.
    ///
    /// # Errors
    /// When the check cannot go on.
    fn check(&self, check: &mut Check) -> Result<(), StoreError>;

    /// Where it is.
    fn path(&self) -> &Path;

    /// What it is and what it does not promise.
    fn info(&self) -> StoreInfo;
}

/// A store on such an engine.
pub struct KeyValueStore<E> {
    engine: E,
}

impl<E: Engine> KeyValueStore<E> {
    /// Opens the store at this path, or creates it there, readable and writable by its owner only.
    ///
    /// It is created whole or not at all. What is there is recognised before anything is written to it, and never
    /// replaced.
    ///
    /// # Errors
    /// [`StoreError::UnknownFormat`] for a store of a later version, [`StoreError::Damaged`] for something that is no
    /// store of this engine, [`StoreError::InUse`] if it is open elsewhere, and [`StoreError::Full`] or
    /// [`StoreError::Failed`] naming the path for anything the system refuses.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        E::open(path).map(Self::new)
    }

    /// The store that is in this engine; an empty one if that is empty.
    pub fn new(engine: E) -> Self {
        Self { engine }
    }

    /// What it is kept in.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// A record knows what it is, but not in which store.
    fn located<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.map_err(|error| match error {
            StoreError::Damaged { what, source } if source.is::<record::Unreadable>() => {
                let what = format!("{what} in {}", self.engine.path().display());
                StoreError::Damaged { what, source }
            }
            error => error,
        })
    }

    fn read<T>(&self, read: impl FnOnce(&dyn View) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.located(self.engine.read(read))
    }
}

impl<E: Engine> JobStore for KeyValueStore<E> {
    fn commit(&self, units: &[Unit]) -> Result<Vec<UnitOutcome>, StoreError> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        self.located(self.engine.write(|changes| write::commit(changes, units)))
    }

    fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        self.read(|view| match record::seq_of(view, id)? {
            Some(seq) => record::job(view, seq).map(Some),
            None => Ok(None),
        })
    }

    fn jobs(&self, request: &PageRequest) -> Result<Page, StoreError> {
        self.read(|view| page::jobs(view, request))
    }

    fn counts(&self) -> Result<BTreeMap<Status, u64>, StoreError> {
        let counts = self.read(record::totals)?.counts;
        Ok(counts.into_iter().filter(|(_, count)| *count > 0).collect())
    }

    fn attempts(&self, id: &JobId) -> Result<Vec<Job>, StoreError> {
        self.read(|view| match record::seq_of(view, id)? {
            Some(seq) => record::attempts(view, seq),
            None => Ok(Vec::new()),
        })
    }

    fn events(&self, after: u64, limit: usize) -> Result<Vec<JobEvent>, StoreError> {
        self.read(|view| record::events(view, after, limit))
    }

    fn document(&self, kind: DocumentKind, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|view| record::document(view, kind, key))
    }

    fn documents(
        &self,
        kind: DocumentKind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.read(|view| record::documents(view, kind, prefix, after, limit))
    }

    fn counters(&self) -> Result<Counters, StoreError> {
        Ok(self.read(record::totals)?.counters)
    }

    fn load(&self, items: &[Item]) -> Result<(), StoreError> {
        self.located(self.engine.write(|changes| write::load(changes, items, self.engine.path())))
    }

    fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<Check, StoreError> {
        let mut check = check_content(self, progress)?;
        let walked = self.read(|view| {
            if !check.is_sound() {
                check::damaged_records(view, &mut check)?;
            }
            check::indexes(view, &mut check)
        });
        check.note_damage(walked)?;
        self.engine.check(&mut check)?;
        Ok(check)
    }

    fn info(&self) -> StoreInfo {
        self.engine.info()
    }
}

impl<E: Engine> fmt::Debug for KeyValueStore<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValueStore").field("path", &self.engine.path()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
