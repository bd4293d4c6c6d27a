//! The keeper's journal: what happened to the jobs it launched, kept until the owner has it in the store.
//!
//! A file of 256-byte entries behind a 256-byte header. Entries never cross a page, so each append is whole or not
//! there, also when the writer is killed. It is never synced: it has to outlive processes, not power. Its space is
//! reserved in advance, so that a full disk does not lose an exit status. Its name has the boot: after a loss of power
//! the name is there and the content may not be, and then that says what the content is worth.
//!
//! An entry's *position* counts from the keeper's beginning and stays valid when the file is rewritten shorter.
//! Format: version 1; little-endian; unused bytes are zero; the last four bytes of header and entries are a CRC-32.
//!
//! ```text
//! header   0 magic "nodejobs journal"  16 version u32  24 position of the first entry u64  32 boot id, 36 characters
//! entry    0 kind u8  1 id length u8  2 stage u8  3 exit kind u8  4 attempt u32  8 pid u32  12 code i32
//!         16 start ticks u64  24 pidfs number u64 (of a failed start: which + 1, u32)  32 wall ms i64  40 boot ms u64
//!         48 cpu µs u64  56 peak KiB u64  64 acknowledged position u64  80 id, 128 bytes
//!        208 start of standard output u64  216 of standard error u64
//! ```

mod entry;

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use crate::failpoint::{Failpoint, reached};
use entry::CHECKSUM_AT;
pub(crate) use entry::{ENTRY_LEN, Entry, EntryBuffer, Event, MAX_POSITION, Stage, StartFailed};

const MAGIC: &[u8; 16] = b"nodejobs journal";
const VERSION: u32 = 1;
/// Reserved on disk from the start.
const RESERVED_BYTES: u64 = 1 << 20;

/// What a journal says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The boot in which it was made; empty for one that was killed while it was made.
    pub(crate) boot_id: String,
    /// The entries with their positions, without those that are damaged.
    pub(crate) entries: Vec<(u64, Entry)>,
    /// An entry is not what was written: what the journal does not say proves nothing.
    pub(crate) is_damaged: bool,
}

/// Why a journal says nothing at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// Its header is not what was written.
    #[error("it is damaged")]
    Damaged,
    /// It is of a later version of this program.
    #[error("its format has version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads a journal that may be written to meanwhile. One that is not there, or is empty because its keeper was killed while
/// it made it, says that nothing was launched.
pub(crate) fn read(path: &Path) -> Result<Contents, Unreadable> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::default()),
        bytes => bytes?,
    };
    if bytes.is_empty() {
        return Ok(Contents::default());
    }
    let (header, entries) = bytes.split_at_checked(ENTRY_LEN).ok_or(Unreadable::Damaged)?;
    let (boot_id, first) = Header::read(header)?;
    let (raw, _) = entries.as_chunks::<ENTRY_LEN>();
    let entries: Vec<(u64, Entry)> = decode_all(first, entries).collect();
    // The kernel writes an entry whole or not at all; a file that was made longer and not filled has zeros at its end.
    let unwritten = raw.iter().rev().take_while(|entry| entry.iter().all(|byte| *byte == 0)).count();
    let is_damaged = entries.len() + unwritten < raw.len();
    Ok(Contents { boot_id, entries, is_damaged })
}

/// Whether somebody has the lock of a journal: of the first version, a worker or a child that has not executed its program.
pub(crate) fn is_locked(path: &Path) -> bool {
    let shared = rustix::fs::FlockOperation::NonBlockingLockShared;
    File::open(path).is_ok_and(|file| rustix::fs::flock(&file, shared) == Err(rustix::io::Errno::WOULDBLOCK))
}

struct Header;

impl Header {
    fn bytes(boot_id: &str, first: u64) -> [u8; ENTRY_LEN] {
        let mut header = EntryBuffer([0; ENTRY_LEN]);
        header.put(0, *MAGIC);
        header.put(16, VERSION.to_le_bytes());
        header.put(24, first.to_le_bytes());
        let boot_id: String = boot_id.chars().take(36).collect();
        header.0[32..32 + boot_id.len()].copy_from_slice(boot_id.as_bytes());
        header.put(CHECKSUM_AT, crc32fast::hash(&header.0[..CHECKSUM_AT]).to_le_bytes());
        header.0
    }

    /// The boot and the position of the first entry.
    fn read(bytes: &[u8]) -> Result<(String, u64), Unreadable> {
        let header = EntryBuffer(bytes.try_into().map_err(|_| Unreadable::Damaged)?);
        let checksum = crc32fast::hash(&header.0[..CHECKSUM_AT]).to_le_bytes();
        if header.get(0) != *MAGIC || header.get(CHECKSUM_AT) != checksum {
            return Err(Unreadable::Damaged);
        }
        let version = u32::from_le_bytes(header.get(16));
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        let boot_id = std::str::from_utf8(&header.0[32..68]).map_err(|_| Unreadable::Damaged)?;
        let first = u64::from_le_bytes(header.get(24));
        if first > MAX_POSITION {
            return Err(Unreadable::Damaged);
        }
        Ok((boot_id.trim_end_matches('\0').to_owned(), first))
    }
}

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// Open a second time, for children to append to: it does not have the lock.
    for_children: File,
    path: PathBuf,
    boot_id: String,
    first: u64,
    end: u64,
}

