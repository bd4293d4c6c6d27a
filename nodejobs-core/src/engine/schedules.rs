//! What the engine does about schedules: it decides each occurrence once, and writes that down in the unit that begins its
//! job or says why there is none.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::id::{AttemptId, JobId};
use crate::job::{Definition, JobState, Origin};
use crate::schedule::{Calendar, Due, LastRun, Overlap, Schedule, Skipped, due};
use crate::status::{Reason, Status};
use crate::store::{DocumentChange, DocumentKind, JobChange, Unit};
use crate::time::{BootTime, Moment, Timestamp};

use super::live::Live;
use super::{Answer, Effect, Engine, Refusal, StopRequest, Ticket, Turn};

/// A schedule with its calendar, which is not stored.
#[derive(Debug)]
pub struct KnownSchedule {
    /// As it is stored.
    pub schedule: Schedule,
    /// `None` if its times cannot be known here: its time zone is gone. It waits for an owner that knows them.
    pub calendar: Option<Box<dyn Calendar>>,
}

/// What somebody wants of a schedule.
#[derive(Debug)]
pub enum ScheduleChange {
    /// It shall exist.
    Add {
        /// The schedule, which is valid.
        known: Box<KnownSchedule>,
        /// The launch context, to be stored under the definition's `context_key`.
        context: Vec<u8>,
        /// Whether it takes the place of one of that name.
        replace: bool,
    },
    /// It shall not exist. Jobs that it has begun go on.
    Remove,
    /// It shall start nothing.
    Pause,
    /// It shall go on.
    Resume,
    /// One occurrence shall begin now.
    Run,
}

/// How far back the clock may be set before what is due at times of the day comes again, in milliseconds: as with other
/// crons, a larger change is a correction.
const FIXED_SET_BACK_MS: i64 = 3 * 3_600_000;
/// The same for what goes by hours, minutes or an interval.
const SET_BACK_MS: i64 = 60_000;

#[derive(Debug)]
struct Plan {
    known: KnownSchedule,
    timer: Option<BootTime>,
}

impl JobChange {
    /// Whether this is the first attempt of a job that a schedule has begun, or left out.
    pub(super) fn is_occurrence(&self) -> bool {
        let JobChange::Insert { definition, .. } = self else { return false };
        matches!(definition.origin, Some(Origin::Schedule { .. }))
    }
}

/// The schedules of a data directory.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    plans: BTreeMap<String, Plan>,
    timers: BTreeSet<(BootTime, String)>,
    /// Live jobs that schedules have begun.
    running: HashMap<JobId, String>,
    /// Occurrences whose ids were taken by ended jobs, to be written under other ones.
    refused: Vec<(Box<Definition>, JobState)>,
}

impl Schedules {
    pub(super) fn first(&self) -> Option<BootTime> {
        let refused = (!self.refused.is_empty()).then(BootTime::default);
        refused.or_else(|| self.timers.first().map(|(at, _)| *at))
    }

    /// How many will be due.
    pub(super) fn active(&self) -> usize {
        self.timers.len()
    }

    /// Takes note of a live job, if it is of a schedule.
    pub(super) fn began(&mut self, id: &JobId, definition: &Definition) {
        if let Some(Origin::Schedule { name, .. }) = &definition.origin {
            self.running.insert(id.clone(), name.clone());
        }
    }

    pub(super) fn forget(&mut self, id: &JobId) -> Option<String> {
        if self.running.is_empty() { None } else { self.running.remove(id) }
    }

    /// An occurrence whose id was taken is to be written under another one.
    pub(super) fn take_back(&mut self, change: &JobChange) {
        if let JobChange::Insert { definition, state, .. } = change {
            self.refused.push((definition.clone(), state.clone()));
        }
    }

    fn live_of(&self, name: &str) -> Vec<JobId> {
        let of_it = self.running.iter().filter(|(_, schedule)| *schedule == name);
        of_it.map(|(id, _)| id.clone()).collect()
    }

    fn schedule(&mut self, name: &str) -> Option<&mut Schedule> {
        self.plans.get_mut(name).map(|plan| &mut plan.known.schedule)
    }

    fn clear_timer(&mut self, name: &str) {
        if let Some(at) = self.plans.get_mut(name).and_then(|plan| plan.timer.take()) {
            self.timers.remove(&(at, name.to_owned()));
        }
    }

    fn set_timer(&mut self, name: &str, now: Moment) {
        self.clear_timer(name);
        let Some(plan) = self.plans.get_mut(name) else { return };
        let KnownSchedule { schedule, calendar } = &mut plan.known;
        let Some(calendar) = calendar.as_deref().filter(|_| !schedule.is_paused) else { return };
        follow_clock(schedule, calendar, now.wall);
        let Some(next) = schedule.next(calendar) else { return };
        let left = next.as_millis().saturating_sub(now.wall.as_millis()).max(0).unsigned_abs();
        let at = now.boot.plus_millis(left);
        plan.timer = Some(at);
        self.timers.insert((at, name.to_owned()));
    }

