//! How an occurrence is decided: it begins, waits, replaces the one before, or is skipped.

use crate::id::{AttemptId, JobId};
use crate::job::{Definition, JobState, Origin};
use crate::schedule::{Due, LastRun, Overlap, Schedule, Skipped, due};
use crate::status::{Reason, Status};
use crate::store::{DocumentChange, JobChange, Unit};
use crate::time::{Moment, Timestamp};

use super::super::live::Live;
use super::super::{Engine, StopRequest, Turn};
use super::{KnownSchedule, follow_clock};

impl Engine {
    /// Decides what is due. As long as something decided cannot be written nothing more is: it is missed, or not, once it can
    /// be.
    pub(in crate::engine) fn schedules_due(&mut self, now: Moment, turn: &mut Turn) {
        if self.store_fails && !turn.units.is_empty() {
            return;
        }
        for (definition, state) in std::mem::take(&mut self.schedules.refused) {
            self.write_under_another_id(definition, state, now, turn);
        }
        while let Some(name) = self.schedules.pop_due(now.boot) {
            self.decide(&name, now, turn);
            self.schedules.set_timer(&name, now);
        }
    }

    pub(super) fn decide(&mut self, name: &str, now: Moment, turn: &mut Turn) {
        let Some(plan) = self.schedules.plans.get_mut(name) else { return };
        let KnownSchedule { schedule, calendar } = &mut plan.known;
        let Some(calendar) = calendar.as_deref() else { return };
        follow_clock(schedule, calendar, now.wall);
        let Due { skipped, run } = due(schedule, calendar, now.wall);
        if let Some(skipped) = skipped {
            schedule.decided_until = skipped.last;
            let why = match (schedule.is_paused, skipped.count) {
                (true, 1) => "was skipped: the schedule was paused",
                (true, _) => "were skipped: the schedule was paused",
                (false, 1) => "was missed: there was no daemon, or the machine was suspended or too busy",
                (false, _) => "were missed: there was no daemon, or the machine was suspended or too busy",
            };
            self.skip(name, skipped, why, now, turn);
        }
        for due in run {
            if let Some(schedule) = self.schedules.schedule(name) {
                schedule.decided_until = due;
            }
            self.occur(name, due, now, turn);
        }
    }

    /// Decides one occurrence that is to run, if the one before lets it.
    fn occur(&mut self, name: &str, due: Timestamp, now: Moment, turn: &mut Turn) {
        let live = self.schedules.live_of(name);
        let Some(schedule) = self.schedules.schedule(name) else { return };
        if live.is_empty() && schedule.waiting.is_empty() {
            self.begin_occurrence(name, due, now, turn);
            return;
        }
        match schedule.overlap {
            Overlap::Skip => {
                let before = live.first().map_or_else(String::new, |id| format!(", '{id}',"));
                let why = format!("was skipped: the one before{before} has not ended");
                self.skip(name, one(due), &why, now, turn);
            }
            Overlap::Queue if schedule.waiting.len() < Schedule::MAX_WAITING => {
                schedule.waiting.push_back(due);
                turn.units.push(Unit { job: None, documents: vec![schedule.put()] });
            }
            Overlap::Queue => {
                let why = format!("was skipped: {} wait already", Schedule::MAX_WAITING);
                self.skip(name, one(due), &why, now, turn);
            }
            Overlap::Replace => {
                let replaced = std::mem::take(&mut schedule.waiting);
                schedule.waiting.push_back(due);
                turn.units.push(Unit { job: None, documents: vec![schedule.put()] });
                for before in replaced {
                    let why = "was skipped: the next one was due before it could start";
                    self.skip(name, one(before), why, now, turn);
                }
                live.iter().for_each(|id| self.replace(id, now, turn));
            }
        }
    }

    /// Ends a job in favour of the next one.
    fn replace(&mut self, id: &JobId, now: Moment, turn: &mut Turn) {
        let Some(live) = self.live.get(id) else { return };
        match live.state.status {
            Status::Queued => {
                let why = "the next occurrence of its schedule has replaced it".to_owned();
                self.end(id, Status::Cancelled, Some(Reason::Schedule), Some(why), now, turn);
            }
            Status::Restarting => self.end(id, Status::Stopped, None, None, now, turn),
            Status::Starting | Status::Running | Status::Paused => {
                self.begin_stop(id, StopRequest::default(), now, turn);
            }
            // It is being ended, or could not be.
            _ => {}
        }
    }

