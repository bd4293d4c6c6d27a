//! The owner of a data directory: one thread that decides and writes, and the reports that come to it.
//!
//! Each round of the thread takes everything that has arrived, lets the engine decide, commits what it decided with
//! one flush, and carries out what follows. While it flushes, the next round's inputs gather: that is the group commit.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nodejobs_core::backend::{
    BackendError, BackendHost, BackendReport, LaunchInput, LaunchSpec, ProcessBackend,
};
use nodejobs_core::engine::{
    Answer, Effect, Engine, Input, Removal, Restart, StopRequest, Submission, Ticket, Turn,
};
use nodejobs_core::filter::JobFilter;
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::{Definition, Input as JobInput, Job};
use nodejobs_core::logs::{LogLayout, LogPaths};
use nodejobs_core::spec::LaunchContext;
use nodejobs_core::store::{
    DocumentChange, DocumentKind, JobChange, JobEvent, JobStore, Order, PageRequest, StoreError, Unit,
    UnitOutcome,
};
use nodejobs_core::time::BootTime;
use nodejobs_core::{JobId, Status, Timestamp};
use nodejobs_proc::machine::{Machine, now};
use nodejobs_proc::{Config, KeeperProgram, LocalBackend};
use tokio::sync::{oneshot, watch};

use crate::api::{ProblemKind, RestartRequest};
use crate::directory::{DataDirectory, Lock};
use crate::error::Error;
use crate::hub::Hub;
use crate::stores::StoreKind;

/// One turn takes at most so many inputs, so that the first of them does not wait for a flood to end.
const TURN_INPUTS: usize = 1024;
/// How far back a repeated submit without an id looks for the job that it may have made, in milliseconds.
const RESEND_WINDOW_MS: i64 = 600_000;

/// A job that is asked for.
pub(crate) struct SubmitMessage {
    pub(crate) id: Option<JobId>,
    pub(crate) definition: Definition,
    /// The launch context as it is stored.
    pub(crate) context: Vec<u8>,
    /// What it reads, if that is kept with the job.
    pub(crate) input: Option<Vec<u8>>,
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
    },
    Remove,
    Pause,
    Resume,
}

impl From<RestartRequest> for Request {
    fn from(request: RestartRequest) -> Self {
        let RestartRequest { jobs: _, submit_key, signal, grace_ms, force } = request;
        Request::Restart { submit_key, how: StopRequest { signal, grace_ms, force } }
    }
}

enum Message {
    Submit(Box<SubmitMessage>),
    Ask { id: JobId, request: Request, reply: oneshot::Sender<Answered> },
    Report(BackendReport),
    ClockSet,
    Quit,
}