impl Journal {
    /// Makes an empty journal whose first entry will have this position. It must not exist.
    pub(crate) fn create(path: &Path, boot_id: &str, first: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create_new(true).mode(0o600).open(path)?;
        // Without room in advance it still works, only not on a full disk.
        let _ = rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, RESERVED_BYTES);
        file.write_all(&Header::bytes(boot_id, first))?;
        let for_children = OpenOptions::new().append(true).open(path)?;
        Ok(Self { file, for_children, path: path.to_owned(), boot_id: boot_id.to_owned(), first, end: first })
    }

    /// Opens a journal to go on with it, if it is whole as far as that needs.
    pub(crate) fn open(path: &Path) -> Result<Self, Unreadable> {
        let file = OpenOptions::new().read(true).append(true).open(path)?;
        let mut header = [0; ENTRY_LEN];
        file.read_exact_at(&mut header, 0)?;
        let (boot_id, first) = Header::read(&header)?;
        let for_children = OpenOptions::new().append(true).open(path)?;
        let mut journal = Self { file, for_children, path: path.to_owned(), boot_id, first, end: first };
        journal.align()?;
        Ok(journal)
    }

    /// Takes the lock, which says that the worker lives. Nobody else waits for it, but for owners of the first version.
    pub(crate) fn lock(&self) -> io::Result<()> {
        let exclusively = rustix::fs::FlockOperation::LockExclusive;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&self.file, exclusively))?;
        Ok(())
    }

    /// The boot in which it was made.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// The file, to be asked about.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The file for children to append to.
    pub(crate) fn for_children(&self) -> &File {
        &self.for_children
    }

    /// Position of the oldest entry that is kept.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Position that the next entry will have, as far as is known here: children append as well.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Takes into account what children have appended.
    pub(crate) fn refresh_end(&mut self) -> io::Result<()> {
        let entries = (self.file.metadata()?.len() / ENTRY_LEN as u64).saturating_sub(1);
        self.end = self.first + entries;
        Ok(())
    }

    /// Appends an entry. Where it is, the end does not say: children append at the same time.
    pub(crate) fn append(&mut self, entry: &EntryBuffer) -> io::Result<()> {
        let written = self.file.write(entry.as_bytes())?;
        if written != ENTRY_LEN {
            self.align()?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.refresh_end()
    }

    /// Cuts off a part of an entry, so that the next one is where it belongs.
    fn align(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let torn = length % ENTRY_LEN as u64;
        if torn != 0 {
            self.file.set_len(length - torn)?;
        }
        self.refresh_end()
    }

    /// Reads raw entries from a position on, as many as there are and fit.
    pub(crate) fn read_raw<'b>(&self, position: u64, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let available = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
        let length = (buffer.len() / ENTRY_LEN).min(available) * ENTRY_LEN;
        let buffer = &mut buffer[..length];
        self.file.read_exact_at(buffer, self.offset(position))?;
        Ok(buffer)
    }

    /// Replaces the file by one that begins with these entries, at the position where the old one ended. No child may be
    /// about to note itself in the old one.
    pub(crate) fn rewrite<'e>(&mut self, kept: impl Iterator<Item = &'e EntryBuffer>) -> io::Result<()> {
        let temporary = temporary(&self.path);
        let _ = std::fs::remove_file(&temporary);
        let mut fresh = Self::create(&temporary, &self.boot_id, self.end)?;
        fresh.lock()?;
        for entry in kept {
            fresh.append(entry)?;
        }
        reached(Failpoint::WorkerRewriting);
        std::fs::rename(&temporary, &self.path)?;
        fresh.path.clone_from(&self.path);
        *self = fresh;
        Ok(())
    }

    fn offset(&self, position: u64) -> u64 {
        (position - self.first + 1) * ENTRY_LEN as u64
    }
}

/// Where a shorter journal is made before it takes the place of the one at this path.
pub(crate) fn temporary(journal: &Path) -> PathBuf {
    journal.with_extension("journal.new")
}

/// Decodes raw entries, the first of which has this position. One that is damaged is left out.
pub(crate) fn decode_all(first: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, Entry)> {
    let (entries, _) = bytes.as_chunks::<ENTRY_LEN>();
    (first..).zip(entries).filter_map(|(position, bytes)| Some((position, Entry::decode(bytes).ok()?)))
}

/// Leaves out the starts of programs that were not executed after all: a child notes itself before it tries, and then why
/// that failed.
pub(crate) fn without_void_starts(entries: &mut Vec<(u64, Entry)>) {
    let mut failed = HashSet::new();
    let mut void = HashSet::new();
    for (position, entry) in entries.iter().rev() {
        let Entry::Attempt { attempt, event, .. } = entry else { continue };
        match event {
            Event::StartFailed(_) => drop(failed.insert(attempt)),
            Event::Exited { .. } => drop(failed.remove(attempt)),
            Event::Started { .. } => {
                if failed.remove(attempt) {
                    void.insert(*position);
                }
            }
        }
    }
    if !void.is_empty() {
        entries.retain(|(position, _)| !void.contains(position));
    }
}

#[cfg(test)]
mod tests;
