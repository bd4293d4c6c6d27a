//! The decisions of nodejobs: inputs in, changes and effects out.
//!
//! The engine acts on nothing. The owner feeds it inputs, commits the [`Turn`]'s units with one flush, asks
//! [`Engine::settle`] what follows from the commit, and carries that out. Only live jobs are held here; history is in
//! the store, and so is everything large.
//!
//! ```text
//! inputs ──► handle ──► Turn { units, effects } ──► commit ──► settle ──► effects that may happen now
//! ```

mod arrays;
mod dependencies;
mod edits;
mod explain;
mod groups;
mod live;
mod places;
mod queue;
mod reports;
mod requests;
mod schedules;
#[cfg(test)]
mod tests;
mod timers;
mod unique;

use std::collections::{HashMap, HashSet};

use crate::array;
use crate::backend::{BackendReport, EndPlan, KnownAttempt, Receipt, SignalScope};
use crate::group::GroupChange;
use crate::id::{AttemptId, IdGenerator, JobId};
use crate::job::{Definition, Job, Process};
use crate::logs::LogPaths;
use crate::signal::Signal;
use crate::status::Status;
use crate::store::{DocumentChange, DocumentKind, JobChange, Rejection, Unit, UnitOutcome};
use crate::time::{BootTime, Moment};

use dependencies::Dependencies;
use live::{Live, Tree};
use queue::Queue;
use schedules::Schedules;
use timers::Timers;
use unique::Keys;

pub use dependencies::{Ended, EndedJobs, NewDependencies};
pub use edits::{Edit, Edits};
pub use groups::Refusal;
pub use queue::{Capacity, WhenFull};
pub use schedules::{KnownSchedule, ScheduleChange};
pub use unique::UniqueSubmit;

/// Identifies who waits for an answer.
pub type Ticket = u64;

/// A job that is asked for, with what the store already knows of it.
#[derive(Debug)]
pub struct Submission {
    /// Who asks.
    pub ticket: Ticket,
    /// The id it shall have; one is made if absent.
    pub id: Option<JobId>,
    /// What it runs.
    pub definition: Definition,
    /// The launch context, to be stored under the definition's `context_key`.
    pub context: Vec<u8>,
    /// What it reads, if that is to be kept with the job.
    pub input: Option<Vec<u8>>,
    /// The stored job of that id or submit key, if there is one.
    pub existing: Option<Job>,
    /// How those jobs have ended that it waits for and that are not live.
    pub ended: EndedJobs,
    /// What makes it the only one of its kind, if that was asked for.
    pub unique: Option<UniqueSubmit>,
    /// What makes it an array, if its definition says that it is one.
    pub array: Option<Box<array::Content>>,
}

/// How a job is to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StopRequest {
    /// Instead of the job's own stop signal.
    pub signal: Option<Signal>,
    /// Instead of the job's own grace, in milliseconds.
    pub grace_ms: Option<u64>,
    /// Kill at once.
    pub force: bool,
}

/// A job that is to begin its next attempt.
#[derive(Debug)]
pub struct Restart {
    /// Who asks. The answer comes with the next attempt.
    pub ticket: Ticket,
    /// The job as it is stored.
    pub job: Job,
    /// Of the next attempt: one that has it already is the answer.
    pub submit_key: String,
    /// How a living attempt is stopped.
    pub request: StopRequest,
    /// Of an array that has ended: which of its elements are to run again.
    pub array: Option<Box<array::Content>>,
}

