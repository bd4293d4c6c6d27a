//! `commit`: one IMMEDIATE transaction for all units.
//!
//! Each unit is decided by looking at the head of its job before anything of it is written, so a rejected unit leaves
//! no trace and none needs a savepoint. An error of the engine takes the whole transaction back.

use std::collections::BTreeMap;

use nodejobs_core::id::AttemptId;
use nodejobs_core::job::{Definition, JobState};
use nodejobs_core::status::{Reason, Status, UnknownStatus};
use nodejobs_core::store::{DocumentChange, JobChange, StoredHead, Unit, UnitOutcome};
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use crate::counts::Counts;
use crate::error::Fault;
use crate::rows::{Binder, from_u64, raw_value};
use crate::schema::{attempt_columns, definition_columns, state_columns};

const HEAD: &str = "SELECT seq, revision, attempt, status FROM jobs WHERE id = ?1";
const INSERT: &str = concat!(
    "INSERT INTO jobs (id, revision, ",
    state_columns!(),
    ", ",
    definition_columns!(),
    ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, \
     ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
);
const UPDATE: &str = concat!(
    "UPDATE jobs SET (revision, ",
    state_columns!(),
    ") = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE seq = ?"
);
const REPLACE: &str = concat!(
    "UPDATE jobs SET (revision, ",
    state_columns!(),
    ", ",
    definition_columns!(),
    ") = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, \
     ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE seq = ?"
);
const KEEP_ATTEMPT: &str = concat!(
    "INSERT INTO attempts (",
    attempt_columns!(),
    ") SELECT ",
    attempt_columns!(),
    " FROM jobs WHERE seq = ?1"
);
const DELETE: &str = "DELETE FROM jobs WHERE seq = ?1";
const FORGET_ATTEMPTS: &str = "DELETE FROM attempts WHERE seq = ?1 AND attempt <= ?2";
const DELETE_ATTEMPTS: &str = "DELETE FROM attempts WHERE seq = ?1";
pub(crate) const LABEL: &str = "INSERT INTO job_labels (key, value, seq) VALUES (?1, ?2, ?3)";
const LABELS: &str = "SELECT labels FROM jobs WHERE seq = ?1";
const DELETE_LABEL: &str = "DELETE FROM job_labels WHERE key = ?1 AND value = ?2 AND seq = ?3";
const EVENT: &str = "INSERT INTO events (id, attempt, status, reason, at) VALUES (?1, ?2, ?3, ?4, ?5)";
const PUT: &str = "INSERT INTO documents (kind, key, body) VALUES (?1, ?2, ?3)
    ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body";
const PUT_IF_ABSENT: &str = "INSERT INTO documents (kind, key, body) VALUES (?1, ?2, ?3)
    ON CONFLICT (kind, key) DO NOTHING";
const REMOVE_DOCUMENT: &str = "DELETE FROM documents WHERE kind = ?1 AND key = ?2";

/// Everything that is written with, so that a file without its tables is found when it is opened.
pub(crate) const STATEMENTS: &[&str] = &[
    HEAD,
    INSERT,
    UPDATE,
    REPLACE,
    KEEP_ATTEMPT,
    DELETE,
    DELETE_ATTEMPTS,
    FORGET_ATTEMPTS,
    LABEL,
    LABELS,
    DELETE_LABEL,
    EVENT,
    PUT,
    PUT_IF_ABSENT,
    REMOVE_DOCUMENT,
];

/// Applies the units in order and flushes once.
pub(crate) fn commit(connection: &mut Connection, units: &[Unit]) -> Result<Vec<UnitOutcome>, Fault> {
    if units.is_empty() {
        return Ok(Vec::new());
    }
    // Dropped without a commit, it is rolled back.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut counts = Counts::default();
    let outcomes =
        units.iter().map(|unit| apply(&transaction, unit, &mut counts)).collect::<Result<_, _>>()?;
    counts.write(&transaction)?;
    transaction.commit()?;
    Ok(outcomes)
}

fn apply(transaction: &Transaction<'_>, unit: &Unit, counts: &mut Counts) -> Result<UnitOutcome, Fault> {
    let mut outcome = UnitOutcome::Applied { seq: 0, event: 0 };
    if let Some(change) = &unit.job {
        let stored = head(transaction, change)?;
        if let Err(rejection) = change.check(stored.map(|(_, head)| head)) {
            return Ok(UnitOutcome::Rejected(rejection));
        }
        outcome = apply_checked(transaction, change, stored.map_or(0, |(seq, _)| seq))?;
        let before = stored.map(|(_, head)| head.status);
        counts.note(before, status_after(change, before));
    }
    for change in &unit.documents {
        apply_document(transaction, change)?;
    }
    Ok(outcome)
}

fn head(transaction: &Transaction<'_>, change: &JobChange) -> Result<Option<(i64, StoredHead)>, Fault> {
    let id = change.id().as_str();
    let row = transaction
        .prepare_cached(HEAD)?
        .query_row([id], |row| {
            let status = row.get_ref(3)?.as_str()?.parse();
            Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get(2)?, status))
        })
        .optional()?;
    let Some((seq, revision, attempt, status)) = row else {
        return Ok(None);
    };
    let status = status.map_err(|error: UnknownStatus| Fault::Record {
        what: format!("job {id} (seq {seq}), column status"),
        source: error.into(),
    })?;
    Ok(Some((seq, StoredHead { revision: revision.cast_unsigned(), attempt, status })))
}

