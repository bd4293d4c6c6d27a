//! The store that forgets: for tests, and as the strictest reading of the contract.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::content::{Check, Counters, Item, check_content};
use super::{
    DocumentChange, DocumentKind, JobChange, JobEvent, JobStore, Order, Page, PageRequest, StoreError,
    StoreInfo, StoredHead, Unit, UnitOutcome,
};
use crate::id::JobId;
use crate::job::{Job, JobState};
use crate::status::Status;

/// Keeps everything in memory and loses it when dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
}

#[derive(Clone, Debug, Default)]
struct Tables {
    jobs: BTreeMap<JobId, Vec<Job>>,
    last_seq: u64,
    events: Vec<JobEvent>,
    last_event: u64,
    documents: BTreeMap<(DocumentKind, String), Vec<u8>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Every change is made whole before the lock is given back, so a panic elsewhere leaves nothing torn.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn newest(&self, id: &JobId) -> Option<&Job> {
        self.jobs.get(id).and_then(|attempts| attempts.last())
    }

    fn apply(&mut self, unit: &Unit) -> UnitOutcome {
        let mut outcome = UnitOutcome::Applied { seq: 0, event: 0 };
        if let Some(change) = &unit.job {
            let head = self.newest(change.id()).map(|job| StoredHead {
                revision: job.revision,
                attempt: job.state.attempt,
                status: job.state.status,
            });
            if let Err(rejection) = change.check(head) {
                return UnitOutcome::Rejected(rejection);
            }
            outcome = self.apply_checked(change);
        }
        for change in &unit.documents {
            match change.clone() {
                DocumentChange::Put { kind, key, body } => {
                    self.documents.insert((kind, key), body);
                }
                DocumentChange::PutIfAbsent { kind, key, body } => {
                    self.documents.entry((kind, key)).or_insert(body);
                }
                DocumentChange::Remove { kind, key } => {
                    self.documents.remove(&(kind, key));
                }
            }
        }
        outcome
    }

    fn apply_checked(&mut self, change: &JobChange) -> UnitOutcome {
        let revision = change.revision_after().unwrap_or(0);
        let id = change.id().clone();
        match change {
            JobChange::Insert { definition, state, .. } => {
                self.last_seq += 1;
                let job = Job {
                    seq: self.last_seq,
                    id: id.clone(),
                    revision,
                    definition: (**definition).clone(),
                    state: state.clone(),
                };
                self.jobs.insert(id.clone(), vec![job]);
                self.append_event(id, state)
            }
            JobChange::NewAttempt { definition, state, .. } => {
                let attempts = self.jobs.entry(id.clone()).or_default();
                let seq = attempts.first().map_or(0, |job| job.seq);
                let definition = (**definition).clone();
                attempts.push(Job { seq, id: id.clone(), revision, definition, state: state.clone() });
                self.append_event(id, state)
            }
            JobChange::Update { state, .. } => {
                if let Some(job) = self.jobs.get_mut(&id).and_then(|attempts| attempts.last_mut()) {
                    job.revision = revision;
                    job.state = state.clone();
                }
                self.append_event(id, state)
            }
            JobChange::Redefine { definition, state, .. } => {
                if let Some(job) = self.jobs.get_mut(&id).and_then(|attempts| attempts.last_mut()) {
                    job.revision = revision;
                    job.definition = (**definition).clone();
                    job.state = state.clone();
                }
                self.append_event(id, state)
            }
            JobChange::ForgetAttempts { through, .. } => {
                let attempts = self.jobs.entry(id).or_default();
                attempts.retain(|job| job.state.attempt > *through);
                UnitOutcome::Applied { seq: attempts.first().map_or(0, |job| job.seq), event: 0 }
            }
            JobChange::Remove { .. } => {
                let removed = self.jobs.remove(&id).unwrap_or_default();
                UnitOutcome::Applied { seq: removed.first().map_or(0, |job| job.seq), event: 0 }
            }
        }
    }

