//! Never more run than may, of the machine, of each group and of each named resource, whoever dies; who waits goes in
//! order; and nobody waits while there is room.

use std::collections::BTreeSet;

use crate::engine::{Capacity, WhenFull};
use crate::group::{Group, GroupChange};
use crate::job::{Job, WaitingOn};
use crate::spec::JobSpec;
use crate::status::Status;
use crate::store::conformance::random::Random;
use crate::store::memory::MemoryStore;
use crate::store::{JobChange, JobStore, Unit};

use super::clients::Ask;
use super::owner::{Message, Owner};
use super::world::Run;
use super::{Checked, Simulation, all_jobs, ensure};

/// The groups of every world. Those that a world has are in its store.
const GROUPS: [&str; 3] = ["default", "one", "two"];

fn count(random: &mut Random, bound: u64) -> u32 {
    u32::try_from(random.below(bound)).unwrap_or(0)
}

/// Every third world has no bounds.
pub(super) fn any_capacity(random: &mut Random) -> Capacity {
    let resources = [("gpu".to_owned(), 1 + count(random, 2))].into();
    if random.below(3) == 0 {
        return Capacity { resources, ..Capacity::default() };
    }
    Capacity {
        max_processes: Some(count(random, 4)).filter(|max| *max > 0),
        max_memory: (random.below(2) == 0).then(|| (8 + random.below(12)) << 20),
        when_full: if random.below(4) == 0 { WhenFull::Refuse } else { WhenFull::Queue },
        resources,
    }
}

/// The groups of a world, as somebody has made them before it begins. Their slots stay.
pub(super) fn make_groups(store: &MemoryStore, random: &mut Random) {
    for name in GROUPS {
        let slots = Some(count(random, 4)).filter(|slots| *slots > 0 && (name != "default" || *slots == 3));
        let documents = vec![Group { slots, paused: false }.document(name)];
        store.commit(&[Unit { job: None, documents }]).expect("memory does not fail");
    }
}

pub(super) fn any_group(random: &mut Random) -> Ask {
    let name = GROUPS[usize::try_from(random.below(3)).unwrap_or(0)].to_owned();
    Ask::Group(name, GroupChange { paused: Some(random.below(2) == 0), ..GroupChange::default() })
}

/// A place that a job may want.
pub(super) fn any_place(spec: JobSpec, random: &mut Random) -> JobSpec {
    let spec = match random.below(6) {
        0 => spec.group("one"),
        1 => spec.group("two").slots(1 + count(random, 2)),
        2 => spec.need("gpu", 1 + count(random, 2)),
        // Nobody has made it.
        3 if random.below(8) == 0 => spec.group("three"),
        _ => spec,
    };
    spec.priority(i32::try_from(random.below(3)).unwrap_or(0))
}

fn has_place(job: &&Job) -> bool {
    // An array has none itself.
    job.definition.array.is_none()
        && !job.state.status.is_terminal()
        && !matches!(job.state.status, Status::Queued | Status::Restarting)
}

fn memory_of(job: &Job) -> u64 {
    job.definition.policy.memory_limit().unwrap_or(0)
}

fn is_of(job: &Job, group: &str) -> bool {
    job.definition.group.as_deref().unwrap_or("default") == group
}

impl Simulation {
    fn group(&self, name: &str) -> Group {
        let body =
            self.store.document(crate::store::DocumentKind::Group, name).expect("memory does not fail");
        body.and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default()
    }

    /// By what is stored, and by what really lives.
    pub(super) fn no_more_run_than_may(&self, owner: &Owner) -> Checked {
        let jobs = all_jobs(&self.store);
        let placed: Vec<&Job> = jobs.iter().filter(has_place).collect();
        if let Some(max) = self.capacity.max_processes {
            let lives = |run: &&Run| run.process.is_some() && run.main.alive && !run.given_up;
            let alive = self.world.runs.iter().filter(lives).count();
            let max = max as usize;
            let is_stored = placed.len() <= max || self.was_deceived;
            ensure(is_stored, || format!("{} have a place, of {max}", placed.len()))?;
            ensure(alive <= max, || format!("{alive} live, of {max}"))?;
        }
        if let Some(max) = self.capacity.max_memory {
            let (sum, limited) = (placed.iter().map(|job| memory_of(job)).sum::<u64>(), placed.iter());
            let is_alone = limited.filter(|job| memory_of(job) > 0).count() < 2;
            ensure(sum <= max || is_alone || self.was_deceived, || {
                format!("they may have {sum} bytes, of {max}")
            })?;
        }
        for group in GROUPS {
            let Some(max) = self.group(group).slots else { continue };
            let of_group: Vec<_> = placed.iter().filter(|job| is_of(job, group)).collect();
            let taken: u32 = of_group.iter().map(|job| job.definition.slots).sum();
            let is_within = taken <= max || of_group.len() < 2 || self.was_deceived;
            ensure(is_within, || format!("{taken} slots of {group} are taken, of {max}"))?;
        }
        let (mut seen, total) = (BTreeSet::new(), self.capacity.resources["gpu"]);
        for job in &placed {
            let assigned = job.state.assigned.get("gpu").cloned().unwrap_or_default();
            let wants = job.definition.needs.get("gpu").copied().unwrap_or(0);
            let is_own = assigned.len() == wants as usize
                && assigned.iter().all(|index| *index < total && seen.insert(*index));
            ensure(is_own || self.was_deceived, || format!("{job:?} has what is not there for it"))?;
        }
        let engine = &owner.engine;
        // What could not be committed is not in the store yet.
        if engine.unsaved.is_empty() && !owner.was_deceived {
            let taken = engine.queue.running() as usize;
            ensure(taken == placed.len(), || format!("{taken} places are taken, by {}", placed.len()))?;
        }
        Ok(())
    }

