//! Arrays in the simulation: what is counted is what is there, nobody is begun twice, and nobody is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use crate::array::{Counts, progress};
use crate::filter::JobFilter;
use crate::id::JobId;
use crate::job::{Job, Origin};
use crate::status::Status;
use crate::store::memory::MemoryStore;
use crate::store::{JobStore, Order, PageRequest, Unit};

use super::{Checked, Simulation, all_jobs, ensure};

fn elements(store: &MemoryStore, parent: &JobId) -> Vec<Job> {
    let filter = JobFilter { id_prefix: Some(format!("{parent}.")), ..JobFilter::default() };
    let request = PageRequest { filter, order: Order::OldestFirst, after: None, limit: usize::MAX };
    store.jobs(&request).expect("memory does not fail").jobs
}

/// Of the arrays that these units are about, the numbers are true.
pub(super) fn counted(units: &[Unit], store: &MemoryStore) -> Checked {
    let ids = units.iter().filter_map(|unit| Some(unit.job.as_ref()?.id()));
    let parents: BTreeSet<JobId> = ids
        .map(|id| match id.as_str().split_once('.') {
            Some((parent, _)) => super::id(parent),
            None => id.clone(),
        })
        .collect();
    parents.iter().try_for_each(|parent| numbers(parent, store))
}

fn numbers(parent: &JobId, store: &MemoryStore) -> Checked {
    let Some(job) = store.job(parent).expect("memory") else { return Ok(()) };
    let Some(array) = &job.definition.array else { return Ok(()) };
    let progress = progress(store, parent).map_err(|error| error.to_string())?;
    let counts = Counts::new(array.size, &progress);
    let elements = elements(store, parent);
    let is_live = |job: &&Job| !job.state.status.is_terminal();
    let live = elements.iter().filter(is_live).count();
    let told =
        || format!("{parent} ({:?}) counts {counts:?} by {progress:?}, and has {elements:?}", job.state);
    ensure(counts.running as usize == live, told)?;
    let most = array.max_running.unwrap_or(array.size);
    ensure(live <= most as usize, || format!("{live} of {parent} live, and no more than {most} may"))?;
    ensure(counts.pending + counts.running + counts.ended() == array.size, told)?;
    if job.state.attempt == 1 {
        // Each is begun once, by its job: nobody has a second one.
        ensure(elements.len() <= array.size as usize, told)?;
        let finished = elements.iter().filter(|job| job.state.status == Status::Finished).count();
        ensure(counts.finished as usize == finished, told)?;
    }
    for element in &elements {
        let is_own =
            matches!(&element.definition.origin, Some(Origin::Element { array, .. }) if array == parent);
        ensure(is_own, told)?;
        let policy = &element.definition.policy;
        let is_again = element.state.attempt > job.state.attempt;
        let is_asked = element.definition.submit_key.is_some() || policy.begins_attempts();
        ensure(!is_again || is_asked || was_restarted(store, element), || {
            format!("{} has run more often than its array: {job:?}", element.id)
        })?;
    }
    if !job.state.status.is_terminal() {
        return Ok(());
    }
    ensure(live == 0, || format!("{parent} has ended before its elements: {elements:?}"))?;
    let is_whole = counts.finished == array.size;
    ensure((job.state.status == Status::Finished) == is_whole || job.state.status == Status::Stopped, told)?;
    let is_cut_short = job.state.status != Status::Failed || array.fail_fast;
    ensure(progress.pending() == 0 || is_cut_short, told)
}

/// Somebody has asked for one of its attempts.
fn was_restarted(store: &MemoryStore, element: &Job) -> bool {
    let attempts = store.attempts(&element.id).expect("memory");
    attempts.iter().any(|job| job.definition.submit_key.is_some())
}

/// Of each array that is over, each element that was begun has one end.
pub(super) fn at_the_end(store: &MemoryStore) -> Checked {
    let jobs = all_jobs(store);
    let mut begun: BTreeMap<&JobId, BTreeSet<u32>> = BTreeMap::new();
    for job in &jobs {
        if let Some(Origin::Element { array, index, .. }) = &job.definition.origin {
            let is_new = begun.entry(array).or_default().insert(*index);
            ensure(is_new, || format!("element {index} of {array} is there twice"))?;
        }
    }
    jobs.iter().filter(|job| job.definition.array.is_some()).try_for_each(|job| numbers(&job.id, store))
}

impl Simulation {
    /// Whether it waits for a place for its next element.
    pub(super) fn is_hungry(&self, job: &Job) -> bool {
        let Some(array) = job.definition.array.as_ref().filter(|_| job.state.status == Status::Running)
        else {
            return false;
        };
        let counts = Counts::new(array.size, &progress(&self.store, &job.id).expect("memory"));
        let most = array.max_running.unwrap_or(array.size);
        counts.pending > 0 && counts.running < most && job.state.reason.is_none()
    }

    /// An array goes on as long as one of its elements does, or waits as they do.
    pub(super) fn is_held_up(&self, job: &Job) -> bool {
        let Some(array) = &job.definition.array else { return false };
        let elements = elements(&self.store, &job.id);
        let lives = elements.iter().any(|element| !element.state.status.is_terminal());
        let progress = progress(&self.store, &job.id).expect("memory");
        let waits = Counts::new(array.size, &progress).pending > 0 && self.capacity.max_processes.is_some();
        job.state.status == Status::Running && (lives || waits || self.capacity.max_memory.is_some())
    }
}
