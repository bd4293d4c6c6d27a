//! `commit` and `load`, and the indexes that follow a job.
//!
//! Each unit is decided by looking at its job before anything of it is written, so a rejected unit leaves no trace. An
//! error takes back the whole commit: that is the engine's part.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use super::super::content::{Counters, Item};
use super::super::{DocumentChange, JobChange, StoreError, StoredHead, Unit, UnitOutcome};
use super::record::{self, NewState, StoredState, Totals};
use super::{Changes, Direction, keys};
use crate::id::JobId;
use crate::job::{Definition, Job, JobState};

/// Applies the units in order.
pub(super) fn commit(changes: &mut dyn Changes, units: &[Unit]) -> Result<Vec<UnitOutcome>, StoreError> {
    let before = record::totals(changes)?;
    let mut writer = Writer { changes, totals: before.clone() };
    let outcomes = units.iter().map(|unit| writer.apply(unit)).collect::<Result<_, _>>()?;
    writer.finish(&before)?;
    Ok(outcomes)
}

/// Adds the items as they are.
pub(super) fn load(changes: &mut dyn Changes, items: &[Item], path: &Path) -> Result<(), StoreError> {
    let before = record::totals(changes)?;
    let mut writer = Writer { changes, totals: before.clone() };
    for item in items {
        if !writer.load(item)? {
            return Err(item.is_there_already(path.to_owned()));
        }
    }
    writer.finish(&before)
}

struct Writer<'c> {
    changes: &'c mut dyn Changes,
    totals: Totals,
}