    /// Of what was just decided: nobody who has waited for a place is started while another one waits that wants the same and is
    /// before it.
    pub(super) fn they_start_in_order(&self, owner: &Owner, units: &[Unit]) -> Checked {
        for change in units.iter().filter_map(|unit| unit.job.as_ref()) {
            let JobChange::Update { id, state, .. } = change else { continue };
            let stored = self.store.job(id).ok().flatten();
            let has_waited = stored.is_some_and(|job| {
                job.state.attempt == state.attempt && job.state.waiting_on == Some(WaitingOn::Slot)
            });
            let live = owner.engine.live.get(id);
            let Some(live) = live.filter(|_| has_waited && state.status == Status::Starting) else {
                continue;
            };
            let mut waiting = owner.engine.live.values().filter(|other| other.waits_for_place());
            let before = waiting.find(|other| {
                other.place.want() == live.place.want() && other.place.key() < live.place.key()
            });
            ensure(before.is_none(), || format!("{id} goes before {before:?}"))?;
        }
        Ok(())
    }

    /// Whoever was held back is so no longer.
    pub(super) fn resume_groups(&mut self) {
        for name in GROUPS {
            let change = GroupChange { paused: Some(false), ..GroupChange::default() };
            let (ticket, ask) = self.clients.asks(Ask::Group(name.to_owned(), change));
            if let Some(owner) = &mut self.owner {
                owner.inbox.push_back(Message::Ask(ticket, ask));
            }
        }
    }

    /// Once nothing happens any more, whoever waits for a place would not fit in.
    pub(super) fn nobody_waits_for_nothing(&self) -> Checked {
        let jobs = all_jobs(&self.store);
        let waiting: Vec<&Job> = jobs
            .iter()
            .filter(|job| job.state.waiting_on == Some(WaitingOn::Slot) || self.is_hungry(job))
            .collect();
        let placed: Vec<&Job> = jobs.iter().filter(has_place).collect();
        let memory: u64 = placed.iter().map(|job| memory_of(job)).sum();
        let fits = |job: &&&Job| {
            let is_room = self.capacity.max_processes.is_none_or(|max| placed.len() < max as usize);
            let own = memory_of(job);
            let is_memory = self.capacity.max_memory.is_none_or(|max| own == 0 || memory + own <= max);
            let group = job.definition.group.as_deref().unwrap_or("default");
            let of_group = placed.iter().filter(|placed| is_of(placed, group));
            let taken: u32 = of_group.map(|job| job.definition.slots).sum();
            let slots = self.group(group).slots;
            let is_slot = slots.is_none_or(|max| taken == 0 || taken + job.definition.slots <= max);
            let used: usize =
                placed.iter().filter_map(|job| job.state.assigned.get("gpu")).map(Vec::len).sum();
            let wants = job.definition.needs.get("gpu").map_or(0, |count| *count as usize);
            let is_resource = wants == 0 || used + wants <= self.capacity.resources["gpu"] as usize;
            is_room && is_memory && is_slot && is_resource
        };
        // Who is before keeps something aside for itself: so it is enough that one of them does not fit.
        let all_fit = !waiting.is_empty() && waiting.iter().all(|job| fits(&job));
        ensure(!all_fit, || format!("there is room for each of {waiting:?}"))?;
        // But of those who want the same, and of whom nobody else wants any of it, the first one does not fit.
        let wants = |job: &Job| (job.definition.group.clone(), memory_of(job), job.definition.needs.clone());
        let shares_nothing = |one: &Job, other: &Job| {
            let (one, other) = (wants(one), wants(other));
            one.0 != other.0 && (one.1 == 0 || other.1 == 0) && (one.2.is_empty() || other.2.is_empty())
        };
        let is_own = |job: &&&Job| {
            waiting.iter().all(|other| wants(job) == wants(other) || shares_nothing(job, other))
        };
        let idle = waiting.iter().filter(is_own).find(|job| {
            let same = waiting.iter().filter(|other| wants(job) == wants(other));
            same.clone().all(|other| fits(&other))
        });
        ensure(idle.is_none(), || format!("there is room for {idle:?}"))
    }
}
