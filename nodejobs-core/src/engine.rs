//! The decisions of nodejobs: inputs in, changes and effects out.
//!
//! The engine acts on nothing. The owner feeds it inputs, commits the [`Turn`]'s units with one flush, asks
//! [`Engine::settle`] what follows from the commit, and carries that out. Only live jobs are held here; history is in
//! the store, and so is everything large.
//!
//! ```text
//! inputs ──► handle ──► Turn { units, effects } ──► commit ──► settle ──► effects that may happen now
//! ```

mod live;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::backend::{BackendEvent, BackendReport, EndPlan, KnownAttempt, Receipt, StartFailureKind};
use crate::id::{AttemptId, IdGenerator, JobId};
use crate::job::{Definition, Job, JobState, Process, WaitingOn};
use crate::signal::Signal;
use crate::status::{Reason, Status};
use crate::store::{DocumentChange, JobChange, Rejection, Unit, UnitOutcome};
use crate::time::{BootTime, Moment};

use live::{Live, Tree};

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
    /// The stored job of that id or submit key, if there is one.
    pub existing: Option<Job>,
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
    /// The backend found something out.
    Report(BackendReport),
    /// A deadline of [`Engine::next_deadline`] may have passed.
    Tick,
}

/// What somebody who asked is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The attempt is on disk.
    Accepted(AttemptId),
    /// The job is being ended.
    Stopping,
    /// No live job has that id; the store knows whether one ever had.
    NotLive,
    /// The id is in use.
    Conflict {
        /// What the live job of that id is doing, as far as it is known.
        status: Option<Status>,
    },
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
    /// Whether something about this job is decided but not yet in the store.
    pub fn concerns(&self, id: &JobId) -> bool {
        self.units.iter().filter_map(|unit| unit.job.as_ref()).any(|change| change.id() == id)
    }

    /// Whether there is nothing to commit and nothing to do.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.effects.is_empty() && self.receipts.is_empty()
    }
}

/// A change that reality demands was refused by the store: somebody else has written to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("job {id} was changed in the store by somebody else")]
pub struct Inconsistent {
    /// The job.
    pub id: JobId,
    /// How the store refused.
    #[source]
    pub rejection: Rejection,
}

/// Decides what happens to live jobs.
#[derive(Debug)]
pub struct Engine {
    live: HashMap<JobId, Live>,
    timers: BTreeSet<(BootTime, JobId)>,
    ids: IdGenerator,
    /// What could not be committed yet, with the effects that have to wait for it.
    unsaved: Turn,
    retry_at: Option<BootTime>,
}

impl Engine {
    /// How long a launch that found no room, or a commit that failed, waits before it is tried again.
    const RETRY_MS: u64 = 1_000;

    /// An engine for the owner with this generation number.
    pub fn new(generation: u64) -> Self {
        Self {
            live: HashMap::new(),
            timers: BTreeSet::new(),
            ids: IdGenerator::new(generation),
            unsaved: Turn::default(),
            retry_at: None,
        }
    }

    /// How many jobs are live.
    pub fn live_jobs(&self) -> usize {
        self.live.len()
    }

    /// The live jobs' ids.
    pub fn live_ids(&self) -> Vec<JobId> {
        self.live.keys().cloned().collect()
    }

    /// Takes in the live jobs that an earlier owner left, and says what has to be asked of the backend.
    pub fn restore(&mut self, jobs: Vec<Job>, now: Moment) -> Vec<KnownAttempt> {
        let mut known = Vec::new();
        for job in jobs {
            if job.state.status == Status::Queued {
                self.timers.insert((now.boot, job.id.clone()));
            } else {
                known.push(KnownAttempt {
                    attempt: job.attempt_id(),
                    status: job.state.status,
                    process: job.state.process.clone(),
                    ended: job.state.ended.is_some(),
                });
            }
            self.live.insert(job.id.clone(), Live::restored(job));
        }
        known
    }

