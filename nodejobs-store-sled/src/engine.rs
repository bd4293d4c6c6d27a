//! The map of bytes that the store is made of: the default tree of a sled database.
//!
//! sled knows no consistent view of several keys, and shows a batch before it is on disk. So a commit keeps readers out
//! from the first change to the last sync.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use nodejobs_core::store::content::Check;
use nodejobs_core::store::kv::{self, Changes, Direction, Engine, View, Visit};
use nodejobs_core::store::{StoreError, StoreInfo, disk};
use sled::{Db, IVec};

use crate::error::store_error;
use crate::open::{self, Open, SEGMENTS};
use crate::pieces;

/// What will be under each key; `None` is what will be gone.
type Pending = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A sled database.
pub struct SledEngine {
    path: PathBuf,
    /// `None` after a fault that the engine does not go on from: whoever needs it opens it again.
    open: RwLock<Option<Open>>,
}

impl Engine for SledEngine {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let open = open::open_or_create(path)?;
        Ok(Self { path: path.to_owned(), open: RwLock::new(Some(open)) })
    }

    fn read<T>(&self, read: impl FnOnce(&dyn View) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut guard = self.open.read().unwrap_or_else(PoisonError::into_inner);
        while guard.is_none() {
            drop(guard);
            self.opened(&mut self.open.write().unwrap_or_else(PoisonError::into_inner))?;
            guard = self.open.read().unwrap_or_else(PoisonError::into_inner);
        }
        let mut came_back = false;
        let result = disk::without_panic(&self.path, || {
            let Some(Open { db, .. }) = &*guard else {
                unreachable!("the loop before ends with a database, and closing it needs the lock")
            };
            let read = read(&Reading { db, path: &self.path });
            came_back = true;
            read
        });
        drop(guard);
        if !came_back {
            self.close(&mut self.open.write().unwrap_or_else(PoisonError::into_inner));
        }
        result
    }

    fn write<T>(
        &self,
        write: impl FnOnce(&mut dyn Changes) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut guard = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let open = self.opened(&mut guard)?;
        let mut is_intact = false;
        let result = disk::without_panic(&self.path, || {
            let prepared = prepare(&open.db, &self.path, write);
            is_intact = true;
            let (written, changes) = prepared?;
            if !changes.is_empty() {
                // After a commit that failed it answers everything with the same error.
                is_intact = false;
                open.commit(to_batch(changes), &self.path)?;
                is_intact = true;
            }
            Ok(written)
        });
        if !is_intact {
            self.close(&mut guard);
        }
        result
    }

    fn check(&self, check: &mut Check) -> Result<(), StoreError> {
        let blobs = self.path.join("blobs");
        match std::fs::read_dir(&blobs).map(Iterator::count) {
            Ok(count) if count > 0 => check.problem(format!("'{}' is not empty", blobs.display())),
            _ => {}
        }
        Ok(())
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn info(&self) -> StoreInfo {
        StoreInfo {
            engine: "sled".to_owned(),
            format: kv::FORMAT,
            path: Some(self.path.clone()),
            shareable: false,
            weaker: WEAKER.map(str::to_owned).into(),
        }
    }
}

const WEAKER: [&str; 5] = [
    "sled is beta software, and its authors advise to keep backups; each commit is synced, but how its files come back \
     after a loss of power was tested less than those of the other stores",
    "sled takes damage in its log for the end of it and drops what comes behind while it is opened; that is noticed and \
     refused afterwards, so only a backup brings it back",
    "sled writes when it is opened and is damaged if that fails, so a store on a disk with less than 5 MiB free is not \
     opened, not even for reading",
    "memory and space on disk grow with the history, and opening takes longer",
    "sled has seven threads, each of which wakes up once a second, also when there is nothing to do",
];

impl SledEngine {
    /// Gives up a database that has failed. What it says when it is closed, it has said before.
    fn close(&self, open: &mut Option<Open>) {
        let failed = open.take();
        let _ = disk::without_panic(&self.path, || {
            drop(failed);
            Ok(())
        });
    }

    fn opened<'o>(&self, open: &'o mut Option<Open>) -> Result<&'o mut Open, StoreError> {
        match open {
            Some(open) => Ok(open),
            None => Ok(open.insert(open::reopen(&self.path)?)),
        }
    }
}