/// An ended job that is to be forgotten, with what goes with it.
#[derive(Debug)]
pub struct Removal {
    /// Who asks.
    pub ticket: Ticket,
    /// The job as it is stored.
    pub job: Job,
    /// The log files of all its attempts that are to be deleted with it.
    pub logs: Vec<LogPaths>,
    /// Keys of the documents that hold its input.
    pub inputs: Vec<String>,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// Somebody wants a job run.
    Submit(Box<Submission>),
    /// Somebody wants a job to end.
    Stop {
        /// Who asks.
        ticket: Ticket,
        /// Which job.
        id: JobId,
        /// How.
        request: StopRequest,
    },
    /// Somebody wants a job's next attempt, now: a living one is stopped first.
    Restart(Box<Restart>),
    /// Somebody wants a queued job to wait for others than before.
    Depend(Box<NewDependencies>),
    /// Somebody wants an ended job forgotten.
    Remove(Box<Removal>),
    /// Earlier attempts of a job are to be forgotten. Nobody waits for that, and what fails is tried at the next occasion.
    ForgetAttempts {
        /// Which job.
        id: JobId,
        /// All attempts up to this one, which is not the newest.
        through: u32,
        /// Their log files that are to be deleted with them.
        logs: Vec<LogPaths>,
        /// Keys of the documents that hold their input.
        inputs: Vec<String>,
    },
    /// The owner wants documents changed that are nothing to the jobs. With a commit that fails they wait for the next one.
    Keep {
        /// Who asks.
        ticket: Ticket,
        /// The changes.
        documents: Vec<DocumentChange>,
    },
    /// Somebody wants something of a schedule.
    Schedule {
        /// Who asks.
        ticket: Ticket,
        /// Which one.
        name: String,
        /// What.
        change: ScheduleChange,
    },
    /// Somebody wants a job halted.
    Pause {
        /// Who asks.
        ticket: Ticket,
        /// Which job.
        id: JobId,
    },
    /// Somebody wants a halted job to go on.
    Resume {
        /// Who asks.
        ticket: Ticket,
        /// Which job.
        id: JobId,
    },
    /// Somebody wants a signal sent to a job.
    Signal {
        /// Who asks.
        ticket: Ticket,
        /// Which job.
        id: JobId,
        /// Which signal.
        signal: Signal,
        /// To which of its processes.
        scope: SignalScope,
    },
    /// The backend found something out.
    Report(BackendReport),
    /// A deadline of [`Engine::next_deadline`] may have passed.
    Tick,
    /// The wall clock was set.
    ClockSet,
    /// From now on so much may run at a time. What runs already goes on.
    Capacity(Capacity),
    /// Somebody wants a group made, or changed. What runs already goes on.
    Group {
        /// Who asks.
        ticket: Ticket,
        /// Its name.
        name: String,
        /// What of it.
        change: GroupChange,
    },
    /// Somebody wants a group forgotten.
    RemoveGroup {
        /// Who asks.
        ticket: Ticket,
        /// Its name.
        name: String,
    },
    /// Somebody wants a queued job to be another one.
    Edit(Box<Edit>),
}

/// What somebody who asked is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The attempt is on disk.
    Accepted(AttemptId),
    /// The work is there already: this attempt, which is on disk.
    Existing(AttemptId),
    /// There is no such job to wait for.
    NoDependency(JobId),
    /// It would wait for itself, in the end: from the job on, each waits for the next.
    Cycle(Vec<JobId>),
    /// This job waits for it, and needs it to be run again.
    Needed {
        /// Who waits.
        by: JobId,
    },
    /// This attempt is being ended.
    Stopping(AttemptId),
    /// The job is halted, or goes on, or is sent the signal; or the documents are taken in.
    Done,
    /// The job is forgotten.
    Removed(JobId),
    /// No live job has that id; the store knows whether one ever had.
    NotLive,
    /// The job of that id is not in a status that allows it.
    Conflict {
        /// What it is doing, as far as it is known.
        status: Option<Status>,
    },
    /// The group is as it was asked for.
    GroupChanged,
    /// The queued job is as it was asked for.
    Edited(JobId),
    /// It makes no sense as things are set.
    Refused(Refusal),
    /// There is no room for another job, and it is not to be queued.
    Full {
        /// Why not, in words.
        why: String,
    },
    /// The schedule is as it was asked for.
    Scheduled,
    /// The commit failed; nothing of it was done.
    NotStored,
}

