//! [`Jobs`]: the library's face, the same whether this process owns the data directory or somebody else does.

mod control;
mod convenience;
mod dependencies;
mod input;
mod next_owner;
mod processes;
mod queues;
mod schedules;
mod streams;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodejobs_core::JobId;
use nodejobs_core::record::JobRecord;
use nodejobs_core::spec::JobSpec;
use nodejobs_proc::KeeperProgram;
use nodejobs_proc::failpoint::{Failpoint, reached};
use nodejobs_proc::machine::Machine;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::api::{
    ArrayRequest, BatchResult, DaemonStatus, FollowEvent, FollowQuery, JobPage, ListQuery, LogQuery,
    LogStream, ProblemKind, SOCKET_NAME, StatusQuery, StopAnswer, StopRequest, StopResult, StoreStatus,
    WaitRequest,
};
use crate::client::{Client, ClientError};
use crate::directory::{DataDirectory, Lock};
use crate::error::Error;
use crate::follow::follow;
use crate::log_files::LogPart;
use crate::owner::Owner;
use crate::reach::own_or_reach;
use crate::server::{Server, ServerHandle};
use crate::stores::StoreKind;

use next_owner::NextOwner;

pub use control::Waited;
pub use convenience::{JobOutput, JobPages};

/// How a data directory is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The store of a new directory; of an existing one, the store it must have.
    pub store: Option<StoreKind>,
    /// The program that keeps the jobs. If absent: `nodejobs-keeper` beside this executable, else this executable
    /// itself, if its `main` begins with [`serve_keeper_if_asked`](crate::serve_keeper_if_asked).
    pub keeper: Option<PathBuf>,
}

/// A data directory's jobs.
///
/// [`open`](Self::open) becomes the owner of the directory, or connects to the owner there is; the calls are the same
/// and mean the same. Jobs do not end with the value, nor with the process: the next owner finds them.
///
/// A job is named by its id, a unique beginning of it, or a unique name.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use nodejobs::Jobs;
/// use nodejobs::spec::{Command, JobSpec};
///
/// let jobs = Jobs::open("/var/lib/my-program/jobs").await?;
/// let mut spec = JobSpec::new(Command::argv(["make", "all"]), "/src");
/// spec.context = nodejobs::capture_context()?;
/// let job = jobs.run(spec).await?;
/// let ended = jobs.wait(job.self_id.as_str()).await?;
/// println!("{} with {:?}", ended.status, ended.exit_code);
/// # Ok(())
/// # }
/// ```
pub struct Jobs {
    mode: Mode,
}

enum Mode {
    Owner {
        owner: Arc<Owner>,
        server: ServerHandle,
        serving: Option<JoinHandle<()>>,
        clock: JoinHandle<()>,
        upkeep: Option<JoinHandle<()>>,
    },
    Connected {
        data_dir: PathBuf,
    },
}

/// Both outputs of an attempt, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct JobLogs {
    /// What it wrote to descriptor 1.
    pub stdout: Vec<u8>,
    /// What it wrote to descriptor 2.
    pub stderr: Vec<u8>,
}

impl Jobs {
    /// Opens a data directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`ProblemKind::Unavailable`] when the directory or its store cannot be used, or its owner cannot be reached;
    /// [`ProblemKind::Usage`] when its [`config.toml`](crate::config) has mistakes.
    pub async fn open(data_dir: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(data_dir, OpenOptions::default()).await
    }

    /// Opens a data directory in a particular way.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`ProblemKind::Conflict`] when the directory has another store.
    pub async fn open_with(data_dir: impl AsRef<Path>, options: OpenOptions) -> Result<Self, Error> {
        Self::open_holding(data_dir.as_ref(), options, None).await
    }

    /// Opens a data directory, with the lock of starts if whoever started this process holds it already.
    pub(crate) async fn open_holding(
        data_dir: &Path,
        options: OpenOptions,
        starting: Option<Lock>,
    ) -> Result<Self, Error> {
        let data_dir = data_dir.to_owned();
        let opened = tokio::task::spawn_blocking(move || open(&data_dir, options, starting)).await;
        let mode = match opened.map_err(panicked)?? {
            Opened::Owner(owner, server) => {
                let handle = server.handle();
                let serving = tokio::spawn(server.serve());
                let clock = tokio::spawn(crate::clock::watch(Arc::downgrade(&owner)));
                let upkeep = Some(crate::upkeep::spawn(Arc::clone(&owner)));
                Mode::Owner { owner, server: handle, serving: Some(serving), clock, upkeep }
            }
            Opened::Connected(data_dir) => Mode::Connected { data_dir },
        };
        Ok(Self { mode })
    }

    /// Whether this process owns the directory.
    pub fn is_owner(&self) -> bool {
        matches!(self.mode, Mode::Owner { .. })
    }