    fn load(&mut self, item: &Item) -> Result<(), StoreError> {
        let is_new = match item.clone() {
            Item::Counters(Counters { last_seq, last_event }) => {
                self.last_seq = self.last_seq.max(last_seq);
                self.last_event = self.last_event.max(last_event);
                true
            }
            Item::Document { kind, key, body } => self.documents.insert((kind, key), body).is_none(),
            Item::Job(attempts) => match attempts.first() {
                Some(first) => {
                    self.last_seq = self.last_seq.max(first.seq);
                    let has_place = |other: &Vec<Job>| other.first().is_some_and(|job| job.seq == first.seq);
                    let is_free = !self.jobs.values().any(has_place);
                    self.jobs.insert(first.id.clone(), attempts).is_none() && is_free
                }
                None => true,
            },
            Item::Event(event) => {
                let is_new = event.seq > self.events.last().map_or(0, |last| last.seq);
                self.last_event = self.last_event.max(event.seq);
                self.events.push(event);
                is_new
            }
        };
        if is_new { Ok(()) } else { Err(item.is_there_already("memory".into())) }
    }

    fn append_event(&mut self, id: JobId, state: &JobState) -> UnitOutcome {
        self.last_event += 1;
        let seq = self.newest(&id).map_or(0, |job| job.seq);
        self.events.push(JobEvent {
            seq: self.last_event,
            attempt: crate::id::AttemptId { id, attempt: state.attempt },
            status: state.status,
            reason: state.reason,
            at: state.last_update,
        });
        UnitOutcome::Applied { seq, event: self.last_event }
    }
}

impl JobStore for MemoryStore {
    fn commit(&self, units: &[Unit]) -> Result<Vec<UnitOutcome>, StoreError> {
        let mut tables = self.tables();
        Ok(units.iter().map(|unit| tables.apply(unit)).collect())
    }

    fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        Ok(self.tables().newest(id).cloned())
    }

    fn jobs(&self, request: &PageRequest) -> Result<Page, StoreError> {
        let tables = self.tables();
        let newest = tables.jobs.values().filter_map(|attempts| attempts.last());
        let mut jobs: Vec<&Job> = newest.filter(|job| request.filter.matches(job)).collect();
        jobs.sort_by_key(|job| job.seq);
        if request.order == Order::NewestFirst {
            jobs.reverse();
        }
        let behind = |job: &&&Job| match (request.after, request.order) {
            (None, _) => true,
            (Some(after), Order::OldestFirst) => job.seq > after,
            (Some(after), Order::NewestFirst) => job.seq < after,
        };
        let mut rest = jobs.iter().filter(behind);
        let page: Vec<Job> = rest.by_ref().take(request.limit).map(|job| (*job).clone()).collect();
        let next = rest.next().and(page.last()).map(|job| job.seq);
        Ok(Page { jobs: page, next })
    }

    fn counts(&self) -> Result<BTreeMap<Status, u64>, StoreError> {
        let tables = self.tables();
        let mut counts = BTreeMap::new();
        for job in tables.jobs.values().filter_map(|attempts| attempts.last()) {
            *counts.entry(job.state.status).or_insert(0) += 1;
        }
        Ok(counts)
    }

    fn attempts(&self, id: &JobId) -> Result<Vec<Job>, StoreError> {
        Ok(self.tables().jobs.get(id).cloned().unwrap_or_default())
    }

    fn events(&self, after: u64, limit: usize) -> Result<Vec<JobEvent>, StoreError> {
        Ok(self.tables().events.iter().filter(|event| event.seq > after).take(limit).cloned().collect())
    }

    fn document(&self, kind: DocumentKind, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables().documents.get(&(kind, key.to_owned())).cloned())
    }

    fn documents(
        &self,
        kind: DocumentKind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let tables = self.tables();
        let from = (kind, prefix.to_owned());
        let family =
            tables.documents.range(from..).take_while(|((k, key), _)| *k == kind && key.starts_with(prefix));
        let behind = family.filter(|((_, key), _)| after.is_none_or(|after| key.as_str() > after));
        Ok(behind.take(limit).map(|((_, key), body)| (key.clone(), body.clone())).collect())
    }

    fn counters(&self) -> Result<Counters, StoreError> {
        let tables = self.tables();
        Ok(Counters { last_seq: tables.last_seq, last_event: tables.last_event })
    }

    fn load(&self, items: &[Item]) -> Result<(), StoreError> {
        let mut tables = self.tables();
        let mut loaded = tables.clone();
        items.iter().try_for_each(|item| loaded.load(item))?;
        *tables = loaded;
        Ok(())
    }

    fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<Check, StoreError> {
        check_content(self, progress)
    }

    fn info(&self) -> StoreInfo {
        StoreInfo {
            engine: "memory".to_owned(),
            format: 1,
            path: None,
            shareable: false,
            weaker: vec!["everything is lost when the process ends".to_owned()],
        }
    }
}
