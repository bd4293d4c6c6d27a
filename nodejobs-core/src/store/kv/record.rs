//! What is kept under a key: a checksum, and a value in MessagePack. And how records are put together again.
//!
//! MessagePack as arrays: fields without their names, in the order of the types, and variants by name. A record of
//! another shape is refused, and the version of the format says beforehand that it will be.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::content::Counters;
use super::super::{DocumentKind, JobEvent, StoreError};
use super::{Direction, View, keys};
use crate::id::{AttemptId, JobId};
use crate::job::{Definition, Job, JobState};
use crate::status::{Reason, Status};
use crate::time::Timestamp;

/// Numbers given out, and jobs by status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Totals {
    pub(super) counters: Counters,
    pub(super) counts: BTreeMap<Status, u64>,
}

/// An attempt's state, with what belongs to its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredState {
    pub(super) id: JobId,
    pub(super) revision: u64,
    pub(super) state: JobState,
}

/// The same, to be written.
#[derive(Serialize)]
pub(super) struct NewState<'s> {
    pub(super) id: &'s JobId,
    pub(super) revision: u64,
    pub(super) state: &'s JobState,
}

#[derive(Deserialize)]
struct StoredEvent {
    id: JobId,
    attempt: u32,
    status: Status,
    reason: Option<Reason>,
    at: Timestamp,
}

#[derive(Serialize)]
struct NewEvent<'e> {
    id: &'e JobId,
    attempt: u32,
    status: Status,
    reason: Option<Reason>,
    at: Timestamp,
}

/// Most records are no longer, so that one need not move while it is written.
const USUAL_BYTES: usize = 512;

