//! The log files of attempts: which part of which file is an attempt's output.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nodejobs_core::RawText;
use nodejobs_core::job::Job;
use nodejobs_core::store::{JobStore, StoreError};
use nodejobs_proc::logs::{first_kept, offset_of_last_lines};

use crate::api::{LogQuery, LogStream, ProblemKind};
use crate::error::Error;
use crate::files;
use crate::owner::Owner;

/// One output of one attempt: a file, where in it the output begins, and where it ends if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogFile {
    pub(crate) path: PathBuf,
    pub(crate) start: u64,
    /// Where the next attempt begins, in a file that all attempts share.
    pub(crate) end: Option<u64>,
    /// Whether it is a file of ours, whose beginning may be freed.
    pub(crate) is_own: bool,
    /// Whether the user named where it is, so that it is touched in its own time only.
    pub(crate) is_named: bool,
}

/// Those of standard output and standard error.
pub(crate) type Outputs = [Option<LogFile>; 2];

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
        let is_named = job.definition.logs.layout.is_named();
        Some(Self { path: text_path(&path), start, end, is_own: !shared, is_named })
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

    /// Where the output ends now, if that can be known at once.
    pub(crate) fn end_now(&self) -> Option<u64> {
        let path = self.path.clone();
        let length = move || std::fs::metadata(path).ok().map(|found| found.len());
        let length = if self.is_named { files::glance("measure", &self.path, length)? } else { length() }?;
        Some(self.end.map_or(length, |known| length.min(known)))
    }

    /// How many bytes of the outputs of each attempt are kept now; `None` where that cannot be known at once.
    pub(crate) fn kept_bytes(attempts: Vec<Outputs>) -> Vec<Option<u64>> {
        let sum = |outputs: &Outputs| outputs.iter().flatten().filter_map(|file| file.kept().ok()).sum();
        let mut named: BTreeMap<PathBuf, Vec<(usize, Outputs)>> = BTreeMap::new();
        let mut kept = vec![None; attempts.len()];
        for (index, outputs) in attempts.into_iter().enumerate() {
            let file = outputs.iter().flatten().find(|file| file.is_named);
            match file.map(|file| file.path.parent().unwrap_or(&file.path).to_owned()) {
                Some(directory) => named.entry(directory).or_default().push((index, outputs)),
                None => kept[index] = Some(sum(&outputs)),
            }
        }
        for (directory, attempts) in named {
            let sums = move || attempts.iter().map(|(index, outputs)| (*index, sum(outputs))).collect();
            let sums: Option<Vec<(usize, u64)>> = files::glance("measure logs in", &directory, sums);
            sums.into_iter().flatten().for_each(|(index, sum)| kept[index] = Some(sum));
        }
        kept
    }

    fn kept(&self) -> io::Result<u64> {
        let found = std::fs::metadata(&self.path)?;
        let mut start = self.start;
        // Only what takes less room than it is long is looked at more closely.
        if self.is_own && found.blocks() * 512 < found.len() {
            start = first_kept(&File::open(&self.path)?, start)?;
        }
        Ok(self.end.map_or(found.len(), |known| found.len().min(known)).saturating_sub(start))
    }

    /// Where the first byte is that was not freed, at or behind this offset.
    pub(crate) fn kept_from(&self, file: &File, from: u64) -> io::Result<u64> {
        if self.is_own { first_kept(file, from) } else { Ok(from) }
    }

    /// Where the last so many lines of the output begin in the file.
    pub(crate) fn tail(&self, file: &mut File, lines: u64) -> io::Result<u64> {
        let start = self.kept_from(file, self.start)?;
        offset_of_last_lines(file, start, self.end, lines)
    }

    /// The part that a query wants, as long as the file is now.
    fn bounds(&self, file: &mut File, query: &LogQuery) -> Result<(u64, u64), Error> {
        let mut find = || {
            let tail = query.tail.map_or(Ok(self.start), |lines| self.tail(file, lines))?;
            let length = file.metadata()?.len();
            let end = self.end.map_or(length, |end| end.min(length));
            Ok((self.kept_from(file, tail.max(query.offset.unwrap_or(0)))?.min(end), end))
        };
        find().map_err(|error| self.unreadable(error))
    }

    /// That part, to be read.
    pub(crate) async fn part(self, owner: &Owner, query: &LogQuery) -> Result<LogPart, Error> {
        let (file, query) = (self.clone(), query.clone());
        let look = move || {
            let Some(mut opened) = file.open()? else { return Ok(None) };
            let bounds = file.bounds(&mut opened, &query)?;
            // What was opened in a thread of the file system's own is not open elsewhere.
            Ok(Some((bounds, (!file.is_named).then_some(opened))))
        };
        let Some(((start, end), file)) = touch(owner, Some(&self), look).await? else {
            return Ok(LogPart::default());
        };
        let is_own = self.is_own;
        Ok(LogPart { file, named: Some(self).filter(|file| file.is_named), start, end, is_own })
    }

    pub(crate) fn unreadable(&self, error: io::Error) -> Error {
        Error::new(ProblemKind::Failed, format!("log file '{}' cannot be read", self.path.display()))
            .with_source(error)
    }
}

