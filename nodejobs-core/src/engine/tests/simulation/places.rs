//! Never more run than may, whoever dies, and nobody waits while there is room.

use crate::engine::{Capacity, WhenFull};
use crate::job::{Job, WaitingOn};
use crate::status::Status;
use crate::store::conformance::random::Random;

use super::owner::Owner;
use super::{Checked, Simulation, all_jobs, ensure};

/// Every third world has no bounds.
pub(super) fn any_capacity(random: &mut Random) -> Capacity {
    if random.below(3) == 0 {
        return Capacity::default();
    }
    Capacity {
        max_processes: u32::try_from(random.below(4)).ok().filter(|max| *max > 0),
        max_memory: (random.below(2) == 0).then(|| (8 + random.below(12)) << 20),
        when_full: if random.below(4) == 0 { WhenFull::Refuse } else { WhenFull::Queue },
    }
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

impl Simulation {
    /// By what is stored, and by what really lives.
    pub(super) fn no_more_run_than_may(&self, owner: &Owner) -> Checked {
        let jobs = all_jobs(&self.store);
        let placed: Vec<&Job> = jobs.iter().filter(has_place).collect();
        if let Some(max) = self.capacity.max_processes {
            let alive = self.world.runs.iter().filter(|run| run.process.is_some() && run.main.alive).count();
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
        let engine = &owner.engine;
        // What could not be committed is not in the store yet.
        if engine.unsaved.is_empty() && !owner.was_deceived {
            let taken = engine.places.taken() as usize;
            ensure(taken == placed.len(), || format!("{taken} places are taken, by {}", placed.len()))?;
        }
        Ok(())
    }

    /// Once nothing happens any more, whoever waits for a place would not fit in.
    pub(super) fn nobody_waits_for_nothing(&self) -> Checked {
        let jobs = all_jobs(&self.store);
        let mut waiting: Vec<&Job> = jobs
            .iter()
            .filter(|job| job.state.waiting_on == Some(WaitingOn::Slot) || self.is_hungry(job))
            .collect();
        waiting.sort_by_key(|job| job.definition.created_at);
        let placed: Vec<&Job> = jobs.iter().filter(has_place).collect();
        let memory: u64 = placed.iter().map(|job| memory_of(job)).sum();
        let fits = |job: &&&Job| {
            let is_room = self.capacity.max_processes.is_none_or(|max| placed.len() < max as usize);
            let own = memory_of(job);
            let is_memory = self.capacity.max_memory.is_none_or(|max| own == 0 || memory + own <= max);
            is_room && is_memory
        };
        // Only the first counts: nobody goes before those who have waited for longer.
        let all_fit = !waiting.is_empty() && waiting.iter().all(|job| fits(&job));
        ensure(!all_fit, || format!("there is room for each of {waiting:?}"))
    }
}
