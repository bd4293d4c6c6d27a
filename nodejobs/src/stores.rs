//! The stores there are, and which of them this build has.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use nodejobs_core::store::JobStore;
use serde::{Deserialize, Serialize};

use crate::api::ProblemKind;
use crate::error::Error;

/// Where a data directory keeps its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// `SQLite`, readable with its own shell.
    Sqlite,
    /// redb: one file, pure Rust.
    Redb,
    /// sled: a directory, pure Rust; promises less than the others.
    Sled,
}

#[cfg(not(any(feature = "sqlite", feature = "redb", feature = "sled")))]
compile_error!("whoever owns a data directory needs a store: enable the feature `sqlite`, `redb` or `sled`");

/// What a new data directory uses if nobody says anything: the first of those in this build, in the order `Sqlite`,
/// `Redb`, `Sled`.
impl Default for StoreKind {
    fn default() -> Self {
        let first = STORES.iter().find(|(_, _, is_here)| *is_here);
        first.map_or(StoreKind::Sqlite, |(kind, ..)| *kind)
    }
}

/// Whether a directory was owned before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DirectoryAge {
    /// It says nothing about itself yet, and need not have a store.
    New,
    /// It had a store, which therefore has to be there.
    Used,
}

/// Every store, its name, which is also the ending of its file, and whether it is in this build. Not how it is opened: who
/// only names a store, as the command line does, would have all of them in its program.
const STORES: [(StoreKind, &str, bool); 3] = [
    (StoreKind::Sqlite, "sqlite", cfg!(feature = "sqlite")),
    (StoreKind::Redb, "redb", cfg!(feature = "redb")),
    (StoreKind::Sled, "sled", cfg!(feature = "sled")),
];

type Open = fn(&Path) -> Result<Arc<dyn JobStore>, Error>;

#[cfg(feature = "sqlite")]
const SQLITE: Option<Open> = Some(|path| Ok(Arc::new(nodejobs_store_sqlite::SqliteStore::open(path)?)));
#[cfg(not(feature = "sqlite"))]
const SQLITE: Option<Open> = None;

#[cfg(feature = "redb")]
const REDB: Option<Open> = Some(|path| Ok(Arc::new(nodejobs_store_redb::RedbStore::open(path)?)));
#[cfg(not(feature = "redb"))]
const REDB: Option<Open> = None;

#[cfg(feature = "sled")]
const SLED: Option<Open> = Some(|path| Ok(Arc::new(nodejobs_store_sled::SledStore::open(path)?)));
#[cfg(not(feature = "sled"))]
const SLED: Option<Open> = None;

impl StoreKind {
    /// Those that are in this build, in the order in which they are listed.
    pub fn available() -> Vec<Self> {
        Self::all().filter(|kind| kind.is_available()).collect()
    }

    /// Whether it is in this build.
    pub fn is_available(self) -> bool {
        STORES.iter().any(|(kind, _, is_here)| *kind == self && *is_here)
    }

    /// Every one, also those that are not in this build.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        STORES.into_iter().map(|(kind, ..)| kind)
    }

    /// What it is called in a data directory.
    pub(crate) fn file_name(self) -> String {
        format!("jobs.{self}")
    }

    /// Its name in options and in the data directory.
    pub fn as_str(self) -> &'static str {
        let found = STORES.iter().find(|(kind, ..)| *kind == self);
        found.map_or("", |(_, name, _)| name)
    }

    /// Opens the store of a directory. One that was there before is not made anew: its jobs would be gone unsaid.
    pub(crate) fn open(self, directory: &Path, age: DirectoryAge) -> Result<Arc<dyn JobStore>, Error> {
        let path = directory.join(self.file_name());
        if self.is_available() && age == DirectoryAge::Used && !path.exists() {
            return Err(Error::new(
                ProblemKind::Unavailable,
                format!(
                    "the store '{}' is missing; restore it, or choose another directory with --data-dir",
                    path.display()
                ),
            ));
        }
        self.open_at(&path)
    }

    /// Opens the store at this path, or makes one there.
    pub(crate) fn open_at(self, path: &Path) -> Result<Arc<dyn JobStore>, Error> {
        let open = match self {
            StoreKind::Sqlite => SQLITE,
            StoreKind::Redb => REDB,
            StoreKind::Sled => SLED,
        };
        match open {
            Some(open) => open(path),
            None => Err(Error::new(ProblemKind::Unavailable, self.not_here())),
        }
    }

    fn not_here(self) -> String {
        format!(
            "the store {self} is not in this build; it has {}; build with `--features {self}` to have it",
            available().join(", ")
        )
    }
}

fn available() -> Vec<&'static str> {
    STORES.iter().filter(|(_, _, is_here)| *is_here).map(|(_, name, _)| *name).collect()
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for StoreKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let message = match STORES.iter().find(|(_, name, _)| *name == text) {
            Some((kind, _, true)) => return Ok(*kind),
            Some((kind, ..)) => kind.not_here(),
            None => format!("'{text}' is no store; this build has {}", available().join(", ")),
        };
        Err(Error::new(ProblemKind::Usage, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_not_in_this_build_is_refused_with_those_that_are() {
        for (kind, name, is_here) in STORES {
            if !is_here {
                let error = name.parse::<StoreKind>().expect_err("not here").to_string();
                assert!(error.contains(&available().join(", ")), "{error}");
                let Err(error) = kind.open(Path::new("/nowhere"), DirectoryAge::New) else {
                    panic!("{name} was opened")
                };
                assert!(error.to_string().contains(name), "{error}");
            } else {
                assert_eq!(name.parse::<StoreKind>().ok(), Some(kind));
            }
        }
        assert!("nosuch".parse::<StoreKind>().is_err());
    }
}