/// What `write` wants changed, if there is room for it.
fn prepare<T>(
    db: &Db,
    path: &Path,
    write: impl FnOnce(&mut dyn Changes) -> Result<T, StoreError>,
) -> Result<(T, Pending), StoreError> {
    let mut writing = Writing { reading: Reading { db, path }, changes: BTreeMap::new() };
    let written = write(&mut writing)?;
    let Writing { changes, .. } = writing;
    let sizes = changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len));
    let bytes = sizes.sum::<usize>() as u64;
    disk::has_room("write to", path, bytes.saturating_mul(2).saturating_add(SEGMENTS))?;
    Ok((written, changes))
}

fn to_batch(changes: Pending) -> sled::Batch {
    let mut batch = sled::Batch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
    }
    batch
}

impl fmt::Debug for SledEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledEngine").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What is on disk.
struct Reading<'e> {
    db: &'e Db,
    path: &'e Path,
}

impl Reading<'_> {
    fn stored(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        self.db.get(key).map_err(|error| store_error(error, "read", self.path))
    }
}

impl View for Reading<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.stored(key)? {
            Some(head) => whole(key, &head, self.path, |key| self.stored(key)).map(Some),
            None => Ok(None),
        }
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
        let mut range = self.db.range(from..to);
        while let Some(entry) = match direction {
            Direction::Forward => range.next(),
            Direction::Backward => range.next_back(),
        } {
            let (key, head) = entry.map_err(|error| store_error(error, "read", self.path))?;
            let value = whole(&key, &head, self.path, |key| self.stored(key))?;
            if visit(&key, &value)? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

fn whole(
    key: &[u8],
    head: &[u8],
    path: &Path,
    stored: impl Fn(&[u8]) -> Result<Option<IVec>, StoreError>,
) -> Result<Vec<u8>, StoreError> {
    pieces::join(key, head, stored)?.ok_or_else(|| StoreError::Damaged {
        what: format!("the value of key '{}' in {}", key.escape_ascii(), path.display()),
        source: "it is not whole".into(),
    })
}

/// What is on disk, and what will be.
struct Writing<'e> {
    reading: Reading<'e>,
    changes: Pending,
}

impl Writing<'_> {
    fn stored(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        match self.changes.get(key) {
            Some(value) => Ok(value.as_deref().map(IVec::from)),
            None => self.reading.stored(key),
        }
    }

    /// Takes the pieces of a value away that is there now.
    fn delete_pieces(&mut self, key: &[u8]) -> Result<bool, StoreError> {
        let Some(head) = self.stored(key)? else { return Ok(false) };
        for number in 0..pieces::count(&head).unwrap_or(0) {
            let piece = pieces::piece_key(key, number);
            // A count that is damaged leads far beyond the last one.
            if self.stored(&piece)?.is_none() {
                break;
            }
            self.changes.insert(piece, None);
        }
        Ok(true)
    }
}

impl View for Writing<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.stored(key)? {
            Some(head) => whole(key, &head, self.reading.path, |key| self.stored(key)).map(Some),
            None => Ok(None),
        }
    }

    /// Only short spans are scanned while something is written: what belongs to one job.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let mut found = BTreeMap::new();
        self.reading.scan(from, to, Direction::Forward, &mut |key, value| {
            found.insert(key.to_vec(), value.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        if from < to {
            for (key, head) in self.changes.range(from.to_vec()..to.to_vec()) {
                match head {
                    Some(head) => {
                        let value = whole(key, head, self.reading.path, |key| self.stored(key))?;
                        found.insert(key.clone(), value);
                    }
                    None => {
                        found.remove(key);
                    }
                }
            }
        }
        let mut entries = found.iter();
        while let Some((key, value)) = match direction {
            Direction::Forward => entries.next(),
            Direction::Backward => entries.next_back(),
        } {
            if visit(key, value)? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

impl Changes for Writing<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.delete_pieces(key)?;
        let (head, pieces) = pieces::cut(key, value);
        for (key, piece) in pieces {
            self.changes.insert(key, Some(piece.to_vec()));
        }
        self.changes.insert(key.to_vec(), Some(head));
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        if self.delete_pieces(key)? {
            self.changes.insert(key.to_vec(), None);
        }
        Ok(())
    }
}
