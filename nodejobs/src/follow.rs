//! Following a job's output while it is written, to its end.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use nodejobs_core::JobId;
use nodejobs_core::job::Job;
use nodejobs_core::record::JobRecord;
use nodejobs_core::store::JobStore;
use nodejobs_proc::logs::{new_write_watch, watch_next_write};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use crate::api::{FollowEvent, FollowQuery, LogStream, OutputChunk, ProblemKind};
use crate::error::Error;
use crate::hub::{LastChange, stopped};
use crate::log_files::LogFile;
use crate::owner::Owner;
use crate::service::{attempt_of, record_of_all};

/// Bytes in one event.
const CHUNK: u64 = 64 * 1024;
/// Between a write that was told and the next watch: a standing watch would slow the writer down.
const PAUSE: Duration = Duration::from_millis(100);

/// Begins to follow an attempt. The receiver hears everything, and last `Ended` or `Error`.
pub(crate) async fn follow(
    owner: &Arc<Owner>,
    reference: &str,
    query: &FollowQuery,
) -> Result<mpsc::Receiver<FollowEvent>, Error> {
    let (reference, attempt) = (reference.to_owned(), query.attempt);
    let job = owner.blocking(move |store| attempt_of(store, &reference, attempt)).await?;
    let (events, receiver) = mpsc::channel(16);
    let query = FollowQuery { attempt: Some(job.state.attempt), ..query.clone() };
    let follower = Follower { owner: Arc::clone(owner), id: job.id, query, outputs: Vec::new(), events };
    tokio::spawn(follower.run());
    Ok(receiver)
}

struct Follower {
    owner: Arc<Owner>,
    id: JobId,
    /// With the attempt that is followed.
    query: FollowQuery,
    /// Known once the attempt was executed: before, nobody knows where in its files its output will begin.
    outputs: Vec<Output>,
    events: mpsc::Sender<FollowEvent>,
}

/// One log file and how far it was read.
#[derive(Clone, Debug)]
pub(crate) struct Output {
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

    /// The next piece, if there is one.
    pub(crate) fn read(&mut self) -> Result<Option<FollowEvent>, Error> {
        let Some(mut file) = self.file.open()? else { return Ok(None) };
        let mut read = || {
            let length = file.metadata()?.len();
            if length < self.offset {
                (self.offset, self.file.start) = (0, 0);
                return Ok(Some(FollowEvent::Truncated { stream: self.stream, offset: 0 }));
            }
            let end = self.file.end.map_or(length, |end| end.min(length));
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(self.offset))?;
            file.by_ref().take(CHUNK.min(end.saturating_sub(self.offset))).read_to_end(&mut bytes)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let chunk = OutputChunk { stream: self.stream, offset: self.offset, bytes };
            self.offset = chunk.end();
            Ok(Some(FollowEvent::Output(chunk)))
        };
        read().map_err(|error| self.file.unreadable(error))
    }

    /// Whether the file is longer or shorter than what was read of it.
    fn has_changed(&self) -> bool {
        let length = std::fs::metadata(&self.file.path).ok().filter(std::fs::Metadata::is_file);
        length
            .map(|metadata| metadata.len())
            .is_some_and(|length| self.file.end.map_or(length, |end| end.min(length)) != self.offset)
    }
}

/// The output of an attempt from where the query says, as long as it is now; none before the program was executed.
pub(crate) fn outputs_now(
    store: &dyn JobStore,
    job: &Job,
    query: &FollowQuery,
) -> Result<Vec<Output>, Error> {
    let mut outputs = outputs_of(store, job, query)?;
    for output in &mut outputs {
        let length = std::fs::metadata(&output.file.path).map_or(0, |metadata| metadata.len());
        output.file.end = Some(output.file.end.map_or(length, |end| end.min(length)));
    }
    Ok(outputs)
}

fn outputs_of(store: &dyn JobStore, job: &Job, query: &FollowQuery) -> Result<Vec<Output>, Error> {
    if job.state.started.is_none() && job.state.ended.is_none() {
        return Ok(Vec::new());
    }
    let files = [LogStream::Stdout, LogStream::Stderr].into_iter().zip(LogFile::both(store, job)?);
    files.filter_map(|(stream, file)| Some(Output::new(stream, file?, query))).collect()
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
            let mut missed = false;
            for output in &self.outputs {
                let _ = watch_next_write(&watch, &output.file.path);
                missed |= output.has_changed();
            }
            if missed {
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

    async fn pause(&self, changes: &mut watch::Receiver<LastChange>) -> Result<(), Error> {
        match tokio::time::timeout(PAUSE, changes.changed()).await {
            Ok(changed) => changed.map_err(|_| stopped()),
            Err(_) => Ok(()),
        }
    }

    /// Finds the attempt's output, once there is some; the record, if the attempt has ended.
    async fn look(&mut self) -> Result<Option<JobRecord>, Error> {
        let (id, query, keepers) = (self.id.clone(), self.query.clone(), self.owner.directory.keepers());
        let is_new = self.outputs.is_empty();
        let (outputs, ended) = self
            .owner
            .blocking(move |store| {
                let job = attempt_of(store, id.as_str(), query.attempt)?;
                let ended = job.state.status.is_terminal().then(|| record_of_all(&keepers, &job));
                let outputs = if is_new { outputs_of(store, &job, &query)? } else { Vec::new() };
                Ok((outputs, ended))
            })
            .await?;
        self.outputs.extend(outputs);
        Ok(ended)
    }

    /// Reads and sends until nothing is left, and says whether there was anything; `None` if nobody listens.
    async fn read_all(&mut self) -> Result<Option<bool>, Error> {
        let mut wrote = false;
        for index in 0..self.outputs.len() {
            loop {
                // What was written long ago has to come from the disk, which nobody else shall wait for.
                let mut output = self.outputs[index].clone();
                let read = move |_: &dyn JobStore| output.read().map(|event| (output, event));
                let (output, event) = self.owner.blocking(read).await?;
                self.outputs[index] = output;
                let Some(event) = event else { break };
                wrote = true;
                if self.owner.hub.unless_left(self.events.send(event)).await?.is_err() {
                    return Ok(None);
                }
            }
        }
        Ok(Some(wrote))
    }
}
