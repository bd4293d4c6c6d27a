//! Creating, checking and opening the file.

use std::fs::{File, OpenOptions};
use std::path::Path;

use nodejobs_core::store::disk::{self, Kind, Mark};
use nodejobs_core::store::{StoreError, kv};
use redb::{Database, StorageBackend, TableDefinition};

use crate::error::Fault;
use crate::file::{MARK_BYTES, MarkedFile};

/// What the file begins with.
pub(crate) const MARK: Mark = Mark { engine: "redb", format: kv::FORMAT, oldest: kv::OLDEST_FORMAT };

/// The one table there is.
pub(crate) const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("nodejobs");

/// What the engine keeps in memory of the file. Its own default is a GiB.
const CACHE_BYTES: usize = 4 << 20;

/// Opens the store, or creates it.
pub(crate) fn open_or_create(path: &Path) -> Result<Database, StoreError> {
    if !disk::is_there(path, Kind::File)? {
        disk::create(path, Kind::File, |new| {
            fill(new).map_err(|fault| fault.into_store_error("create", path))
        })?;
    }
    reopen(path)
}

/// Opens the store, which is there.
pub(crate) fn reopen(path: &Path) -> Result<Database, StoreError> {
    disk::is_there(path, Kind::File)?;
    let format = MARK.expect(path, path)?;
    disk::keep_private(path).map_err(|error| disk::failed("open", path, error))?;
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(|error| disk::failed("open", path, error))?;
    let mark = file.try_clone().map_err(|error| disk::failed("open", path, error))?;
    let open = || {
        let file = MarkedFile::new(file)?;
        if file.len()? == 0 {
            // The engine would take it for a new one.
            return Err(Fault::Store(disk::damaged(path, "the file ends behind its mark")));
        }
        let database = database(file)?;
        if format < kv::FORMAT {
            MARK.raise(&mark)?;
        }
        Ok(database)
    };
    disk::without_panic(path, || open().map_err(|fault| fault.into_store_error("open", path)))
}

pub(crate) fn database(file: impl StorageBackend) -> Result<Database, Fault> {
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(file)?)
}

/// Writes an empty store into an empty file.
fn fill(new: &Path) -> Result<(), Fault> {
    let mut file = OpenOptions::new().read(true).write(true).open(new)?;
    MARK.write(&mut file)?;
    file.set_len(MARK_BYTES)?;
    make_table(&database(MarkedFile::new(file)?)?)?;
    Ok(File::open(new)?.sync_all()?)
}

pub(crate) fn make_table(database: &Database) -> Result<(), Fault> {
    let transaction = database.begin_write()?;
    transaction.open_table(TABLE)?;
    Ok(transaction.commit()?)
}
