//! A store's whole content: going through it piece by piece, and whether it agrees with itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{DocumentKind, JobEvent, JobStore, Order, PageRequest, StoreError};
use crate::filter::JobFilter;
use crate::job::Job;

/// Jobs and events that are read at once.
const BATCH: usize = 500;
/// Documents that are read at once; some are large.
const DOCUMENT_BATCH: usize = 16;
/// Problems that a check says one by one.
const SAID: usize = 100;

/// The last numbers that a store has given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// The highest `seq` a job ever had, 0 if there never was one.
    pub last_seq: u64,
    /// The number of the last event, 0 if there never was one.
    pub last_event: u64,
}

/// A piece of what a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The numbers given out so far.
    Counters(Counters),
    /// A document.
    Document {
        /// Its family.
        kind: DocumentKind,
        /// Its key within the family.
        key: String,
        /// What it says.
        body: Vec<u8>,
    },
    /// A job: all its attempts, oldest first.
    Job(Vec<Job>),
    /// An event.
    Event(JobEvent),
}

impl Item {
    /// What it is, in words: `job a1b2`.
    pub fn describe(&self) -> String {
        match self {
            Item::Counters(_) => "the counters".to_owned(),
            Item::Document { kind, key, .. } => format!("document {} '{key}'", kind.as_str()),
            Item::Job(attempts) => attempts
                .first()
                .map_or_else(|| "a job without an attempt".to_owned(), |job| format!("job {}", job.id)),
            Item::Event(event) => format!("event {}", event.seq),
        }
    }

    /// The error of a store that cannot add it because it has one like it.
    pub fn is_there_already(&self, path: PathBuf) -> StoreError {
        let source = format!("{} is there already", self.describe()).into();
        StoreError::Failed { operation: "load into", path, source }
    }
}

/// Goes through everything a store holds: counters, documents, jobs and events, each in order.
///
/// # Errors
/// When the store cannot be read, and what `visit` says.
pub fn walk<E: From<StoreError>>(
    store: &dyn JobStore,
    mut visit: impl FnMut(Item) -> Result<(), E>,
) -> Result<(), E> {
    visit(Item::Counters(store.counters()?))?;
    for kind in DocumentKind::ALL {
        let mut after: Option<String> = None;
        loop {
            let batch = store.documents(kind, "", after.as_deref(), DOCUMENT_BATCH)?;
            let Some((last, _)) = batch.last() else { break };
            after = Some(last.clone());
            for (key, body) in batch {
                visit(Item::Document { kind, key, body })?;
            }
        }
    }
    let mut after = None;
    loop {
        let page = store.jobs(&everything(after))?;
        after = page.next;
        for job in page.jobs {
            // Nearly all jobs have one attempt, and that is the one the page shows.
            let attempts = if job.state.attempt == 1 { vec![job] } else { store.attempts(&job.id)? };
            visit(Item::Job(attempts))?;
        }
        if after.is_none() {
            break;
        }
    }
    let mut last = 0;
    loop {
        let events = store.events(last, BATCH)?;
        let Some(newest) = events.last() else { return Ok(()) };
        last = newest.seq;
        events.into_iter().try_for_each(|event| visit(Item::Event(event)))?;
    }
}

