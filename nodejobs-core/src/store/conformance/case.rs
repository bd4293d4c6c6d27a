//! What a rule gets: the store under test, and a directory of its own.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::{Disk, OnDisk, Subject};
use crate::store::JobStore;

/// For rules about every store.
pub(super) struct Case {
    subject: &'static dyn Subject,
    directory: TempDir,
    places: AtomicU32,
}

impl Case {
    pub(super) fn new(subject: &'static dyn Subject) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { subject, directory, places: AtomicU32::new(0) }
    }

    /// A new, empty store.
    pub(super) fn store(&self) -> Box<dyn JobStore> {
        self.open(&self.place())
    }

    /// A path where nothing is yet, alone in its directory.
    pub(super) fn place(&self) -> PathBuf {
        let number = self.places.fetch_add(1, Ordering::Relaxed);
        let directory = self.directory.path().join(number.to_string());
        std::fs::create_dir(&directory).expect("a directory");
        directory.join(format!("store.{}", self.subject.name()))
    }

    /// Where all its places are.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn open(&self, path: &Path) -> Box<dyn JobStore> {
        self.subject.open(path).unwrap_or_else(|error| panic!("cannot open: {error:?}"))
    }
}

/// For rules about stores that have a path.
pub(super) struct DiskCase {
    case: Case,
    pub(super) subject: &'static dyn OnDisk,
    /// Where the generated test `child` is, without the crate: as it is called in the test program.
    pub(super) child: &'static str,
    pub(super) fixtures: &'static Path,
}

impl DiskCase {
    pub(super) fn new(disk: Disk) -> Self {
        let Disk { subject, child, fixtures } = disk;
        let child = child.split_once("::").map_or(child, |(_, path)| path);
        Self { case: Case::new(subject), subject, child, fixtures: Path::new(fixtures) }
    }
}

impl Deref for DiskCase {
    type Target = Case;

    fn deref(&self) -> &Case {
        &self.case
    }
}
