//! The owner's thread: takes what has arrived, lets the engine decide, commits it, and carries out what follows.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use nodejobs_core::array::{self, split_element_id};
use nodejobs_core::backend::{BackendEvent, BackendReport, ProcessBackend};
use nodejobs_core::engine::{
    Answer, Edit, Effect, Engine, Inconsistent, Input, NewDependencies, Removal, Restart, Submission, Ticket,
    Turn,
};
use nodejobs_core::filter::JobFilter;
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::{Definition, Input as JobInput, Job};
use nodejobs_core::logs::{LogPaths, index_path};
use nodejobs_core::spec::Start;
use nodejobs_core::store::{
    DocumentChange, DocumentKind, JobChange, JobEvent, JobStore, Order, PageRequest, StoreError, Unit,
    UnitOutcome,
};
use nodejobs_core::time::BootTime;
use nodejobs_core::{JobId, RawText, Status, Timestamp};
use nodejobs_proc::failpoint::{Failpoint, reached};
use nodejobs_proc::machine::{give_memory_back, now};
use tokio::sync::{oneshot, watch};

use super::deletions::Deletions;
use super::{Answered, GroupRequest, Look, Message, Request, SubmitMessage, cannot_take_over, live_jobs};
use crate::api::ProblemKind;
use crate::config::Config;
use crate::dependencies::{awaited, ended, unique_submit};
use crate::error::Error;
use crate::hub::Hub;
use crate::recorder::Recorder;

/// One turn takes at most so many inputs, so that the first of them does not wait for a flood to end.
const TURN_INPUTS: usize = 1024;
/// How far back a repeated submit without an id looks for the job that it may have made, in milliseconds.
const RESEND_WINDOW_MS: i64 = 600_000;
/// At so many new attempts of a job the oldest ones are forgotten, if there are too many.
const FORGOTTEN_AT_ONCE: u32 = 16;
/// So many units are worth giving memory back, which takes about a millisecond.
const MUCH_WORK: usize = 1024;
/// With nothing to do for so long, the store does what commits put off, and after much work memory is given back.
const REST: Duration = Duration::from_millis(500);

/// What `explain` says a launch waits for that is held back until log files are deleted.
const WAITS_FOR_DELETION: &str = "deletion";

/// What the owner's thread works with.
pub(super) struct Surroundings {
    pub(super) store: Arc<dyn JobStore>,
    pub(super) backend: Arc<dyn ProcessBackend>,
    pub(super) hub: Arc<Hub>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) deletions: Arc<Deletions>,
    /// The way to this thread.
    pub(super) inputs: Sender<Message>,
    /// The directory of log files and indexes of ours.
    pub(super) own_logs: RawText,
    pub(super) config: watch::Receiver<Arc<Config>>,
}

/// What the owner's thread has.
pub(super) struct Work {
    engine: Engine,
    store: Arc<dyn JobStore>,
    backend: Arc<dyn ProcessBackend>,
    hub: Arc<Hub>,
    recorder: Arc<Recorder>,
    deletions: Arc<Deletions>,
    inputs: Sender<Message>,
    /// Launches that wait for the end of a deletion.
    held: Vec<AttemptId>,
    /// The directory of log files and indexes of ours.
    own_logs: RawText,
    waiting: HashMap<Ticket, oneshot::Sender<Answered>>,
    last_ticket: Ticket,
    config: watch::Receiver<Arc<Config>>,
    /// Units that were committed since memory was last given back.
    worked: usize,
    /// Jobs of whose attempts some are to be forgotten, with the number of the newest.
    long_histories: Vec<(JobId, u32)>,
}

