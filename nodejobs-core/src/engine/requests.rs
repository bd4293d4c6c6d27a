//! What the engine does when somebody asks for something.

use crate::backend::SignalScope;
use crate::id::{AttemptId, JobId};
use crate::job::{Input as JobInput, Job, JobState, WaitingOn};
use crate::signal::Signal;
use crate::spec::Start;
use crate::status::{Reason, Status};
use crate::store::{DocumentChange, DocumentKind, JobChange, Unit};
use crate::time::Moment;

use super::dependencies::end_of;
use super::live::{Live, NextAttempt};
use super::places::queue_for_place;
use super::{
    Answer, Effect, Engine, Refusal, Removal, Restart, StopRequest, Submission, Ticket, Turn, remove_input,
};

impl Engine {
    pub(super) fn submit(&mut self, submission: Submission, now: Moment, turn: &mut Turn) {
        if let Some(answer) = self.existing_work(&submission, now.wall) {
            return turn.effects.push(Effect::Reply { ticket: submission.ticket, answer });
        }
        let Submission { ticket, id, mut definition, context, input, existing, mut ended, unique: _, array } =
            submission;
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
        if let Some(time) = definition.start.missed(now.wall) {
            let why = format!("the start time {time} has passed; leave it out to start the job now");
            return reply(Answer::Refused(Refusal::Other(why)));
        }
        let is_others = |job: &Job| job.definition.array.is_some() || job.definition.is_element();
        let taken = existing.as_ref().filter(|job| is_others(job) || array.is_some());
        if taken.is_some() || id.as_ref().is_some_and(|id| self.is_of_array(id)) {
            return reply(Answer::Conflict { status: taken.map(|job| job.state.status) });
        }
        if let Err(refusal) = self.check_place(&definition) {
            return reply(Answer::Refused(refusal));
        }
        let is_due = definition.start.left_ms(now.wall, now) == 0;
        let after = match self.what_to_wait_for(id.as_ref(), &definition, is_due, &mut ended, turn) {
            Ok(after) => after,
            Err(answer) => return turn.effects.push(Effect::Reply { ticket, answer }),
        };
        let before = existing.as_ref().map(|job| end_of(job, turn));
        let mut reply = |answer| turn.effects.push(Effect::Reply { ticket, answer });
        // An array waits, and begins its elements when its turns come.
        let starts = is_due && after.is_none() && array.is_none();
        let number = existing.as_ref().map_or(1, |job| job.state.attempt + 1);
        let mut live = Live::new(&definition, JobState::new(number, Status::Starting, now.wall));
        live.before = before;
        let has_place = starts && live.admitted_by(&self.queue);
        if let Some(why) = (starts && !has_place).then(|| self.why_full(&live)).flatten() {
            return reply(Answer::Full { why });
        }
        let id = id.unwrap_or_else(|| self.ids.next_id(now.wall));
        let attempt = AttemptId { id: id.clone(), attempt: number };
        reply(Answer::Accepted(attempt));
        let mut documents = vec![DocumentChange::PutIfAbsent {
            kind: DocumentKind::Context,
            key: definition.context_key.clone(),
            body: context,
        }];
        if let Some(body) = input {
            let key = format!("{id}/{number}");
            definition.input = JobInput::Stored(key.clone());
            documents.push(DocumentChange::Put { kind: DocumentKind::Input, key, body });
        }
        documents
            .extend(array.iter().flat_map(|content| super::arrays::documents(&id, &definition, content)));
        let state = &mut live.state;
        state.launch_asked = now.boot;
        if !is_due {
            state.status = Status::Queued;
            state.waiting_on = Some(WaitingOn::Time);
            state.detail = definition.start.due(now.wall).map(|due| format!("starts at {due}"));
        } else if after.is_some() {
            state.status = Status::Queued;
            state.waiting_on = Some(WaitingOn::Dependency);
        } else if has_place {
            live.take_place(&mut self.queue);
        } else {
            queue_for_place(state);
        }
        // Its placeholders were checked by whoever has made the definition.
        live.array = array.and_then(|content| super::arrays::running(&id, &definition, *content).ok());
        let (definition, state) = (Box::new(definition), live.state.clone());
        let begun = id.clone();
        let change = match existing {
            None => JobChange::Insert { id, definition, state },
            Some(job) => JobChange::NewAttempt { id, expected: job.revision, definition, state },
        };
        self.begin(live, Unit { job: Some(change), documents }, now, turn);
        if let Some(after) = after {
            self.begin_to_wait(&begun, &after, ended);
        }
    }

