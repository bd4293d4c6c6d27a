//! Following a job's output while it is written, to its end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nodejobs_core::job::Job;
use nodejobs_core::record::JobRecord;
use nodejobs_proc::logs::{new_write_watch, offset_of_last_lines, watch_next_write};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use crate::api::{FollowEvent, FollowQuery, LogStream, OutputChunk, ProblemKind};
use crate::error::Error;
use crate::hub::LastChange;
use crate::owner::{Owner, stopped};
use crate::service::{attempt_of, log_path, log_unreadable, record};

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
    let (reference, query) = (reference.to_owned(), query.clone());
    let (job, outputs) = owner
        .blocking(move |store| {
            let job = attempt_of(store, &reference, query.attempt)?;
            let from = [(LogStream::Stdout, query.stdout_from), (LogStream::Stderr, query.stderr_from)];
            let outputs: Result<Vec<Output>, Error> =
                from.into_iter().map(|(stream, from)| Output::new(&job, stream, from, query.tail)).collect();
            Ok((job, outputs?))
        })
        .await?;
    let (events, receiver) = mpsc::channel(16);
    let follower = Follower { owner: Arc::clone(owner), job, outputs, events };
    tokio::spawn(follower.run());
    Ok(receiver)
}

struct Follower {
    owner: Arc<Owner>,
    job: Job,
    outputs: Vec<Output>,
    events: mpsc::Sender<FollowEvent>,
}

/// One log file and how far it was read.
struct Output {
    stream: LogStream,
    path: PathBuf,
    offset: u64,
}

impl Output {
    fn new(job: &Job, stream: LogStream, from: Option<u64>, tail: Option<u64>) -> Result<Self, Error> {
        let path = log_path(job, stream);
        let offset = match (from, tail) {
            (Some(from), _) => from,
            (None, None) => 0,
            (None, Some(lines)) => match File::open(&path) {
                Ok(mut file) => {
                    offset_of_last_lines(&mut file, lines).map_err(|error| log_unreadable(&path, error))?
                }
                // Nothing is written yet, so everything will be new.
                Err(_) => 0,
            },
        };
        Ok(Self { stream, path, offset })
    }

    /// The next piece, if there is one.
    fn read(&mut self) -> Result<Option<FollowEvent>, Error> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(log_unreadable(&self.path, error)),
        };
        let mut read = || {
            let length = file.metadata()?.len();
            if length < self.offset {
                self.offset = 0;
                return Ok(Some(FollowEvent::Truncated { stream: self.stream, offset: 0 }));
            }
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(self.offset))?;
            file.by_ref().take(CHUNK.min(length - self.offset)).read_to_end(&mut bytes)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let chunk = OutputChunk { stream: self.stream, offset: self.offset, bytes };
            self.offset = chunk.end();
            Ok(Some(FollowEvent::Output(chunk)))
        };
        read().map_err(|error| log_unreadable(&self.path, error))
    }
}

impl Follower {
    async fn run(mut self) {
        let last = match self.follow().await {
            Ok(Some(record)) => FollowEvent::Ended(Box::new(record)),
            // Nobody listens any more.
            Ok(None) => return,
            Err(error) => FollowEvent::Error(error.to_problem()),
        };
        let _ = self.events.send(last).await;
    }

    async fn follow(&mut self) -> Result<Option<JobRecord>, Error> {
        let mut changes = self.owner.hub.watch(&self.job.id);
        // Tokio's only safe way to wait for a descriptor it has no type for.
        let watch = new_write_watch().and_then(pipe::Receiver::from_owned_fd_unchecked).map_err(|error| {
            let message =
                "the log files cannot be watched; too many followers (fs.inotify.max_user_instances)?";
            Error::new(ProblemKind::Failed, message).with_source(error)
        })?;
        loop {
            // Asked before reading: what was written before the end is read, and after it nothing is written.
            let ended = self.ended().await?;
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
                // A file that is not there yet comes with the start of the job, which is a change.
                let _ = watch_next_write(&watch, &output.path);
                missed |=
                    std::fs::metadata(&output.path).is_ok_and(|metadata| metadata.len() != output.offset);
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

    /// The record, if the attempt has ended.
    async fn ended(&self) -> Result<Option<JobRecord>, Error> {
        let (id, attempt) = (self.job.id.clone(), self.job.state.attempt);
        self.owner
            .blocking(move |store| {
                let job = attempt_of(store, id.as_str(), Some(attempt))?;
                Ok(job.state.status.is_terminal().then(|| record(&job)))
            })
            .await
    }

    /// Reads and sends until nothing is left, and says whether there was anything; `None` if nobody listens.
    async fn read_all(&mut self) -> Result<Option<bool>, Error> {
        let mut wrote = false;
        for index in 0..self.outputs.len() {
            loop {
                let output = &mut self.outputs[index];
                // A piece of at most 64 KiB that was just written: it is in memory.
                let Some(event) = output.read()? else { break };
                wrote = true;
                if self.events.send(event).await.is_err() {
                    return Ok(None);
                }
            }
        }
        Ok(Some(wrote))
    }
}