    /// The wall clock was set, so what is due comes earlier or later.
    pub(super) fn clock_set(&mut self, now: Moment) {
        let names: Vec<String> = self.plans.keys().cloned().collect();
        names.iter().for_each(|name| self.set_timer(name, now));
    }

    fn pop_due(&mut self, now: BootTime) -> Option<String> {
        let (_, name) = self.timers.first().filter(|(at, _)| *at <= now).cloned()?;
        self.clear_timer(&name);
        Some(name)
    }
}

/// After the clock was set back far, what was decided for times that come again counts no more.
fn follow_clock(schedule: &mut Schedule, calendar: &dyn Calendar, now: Timestamp) {
    let may_be_ahead = if calendar.is_fixed() { FIXED_SET_BACK_MS } else { SET_BACK_MS };
    if schedule.decided_until.as_millis().saturating_sub(now.as_millis()) > may_be_ahead {
        schedule.decided_until = now;
    }
}

impl Engine {
    /// How many schedules there are.
    pub fn schedules(&self) -> usize {
        self.schedules.plans.len()
    }

    /// How many schedules will be due. As long as there is one, the owner is needed.
    pub fn active_schedules(&self) -> usize {
        self.schedules.active()
    }

    /// Takes in the schedules that are stored, after the [live jobs](Self::restore).
    pub fn restore_schedules(&mut self, schedules: Vec<KnownSchedule>, now: Moment) {
        for known in schedules {
            let name = known.schedule.name.clone();
            self.schedules.plans.insert(name.clone(), Plan { known, timer: None });
            self.schedules.set_timer(&name, now);
        }
    }

    /// Begins what has waited for the end of a job that ended while there was no owner.
    pub(super) fn resume_schedules(&mut self, now: Moment, turn: &mut Turn) {
        let waits = |plan: &&Plan| !plan.known.schedule.waiting.is_empty();
        let waiting = self.schedules.plans.values().filter(waits);
        let names: Vec<String> = waiting.map(|plan| plan.known.schedule.name.clone()).collect();
        names.iter().for_each(|name| self.begin_waiting(name, now, turn));
    }

    pub(super) fn change_schedule(
        &mut self,
        ticket: Ticket,
        name: &str,
        change: ScheduleChange,
        now: Moment,
        turn: &mut Turn,
    ) {
        let answer = match change {
            ScheduleChange::Add { known, context, replace } => {
                self.add_schedule(*known, context, replace, now, turn)
            }
            _ if !self.schedules.plans.contains_key(name) => Answer::NotLive,
            ScheduleChange::Remove => self.remove_schedule(name, now, turn),
            ScheduleChange::Pause => self.pause_schedule(name, turn),
            ScheduleChange::Resume => self.resume_schedule(name, now, turn),
            ScheduleChange::Run => match self.schedules.live_of(name).first() {
                Some(id) => refused(format!(
                    "job '{id}' of schedule '{name}' has not ended; wait for it, or stop it first"
                )),
                None => Answer::Accepted(self.begin_occurrence(name, now.wall, now, turn)),
            },
        };
        turn.effects.push(Effect::Reply { ticket, answer });
    }

    fn add_schedule(
        &mut self,
        mut known: KnownSchedule,
        context: Vec<u8>,
        replace: bool,
        now: Moment,
        turn: &mut Turn,
    ) -> Answer {
        let name = known.schedule.name.clone();
        let submit_key = known.schedule.submit_key.clone();
        match self.schedules.schedule(&name).map(|there| there.submit_key.clone()) {
            // Sent again over a new connection.
            Some(key) if key.is_some() && key == submit_key => return Answer::Scheduled,
            Some(_) if !replace => {
                let why =
                    format!("there is a schedule '{name}' already; --replace puts this one in its place");
                return refused(why);
            }
            None if self.schedules.plans.len() >= Schedule::MAX_COUNT => {
                let most = Schedule::MAX_COUNT;
                return refused(format!("there are {most} schedules, and no more may be"));
            }
            Some(_) | None => {}
        }
        // What was due of the earlier one is decided by its own rules.
        self.decide(&name, now, turn);
        if let Some(earlier) = self.schedules.schedule(&name) {
            let schedule = &mut known.schedule;
            schedule.is_paused = earlier.is_paused;
            schedule.waiting = std::mem::take(&mut earlier.waiting);
            schedule.last = earlier.last.take();
        }
        let key = known.schedule.definition.context_key.clone();
        let context = DocumentChange::PutIfAbsent { kind: DocumentKind::Context, key, body: context };
        turn.units.push(Unit { job: None, documents: vec![context, known.schedule.put()] });
        self.schedules.clear_timer(&name);
        self.schedules.plans.insert(name.clone(), Plan { known, timer: None });
        self.schedules.set_timer(&name, now);
        Answer::Scheduled
    }

