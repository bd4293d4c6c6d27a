//! The log files of attempts: which part of which file is an attempt's output.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nodejobs_core::RawText;
use nodejobs_core::job::Job;
use nodejobs_core::store::{JobStore, StoreError};
use nodejobs_proc::logs::offset_of_last_lines;

use crate::api::{LogQuery, LogStream, ProblemKind};
use crate::error::Error;

/// One output of one attempt: a file, where in it the output begins, and where it ends if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogFile {
    pub(crate) path: PathBuf,
    pub(crate) start: u64,
    /// Where the next attempt begins, in a file that all attempts share.
    pub(crate) end: Option<u64>,
}

impl LogFile {
    /// The file of an output, with the attempts after this one, the next one first; `None` if the output has no file of
    /// its own, because it goes into the other's, or no part of its own in one that is shared.
    pub(crate) fn of(job: &Job, later: &[Job], stream: LogStream) -> Option<Self> {
        let part = |job: &Job| {
            let (paths, start) = (job.log_paths(), job.state.log_start);
            match stream {
                LogStream::Stdout => Some((paths.stdout, start.stdout)),
                LogStream::Stderr if paths.is_merged() => None,
                LogStream::Stderr => Some((paths.stderr, start.stderr)),
            }
        };
        let shared = job.definition.logs.layout.is_shared();
        if shared && job.state.started.is_none() {
            // Never executed, or not known to be: whatever is in the file is not its own.
            return None;
        }
        let (path, start) = part(job)?;
        // Not always the very next one: that may have failed to start, or written elsewhere.
        let mut later = later.iter().filter(|later| shared && later.state.started.is_some()).filter_map(part);
        let end = later.find(|(later_path, _)| *later_path == path).map(|(_, start)| start);
        Some(Self { path: text_path(&path), start, end })
    }

    /// Both, with the attempts after this one looked up where it matters.
    pub(crate) fn both(store: &dyn JobStore, job: &Job) -> Result<[Option<Self>; 2], StoreError> {
        let shared = job.definition.logs.layout.is_shared();
        let attempts = if shared { store.attempts(&job.id)? } else { Vec::new() };
        let later = attempts.iter().position(|other| other.state.attempt > job.state.attempt);
        let later = later.map_or(&[][..], |first| &attempts[first..]);
        Ok([LogStream::Stdout, LogStream::Stderr].map(|stream| Self::of(job, later, stream)))
    }

    /// Opens it for reading; `None` if there is nothing to read. That is so before the attempt was executed, and where the
    /// user named what keeps nothing: to open a named pipe would be to wait for somebody who writes to it.
    pub(crate) fn open(&self) -> Result<Option<File>, Error> {
        let open = || {
            let keeps = std::fs::metadata(&self.path)?.is_file();
            keeps.then(|| File::open(&self.path)).transpose()
        };
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map_err(|error| self.unreadable(error)),
        }
    }

    /// How many bytes of output there are now.
    pub(crate) fn len(&self) -> io::Result<u64> {
        let end = std::fs::metadata(&self.path)?.len();
        Ok(self.end.map_or(end, |known| end.min(known)).saturating_sub(self.start))
    }

    /// Where the last so many lines of the output begin in the file.
    pub(crate) fn tail(&self, file: &mut File, lines: u64) -> io::Result<u64> {
        Ok(offset_of_last_lines(file, self.end, lines)?.max(self.start))
    }

    /// The part that a query wants, as long as the file is now.
    pub(crate) fn part(&self, query: &LogQuery) -> Result<LogPart, Error> {
        let Some(mut file) = self.open()? else { return Ok(LogPart::default()) };
        let mut find = || {
            let tail = query.tail.map_or(Ok(self.start), |lines| self.tail(&mut file, lines))?;
            let length = file.metadata()?.len();
            let end = self.end.map_or(length, |end| end.min(length));
            Ok((tail.max(query.offset.unwrap_or(0)).min(end), end))
        };
        let (start, end) = find().map_err(|error| self.unreadable(error))?;
        Ok(LogPart { file: Some(file), start, end })
    }

    pub(crate) fn unreadable(&self, error: io::Error) -> Error {
        Error::new(ProblemKind::Failed, format!("log file '{}' cannot be read", self.path.display()))
            .with_source(error)
    }
}

/// A part of a log file.
#[derive(Debug, Default)]
pub(crate) struct LogPart {
    pub(crate) file: Option<File>,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl LogPart {
    /// All of it, in memory.
    pub(crate) fn read(self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if let Some(mut file) = self.file {
            file.seek(SeekFrom::Start(self.start))?;
            file.take(self.end.saturating_sub(self.start)).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    }
}

pub(crate) fn text_path(text: &RawText) -> PathBuf {
    std::ffi::OsStr::from_bytes(text.as_bytes()).into()
}

pub(crate) fn path_text(path: &Path) -> RawText {
    path.as_os_str().as_bytes().to_vec().into()
}
