//! The owner of a data directory: one thread that decides and writes, and the reports that come to it.
//!
//! Each round of the thread takes everything that has arrived, lets the engine decide, commits what it decided with
//! one flush, and carries out what follows. While it flushes, the next round's inputs gather: that is the group commit.

mod deletions;
mod host;
mod work;

use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use nodejobs_core::array::Content;
use nodejobs_core::backend::{BackendError, BackendHost, BackendReport, ProcessBackend, SignalScope};
use nodejobs_core::engine::{Answer, Capacity, Edits, Engine, ScheduleChange, StopRequest, Turn};
use nodejobs_core::explain::Explanation;
use nodejobs_core::filter::JobFilter;
use nodejobs_core::group::{GroupChange, GroupStatus};
use nodejobs_core::job::{Definition, Job};
use nodejobs_core::signal::Signal;
use nodejobs_core::spec::{After, Unique};
use nodejobs_core::store::{DocumentChange, DocumentKind, JobStore, Order, PageRequest, StoreError, Unit};
use nodejobs_core::{JobId, RawText, Status, Timestamp};
use nodejobs_proc::failpoint::{Failpoint, reached};
use nodejobs_proc::machine::{Machine, now};
use nodejobs_proc::{Config as BackendConfig, KeeperProgram, LocalBackend};
use tokio::sync::{oneshot, watch};

use crate::api::{ProblemKind, RestartRequest, SignalRequest};
use crate::config::Config;
use crate::dependencies::awaited;
use crate::directory::{DataDirectory, Lock};
use crate::error::Error;
use crate::files;
use crate::hub::{Hub, stopped};
use crate::last_looks::LastLooks;
use crate::recorder::Recorder;
use crate::stores::StoreKind;
use deletions::Deletions;
use host::Host;
use work::{Surroundings, Work};

/// A job that is asked for.
pub(crate) struct SubmitMessage {
    pub(crate) id: Option<JobId>,
    pub(crate) definition: Definition,
    /// The launch context as it is stored.
    pub(crate) context: Vec<u8>,
    /// What it reads, if that is kept with the job.
    pub(crate) input: Option<Vec<u8>>,
    pub(crate) unique: Option<Unique>,
    /// What makes it an array.
    pub(crate) array: Option<Box<Content>>,
    pub(crate) resend: bool,
    pub(crate) reply: oneshot::Sender<Answered>,
}

/// The engine's answer, with the job it speaks of if this very round has made it.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) job: Option<Box<Job>>,
}

/// What can be asked of a job that is there.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Stop(StopRequest),
    Restart {
        /// Of the next attempt; one that has it already is the answer.
        submit_key: String,
        how: StopRequest,
        /// Not if it lives.
        ended: bool,
        /// Not if it has finished, see [`Owner::restart_of`].
        failed: bool,
    },
    /// The next attempt of an array that has ended.
    RestartArray {
        submit_key: String,
        how: StopRequest,
        /// The array's when it was decided what is run again. Its elements do not change but with it.
        revision: u64,
        content: Arc<Content>,
    },
    /// Wait for these from now on.
    Depend {
        after: Option<After>,
    },
    Remove {
        /// Only if it is still as it was then.
        revision: Option<u64>,
    },
    Pause,
    Resume,
    Signal {
        signal: Signal,
        scope: SignalScope,
    },
    /// A queued one is to be another one.
    Edit(Box<Edits>),
}

/// What can be asked of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GroupRequest {
    Change(GroupChange),
    Remove,
}

/// What can be seen of the queues. Nothing changes by it.
pub(crate) enum Look {
    Groups(oneshot::Sender<Vec<GroupStatus>>),
    Explain(JobId, oneshot::Sender<Option<Explanation>>),
}

impl Request {
    fn rests_on_store(&self) -> bool {
        matches!(
            self,
            Request::Restart { .. }
                | Request::RestartArray { .. }
                | Request::Remove { .. }
                | Request::Edit(_)
        )
    }
}

impl From<&SignalRequest> for Request {
    fn from(request: &SignalRequest) -> Self {
        let scope = if request.tree { SignalScope::Tree } else { SignalScope::Main };
        Request::Signal { signal: request.signal, scope }
    }
}

impl From<RestartRequest> for Request {
    fn from(request: RestartRequest) -> Self {
        let RestartRequest { jobs: _, submit_key, signal, grace_ms, force, ended, failed } = request;
        Request::Restart { submit_key, how: StopRequest { signal, grace_ms, force }, ended, failed }
    }
}