    /// Takes in an attempt that the unit begins.
    pub(super) fn begin(&mut self, mut live: Live, unit: Unit, now: Moment, turn: &mut Turn) {
        let Some(change) = &unit.job else { return };
        let id = change.id().clone();
        live.revision = change.revision_after().unwrap_or_default();
        if let JobChange::Insert { definition, .. } | JobChange::NewAttempt { definition, .. } = change {
            self.schedules.began(&id, definition);
        }
        if live.state.status == Status::Starting {
            turn.effects.push(Effect::Launch(live.attempt_id(&id)));
        }
        turn.units.push(unit);
        self.timers.set_for(&id, &mut live, now);
        self.place(&id, &mut live);
        self.dependencies.has_begun(&id, &mut self.live);
        self.keys.join(&id, &live);
        self.live.insert(id, live);
    }

    pub(super) fn stop(
        &mut self,
        ticket: Ticket,
        id: &JobId,
        request: StopRequest,
        now: Moment,
        turn: &mut Turn,
    ) {
        let Some(live) = self.live.get(id) else {
            if !self.cancel_pending(ticket, id, now, turn) {
                turn.effects.push(Effect::Reply { ticket, answer: Answer::NotLive });
            }
            return;
        };
        turn.effects.push(Effect::Reply { ticket, answer: Answer::Stopping(live.attempt_id(id)) });
        self.stop_job(id, request, now, turn);
    }

    /// Ends a live job; nobody is told.
    pub(super) fn stop_job(&mut self, id: &JobId, request: StopRequest, now: Moment, turn: &mut Turn) {
        let Some(live) = self.live.get_mut(id) else { return };
        if live.array.is_some() {
            return self.stop_array(id, request, now, turn);
        }
        match live.state.status {
            Status::Queued => self.end(id, Status::Cancelled, Some(Reason::User), None, now, turn),
            Status::Starting | Status::Running | Status::Paused => {
                self.begin_stop(id, request, now, turn);
            }
            Status::Stopping | Status::FailedStop => {
                turn.effects.push(live.end_tree(id, request, now));
                if let Some(next) = live.next_attempt.take() {
                    // Who stops a job that is being restarted wants it stopped.
                    let answer = Answer::Conflict { status: Some(live.state.status) };
                    let refused = next.tickets.iter().map(|ticket| (*ticket, answer.clone()));
                    turn.effects.extend(refused.map(|(ticket, answer)| Effect::Reply { ticket, answer }));
                    live.state.pending_restart = None;
                    let status = live.state.status;
                    turn.units.push(live.update(id, status, now));
                }
            }
            Status::Restarting => self.end(id, Status::Stopped, None, None, now, turn),
            Status::Finished
            | Status::Failed
            | Status::FailedStart
            | Status::Stopped
            | Status::Cancelled
            | Status::Lost => unreachable!("an ended job is not live"),
        }
    }

    pub(super) fn begin_stop(&mut self, id: &JobId, request: StopRequest, now: Moment, turn: &mut Turn) {
        let Some(live) = self.live.get_mut(id) else { return };
        turn.effects.push(live.end_tree(id, request, now));
        live.stop_requested = Some(request);
        live.state.reason = None;
        self.timers.clear(id, live);
        turn.units.push(live.update(id, Status::Stopping, now));
    }

