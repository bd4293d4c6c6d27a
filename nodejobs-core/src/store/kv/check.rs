//! Whether indexes and records agree: each record has its entries, and each entry its record.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::super::StoreError;
use super::super::content::Check;
use super::record::{self, StoredState, Unreadable};
use super::{Direction, View, keys};
use crate::job::Definition;
use crate::status::Status;

pub(super) fn indexes(view: &dyn View, check: &mut Check) -> Result<(), StoreError> {
    let mut expected = Counted::default();
    let mut counts = BTreeMap::new();
    walk(view, keys::JOBS, |key, value| {
        let seq = keys::last_number(key).unwrap_or(0);
        let stored = match record::decode::<StoredState>(value) {
            Ok(stored) => stored,
            Err(why) => {
                let error = record::state_damaged(view, seq, why)?;
                return check.note_damage::<()>(Err(error)).map(drop);
            }
        };
        *counts.entry(stored.state.status).or_insert(0) += 1;
        let entries = job(view, check, seq, &stored)?;
        expected.jobs += 1;
        expected.entries += entries;
        Ok(())
    })?;
    compare_counts(view, check, &counts)?;
    // Each entry that a job expects is there; so where the numbers agree, there is no other.
    let found = Counted {
        jobs: count(view, keys::IDS)?,
        entries: keys::INDEXES.iter().map(|prefix| count(view, prefix)).sum::<Result<u64, _>>()?,
    };
    if found.jobs != expected.jobs {
        check.problem(format!("{} ids lead to {} jobs", found.jobs, expected.jobs));
    }
    // Whether attempts are missing between those that are there is found when they are read.
    let (definitions, earlier) = (count(view, keys::DEFINITIONS)?, count(view, keys::ATTEMPTS)?);
    if definitions != earlier + expected.jobs {
        check.problem(format!(
            "{definitions} definitions for {earlier} earlier attempts and {} newest ones",
            expected.jobs
        ));
    }
    if found.entries != expected.entries {
        stray_entries(view, check)?;
    }
    Ok(())
}

/// Every record that cannot be understood, where one was met: it has ended the walk through the others.
pub(super) fn damaged_records(view: &dyn View, check: &mut Check) -> Result<(), StoreError> {
    let seq = |key: &[u8]| keys::last_number(key.get(..key.len().saturating_sub(4)).unwrap_or_default());
    walk(view, keys::DEFINITIONS, |key, value| {
        let what = || format!("the job with seq {}, a definition", seq(key).unwrap_or(0));
        note(check, record::decode::<Definition>(value), what)
    })?;
    walk(view, keys::ATTEMPTS, |key, value| {
        let what = || format!("the job with seq {}, an earlier attempt", seq(key).unwrap_or(0));
        note(check, record::decode::<StoredState>(value), what)
    })?;
    walk(view, keys::EVENTS, |key, value| {
        let what = || format!("event {}", keys::last_number(key).unwrap_or(0));
        note(check, record::check_event(value), what)
    })?;
    walk(view, keys::DOCUMENTS, |key, value| {
        let what = || format!("document {}", key[keys::DOCUMENTS.len()..].escape_ascii());
        note(check, record::check_document(value), what)
    })
}

fn note<T>(
    check: &mut Check,
    decoded: Result<T, Unreadable>,
    what: impl FnOnce() -> String,
) -> Result<(), StoreError> {
    check.note_damage(decoded.map_err(|why| record::damaged(what(), why))).map(drop)
}

#[derive(Default)]
struct Counted {
    jobs: u64,
    entries: u64,
}

/// Looks for everything that leads to a job, and counts it.
fn job(view: &dyn View, check: &mut Check, seq: u64, stored: &StoredState) -> Result<u64, StoreError> {
    let id = &stored.id;
    match check.note_damage(record::seq_of(view, id))? {
        Some(found) if found != Some(seq) => {
            check.problem(format!("job {id} (seq {seq}): its id leads to {found:?}"));
        }
        _ => {}
    }
    let definition = record::definition(view, seq, id, stored.state.attempt);
    let Some(definition) = check.note_damage(definition)? else { return Ok(0) };
    let entries = keys::indexes(seq, &definition, &stored.state);
    for entry in &entries {
        if view.get(entry)?.is_none() {
            check.problem(format!("job {id} (seq {seq}) is not in index {}", index_name(entry)));
        }
    }
    Ok(entries.len() as u64)
}

fn compare_counts(
    view: &dyn View,
    check: &mut Check,
    counts: &BTreeMap<Status, u64>,
) -> Result<(), StoreError> {
    let Some(totals) = check.note_damage(record::totals(view))? else { return Ok(()) };
    for status in Status::ALL {
        let [said, found] = [&totals.counts, counts].map(|counts| counts.get(&status).copied().unwrap_or(0));
        if said != found {
            check.problem(format!("{said} jobs are counted as {status}, {found} are"));
        }
    }
    Ok(())
}

/// Names the entries that lead to a job which does not expect them.
fn stray_entries(view: &dyn View, check: &mut Check) -> Result<(), StoreError> {
    for prefix in keys::INDEXES {
        walk(view, prefix, |entry, _| {
            let seq = keys::last_number(entry).unwrap_or(0);
            let expected = match record::job(view, seq) {
                Ok(job) => keys::indexes(seq, &job.definition, &job.state).contains(entry),
                Err(StoreError::Damaged { .. }) => false,
                Err(error) => return Err(error),
            };
            if !expected {
                check.problem(format!("index {} leads to seq {seq}, which is not so", index_name(entry)));
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn index_name(entry: &[u8]) -> &'static str {
    match entry.first() {
        Some(b's') => "status",
        Some(b'u') => "last_update",
        Some(b'n') => "name",
        Some(b'g') => "group",
        _ => "label",
    }
}

fn count(view: &dyn View, prefix: &[u8]) -> Result<u64, StoreError> {
    let mut count = 0;
    walk(view, prefix, |_, _| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

fn walk(
    view: &dyn View,
    prefix: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    view.scan(prefix, &keys::behind(prefix), Direction::Forward, &mut |key, value| {
        visit(key, value).map(ControlFlow::Continue)
    })
}
