//! Creating, checking and opening the directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use nodejobs_core::store::disk::{self, Kind, Mark};
use nodejobs_core::store::{StoreError, kv};
use sled::{Batch, Db};

use crate::error::store_error;

/// What the file [`MARK_FILE`] says.
pub(crate) const MARK: Mark = Mark { engine: "sled", format: kv::FORMAT, oldest: kv::OLDEST_FORMAT };
/// Says whose the directory is, and counts the commits; sled does not look at it.
const MARK_FILE: &str = "nodejobs";
/// sled's log, which holds everything.
const LOG: &str = "db";
/// What sled was configured with.
const CONFIGURATION: &str = "conf";

/// How long threads of sled may hold on to a log that was closed: they let go of it when they get to it.
const HANGING_ON: Duration = Duration::from_secs(5);

/// What the engine keeps in memory, in bytes, beside what it always keeps. Its own default is a GiB.
const CACHE_BYTES: u64 = 4 << 20;

/// sled takes the disk in segments of 512 KiB, and may begin some of them when it is opened and at any commit.
pub(crate) const SEGMENTS: u64 = 4 << 20;

/// Where the tree counts the commits; no key of the store begins so.
const COMMITS: &[u8] = b"\xfecommits";
/// The same count, behind the mark: so many digits.
const DIGITS: usize = 20;

/// An open store.
pub(crate) struct Open {
    pub(crate) db: Db,
    /// sled's log, for syncing: its own flush only asks the system to begin writing.
    log: File,
    /// Locked, and given up after all others.
    mark: Locked,
    commits: u64,
}

/// A locked file. The lock goes with it, also if a process that is just being started still has a copy of the descriptor.
pub(crate) struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // What fails here is freed by the close.
        let _ = self.0.unlock();
    }
}

impl Open {
    /// Makes the changes of a batch, and has them on disk.
    pub(crate) fn commit(&mut self, mut batch: Batch, path: &Path) -> Result<(), StoreError> {
        let failed = |error| store_error(error, "write to", path);
        let commits = self.commits + 1;
        batch.insert(COMMITS, &commits.to_be_bytes());
        self.db.apply_batch(batch).map_err(failed)?;
        self.db.flush().map_err(failed)?;
        let synced = if disk::skips_sync() { Ok(()) } else { self.log.sync_data() };
        let noted = synced.and_then(|()| {
            // Written after it is true and never synced: at worst it is behind, and misses less.
            self.mark.0.write_all_at(format!("{commits:0DIGITS$}\n").as_bytes(), MARK.line().len() as u64)
        });
        noted.map_err(|error| disk::failed("write to", path, error))?;
        self.commits = commits;
        Ok(())
    }

    /// sled takes a damaged log for one that ends there, and drops what comes behind. The count shows it.
    fn has_all_commits(&self, path: &Path) -> Result<(), StoreError> {
        let mut digits = [0; DIGITS];
        let read = self.mark.0.read_exact_at(&mut digits, MARK.line().len() as u64);
        let known = read.ok().and_then(|()| std::str::from_utf8(&digits).ok()?.parse::<u64>().ok());
        match known {
            None => Err(disk::damaged(path, format!("the count of commits in '{MARK_FILE}' is no number"))),
            Some(known) if known > self.commits => {
                let lost = known - self.commits;
                Err(disk::damaged(path, format!("sled has come back without the last {lost} commits")))
            }
            Some(_) => Ok(()),
        }
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
    let format = MARK.expect(&path.join(MARK_FILE), path)?;
    for name in [LOG, CONFIGURATION] {
        // The engine would make a new one.
        let file = path.join(name);
        disk::is_there(&file, Kind::File)?
            .then_some(())
            .ok_or_else(|| disk::damaged(path, format!("'{}' is missing", file.display())))?;
    }
    let failed = |error: io::Error| disk::failed("open", path, error);
    let mark = OpenOptions::new().read(true).write(true).open(path.join(MARK_FILE)).map_err(failed)?;
    match mark.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // Opened after a kill it tidies its log, and what it cannot write of that is damage afterwards.
    disk::has_room("open", path, SEGMENTS)?;
    disk::without_panic(path, || {
        let open = open(path, Locked(mark))?;
        open.has_all_commits(path)?;
        if format < kv::FORMAT {
            MARK.raise(&open.mark.0).map_err(failed)?;
        }
        // Some of the files were made just now.
        keep_private(path).map_err(failed)?;
        Ok(open)
    })
}

fn keep_private(path: &Path) -> io::Result<()> {
    disk::keep_private(path)?;
    fs::read_dir(path)?.try_for_each(|entry| disk::keep_private(&entry?.path()))
}

fn database(path: &Path) -> Result<Db, sled::Error> {
    sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        // Nothing is to be flushed that a commit has not flushed, and nobody is to be woken for it.
        .flush_every_ms(None)
        .open()
}

fn open(path: &Path, mark: Locked) -> Result<Open, StoreError> {
    let failed = |error| store_error(error, "open", path);
    let deadline = Instant::now() + HANGING_ON;
    let db = loop {
        match database(path).map_err(failed) {
            // The mark is locked, so nobody has it but what is left of a handle of our own.
            Err(StoreError::InUse { .. }) if Instant::now() < deadline => park_timeout(HANGING_ON / 1000),
            opened => break opened?,
        }
    };
    let commits = match db.get(COMMITS).map_err(failed)? {
        None => 0,
        Some(count) => u64::from_be_bytes(
            count
                .as_ref()
                .try_into()
                .map_err(|_| disk::damaged(path, "its count of commits is no number"))?,
        ),
    };
    let log = File::open(path.join(LOG)).map_err(|error| disk::failed("open", path, error))?;
    Ok(Open { db, log, mark, commits })
}

/// Writes an empty store into an empty directory.
fn fill(new: &Path, path: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| disk::failed("create", path, error);
    let db = database(new).map_err(|error| store_error(error, "create", path))?;
    db.flush().map_err(|error| store_error(error, "create", path))?;
    drop(db);
    let mark = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new.join(MARK_FILE));
    let mut mark = mark.map_err(failed)?;
    let count = format!("{:0DIGITS$}\n", 0);
    let written = MARK.write(&mut mark).and_then(|()| mark.write_all(count.as_bytes()));
    written.and_then(|()| mark.sync_all()).map_err(failed)?;
    for name in [LOG, CONFIGURATION] {
        File::open(new.join(name)).and_then(|file| file.sync_all()).map_err(failed)?;
    }
    File::open(new).and_then(|directory| directory.sync_all()).map_err(failed)
}