impl Message {
    /// The job whose stored state this is decided on.
    fn rests_on(&self) -> Option<&JobId> {
        match self {
            Message::Submit(submit) => submit.id.as_ref(),
            Message::Ask { id, request: Request::Restart { .. } | Request::Remove, .. } => Some(id),
            Message::Ask { .. } | Message::Report(_) | Message::ClockSet | Message::Quit => None,
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
    pub(crate) started_at: Timestamp,
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
        let (meta, age) = directory.meta(wanted_store, &machine)?;
        let store = meta.store.open(directory.path(), age)?;
        directory.keep_meta(&meta)?;
        let keepers = directory.keepers();
        Self::take_over(directory, lock, meta.store, store, |generation, host| {
            let config = Config { keepers, directory_id: meta.directory_id, generation, program, machine };
            Ok(Arc::new(LocalBackend::new(config, host)?))
        })
    }

    /// [`open`](Self::open), with any store and the backend that is made for this generation.
    pub(crate) fn take_over(
        directory: DataDirectory,
        lock: Lock,
        store_kind: StoreKind,
        store: Arc<dyn JobStore>,
        backend: impl FnOnce(u64, Arc<dyn BackendHost>) -> Result<Arc<dyn ProcessBackend>, BackendError>,
    ) -> Result<Self, Error> {
        let generation = next_generation(&*store)?;
        let hub = Arc::new(Hub::new());
        let (inputs, receiver) = channel();
        let host = Host {
            store: Arc::clone(&store),
            inputs: Mutex::new(inputs.clone()),
            last_context: Mutex::new(None),
        };
        let unusable = |error| {
            Error::new(ProblemKind::Unavailable, "the jobs of this directory cannot be taken over")
                .with_source(error)
        };
        let backend = backend(generation, Arc::new(host)).map_err(unusable)?;
        let mut work = Work {
            engine: Engine::new(generation),
            store: Arc::clone(&store),
            backend: Arc::clone(&backend),
            hub: Arc::clone(&hub),
            waiting: HashMap::new(),
            last_ticket: 0,
        };
        let known = work.engine.restore(live_jobs(&*store)?, now());
        let reports = backend.recover(&known).map_err(unusable)?;
        let mut turn = work.engine.begin_turn();
        for report in reports {
            work.engine.handle(Input::Report(report), now(), &mut turn);
        }
        work.engine.resume(now(), &mut turn);
        let outcomes = store.commit(&turn.units)?;
        work.settle(turn, Some(&outcomes)).map_err(|error| {
            Error::new(ProblemKind::Unavailable, "the store does not agree with itself").with_source(error)
        })?;
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
            started_at: now().wall,
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

    /// The wall clock was set.
    pub(crate) fn clock_set(&self) -> Result<(), Error> {
        self.send(Message::ClockSet)
    }

    fn send(&self, message: Message) -> Result<(), Error> {
        self.inputs.send(message).map_err(|_| stopped())
    }
}

/// The owner is leaving, or its thread has ended; the next owner starts from what is on disk.
pub(crate) fn stopped() -> Error {
    Error::new(ProblemKind::Unavailable, "the owner of this data directory is leaving; its jobs run on")
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.inputs.send(Message::Quit);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

fn next_generation(store: &dyn JobStore) -> Result<u64, Error> {
    const KEY: &str = "generation";
    let stored = store.document(DocumentKind::Meta, KEY)?;
    let last = stored.and_then(|body| String::from_utf8(body).ok()?.parse::<u64>().ok()).unwrap_or(0);
    let put = DocumentChange::Put {
        kind: DocumentKind::Meta,
        key: KEY.to_owned(),
        body: (last + 1).to_string().into_bytes(),
    };
    store.commit(&[Unit { job: None, documents: vec![put] }])?;
    Ok(last + 1)
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

/// What the backend asks of the owner.
struct Host {
    store: Arc<dyn JobStore>,
    inputs: Mutex<Sender<Message>>,
    /// Jobs of one batch or one shell share it.
    last_context: Mutex<Option<(String, LaunchContext)>>,
}

impl Host {
    fn context(&self, key: &str) -> Result<LaunchContext, String> {
        let mut last = self.last_context.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, context)) = last.as_ref().filter(|(known, _)| known == key) {
            return Ok(context.clone());
        }
        let body = self.store.document(DocumentKind::Context, key).map_err(|error| error.to_string())?;
        let body = body.ok_or_else(|| format!("its launch context {key} is not in the store"))?;
        let context: LaunchContext = serde_json::from_slice(&body)
            .map_err(|error| format!("its launch context {key} cannot be understood: {error}"))?;
        *last = Some((key.to_owned(), context.clone()));
        Ok(context)
    }
}

impl Host {
    fn input(&self, input: JobInput) -> Result<LaunchInput, String> {
        Ok(match input {
            JobInput::Null => LaunchInput::Null,
            JobInput::File(path) => LaunchInput::File(path),
            JobInput::Stored(key) => {
                let body =
                    self.store.document(DocumentKind::Input, &key).map_err(|error| error.to_string())?;
                LaunchInput::Bytes(body.ok_or_else(|| format!("its input {key} is not in the store"))?)
            }
        })
    }
}

impl BackendHost for Host {
    fn launch_spec(&self, attempt: &AttemptId) -> Result<LaunchSpec, String> {
        let job = self.store.job(&attempt.id).map_err(|error| error.to_string())?;
        let job = job.filter(|job| job.state.attempt == attempt.attempt);
        let job = job.ok_or_else(|| "it is not in the store".to_owned())?;
        let output = job.log_paths();
        let definition = job.definition;
        Ok(LaunchSpec {
            context: self.context(&definition.context_key)?,
            input: self.input(definition.input)?,
            output,
            command: definition.command,
            cwd: definition.cwd,
        })
    }

    fn report(&self, report: BackendReport) {
        // Without an owner the report stays with the keeper, and the next owner hears it.
        let _ = self.inputs.lock().unwrap_or_else(PoisonError::into_inner).send(Message::Report(report));
    }

    fn warn(&self, message: String) {
        log::warn!("{message}");
    }
}

/// What the owner's thread has.
struct Work {
    engine: Engine,
    store: Arc<dyn JobStore>,
    backend: Arc<dyn ProcessBackend>,
    hub: Arc<Hub>,
    waiting: HashMap<Ticket, oneshot::Sender<Answered>>,
    last_ticket: Ticket,
}

impl Work {
    fn run(mut self, inputs: &Receiver<Message>) {
        if let Err(error) = self.serve(inputs) {
            log::error!("the owner stops, and has to start over from what is on disk: {error}");
        }
        self.hub.leave();
    }

    fn serve(&mut self, inputs: &Receiver<Message>) -> Result<(), nodejobs_core::engine::Inconsistent> {
        loop {
            let mut next = match self.engine.next_deadline() {
                None => inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => inputs.recv_timeout(until(deadline)),
            };
            let mut turn = self.engine.begin_turn();
            let mut taken = 0;
            loop {
                match next {
                    Ok(Message::Quit) | Err(RecvTimeoutError::Disconnected) => return self.commit(turn),
                    Ok(message) => {
                        if message.rests_on().is_some_and(|id| turn.concerns(id)) {
                            // Decided against what is on disk, so what was just decided has to be there first.
                            self.commit(turn)?;
                            turn = self.engine.begin_turn();
                        }
                        self.handle(message, &mut turn);
                    }
                    Err(RecvTimeoutError::Timeout) => break,
                }
                taken += 1;
                if taken == TURN_INPUTS {
                    break;
                }
                next = inputs.try_recv().map_err(|_| RecvTimeoutError::Timeout);
            }
            if self.engine.next_deadline().is_some_and(|deadline| deadline <= now().boot) {
                self.engine.handle(Input::Tick, now(), &mut turn);
            }
            self.commit(turn)?;
        }
    }

    fn handle(&mut self, message: Message, turn: &mut Turn) {
        let input = match message {
            Message::Report(report) => Input::Report(report),
            Message::ClockSet => Input::ClockSet,
            Message::Ask { id, request, reply } => {
                let ticket = self.ticket(reply);
                match self.input_of(id, request, ticket) {
                    Ok(Some(input)) => input,
                    Ok(None) => return self.reply(ticket, Answer::NotLive, None),
                    Err(error) => return self.refuse(ticket, error),
                }
            }
            Message::Submit(submit) => {
                let SubmitMessage { id, definition, context, input, resend, reply } = *submit;
                let ticket = self.ticket(reply);
                let existing = match self.find_existing(id.as_ref(), &definition, resend) {
                    Ok(existing) => existing,
                    Err(error) => return self.refuse(ticket, error),
                };
                Input::Submit(Box::new(Submission { ticket, id, definition, context, input, existing }))
            }
            Message::Quit => return,
        };
        self.engine.handle(input, now(), turn);
    }

    /// The engine's input for a request, with what it needs to know of the store; `None` if there is no such job.
    fn input_of(&self, id: JobId, request: Request, ticket: Ticket) -> Result<Option<Input>, StoreError> {
        Ok(match request {
            Request::Stop(request) => Some(Input::Stop { ticket, id, request }),
            Request::Pause => Some(Input::Pause { ticket, id }),
            Request::Resume => Some(Input::Resume { ticket, id }),
            Request::Restart { submit_key, how } => self
                .store
                .job(&id)?
                .map(|job| Input::Restart(Box::new(Restart { ticket, job, submit_key, request: how }))),
            Request::Remove => {
                let attempts = self.store.attempts(&id)?;
                let (logs, inputs) = belongings(&attempts);
                let newest = attempts.into_iter().next_back();
                newest.map(|job| Input::Remove(Box::new(Removal { ticket, job, logs, inputs })))
            }
        })
    }

    fn reply(&mut self, ticket: Ticket, answer: Answer, job: Option<Box<Job>>) {
        if let Some(reply) = self.waiting.remove(&ticket) {
            let _ = reply.send(Answered { answer, job });
        }
    }

    /// Without what is stored nothing can be decided.
    fn refuse(&mut self, ticket: Ticket, error: StoreError) {
        log::error!("{}", Error::from(error).to_problem());
        self.reply(ticket, Answer::NotStored, None);
    }

    fn ticket(&mut self, reply: oneshot::Sender<Answered>) -> Ticket {
        self.last_ticket += 1;
        self.waiting.insert(self.last_ticket, reply);
        self.last_ticket
    }

    fn find_existing(
        &self,
        id: Option<&JobId>,
        definition: &Definition,
        resend: bool,
    ) -> Result<Option<Job>, StoreError> {
        match id {
            Some(id) => self.store.job(id),
            None if resend => self.find_by_submit_key(definition),
            None => Ok(None),
        }
    }

    /// The job that an earlier, unanswered submit has made. It can only be among the newest.
    fn find_by_submit_key(&self, definition: &Definition) -> Result<Option<Job>, StoreError> {
        let key = &definition.submit_key;
        let oldest = Timestamp::from_millis(definition.created_at.as_millis() - RESEND_WINDOW_MS);
        let mut after = None;
        loop {
            let filter = JobFilter::default();
            let page =
                self.store.jobs(&PageRequest { filter, order: Order::NewestFirst, after, limit: 200 })?;
            let too_old = page.jobs.last().is_some_and(|job| job.definition.created_at < oldest);
            let found = page.jobs.into_iter().find(|job| key.is_some() && job.definition.submit_key == *key);
            after = page.next;
            if found.is_some() || too_old || after.is_none() {
                return Ok(found);
            }
        }
    }

    fn commit(&mut self, turn: Turn) -> Result<(), nodejobs_core::engine::Inconsistent> {
        if turn.is_empty() {
            return Ok(());
        }
        if turn.units.is_empty() {
            return self.settle(turn, Some(&[]));
        }
        match self.store.commit(&turn.units) {
            Ok(outcomes) => self.settle(turn, Some(&outcomes)),
            Err(error) => {
                log::error!("{}", Error::from(error).to_problem());
                self.settle(turn, None)
            }
        }
    }

    fn settle(
        &mut self,
        turn: Turn,
        outcomes: Option<&[UnitOutcome]>,
    ) -> Result<(), nodejobs_core::engine::Inconsistent> {
        let events: Vec<JobEvent> = match outcomes {
            Some(outcomes) => turn.units.iter().zip(outcomes).filter_map(event_of).collect(),
            None => Vec::new(),
        };
        let mut accepted = accepted_jobs(&turn, outcomes);
        let effects = self.engine.settle(turn, outcomes, now())?;
        self.hub.set_live_jobs(self.engine.live_jobs());
        for effect in effects {
            match effect {
                Effect::Launch(attempt) => self.backend.launch(&attempt),
                Effect::EndTree { attempt, process, plan } => {
                    self.backend.end_tree(&attempt, process.as_ref(), plan);
                }
                Effect::Signal { attempt, process, signal } => {
                    self.backend.signal_tree(&attempt, &process, signal);
                }
                // Here and now, so that it is done before another job of that id can write to them.
                Effect::DeleteLogs { files, .. } => files.iter().for_each(delete_logs),
                Effect::Acknowledge(receipts) => self.backend.acknowledge(&receipts),
                Effect::Reply { ticket, answer } => {
                    let job = match &answer {
                        Answer::Accepted(attempt) => accepted.remove(attempt),
                        _ => None,
                    };
                    self.reply(ticket, answer, job);
                }
            }
        }
        for event in events {
            self.hub.publish(&event);
        }
        Ok(())
    }
}

/// What goes with a job that is forgotten: its log files, except for those that the user named, and its input.
fn belongings(attempts: &[Job]) -> (Vec<LogPaths>, Vec<String>) {
    let ours = attempts.iter().filter(|job| job.definition.logs.layout != LogLayout::File);
    let inputs = attempts.iter().filter_map(|job| match &job.definition.input {
        JobInput::Stored(key) => Some(key.clone()),
        JobInput::Null | JobInput::File(_) => None,
    });
    (ours.map(Job::log_paths).collect(), inputs.collect())
}

fn delete_logs(files: &LogPaths) {
    for file in [&files.stdout, &files.stderr] {
        if let Err(error) = std::fs::remove_file(OsStr::from_bytes(file.as_bytes()))
            && error.kind() != ErrorKind::NotFound
        {
            log::warn!("log file '{file}' of a removed job cannot be deleted: {error}");
        }
    }
}

/// The jobs that a turn has made, so that nobody has to ask the store for what was just written to it.
fn accepted_jobs(turn: &Turn, outcomes: Option<&[UnitOutcome]>) -> HashMap<AttemptId, Box<Job>> {
    let outcomes = outcomes.unwrap_or_default();
    let made = turn.units.iter().zip(outcomes).filter_map(|(unit, outcome)| {
        let (Some(change), UnitOutcome::Applied { seq, .. }) = (&unit.job, outcome) else { return None };
        let (JobChange::Insert { id, definition, state }
        | JobChange::NewAttempt { id, definition, state, .. }) = change
        else {
            return None;
        };
        let job = Job {
            seq: *seq,
            id: id.clone(),
            revision: change.revision_after().unwrap_or_default(),
            definition: (**definition).clone(),
            state: state.clone(),
        };
        Some((job.attempt_id(), Box::new(job)))
    });
    made.collect()
}

/// What an applied unit has said about its job.
fn event_of((unit, outcome): (&Unit, &UnitOutcome)) -> Option<JobEvent> {
    let (Some(change), UnitOutcome::Applied { event, .. }) = (&unit.job, outcome) else { return None };
    let (JobChange::Insert { id, state, .. }
    | JobChange::NewAttempt { id, state, .. }
    | JobChange::Update { id, state, .. }) = change
    else {
        return None;
    };
    Some(JobEvent {
        seq: *event,
        attempt: AttemptId { id: id.clone(), attempt: state.attempt },
        status: state.status,
        reason: state.reason,
        at: state.last_update,
    })
}

fn until(deadline: BootTime) -> Duration {
    // One more, so that the deadline has passed when the time is up.
    Duration::from_millis(deadline.millis_since(now().boot) + 1)
}
