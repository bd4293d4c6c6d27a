//! What can be asked of an owner about schedules, by this process and through the socket alike.

use std::collections::HashSet;

use std::collections::VecDeque;

use nodejobs_core::engine::{Answer, KnownSchedule, ScheduleChange};
use nodejobs_core::record::JobRecord;
use nodejobs_core::schedule::{InvalidSchedule, Schedule, Timing};
use nodejobs_core::spec::{JobSpec, Start};
use nodejobs_core::store::JobStore;
use nodejobs_core::{JobId, Timestamp};
use nodejobs_proc::machine::now;
use tokio::sync::oneshot;

use super::{calendar, machine_time_zone, no_schedule, read_all, read_one, zone};
use crate::api::{
    ProblemKind, ScheduleAction, ScheduleQuery, ScheduleRecord, ScheduleRequest, ScheduleState, ScheduledRun,
    When,
};
use crate::error::Error;
use crate::hub::stopped;
use crate::owner::{Answered, Owner, SubmitMessage};

fn usage(message: String) -> Error {
    Error::new(ProblemKind::Usage, message)
}

fn invalid(problem: &InvalidSchedule) -> Error {
    usage(problem.to_string())
}

impl Owner {
    /// Adds a schedule, or replaces one. It is on disk when this returns.
    pub(crate) async fn add_schedule(&self, request: &ScheduleRequest) -> Result<ScheduleRecord, Error> {
        let ScheduleRequest { name, when, overlap, catch_up, until, replace, spec } = request;
        // Before the job, so that what is wrong is told in the order in which it is written.
        Schedule::check_name(name).map_err(|problem| invalid(&problem))?;
        let now = now().wall;
        let timing = timing(when, now)?;
        let calendar = calendar(&timing).map_err(usage)?;
        for_each_occurrence(spec, name)?;
        self.check_limits(spec).await?;
        let (reply, _) = oneshot::channel();
        let SubmitMessage { mut definition, context, .. } =
            self.submit_message(spec, &HashSet::new(), false, reply).await?;
        definition.submit_key = None;
        definition.labels.insert(Schedule::LABEL.to_owned(), name.clone());
        let schedule = Schedule {
            name: name.clone(),
            timing,
            overlap: *overlap,
            catch_up: *catch_up,
            until: *until,
            definition: Box::new(definition),
            submit_key: spec.submit_key.clone(),
            created_at: now,
            is_paused: false,
            decided_until: now,
            waiting: VecDeque::new(),
            last: None,
        };
        schedule.validate(&*calendar, now).map_err(|problem| invalid(&problem))?;
        let known = Box::new(KnownSchedule { schedule, calendar: Some(calendar) });
        let change = ScheduleChange::Add { known, context, replace: *replace };
        self.change(name, change).await?;
        self.schedule(name, &ScheduleQuery::default()).await
    }

    /// Every schedule, in the order of their names.
    pub(crate) async fn schedules(&self) -> Result<Vec<ScheduleRecord>, Error> {
        self.blocking(|store| {
            read_all(store)?.into_iter().map(|schedule| shown(store, schedule, 1)).collect()
        })
        .await
    }

    /// One schedule, with as many of its next times as are wanted.
    pub(crate) async fn schedule(&self, name: &str, query: &ScheduleQuery) -> Result<ScheduleRecord, Error> {
        let (name, next) = (name.to_owned(), query.next);
        if next > ScheduleQuery::MAX_NEXT {
            return Err(usage(format!(
                "{next} times are too many; ask for at most {}",
                ScheduleQuery::MAX_NEXT
            )));
        }
        self.blocking(move |store| shown(store, read_one(store, &name)?, next)).await
    }

    /// Pauses, resumes or removes a schedule; gives it as it is then, or was.
    pub(crate) async fn act_on_schedule(
        &self,
        name: &str,
        action: ScheduleAction,
    ) -> Result<ScheduleRecord, Error> {
        let before = self.schedule(name, &ScheduleQuery::default()).await?;
        let change = match action {
            ScheduleAction::Pause => ScheduleChange::Pause,
            ScheduleAction::Resume => ScheduleChange::Resume,
            ScheduleAction::Remove => ScheduleChange::Remove,
        };
        self.change(name, change).await?;
        match action {
            ScheduleAction::Remove => Ok(before),
            _ => self.schedule(name, &ScheduleQuery::default()).await,
        }
    }

    /// Begins one occurrence now, beside the times of the schedule. Its job is on disk when this returns.
    pub(crate) async fn run_schedule(&self, name: &str) -> Result<JobRecord, Error> {
        let (answer, job) = self.change(name, ScheduleChange::Run).await?;
        match (answer, job) {
            (_, Some(job)) => Ok(JobRecord::new(&job, now())),
            (Answer::Accepted(attempt), None) => self.record_of(self.job(attempt.id.as_str()).await?).await,
            _ => Err(stopped()),
        }
    }

