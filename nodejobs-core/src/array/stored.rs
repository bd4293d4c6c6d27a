//! What a store has of an array, read.

use std::collections::{BTreeMap, HashMap};

use serde::de::DeserializeOwned;

use super::{Again, Content, LABEL, Plan, Progress, Template, plan_key};
use crate::filter::JobFilter;
use crate::id::JobId;
use crate::job::{Job, Origin};
use crate::spec::Elements;
use crate::status::Status;
use crate::store::{DocumentKind, JobStore, Order, PageRequest, StoreError};

/// Elements that are read at a time.
const BATCH: usize = 500;

/// Which elements of an array that has ended are to run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those that did not finish.
    Unfinished,
    /// The one of that number.
    One(u32),
}

fn read<T: DeserializeOwned>(
    store: &dyn JobStore,
    kind: DocumentKind,
    key: &str,
) -> Result<Option<T>, StoreError> {
    let Some(body) = store.document(kind, key)? else { return Ok(None) };
    serde_json::from_slice(&body).map(Some).map_err(|error| damaged(kind, key, error))
}

fn damaged(
    kind: DocumentKind,
    key: &str,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Damaged { what: format!("document {} '{key}'", kind.as_str()), source: why.into() }
}

fn there<T: DeserializeOwned>(store: &dyn JobStore, kind: DocumentKind, key: &str) -> Result<T, StoreError> {
    read(store, kind, key)?.ok_or_else(|| damaged(kind, key, "it is missing"))
}

/// The values of an array's elements.
///
/// # Errors
/// When the store cannot be read, or has none of them.
pub fn elements(store: &dyn JobStore, parent: &JobId) -> Result<Elements, StoreError> {
    there(store, DocumentKind::Array, parent.as_str())
}

/// How far the newest attempt of an array got.
///
/// # Errors
/// When the store cannot be read, or does not say it.
pub fn progress(store: &dyn JobStore, parent: &JobId) -> Result<Progress, StoreError> {
    there(store, DocumentKind::Progress, parent.as_str())
}

/// What an array's jobs are made of.
///
/// # Errors
/// When the store cannot be read, or what is there makes no array.
pub fn template(store: &dyn JobStore, parent: &Job) -> Result<Template, StoreError> {
    let elements = elements(store, &parent.id)?;
    Template::new(parent.id.clone(), &parent.definition, elements)
        .map_err(|error| damaged(DocumentKind::Array, parent.id.as_str(), error))
}

/// Everything of the arrays among live jobs.
///
/// # Errors
/// When the store cannot be read, or what is there makes no array.
pub fn contents(store: &dyn JobStore, live: &[Job]) -> Result<HashMap<JobId, Content>, StoreError> {
    let mut contents = HashMap::new();
    for parent in live {
        let Some(array) = &parent.definition.array else { continue };
        let elements = template(store, parent)?.elements;
        let plan = match parent.state.attempt {
            1 => Plan::All(array.size),
            attempt => there(store, DocumentKind::Array, &plan_key(&parent.id, attempt))?,
        };
        let progress = progress(store, &parent.id)?;
        contents.insert(parent.id.clone(), Content { elements, plan, progress });
    }
    Ok(contents)
}

/// The next attempt of an array that has ended. Its plan is empty if there is nothing to run again.
///
/// # Errors
/// When the store cannot be read, or what is there makes no array.
pub fn next_attempt(store: &dyn JobStore, parent: &Job, which: Which) -> Result<Content, StoreError> {
    let elements = template(store, parent)?.elements;
    let size = parent.definition.array.as_ref().map_or(0, |array| array.size);
    let mut known: BTreeMap<u32, (Again, Status)> = BTreeMap::new();
    each_element(store, &parent.id, |job, index| {
        let again = Again { index, attempt: job.state.attempt, revision: job.revision };
        known.insert(index, (again, job.state.status));
    })?;
    let (mut again, mut ended, mut left_out) = (Vec::new(), BTreeMap::new(), 0);
    for index in 1..=size {
        let found = known.get(&index).copied();
        let is_wanted = match which {
            Which::All => true,
            Which::Unfinished => found.is_none_or(|(_, status)| status != Status::Finished),
            Which::One(one) => one == index,
        };
        match found {
            found if is_wanted => {
                again.push(found.map_or(Again { index, attempt: 0, revision: 0 }, |(again, _)| again));
            }
            Some((_, status)) => *ended.entry(status).or_default() += 1,
            None => left_out += 1,
        }
    }
    let plan = Plan::Some(again);
    let progress = Progress { planned: plan.len(), left_out, ended, ..Progress::default() };
    Ok(Content { elements, plan, progress })
}

/// Visits the elements of an array that have jobs, in the order in which they were begun first.
fn each_element(
    store: &dyn JobStore,
    parent: &JobId,
    mut visit: impl FnMut(&Job, u32),
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let label = vec![(LABEL.to_owned(), Some(parent.to_string()))];
        let filter = JobFilter { label, is_element: Some(true), ..JobFilter::default() };
        let page = store.jobs(&PageRequest { filter, order: Order::OldestFirst, after, limit: BATCH })?;
        for job in &page.jobs {
            if let Some(Origin::Element { array, index, .. }) = &job.definition.origin
                && array == parent
            {
                visit(job, *index);
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}
