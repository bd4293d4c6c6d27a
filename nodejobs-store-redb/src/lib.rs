//! The redb store of nodejobs: durable, one file, pure Rust.
//!
//! | file | holds |
//! |---|---|
//! | `open.rs` | creating, checking and opening the file |
//! | `engine.rs` | the map of bytes that the store is made of |
//! | `file.rs` | the file as redb sees it, behind the mark that says whose it is |
//! | `error.rs` | what the engine says, as what the caller can do next |
//!
//! What is kept under which key is the same in every store on a key-value engine: [`nodejobs_core::store::kv`].
//!
//! This crate knows core and its engine. It has no clock, no threads and no locks between processes: that one owner
//! has the data directory is decided above it.

mod engine;
mod error;
mod file;
mod open;

use nodejobs_core::store::kv::KeyValueStore;

pub use crate::engine::RedbEngine;

/// Keeps jobs in one redb file. Every commit is on disk when it returns, and the file needs no repair after a crash.
///
/// # Example
/// ```
/// use nodejobs_core::job::{Definition, JobState};
/// use nodejobs_core::spec::{Command, JobSpec};
/// use nodejobs_core::store::{JobChange, JobStore, UnitOutcome};
/// use nodejobs_core::{JobId, Status, Timestamp};
/// use nodejobs_store_redb::RedbStore;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("nodejobs.redb");
/// let store = RedbStore::open(&path)?;
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
pub type RedbStore = KeyValueStore<RedbEngine>;

#[cfg(test)]
mod power;