    fn remove_schedule(&mut self, name: &str, now: Moment, turn: &mut Turn) -> Answer {
        let waiting = self.schedules.schedule(name).map(|it| std::mem::take(&mut it.waiting));
        for due in waiting.into_iter().flatten() {
            self.skip(name, one(due), "did not start: the schedule was removed", now, turn);
        }
        self.schedules.clear_timer(name);
        self.schedules.plans.remove(name);
        let remove = DocumentChange::Remove { kind: DocumentKind::Schedule, key: name.to_owned() };
        turn.units.push(Unit { job: None, documents: vec![remove] });
        Answer::Scheduled
    }

    fn pause_schedule(&mut self, name: &str, turn: &mut Turn) -> Answer {
        self.schedules.clear_timer(name);
        if let Some(schedule) = self.schedules.schedule(name) {
            schedule.is_paused = true;
            turn.units.push(Unit { job: None, documents: vec![schedule.put()] });
        }
        Answer::Scheduled
    }

    fn resume_schedule(&mut self, name: &str, now: Moment, turn: &mut Turn) -> Answer {
        // What was due meanwhile is skipped, and a record says so.
        self.decide(name, now, turn);
        if let Some(schedule) = self.schedules.schedule(name) {
            schedule.is_paused = false;
            turn.units.push(Unit { job: None, documents: vec![schedule.put()] });
        }
        self.schedules.set_timer(name, now);
        self.begin_waiting(name, now, turn);
        Answer::Scheduled
    }

    /// Decides what is due. While the store cannot be written nothing is: it is missed, or not, once it can be.
    pub(super) fn schedules_due(&mut self, now: Moment, turn: &mut Turn) {
        if self.store_fails {
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

    fn decide(&mut self, name: &str, now: Moment, turn: &mut Turn) {
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
    pub(super) fn occurrence_ended(&mut self, id: &JobId, now: Moment, turn: &mut Turn) {
        if self.live.contains_key(id) {
            return;
        }
        let Some(name) = self.schedules.forget(id) else { return };
        if !self.is_taking_over {
            self.begin_waiting(&name, now, turn);
        }
    }

    fn begin_waiting(&mut self, name: &str, now: Moment, turn: &mut Turn) {
        if !self.schedules.live_of(name).is_empty() {
            return;
        }
        let schedule = self.schedules.schedule(name).filter(|schedule| !schedule.is_paused);
        if let Some(due) = schedule.and_then(|schedule| schedule.waiting.pop_front()) {
            self.begin_occurrence(name, due, now, turn);
        }
    }

    fn begin_occurrence(&mut self, name: &str, due: Timestamp, now: Moment, turn: &mut Turn) -> AttemptId {
        let id = self.id_of_occurrence(name, due, now);
        if let Some(schedule) = self.schedules.schedule(name) {
            schedule.last = Some(LastRun { due, id: id.clone() });
        }
        self.write_occurrence(name, &id, due, JobState::new(1, Status::Queued, now.wall), now, turn);
        AttemptId { id, attempt: 1 }
    }

    /// Writes down that occurrences do not run.
    fn skip(&mut self, name: &str, skipped: Skipped, why: &str, now: Moment, turn: &mut Turn) {
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
        self.insert(id.clone(), definition, state, vec![document], now, turn);
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
        self.insert(id, definition, state, documents, now, turn);
    }

    fn insert(
        &mut self,
        id: JobId,
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
        if let Some(live) = self.live.get_mut(&id) {
            self.timers.clear(&id, live);
        }
        self.start_or_queue(&id, now, turn);
    }

    fn id_of_occurrence(&mut self, name: &str, due: Timestamp, now: Moment) -> JobId {
        let text = self.schedules.schedule(name).map(|schedule| schedule.occurrence_id(due));
        let id = text.and_then(|text| JobId::new(&text).ok());
        // Somebody may have chosen it for a job of their own, or asked for a run in the same second.
        id.filter(|id| !self.live.contains_key(id)).unwrap_or_else(|| self.ids.next_id(now.wall))
    }
}

fn one(due: Timestamp) -> Skipped {
    Skipped { count: 1, or_more: false, first: due, last: due }
}

fn refused(why: String) -> Answer {
    Answer::Refused(Refusal::Time(why))
}
