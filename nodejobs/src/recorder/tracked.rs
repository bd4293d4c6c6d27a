//! What is known of the log files of one attempt, and a look at them.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nodejobs_core::RawText;
use nodejobs_core::Timestamp;
use nodejobs_core::job::Job;
use nodejobs_core::log_index::Entry;
use nodejobs_core::logs::index_path;
use nodejobs_proc::logs::{first_kept, free};

use super::file::IndexFile;

/// A cap is exceeded by less than this before anything is freed: to free is not free of cost.
const SLACK: u64 = 512 << 10;
/// Bytes a second that anybody may write at once. Who was seen to write more may write twice that.
const FAST: u64 = 1 << 30;
/// The shortest time between looks at a file.
const SHORTEST: Duration = Duration::from_millis(10);
/// The longest, while something is written: ten looks a second.
pub(super) const SWEEP: Duration = Duration::from_millis(100);
/// A write that is heard of later than this after the file was changed: the process was halted meanwhile.
const HEARD_LATE_MS: i64 = 250;

/// A log file of an attempt.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    /// The watch for its next write, if there is one.
    pub(super) watch: Option<i32>,
    /// As it was when it was last looked at.
    length: u64,
    /// What is before this is freed. `None` until it was asked.
    head: Option<u64>,
    /// How long it was when its cap was last looked at.
    seen: u64,
}

/// An attempt whose files are looked at.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) attempt: u32,
    /// Standard output, and standard error unless it is the same.
    pub(super) files: Vec<LogFile>,
    /// Whether the user placed them, so that they are looked at in their own time.
    pub(super) is_named: bool,
    cap: Option<u64>,
    /// When that was last looked at.
    looked: Option<Instant>,
    index: IndexFile,
    /// When the lengths were last what is noted.
    known: Timestamp,
    /// When the watch told of the first write after that.
    heard: Option<Timestamp>,
    /// Bytes written less bytes freed since somebody asked.
    balance: i64,
}

impl Tracked {
    /// What is noted of the attempt so far.
    pub(super) fn find(job: &Job, own_logs: &Path) -> io::Result<Self> {
        let index = index_of(own_logs, job);
        let (index, last) = IndexFile::find(index, job.seq)?;
        let paths = job.log_paths();
        let is_merged = paths.is_merged();
        let start = last.map_or(job.state.log_start, |entry| entry.lengths());
        let file = |path: RawText, length| LogFile {
            path: path_of(&path),
            watch: None,
            length,
            head: None,
            seen: length,
        };
        let mut files = vec![file(paths.stdout, start.stdout)];
        if !is_merged {
            files.push(file(paths.stderr, start.stderr));
        }
        let started = job.state.started.map_or(Timestamp::default(), |started| started.wall);
        let own = !job.definition.logs.layout.is_shared();
        Ok(Self {
            attempt: job.state.attempt,
            files,
            is_named: job.definition.logs.layout.is_named(),
            cap: job.definition.policy.log_cap.filter(|cap| own && *cap > 0),
            looked: None,
            index,
            known: last.map_or(started, |entry| entry.before),
            heard: None,
            balance: 0,
        })
    }

    /// The watch has told of a write.
    pub(super) fn heard(&mut self, now: Timestamp) {
        let changed = self.files.iter().filter_map(|file| std::fs::metadata(&file.path).ok());
        let changed = changed.map(|found| found.mtime() * 1000 + found.mtime_nsec() / 1_000_000).max();
        let is_now = changed.is_some_and(|changed| now.as_millis() - changed <= HEARD_LATE_MS);
        // Otherwise the write was at any time since the last look.
        self.heard = self.heard.or(is_now.then_some(now));
    }

    /// What was heard of just now may have been written at any time since the last look.
    pub(super) fn halted(&mut self) {
        self.heard = None;
    }