    pub(super) fn restart(&mut self, restart: Restart, now: Moment, turn: &mut Turn) {
        if job_has_key(&restart) {
            let answer = Answer::Accepted(restart.job.attempt_id());
            return turn.effects.push(Effect::Reply { ticket: restart.ticket, answer });
        }
        let live = self.live.get(&restart.job.id);
        if let Some(live) = live.filter(|live| live.submit_key.as_ref() == Some(&restart.submit_key)) {
            // Begun, and not in the store yet.
            let answer = Answer::Accepted(live.attempt_id(&restart.job.id));
            return turn.effects.push(Effect::Reply { ticket: restart.ticket, answer });
        }
        if restart.job.definition.array.is_some()
            && live.is_none_or(|live| live.state.status != Status::Queued)
        {
            return match live.map(|live| live.state.status) {
                None => self.restart_array(restart, now, turn),
                status => {
                    let answer = Answer::Conflict { status };
                    turn.effects.push(Effect::Reply { ticket: restart.ticket, answer });
                }
            };
        }
        let Restart { ticket, mut job, submit_key: key, request, array: _ } = restart;
        let id = job.id.clone();
        if let Some(definition) = turn.redefined(&id) {
            // The next attempt runs what the job was changed to, with the place that it has for that.
            job.definition = definition.clone();
        }
        if job.definition.is_element() {
            // Once it has ended, it is its array that runs it again; and not while that is being ended.
            let is_refused = live.is_none_or(|live| self.is_in_ending_array(live));
            if is_refused {
                let status = live.map_or(job.state.status, |_| Status::Stopping);
                let answer = Answer::Conflict { status: Some(status) };
                return turn.effects.push(Effect::Reply { ticket, answer });
            }
        }
        let Some(live) = self.live.get_mut(&id) else {
            if job.state.status.is_terminal() {
                let mut reply = |answer| turn.effects.push(Effect::Reply { ticket, answer });
                if let Err(refusal) = self.check_place(&job.definition) {
                    return reply(Answer::Refused(refusal));
                }
                let live = Live::new(&job.definition, job.state.clone());
                let has_place = live.admitted_by(&self.queue);
                if let Some(why) = (!has_place).then(|| self.why_full(&live)).flatten() {
                    return reply(Answer::Full { why });
                }
                let next = NextAttempt::new(job.definition, key, vec![ticket]);
                let before = (job.state.attempt, job.revision, job.state.status);
                self.begin_next(&id, next, before, has_place, now, turn);
            } else {
                // Its end is decided and could not be written yet.
                let answer = Answer::Conflict { status: Some(job.state.status) };
                turn.effects.push(Effect::Reply { ticket, answer });
            }
            return;
        };
        match live.state.status {
            Status::Starting | Status::Running | Status::Paused => {
                live.state.pending_restart = Some(key.clone());
                live.next_attempt = Some(NextAttempt::new(job.definition, key, vec![ticket]));
                self.begin_stop(&id, request, now, turn);
            }
            Status::Stopping | Status::FailedStop => {
                if request != StopRequest::default() {
                    // Whoever has less patience shortens it for all.
                    turn.effects.push(live.end_tree(&id, request, now));
                }
                match &mut live.next_attempt {
                    Some(next) => next.tickets.push(ticket),
                    None => {
                        live.state.pending_restart = Some(key.clone());
                        live.next_attempt = Some(NextAttempt::new(job.definition, key, vec![ticket]));
                        let status = live.state.status;
                        turn.units.push(live.update(&id, status, now));
                    }
                }
            }
            // It waits already, and waits no longer.
            Status::Queued | Status::Restarting => {
                let answer = Answer::Accepted(live.attempt_id(&id));
                turn.effects.push(Effect::Reply { ticket, answer });
                self.timers.clear(&id, live);
                self.dependencies.leave(&id, live);
                self.start_or_queue(&id, now, turn);
            }
            status => {
                let answer = Answer::Conflict { status: Some(status) };
                turn.effects.push(Effect::Reply { ticket, answer });
            }
        }
    }

    /// Begins the attempt after this one of a job that has ended, at once if it has a place.
    pub(super) fn begin_next(
        &mut self,
        id: &JobId,
        next: NextAttempt,
        (ended, revision, status): (u32, u64, Status),
        has_place: bool,
        now: Moment,
        turn: &mut Turn,
    ) {
        let NextAttempt { mut definition, submit_key, tickets } = next;
        // It was asked for now, whenever the first one was due.
        definition.start = Start::Now;
        definition.after = None;
        definition.submit_key = Some(submit_key);
        definition.created_at = now.wall;
        let mut state = JobState::new(ended + 1, Status::Starting, now.wall);
        state.launch_asked = now.boot;
        if !has_place {
            queue_for_place(&mut state);
        }
        let mut live = Live { before: Some(status), ..Live::new(&definition, state) };
        if has_place {
            live.take_place(&mut self.queue);
        }
        let state = live.state.clone();
        let attempt = live.attempt_id(id);
        let replies = tickets
            .into_iter()
            .map(|ticket| Effect::Reply { ticket, answer: Answer::Accepted(attempt.clone()) });
        turn.effects.extend(replies);
        let change = JobChange::NewAttempt { id: id.clone(), expected: revision, definition, state };
        self.begin(live, change.into(), now, turn);
    }