/// Runs something that touches log files where nobody has to wait for it: of files that the user named, in their own time.
///
/// # Errors
/// Those of `work`, or when the file system of such a file does not answer.
pub(crate) async fn touch<T: Send + 'static>(
    owner: &Owner,
    file: Option<&LogFile>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match file.filter(|file| file.is_named) {
        Some(file) => files::ask("read", &file.path, work).await?,
        None => owner.blocking(move |_| work()).await,
    }
}

/// A part of a log file.
#[derive(Debug, Default)]
pub(crate) struct LogPart {
    pub(crate) file: Option<File>,
    /// The file, if it is opened anew for each piece.
    pub(crate) named: Option<LogFile>,
    pub(crate) start: u64,
    pub(crate) end: u64,
    is_own: bool,
}

impl LogPart {
    /// All of it, in memory.
    pub(crate) fn read(self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let Some(mut file) = self.file.as_ref() else { return Ok(bytes) };
        let mut start = self.start;
        loop {
            file.seek(SeekFrom::Start(start))?;
            file.take(self.end.saturating_sub(start)).read_to_end(&mut bytes)?;
            match self.freed(start)? {
                None => return Ok(bytes),
                Some(kept) => start = kept,
            }
            bytes.clear();
        }
    }

    /// Where the file goes on, if what was just read from this offset on may have been freed meanwhile: then it was
    /// read as zeros.
    pub(crate) fn freed(&self, offset: u64) -> io::Result<Option<u64>> {
        let Some(file) = self.file.as_ref().filter(|_| self.is_own && offset < self.end) else {
            return Ok(None);
        };
        Ok(Some(first_kept(file, offset)?).filter(|kept| *kept > offset))
    }

    /// The next piece of a file that is opened anew for each.
    pub(crate) async fn piece(file: &LogFile, from: u64, to: u64) -> Result<Vec<u8>, Error> {
        let (path, is_own) = (file.path.clone(), file.is_own);
        let read = move || {
            let file = File::open(path)?;
            let part = Self { file: Some(file), named: None, start: from, end: to, is_own };
            let (mut file, mut bytes) = (part.file.as_ref().ok_or(io::ErrorKind::NotFound)?, Vec::new());
            file.seek(SeekFrom::Start(from))?;
            file.take(to - from).read_to_end(&mut bytes)?;
            match part.freed(from)? {
                Some(_) => Err(io::Error::other("the beginning of the log was freed while it was read")),
                None if bytes.is_empty() => {
                    Err(io::Error::other("the log file was truncated while it was read"))
                }
                None => Ok(bytes),
            }
        };
        let read = files::ask("read", &file.path, read).await?;
        read.map_err(|error| file.unreadable(error))
    }
}

pub(crate) fn text_path(text: &RawText) -> PathBuf {
    std::ffi::OsStr::from_bytes(text.as_bytes()).into()
}

pub(crate) fn path_text(path: &Path) -> RawText {
    path.as_os_str().as_bytes().to_vec().into()
}
