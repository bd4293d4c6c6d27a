//! The keeper's journal: what happened to the jobs it launched, kept until the owner has it in the store.
//!
//! A file of 256-byte entries behind a 256-byte header. Entries never cross a page, so each append is whole or not
//! there, also when the writer is killed. It is never synced: it has to outlive processes, not power. Its space is
//! reserved in advance, so that a full disk does not lose an exit status.
//!
//! An entry's *position* counts from the keeper's beginning and stays valid when the file is rewritten shorter.
//! Format: version 1; little-endian; unused bytes are zero; the last four bytes of header and entries are a CRC-32.
//!
//! ```text
//! header   0 magic "nodejobs journal"  16 version u32  24 position of the first entry u64  32 boot id, 36 characters
//! entry    0 kind u8  1 id length u8  2 stage u8  3 exit kind u8  4 attempt u32  8 pid u32  12 code i32
//!         16 start ticks u64  24 pidfs number u64  32 wall ms i64  40 boot ms u64  48 cpu µs u64  56 peak KiB u64
//!         64 acknowledged position u64  80 id, 128 bytes  208 start of standard output u64  216 of standard error u64
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nodejobs_core::id::{AttemptId, JobId};
use nodejobs_core::job::{ExitStatus, ResourceUsage};
use nodejobs_core::logs::LogStart;
use nodejobs_core::time::{BootTime, Moment, Timestamp};
use rustix::fs::FallocateFlags;

use crate::failpoint::{Failpoint, reached};

/// Bytes of the header and of each entry. A divisor of the page size.
pub(crate) const ENTRY_LEN: usize = 256;
const CHECKSUM_AT: usize = ENTRY_LEN - 4;
const MAGIC: &[u8; 16] = b"nodejobs journal";
const VERSION: u32 = 1;
/// No keeper comes so far; what claims to is damaged, and adding to it could overflow.
pub(crate) const MAX_POSITION: u64 = 1 << 63;
const ID_AT: usize = 80;
const LOG_START_AT: usize = 208;
/// Reserved on disk from the start.
const RESERVED_BYTES: u64 = 1 << 20;

/// Up to which step of a launch a child got before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// No process could be made.
    Fork = 1,
    /// The input could not be opened.
    Stdin,
    /// The file for standard output could not be opened.
    Stdout,
    /// The file for standard error could not be opened.
    Stderr,
    /// The working directory could not be entered.
    Cwd,
    /// The journal could not be written, so the program was not executed.
    Journal,
    /// The program could not be executed.
    Exec,
    /// The child was killed before it could note itself.
    Killed,
    /// The launch message could not be understood.
    Message,
    /// The limit of open files could not be set.
    OpenFiles = 32,
    /// The nice value could not be set.
    Nice = 33,
    /// The job's user could not be taken on.
    User = 34,
    /// The child could not enter the job's cgroup.
    Group = 35,
}

impl Stage {
    const ALL: [Stage; 13] = [
        Stage::Fork,
        Stage::Stdin,
        Stage::Stdout,
        Stage::Stderr,
        Stage::Cwd,
        Stage::Journal,
        Stage::Exec,
        Stage::Killed,
        Stage::Message,
        Stage::OpenFiles,
        Stage::Nice,
        Stage::User,
        Stage::Group,
    ];
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The child is about to execute the program.
    Started { pid: u32, start_ticks: u64, pidfs: Option<u64>, log_start: LogStart },
    /// The program was not executed.
    StartFailed { stage: Stage, errno: i32 },
    /// The main process ended.
    Exited { pid: u32, exit: ExitStatus, usage: ResourceUsage },
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Something happened to an attempt.
    Attempt { attempt: AttemptId, event: Event, at: Moment },
    /// The owner has everything before this position in its store.
    Acknowledged { position: u64 },
}