    /// Begins the attempt that a job's policy has follow one that ended: it waits out the delay first.
    pub(super) fn begin_restart(
        &mut self,
        id: &JobId,
        ended: Live,
        start: Start,
        now: Moment,
        turn: &mut Turn,
    ) {
        let Some(mut definition) = ended.again else { return };
        definition.start = start;
        definition.after = None;
        definition.created_at = now.wall;
        let mut state = JobState::new(ended.state.attempt + 1, Status::Restarting, now.wall);
        state.restarts = ended.state.restarts + 1;
        state.waiting_on = Some(WaitingOn::Time);
        let due = definition.start.due(now.wall).map_or_else(String::new, |due| format!("; starts at {due}"));
        state.detail = Some(format!("attempt {} {}{due}", ended.state.attempt, ended.state.outcome()));
        let live = Live::new(&definition, state.clone());
        let change = JobChange::NewAttempt { id: id.clone(), expected: ended.revision, definition, state };
        self.begin(live, change.into(), now, turn);
    }

    pub(super) fn remove(&mut self, removal: Removal, turn: &mut Turn) {
        let Removal { ticket, job, logs, inputs } = removal;
        let status = self.live.get(&job.id).map_or(job.state.status, |live| live.state.status);
        if !status.is_terminal() || self.is_of_array(&job.id) {
            let answer = Answer::Conflict { status: Some(status) };
            return turn.effects.push(Effect::Reply { ticket, answer });
        }
        if let Some(by) = self.who_needs(&job.id) {
            return turn.effects.push(Effect::Reply { ticket, answer: Answer::Needed { by } });
        }
        let removed = Answer::Removed(job.id.clone());
        let mut documents: Vec<_> = inputs.into_iter().map(remove_input).collect();
        if job.definition.array.is_some() {
            documents.extend(super::arrays::forgotten(&job.id, job.state.attempt));
        }
        turn.units.push(Unit {
            documents,
            job: Some(JobChange::Remove { id: job.id.clone(), expected: job.revision }),
        });
        turn.effects.push(Effect::DeleteLogs { id: job.id, files: logs });
        // Whoever is told finds nothing of it.
        turn.effects.push(Effect::Reply { ticket, answer: removed });
    }

    /// Halts a running job, or lets a halted one go on.
    pub(super) fn halt(&mut self, ticket: Ticket, id: &JobId, to: Status, now: Moment, turn: &mut Turn) {
        let mut reply = |answer| turn.effects.push(Effect::Reply { ticket, answer });
        let Some(live) = self.live.get_mut(id) else { return reply(Answer::NotLive) };
        let status = live.state.status;
        let (from, signal) = match to {
            Status::Paused => (Status::Running, Signal::STOP),
            _ => (Status::Paused, Signal::CONT),
        };
        // One that is ending must not be kept from it.
        let is_ending = live.state.ended.is_some() || live.state.reason.is_some();
        let is_allowed = (status == from || status == to) && !is_ending;
        let Some(process) = live.state.process.clone().filter(|_| is_allowed) else {
            return reply(Answer::Conflict { status: Some(status) });
        };
        reply(Answer::Done);
        // Also if it is as it should be: an owner that was killed may have written it down and no more.
        let (attempt, scope) = (live.attempt_id(id), SignalScope::Tree);
        turn.effects.push(Effect::Signal { attempt, process, signal, scope });
        if status != to {
            turn.units.push(live.update(id, to, now));
        }
    }

    /// Sends a signal to a job that has processes. What it does with it is its own affair, so nothing is written down.
    pub(super) fn signal(
        &mut self,
        ticket: Ticket,
        id: &JobId,
        signal: Signal,
        scope: SignalScope,
        turn: &mut Turn,
    ) {
        let mut reply = |answer| turn.effects.push(Effect::Reply { ticket, answer });
        let Some(live) = self.live.get(id) else { return reply(Answer::NotLive) };
        let reached = live.state.ended.is_none() || scope == SignalScope::Tree;
        let Some(process) = live.state.process.clone().filter(|_| reached) else {
            return reply(Answer::Conflict { status: Some(live.state.status) });
        };
        reply(Answer::Done);
        turn.effects.push(Effect::Signal { attempt: live.attempt_id(id), process, signal, scope });
    }
}

/// Whether this very restart has begun the job's newest attempt before.
fn job_has_key(Restart { job, submit_key, .. }: &Restart) -> bool {
    job.definition.submit_key.as_ref() == Some(submit_key)
}
