//! Nobody starts before those it waits for have ended as required, is cancelled without cause, or waits for nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::JobId;
use crate::job::{Job, JobState, WaitingOn};
use crate::spec::{After, Unmet};
use crate::status::{Reason, Status};
use crate::store::{JobChange, Unit, UnitOutcome};

use super::{Checked, Simulation, all_jobs, ensure};

/// What was written, change by change.
#[derive(Debug, Default)]
pub(super) struct Awaiting {
    statuses: BTreeMap<JobId, Status>,
    /// Those that have not passed what they wait for.
    waiting: BTreeMap<JobId, After>,
    /// Those that somebody has asked to start at once.
    hurried: BTreeSet<JobId>,
    /// The store has kept what it said it could not, and its owner has made other plans.
    pub(super) was_deceived: bool,
}

fn is_before_gate(state: &JobState) -> bool {
    let waits = matches!(state.waiting_on, Some(WaitingOn::Time | WaitingOn::Dependency));
    state.status == Status::Queued && waits
}

impl Awaiting {
    pub(super) fn hurry(&mut self, id: &JobId) {
        self.hurried.insert(id.clone());
    }

    pub(super) fn committed(&mut self, units: &[Unit], outcomes: &[UnitOutcome]) -> Checked {
        for (unit, outcome) in units.iter().zip(outcomes) {
            if let (Some(change), UnitOutcome::Applied { .. }) = (&unit.job, outcome) {
                self.change(change)?;
            }
        }
        Ok(())
    }

    fn change(&mut self, change: &JobChange) -> Checked {
        let id = change.id();
        match change {
            JobChange::Insert { definition, state, .. } | JobChange::NewAttempt { definition, state, .. } => {
                self.statuses.insert(id.clone(), state.status);
                self.hurried.remove(id);
                if let Some(after) = &definition.after {
                    self.waiting.insert(id.clone(), after.clone());
                }
                self.moves(id, state)
            }
            JobChange::Update { state, .. } => {
                self.statuses.insert(id.clone(), state.status);
                self.moves(id, state)
            }
            JobChange::Remove { .. } => {
                self.statuses.remove(id);
                Ok(())
            }
            JobChange::ForgetAttempts { .. } => Ok(()),
            JobChange::Redefine { definition, state, .. } => {
                let same = self.waiting.get(id).is_none_or(|after| definition.after.as_ref() == Some(after));
                ensure(same, || format!("nobody has asked that {id} waits for others"))?;
                self.moves(id, state)
            }
        }
    }

    fn moves(&mut self, id: &JobId, state: &JobState) -> Checked {
        if is_before_gate(state) {
            return Ok(());
        }
        let Some(after) = self.waiting.remove(id) else { return Ok(()) };
        let met: Vec<Option<bool>> = self.met(&after);
        if state.status == Status::Cancelled {
            let has_cause = self.was_deceived
                || state.reason != Some(Reason::Dependency)
                || (after.unmet == Unmet::Cancel && met.contains(&Some(false)));
            return ensure(has_cause, || format!("{id} is cancelled: {after:?} {met:?}"));
        }
        let may_start =
            self.was_deceived || self.hurried.remove(id) || met.iter().all(|met| *met == Some(true));
        ensure(may_start, || format!("{id} starts: {after:?} {met:?} {:?}", self.statuses))
    }

    /// Of each condition, whether it holds; `None` if it is still open. What is gone had met it.
    fn met(&self, after: &After) -> Vec<Option<bool>> {
        let of = |status: &Status, on: &crate::spec::Dependency| {
            status.is_terminal().then(|| on.condition.is_met_by(*status))
        };
        after
            .on
            .iter()
            .map(|on| self.statuses.get(&on.id).map_or(Some(true), |status| of(status, on)))
            .collect()
    }
}

impl Simulation {
    /// Whether a queued job has somebody to wait for.
    pub(super) fn waits_for_somebody(&self, job: &Job) -> bool {
        let jobs = all_jobs(&self.store);
        let status = |id: &JobId| jobs.iter().find(|job| job.id == *id).map(|job| job.state.status);
        let Some(after) = &job.definition.after else { return false };
        let is_open = |on: &crate::spec::Dependency| match status(&on.id) {
            Some(status) if status.is_terminal() => {
                after.unmet == Unmet::Wait && !on.condition.is_met_by(status)
            }
            Some(_) => true,
            None => false,
        };
        job.state.waiting_on == Some(WaitingOn::Dependency) && after.on.iter().any(is_open)
    }
}