/// The boot in which a journal was written, and its entries, as somebody sees them who is neither its keeper nor may wait
/// for its lock. What is being written meanwhile may be missing.
///
/// # Errors
/// `InvalidData` if it is no journal that this version can read, and `UnexpectedEof` for one that is too short, as whoever
/// is killed while making it leaves it.
pub(crate) fn peek(path: &Path) -> io::Result<(String, Vec<(u64, Entry)>)> {
    let bytes = std::fs::read(path)?;
    let (header, entries) = bytes.split_at_checked(ENTRY_LEN).ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut buffer = EntryBuffer([0; ENTRY_LEN]);
    buffer.0.copy_from_slice(header);
    buffer.check_header()?;
    let first = u64::from_le_bytes(buffer.get(24));
    if first > MAX_POSITION {
        return Err(invalid("journal with an impossible position"));
    }
    let boot_id = String::from_utf8_lossy(&buffer.get::<36>(32)).trim_end_matches('\0').to_owned();
    Ok((boot_id, decode_all(first, entries).collect()))
}

/// Why bytes are not an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a journal entry")]
pub(crate) struct InvalidEntry;

/// An entry as it is written. Can be completed in a child that must not allocate.
#[derive(Clone)]
pub(crate) struct EntryBuffer([u8; ENTRY_LEN]);

const STARTED: u8 = 1;
const START_FAILED: u8 = 2;
const EXITED: u8 = 3;
const ACKNOWLEDGED: u8 = 4;
const EXIT_CODE: u8 = 0;
const EXIT_SIGNAL: u8 = 1;
const EXIT_SIGNAL_CORE: u8 = 2;

impl EntryBuffer {
    /// An entry about this attempt that says nothing yet.
    pub(crate) fn for_attempt(attempt: &AttemptId) -> Self {
        let mut buffer = Self([0; ENTRY_LEN]);
        let id = attempt.id.as_str().as_bytes();
        // A job id has at most 128 bytes, and that is the room there is.
        buffer.0[1] = u8::try_from(id.len()).unwrap_or(u8::MAX);
        buffer.0[ID_AT..ID_AT + id.len()].copy_from_slice(id);
        buffer.put(4, attempt.attempt.to_le_bytes());
        buffer
    }

    /// Says where in its log files the attempt's output begins. Allocates nothing.
    pub(crate) fn set_log_start(&mut self, stdout: u64, stderr: u64) {
        self.put(LOG_START_AT, stdout.to_le_bytes());
        self.put(LOG_START_AT + 8, stderr.to_le_bytes());
    }

    /// Says that the program is about to be executed. Allocates nothing.
    pub(crate) fn complete_started(&mut self, pid: u32, start_ticks: u64, pidfs: u64, wall: i64, boot: u64) {
        self.0[0] = STARTED;
        self.put(8, pid.to_le_bytes());
        self.put(16, start_ticks.to_le_bytes());
        self.put(24, pidfs.to_le_bytes());
        self.finish(wall, boot);
    }

    /// Says that the program was not executed. Allocates nothing.
    pub(crate) fn make_start_failure(&mut self, stage: Stage, errno: i32, wall: i64, boot: u64) {
        self.0[0] = START_FAILED;
        self.0[2] = stage as u8;
        // What a start has said about the process: unused bytes are zero.
        self.0[8..32].fill(0);
        self.set_log_start(0, 0);
        self.put(12, errno.to_le_bytes());
        self.finish(wall, boot);
    }

    /// Whether this is the header of a journal that this version can read.
    fn check_header(&self) -> io::Result<()> {
        let checksum = crc32fast::hash(&self.0[..CHECKSUM_AT]).to_le_bytes();
        if self.get(0) != *MAGIC || self.get(CHECKSUM_AT) != checksum {
            return Err(invalid("not a journal"));
        }
        if u32::from_le_bytes(self.get(16)) != VERSION {
            return Err(invalid("journal of an unknown version"));
        }
        Ok(())
    }

    /// The bytes as they are written.
    pub(crate) fn as_bytes(&self) -> &[u8; ENTRY_LEN] {
        &self.0
    }