    /// Gives the directory back and returns when the next one can own it. Jobs run on; whoever waits for one is told
    /// that this owner is leaving.
    pub async fn close(self) {
        let starting = self.lock_start().await;
        self.close_holding(starting).await;
    }

    /// The lock of starts, held while this owner leaves, so that nobody meets a directory that is owned but not served.
    pub(crate) async fn lock_start(&self) -> Option<Lock> {
        let Mode::Owner { owner, .. } = &self.mode else { return None };
        let directory = owner.directory.clone();
        match tokio::task::spawn_blocking(move || directory.lock_start()).await {
            Ok(Ok(starting)) => Some(starting),
            // Leaving without it only makes others wait for the next owner a little less gracefully.
            Ok(Err(_)) | Err(_) => None,
        }
    }

    pub(crate) async fn close_holding(mut self, starting: Option<Lock>) {
        let Mode::Owner { owner, server, serving, upkeep, .. } = &mut self.mode else { return };
        owner.hub.leave();
        server.stop();
        for ending in [serving.take(), upkeep.take()].into_iter().flatten() {
            let _ = ending.await;
        }
        reached(Failpoint::OwnerLeaving);
        drop(self);
        drop(starting);
    }

    /// Accepts a job: it is on disk when this returns, and is started next.
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] for a spec that cannot be run, [`ProblemKind::Conflict`] when a live job has the id,
    /// [`ProblemKind::Unavailable`] when it cannot be stored.
    pub async fn run(&self, spec: JobSpec) -> Result<JobRecord, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.run(&spec, false).await,
            Mode::Connected { .. } => self.ask(move |client| client.submit(&spec)).await,
        }
    }

    /// Accepts an array: many jobs of one spec that differ in their values. It is on disk when this returns, with one write
    /// whatever its size; its elements become jobs as they are started, with the ids `<array>.<number>`.
    ///
    /// ```no_run
    /// # async fn example(jobs: nodejobs::Jobs) -> Result<(), Box<dyn std::error::Error>> {
    /// use nodejobs::api::ArrayRequest;
    /// use nodejobs::spec::{Command, Elements, JobSpec};
    ///
    /// let spec = JobSpec::new(Command::argv(["gzip", "{}"]), "/data");
    /// let files = Elements::lines("a.txt\nb.txt\n");
    /// let array = jobs.submit_array(ArrayRequest { fail_fast: true, ..ArrayRequest::new(spec, files) }).await?;
    /// let ended = jobs.wait(array.self_id.as_str()).await?;
    /// println!("{:?}", ended.progress);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] for values, placeholders or a spec that cannot be run, [`ProblemKind::Conflict`] when a job
    /// has the id, [`ProblemKind::Unavailable`] when it cannot be stored.
    pub async fn submit_array(&self, array: ArrayRequest) -> Result<JobRecord, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.submit_array(&array, false).await,
            Mode::Connected { .. } => self.ask(move |client| client.submit_array(&array)).await,
        }
    }

    /// Accepts many jobs with as few flushes as can be. The results are in the order of the specs.
    ///
    /// # Errors
    /// When the batch as a whole cannot be handed over.
    pub async fn run_batch(&self, specs: Vec<JobSpec>) -> Result<Vec<Result<JobId, Error>>, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => Ok(owner.run_batch(&specs).await),
            Mode::Connected { .. } => {
                let results = self.ask(move |client| client.submit_batch(&specs)).await?;
                let results = results.into_iter().map(|result| match result {
                    BatchResult::Id(id) => Ok(id),
                    BatchResult::Error(problem) => Err(problem.into()),
                });
                Ok(results.collect())
            }
        }
    }

    /// Ends a job: its signal to the whole tree, its grace, then SIGKILL. Returns when the tree is gone, or with status
    /// `failed_stop` and the survivors. A job that has ended already is left as it is.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`].
    pub async fn stop(&self, reference: &str) -> Result<JobRecord, Error> {
        let request = StopRequest { jobs: vec![reference.to_owned()], ..StopRequest::default() };
        match self.stop_with(request).await?.results.pop() {
            Some(StopResult::Done { record, .. }) => Ok(*record),
            Some(StopResult::Refused { error, .. }) => Err(error.into()),
            None => Err(Error::not_found(reference)),
        }
    }

    /// Ends several jobs, or all of them, within one grace.
    ///
    /// # Errors
    /// When the request as a whole cannot be carried out; what concerns one job is in its result.
    pub async fn stop_with(&self, request: StopRequest) -> Result<StopAnswer, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.stop_jobs(&request).await,
            Mode::Connected { .. } => self.ask(move |client| client.stop(&request)).await,
        }
    }

    /// Returns the record of a job once it has ended.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`].
    pub async fn wait(&self, reference: &str) -> Result<JobRecord, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => {
                let job = owner.job(reference).await?;
                owner.wait(&job.id).await
            }
            Mode::Connected { .. } => {
                let waited = self.wait_for(&WaitRequest::all([reference])).await?;
                waited.ended.into_iter().next().ok_or_else(|| Error::not_found(reference))
            }
        }
    }

    /// The record of a job.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`].
    pub async fn get_status(&self, reference: &str) -> Result<JobRecord, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.status(reference, &StatusQuery::default()).await,
            Mode::Connected { .. } => {
                let reference = reference.to_owned();
                self.ask(move |client| client.job(&reference)).await
            }
        }
    }

    /// The record of a job, with what the query asks for beside what is stored.
    ///
    /// ```no_run
    /// # async fn example(jobs: nodejobs::Jobs) -> Result<(), nodejobs::Error> {
    /// use nodejobs::api::StatusQuery;
    ///
    /// let record = jobs.get_status_with("nightly", &StatusQuery { usage: true }).await?;
    /// println!("{:?} MiB, {:?} %", record.memory_mb, record.cpu_percent);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`].
    pub async fn get_status_with(&self, reference: &str, query: &StatusQuery) -> Result<JobRecord, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.status(reference, query).await,
            Mode::Connected { .. } => {
                let (reference, query) = (reference.to_owned(), query.clone());
                self.ask(move |client| client.job_with(&reference, &query)).await
            }
        }
    }

    /// A page of the jobs that match.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list_status(&self, query: &ListQuery) -> Result<JobPage, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.list(query).await,
            Mode::Connected { .. } => {
                let query = query.clone();
                self.ask(move |client| client.list(&query)).await
            }
        }
    }

    /// What a job has written so far, in memory; see [`follow`](Self::follow) for output that may be large.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] for an unknown job or attempt.
    pub async fn job_logs(&self, reference: &str, query: &LogQuery) -> Result<JobLogs, Error> {
        let [stdout, stderr] =
            [LogStream::Stdout, LogStream::Stderr].map(|stream| self.log(reference, stream, query));
        Ok(JobLogs { stdout: stdout.await?, stderr: stderr.await? })
    }

    async fn log(&self, reference: &str, stream: LogStream, query: &LogQuery) -> Result<Vec<u8>, Error> {
        let unreadable = |error: std::io::Error| {
            Error::new(ProblemKind::Failed, "the log cannot be read").with_source(error)
        };
        match &self.mode {
            Mode::Owner { owner, .. } => {
                let mut part = owner.log(reference, stream, query).await?;
                if let Some(file) = part.named.take() {
                    let (mut bytes, mut start) = (Vec::new(), part.start);
                    while start < part.end {
                        let piece = LogPart::piece(&file, start, part.end).await?;
                        start += piece.len() as u64;
                        bytes.extend(piece);
                    }
                    return Ok(bytes);
                }
                tokio::task::spawn_blocking(move || part.read()).await.map_err(panicked)?.map_err(unreadable)
            }
            Mode::Connected { .. } => {
                let (reference, query) = (reference.to_owned(), query.clone());
                let read = self.ask(move |client| {
                    let mut bytes = Vec::new();
                    Ok(client.log(&reference, stream, &query)?.read_to_end(&mut bytes).map(|_| bytes))
                });
                read.await?.map_err(unreadable)
            }
        }
    }

    /// A job's output as it is written, to its end. The last event is `Ended` or `Error`.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] for an unknown job or attempt.
    pub async fn follow(
        &self,
        reference: &str,
        query: &FollowQuery,
    ) -> Result<mpsc::Receiver<FollowEvent>, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => follow(owner, reference, query, false).await,
            Mode::Connected { .. } => {
                let query = (reference.to_owned(), query.clone());
                let open = |client: &Client, (job, query): &mut (String, FollowQuery)| {
                    if query.attempt.is_none() {
                        // The next owner may have begun a further one.
                        let record = client.job(job)?;
                        (*job, query.attempt) = (record.self_id.to_string(), Some(record.attempt));
                    }
                    client.follow(job, query)
                };
                let heard =
                    |(_, query): &mut (String, FollowQuery), event: &FollowEvent| query.go_on_behind(event);
                let event = |event: Result<FollowEvent, ClientError>| {
                    event.unwrap_or_else(|error| FollowEvent::Error(Error::from(error).to_problem()))
                };
                self.stream(query, open, heard, event).await
            }
        }
    }

    /// Who owns the directory, who keeps the jobs, and how many there are of each status.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn daemon_status(&self) -> Result<DaemonStatus, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.daemon_status(owner.directory.path().join(SOCKET_NAME)).await,
            Mode::Connected { .. } => self.ask(Client::daemon_status).await,
        }
    }

    /// What the directory's store is, promises and holds.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn store_status(&self) -> Result<StoreStatus, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.store_status().await,
            Mode::Connected { .. } => self.ask(Client::store_status).await,
        }
    }

    /// The parts that a daemon needs; `None` if somebody else is the owner.
    pub(crate) fn owner(&self) -> Option<(&Arc<Owner>, &ServerHandle)> {
        match &self.mode {
            Mode::Owner { owner, server, .. } => Some((owner, server)),
            Mode::Connected { .. } => None,
        }
    }

    /// The directory whose owner this process is connected to.
    fn connected_to(&self) -> Result<PathBuf, Error> {
        match &self.mode {
            Mode::Connected { data_dir } => Ok(data_dir.clone()),
            Mode::Owner { .. } => Err(Error::new(ProblemKind::Failed, "the owner does not ask itself")),
        }
    }

    /// Asks the owner that this process is connected to.
    async fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&Client) -> Result<T, ClientError> + Send + 'static,
    ) -> Result<T, Error> {
        self.connect_and(move |data_dir| request(&Client::connect(data_dir)?)).await
    }

    /// Asks the owner that this process is connected to, and if it goes away meanwhile the next one.
    async fn ask_on<T: Send + 'static>(
        &self,
        mut request: impl FnMut(&Client) -> Result<T, ClientError> + Send + 'static,
    ) -> Result<T, Error> {
        self.connect_and(move |data_dir| {
            let mut ask = || request(&Client::connect(data_dir)?);
            match ask() {
                // That there is nobody is an answer, as it is to every other request.
                Err(error) if !error.is_no_daemon() => NextOwner::default().wait(error, || false, ask),
                answer => answer,
            }
        })
        .await
    }

    async fn connect_and<T: Send + 'static>(
        &self,
        request: impl FnOnce(&Path) -> Result<T, ClientError> + Send + 'static,
    ) -> Result<T, Error> {
        let data_dir = self.connected_to()?;
        let (reply, answer) = oneshot::channel();
        // A thread of its own, not one of the runtime's: a runtime that ends waits for its blocking threads, and the
        // answer to this may come only when a job ends.
        spawn_thread(move || {
            let _ = reply.send(request(&data_dir));
        })?;
        let answer = answer.await.map_err(|error| {
            Error::new(ProblemKind::Failed, "a request to the owner ended with a panic").with_source(error)
        })?;
        Ok(answer?)
    }
}