fn status_after(change: &JobChange, before: Option<Status>) -> Option<Status> {
    match change {
        JobChange::Insert { state, .. }
        | JobChange::NewAttempt { state, .. }
        | JobChange::Update { state, .. }
        | JobChange::Redefine { state, .. } => Some(state.status),
        JobChange::Remove { .. } => None,
        JobChange::ForgetAttempts { .. } => before,
    }
}

/// The job is at `seq`, where it exists already.
fn apply_checked(transaction: &Transaction<'_>, change: &JobChange, seq: i64) -> Result<UnitOutcome, Fault> {
    let revision = from_u64(change.revision_after().unwrap_or(0));
    let attempt = |state: &JobState| AttemptId { id: change.id().clone(), attempt: state.attempt };
    match change {
        JobChange::Insert { id, definition, state } => {
            let mut statement = transaction.prepare_cached(INSERT)?;
            let mut binder = Binder::new(&mut statement);
            binder.put(id.as_str())?;
            binder.put(revision)?;
            binder.put_state(state)?;
            binder.put_definition(definition, &attempt(state))?;
            statement.raw_execute()?;
            let seq = transaction.last_insert_rowid();
            insert_labels(transaction, seq, definition)?;
            append_event(transaction, seq, &attempt(state), state)
        }
        JobChange::NewAttempt { definition, state, .. } | JobChange::Redefine { definition, state, .. } => {
            if change.begins_attempt() {
                transaction.prepare_cached(KEEP_ATTEMPT)?.execute([seq])?;
            }
            delete_labels(transaction, change, seq)?;
            let mut statement = transaction.prepare_cached(REPLACE)?;
            let mut binder = Binder::new(&mut statement);
            binder.put(revision)?;
            binder.put_state(state)?;
            binder.put_definition(definition, &attempt(state))?;
            binder.put(seq)?;
            statement.raw_execute()?;
            insert_labels(transaction, seq, definition)?;
            append_event(transaction, seq, &attempt(state), state)
        }
        JobChange::Update { state, .. } => {
            let mut statement = transaction.prepare_cached(UPDATE)?;
            let mut binder = Binder::new(&mut statement);
            binder.put(revision)?;
            binder.put_state(state)?;
            binder.put(seq)?;
            statement.raw_execute()?;
            append_event(transaction, seq, &attempt(state), state)
        }
        JobChange::ForgetAttempts { through, .. } => {
            transaction.prepare_cached(FORGET_ATTEMPTS)?.execute(params![seq, through])?;
            Ok(UnitOutcome::Applied { seq: seq.cast_unsigned(), event: 0 })
        }
        JobChange::Remove { .. } => {
            delete_labels(transaction, change, seq)?;
            transaction.prepare_cached(DELETE_ATTEMPTS)?.execute([seq])?;
            transaction.prepare_cached(DELETE)?.execute([seq])?;
            Ok(UnitOutcome::Applied { seq: seq.cast_unsigned(), event: 0 })
        }
    }
}

fn insert_labels(transaction: &Transaction<'_>, seq: i64, definition: &Definition) -> Result<(), Fault> {
    for (key, value) in &definition.labels {
        transaction.prepare_cached(LABEL)?.execute(params![key, value, seq])?;
    }
    Ok(())
}

/// The labels are found by what the job says it has: the table has no index on `seq` alone.
fn delete_labels(transaction: &Transaction<'_>, change: &JobChange, seq: i64) -> Result<(), Fault> {
    let text: String = transaction.prepare_cached(LABELS)?.query_row([seq], |row| row.get(0))?;
    let labels: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|error| Fault::Record {
        what: format!("job {} (seq {seq}), column labels", change.id()),
        source: error.into(),
    })?;
    for (key, value) in &labels {
        transaction.prepare_cached(DELETE_LABEL)?.execute(params![key, value, seq])?;
    }
    Ok(())
}

fn append_event(
    transaction: &Transaction<'_>,
    seq: i64,
    attempt: &AttemptId,
    state: &JobState,
) -> Result<UnitOutcome, Fault> {
    transaction.prepare_cached(EVENT)?.execute(params![
        attempt.id.as_str(),
        attempt.attempt,
        state.status.as_str(),
        state.reason.map(Reason::as_str),
        state.last_update.as_millis(),
    ])?;
    let event = transaction.last_insert_rowid();
    Ok(UnitOutcome::Applied { seq: seq.cast_unsigned(), event: event.cast_unsigned() })
}

fn apply_document(transaction: &Transaction<'_>, change: &DocumentChange) -> Result<(), Fault> {
    let body = |body| ToSqlOutput::Borrowed(raw_value(body));
    match change {
        DocumentChange::Put { kind, key, body: bytes } => {
            transaction.prepare_cached(PUT)?.execute(params![kind.as_str(), key, body(bytes)])?;
        }
        DocumentChange::PutIfAbsent { kind, key, body: bytes } => {
            transaction.prepare_cached(PUT_IF_ABSENT)?.execute(params![kind.as_str(), key, body(bytes)])?;
        }
        DocumentChange::Remove { kind, key } => {
            transaction.prepare_cached(REMOVE_DOCUMENT)?.execute(params![kind.as_str(), key])?;
        }
    }
    Ok(())
}