    fn finish(&mut self, wall: i64, boot: u64) {
        self.put(32, wall.to_le_bytes());
        self.put(40, boot.to_le_bytes());
        self.put(CHECKSUM_AT, crc32fast::hash(&self.0[..CHECKSUM_AT]).to_le_bytes());
    }

    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.0[at..at + N].copy_from_slice(&bytes);
    }

    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[at..at + N]);
        bytes
    }
}

impl Entry {
    /// The entry as it is written.
    pub(crate) fn encode(&self) -> EntryBuffer {
        match self {
            Entry::Acknowledged { position } => {
                let mut buffer = EntryBuffer([0; ENTRY_LEN]);
                buffer.0[0] = ACKNOWLEDGED;
                buffer.put(64, position.to_le_bytes());
                buffer.finish(0, 0);
                buffer
            }
            Entry::Attempt { attempt, event, at } => {
                let mut buffer = EntryBuffer::for_attempt(attempt);
                let (wall, boot) = (at.wall.as_millis(), at.boot.0);
                match *event {
                    Event::Started { pid, start_ticks, pidfs, log_start } => {
                        buffer.set_log_start(log_start.stdout, log_start.stderr);
                        buffer.complete_started(pid, start_ticks, pidfs.unwrap_or(0), wall, boot);
                    }
                    Event::StartFailed { stage, errno } => {
                        buffer.make_start_failure(stage, errno, wall, boot);
                    }
                    Event::Exited { pid, exit, usage } => {
                        buffer.0[0] = EXITED;
                        let (kind, code) = match exit {
                            ExitStatus::Code(code) => (EXIT_CODE, code),
                            ExitStatus::Signal { number, core_dumped: false } => (EXIT_SIGNAL, number),
                            ExitStatus::Signal { number, core_dumped: true } => (EXIT_SIGNAL_CORE, number),
                        };
                        buffer.0[3] = kind;
                        buffer.put(8, pid.to_le_bytes());
                        buffer.put(12, code.to_le_bytes());
                        buffer.put(48, (usage.cpu_ms * 1000).to_le_bytes());
                        buffer.put(56, usage.peak_memory_kib.to_le_bytes());
                        buffer.finish(wall, boot);
                    }
                }
                buffer
            }
        }
    }

    /// Whether this says that the attempt, whose start the entry before this one tells, was not executed after all.
    /// The child writes both, and whoever else writes waits for it, so nothing comes between them.
    pub(crate) fn takes_back(&self, started: &AttemptId) -> bool {
        matches!(self, Entry::Attempt { attempt, event: Event::StartFailed { .. }, .. } if attempt == started)
    }