    /// Goes on with what an earlier owner had begun, after the backend's answers were handled.
    pub fn resume(&mut self, now: Moment, turn: &mut Turn) {
        for (id, live) in &mut self.live {
            let interrupted = match live.state.status {
                Status::Stopping | Status::FailedStop => true,
                Status::Running | Status::Paused => live.state.ended.is_some(),
                _ => false,
            };
            if interrupted && live.tree == Tree::Whole {
                turn.effects.push(live.end_tree(id, StopRequest::default(), now));
            }
        }
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
            Input::Report(report) => self.report(report, now, turn),
            Input::Tick => self.tick(now, turn),
        }
    }

    /// When [`Input::Tick`] is next wanted.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.retry_at].into_iter().flatten().min()
    }

    /// What follows from the commit of a turn: the outcomes of its units, or `None` if it failed.
    ///
    /// A failed commit refuses what was newly asked for. What has already happened in the world stays decided and is
    /// committed again later; signals go out all the same, so a job that fills the disk can be stopped.
    ///
    /// # Errors
    /// [`Inconsistent`] when somebody else has written to the store. The owner has to start over from the disk.
    pub fn settle(
        &mut self,
        turn: Turn,
        outcomes: Option<&[UnitOutcome]>,
        now: Moment,
    ) -> Result<Vec<Effect>, Inconsistent> {
        match outcomes {
            Some(outcomes) => {
                self.retry_at = None;
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
        let mut refused = HashSet::new();
        for (unit, outcome) in turn.units.iter().zip(outcomes) {
            let (UnitOutcome::Rejected(rejection), Some(change)) = (outcome, &unit.job) else { continue };
            match (change.attempt(), rejection) {
                (Some(attempt), _) if change.begins_attempt() => {
                    refused.insert(attempt);
                }
                // Whatever else was decided on a refused attempt falls with it.
                (Some(attempt), _) if refused.contains(&attempt) => {}
                // A commit that reported failure had been written after all.
                (_, Rejection::Stale { found }) if change.revision_after() == Some(*found) => {}
                _ => return Err(Inconsistent { id: change.id().clone(), rejection: *rejection }),
            }
        }
        let mut effects = self.without(&refused, turn.effects, &Answer::Conflict { status: None });
        if !turn.receipts.is_empty() {
            effects.push(Effect::Acknowledge(newest_of_each_source(turn.receipts)));
        }
        Ok(effects)
    }

    fn settle_failed(&mut self, turn: Turn) -> Vec<Effect> {
        let mut refused = HashSet::new();
        for unit in turn.units {
            match unit.job.as_ref().and_then(JobChange::attempt) {
                Some(attempt) if unit.job.as_ref().is_some_and(JobChange::begins_attempt) => {
                    refused.insert(attempt);
                }
                Some(attempt) if refused.contains(&attempt) => {}
                _ => self.unsaved.units.push(unit),
            }
        }
        self.unsaved.receipts = turn.receipts;
        let effects = self.without(&refused, turn.effects, &Answer::NotStored);
        let (wait, go): (Vec<_>, Vec<_>) =
            effects.into_iter().partition(|effect| matches!(effect, Effect::Launch(_)));
        self.unsaved.effects = wait;
        go
    }

    /// Forgets refused attempts, and turns what was to be done for them into an answer.
    fn without(
        &mut self,
        refused: &HashSet<AttemptId>,
        effects: Vec<Effect>,
        answer: &Answer,
    ) -> Vec<Effect> {
        for attempt in refused {
            if self.live.get(&attempt.id).is_some_and(|live| live.state.attempt == attempt.attempt) {
                self.live.remove(&attempt.id);
                self.timers.retain(|(_, timed)| *timed != attempt.id);
            }
        }
        let changed = effects.into_iter().filter_map(|effect| match effect {
            Effect::Launch(attempt) | Effect::EndTree { attempt, .. } if refused.contains(&attempt) => None,
            Effect::Reply { ticket, answer: Answer::Accepted(attempt) } if refused.contains(&attempt) => {
                Some(Effect::Reply { ticket, answer: answer.clone() })
            }
            other => Some(other),
        });
        changed.collect()
    }

    fn submit(&mut self, submission: Submission, now: Moment, turn: &mut Turn) {
        let Submission { ticket, id, definition, context, existing } = submission;
        let mut reply = |answer| turn.effects.push(Effect::Reply { ticket, answer });
        let id = id.or_else(|| existing.as_ref().map(|job| job.id.clone()));
        let same_submit = |key: &Option<String>| key.is_some() && *key == definition.submit_key;
        if let Some((id, live)) = id.as_ref().and_then(|id| self.live.get_key_value(id)) {
            let attempt = AttemptId { id: id.clone(), attempt: live.state.attempt };
            let repeated = same_submit(&live.submit_key);
            return reply(if repeated {
                Answer::Accepted(attempt)
            } else {
                Answer::Conflict { status: Some(live.state.status) }
            });
        }
        if let Some(job) = existing.as_ref().filter(|job| same_submit(&job.definition.submit_key)) {
            return reply(Answer::Accepted(job.attempt_id()));
        }
        let id = id.unwrap_or_else(|| self.ids.next_id(now.wall));
        let number = existing.as_ref().map_or(1, |job| job.state.attempt + 1);
        let attempt = AttemptId { id: id.clone(), attempt: number };
        reply(Answer::Accepted(attempt.clone()));
        let state = JobState::new(number, Status::Starting, now.wall);
        let documents = vec![DocumentChange::PutIfAbsent {
            kind: crate::store::DocumentKind::Context,
            key: definition.context_key.clone(),
            body: context,
        }];
        let mut live = Live::new(&definition, state.clone());
        let definition = Box::new(definition);
        let change = match existing {
            None => JobChange::Insert { id: id.clone(), definition, state },
            Some(job) => JobChange::NewAttempt { id: id.clone(), expected: job.revision, definition, state },
        };
        live.revision = change.revision_after().unwrap_or_default();
        self.live.insert(id, live);
        turn.units.push(Unit { job: Some(change), documents });
        turn.effects.push(Effect::Launch(attempt));
    }

    fn stop(&mut self, ticket: Ticket, id: &JobId, request: StopRequest, now: Moment, turn: &mut Turn) {
        let mut reply = |answer| turn.effects.push(Effect::Reply { ticket, answer });
        let Some(live) = self.live.get_mut(id) else { return reply(Answer::NotLive) };
        reply(Answer::Stopping);
        match live.state.status {
            Status::Queued => {
                let reason = Some(Reason::User);
                self.end(id, Status::Cancelled, reason, None, now, turn);
            }
            Status::Starting | Status::Running | Status::Paused => {
                turn.effects.push(live.end_tree(id, request, now));
                live.stop_requested = Some(request);
                turn.units.push(live.update(id, Status::Stopping, now));
            }
            Status::Stopping | Status::FailedStop => turn.effects.push(live.end_tree(id, request, now)),
            Status::Restarting => self.end(id, Status::Stopped, None, None, now, turn),
            Status::Finished
            | Status::Failed
            | Status::FailedStart
            | Status::Stopped
            | Status::Cancelled
            | Status::Lost => unreachable!("an ended job is not live"),
        }
    }

    fn tick(&mut self, now: Moment, turn: &mut Turn) {
        if self.retry_at.is_some_and(|at| at <= now.boot) {
            self.retry_at = None;
        }
        while let Some((at, id)) = self.timers.first().cloned() {
            if at > now.boot {
                break;
            }
            self.timers.remove(&(at, id.clone()));
            let Some(live) = self.live.get_mut(&id) else { continue };
            if live.state.status == Status::Queued {
                live.state.waiting_on = None;
                turn.units.push(live.update(&id, Status::Starting, now));
                turn.effects.push(Effect::Launch(live.attempt_id(&id)));
            }
        }
    }

    fn report(&mut self, report: BackendReport, now: Moment, turn: &mut Turn) {
        let BackendReport { attempt, event, receipt } = report;
        turn.receipts.extend(receipt);
        let id = &attempt.id;
        let Some(live) = self.live.get_mut(id) else { return };
        if live.state.attempt != attempt.attempt {
            // An earlier attempt's report, repeated by a keeper that had not heard that it is on disk.
            return;
        }
        let mut status = live.state.status;
        if matches!(status, Status::Queued | Status::Restarting) {
            // Nothing of this attempt is at the backend, so nothing it says can be about it.
            return;
        }
        match event {
            BackendEvent::Started { process, at } => {
                if live.state.process.is_some() || live.state.ended.is_some() {
                    return;
                }
                live.state.process = Some(process);
                live.state.started = Some(at);
                if status == Status::Starting {
                    turn.units.push(live.update(id, Status::Running, now));
                } else {
                    // It was stopped while it started.
                    let request = live.stop_requested.unwrap_or_default();
                    turn.effects.push(live.end_tree(id, request, now));
                    turn.units.push(live.update(id, status, now));
                }
            }
            BackendEvent::NotStarted { failure, at } => match (status, failure.kind) {
                (Status::Starting, StartFailureKind::Permanent(reason)) => {
                    live.state.ended = Some(at);
                    self.end(id, Status::FailedStart, Some(reason), Some(failure.detail), now, turn);
                }
                (Status::Starting, StartFailureKind::NoRoom | StartFailureKind::CalledOff) => {
                    live.state.waiting_on = Some(WaitingOn::Resources);
                    live.state.detail = Some(failure.detail);
                    turn.units.push(live.update(id, Status::Queued, now));
                    self.timers.insert((now.boot.plus_millis(Self::RETRY_MS), id.clone()));
                }
                (Status::Stopping, _) if live.state.process.is_none() => {
                    let detail = "stopped before it was executed".to_owned();
                    live.state.ended = Some(at);
                    self.end(id, Status::Stopped, None, Some(detail), now, turn);
                }
                _ => {}
            },
            BackendEvent::NeverLaunched => match status {
                Status::Starting => turn.effects.push(Effect::Launch(attempt)),
                Status::Stopping if live.state.process.is_none() => {
                    let detail = "stopped before it was executed".to_owned();
                    live.state.ended = Some(now);
                    self.end(id, Status::Stopped, None, Some(detail), now, turn);
                }
                _ => {}
            },
            BackendEvent::Exited { exit, usage, at, leftovers } => {
                if live.state.ended.is_some() {
                    return;
                }
                if status == Status::Starting {
                    // What ended was executed, even if its start was never reported.
                    status = Status::Running;
                    turn.units.push(live.update(id, status, now));
                }
                live.state.exit = Some(exit);
                live.state.usage = usage;
                live.state.ended = Some(at);
                let tree_is_gone = match status {
                    Status::Stopping | Status::FailedStop => live.tree.is_gone(),
                    _ => !leftovers || live.tree.is_gone(),
                };
                if tree_is_gone {
                    return self.conclude(id, now, turn);
                }
                // The exit is on disk at once, so that nobody has to remember it; the last word waits for the tree.
                turn.units.push(live.update(id, status, now));
                if live.tree == Tree::Whole {
                    turn.effects.push(live.end_tree(id, StopRequest::default(), now));
                }
            }
            BackendEvent::TreeEnded { killed, ended, survivors } => {
                let stopping = matches!(status, Status::Stopping | Status::FailedStop);
                live.tree = Tree::Ended { killed, ended, survivors };
                if stopping && !live.tree.is_gone() {
                    live.state.detail = live.tree.sentence();
                    turn.units.push(live.update(id, Status::FailedStop, now));
                } else if live.state.ended.is_some() {
                    self.conclude(id, now, turn);
                }
            }
            BackendEvent::Lost { reason, at } => {
                if live.state.ended.is_some() {
                    return;
                }
                live.state.ended = Some(at);
                // Nobody knows how it ended, but what it has left behind is still ended; after a reboot nothing is.
                if live.state.process.is_some() && reason != Reason::Reboot {
                    turn.effects.push(live.end_tree(id, StopRequest::default(), now));
                }
                self.end(id, Status::Lost, Some(reason), None, now, turn);
            }
        }
    }

    /// The main process has ended and its tree is settled: the attempt's last word.
    fn conclude(&mut self, id: &JobId, now: Moment, turn: &mut Turn) {
        let Some(live) = self.live.get(id) else { return };
        let detail = live.tree.sentence();
        let (status, reason) = live.verdict();
        self.end(id, status, reason, detail, now, turn);
    }

    fn end(
        &mut self,
        id: &JobId,
        status: Status,
        reason: Option<Reason>,
        detail: Option<String>,
        now: Moment,
        turn: &mut Turn,
    ) {
        let Some(mut live) = self.live.remove(id) else { return };
        self.timers.retain(|(_, timed)| timed != id);
        live.state.reason = reason;
        live.state.detail = detail;
        live.state.waiting_on = None;
        live.state.ended.get_or_insert(now);
        turn.units.push(live.update(id, status, now));
    }
}

fn newest_of_each_source(mut receipts: Vec<Receipt>) -> Vec<Receipt> {
    receipts.sort();
    receipts.reverse();
    receipts.dedup_by(|older, newer| older.source == newer.source);
    receipts
}