/// Something for the owner to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell the backend to start an attempt whose intent is on disk.
    Launch(AttemptId),
    /// Tell the backend to end an attempt's tree.
    EndTree {
        /// Which attempt.
        attempt: AttemptId,
        /// Its main process, if it got so far.
        process: Option<Process>,
        /// How.
        plan: EndPlan,
    },
    /// Tell the backend to send a signal to processes of an attempt.
    Signal {
        /// Which attempt.
        attempt: AttemptId,
        /// Its main process.
        process: Process,
        /// Which signal.
        signal: Signal,
        /// To which of its processes.
        scope: SignalScope,
    },
    /// Delete the log files of a job, or of attempts, that are forgotten.
    DeleteLogs {
        /// Which job.
        id: JobId,
        /// Its files.
        files: Vec<LogPaths>,
    },
    /// Tell the backend that these are on disk.
    Acknowledge(Vec<Receipt>),
    /// Answer somebody.
    Reply {
        /// Whom.
        ticket: Ticket,
        /// What.
        answer: Answer,
    },
}

impl Effect {
    /// The attempt that it launches, if it does.
    fn launched(&self) -> Option<&AttemptId> {
        match self {
            Effect::Launch(attempt) => Some(attempt),
            _ => None,
        }
    }

    /// Whether it tells somebody that this attempt was accepted.
    fn accepts(&self, wanted: Option<&AttemptId>) -> bool {
        matches!(self, Effect::Reply { answer: Answer::Accepted(attempt), .. } if Some(attempt) == wanted)
    }
}

/// What a batch of inputs leads to. Its units have to be committed, then it goes to [`Engine::settle`].
#[derive(Debug, Default)]
#[must_use = "a turn that is not committed and settled loses decisions"]
pub struct Turn {
    /// To be committed, in this order.
    pub units: Vec<Unit>,
    effects: Vec<Effect>,
    receipts: Vec<Receipt>,
}

impl Turn {
    /// Whether something about this job, or about an element of it, is decided but not yet in the store.
    pub fn concerns(&self, id: &JobId) -> bool {
        let is_element = |other: &JobId| {
            other.as_str().strip_prefix(id.as_str()).is_some_and(|rest| rest.starts_with('.'))
        };
        let mut ids = self.units.iter().filter_map(|unit| Some(unit.job.as_ref()?.id()));
        ids.any(|other| other == id || is_element(other))
    }

    /// What a job was changed to that the store does not have yet.
    fn redefined(&self, id: &JobId) -> Option<&Definition> {
        self.units.iter().rev().find_map(|unit| match unit.job.as_ref()? {
            JobChange::Redefine { id: other, definition, .. } if other == id => Some(&**definition),
            _ => None,
        })
    }

    /// Whether a group is changed that is not yet so in the store.
    pub fn concerns_groups(&self) -> bool {
        self.units.iter().any(|unit| groups::are_of_groups(&unit.documents))
    }

    /// Whether there is nothing to commit and nothing to do.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.effects.is_empty() && self.receipts.is_empty()
    }
}

/// The store is not as the engine has left it. The owner has to start over from the disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistent {
    /// It has refused a change that reality demands.
    #[error("job {id} was changed in the store by somebody else")]
    Refused {
        /// The job.
        id: JobId,
        /// How the store refused.
        #[source]
        rejection: Rejection,
    },
    /// It has counted events that are not known here.
    #[error(
        "the store has {found} events and should have {known}: a commit that failed was written after all, \
         or somebody else has written to it"
    )]
    Events {
        /// The last one that is known here.
        known: u64,
        /// The last one before those of this commit.
        found: u64,
    },
}

/// Decides what happens to live jobs.
#[derive(Debug)]
pub struct Engine {
    live: HashMap<JobId, Live>,
    timers: Timers,
    queue: Queue,
    dependencies: Dependencies,
    keys: Keys,
    schedules: Schedules,
    /// The last commit has failed.
    store_fails: bool,
    /// Nothing is started that has waited for a place, until all is known of those who have one.
    is_taking_over: bool,
    ids: IdGenerator,
    /// What could not be committed yet, with the effects that have to wait for it.
    unsaved: Turn,
    retry_at: Option<BootTime>,
    /// Number of the last event in the store.
    last_event: u64,
}

