//! Following a job's output while it is written, to its end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::Arc;
use std::time::Duration;

use nodejobs_core::job::{Input, Job};
use nodejobs_core::record::JobRecord;
use nodejobs_core::store::JobStore;
use nodejobs_core::{JobId, Timestamp};
use nodejobs_proc::logs::{new_write_watch, watch_next_write, watch_next_write_from_afar};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use crate::api::{FollowEvent, FollowQuery, LogStream, OutputChunk, ProblemKind};
use crate::error::Error;
use crate::hub::{LastChange, stopped};
use crate::log_files::{LogFile, touch};
use crate::owner::Owner;
use crate::service::{attempt_of, record};
use crate::timeline::Timeline;

/// Bytes in one event.
const CHUNK: u64 = 64 * 1024;
/// Between a write that was told and the next watch: a standing watch would slow the writer down.
const PAUSE: Duration = Duration::from_millis(100);

/// Begins to follow an attempt, if `times` is set with the times at which it wrote. The receiver hears everything, and last `Ended` or `Error`.
pub(crate) async fn follow(
    owner: &Arc<Owner>,
    reference: &str,
    query: &FollowQuery,
    times: bool,
) -> Result<mpsc::Receiver<FollowEvent>, Error> {
    let (reference, attempt) = (reference.to_owned(), query.attempt);
    let job = owner.blocking(move |store| attempt_of(store, &reference, attempt)).await?;
    let (events, receiver) = mpsc::channel(16);
    let query = FollowQuery { attempt: Some(job.state.attempt), ..query.clone() };
    let follower = Follower {
        owner: Arc::clone(owner),
        id: job.id,
        query,
        times,
        is_copied: matches!(job.definition.input, Input::Terminal(_)),
        reader: Reader::default(),
        events,
    };
    tokio::spawn(follower.run());
    Ok(receiver)
}

struct Follower {
    owner: Arc<Owner>,
    id: JobId,
    /// With the attempt that is followed.
    query: FollowQuery,
    times: bool,
    /// Whether its log is a copy, which comes a moment later.
    is_copied: bool,
    /// Known once the attempt was executed: before, nobody knows where in its files its output will begin.
    reader: Reader,
    events: mpsc::Sender<FollowEvent>,
}

/// One log file and how far it was read.
#[derive(Debug)]
struct Output {
    stream: LogStream,
    file: LogFile,
    offset: u64,
}

impl Output {
    fn new(stream: LogStream, file: LogFile, query: &FollowQuery) -> Result<Self, Error> {
        let from = match stream {
            LogStream::Stdout => query.stdout_from,
            LogStream::Stderr => query.stderr_from,
        };
        let offset = match (from, query.tail) {
            (Some(from), _) => from.max(file.start),
            (None, None) => file.start,
            (None, Some(lines)) => match file.open()? {
                Some(mut opened) => file.tail(&mut opened, lines).map_err(|error| file.unreadable(error))?,
                // Nothing is written yet, so everything will be new.
                None => file.start,
            },
        };
        Ok(Self { stream, file, offset })
    }

    /// The next piece up to this offset, if there is one.
    fn read(&mut self, limit: u64) -> Result<Option<FollowEvent>, Error> {
        let Some(mut file) = self.file.open()? else { return Ok(None) };
        let mut read = || {
            let length = file.metadata()?.len();
            if length < self.offset {
                (self.offset, self.file.start) = (0, 0);
                return Ok(Some(FollowEvent::Truncated { stream: self.stream, offset: 0 }));
            }
            let end = self.file.end.map_or(length, |end| end.min(length)).min(limit);
            let freed = |offset, file: &File| {
                let kept = if offset < length { self.file.kept_from(file, offset)? } else { offset };
                Ok::<_, io::Error>((kept > offset).then_some(kept))
            };
            if let Some(kept) = freed(self.offset, &file)? {
                self.offset = kept;
                return Ok(Some(FollowEvent::Truncated { stream: self.stream, offset: kept }));
            }
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(self.offset))?;
            file.by_ref().take(CHUNK.min(end.saturating_sub(self.offset))).read_to_end(&mut bytes)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            // What was freed while it was read has come as zeros.
            if let Some(kept) = freed(self.offset, &file)? {
                self.offset = kept;
                return Ok(Some(FollowEvent::Truncated { stream: self.stream, offset: kept }));
            }
            let chunk = OutputChunk { stream: self.stream, offset: self.offset, bytes, written: None };
            self.offset = chunk.end();
            Ok(Some(FollowEvent::Output(chunk)))
        };
        read().map_err(|error| self.file.unreadable(error))
    }

    /// Whether the file is longer or shorter than what was read of it.
    fn has_changed(&self) -> bool {
        self.length().is_some_and(|length| self.file.end.map_or(length, |end| end.min(length)) != self.offset)
    }

    /// How long the file is, if it keeps anything.
    fn length(&self) -> Option<u64> {
        let found = std::fs::metadata(&self.file.path).ok().filter(std::fs::Metadata::is_file);
        found.map(|found| found.len())
    }

    /// Has the next write told, in a thread that has descriptors of its own.
    fn watch_from_afar(&self, watch: RawFd) {
        // One that is not there is not written to.
        let _ = watch_next_write_from_afar(watch, &self.file.path);
    }
}

