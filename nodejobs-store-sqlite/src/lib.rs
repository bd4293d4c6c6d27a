//! The SQLite store of nodejobs: durable, one file, readable with the `sqlite3` shell.
//!
//! ```text
//! sqlite3 -readonly nodejobs.sqlite "SELECT id, status, exit_code FROM jobs WHERE group_name = 'nightly'"
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `open.rs` | creating, checking and opening the file |
//! | `schema.rs` | the tables, the indexes and the version of the format |
//! | `rows.rs` | rows to and from the types of core |
//! | `write.rs` | `commit` |
//! | `counts.rs` | how many jobs have which status |
//! | `read.rs` | every read but the listing |
//! | `content.rs` | filling a new store, and checking one |
//! | `page.rs` | the listing: a filter becomes SQL and an index to go along |
//! | `log.rs` | what damage to the write-ahead log has dropped |
//! | `look.rs` | whether a store can be read, without changing it |
//! | `pool.rs` | connections that can only read |
//! | `error.rs` | what the engine says, as what the caller can do next |
//!
//! This crate knows core and its engine. It has no clock, no threads and no locks between processes: that one owner
//! has the data directory is decided above it.

mod content;
mod counts;
mod error;
mod log;
mod look;
mod open;
mod page;
mod pool;
mod read;
mod rows;
mod schema;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nodejobs_core::JobId;
use nodejobs_core::job::Job;
use nodejobs_core::status::Status;
use nodejobs_core::store::content::{Check, Counters, Item, check_content};
use nodejobs_core::store::{
    DocumentKind, JobEvent, JobStore, Page, PageRequest, StoreError, StoreInfo, Unit, UnitOutcome,
};
use rusqlite::Connection;

use crate::error::Fault;
pub use crate::look::Look;
use crate::pool::ReaderPool;

/// Keeps jobs in one SQLite file, in WAL mode with `synchronous=FULL`.
///
/// One connection writes; reads have connections of their own and never wait for it.
///
/// # Example
/// ```
/// use nodejobs_core::job::{Definition, JobState};
/// use nodejobs_core::spec::{Command, JobSpec};
/// use nodejobs_core::store::{JobChange, JobStore, UnitOutcome};
/// use nodejobs_core::{JobId, Status, Timestamp};
/// use nodejobs_store_sqlite::SqliteStore;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("nodejobs.sqlite");
/// let store = SqliteStore::open(&path)?;
/// let now = Timestamp::from_millis(1_784_000_000_000);
/// let id = JobId::new("hello")?;
/// let spec = JobSpec::new(Command::argv(["echo", "hello"]), "/");
/// let outcomes = store.commit(&[JobChange::Insert {
///     id: id.clone(),
///     definition: Box::new(Definition::new(&spec, "/var/log".into(), now)),
///     state: JobState::new(1, Status::Queued, now),
/// }
/// .into()])?;
/// assert_eq!(outcomes, [UnitOutcome::Applied { seq: 1, event: 1 }]);
/// assert_eq!(store.job(&id)?.map(|job| job.state.status), Some(Status::Queued));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SqliteStore {
    path: PathBuf,
    // Before the writer, so that the connection that is closed last is one that can fold the WAL into the file.
    readers: ReaderPool,
    writer: Mutex<Connection>,
    /// Whether commits are in the log that are not in the file.
    has_log: AtomicBool,
    /// What the log had lost when it was opened, in words.
    damage: Option<String>,
}

impl SqliteStore {
    /// Opens the store at this path, or creates it there, readable and writable by its owner only.
    ///
    /// The file is created whole or not at all. What is there is recognised before anything is written to it, and
    /// never replaced.
    ///
    /// # Errors
    /// [`StoreError::UnknownFormat`] for the file of a later version or of another program, [`StoreError::Damaged`]
    /// for something that is no database, [`StoreError::InUse`] if another process keeps it locked, and
    /// [`StoreError::Failed`] naming the path for anything the system refuses.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (writer, damage) = open::open_or_create(path)?;
        let readers = ReaderPool::new(path);
        Ok(Self {
            path: path.to_owned(),
            readers,
            writer: Mutex::new(writer),
            has_log: AtomicBool::new(false),
            damage,
        })
    }

    /// Reads a store that nobody has open through, and changes nothing. `may_go_on` is asked again and again; when it
    /// says no, the look is over and not complete.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`StoreError::Damaged`] for damage wherever it is in the file.
    pub fn look(path: &Path, may_go_on: impl FnMut() -> bool + Send + 'static) -> Result<Look, StoreError> {
        look::look(path, may_go_on)
    }

    /// What damage to the log had dropped when a store was opened earlier, in words, by the copy that was kept of that log:
    /// the file itself does not show it.
    pub fn earlier_damage(path: &Path) -> Option<String> {
        log::earlier(path)
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        // A panic during a commit has rolled its transaction back, so the connection is as good as before.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, StoreError> {
        self.readers.with(read).map_err(|fault| fault.into_store_error("read", &self.path))
    }
}

impl JobStore for SqliteStore {
    fn commit(&self, units: &[Unit]) -> Result<Vec<UnitOutcome>, StoreError> {
        let mut writer = self.writer();
        // Before the commit: it may be on disk even where it says that it failed.
        self.has_log.store(true, Ordering::Relaxed);
        write::commit(&mut writer, units).map_err(|fault| fault.into_store_error("write to", &self.path))
    }

    fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        self.read(|connection| read::job(connection, id))
    }

    fn jobs(&self, request: &PageRequest) -> Result<Page, StoreError> {
        self.read(|connection| page::jobs(connection, request))
    }

    fn counts(&self) -> Result<BTreeMap<Status, u64>, StoreError> {
        self.read(read::counts)
    }

    fn attempts(&self, id: &JobId) -> Result<Vec<Job>, StoreError> {
        self.read(|connection| read::attempts(connection, id))
    }

    fn events(&self, after: u64, limit: usize) -> Result<Vec<JobEvent>, StoreError> {
        self.read(|connection| read::events(connection, after, limit))
    }

    fn document(&self, kind: DocumentKind, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|connection| read::document(connection, kind, key))
    }

    fn documents(
        &self,
        kind: DocumentKind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.read(|connection| read::documents(connection, kind, prefix, after, limit))
    }

    fn counters(&self) -> Result<Counters, StoreError> {
        self.read(read::counters)
    }

    fn load(&self, items: &[Item]) -> Result<(), StoreError> {
        content::load(&mut self.writer(), items, &self.path)
            .map_err(|fault| fault.into_store_error("load into", &self.path))
    }

    fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<Check, StoreError> {
        let mut check = check_content(self, progress)?;
        if let Some(damage) = self.damage.clone().or_else(|| log::earlier(&self.path)) {
            check.problem(damage);
        }
        if !check.is_sound() {
            let read = self.read(|connection| content::damaged_records(connection, &mut check, &self.path));
            check.note_damage(read)?;
        }
        self.read(|connection| content::check(connection, &mut check))?;
        Ok(check)
    }

    fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    fn has_put_off(&self) -> bool {
        self.has_log.load(Ordering::Relaxed)
    }

    fn rest(&self) -> Result<(), StoreError> {
        let writer = self.writer();
        self.has_log.store(false, Ordering::Relaxed);
        open::fold(&writer)
            .map_err(|error| Fault::from(error).into_store_error("fold the log into", &self.path))
    }

    fn info(&self) -> StoreInfo {
        StoreInfo {
            engine: "sqlite".to_owned(),
            format: schema::FORMAT,
            path: Some(self.path.clone()),
            shareable: true,
            weaker: Vec::new(),
        }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
