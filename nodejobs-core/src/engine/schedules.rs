//! What the engine does about schedules: it decides each occurrence once, and writes that down in the unit that begins its
//! job or says why there is none.

mod occurrences;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::id::JobId;
use crate::job::{Definition, JobState, Origin};
use crate::schedule::{Calendar, Schedule};
use crate::store::{DocumentChange, DocumentKind, JobChange, Unit};
use crate::time::{BootTime, Moment, Timestamp};

use super::{Answer, Effect, Engine, Refusal, Ticket, Turn};
use occurrences::one;

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

    /// The first one whose jobs are in this group.
    pub(super) fn in_group(&self, group: &str) -> Option<&str> {
        let is_in = |plan: &Plan| plan.known.schedule.definition.group.as_deref() == Some(group);
        self.plans.iter().find(|(_, plan)| is_in(plan)).map(|(name, _)| name.as_str())
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
        if let Err(refusal) = self.check_place(&known.schedule.definition) {
            return Answer::Refused(refusal);
        }
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
}

fn refused(why: String) -> Answer {
    Answer::Refused(Refusal::Other(why))
}