enum Message {
    Submit(Box<SubmitMessage>),
    Ask {
        id: JobId,
        request: Request,
        reply: oneshot::Sender<Answered>,
    },
    Keep {
        documents: Vec<DocumentChange>,
        reply: oneshot::Sender<Answered>,
    },
    Schedule {
        name: String,
        change: ScheduleChange,
        reply: oneshot::Sender<Answered>,
    },
    Group {
        name: String,
        request: GroupRequest,
        reply: oneshot::Sender<Answered>,
    },
    Look(Look),
    Report(BackendReport),
    ClockSet,
    Capacity(Capacity),
    /// Log files of a job are deleted that a launch may wait for.
    Deleted,
    Quit,
}

impl Message {
    /// Whether it is decided on what the store says of something that the turn changes.
    fn rests_on(&self, turn: &Turn, engine: &Engine) -> bool {
        // What jobs may want of a group is decided on what it is.
        let looks_at_groups = match self {
            Message::Submit(_) | Message::Group { .. } | Message::Schedule { .. } => true,
            Message::Ask { request, .. } => matches!(request, Request::Restart { .. } | Request::Edit(_)),
            _ => false,
        };
        if looks_at_groups && turn.concerns_groups() {
            return true;
        }
        let not_live = |after: Option<&After>| awaited(after).any(|id| !engine.is_live(id));
        match self {
            // What is not live may have ended in this turn.
            Message::Submit(submit)
                if !turn.units.is_empty()
                    && (not_live(submit.definition.after.as_ref())
                        || submit.unique.as_ref().is_some_and(|unique| !engine.has_key(&unique.key))) =>
            {
                true
            }
            Message::Ask { id, request: Request::Depend { after }, .. } => {
                turn.concerns(id) || (!turn.units.is_empty() && not_live(after.as_ref()))
            }
            // Looked for by its key: any of the new jobs may be the one that it has made.
            Message::Submit(submit) if submit.id.is_none() => submit.resend && !turn.units.is_empty(),
            Message::Submit(submit) => submit.id.as_ref().is_some_and(|id| turn.concerns(id)),
            Message::Ask { id, request, .. } if request.rests_on_store() => turn.concerns(id),
            Message::Ask { .. }
            | Message::Keep { .. }
            | Message::Schedule { .. }
            | Message::Group { .. }
            | Message::Look(_)
            | Message::Report(_)
            | Message::ClockSet
            | Message::Capacity(_)
            | Message::Deleted
            | Message::Quit => false,
        }
    }
}

/// The owner of a data directory, as everything in this process sees it.
pub(crate) struct Owner {
    pub(crate) directory: DataDirectory,
    pub(crate) store: Arc<dyn JobStore>,
    pub(crate) store_kind: StoreKind,
    pub(crate) hub: Arc<Hub>,
    pub(crate) backend: Arc<dyn ProcessBackend>,
    pub(crate) recorder: Arc<Recorder>,
    /// Log files that are to be deleted and are not yet.
    pub(crate) deletions: Arc<Deletions>,
    pub(crate) started_at: Timestamp,
    /// What `config.toml` said when it was last read without a mistake.
    pub(crate) config: watch::Sender<Arc<Config>>,
    pub(crate) last_looks: LastLooks,
    /// Tells the processes of this directory from those of others.
    pub(crate) directory_id: String,
    /// Whether hooks run or wait.
    pub(crate) hooks_busy: watch::Sender<bool>,
    /// Counts what has been accepted that has a script for its end.
    pub(crate) on_done_wanted: watch::Sender<u64>,
    /// Whether something has such a script that is not through.
    pub(crate) on_done_busy: watch::Sender<bool>,
    inputs: Sender<Message>,
    /// Its sender is gone with the thread.
    stopped: watch::Receiver<()>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Given up last, when nothing of this owner is at work any more.
    lock: Mutex<Lock>,
}