impl Engine {
    /// How long a launch that found no room, or a commit that failed, waits before it is tried again.
    const RETRY_MS: u64 = 1_000;
    /// So many live jobs there is room for without asking for more.
    const SPARE_ROOM: usize = 64;
    /// A turn with so many units starts nobody more; the next one does.
    const TURN_UNITS: usize = 1_024;

    /// An engine for the owner with this generation number, and no bound on what runs.
    pub fn new(generation: u64) -> Self {
        Self::with_capacity(generation, Capacity::default())
    }

    /// An engine for the owner with this generation number.
    pub fn with_capacity(generation: u64, capacity: Capacity) -> Self {
        Self {
            live: HashMap::new(),
            timers: Timers::default(),
            queue: Queue::new(capacity),
            dependencies: Dependencies::default(),
            keys: Keys::default(),
            schedules: Schedules::default(),
            store_fails: false,
            is_taking_over: false,
            ids: IdGenerator::new(generation),
            unsaved: Turn::default(),
            retry_at: None,
            last_event: 0,
        }
    }

    /// How many jobs are live.
    pub fn live_jobs(&self) -> usize {
        self.live.len()
    }

    /// Takes in the live jobs that an earlier owner left, with what is stored of those that are arrays and the number of
    /// the last event in the store, and says what has to be asked of the backend.
    pub fn restore(
        &mut self,
        jobs: Vec<Job>,
        mut arrays: HashMap<JobId, array::Content>,
        last_event: u64,
        now: Moment,
    ) -> Vec<KnownAttempt> {
        self.last_event = last_event;
        self.is_taking_over = true;
        let mut known = Vec::new();
        let mut jobs = jobs;
        places::in_order_of_age(&mut jobs);
        for job in jobs {
            let is_array = job.definition.array.is_some();
            if !is_array && !matches!(job.state.status, Status::Queued | Status::Restarting) {
                known.push(KnownAttempt {
                    attempt: job.attempt_id(),
                    status: job.state.status,
                    process: job.state.process.clone(),
                    ended: job.state.ended.is_some(),
                    launch_asked: job.state.launch_asked,
                    memory_limit: job.definition.policy.memory_limit(),
                });
            }
            let id = job.id.clone();
            self.schedules.began(&id, &job.definition);
            let after = job.definition.after.clone();
            let content = arrays.remove(&id);
            let array = content.and_then(|content| arrays::running(&id, &job.definition, content).ok());
            let mut live = Live { array, ..Live::restored(job) };
            self.restore_dependencies(&id, &mut live, after.as_ref());
            self.keys.join(&id, &live);
            self.timers.set_for(&id, &mut live, now);
            self.place(&id, &mut live);
            self.live.insert(id, live);
        }
        self.count_elements();
        known
    }

    /// Goes on with what an earlier owner had begun, after the backend's answers were handled.
    pub fn resume(&mut self, now: Moment, turn: &mut Turn) {
        for (id, live) in self.live.iter_mut().filter(|(_, live)| live.array.is_none()) {
            let interrupted = match live.state.status {
                Status::Stopping | Status::FailedStop => true,
                // Its main process has ended, or is lost, or it is being ended because of a limit.
                Status::Starting | Status::Running | Status::Paused => {
                    live.state.ended.is_some() || live.state.reason.is_some()
                }
                _ => false,
            };
            if interrupted {
                if live.tree == Tree::Whole {
                    turn.effects.push(live.end_tree(id, StopRequest::default(), now));
                }
            } else if let (Status::Paused, Some(process)) = (live.state.status, live.state.process.clone()) {
                // Whoever has written it down may not have come to halting it.
                let (attempt, signal, scope) = (live.attempt_id(id), Signal::STOP, SignalScope::Tree);
                turn.effects.push(Effect::Signal { attempt, process, signal, scope });
            }
        }
        self.resume_arrays(now, turn);
        self.is_taking_over = false;
        self.resume_schedules(now, turn);
        self.tell_dependents(now, turn);
        self.fill_places(now, turn);
    }

