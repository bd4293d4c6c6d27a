//! The sled store of nodejobs: a directory, pure Rust.
//!
//! | file | holds |
//! |---|---|
//! | `open.rs` | creating, checking and opening the directory |
//! | `engine.rs` | the map of bytes that the store is made of |
//! | `pieces.rs` | large values in pieces, because sled never syncs what it calls blobs |
//! | `error.rs` | what the engine says, as what the caller can do next |
//!
//! What is kept under which key is the same in every store on a key-value engine: [`nodejobs_core::store::kv`].
//!
//! This crate knows core and its engine. That one owner has the data directory is decided above it; the lock here only
//! tells another process from a handle of this one that sled has not let go of yet.

mod engine;
mod error;
mod open;
mod pieces;

use nodejobs_core::store::kv::KeyValueStore;

pub use crate::engine::SledEngine;

/// Keeps jobs in one sled tree. What it promises less than the others is in its
/// [`info`](nodejobs_core::store::JobStore::info).
///
/// # Example
/// ```
/// use nodejobs_core::job::{Definition, JobState};
/// use nodejobs_core::spec::{Command, JobSpec};
/// use nodejobs_core::store::{JobChange, JobStore, UnitOutcome};
/// use nodejobs_core::{JobId, Status, Timestamp};
/// use nodejobs_store_sled::SledStore;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("nodejobs.sled");
/// let store = SledStore::open(&path)?;
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
pub type SledStore = KeyValueStore<SledEngine>;