fn spawn_thread(work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let spawned = std::thread::Builder::new().name("nodejobs-ask".to_owned()).spawn(work);
    spawned
        .map(drop)
        .map_err(|error| Error::new(ProblemKind::Unavailable, "no thread can be started").with_source(error))
}

impl Drop for Jobs {
    fn drop(&mut self) {
        if let Mode::Owner { owner, server, clock, upkeep, .. } = &self.mode {
            owner.hub.leave();
            server.stop();
            clock.abort();
            upkeep.iter().for_each(JoinHandle::abort);
        }
    }
}

fn panicked(error: tokio::task::JoinError) -> Error {
    Error::new(ProblemKind::Failed, "a blocking call ended with a panic").with_source(error)
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Problem(problem) => problem.into(),
            other => Error::new(ProblemKind::Unavailable, "the owner of the data directory cannot be asked")
                .with_source(other),
        }
    }
}

enum Opened {
    Owner(Arc<Owner>, Server),
    Connected(PathBuf),
}

fn open(data_dir: &Path, options: OpenOptions, starting: Option<Lock>) -> Result<Opened, Error> {
    let directory = DataDirectory::prepare(data_dir)?;
    // Whoever holds this is becoming the owner; once it is ours, the owner there is answers.
    let starting = match starting {
        Some(held) => held,
        None => directory.lock_start()?,
    };
    let Some(lock) = own_or_reach(&directory)? else {
        return Ok(Opened::Connected(directory.path().to_owned()));
    };
    let machine = Machine::read().map_err(|error| {
        Error::new(ProblemKind::Unavailable, "this machine cannot be told from others").with_source(error)
    })?;
    let keeper = match options.keeper {
        Some(path) => KeeperProgram::Path(path),
        None => KeeperProgram::find().map_err(|error| {
            Error::new(ProblemKind::Unavailable, "jobs cannot be kept").with_source(error)
        })?,
    };
    let owner = Arc::new(Owner::open(directory, lock, options.store, keeper, machine)?);
    let server = Server::bind(&owner)?;
    reached(Failpoint::OwnerBound);
    owner.announce().map_err(|error| {
        Error::new(ProblemKind::Unavailable, "the owner's lock file cannot be written").with_source(error)
    })?;
    drop(starting);
    Ok(Opened::Owner(owner, server))
}