    /// Begins a turn, with whatever an earlier one could not commit.
    pub fn begin_turn(&mut self) -> Turn {
        std::mem::take(&mut self.unsaved)
    }

    /// Decides on one input.
    pub fn handle(&mut self, input: Input, now: Moment, turn: &mut Turn) {
        match input {
            Input::Submit(submission) => self.submit(*submission, now, turn),
            Input::Stop { ticket, id, request } => self.stop(ticket, &id, request, now, turn),
            Input::Restart(restart) => self.restart(*restart, now, turn),
            Input::Depend(wanted) => self.depend(*wanted, now, turn),
            Input::Remove(removal) => self.remove(*removal, turn),
            Input::ForgetAttempts { id, through, logs, inputs } => {
                let change = JobChange::ForgetAttempts { id: id.clone(), through };
                turn.units.push(Unit {
                    job: Some(change),
                    documents: inputs.into_iter().map(remove_input).collect(),
                });
                turn.effects.push(Effect::DeleteLogs { id, files: logs });
            }
            Input::Keep { ticket, documents } => {
                turn.units.push(Unit { job: None, documents });
                turn.effects.push(Effect::Reply { ticket, answer: Answer::Done });
            }
            Input::Schedule { ticket, name, change } => {
                self.change_schedule(ticket, &name, change, now, turn);
            }
            Input::Pause { ticket, id } => self.halt(ticket, &id, Status::Paused, now, turn),
            Input::Signal { ticket, id, signal, scope } => self.signal(ticket, &id, signal, scope, turn),
            Input::Resume { ticket, id } => self.halt(ticket, &id, Status::Running, now, turn),
            Input::Report(report) => self.report(report, now, turn),
            Input::Tick => self.tick(now, turn),
            Input::ClockSet => {
                self.timers.clock_set(&mut self.live, now);
                self.schedules.clock_set(now);
            }
            Input::Capacity(capacity) => self.queue.set_capacity(capacity),
            Input::Group { ticket, name, change } => self.change_group(ticket, &name, change, turn),
            Input::RemoveGroup { ticket, name } => self.remove_group(ticket, &name, turn),
            Input::Edit(edit) => self.edit(*edit, now, turn),
        }
        if !self.is_taking_over {
            self.tell_dependents(now, turn);
            self.fill_places(now, turn);
        }
    }

    /// When [`Input::Tick`] is next wanted.
    pub fn next_deadline(&self) -> Option<BootTime> {
        // What could not be stored has left a place, or a group has changed.
        let place = self.queue.is_unsettled().then(BootTime::default);
        let news = self.dependencies.has_news().then(BootTime::default);
        let is_held = self.store_fails && !self.unsaved.units.is_empty();
        let schedule = self.schedules.first().filter(|_| !is_held);
        [self.timers.first(), self.retry_at, place, news, schedule].into_iter().flatten().min()
    }

    /// What follows from the commit of a turn: the outcomes of its units, or `None` if it failed.
    ///
    /// A failed commit refuses what was newly asked for. What has already happened in the world stays decided and is
    /// committed again later; signals go out all the same, so a job that fills the disk can be stopped.
    ///
    /// # Errors
    /// [`Inconsistent`] when the store is not as it was left. The owner has to start over from the disk.
    pub fn settle(
        &mut self,
        turn: Turn,
        outcomes: Option<&[UnitOutcome]>,
        now: Moment,
    ) -> Result<Vec<Effect>, Inconsistent> {
        self.store_fails = outcomes.is_none();
        match outcomes {
            Some(outcomes) => {
                self.retry_at = None;
                if self.live.is_empty() {
                    // Room for as many as there once were is none of an idle owner's business.
                    self.live.shrink_to(Self::SPARE_ROOM);
                }
                self.settle_committed(turn, outcomes)
            }
            None => {
                self.retry_at = Some(now.boot.plus_millis(Self::RETRY_MS));
                Ok(self.settle_failed(turn))
            }
        }
    }