fn everything(after: Option<u64>) -> PageRequest {
    PageRequest { filter: JobFilter::default(), order: Order::OldestFirst, after, limit: BATCH }
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Check {
    /// Jobs read.
    pub jobs: u64,
    /// Attempts read, the newest ones included.
    pub attempts: u64,
    /// Events read.
    pub events: u64,
    /// Documents read.
    pub documents: u64,
    /// What is wrong, each naming the record; the first hundred.
    pub problems: Vec<String>,
    /// How many more there are.
    pub more_problems: u64,
}

impl Check {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// Notes something that is wrong, once.
    pub fn problem(&mut self, text: impl Into<String>) {
        let text = text.into();
        if self.problems.contains(&text) {
            return;
        }
        if self.problems.len() < SAID {
            self.problems.push(text);
        } else {
            self.more_problems += 1;
        }
    }

    /// Notes damage and goes on; any other error ends the check.
    ///
    /// # Errors
    /// What is not [`StoreError::Damaged`].
    pub fn note_damage<T>(&mut self, result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Damaged { what, source }) => {
                self.problem(format!("{what}: {source}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The part of every store's check that needs nothing but its reads.
///
/// # Errors
/// When the store cannot be read; damage is in the [`Check`].
pub fn check_content(store: &dyn JobStore, progress: &mut dyn FnMut(u64)) -> Result<Check, StoreError> {
    let mut check = Check::default();
    let mut tally = Tally::default();
    let mut read = 0;
    let walked = walk(store, |item| {
        read += 1;
        if read % 1000 == 0 {
            progress(read);
        }
        tally.take(&mut check, store, &item)
    });
    if check.note_damage(walked)?.is_some() {
        let counted = store.counts();
        if let Some(counts) = check.note_damage(counted)?
            && counts != tally.counts
        {
            check.problem(format!("the counts say {counts:?}, the jobs {:?}", tally.counts));
        }
        if tally.counters.last_event != tally.last_event {
            check.problem(format!(
                "the last event is {}, but {} was given out",
                tally.last_event, tally.counters.last_event
            ));
        }
    }
    progress(read);
    Ok(check)
}

/// What was seen so far.
#[derive(Default)]
struct Tally {
    counters: Counters,
    counts: BTreeMap<crate::Status, u64>,
    last_seq: u64,
    last_event: u64,
}

impl Tally {
    fn take(&mut self, check: &mut Check, store: &dyn JobStore, item: &Item) -> Result<(), StoreError> {
        match item {
            Item::Counters(counters) => self.counters = *counters,
            Item::Document { .. } => check.documents += 1,
            Item::Event(event) => {
                check.events += 1;
                // Older ones may have been pruned.
                if self.last_event != 0 && event.seq != self.last_event + 1 {
                    check.problem(format!("event {} follows event {}", event.seq, self.last_event));
                }
                self.last_event = event.seq;
            }
            Item::Job(attempts) => {
                check.jobs += 1;
                check.attempts += attempts.len() as u64;
                self.take_job(check, store, attempts)?;
            }
        }
        Ok(())
    }

    fn take_job(
        &mut self,
        check: &mut Check,
        store: &dyn JobStore,
        attempts: &[Job],
    ) -> Result<(), StoreError> {
        let Some((newest, earlier)) = attempts.split_last() else {
            check.problem("a job has no attempt");
            return Ok(());
        };
        let (id, seq) = (&newest.id, newest.seq);
        *self.counts.entry(newest.state.status).or_insert(0) += 1;
        if seq <= self.last_seq || seq > self.counters.last_seq {
            check.problem(format!(
                "job {id} has seq {seq} after {}, with {} given out",
                self.last_seq, self.counters.last_seq
            ));
        }
        self.last_seq = seq;
        // The oldest ones may be forgotten.
        let first = attempts.first().map_or(1, |job| job.state.attempt.max(1));
        for (job, number) in attempts.iter().zip(first..) {
            if job.state.attempt != number || job.id != *id || job.seq != seq {
                check.problem(format!(
                    "attempt {number} of job {id} (seq {seq}) says that it is attempt {} of {} (seq {})",
                    job.state.attempt, job.id, job.seq
                ));
            }
        }
        if let Some(job) = earlier.iter().find(|job| !job.state.status.is_terminal()) {
            check.problem(format!("attempt {} of job {id} has not ended", job.state.attempt));
        }
        let by_id = store.job(id);
        if let Some(found) = check.note_damage(by_id)?
            && found.as_ref() != Some(newest)
        {
            check.problem(format!("job {id} (seq {seq}) is not what is found by its id"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Definition, JobState};
    use crate::spec::{Command, JobSpec};
    use crate::store::memory::MemoryStore;
    use crate::store::{DocumentChange, JobChange, Unit};
    use crate::{JobId, Status, Timestamp};

    fn filled() -> MemoryStore {
        let store = MemoryStore::new();
        let now = Timestamp::default();
        let definition = || {
            let spec = JobSpec::new(Command::argv(["true"]), "/");
            Box::new(Definition::new(&spec, "/logs".into(), now))
        };
        let id = |name: &str| JobId::new(name).expect("a valid id");
        let insert = |name: &str| JobChange::Insert {
            id: id(name),
            definition: definition(),
            state: JobState::new(1, Status::Finished, now),
        };
        let again = JobChange::NewAttempt {
            id: id("a"),
            expected: 1,
            definition: definition(),
            state: JobState::new(2, Status::Queued, now),
        };
        let put = DocumentChange::Put { kind: DocumentKind::Meta, key: "k".to_owned(), body: b"v".to_vec() };
        let mut units: Vec<Unit> = ["a", "b", "c"].map(|name| insert(name).into()).into();
        units.extend([again.into(), JobChange::Remove { id: id("c"), expected: 1 }.into()]);
        units.push(Unit { job: None, documents: vec![put] });
        store.commit(&units).expect("committed");
        store
    }

    fn items(store: &MemoryStore) -> Vec<Item> {
        let mut items = Vec::new();
        walk(store, |item| {
            items.push(item);
            Ok::<_, StoreError>(())
        })
        .expect("readable");
        items
    }

    #[test]
    fn what_was_walked_through_fills_another_store_with_the_same() {
        let store = filled();
        let found = items(&store);
        assert_eq!(found.len(), 1 + 1 + 2 + 4);
        let other = MemoryStore::new();
        other.load(&found).expect("loaded");
        assert_eq!(items(&other), found);
        assert_eq!(other.counters().expect("counters"), Counters { last_seq: 3, last_event: 4 });
        let mut heard = 0;
        let check = other.check(&mut |read| heard = read).expect("checked");
        assert_eq!((check.jobs, check.attempts, check.events, check.documents, heard), (2, 3, 4, 1, 8));
        assert!(check.is_sound(), "{check:?}");
        for item in &found[1..] {
            let error = other.load(std::slice::from_ref(item)).expect_err("there already");
            let source = std::error::Error::source(&error).expect("a source").to_string();
            assert_eq!(source, format!("{} is there already", item.describe()));
        }
        assert_eq!(items(&other), found);
    }

    #[test]
    fn what_does_not_fit_together_is_found() {
        let found = items(&filled());
        let broken = |change: &dyn Fn(&mut Item)| {
            let mut items = found.clone();
            items.iter_mut().for_each(change);
            let store = MemoryStore::new();
            store.load(&items).expect("loaded");
            store.check(&mut |_| {}).expect("checked").problems
        };
        assert_eq!(broken(&|_| {}), [""; 0]);
        let gap = broken(&|item| {
            if let Item::Event(event) = item
                && event.seq > 2
            {
                event.seq += 1;
            }
        });
        assert_eq!(gap, ["event 4 follows event 2"]);
        let attempts = broken(&|item| {
            if let Item::Job(attempts) = item {
                attempts[0].state.attempt += 1;
            }
        });
        assert_eq!(attempts.len(), 1, "{attempts:?}");
        let oldest_is_gone = broken(&|item| {
            if let Item::Job(attempts) = item
                && attempts.len() == 2
            {
                attempts.remove(0);
            }
        });
        assert_eq!(oldest_is_gone, [""; 0]);
        let living = broken(&|item| {
            if let Item::Job(attempts) = item
                && attempts.len() == 2
            {
                attempts[0].state.status = Status::Running;
            }
        });
        assert_eq!(living, ["attempt 1 of job a has not ended"]);
    }
}
