//! Jobs, changes and reads in a few words, for the rules.

use super::super::content::{Item, walk};
use super::super::{
    DocumentChange, DocumentKind, JobChange, JobStore, Order, PageRequest, StoreError, Unit, UnitOutcome,
};
use crate::filter::JobFilter;
use crate::job::{Definition, Job, JobState};
use crate::spec::{Command, JobSpec};
use crate::{JobId, Status, Timestamp};

const NOW: i64 = 1_784_000_000_000;

pub(super) fn id(text: &str) -> JobId {
    JobId::new(text).expect("a valid id")
}

pub(super) fn definition(word: &str) -> Definition {
    let spec = JobSpec::new(Command::argv(["echo", word]), "/tmp");
    Definition::new(&spec, "/logs".into(), Timestamp::from_millis(NOW))
}

pub(super) fn state(attempt: u32, status: Status) -> JobState {
    JobState::new(attempt, status, Timestamp::from_millis(NOW))
}

pub(super) fn insert(name: &str, status: Status) -> Unit {
    insert_with(name, definition(name), status)
}

pub(super) fn insert_with(name: &str, definition: Definition, status: Status) -> Unit {
    JobChange::Insert { id: id(name), definition: Box::new(definition), state: state(1, status) }.into()
}

pub(super) fn update(name: &str, expected: u64, status: Status) -> Unit {
    update_attempt(name, expected, 1, status)
}

pub(super) fn update_attempt(name: &str, expected: u64, attempt: u32, status: Status) -> Unit {
    JobChange::Update { id: id(name), expected, state: state(attempt, status) }.into()
}

pub(super) fn new_attempt(name: &str, expected: u64, attempt: u32, status: Status) -> Unit {
    let definition = Box::new(definition(&format!("attempt {attempt} of {name}")));
    JobChange::NewAttempt { id: id(name), expected, definition, state: state(attempt, status) }.into()
}

pub(super) fn remove(name: &str, expected: u64) -> Unit {
    JobChange::Remove { id: id(name), expected }.into()
}

pub(super) fn put(kind: DocumentKind, key: &str, body: &[u8]) -> DocumentChange {
    DocumentChange::Put { kind, key: key.to_owned(), body: body.to_vec() }
}

pub(super) fn documents(documents: impl IntoIterator<Item = DocumentChange>) -> Unit {
    Unit { job: None, documents: documents.into_iter().collect() }
}

/// The unit with a document.
pub(super) fn with(mut unit: Unit, document: DocumentChange) -> Unit {
    unit.documents.push(document);
    unit
}

pub(super) fn applied(seq: u64, event: u64) -> UnitOutcome {
    UnitOutcome::Applied { seq, event }
}

/// Commits what shall be applied wholly.
pub(super) fn commit(store: &dyn JobStore, units: &[Unit]) {
    let outcomes = store.commit(units).expect("committed");
    let all_applied = outcomes.iter().all(|outcome| matches!(outcome, UnitOutcome::Applied { .. }));
    assert!(all_applied && outcomes.len() == units.len(), "{outcomes:?} of {units:?}");
}

pub(super) fn request(order: Order, after: Option<u64>, limit: usize) -> PageRequest {
    PageRequest { filter: JobFilter::default(), order, after, limit }
}

pub(super) fn job(store: &dyn JobStore, name: &str) -> Option<Job> {
    store.job(&id(name)).expect("a job can be read")
}

pub(super) fn all_jobs(store: &dyn JobStore) -> Vec<Job> {
    store.jobs(&request(Order::OldestFirst, None, usize::MAX)).expect("jobs can be listed").jobs
}

/// Everything a store holds.
pub(super) fn content(store: &dyn JobStore) -> Vec<Item> {
    try_content(store).expect("a store can be walked through")
}

pub(super) fn try_content(store: &dyn JobStore) -> Result<Vec<Item>, StoreError> {
    let mut items: Vec<Item> = Vec::new();
    let walked = walk(store, |item| {
        let goes_on = items.last().is_none_or(|last| is_before(last, &item));
        items.push(item);
        if goes_on { Ok(()) } else { Err(Stop::Circle) }
    });
    match walked {
        // With one piece too many this is not what anybody expects; going on might never end.
        Ok(()) | Err(Stop::Circle) => Ok(items),
        Err(Stop::Store(error)) => Err(error),
    }
}

enum Stop {
    Circle,
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Stop::Store(error)
    }
}

fn is_before(first: &Item, second: &Item) -> bool {
    match (first, second) {
        (Item::Document { kind, key, .. }, Item::Document { kind: next_kind, key: next, .. }) => {
            (kind, key) < (next_kind, next)
        }
        (Item::Job(first), Item::Job(second)) => {
            first.first().map(|job| job.seq) < second.first().map(|job| job.seq)
        }
        (Item::Event(first), Item::Event(second)) => first.seq < second.seq,
        _ => true,
    }
}

/// Asserts that both hold the same; says in few words what they do not agree about.
pub(super) fn assert_same(found: &[Item], expected: &[Item], what: &str) {
    if found == expected {
        return;
    }
    let missing = expected.iter().find(|item| !found.contains(item));
    let extra = found.iter().find(|item| !expected.contains(item));
    panic!(
        "{what}: {} items instead of {}; the first that is missing: {}; the first that should not be: {}",
        found.len(),
        expected.len(),
        missing.map_or_else(|| "none".to_owned(), short),
        extra.map_or_else(|| "none".to_owned(), short),
    );
}

fn short(item: &Item) -> String {
    let text = format!("{item:?}");
    let cut: String = text.chars().take(1000).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}

pub(super) fn assert_sound(store: &dyn JobStore) {
    let check = store.check(&mut |_| {}).expect("a check can be made");
    assert!(check.is_sound(), "the check found: {:#?}", check.problems);
}