    /// Reads an entry.
    pub(crate) fn decode(bytes: &[u8; ENTRY_LEN]) -> Result<Self, InvalidEntry> {
        let buffer = EntryBuffer(*bytes);
        if crc32fast::hash(&bytes[..CHECKSUM_AT]).to_le_bytes() != buffer.get(CHECKSUM_AT) {
            return Err(InvalidEntry);
        }
        if bytes[0] == ACKNOWLEDGED {
            return Ok(Entry::Acknowledged { position: u64::from_le_bytes(buffer.get(64)) });
        }
        let id = bytes.get(ID_AT..ID_AT + usize::from(bytes[1])).ok_or(InvalidEntry)?;
        let id = std::str::from_utf8(id).map_err(|_| InvalidEntry)?;
        let id = JobId::new(id).map_err(|_| InvalidEntry)?;
        let attempt = AttemptId { id, attempt: u32::from_le_bytes(buffer.get(4)) };
        let pid = u32::from_le_bytes(buffer.get(8));
        let code = i32::from_le_bytes(buffer.get(12));
        let event = match bytes[0] {
            STARTED => Event::Started {
                pid,
                start_ticks: u64::from_le_bytes(buffer.get(16)),
                pidfs: Some(u64::from_le_bytes(buffer.get(24))).filter(|number| *number != 0),
                log_start: LogStart {
                    stdout: u64::from_le_bytes(buffer.get(LOG_START_AT)),
                    stderr: u64::from_le_bytes(buffer.get(LOG_START_AT + 8)),
                },
            },
            START_FAILED => {
                let stage = Stage::ALL.into_iter().find(|stage| *stage as u8 == bytes[2]);
                Event::StartFailed { stage: stage.ok_or(InvalidEntry)?, errno: code }
            }
            EXITED => {
                let exit = match bytes[3] {
                    EXIT_CODE => ExitStatus::Code(code),
                    EXIT_SIGNAL => ExitStatus::Signal { number: code, core_dumped: false },
                    EXIT_SIGNAL_CORE => ExitStatus::Signal { number: code, core_dumped: true },
                    _ => return Err(InvalidEntry),
                };
                let usage = ResourceUsage {
                    cpu_ms: u64::from_le_bytes(buffer.get(48)) / 1000,
                    peak_memory_kib: u64::from_le_bytes(buffer.get(56)),
                };
                Event::Exited { pid, exit, usage }
            }
            _ => return Err(InvalidEntry),
        };
        let at = Moment {
            wall: Timestamp::from_millis(i64::from_le_bytes(buffer.get(32))),
            boot: BootTime(u64::from_le_bytes(buffer.get(40))),
        };
        Ok(Entry::Attempt { attempt, event, at })
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
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
        let mut header = EntryBuffer([0; ENTRY_LEN]);
        header.put(0, *MAGIC);
        header.put(16, VERSION.to_le_bytes());
        header.put(24, first.to_le_bytes());
        let boot_id: String = boot_id.chars().take(36).collect();
        header.0[32..32 + boot_id.len()].copy_from_slice(boot_id.as_bytes());
        header.put(CHECKSUM_AT, crc32fast::hash(&header.0[..CHECKSUM_AT]).to_le_bytes());
        file.write_all(&header.0)?;
        Ok(Self { file, path: path.to_owned(), boot_id, first, end: first })
    }

    /// Opens a journal and takes its lock, waiting for launches that are in flight.
    ///
    /// Whoever holds the lock knows that no child is between being made and executing its program, and that an
    /// attempt without an entry never executed anything.
    pub(crate) fn open_locked(path: &Path) -> io::Result<Self> {
        loop {
            let file = OpenOptions::new().read(true).append(true).open(path)?;
            lock(&file)?;
            // The file may have been replaced while we waited for the lock of the old one.
            let current = std::fs::metadata(path)?;
            let ours = file.metadata()?;
            if (current.dev(), current.ino()) == (ours.dev(), ours.ino()) {
                return Self::read_header(file, path);
            }
        }
    }

    fn read_header(file: File, path: &Path) -> io::Result<Self> {
        let mut header = EntryBuffer([0; ENTRY_LEN]);
        // Too short for its header: killed while it was made. That error is told apart from a damaged journal.
        file.read_exact_at(&mut header.0, 0)?;
        header.check_header()?;
        let boot_id = std::str::from_utf8(&header.0[32..68]).map_err(|_| invalid("not a journal"))?;
        let boot_id = boot_id.trim_end_matches('\0').to_owned();
        let first = u64::from_le_bytes(header.get(24));
        if first > MAX_POSITION {
            return Err(invalid("journal with an impossible position"));
        }
        let mut journal = Self { file, path: path.to_owned(), boot_id, first, end: first };
        journal.refresh_end()?;
        // Cuts off what a full disk may have torn, so that the next entry is aligned again.
        journal.file.set_len(journal.offset(journal.end))?;
        Ok(journal)
    }

    /// Takes the lock, to be held by the worker and, because they inherit the descriptor, by every child of it that
    /// has not executed its program.
    pub(crate) fn lock(&self) -> io::Result<()> {
        lock(&self.file)
    }

    /// The boot in which it was made.
    pub(crate) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// The file, for children to append to.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Position of the oldest entry that is kept.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Position that the next entry will have.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Takes into account what children have appended.
    pub(crate) fn refresh_end(&mut self) -> io::Result<()> {
        let entries = (self.file.metadata()?.len() / ENTRY_LEN as u64).saturating_sub(1);
        self.end = self.first + entries;
        Ok(())
    }