impl Work {
    /// Hears from the backend what happened while there was no owner, and writes that down.
    pub(super) fn take_over(
        engine: Engine,
        surroundings: Surroundings,
        boot: DocumentChange,
    ) -> Result<Self, Error> {
        let Surroundings { store, backend, hub, recorder, deletions, inputs, own_logs, config } =
            surroundings;
        let mut work = Self {
            engine,
            store,
            backend,
            hub,
            recorder,
            deletions,
            inputs,
            held: Vec::new(),
            own_logs,
            waiting: HashMap::new(),
            last_ticket: 0,
            config,
            worked: 0,
            long_histories: Vec::new(),
        };
        work.engine.restore_groups(&all_groups(&*work.store)?).map_err(|(name, error)| {
            let message =
                format!("the store is damaged at document group '{name}'; restore it from a backup");
            Error::new(ProblemKind::Unavailable, message).with_source(error)
        })?;
        let live = live_jobs(&*work.store)?;
        let with_output = live.iter().filter(|job| job.definition.array.is_none());
        let attempts: Vec<_> = with_output.map(Job::attempt_id).collect();
        let arrays = array::contents(&*work.store, &live)?;
        let known = work.engine.restore(live, arrays, work.store.counters()?.last_event, now());
        let ended = ended(&*work.store, &work.engine, &work.engine.awaited_ended_jobs())?;
        work.engine.know_ended(ended);
        work.engine.restore_schedules(crate::schedules::stored(&*work.store)?, now());
        let mut reports = work.backend.recover(&known).map_err(cannot_take_over)?;
        reached(Failpoint::OwnerRecovered);
        // First what happened, then what was found not to have.
        reports.sort_by_key(|report| report.receipt.is_none());
        let mut turn = work.engine.begin_turn();
        for report in reports {
            work.engine.handle(Input::Report(report), now(), &mut turn);
        }
        work.engine.resume(now(), &mut turn);
        // With what settles all of an earlier boot: whoever finds this boot in the store reads nothing of another one.
        turn.units.push(Unit { job: None, documents: vec![boot] });
        let outcomes = work.store.commit(&turn.units)?;
        reached(Failpoint::OwnerTookOver);
        // Before anything is launched: what a damaged journal does not tell is answered up to here.
        work.backend.settled();
        work.settle(turn, Some(&outcomes)).map_err(|error| {
            Error::new(ProblemKind::Unavailable, "the store does not agree with itself").with_source(error)
        })?;
        attempts.into_iter().for_each(|attempt| work.recorder.found(attempt));
        Ok(work)
    }

    pub(super) fn run(mut self, inputs: &Receiver<Message>) {
        if let Err(error) = self.serve(inputs) {
            log::error!("the owner stops, and has to start over from what is on disk: {error}");
        }
        self.hub.leave();
    }