/// Reads the output of an attempt: stream by stream, or in the order in which it was written, as far as that is known.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    outputs: Vec<Output>,
    /// If the order is wanted.
    timeline: Option<Timeline>,
}

impl Reader {
    /// From where the query says, as long as it is now, and not what was written later than `until`; none before the
    /// program was executed. With the job.
    pub(crate) async fn now(
        owner: &Arc<Owner>,
        id: &JobId,
        query: FollowQuery,
        until: Option<Timestamp>,
        times: bool,
    ) -> Result<(Job, Self), Error> {
        let (id, attempt, own_logs) = (id.clone(), query.attempt, owner.directory.logs());
        let look = move |store: &dyn JobStore| {
            let job = attempt_of(store, id.as_str(), attempt)?;
            let timeline = match times || until.is_some() {
                true => Some(Timeline::of(&job, &own_logs, &LogFile::both(store, &job)?)?),
                false => None,
            };
            let files = files_of(store, &job)?;
            Ok((job, files, timeline))
        };
        let (job, files, timeline) = owner.blocking(look).await?;
        let end = until.and_then(|until| timeline.as_ref()?.until(until));
        let named = files.first().map(|(_, file)| file.clone());
        let open = move || {
            let mut outputs = outputs_of(files, &query)?;
            for output in &mut outputs {
                let known = end.map(|end| match output.stream {
                    LogStream::Stdout => end.stdout,
                    LogStream::Stderr => end.stderr,
                });
                let length = output.length().unwrap_or(0);
                output.file.end = output.file.end.into_iter().chain(known).chain([length]).min();
            }
            Ok(outputs)
        };
        let outputs = touch(owner, named.as_ref(), open).await?;
        Ok((job, Self { outputs, timeline: timeline.filter(|_| times) }))
    }

    /// Reads the next piece, if there is one, where nobody has to wait for it.
    pub(crate) async fn read_next(mut self, owner: &Owner) -> Result<(Self, Option<FollowEvent>), Error> {
        // What was written long ago has to come from the disk.
        let named = self.outputs.first().map(|output| output.file.clone());
        touch(owner, named.as_ref(), move || self.next().map(|event| (self, event))).await
    }

    /// The next piece, if there is one.
    fn next(&mut self) -> Result<Option<FollowEvent>, Error> {
        let Some(timeline) = &self.timeline else {
            for output in &mut self.outputs {
                if let Some(event) = output.read(u64::MAX)? {
                    return Ok(Some(event));
                }
            }
            return Ok(None);
        };
        let mut left: Vec<_> = self.outputs.iter().map(|output| (output.stream, output.offset)).collect();
        while let Some((stream, end, written)) = timeline.next(&left) {
            let Some(output) = self.outputs.iter_mut().find(|output| output.stream == stream) else { break };
            match output.read(end)? {
                Some(FollowEvent::Output(chunk)) => {
                    return Ok(Some(FollowEvent::Output(OutputChunk { written: Some(written), ..chunk })));
                }
                Some(event) => return Ok(Some(event)),
                // What follows in the file is not its own.
                None => left.retain(|(known, _)| *known != stream),
            }
        }
        Ok(None)
    }
}

/// None before the program was executed.
fn files_of(store: &dyn JobStore, job: &Job) -> Result<Vec<(LogStream, LogFile)>, Error> {
    if job.state.started.is_none() && job.state.ended.is_none() {
        return Ok(Vec::new());
    }
    let files = [LogStream::Stdout, LogStream::Stderr].into_iter().zip(LogFile::both(store, job)?);
    Ok(files.filter_map(|(stream, file)| Some((stream, file?))).collect())
}

fn outputs_of(files: Vec<(LogStream, LogFile)>, query: &FollowQuery) -> Result<Vec<Output>, Error> {
    files.into_iter().map(|(stream, file)| Output::new(stream, file, query)).collect()
}

impl Follower {
    async fn run(mut self) {
        let events = self.events.clone();
        let last = match self.follow().await {
            Ok(Some(record)) => FollowEvent::Ended(Box::new(record)),
            // Nobody listens any more.
            Ok(None) => return,
            Err(error) => FollowEvent::Error(error.to_problem()),
        };
        // Whoever does not listen now does not keep the owner from leaving.
        drop(self);
        let _ = events.send(last).await;
    }

