//! Queued jobs that become other ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::group::DEFAULT_GROUP;
use crate::job::{Definition, Job};
use crate::spec::{Command, InvalidSpec, JobSpec, UNIQUE_LABEL};
use crate::status::Status;
use crate::store::JobChange;
use crate::time::Moment;

use super::queue::{Place, Standing};
use super::{Answer, Effect, Engine, Refusal, Ticket, Turn};

/// What is changed of a queued job. What is absent stays.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Edits {
    /// What it runs.
    pub command: Option<Command>,
    /// Its name for people.
    pub name: Option<String>,
    /// Its group; `default` is that of all jobs that name none.
    pub group: Option<String>,
    /// Higher goes first. Among those of the same it keeps its age.
    pub priority: Option<i32>,
    /// How many slots of its group it takes.
    pub slots: Option<u32>,
    /// How many it needs of these resources, beside those that it needs already; 0 for none any more.
    pub needs: BTreeMap<String, u32>,
    /// Labels that it gets, instead of those of the same keys.
    pub labels: BTreeMap<String, String>,
}

impl Edits {
    /// Checks everything that can be checked without knowing the job.
    ///
    /// # Errors
    /// [`InvalidSpec`], as for a job that is submitted.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        let Self { command, name, group, priority: _, slots, needs, labels } = self;
        let mut spec = JobSpec::new(command.clone().unwrap_or_else(|| Command::argv(["true"])), "/");
        spec.name.clone_from(name);
        spec.group.clone_from(group);
        spec.slots = slots.unwrap_or(spec.slots);
        spec.needs = needs.clone();
        // None of it may be needed any more.
        spec.needs.values_mut().filter(|count| **count == 0).for_each(|count| *count = 1);
        spec.labels.clone_from(labels);
        spec.validate()?;
        if labels.contains_key(UNIQUE_LABEL) { Err(InvalidSpec::UniqueStays) } else { Ok(()) }
    }

    /// Makes the changes.
    pub fn apply(self, definition: &mut Definition) {
        let Self { command, name, group, priority, slots, needs, labels } = self;
        definition.command = command.unwrap_or_else(|| definition.command.clone());
        definition.name = name.or_else(|| definition.name.take());
        if let Some(group) = group {
            definition.group = Some(group).filter(|name| name != DEFAULT_GROUP);
        }
        definition.priority = priority.unwrap_or(definition.priority);
        definition.slots = slots.unwrap_or(definition.slots);
        definition.needs.extend(needs);
        definition.needs.retain(|_, count| *count > 0);
        definition.labels.extend(labels);
    }
}

/// A queued job that is to be another one.
#[derive(Debug)]
pub struct Edit {
    /// Who asks.
    pub ticket: Ticket,
    /// The job as it is stored.
    pub job: Job,
    /// What is changed of it.
    pub edits: Edits,
}

impl Engine {
    pub(super) fn edit(&mut self, edit: Edit, now: Moment, turn: &mut Turn) {
        let Edit { ticket, job, edits } = edit;
        let answer = self.edited(job, edits, now, turn);
        turn.effects.push(Effect::Reply { ticket, answer });
    }

    fn edited(&mut self, job: Job, edits: Edits, now: Moment, turn: &mut Turn) -> Answer {
        let Job { id, mut definition, revision, .. } = job;
        let Some(live) = self.live.get(&id) else { return Answer::NotLive };
        // Another revision: what it has become could not be written yet.
        if live.state.status != Status::Queued || live.revision != revision {
            return Answer::Conflict { status: Some(live.state.status) };
        }
        edits.apply(&mut definition);
        if let Err(refusal) = self.check_place(&definition) {
            return Answer::Refused(refusal);
        }
        let Some(live) = self.live.get_mut(&id) else { return Answer::NotLive };
        if let Some(Err(error)) = live.array.as_mut().map(|array| array.redefine(&definition)) {
            return Answer::Refused(Refusal::Other(error.to_string()));
        }
        let (order, waits) = (live.place.order, live.place.standing == Standing::Waits);
        live.leave_place(&mut self.queue);
        live.place = Place::of(&definition);
        live.place.order = order;
        if waits {
            self.queue.wait(&id, &mut live.place, live.array.as_ref().map_or(1, |array| array.may_begin()));
        }
        live.again = live.policy.begins_attempts().then(|| Box::new(definition.clone()));
        live.state.last_update = now.wall;
        live.revision += 1;
        let (definition, state) = (Box::new(definition), live.state.clone());
        turn.units.push(JobChange::Redefine { id: id.clone(), expected: revision, definition, state }.into());
        Answer::Edited(id)
    }
}
