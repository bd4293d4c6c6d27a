//! The file as redb sees it: everything behind the mark that says whose it is.

use std::fs::File;
use std::io;
use std::ops::Bound;

use nodejobs_core::store::disk;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// Bytes before redb's own; as many as one of its pages has, so that those stay aligned.
pub(crate) const MARK_BYTES: u64 = 4096;

/// A file that begins with a mark.
#[derive(Debug)]
pub(crate) struct MarkedFile(FileBackend);

impl MarkedFile {
    pub(crate) fn new(file: File) -> Result<Self, redb::DatabaseError> {
        FileBackend::new(file).map(Self)
    }
}

impl StorageBackend for MarkedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len()?.saturating_sub(MARK_BYTES))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(MARK_BYTES + offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(MARK_BYTES + len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if disk::skips_sync() { Ok(()) } else { self.0.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(MARK_BYTES + offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    // Locks are on the file as a whole, and on bytes far behind its end.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