    fn settle_committed(
        &mut self,
        turn: Turn,
        outcomes: &[UnitOutcome],
    ) -> Result<Vec<Effect>, Inconsistent> {
        let mut refused = Refused::default();
        for (unit, outcome) in turn.units.iter().zip(outcomes) {
            match (outcome, &unit.job) {
                (UnitOutcome::Applied { event, .. }, _) if *event > 0 => {
                    self.check_last_event(event - 1)?;
                    self.last_event = *event;
                }
                (UnitOutcome::Applied { .. }, None) => self.groups_are_stored(&unit.documents),
                (UnitOutcome::Rejected(Rejection::Exists), Some(change)) if change.is_occurrence() => {
                    let attempt = change.attempt();
                    // Who has asked for one by hand is answered.
                    if !turn.effects.iter().any(|effect| effect.accepts(attempt.as_ref())) {
                        self.schedules.take_back(change);
                    }
                    refused.attempts.extend(attempt);
                }
                (UnitOutcome::Rejected(rejection), Some(change)) if !refused.takes(change) => {
                    return Err(Inconsistent::Refused { id: change.id().clone(), rejection: *rejection });
                }
                _ => {}
            }
        }
        let effects = self.without(&refused, turn.effects, &Answer::Conflict { status: None });
        if turn.receipts.is_empty() {
            return Ok(effects);
        }
        let acknowledge = Effect::Acknowledge(newest_of_each_source(turn.receipts));
        // Before launches, so that what is launched now meets no report of an earlier boot, whose times say nothing. After
        // the ends of what was there before: a keeper may leave with the acknowledgement, and what a job has left behind
        // is a child of it until then.
        let launches: HashSet<AttemptId> = effects.iter().filter_map(Effect::launched).cloned().collect();
        let ends_what_was_there = |effect: &Effect| match effect {
            Effect::EndTree { attempt, .. } => !launches.contains(attempt),
            _ => false,
        };
        let (ends, others): (Vec<_>, Vec<_>) = effects.into_iter().partition(ends_what_was_there);
        Ok(ends.into_iter().chain([acknowledge]).chain(others).collect())
    }

    /// Compares the number of the last event in the store with what was committed. A commit that reported failure is found
    /// out so if it was written after all.
    ///
    /// # Errors
    /// [`Inconsistent::Events`] if they differ. The owner has to start over from the disk.
    pub fn check_last_event(&self, found: u64) -> Result<(), Inconsistent> {
        let known = self.last_event;
        if found == known { Ok(()) } else { Err(Inconsistent::Events { known, found }) }
    }

    fn settle_failed(&mut self, turn: Turn) -> Vec<Effect> {
        let mut refused = Refused::default();
        for unit in turn.units {
            if unit.job.is_none() && groups::are_of_groups(&unit.documents) {
                continue;
            }
            if !unit.job.as_ref().is_some_and(|change| refused.takes(change)) {
                self.unsaved.units.push(unit);
            }
        }
        self.unsaved.receipts = turn.receipts;
        let effects = self.without(&refused, turn.effects, &Answer::NotStored);
        let effects = self.without_accepted(effects);
        let launches: HashSet<AttemptId> = effects.iter().filter_map(Effect::launched).cloned().collect();
        // An end does not overtake its launch: the backend would know of nothing to end, and then launch it.
        let (wait, go): (Vec<_>, Vec<_>) = effects.into_iter().partition(|effect| match effect {
            Effect::Launch(_) => true,
            Effect::EndTree { attempt, .. } => launches.contains(attempt),
            _ => false,
        });
        self.unsaved.effects = wait;
        go
    }

