//! How many commits there were, noted beside sled as well.
//!
//! Where sled's log is damaged, sled takes the damage for the end of it, and is without a word as it was before. So every
//! commit is counted in sled, and again in a file of its own once it is on disk. That file is not synced: after a loss
//! of power it may say less than there is. If it says more, sled has lost some.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use nodejobs_core::store::{StoreError, disk};
use sled::{Db, IVec};

use crate::error::store_error;

/// The file in the store's directory.
const FILE: &str = "commits";
/// Where the count is in sled; no other key begins so.
const KEY: &[u8] = &[0xfe];

/// What the count is noted in.
pub(crate) struct Witness(File);

impl Witness {
    /// Opens what is noted of the store in this directory, which has just been opened; compares it with the store.
    pub(crate) fn open(path: &Path, db: &Db) -> Result<Self, StoreError> {
        let failed = |error: io::Error| disk::failed("open", path, error);
        let file = path.join(FILE);
        // Where there is none, nothing is known.
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(file);
        let file = file.map_err(failed)?;
        let mut noted = Vec::new();
        io::Read::read_to_end(&mut &file, &mut noted).map_err(failed)?;
        let noted = match noted.as_slice() {
            [] => 0,
            noted => decode(noted).ok_or_else(|| disk::damaged(path, format!("'{FILE}' holds no number")))?,
        };
        let there = count(path, db)?;
        if there < noted {
            let lost = noted - there;
            let why =
                format!("the last {lost} of {noted} commits are gone: its log is damaged, or was replaced");
            return Err(disk::damaged(path, why));
        }
        Ok(Self(file))
    }

    /// Notes this many commits, which are on disk.
    pub(crate) fn note(&self, count: u64) {
        // The commit is done whether this works or not; where it does not, less damage is noticed.
        let _ = self.0.write_all_at(&encode(count), 0);
    }
}

/// How many commits there are in sled.
pub(crate) fn count(path: &Path, db: &Db) -> Result<u64, StoreError> {
    match db.get(KEY).map_err(|error| store_error(error, "read", path))? {
        None => Ok(0),
        Some(count) => {
            decode(&count).ok_or_else(|| disk::damaged(path, "the number of commits is no number"))
        }
    }
}

/// The entry that says in sled that there are this many.
pub(crate) fn entry(count: u64) -> (&'static [u8], IVec) {
    (KEY, IVec::from(&encode(count)))
}

/// Twice, so that what is no number is told.
fn encode(count: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&count.to_be_bytes());
    bytes[8..].copy_from_slice(&(!count).to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let (count, check) = bytes.split_first_chunk::<8>()?;
    let (count, check) = (u64::from_be_bytes(*count), u64::from_be_bytes(check.try_into().ok()?));
    (count == !check).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_told_from_other_bytes() {
        assert_eq!([0, 1, u64::MAX].map(|count| decode(&encode(count))), [Some(0), Some(1), Some(u64::MAX)]);
        assert_eq!(decode(&[0; 16]), None);
        assert_eq!(decode(&encode(7)[..15]), None);
    }
}