    fn serve(&mut self, inputs: &Receiver<Message>) -> Result<(), Inconsistent> {
        loop {
            let mut next = self.next_input(inputs);
            let mut turn = self.engine.begin_turn();
            let mut taken = 0;
            loop {
                match next {
                    Ok(Message::Quit) | Err(RecvTimeoutError::Disconnected) => return self.commit(turn),
                    Ok(message) => {
                        if message.rests_on(&turn, &self.engine) {
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
            self.shorten_histories()?;
        }
    }

    /// Waits for an input, or for the engine's next deadline. After some work it has the store rest, once, and after much it
    /// gives back what nobody uses.
    fn next_input(&mut self, inputs: &Receiver<Message>) -> Result<Message, RecvTimeoutError> {
        let left = self.engine.next_deadline().map(until);
        let much = self.worked >= MUCH_WORK;
        if (much || self.store.has_put_off()) && left.is_none_or(|left| left > REST) {
            match inputs.recv_timeout(REST) {
                Err(RecvTimeoutError::Timeout) => {}
                next => return next,
            }
            if let Err(error) = self.store.rest() {
                log::warn!("{}", Error::from(error).to_problem());
            }
            if much {
                self.worked = 0;
                give_memory_back();
            }
        }
        match self.engine.next_deadline() {
            None => inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => inputs.recv_timeout(until(deadline)),
        }
    }

    /// Has old attempts forgotten of jobs that have begun many.
    fn shorten_histories(&mut self) -> Result<(), Inconsistent> {
        for (id, newest) in std::mem::take(&mut self.long_histories) {
            let Some(keep) = self.config.borrow().history.keep_attempts else { continue };
            let through = newest.saturating_sub(keep);
            let old = match self.store.attempts(&id) {
                Ok(attempts) => attempts.into_iter().filter(|job| job.state.attempt <= through),
                Err(error) => {
                    log::error!("{}", Error::from(error).to_problem());
                    continue;
                }
            };
            let old: Vec<Job> = old.collect();
            if !old.is_empty() {
                let (logs, inputs) = belongings(&old, &self.own_logs);
                let mut turn = self.engine.begin_turn();
                self.engine.handle(Input::ForgetAttempts { id, through, logs, inputs }, now(), &mut turn);
                self.commit(turn)?;
            }
        }
        Ok(())
    }

    fn handle(&mut self, message: Message, turn: &mut Turn) {
        let input = match message {
            Message::Report(report) => Input::Report(report),
            Message::ClockSet => Input::ClockSet,
            Message::Capacity(capacity) => Input::Capacity(capacity),
            Message::Schedule { name, change, reply } => {
                Input::Schedule { ticket: self.ticket(reply), name, change }
            }
            Message::Group { name, request, reply } => {
                let ticket = self.ticket(reply);
                match request {
                    GroupRequest::Change(change) => Input::Group { ticket, name, change },
                    GroupRequest::Remove => Input::RemoveGroup { ticket, name },
                }
            }
            Message::Look(look) => return self.look(look),
            Message::Deleted => return self.launch_held(),
            Message::Keep { documents, reply } => {
                let ticket = self.ticket(reply);
                Input::Keep { ticket, documents }
            }
            Message::Ask { id, request, reply } => {
                let ticket = self.ticket(reply);
                match self.input_of(id, request, ticket) {
                    Ok(Some(input)) => input,
                    Ok(None) => return self.reply(ticket, Answer::NotLive, None),
                    Err(error) => return self.refuse(ticket, error),
                }
            }
            Message::Submit(submit) => {
                let SubmitMessage { id, mut definition, context, input, unique, array, resend, reply } =
                    *submit;
                let ticket = self.ticket(reply);
                match array.as_ref().zip(id.as_ref()).map(|(_, id)| self.has_elements(id)) {
                    None | Some(Ok(false)) => {}
                    Some(Ok(true)) => return self.reply(ticket, Answer::Conflict { status: None }, None),
                    Some(Err(error)) => return self.refuse(ticket, error),
                }
                if resend && definition.start.missed(definition.created_at).is_some() {
                    // It was still to come when it was first sent.
                    definition.start = Start::Now;
                }
                let known = self.find_existing(id.as_ref(), &definition, resend).and_then(|existing| {
                    let ended = ended(&*self.store, &self.engine, awaited(definition.after.as_ref()))?;
                    let unique = unique.map(|unique| unique_submit(&*self.store, &self.engine, unique));
                    Ok((existing, ended, unique.transpose()?))
                });
                let (existing, ended, unique) = match known {
                    Ok(known) => known,
                    Err(error) => return self.refuse(ticket, error),
                };
                let submission =
                    Submission { ticket, id, definition, context, input, existing, ended, unique, array };
                Input::Submit(Box::new(submission))
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
            Request::Signal { signal, scope } => Some(Input::Signal { ticket, id, signal, scope }),
            Request::Restart { submit_key, how: request, ended: _, failed: _ } => {
                self.store.job(&id)?.map(|job| {
                    Input::Restart(Box::new(Restart { ticket, job, submit_key, request, array: None }))
                })
            }
            Request::RestartArray { submit_key, how: request, revision, content } => {
                self.store.job(&id)?.map(|job| {
                    // Without it the engine says that the job is not as it was.
                    let array = (job.revision == revision).then(|| Box::new((*content).clone()));
                    Input::Restart(Box::new(Restart { ticket, job, submit_key, request, array }))
                })
            }
            Request::Depend { after } => {
                let ended = ended(&*self.store, &self.engine, awaited(after.as_ref()))?;
                let job = self.store.job(&id)?;
                job.map(|job| Input::Depend(Box::new(NewDependencies { ticket, job, after, ended })))
            }
            Request::Edit(edits) => {
                let job = self.store.job(&id)?;
                job.map(|job| Input::Edit(Box::new(Edit { ticket, job, edits: *edits })))
            }
            Request::Remove { revision } => {
                let attempts = self.store.attempts(&id)?;
                let (logs, inputs) = belongings(&attempts, &self.own_logs);
                let newest = attempts.into_iter().next_back();
                let newest = newest.filter(|job| revision.is_none_or(|revision| job.revision == revision));
                newest.map(|job| Input::Remove(Box::new(Removal { ticket, job, logs, inputs })))
            }
        })
    }

    /// Whoever has asked may have gone.
    fn look(&self, look: Look) {
        match look {
            Look::Groups(reply) => drop(reply.send(self.engine.groups())),
            Look::Explain(id, reply) => {
                let mut explanation = self.engine.explain(&id);
                if let Some(explanation) = &mut explanation
                    && self.held.iter().any(|held| held.id == id && held.attempt == explanation.attempt)
                {
                    explanation.waiting_on = Some(WAITS_FOR_DELETION.to_owned());
                }
                drop(reply.send(explanation));
            }
        }
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

    /// Whether jobs have ids that an array of this id would give.
    fn has_elements(&self, id: &JobId) -> Result<bool, StoreError> {
        let mut after = None;
        loop {
            let filter = JobFilter { id_prefix: Some(format!("{id}.")), ..JobFilter::default() };
            let page =
                self.store.jobs(&PageRequest { filter, order: Order::OldestFirst, after, limit: 200 })?;
            let is_element = |job: &Job| {
                split_element_id(job.id.as_str()).is_some_and(|(parent, _)| parent == id.as_str())
            };
            after = page.next;
            if page.jobs.iter().any(is_element) || after.is_none() {
                return Ok(page.jobs.iter().any(is_element));
            }
        }
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

    fn commit(&mut self, turn: Turn) -> Result<(), Inconsistent> {
        if turn.is_empty() {
            return Ok(());
        }
        if turn.units.is_empty() {
            return self.settle(turn, Some(&[]));
        }
        reached(Failpoint::OwnerDecided);
        match self.store.commit(&turn.units) {
            Ok(outcomes) => {
                reached(Failpoint::OwnerCommitted);
                if self.hub.set_store_trouble(None).is_some() {
                    log::info!("the store can be written again");
                }
                self.settle(turn, Some(&outcomes))
            }
            Err(error) => {
                if let Ok(counters) = self.store.counters() {
                    self.engine.check_last_event(counters.last_event)?;
                }
                // Tried again each second, but said once.
                let trouble = Error::from(error).to_problem().to_string();
                if self.hub.set_store_trouble(Some(trouble.clone())).as_ref() != Some(&trouble) {
                    log::error!("{trouble}; what has happened is written as soon as it can be");
                }
                self.settle(turn, None)
            }
        }
    }

    fn settle(&mut self, turn: Turn, outcomes: Option<&[UnitOutcome]>) -> Result<(), Inconsistent> {
        let events: Vec<JobEvent> = match outcomes {
            Some(outcomes) => turn.units.iter().zip(outcomes).filter_map(event_of).collect(),
            None => Vec::new(),
        };
        let mut accepted = accepted_jobs(&turn, outcomes);
        self.worked += turn.units.len();
        let effects = self.engine.settle(turn, outcomes, now())?;
        // A schedule that will be due needs an owner as well.
        self.hub.set_live_jobs(self.engine.live_jobs() + self.engine.active_schedules());
        self.hub.set_schedules(self.engine.schedules());
        for effect in effects {
            match effect {
                Effect::Launch(attempt) => self.launch(attempt),
                Effect::EndTree { attempt, process, plan } => {
                    if self.is_let_go(&attempt) {
                        continue;
                    }
                    self.backend.end_tree(&attempt, process.as_ref(), plan);
                }
                Effect::Signal { attempt, process, signal, scope } => {
                    self.backend.signal(&attempt, &process, signal, scope);
                }
                Effect::DeleteLogs { id, files } => {
                    self.deletions.begin(&id, &files, &self.own_logs, &self.inputs);
                }
                Effect::Acknowledge(receipts) => self.backend.acknowledge(&receipts),
                Effect::Reply { ticket, answer } => {
                    let job = match &answer {
                        Answer::Accepted(attempt) => accepted.remove(attempt),
                        _ => None,
                    };
                    self.reply(ticket, answer, job);
                }
            }
            reached(Failpoint::OwnerEffect);
        }
        let keep = self.config.borrow().history.keep_attempts.unwrap_or(u32::MAX);
        for event in events {
            let AttemptId { id, attempt } = &event.attempt;
            // Now and then, so that it costs a job that is restarted all the time next to nothing.
            let begins = matches!(event.status, Status::Queued | Status::Starting | Status::Restarting);
            if begins && *attempt > keep && attempt.is_multiple_of(FORGOTTEN_AT_ONCE) {
                self.long_histories.push((id.clone(), *attempt));
            }
            // Before anybody who waits for the end asks when something was written.
            self.recorder.heard(&event);
            self.hub.publish(&event);
        }
        Ok(())
    }
}

impl Work {
    /// Has an attempt launched, once log files of an earlier job of its id are gone that it would write to.
    fn launch(&mut self, attempt: AttemptId) {
        match self.deletions.are_in_the_way(&*self.store, &attempt) {
            Ok(false) => self.backend.launch(&attempt),
            Ok(true) => self.held.push(attempt),
            Err(error) => {
                log::error!("{}", Error::from(error).to_problem());
                self.backend.launch(&attempt);
            }
        }
    }

    fn launch_held(&mut self) {
        std::mem::take(&mut self.held).into_iter().for_each(|attempt| self.launch(attempt));
    }

    /// Whether an attempt that is to be ended was not given to the backend yet, and never will be.
    fn is_let_go(&mut self, attempt: &AttemptId) -> bool {
        let before = self.held.len();
        self.held.retain(|held| held != attempt);
        if self.held.len() == before {
            return false;
        }
        let (attempt, event) = (attempt.clone(), BackendEvent::NeverLaunched);
        // This thread hears it.
        let _ = self.inputs.send(Message::Report(BackendReport { attempt, event, receipt: None }));
        true
    }
}

/// The documents of all groups.
fn all_groups(store: &dyn JobStore) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let mut groups: Vec<(String, Vec<u8>)> = Vec::new();
    loop {
        let after = groups.last().map(|(name, _)| name.clone());
        let more = store.documents(DocumentKind::Group, "", after.as_deref(), 1_000)?;
        if more.is_empty() {
            return Ok(groups);
        }
        groups.extend(more);
    }
}

/// What goes with a job that is forgotten: its log files, except for those that the user named, with their indexes, and
/// its input.
fn belongings(attempts: &[Job], own_logs: &RawText) -> (Vec<LogPaths>, Vec<String>) {
    let ours = attempts.iter().filter(|job| !job.definition.logs.layout.is_shared()).map(Job::log_paths);
    let indexes = attempts.iter().map(|job| {
        let index = index_path(own_logs, &job.attempt_id());
        LogPaths { stdout: index.clone(), stderr: index }
    });
    // What an element reads is its array's.
    let own = attempts.iter().filter(|job| !job.definition.is_element());
    let inputs = own.filter_map(|job| match &job.definition.input {
        JobInput::Stored(key) => Some(key.clone()),
        JobInput::Null | JobInput::File(_) | JobInput::Pipe | JobInput::Terminal(_) => None,
    });
    (ours.chain(indexes).collect(), inputs.collect())
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
    | JobChange::Update { id, state, .. }
    | JobChange::Redefine { id, state, .. }) = change
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