impl Owner {
    /// Takes over the directory whose lock is given: opens its store, hears from the keepers what happened meanwhile,
    /// and writes that down.
    pub(crate) fn open(
        directory: DataDirectory,
        lock: Lock,
        wanted_store: Option<StoreKind>,
        program: KeeperProgram,
        machine: Machine,
    ) -> Result<Self, Error> {
        crate::capture::raise_open_files();
        // First of all: a mistake in it is the user's to mend, and nothing has been done yet.
        let settings = read_settings(directory.path())?;
        let (meta, age) = directory.meta(wanted_store, &machine)?;
        let store = meta.store.open(directory.path(), age)?;
        if let Some(damage) = store.damage() {
            log::error!("{damage}");
        }
        reached(Failpoint::OwnerStoreMade);
        directory.keep_meta(&meta)?;
        let keepers = directory.keepers();
        let boot_id = machine.boot_id.clone();
        let previous_boot_id = stored_boot(&*store)?;
        let directory_id = meta.directory_id.clone();
        let cgroup = settings.cgroup.clone();
        let mut owner =
            Self::take_over(directory, lock, meta.store, store, &boot_id, settings, |generation, host| {
                let directory_id = meta.directory_id;
                let config = BackendConfig {
                    keepers,
                    directory_id,
                    generation,
                    program,
                    machine,
                    cgroup,
                    previous_boot_id,
                };
                Ok(Arc::new(LocalBackend::new(config, host)?))
            })?;
        owner.directory_id = directory_id;
        Ok(owner)
    }

    /// [`open`](Self::open), with any store and the backend that is made for this generation.
    pub(crate) fn take_over(
        directory: DataDirectory,
        lock: Lock,
        store_kind: StoreKind,
        store: Arc<dyn JobStore>,
        boot_id: &str,
        settings: Config,
        backend: impl FnOnce(u64, Arc<dyn BackendHost>) -> Result<Arc<dyn ProcessBackend>, BackendError>,
    ) -> Result<Self, Error> {
        let generation = next_generation(&*store)?;
        reached(Failpoint::OwnerGeneration);
        let hub = Arc::new(Hub::new());
        let (inputs, receiver) = channel();
        let host = Host::new(Arc::clone(&store), inputs.clone());
        let backend = backend(generation, Arc::new(host)).map_err(cannot_take_over)?;
        let recorder = Arc::new(Recorder::start(Arc::clone(&store), directory.logs(), settings.logs.quota)?);
        let deletions = Arc::new(Deletions::new());
        let limits = settings.limits.clone();
        let config = watch::Sender::new(Arc::new(settings));
        let surroundings = Surroundings {
            store: Arc::clone(&store),
            backend: Arc::clone(&backend),
            hub: Arc::clone(&hub),
            recorder: Arc::clone(&recorder),
            deletions: Arc::clone(&deletions),
            inputs: inputs.clone(),
            own_logs: RawText::from(directory.logs().into_os_string().into_vec()),
            config: config.subscribe(),
        };
        let engine = Engine::with_capacity(generation, limits);
        let work = Work::take_over(engine, surroundings, put(BOOT, boot_id.to_owned()))?;
        let (running, stopped) = watch::channel(());
        let thread = std::thread::Builder::new()
            .name("nodejobs-owner".to_owned())
            .spawn(move || {
                work.run(&receiver);
                drop(running);
            })
            .map_err(|error| {
                Error::new(ProblemKind::Unavailable, "no thread can be started").with_source(error)
            })?;
        Ok(Self {
            directory,
            store,
            store_kind,
            hub,
            backend,
            recorder,
            deletions,
            started_at: now().wall,
            config,
            last_looks: LastLooks::default(),
            directory_id: String::new(),
            hooks_busy: watch::Sender::new(false),
            on_done_wanted: watch::Sender::new(0),
            on_done_busy: watch::Sender::new(false),
            inputs,
            stopped,
            thread: Mutex::new(Some(thread)),
            lock: Mutex::new(lock),
        })
    }