impl Writer<'_> {
    fn finish(self, before: &Totals) -> Result<(), StoreError> {
        if self.totals == *before {
            return Ok(());
        }
        self.changes.put(keys::TOTALS, &record::encode(&self.totals))
    }

    fn apply(&mut self, unit: &Unit) -> Result<UnitOutcome, StoreError> {
        let mut outcome = UnitOutcome::Applied { seq: 0, event: 0 };
        if let Some(change) = &unit.job {
            let stored = self.stored(change.id())?;
            let head = stored.as_ref().map(|(_, stored)| StoredHead {
                revision: stored.revision,
                attempt: stored.state.attempt,
                status: stored.state.status,
            });
            if let Err(rejection) = change.check(head) {
                return Ok(UnitOutcome::Rejected(rejection));
            }
            outcome = self.apply_checked(change, stored)?;
        }
        for change in &unit.documents {
            match change {
                DocumentChange::Put { kind, key, body } => {
                    self.changes.put(&keys::document(*kind, key), &record::encode_document(key, body))?;
                }
                DocumentChange::PutIfAbsent { kind, key, body } => {
                    let place = keys::document(*kind, key);
                    if self.changes.get(&place)?.is_none() {
                        self.changes.put(&place, &record::encode_document(key, body))?;
                    }
                }
                DocumentChange::Remove { kind, key } => self.changes.delete(&keys::document(*kind, key))?,
            }
        }
        Ok(outcome)
    }

    fn stored(&self, id: &JobId) -> Result<Option<(u64, StoredState)>, StoreError> {
        match record::seq_of(self.changes, id)? {
            Some(seq) => Ok(Some((seq, record::newest_state(self.changes, seq)?))),
            None => Ok(None),
        }
    }

    /// The change of a job that is stored like this.
    fn apply_checked(
        &mut self,
        change: &JobChange,
        stored: Option<(u64, StoredState)>,
    ) -> Result<UnitOutcome, StoreError> {
        let id = change.id();
        let revision = change.revision_after().unwrap_or(0);
        match (change, stored) {
            (JobChange::Insert { definition, state: new, .. }, _) => {
                let seq = self.totals.counters.last_seq + 1;
                self.totals.counters.last_seq = seq;
                self.insert(seq, &NewState { id, revision, state: new }, definition)?;
                self.append_event(seq, id, new)
            }
            (JobChange::NewAttempt { definition, state: new, .. }, Some((seq, old))) => {
                let old_definition = record::definition(self.changes, seq, id, old.state.attempt)?;
                self.changes.put(&keys::attempt(seq, old.state.attempt), &record::encode(&old))?;
                self.put_state(seq, &NewState { id, revision, state: new })?;
                self.put_definition(seq, new.attempt, definition)?;
                let before = keys::indexes(seq, &old_definition, &old.state);
                self.reindex(&before, &keys::indexes(seq, definition, new))?;
                self.recount(&old.state, new);
                self.append_event(seq, id, new)
            }
            (JobChange::Update { state: new, .. }, Some((seq, old))) => {
                self.put_state(seq, &NewState { id, revision, state: new })?;
                // What the definition says stays the same.
                if old.state.status != new.status {
                    self.move_index(seq, &keys::status(old.state.status), &keys::status(new.status))?;
                    self.recount(&old.state, new);
                }
                if old.state.last_update != new.last_update {
                    let [before, after] = [old.state.last_update, new.last_update].map(keys::last_update);
                    self.move_index(seq, &before, &after)?;
                }
                self.append_event(seq, id, new)
            }
            (JobChange::Redefine { definition, state: new, .. }, Some((seq, old))) => {
                let old_definition = record::definition(self.changes, seq, id, old.state.attempt)?;
                self.put_state(seq, &NewState { id, revision, state: new })?;
                self.put_definition(seq, new.attempt, definition)?;
                let before = keys::indexes(seq, &old_definition, &old.state);
                self.reindex(&before, &keys::indexes(seq, definition, new))?;
                self.append_event(seq, id, new)
            }
            (JobChange::ForgetAttempts { through, .. }, Some((seq, _))) => {
                for (prefix, end) in [
                    (keys::ATTEMPTS, keys::attempt(seq, through + 1)),
                    (keys::DEFINITIONS, keys::definition(seq, through + 1)),
                ] {
                    self.delete_between(&keys::numbered(prefix, seq), &end)?;
                }
                Ok(UnitOutcome::Applied { seq, event: 0 })
            }
            (JobChange::Remove { .. }, Some((seq, old))) => {
                self.remove(seq, &old)?;
                Ok(UnitOutcome::Applied { seq, event: 0 })
            }
            // A change that needs a job was checked against the one there is.
            (_, None) => Ok(UnitOutcome::Rejected(super::super::Rejection::Missing)),
        }
    }

    fn insert(&mut self, seq: u64, new: &NewState<'_>, definition: &Definition) -> Result<(), StoreError> {
        self.changes.put(&keys::id(new.id), &record::encode_seq(seq))?;
        self.put_state(seq, new)?;
        self.put_definition(seq, new.state.attempt, definition)?;
        self.reindex(&BTreeSet::new(), &keys::indexes(seq, definition, new.state))?;
        *self.totals.counts.entry(new.state.status).or_insert(0) += 1;
        Ok(())
    }

    fn remove(&mut self, seq: u64, stored: &StoredState) -> Result<(), StoreError> {
        let definition = record::definition(self.changes, seq, &stored.id, stored.state.attempt)?;
        self.reindex(&keys::indexes(seq, &definition, &stored.state), &BTreeSet::new())?;
        for prefix in [keys::ATTEMPTS, keys::DEFINITIONS].map(|prefix| keys::numbered(prefix, seq)) {
            self.delete_between(&prefix, &keys::behind(&prefix))?;
        }
        self.changes.delete(&keys::job(seq))?;
        self.changes.delete(&keys::id(&stored.id))?;
        self.uncount(&stored.state);
        Ok(())
    }

    fn delete_between(&mut self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        self.changes.scan(from, to, Direction::Forward, &mut |key, _| {
            gone.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        gone.iter().try_for_each(|key| self.changes.delete(key))
    }

    fn put_state(&mut self, seq: u64, new: &NewState<'_>) -> Result<(), StoreError> {
        self.changes.put(&keys::job(seq), &record::encode(new))
    }

    fn put_definition(&mut self, seq: u64, attempt: u32, definition: &Definition) -> Result<(), StoreError> {
        self.changes.put(&keys::definition(seq, attempt), &record::encode(definition))
    }

    fn reindex(&mut self, before: &BTreeSet<Vec<u8>>, after: &BTreeSet<Vec<u8>>) -> Result<(), StoreError> {
        before.difference(after).try_for_each(|key| self.changes.delete(key))?;
        after.difference(before).try_for_each(|key| self.changes.put(key, &[]))
    }

    fn move_index(&mut self, seq: u64, before: &[u8], after: &[u8]) -> Result<(), StoreError> {
        self.changes.delete(&keys::numbered(before, seq))?;
        self.changes.put(&keys::numbered(after, seq), &[])
    }

    fn recount(&mut self, old: &JobState, new: &JobState) {
        self.uncount(old);
        *self.totals.counts.entry(new.status).or_insert(0) += 1;
    }

    fn uncount(&mut self, old: &JobState) {
        // A total that is wrong stays wrong until a check finds it: no reason to refuse the job's change.
        if let Some(count) = self.totals.counts.get_mut(&old.status) {
            *count = count.saturating_sub(1);
        }
    }

    fn append_event(&mut self, seq: u64, id: &JobId, state: &JobState) -> Result<UnitOutcome, StoreError> {
        let event = self.totals.counters.last_event + 1;
        self.totals.counters.last_event = event;
        self.changes.put(&keys::event(event), &record::encode_event_of(id, state))?;
        Ok(UnitOutcome::Applied { seq, event })
    }

    /// Whether the item is new here.
    fn load(&mut self, item: &Item) -> Result<bool, StoreError> {
        match item {
            Item::Counters(Counters { last_seq, last_event }) => {
                let counters = &mut self.totals.counters;
                counters.last_seq = counters.last_seq.max(*last_seq);
                counters.last_event = counters.last_event.max(*last_event);
                Ok(true)
            }
            Item::Document { kind, key, body } => {
                let place = keys::document(*kind, key);
                self.put_new(&place, &record::encode_document(key, body))
            }
            Item::Event(event) => {
                let last = &mut self.totals.counters.last_event;
                *last = event.seq.max(*last);
                self.put_new(&keys::event(event.seq), &record::encode_event(event))
            }
            Item::Job(attempts) => {
                let Some((newest, earlier)) = attempts.split_last() else { return Ok(true) };
                let is_new = self.changes.get(&keys::id(&newest.id))?.is_none()
                    && self.changes.get(&keys::job(newest.seq))?.is_none();
                if !is_new {
                    return Ok(false);
                }
                fn stored(job: &Job) -> NewState<'_> {
                    NewState { id: &job.id, revision: job.revision, state: &job.state }
                }
                let last = &mut self.totals.counters.last_seq;
                *last = newest.seq.max(*last);
                self.insert(newest.seq, &stored(newest), &newest.definition)?;
                for job in earlier {
                    let place = keys::attempt(job.seq, job.state.attempt);
                    self.changes.put(&place, &record::encode(&stored(job)))?;
                    self.put_definition(job.seq, job.state.attempt, &job.definition)?;
                }
                Ok(true)
            }
        }
    }

    fn put_new(&mut self, key: &[u8], record: &[u8]) -> Result<bool, StoreError> {
        let is_new = self.changes.get(key)?.is_none();
        if is_new {
            self.changes.put(key, record)?;
        }
        Ok(is_new)
    }
}