    /// Appends an entry.
    pub(crate) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let written = self.file.write(entry.encode().as_bytes())?;
        if written != ENTRY_LEN {
            self.file.set_len(self.offset(self.end))?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.end += 1;
        Ok(())
    }

    /// Reads raw entries from a position on, as many as there are and fit.
    pub(crate) fn read_raw<'b>(&self, position: u64, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let available = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
        let length = (buffer.len() / ENTRY_LEN).min(available) * ENTRY_LEN;
        let buffer = &mut buffer[..length];
        self.file.read_exact_at(buffer, self.offset(position))?;
        Ok(buffer)
    }

    /// Reads every entry that is kept, with its position. One that is damaged is left out: it was never whole.
    pub(crate) fn read_all(&self) -> io::Result<Vec<(u64, Entry)>> {
        let length = usize::try_from(self.end - self.first).unwrap_or(usize::MAX) * ENTRY_LEN;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, ENTRY_LEN as u64)?;
        Ok(decode_all(self.first, &bytes).collect())
    }

    /// Replaces the file by one that begins with these entries, at the position where the old one ended.
    pub(crate) fn rewrite(&mut self, kept: &[Entry]) -> io::Result<()> {
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

/// Decodes raw entries, the first of which has this position.
pub(crate) fn decode_all(first: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, Entry)> {
    let (entries, _) = bytes.as_chunks::<ENTRY_LEN>();
    (first..).zip(entries).filter_map(|(position, bytes)| Some((position, Entry::decode(bytes).ok()?)))
}

/// Raw entries up to the last one, if that one is a start: the next entry may take it back, and both are to be told
/// together. A single entry is left as it is.
pub(crate) fn without_last_start(raw: &[u8]) -> &[u8] {
    match raw.len().checked_sub(ENTRY_LEN) {
        Some(at) if at > 0 && raw[at] == STARTED => &raw[..at],
        _ => raw,
    }
}

fn lock(file: &File) -> io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(file, rustix::fs::FlockOperation::LockExclusive))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attempt(id: &str) -> AttemptId {
        AttemptId { id: JobId::new(id).expect("valid"), attempt: 3 }
    }

    fn moment() -> Moment {
        Moment { wall: Timestamp::from_millis(1_784_000_000_123), boot: BootTime(77) }
    }

    fn events() -> Vec<Event> {
        let usage = ResourceUsage { cpu_ms: 12, peak_memory_kib: 3456 };
        let exits = [
            ExitStatus::Code(7),
            ExitStatus::Signal { number: 9, core_dumped: false },
            ExitStatus::Signal { number: 11, core_dumped: true },
        ];
        let mut events: Vec<Event> = exits.map(|exit| Event::Exited { pid: 42, exit, usage }).into();
        events.extend(Stage::ALL.map(|stage| Event::StartFailed { stage, errno: 2 }));
        events.push(Event::Started {
            pid: 42,
            start_ticks: 99,
            pidfs: Some(123),
            log_start: LogStart { stdout: 7, stderr: u64::MAX },
        });
        events.push(Event::Started { pid: 42, start_ticks: 99, pidfs: None, log_start: LogStart::default() });
        events
    }

    #[test]
    fn every_entry_is_read_as_it_was_written() {
        let longest = "x".repeat(JobId::MAX_LEN);
        for id in ["a", longest.as_str()] {
            for event in events() {
                let entry = Entry::Attempt { attempt: attempt(id), event, at: moment() };
                assert_eq!(Entry::decode(entry.encode().as_bytes()), Ok(entry));
            }
        }
        let entry = Entry::Acknowledged { position: 8 };
        assert_eq!(Entry::decode(entry.encode().as_bytes()), Ok(entry));
    }

    #[test]
    fn a_failure_after_the_start_is_written_like_any_other() {
        let entry = Entry::Attempt {
            attempt: attempt("a"),
            event: Event::StartFailed { stage: Stage::Exec, errno: 2 },
            at: moment(),
        };
        let mut buffer = EntryBuffer::for_attempt(&attempt("a"));
        buffer.complete_started(42, 99, 123, 1, 2);
        buffer.make_start_failure(Stage::Exec, 2, moment().wall.as_millis(), moment().boot.0);
        assert_eq!(buffer.as_bytes(), entry.encode().as_bytes());
    }

    #[test]
    fn positions_go_on_over_a_rewrite_and_a_reopening() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("k.journal");
        let mut journal = Journal::create(&path, "boot", 0).expect("created");
        journal.lock().expect("locked");
        let entries: Vec<Entry> = events()
            .into_iter()
            .map(|event| Entry::Attempt { attempt: attempt("a"), event, at: moment() })
            .collect();
        for entry in &entries {
            journal.append(entry).expect("appended");
        }
        let end = entries.len() as u64;
        journal.rewrite(&entries[..2]).expect("rewritten");
        assert_eq!((journal.first(), journal.end()), (end, end + 2));
        let mut buffer = [0; 4096];
        let raw = journal.read_raw(end + 1, &mut buffer).expect("read").to_vec();
        assert_eq!(decode_all(end + 1, &raw).collect::<Vec<_>>(), [(end + 1, entries[1].clone())]);
        drop(journal);
        let reopened = Journal::open_locked(&path).expect("opened");
        assert_eq!(reopened.boot_id(), "boot");
        let expected: Vec<_> = (end..).zip(entries[..2].iter().cloned()).collect();
        assert_eq!(reopened.read_all().expect("read"), expected);
    }

    #[test]
    fn a_start_is_told_together_with_what_takes_it_back() {
        let entry = |id: &str, event| Entry::Attempt { attempt: attempt(id), event, at: moment() };
        let started = entry(
            "a",
            Event::Started { pid: 42, start_ticks: 99, pidfs: None, log_start: LogStart::default() },
        );
        let failed = |id: &str| entry(id, Event::StartFailed { stage: Stage::Exec, errno: 2 });
        assert!(failed("a").takes_back(&attempt("a")));
        assert!(!failed("b").takes_back(&attempt("a")) && !started.takes_back(&attempt("a")));
        let raw = |entries: &[&Entry]| entries.iter().flat_map(|entry| entry.encode().0).collect::<Vec<u8>>();
        let (other, both) = (failed("b"), failed("a"));
        assert_eq!(without_last_start(&raw(&[&other, &started])), raw(&[&other]));
        for whole in [raw(&[&started]), raw(&[&started, &both]), raw(&[])] {
            assert_eq!(without_last_start(&whole), whole);
        }
    }

    #[test]
    fn a_torn_tail_is_cut_off_and_a_damaged_entry_left_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("k.journal");
        let entry = Entry::Acknowledged { position: 1 };
        {
            let mut journal = Journal::create(&path, "boot", 0).expect("created");
            for _ in 0..3 {
                journal.append(&entry).expect("appended");
            }
            journal.file.write_all(&[1; 100]).expect("torn");
        }
        let file = OpenOptions::new().write(true).open(&path).expect("opened");
        file.write_all_at(&[9], 2 * ENTRY_LEN as u64 + 64).expect("damaged");
        let mut journal = Journal::open_locked(&path).expect("opened");
        assert_eq!(journal.read_all().expect("read"), [(0, entry.clone()), (2, entry.clone())]);
        journal.append(&entry).expect("appended");
        assert_eq!(journal.read_all().expect("read").len(), 3);
        drop(journal);
        std::fs::write(&path, b"cut").expect("written");
        let error = Journal::open_locked(&path).expect_err("cut off");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        std::fs::write(&path, [7; 2 * ENTRY_LEN]).expect("written");
        let error = Journal::open_locked(&path).expect_err("garbage");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), ENTRY_LEN), fix in any::<bool>()) {
            let mut array: [u8; ENTRY_LEN] = bytes.try_into().expect("that long");
            if fix {
                let checksum = crc32fast::hash(&array[..CHECKSUM_AT]).to_le_bytes();
                array[CHECKSUM_AT..].copy_from_slice(&checksum);
                array[0] %= 6;
            }
            let _ = Entry::decode(&array);
        }
    }
}