    /// Notes what is new; whether there was anything.
    pub(super) fn note(&mut self, now: Timestamp) -> io::Result<bool> {
        let length = |file: &LogFile| regular(&file.path).map_or(file.length, |found| found.len());
        let lengths: Vec<u64> = self.files.iter().map(length).collect();
        let known = self.files.iter().map(|file| file.length);
        let (grew, shrank) =
            lengths.iter().zip(known).fold((false, false), |(grew, shrank), (now, known)| {
                (grew || *now > known, shrank || *now < known)
            });
        if shrank {
            // The job itself has shortened it, and what was noted leads nowhere.
            self.index.clear();
            self.files.iter_mut().for_each(|file| file.head = None);
        }
        if grew || shrank {
            let after = self.heard.unwrap_or(self.known).min(now);
            let length = |index: usize| lengths.get(index).copied().unwrap_or_default();
            // What cannot be noted now is noted later, with the time since which it is not.
            self.index.append(Entry { after, before: now, stdout: length(0), stderr: length(1) })?;
        }
        (self.heard, self.known) = (None, now);
        for (file, length) in self.files.iter_mut().zip(lengths) {
            self.balance += length.cast_signed() - file.length.cast_signed();
            file.length = length;
        }
        Ok(grew || shrank)
    }

    /// How many bytes more there are than when this was last asked.
    pub(super) fn take_balance(&mut self) -> i64 {
        std::mem::take(&mut self.balance)
    }

    /// Whether the job has a cap, so that there is something to free.
    pub(super) fn has_cap(&self) -> bool {
        self.cap.is_some()
    }

    /// Nothing can be freed here.
    pub(super) fn forget_cap(&mut self) {
        self.cap = None;
    }

    /// Frees what is beyond the cap. How soon to look again, if anything is written.
    pub(super) fn keep_cap(&mut self) -> io::Result<Duration> {
        let Some(cap) = self.cap else { return Ok(SWEEP) };
        let (mut room, mut grown) = (u64::MAX, 0);
        for file in &mut self.files {
            let Some(found) = regular(&file.path) else { continue };
            let length = found.len();
            grown = length.saturating_sub(file.seen).max(grown);
            file.seen = length;
            let mut head = file.head.unwrap_or_default();
            if length.saturating_sub(head) > cap + SLACK {
                let opened = OpenOptions::new().read(true).write(true).open(&file.path)?;
                // An earlier owner may have freed some of it.
                head = first_kept(&opened, head)?;
                let kept = free_up_to(&opened, &found, head, length - cap)?;
                self.balance -= (kept - head).cast_signed();
                head = kept;
                file.head = Some(head);
            }
            room = room.min((cap + SLACK).saturating_sub(length - head));
        }
        let time = Instant::now();
        let since = self.looked.replace(time).map(|looked| time.saturating_duration_since(looked));
        // What was written since the last look may have been written in much less time.
        let millis =
            since.map_or(1, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)).clamp(1, 100);
        let rate = FAST.max(grown.saturating_mul(2_000) / millis);
        let soonest = Duration::from_millis(room.saturating_mul(1_000) / rate);
        Ok(soonest.clamp(SHORTEST, SWEEP))
    }
}

/// Frees whole blocks, and says where the file begins now.
fn free_up_to(file: &File, found: &Metadata, head: u64, end: u64) -> io::Result<u64> {
    let block = found.blksize().clamp(4096, 1 << 20);
    let (from, to) = (head / block * block, end / block * block);
    if to > from {
        free(file, from, to)?;
        return Ok(to);
    }
    Ok(head)
}

/// What the user named may keep nothing, such as a named pipe.
fn regular(path: &Path) -> Option<Metadata> {
    std::fs::metadata(path).ok().filter(Metadata::is_file)
}

/// Where the index of an attempt's log files is.
pub(crate) fn index_of(own_logs: &Path, job: &Job) -> PathBuf {
    let own_logs = RawText::from(own_logs.as_os_str().to_owned().into_vec());
    path_of(&index_path(&own_logs, &job.attempt_id()))
}

pub(super) fn path_of(text: &RawText) -> PathBuf {
    OsStr::from_bytes(text.as_bytes()).into()
}