    /// What has waited for the end of this job begins, unless the job begins again.
    pub(in crate::engine) fn occurrence_ended(&mut self, id: &JobId, now: Moment, turn: &mut Turn) {
        if self.live.contains_key(id) {
            return;
        }
        let Some(name) = self.schedules.forget(id) else { return };
        if !self.is_taking_over {
            self.begin_waiting(&name, now, turn);
        }
    }

    pub(super) fn begin_waiting(&mut self, name: &str, now: Moment, turn: &mut Turn) {
        if !self.schedules.live_of(name).is_empty() {
            return;
        }
        let schedule = self.schedules.schedule(name).filter(|schedule| !schedule.is_paused);
        if let Some(due) = schedule.and_then(|schedule| schedule.waiting.pop_front()) {
            self.begin_occurrence(name, due, now, turn);
        }
    }

    pub(super) fn begin_occurrence(
        &mut self,
        name: &str,
        due: Timestamp,
        now: Moment,
        turn: &mut Turn,
    ) -> AttemptId {
        let id = self.id_of_occurrence(name, due, now);
        if let Some(schedule) = self.schedules.schedule(name) {
            schedule.last = Some(LastRun { due, id: id.clone() });
        }
        self.write_occurrence(name, &id, due, JobState::new(1, Status::Queued, now.wall), now, turn);
        AttemptId { id, attempt: 1 }
    }

    /// Writes down that occurrences do not run.
    pub(super) fn skip(&mut self, name: &str, skipped: Skipped, why: &str, now: Moment, turn: &mut Turn) {
        let id = self.id_of_occurrence(name, skipped.last, now);
        let mut state = JobState::new(1, Status::Cancelled, now.wall);
        state.reason = Some(Reason::Schedule);
        state.detail = Some(format!("{skipped} {why}"));
        state.ended = Some(now);
        self.write_occurrence(name, &id, skipped.last, state, now, turn);
    }

    fn write_occurrence(
        &mut self,
        name: &str,
        id: &JobId,
        due: Timestamp,
        state: JobState,
        now: Moment,
        turn: &mut Turn,
    ) {
        let Some(schedule) = self.schedules.schedule(name) else { return };
        let mut definition = schedule.definition.clone();
        definition.origin = Some(Origin::Schedule { name: name.to_owned(), due });
        definition.created_at = now.wall;
        let document = schedule.put();
        self.insert(id, definition, state, vec![document], now, turn);
    }

    /// A job of this id has ended before: somebody has chosen it, or the clock was set back.
    fn write_under_another_id(
        &mut self,
        definition: Box<Definition>,
        state: JobState,
        now: Moment,
        turn: &mut Turn,
    ) {
        let Some(Origin::Schedule { name, due }) = definition.origin.clone() else { return };
        let mut documents = Vec::new();
        let mut id = self.ids.next_id(now.wall);
        if let Some(schedule) = self.schedules.schedule(&name) {
            if let Ok(own) = JobId::new(&format!("{}-{id}", schedule.occurrence_id(due))) {
                id = own;
            }
            if !state.status.is_terminal() {
                schedule.last = Some(LastRun { due, id: id.clone() });
            }
            documents.push(schedule.put());
        }
        self.insert(&id, definition, state, documents, now, turn);
    }

    fn insert(
        &mut self,
        id: &JobId,
        definition: Box<Definition>,
        state: JobState,
        documents: Vec<DocumentChange>,
        now: Moment,
        turn: &mut Turn,
    ) {
        let live = Live::new(&definition, state.clone());
        let has_ended = state.status.is_terminal();
        let unit = Unit { job: Some(JobChange::Insert { id: id.clone(), definition, state }), documents };
        if has_ended {
            return turn.units.push(unit);
        }
        self.begin(live, unit, now, turn);
        if let Some(live) = self.live.get_mut(id) {
            self.timers.clear(id, live);
        }
        self.start_or_queue(id, now, turn);
    }

    fn id_of_occurrence(&mut self, name: &str, due: Timestamp, now: Moment) -> JobId {
        let text = self.schedules.schedule(name).map(|schedule| schedule.occurrence_id(due));
        let id = text.and_then(|text| JobId::new(&text).ok());
        // Somebody may have chosen it for a job of their own, or asked for a run in the same second.
        id.filter(|id| !self.live.contains_key(id)).unwrap_or_else(|| self.ids.next_id(now.wall))
    }
}

pub(super) fn one(due: Timestamp) -> Skipped {
    Skipped { count: 1, or_more: false, first: due, last: due }
}