    async fn follow(&mut self) -> Result<Option<JobRecord>, Error> {
        let mut changes = self.owner.hub.watch(&self.id);
        // Tokio's only safe way to wait for a descriptor it has no type for.
        let watch = new_write_watch().and_then(pipe::Receiver::from_owned_fd_unchecked).map_err(|error| {
            let message =
                "the log files cannot be watched; too many followers (fs.inotify.max_user_instances)?";
            Error::new(ProblemKind::Failed, message).with_source(error)
        })?;
        loop {
            // Asked before reading: what was written before the end is read, and after it nothing is written.
            let ended = self.look().await?;
            let Some(wrote) = self.read_all().await? else { return Ok(None) };
            if let Some(record) = ended {
                return Ok(Some(record));
            }
            if wrote {
                self.pause(&mut changes).await?;
                if self.events.is_closed() {
                    return Ok(None);
                }
                if self.owner.hub.is_leaving() {
                    return Err(stopped());
                }
                continue;
            }
            let mut told = [0; 1024];
            while watch.try_read(&mut told).is_ok() {}
            if self.watch(&watch).await? {
                continue;
            }
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| stopped())?,
                _ = watch.readable() => {}
                () = self.owner.hub.left() => return Err(stopped()),
                () = self.events.closed() => return Ok(None),
            }
        }
    }

    /// Has the next write to each file told; whether something was written meanwhile.
    async fn watch(&mut self, watch: &pipe::Receiver) -> Result<bool, Error> {
        let number = watch.as_raw_fd();
        let Some(named) = self.reader.outputs.first().map(|output| output.file.clone()) else {
            return Ok(false);
        };
        if named.is_named {
            let reader = std::mem::take(&mut self.reader);
            let look = move || {
                reader.outputs.iter().for_each(|output| output.watch_from_afar(number));
                let has_changed = reader.outputs.iter().any(Output::has_changed);
                Ok((reader, has_changed))
            };
            let (reader, has_changed) = touch(&self.owner, Some(&named), look).await?;
            self.reader = reader;
            return Ok(has_changed);
        }
        for output in &self.reader.outputs {
            let _ = watch_next_write(watch, &output.file.path);
        }
        Ok(self.reader.outputs.iter().any(Output::has_changed))
    }

    async fn pause(&self, changes: &mut watch::Receiver<LastChange>) -> Result<(), Error> {
        match tokio::time::timeout(PAUSE, changes.changed()).await {
            Ok(changed) => changed.map_err(|_| stopped()),
            Err(_) => Ok(()),
        }
    }

    /// Finds the attempt's output, once there is some; the record, if the attempt has ended.
    async fn look(&mut self) -> Result<Option<JobRecord>, Error> {
        let (id, attempt, times) = (self.id.clone(), self.query.attempt, self.times);
        if times {
            self.owner.look_at_output_of(id.as_str(), attempt).await?;
        }
        let mut is_whole = true;
        if self.is_copied {
            let id = id.clone();
            let job = self.owner.blocking(move |store| attempt_of(store, id.as_str(), attempt)).await?;
            self.owner.flush_output_of(&job).await?;
            // One that ends from here on is told of by the next look.
            is_whole = job.state.status.is_terminal();
        }
        let own_logs = self.owner.directory.logs();
        let is_new = self.reader.outputs.is_empty();
        let (files, timeline, ended) = self
            .owner
            .blocking(move |store| {
                let job = attempt_of(store, id.as_str(), attempt)?;
                let has_ended = is_whole && job.state.status.is_terminal();
                let ended = has_ended.then(|| record(&job));
                let files = if is_new { files_of(store, &job)? } else { Vec::new() };
                let timeline = match times {
                    true => Some(Timeline::of(&job, &own_logs, &LogFile::both(store, &job)?)?),
                    false => None,
                };
                Ok((files, timeline, ended))
            })
            .await?;
        if let Some(named) = files.first().map(|(_, file)| file.clone()) {
            let query = self.query.clone();
            let opened = touch(&self.owner, Some(&named), move || outputs_of(files, &query)).await?;
            self.reader.outputs.extend(opened);
        }
        self.reader.timeline = timeline;
        Ok(ended)
    }

    /// Reads and sends until nothing is left, and says whether there was anything; `None` if nobody listens.
    async fn read_all(&mut self) -> Result<Option<bool>, Error> {
        let mut wrote = false;
        loop {
            let (reader, event) = std::mem::take(&mut self.reader).read_next(&self.owner).await?;
            self.reader = reader;
            let Some(event) = event else { return Ok(Some(wrote)) };
            wrote = true;
            if self.owner.hub.unless_left(self.events.send(event)).await?.is_err() {
                return Ok(None);
            }
        }
    }
}
