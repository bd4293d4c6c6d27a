//! The map of bytes that the store is made of: one table of one redb database.

use std::cell::Cell;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use nodejobs_core::store::content::Check;
use nodejobs_core::store::kv::{self, Changes, Direction, Engine, View, Visit};
use nodejobs_core::store::{StoreError, StoreInfo, disk};
use redb::{Database, ReadableDatabase as _, ReadableTable, Table};

use crate::error::Fault;
use crate::open::{self, TABLE};

/// Whether the engine has failed while somebody worked with it. It does not go on after that.
type Failed = Cell<bool>;

/// A redb database with one table.
pub struct RedbEngine {
    path: PathBuf,
    /// `None` after a fault that the engine does not go on from: whoever needs it opens it again.
    database: RwLock<Option<Database>>,
}

impl RedbEngine {
    pub(crate) fn new(path: &Path, database: Database) -> Self {
        Self { path: path.to_owned(), database: RwLock::new(Some(database)) }
    }

    /// Does something with the database, which nobody closes meanwhile.
    fn with<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Database, &Path, &Failed) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let mut database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        while database.is_none() {
            drop(database);
            let mut closed = self.database.write().unwrap_or_else(PoisonError::into_inner);
            if closed.is_none() {
                *closed = Some(open::reopen(&self.path)?);
            }
            drop(closed);
            database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        }
        let failed = Failed::default();
        let mut came_back = false;
        let result = disk::without_panic(&self.path, || {
            let Some(open) = &*database else {
                unreachable!("the loop before ends with a database, and closing it needs the lock")
            };
            let worked = work(open, &self.path, &failed);
            came_back = true;
            worked.map_err(|fault| {
                failed.set(failed.get() || matches!(fault, Fault::Engine(_)));
                fault.into_store_error(operation, &self.path)
            })
        });
        drop(database);
        if failed.get() || !came_back {
            self.close(&mut self.database.write().unwrap_or_else(PoisonError::into_inner));
        }
        result
    }

    /// Gives up a database that has failed. What it says when it is closed, it has said before.
    fn close(&self, database: &mut Option<Database>) {
        let failed = database.take();
        let _ = disk::without_panic(&self.path, || {
            drop(failed);
            Ok(())
        });
    }
}

impl Engine for RedbEngine {
    fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self::new(path, open::open_or_create(path)?))
    }

    fn read<T>(&self, read: impl FnOnce(&dyn View) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with("read", |database, path, failed| {
            let table = database.begin_read()?.open_table(TABLE)?;
            read(&Reading { table, path, failed }).map_err(Fault::Store)
        })
    }

    fn write<T>(
        &self,
        write: impl FnOnce(&mut dyn Changes) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with("write to", |database, path, failed| {
            // Dropped without a commit, it is taken back.
            let mut transaction = database.begin_write()?;
            // Otherwise whoever opens the file after a crash reads all of it first.
            transaction.set_quick_repair(true);
            let table = transaction.open_table(TABLE)?;
            let mut writing = Writing { reading: Reading { table, path, failed }, bytes: 0 };
            let written = write(&mut writing).map_err(Fault::Store)?;
            let bytes = writing.bytes;
            drop(writing);
            disk::has_room("write to", path, bytes.saturating_mul(2)).map_err(Fault::Store)?;
            transaction.commit()?;
            Ok(written)
        })
    }

    fn check(&self, check: &mut Check) -> Result<(), StoreError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // After a fault there is none, and what is wrong has been noted by whoever met it.
        let Some(open) = &mut *database else { return Ok(()) };
        let checked = disk::without_panic(&self.path, || {
            open.check_integrity().map_err(|error| Fault::from(error).into_store_error("check", &self.path))
        });
        match checked {
            Ok(true) => {}
            Ok(false) => check.problem("redb has found pages that nobody uses, and mended that"),
            Err(error) => {
                self.close(&mut database);
                check.note_damage::<()>(Err(error))?;
            }
        }
        Ok(())
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn info(&self) -> StoreInfo {
        StoreInfo {
            engine: "redb".to_owned(),
            format: kv::FORMAT,
            path: Some(self.path.clone()),
            shareable: false,
            weaker: Vec::new(),
        }
    }
}

impl fmt::Debug for RedbEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbEngine").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The table, in a transaction that reads or one that writes.
struct Reading<'w, T> {
    table: T,
    path: &'w Path,
    failed: &'w Failed,
}

impl<T> Reading<'_, T> {
    fn failed(&self, error: redb::StorageError, operation: &'static str) -> StoreError {
        self.failed.set(true);
        Fault::from(error).into_store_error(operation, self.path)
    }
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> View for Reading<'_, T> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.table.get(key).map_err(|error| self.failed(error, "read"))?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let range = self.table.range::<&[u8]>(from..to);
        let mut range = range.map_err(|error| self.failed(error, "read"))?;
        while let Some(entry) = match direction {
            Direction::Forward => range.next(),
            Direction::Backward => range.next_back(),
        } {
            let (key, value) = entry.map_err(|error| self.failed(error, "read"))?;
            if visit(key.value(), value.value())? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

struct Writing<'t, 'w> {
    reading: Reading<'w, Table<'t, &'static [u8], &'static [u8]>>,
    /// Bytes written so far.
    bytes: u64,
}

impl View for Writing<'_, '_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        View::get(&self.reading, key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        View::scan(&self.reading, from, to, direction, visit)
    }
}

impl Changes for Writing<'_, '_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.bytes += (key.len() + value.len()) as u64;
        let inserted = self.reading.table.insert(key, value).map(drop);
        inserted.map_err(|error| self.reading.failed(error, "write to"))
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let removed = self.reading.table.remove(key).map(drop);
        removed.map_err(|error| self.reading.failed(error, "write to"))
    }
}