    async fn change(
        &self,
        name: &str,
        change: ScheduleChange,
    ) -> Result<(Answer, Option<Box<nodejobs_core::job::Job>>), Error> {
        let Answered { answer, job } = self.ask_schedule(name, change).await?;
        match answer {
            Answer::Scheduled | Answer::Accepted(_) => Ok((answer, job)),
            Answer::NotLive => Err(no_schedule(name)),
            Answer::Refused(why) => Err(Error::new(ProblemKind::Conflict, why.to_string())),
            Answer::Conflict { .. } => {
                let message = format!("the id of a job of schedule '{name}' is taken; try again");
                Err(Error::new(ProblemKind::Conflict, message))
            }
            Answer::NotStored => {
                let message = format!(
                    "the store cannot be written; what was asked of schedule '{name}' is done as soon as it can be, unless \
                     this owner ends before; `nodejobs doctor` says more"
                );
                Err(Error::new(ProblemKind::Unavailable, message))
            }
            _ => Err(stopped()),
        }
    }
}

fn timing(when: &When, now: Timestamp) -> Result<Timing, Error> {
    Ok(match when {
        When::Cron { expression, zone: name } => {
            let name = match name {
                Some(name) => name.clone(),
                None => machine_time_zone().map_err(usage)?,
            };
            let (_, zone) = zone::zone(&name).map_err(usage)?;
            Timing::Cron { expression: expression.split_whitespace().collect::<Vec<_>>().join(" "), zone }
        }
        // To the second, like the ids that are made of it.
        When::EveryMs(every_ms) => Timing::Every {
            every_ms: *every_ms,
            from: Timestamp::from_millis(now.as_millis().div_euclid(1_000) * 1_000),
        },
    })
}

/// Refuses what only a single job can have.
fn for_each_occurrence(spec: &JobSpec, name: &str) -> Result<(), Error> {
    let only_for_one = |what| Err(invalid(&InvalidSchedule::OnlyForOne(what)));
    if spec.id.is_some() {
        return only_for_one("id for its jobs; they are made of its name and the time");
    }
    if spec.start != Start::Now {
        return only_for_one("delay or start time beside its own times");
    }
    if matches!(spec.stdin, nodejobs_core::spec::Stdin::Bytes(_)) {
        return only_for_one("input that is sent along; give a file that each of its jobs reads");
    }
    match spec.labels.get(Schedule::LABEL) {
        Some(value) if value != name => only_for_one("label 'schedule' of its own: that is its name"),
        _ => Ok(()),
    }
}

/// A schedule as it is shown, with so many of its next times.
fn shown(store: &dyn JobStore, schedule: Schedule, wanted: usize) -> Result<ScheduleRecord, Error> {
    let calendar = calendar(&schedule.timing).ok();
    let coming = calendar.as_deref().filter(|_| !schedule.is_paused);
    let is_wanted = |due: &Timestamp| schedule.until.is_none_or(|until| *due <= until);
    let next: Vec<Timestamp> = coming.map_or_else(Vec::new, |calendar| {
        let after = |at: &Timestamp| calendar.next_after(*at).filter(is_wanted);
        std::iter::successors(after(&schedule.decided_until), after).take(wanted.max(1)).collect()
    });
    let state = match &calendar {
        None => ScheduleState::UnknownZone,
        Some(_) if schedule.is_paused => ScheduleState::Paused,
        Some(_) if next.is_empty() => ScheduleState::Ended,
        Some(_) => ScheduleState::Active,
    };
    let last = schedule.last.as_ref().map(|last| run_of(store, last.due, &last.id)).transpose()?;
    let (cron, zone, every_ms) = match schedule.timing {
        Timing::Cron { expression, zone } => (Some(expression), Some(zone), None),
        Timing::Every { every_ms, .. } => (None, None, Some(every_ms)),
    };
    let definition = *schedule.definition;
    Ok(ScheduleRecord {
        name: schedule.name,
        state,
        cron,
        zone,
        every_ms,
        overlap: schedule.overlap,
        catch_up: schedule.catch_up,
        until: schedule.until,
        created_at: schedule.created_at,
        next: next.into_iter().take(wanted).collect(),
        waiting: schedule.waiting.into(),
        last,
        command: definition.command,
        cwd: definition.cwd,
        labels: definition.labels,
    })
}

fn run_of(store: &dyn JobStore, due: Timestamp, id: &JobId) -> Result<ScheduledRun, Error> {
    let state = store.job(id)?.map(|job| job.state);
    Ok(ScheduledRun {
        due,
        self_id: id.clone(),
        status: state.as_ref().map(|state| state.status),
        outcome: state.as_ref().map(nodejobs_core::job::JobState::outcome),
        started_at: state.as_ref().and_then(|state| state.started).map(|moment| moment.wall),
        ended_at: state.as_ref().and_then(|state| state.ended).map(|moment| moment.wall),
    })
}