    /// Nobody is told that something is on disk which could not be written yet: an attempt that a policy begins, a schedule,
    /// or a job that is another one. Nor that a group has changed, which has not.
    fn without_accepted(&self, mut effects: Vec<Effect>) -> Vec<Effect> {
        let changes = self.unsaved.units.iter().filter_map(|unit| unit.job.as_ref());
        let begun: HashSet<AttemptId> =
            changes.filter(|change| change.is_asked_for()).filter_map(JobChange::attempt).collect();
        for effect in &mut effects {
            let Effect::Reply { answer, .. } = effect else { continue };
            let is_untrue = match answer {
                Answer::Accepted(attempt) | Answer::Existing(attempt) => begun.contains(attempt),
                // A schedule is, and will be stored with the next commit that succeeds.
                Answer::GroupChanged | Answer::Edited(_) | Answer::Scheduled => true,
                _ => false,
            };
            if is_untrue {
                *answer = Answer::NotStored;
            }
        }
        effects
    }

    /// Forgets what was refused, and turns what was to be done for it into an answer.
    fn without(&mut self, refused: &Refused, effects: Vec<Effect>, answer: &Answer) -> Vec<Effect> {
        for attempt in &refused.attempts {
            if self.live.get(&attempt.id).is_some_and(|live| live.state.attempt == attempt.attempt)
                && let Some(mut live) = self.live.remove(&attempt.id)
            {
                self.timers.clear(&attempt.id, &mut live);
                live.leave_place(&mut self.queue);
                self.dependencies.leave(&attempt.id, &mut live);
                self.keys.leave(&attempt.id, &live);
                self.has_not_begun(&attempt.id, live.before);
                self.schedules.forget(&attempt.id);
            }
        }
        let changed = effects.into_iter().filter_map(|effect| match effect {
            Effect::Launch(attempt) | Effect::EndTree { attempt, .. } | Effect::Signal { attempt, .. }
                if refused.attempts.contains(&attempt) =>
            {
                None
            }
            Effect::DeleteLogs { id, .. } if refused.removals.contains(&id) => None,
            Effect::Reply { ticket, answer: Answer::Accepted(attempt) | Answer::Existing(attempt) }
                if refused.attempts.contains(&attempt) =>
            {
                Some(Effect::Reply { ticket, answer: answer.clone() })
            }
            Effect::Reply { ticket, answer: Answer::Removed(id) } if refused.removals.contains(&id) => {
                Some(Effect::Reply { ticket, answer: answer.clone() })
            }
            other => Some(other),
        });
        changed.collect()
    }
}

/// What was asked for and is not done, because it could not be written.
#[derive(Default)]
struct Refused {
    attempts: HashSet<AttemptId>,
    removals: HashSet<JobId>,
}

impl Refused {
    fn has_array_of(&self, change: &JobChange) -> bool {
        change.array().is_some_and(|array| self.attempts.iter().any(|attempt| attempt.id == *array))
    }

    /// Whether the change is one that was only asked for, or rests on one: then it falls, instead of being written
    /// later.
    fn takes(&mut self, change: &JobChange) -> bool {
        match change.attempt() {
            None => {
                self.removals.insert(change.id().clone());
                true
            }
            // What a policy, an array or a schedule begins was not asked for: it has happened, like an end.
            Some(attempt) if change.begins_attempt() && !change.is_own_decision() => {
                self.attempts.insert(attempt);
                true
            }
            // What an array has begun that was only asked for itself.
            Some(attempt) if change.begins_attempt() && self.has_array_of(change) => {
                self.attempts.insert(attempt);
                true
            }
            Some(attempt) => self.attempts.contains(&attempt),
        }
    }
}

fn remove_input(key: String) -> DocumentChange {
    DocumentChange::Remove { kind: DocumentKind::Input, key }
}

fn newest_of_each_source(mut receipts: Vec<Receipt>) -> Vec<Receipt> {
    receipts.sort();
    receipts.reverse();
    receipts.dedup_by(|older, newer| older.source == newer.source);
    receipts
}