/// Why a record cannot be understood.
#[derive(Debug)]
pub(super) enum Unreadable {
    Missing,
    Checksum,
    Shape(rmp_serde::decode::Error),
    Contradiction(&'static str),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Missing => f.write_str("the record is missing"),
            Unreadable::Checksum => f.write_str("the checksum does not fit"),
            Unreadable::Shape(error) => error.fmt(f),
            Unreadable::Contradiction(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Unreadable {}

pub(super) fn damaged(what: impl Into<String>, why: Unreadable) -> StoreError {
    StoreError::Damaged { what: what.into(), source: why.into() }
}

/// Puts the checksum in front.
fn seal(mut record: Vec<u8>) -> Vec<u8> {
    let sum = crc32fast::hash(&record[4..]);
    record[..4].copy_from_slice(&sum.to_le_bytes());
    record
}

fn unseal(record: &[u8]) -> Result<&[u8], Unreadable> {
    let (sum, value) = record.split_first_chunk::<4>().ok_or(Unreadable::Checksum)?;
    if crc32fast::hash(value) == u32::from_le_bytes(*sum) { Ok(value) } else { Err(Unreadable::Checksum) }
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut record = Vec::with_capacity(USUAL_BYTES);
    record.extend_from_slice(&[0; 4]);
    // Writing to memory does not fail, and the types that are stored have no shape that cannot be written.
    rmp_serde::encode::write(&mut record, value).unwrap_or_else(|error| unreachable!("{error}"));
    seal(record)
}

pub(super) fn decode<T: DeserializeOwned>(record: &[u8]) -> Result<T, Unreadable> {
    let value = unseal(record)?;
    let mut rest = rmp_serde::Deserializer::new(value);
    let decoded = T::deserialize(&mut rest).map_err(Unreadable::Shape)?;
    if rest.into_inner().is_empty() {
        Ok(decoded)
    } else {
        Err(Unreadable::Contradiction("there is more than the value"))
    }
}

/// A number that a key leads to.
pub(super) fn encode_seq(seq: u64) -> Vec<u8> {
    seal([&[0; 4], seq.to_be_bytes().as_slice()].concat())
}

pub(super) fn decode_seq(record: &[u8]) -> Result<u64, Unreadable> {
    let bytes = unseal(record)?.try_into().map_err(|_| Unreadable::Contradiction("no number"))?;
    Ok(u64::from_be_bytes(bytes))
}

pub(super) fn totals(view: &dyn View) -> Result<Totals, StoreError> {
    match view.get(keys::TOTALS)? {
        None => Ok(Totals::default()),
        Some(record) => decode(&record).map_err(|why| damaged("the totals", why)),
    }
}

pub(super) fn seq_of(view: &dyn View, id: &JobId) -> Result<Option<u64>, StoreError> {
    let record = view.get(&keys::id(id))?;
    let seq = record.map(|record| decode_seq(&record)).transpose();
    seq.map_err(|why| damaged(format!("job {id}, its number"), why))
}

pub(super) fn newest_state(view: &dyn View, seq: u64) -> Result<StoredState, StoreError> {
    let record = view.get(&keys::job(seq))?.ok_or(Unreadable::Missing);
    match record.and_then(|record| decode(&record)) {
        Ok(stored) => Ok(stored),
        Err(why) => Err(state_damaged(view, seq, why)?),
    }
}

/// The error of a state that cannot be understood, and so does not say which job's it is: the index of ids does.
pub(super) fn state_damaged(view: &dyn View, seq: u64, why: Unreadable) -> Result<StoreError, StoreError> {
    let mut id = "?".to_owned();
    view.scan(keys::IDS, &keys::behind(keys::IDS), Direction::Forward, &mut |key, value| {
        if decode_seq(value).ok() != Some(seq) {
            return Ok(ControlFlow::Continue(()));
        }
        id = String::from_utf8_lossy(&key[keys::IDS.len()..]).into_owned();
        Ok(ControlFlow::Break(()))
    })?;
    Ok(damaged(format!("job {id} (seq {seq}), its state"), why))
}

pub(super) fn definition(
    view: &dyn View,
    seq: u64,
    id: &JobId,
    attempt: u32,
) -> Result<Definition, StoreError> {
    let what = || format!("job {id} (seq {seq}), the definition of attempt {attempt}");
    let record =
        view.get(&keys::definition(seq, attempt))?.ok_or_else(|| damaged(what(), Unreadable::Missing))?;
    decode(&record).map_err(|why| damaged(what(), why))
}

/// The job with that seq, which is known to exist.
pub(super) fn job(view: &dyn View, seq: u64) -> Result<Job, StoreError> {
    whole(view, seq, newest_state(view, seq)?)
}

/// The job with its newest or an earlier state.
pub(super) fn whole(view: &dyn View, seq: u64, stored: StoredState) -> Result<Job, StoreError> {
    let StoredState { id, revision, state } = stored;
    let definition = definition(view, seq, &id, state.attempt)?;
    Ok(Job { seq, id, revision, definition, state })
}

pub(super) fn attempts(view: &dyn View, seq: u64) -> Result<Vec<Job>, StoreError> {
    let newest = newest_state(view, seq)?;
    let mut earlier = Vec::new();
    let prefix = keys::numbered(keys::ATTEMPTS, seq);
    view.scan(&prefix, &keys::behind(&prefix), Direction::Forward, &mut |_, record| {
        let what = || format!("job {} (seq {seq}), an earlier attempt", newest.id);
        earlier.push(decode::<StoredState>(record).map_err(|why| damaged(what(), why))?);
        Ok(ControlFlow::Continue(()))
    })?;
    earlier.into_iter().chain([newest]).map(|stored| whole(view, seq, stored)).collect()
}

pub(super) fn encode_event(event: &JobEvent) -> Vec<u8> {
    let JobEvent { seq: _, attempt: AttemptId { id, attempt }, status, reason, at } = event;
    encode(&NewEvent { id, attempt: *attempt, status: *status, reason: *reason, at: *at })
}

/// The event of a job that reaches this state.
pub(super) fn encode_event_of(id: &JobId, state: &JobState) -> Vec<u8> {
    let JobState { attempt, status, reason, last_update: at, .. } = *state;
    encode(&NewEvent { id, attempt, status, reason, at })
}

pub(super) fn check_event(record: &[u8]) -> Result<(), Unreadable> {
    decode::<StoredEvent>(record).map(drop)
}

pub(super) fn events(view: &dyn View, after: u64, limit: usize) -> Result<Vec<JobEvent>, StoreError> {
    let mut events = Vec::new();
    let Some(first) = after.checked_add(1).filter(|_| limit > 0) else { return Ok(events) };
    view.scan(&keys::event(first), &keys::behind(keys::EVENTS), Direction::Forward, &mut |key, record| {
        let seq = keys::last_number(key).unwrap_or(0);
        let StoredEvent { id, attempt, status, reason, at } =
            decode(record).map_err(|why| damaged(format!("event {seq}"), why))?;
        events.push(JobEvent { seq, attempt: AttemptId { id, attempt }, status, reason, at });
        Ok(if events.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(events)
}

/// A document's key, where the record's key does not tell it, and its body.
pub(super) fn encode_document(name: &str, body: &[u8]) -> Vec<u8> {
    let name = if keys::is_cut(name) { name } else { "" };
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes();
    seal([&[0; 4], length.as_slice(), name.as_bytes(), body].concat())
}

fn decode_document(record: &[u8]) -> Result<(&[u8], &[u8]), Unreadable> {
    let (length, rest) = unseal(record)?
        .split_first_chunk::<4>()
        .ok_or(Unreadable::Contradiction("there is no length of the key"))?;
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    rest.split_at_checked(length).ok_or(Unreadable::Contradiction("the key is cut off"))
}

pub(super) fn check_document(record: &[u8]) -> Result<(), Unreadable> {
    decode_document(record).map(drop)
}

fn document_damaged(kind: DocumentKind, name: &str, why: Unreadable) -> StoreError {
    damaged(format!("document {} '{name}'", kind.as_str()), why)
}

pub(super) fn document(
    view: &dyn View,
    kind: DocumentKind,
    name: &str,
) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(record) = view.get(&keys::document(kind, name))? else { return Ok(None) };
    match decode_document(&record) {
        Ok((_, body)) => Ok(Some(body.to_vec())),
        Err(why) => Err(document_damaged(kind, name, why)),
    }
}

pub(super) fn documents(
    view: &dyn View,
    kind: DocumentKind,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    // Long keys that begin alike are in the order of their hashes: read to the end of them before the page is cut.
    let mut cut_at = None;
    let begin = keys::document_prefix(kind, after.map_or(prefix, |after| after.max(prefix)));
    let end = keys::behind(&keys::document_prefix(kind, prefix));
    let family = keys::documents(kind).len();
    view.scan(&begin, &end, Direction::Forward, &mut |key, record| {
        let shown = String::from_utf8_lossy(&key[family..]);
        let (long, body) = decode_document(record).map_err(|why| document_damaged(kind, &shown, why))?;
        let name = if long.is_empty() { &key[family..] } else { long };
        let name = std::str::from_utf8(name)
            .map_err(|_| document_damaged(kind, &shown, Unreadable::Contradiction("the key is no text")))?;
        let group = (!long.is_empty()).then(|| keys::document_prefix(kind, name));
        if found.len() >= limit && (group.is_none() || cut_at != group) {
            return Ok(ControlFlow::Break(()));
        }
        cut_at = group;
        if name.starts_with(prefix) && after.is_none_or(|after| name > after) {
            found.push((name.to_owned(), body.to_vec()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    found.sort_unstable();
    found.truncate(limit);
    Ok(found)
}
