//! A data directory's store as a whole: what it is, whether it is sound, and the ways into a file and into another store.
//!
//! All but [`info`] need the directory for themselves: with an owner in it they fail with
//! [`Conflict`](crate::api::ProblemKind::Conflict), and nobody can become its owner meanwhile. Jobs run on all the same: the next owner hears
//! from their keepers what has happened. Nothing here is async; each call may take as long as reading and writing
//! everything takes.
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use nodejobs::store;
//! # let directory = tempfile::tempdir()?;
//! # let (old, new) = (directory.path().join("old"), directory.path().join("new"));
//! # let empty = concat!(
//! #     r#"{"nodejobs_export":1,"version":"0","store":"sqlite","directory_id":"x","exported_at":"2026-07-14T03:33:20Z"}"#, "\n",
//! #     r#"{"counters":{"last_seq":0,"last_event":0}}"#, "\n",
//! #     r#"{"end":{"jobs":0,"attempts":0,"events":0,"documents":0}}"#, "\n",
//! # );
//! # store::import(&old, empty.as_bytes(), None, &mut |_| {})?;
//! let mut text = Vec::new();
//! store::export(&old, None, &mut text, &mut |_| {})?;
//! let imported = store::import(&new, text.as_slice(), None, &mut |progress| eprintln!("{progress}"))?;
//! assert!(!imported.restored, "another directory, whose jobs are its own");
//! assert!(store::check(&new, None, &mut |_| {})?.is_sound());
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```

mod access;
mod build;
mod export;
mod import;
mod migrate;

use std::fmt;
use std::path::Path;

use crate::api::StoreStatus;
use crate::client::Client;
use crate::error::Error;
use crate::store_status::status_of;
use crate::stores::{DirectoryAge, StoreKind};
use access::Held;

pub use export::{export, export_to_file};
pub use import::{Imported, import};
pub use migrate::{Migrated, migrate};
pub use nodejobs_core::store::content::Check;
pub use nodejobs_core::store::export::Totals;

/// How far something got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// How many records that was done with.
    pub records: u64,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Records go out.
    Exporting,
    /// Records go into a new store.
    Writing,
    /// A store is read through, and compared with itself.
    Checking,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Exporting => "exporting",
            Step::Writing => "writing",
            Step::Checking => "checking",
        };
        write!(f, "{step}: {} records", self.records)
    }
}

/// What the store of a directory is, promises and holds. With an owner in the directory, it is the owner who says it.
///
/// # Errors
/// [`Unavailable`](crate::api::ProblemKind::Unavailable) if there is no store, or it cannot be opened.
pub fn info(data_dir: &Path) -> Result<StoreStatus, Error> {
    match Client::connect(data_dir) {
        Ok(client) => Ok(client.store_status()?),
        Err(error) if error.is_no_daemon() => {
            let held = Held::used(data_dir, None)?;
            let kind = held.meta.store;
            let store = kind.open(held.directory.path(), DirectoryAge::Used)?;
            Ok(status_of(&*store, kind, held.directory.path(), None)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads everything in the store of a directory, and compares what is written twice. What is wrong is in the [`Check`].
///
/// # Errors
/// [`Unavailable`](crate::api::ProblemKind::Unavailable) if there is no store, or it cannot be opened or read.
pub fn check(
    data_dir: &Path,
    store: Option<StoreKind>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Check, Error> {
    let held = Held::used(data_dir, store)?;
    let store = held.meta.store.open(held.directory.path(), DirectoryAge::Used)?;
    Ok(store.check(&mut |records| progress(Progress { step: Step::Checking, records }))?)
}