    /// Who holds the lock, for others to read.
    pub(crate) fn announce(&self) -> std::io::Result<()> {
        let holder = crate::directory::Holder { pid: std::process::id() };
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).write_holder(&holder)
    }

    /// Changes, with an error, when the owner's thread has ended.
    pub(crate) fn stopped(&self) -> watch::Receiver<()> {
        self.stopped.clone()
    }

    pub(crate) fn submit(&self, message: SubmitMessage) -> Result<(), Error> {
        self.send(Message::Submit(Box::new(message)))
    }

    pub(crate) fn ask(
        &self,
        id: JobId,
        request: Request,
        reply: oneshot::Sender<Answered>,
    ) -> Result<(), Error> {
        self.send(Message::Ask { id, request, reply })
    }

    /// Asks something of a schedule.
    pub(crate) async fn ask_schedule(&self, name: &str, change: ScheduleChange) -> Result<Answered, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Schedule { name: name.to_owned(), change, reply })?;
        answer.await.map_err(|_| stopped())
    }

    pub(crate) fn ask_group(
        &self,
        name: String,
        request: GroupRequest,
        reply: oneshot::Sender<Answered>,
    ) -> Result<(), Error> {
        self.send(Message::Group { name, request, reply })
    }

    pub(crate) fn look(&self, look: Look) -> Result<(), Error> {
        self.send(Message::Look(look))
    }

    /// Changes documents that are nothing to the jobs. Returns once they are on disk, or will be with the next commit that
    /// succeeds.
    pub(crate) async fn keep(&self, documents: Vec<DocumentChange>) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Keep { documents, reply })?;
        answer.await.map(drop).map_err(|_| stopped())
    }

    /// The wall clock was set.
    pub(crate) fn clock_set(&self) -> Result<(), Error> {
        self.send(Message::ClockSet)
    }

    /// From now on so much may run at a time.
    pub(crate) fn set_capacity(&self, capacity: Capacity) -> Result<(), Error> {
        self.send(Message::Capacity(capacity))
    }

    fn send(&self, message: Message) -> Result<(), Error> {
        self.inputs.send(message).map_err(|_| stopped())
    }
}

/// The configuration, which may be a link to anywhere.
fn read_settings(directory: &Path) -> Result<Config, Error> {
    let (path, directory) = (Config::path(directory), directory.to_owned());
    let read = files::wait("read", &path, files::PATIENCE, move || Config::load(&directory));
    let read = read.ok_or_else(|| files::no_answer("read", &path, files::PATIENCE))?;
    read.map_err(|error| Error::from(error.to_problem()))
}

fn cannot_take_over(error: BackendError) -> Error {
    Error::new(ProblemKind::Unavailable, "the jobs of this directory cannot be taken over").with_source(error)
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.inputs.send(Message::Quit);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
        // Where the file system hangs, what is not deleted by now stays.
        crate::files::finish(LAST_DELETIONS);
    }
}

/// How long an owner that leaves waits for files that are being deleted.
const LAST_DELETIONS: std::time::Duration = std::time::Duration::from_millis(300);

/// The key of the document with the generation of the last owner.
pub(crate) const GENERATION: &str = "generation";

/// The generation of the last owner that a store had, 0 if it had none.
pub(crate) fn stored_generation(store: &dyn JobStore) -> Result<u64, Error> {
    match store.document(DocumentKind::Meta, GENERATION)? {
        None => Ok(0),
        Some(body) => str::from_utf8(&body).ok().and_then(|text| text.parse::<u64>().ok()).ok_or_else(|| {
            let message = "the store is damaged at document meta 'generation'; restore it from a backup";
            Error::new(ProblemKind::Unavailable, message)
        }),
    }
}

fn next_generation(store: &dyn JobStore) -> Result<u64, Error> {
    let last = stored_generation(store)?;
    store.commit(&[Unit { job: None, documents: vec![put(GENERATION, (last + 1).to_string())] }])?;
    Ok(last + 1)
}

/// The key of the document with the boot in which the last owner settled everything that was of an earlier one.
const BOOT: &str = "boot";

/// `None` if no owner ever did.
fn stored_boot(store: &dyn JobStore) -> Result<Option<String>, Error> {
    let body = store.document(DocumentKind::Meta, BOOT)?;
    Ok(body.map(|body| String::from_utf8_lossy(&body).into_owned()))
}

fn put(key: &str, body: String) -> DocumentChange {
    DocumentChange::Put { kind: DocumentKind::Meta, key: key.to_owned(), body: body.into_bytes() }
}

/// The filter for jobs that have not ended.
pub(crate) fn live_filter() -> JobFilter {
    let live = Status::ALL.into_iter().filter(|status| !status.is_terminal());
    JobFilter { status: live.collect(), ..JobFilter::default() }
}

pub(crate) fn live_jobs(store: &dyn JobStore) -> Result<Vec<Job>, StoreError> {
    let mut jobs = Vec::new();
    let mut after = None;
    loop {
        let request = PageRequest { filter: live_filter(), order: Order::OldestFirst, after, limit: 1000 };
        let page = store.jobs(&request)?;
        jobs.extend(page.jobs);
        after = page.next;
        if after.is_none() {
            return Ok(jobs);
        }
    }
}

#[cfg(test)]
mod tests;
