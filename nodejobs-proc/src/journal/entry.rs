//! One entry of the journal, and its 256 bytes.

use nodejobs_core::id::{AttemptId, JobId};
use nodejobs_core::job::{ExitStatus, ResourceUsage};
use nodejobs_core::logs::LogStart;
use nodejobs_core::time::{BootTime, Moment, Timestamp};

/// Bytes of the header and of each entry. A divisor of the page size.
pub(crate) const ENTRY_LEN: usize = 256;
pub(super) const CHECKSUM_AT: usize = ENTRY_LEN - 4;
/// No keeper comes so far; what claims to is damaged, and adding to it could overflow.
pub(crate) const MAX_POSITION: u64 = 1 << 63;
const ID_AT: usize = 80;
const LOG_START_AT: usize = 208;
const WHICH_AT: usize = 24;
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
    /// The owner called it off before it was executed.
    CalledOff = 36,
    /// The directory of a log file could not be made.
    LogDirectory = 37,
}

impl Stage {
    const ALL: [Stage; 15] = [
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
        Stage::CalledOff,
        Stage::LogDirectory,
    ];

    /// From the number that stands for it.
    pub(crate) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| *stage as u8 == number)
    }
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The child is about to execute the program.
    Started { pid: u32, start_ticks: u64, pidfs: Option<u64>, log_start: LogStart },
    /// The program was not executed.
    StartFailed(StartFailed),
    /// The main process ended.
    Exited { pid: u32, exit: ExitStatus, usage: ResourceUsage },
}

/// Why a program was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartFailed {
    pub(crate) stage: Stage,
    /// The system's error; 0 where there is none.
    pub(crate) errno: i32,
    /// Which of several it was: the first name of the program that is there, or the log file (0 for standard output, 1 for
    /// standard error) whose directory could not be made.
    pub(crate) which: Option<u32>,
    /// The child that says so, if one does.
    pub(crate) child: Option<u32>,
}

impl StartFailed {
    pub(crate) fn at(stage: Stage, errno: i32) -> Self {
        Self { stage, errno, which: None, child: None }
    }
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Something happened to an attempt.
    Attempt { attempt: AttemptId, event: Event, at: Moment },
    /// The owner has everything before this position in its store.
    Acknowledged { position: u64 },
}

/// Why bytes are not an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a journal entry")]
pub(crate) struct InvalidEntry;

/// An entry as it is written. Can be completed in a child that must not allocate.
#[derive(Clone)]
pub(crate) struct EntryBuffer(pub(super) [u8; ENTRY_LEN]);

const STARTED: u8 = 1;
const START_FAILED: u8 = 2;
const EXITED: u8 = 3;
const ACKNOWLEDGED: u8 = 4;
const EXIT_CODE: u8 = 0;
const EXIT_SIGNAL: u8 = 1;
const EXIT_SIGNAL_CORE: u8 = 2;

impl EntryBuffer {
    /// These bytes, whatever they say.
    pub(crate) fn of(bytes: &[u8; ENTRY_LEN]) -> Self {
        Self(*bytes)
    }

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
    pub(crate) fn make_start_failure(&mut self, failure: StartFailed, wall: i64, boot: u64) {
        let StartFailed { stage, errno, which, child } = failure;
        self.0[0] = START_FAILED;
        self.0[2] = stage as u8;
        // What a start has said about the process: unused bytes are zero.
        self.0[8..32].fill(0);
        self.set_log_start(0, 0);
        self.put(8, child.unwrap_or(0).to_le_bytes());
        self.put(12, errno.to_le_bytes());
        self.put(WHICH_AT, which.map_or(0, |which| which.saturating_add(1)).to_le_bytes());
        self.finish(wall, boot);
    }

    /// The bytes as they are written.
    pub(crate) fn as_bytes(&self) -> &[u8; ENTRY_LEN] {
        &self.0
    }

    pub(super) fn finish(&mut self, wall: i64, boot: u64) {
        self.put(32, wall.to_le_bytes());
        self.put(40, boot.to_le_bytes());
        self.put(CHECKSUM_AT, crc32fast::hash(&self.0[..CHECKSUM_AT]).to_le_bytes());
    }

    pub(super) fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.0[at..at + N].copy_from_slice(&bytes);
    }

    pub(super) fn get<const N: usize>(&self, at: usize) -> [u8; N] {
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
                    Event::StartFailed(failure) => buffer.make_start_failure(failure, wall, boot),
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

    /// Which attempt it is about.
    pub(crate) fn attempt(&self) -> Option<&AttemptId> {
        match self {
            Entry::Attempt { attempt, .. } => Some(attempt),
            Entry::Acknowledged { .. } => None,
        }
    }

    /// The child of a launch that has written it, if one has.
    pub(crate) fn child(&self) -> Option<u32> {
        match self {
            Entry::Attempt { event: Event::Started { pid, .. }, .. } => Some(*pid),
            Entry::Attempt { event: Event::StartFailed(failed), .. } => failed.child,
            Entry::Attempt { event: Event::Exited { .. }, .. } | Entry::Acknowledged { .. } => None,
        }
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
                let which = u32::from_le_bytes(buffer.get(WHICH_AT)).checked_sub(1);
                let stage = Stage::of(bytes[2]).ok_or(InvalidEntry)?;
                let child = Some(pid).filter(|pid| *pid != 0);
                Event::StartFailed(StartFailed { stage, errno: code, which, child })
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
