//! Creating, checking and opening the directory.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nodejobs_core::store::disk::{self, Kind, Mark};
use nodejobs_core::store::{StoreError, kv};
use sled::Db;

use crate::error::store_error;
use crate::witness::Witness;

/// What the file [`MARK_FILE`] says.
pub(crate) const MARK: Mark = Mark { engine: "sled", format: kv::FORMAT };
/// Says whose the directory is; sled does not look at it.
const MARK_FILE: &str = "nodejobs";
/// sled's log, which holds everything.
const LOG: &str = "db";
/// What sled was configured with.
const CONFIGURATION: &str = "conf";

/// What the engine keeps in memory, in bytes, beside what it always keeps. Its own default is a GiB.
const CACHE_BYTES: u64 = 4 << 20;

/// An open store.
pub(crate) struct Open {
    pub(crate) db: Db,
    /// sled's log, for syncing: its own flush only asks the system to begin writing.
    pub(crate) log: File,
    pub(crate) witness: Witness,
}

impl Open {
    /// Has everything that was written on disk.
    pub(crate) fn sync(&self, path: &Path) -> Result<(), StoreError> {
        self.db.flush().map_err(|error| store_error(error, "write to", path))?;
        self.log.sync_data().map_err(|error| disk::failed("write to", path, error))
    }
}

/// Opens the store, or creates it.
pub(crate) fn open_or_create(path: &Path) -> Result<Open, StoreError> {
    if !disk::is_there(path, Kind::Directory)? {
        disk::create(path, Kind::Directory, |new| fill(new, path))?;
    }
    reopen(path)
}

/// Opens the store, which is there.
pub(crate) fn reopen(path: &Path) -> Result<Open, StoreError> {
    disk::is_there(path, Kind::Directory)?;
    MARK.expect(&path.join(MARK_FILE), path)?;
    for name in [LOG, CONFIGURATION] {
        // The engine would make a new one.
        let file = path.join(name);
        disk::is_there(&file, Kind::File)?
            .then_some(())
            .ok_or_else(|| disk::damaged(path, format!("'{}' is missing", file.display())))?;
    }
    let failed = |error: io::Error| disk::failed("open", path, error);
    disk::keep_private(path).map_err(failed)?;
    for entry in fs::read_dir(path).map_err(failed)? {
        disk::keep_private(&entry.map_err(failed)?.path()).map_err(failed)?;
    }
    open(path)
}

fn open(path: &Path) -> Result<Open, StoreError> {
    let db = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        // Nothing is to be flushed that a commit has not flushed, and nobody is to be woken for it.
        .flush_every_ms(None)
        .open()
        .map_err(|error| store_error(error, "open", path))?;
    let log = File::open(path.join(LOG)).map_err(|error| disk::failed("open", path, error))?;
    let witness = Witness::open(path, &db)?;
    Ok(Open { db, log, witness })
}

/// Writes an empty store into an empty directory.
fn fill(new: &Path, path: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| disk::failed("create", path, error);
    let open = open(new)?;
    open.sync(path)?;
    drop(open);
    let mark = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new.join(MARK_FILE));
    let mut mark = mark.map_err(failed)?;
    MARK.write(&mut mark).and_then(|()| mark.sync_all()).map_err(failed)?;
    for name in [LOG, CONFIGURATION] {
        File::open(new.join(name)).and_then(|file| file.sync_all()).map_err(failed)?;
    }
    File::open(new).and_then(|directory| directory.sync_all()).map_err(failed)
}
