//! Every read but the listing. Each is one statement, so it sees one state of the store.

use std::collections::BTreeMap;

use nodejobs_core::JobId;
use nodejobs_core::job::Job;
use nodejobs_core::status::Status;
use nodejobs_core::store::content::Counters;
use nodejobs_core::store::{DocumentKind, JobEvent};
use rusqlite::{Connection, params};

use crate::error::Fault;
use crate::rows;
use crate::schema::attempt_columns;

const JOB: &str = concat!("SELECT ", attempt_columns!(), " FROM jobs WHERE id = ?1");
const ATTEMPTS: &str = concat!(
    "SELECT ",
    attempt_columns!(),
    " FROM attempts WHERE seq = (SELECT seq FROM jobs WHERE id = ?1) UNION ALL SELECT ",
    attempt_columns!(),
    " FROM jobs WHERE id = ?1 ORDER BY attempt"
);
/// A job with the status is named should it be an unknown one.
const COUNTS: &str = "SELECT status, jobs, (SELECT min(seq) FROM jobs WHERE jobs.status = counts.status)
    FROM counts WHERE jobs <> 0";
const EVENTS: &str =
    "SELECT seq, id, attempt, status, reason, at FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2";
const DOCUMENT: &str = "SELECT body FROM documents WHERE kind = ?1 AND key = ?2";
const DOCUMENTS: &str = "SELECT key, body FROM documents WHERE kind = ?1 AND key >= ?2
    AND (?3 IS NULL OR key > ?3) ORDER BY key LIMIT ?4";
/// `sqlite_sequence` has no row before the first job, and pruning keeps the last event.
const COUNTERS: &str =
    "SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), (SELECT max(seq) FROM events)";

/// Everything that is read with, so that a file without its tables is found when it is opened.
pub(crate) const STATEMENTS: &[&str] = &[JOB, ATTEMPTS, COUNTS, EVENTS, DOCUMENT, DOCUMENTS, COUNTERS];

pub(crate) fn job(connection: &Connection, id: &JobId) -> Result<Option<Job>, Fault> {
    let mut statement = connection.prepare_cached(JOB)?;
    let mut found = statement.query([id.as_str()])?;
    found.next()?.map(rows::job).transpose()
}

pub(crate) fn attempts(connection: &Connection, id: &JobId) -> Result<Vec<Job>, Fault> {
    connection.prepare_cached(ATTEMPTS)?.query_and_then([id.as_str()], rows::job)?.collect()
}

pub(crate) fn counts(connection: &Connection) -> Result<BTreeMap<Status, u64>, Fault> {
    let mut statement = connection.prepare_cached(COUNTS)?;
    let mut found = statement.query([])?;
    let mut counts = BTreeMap::new();
    while let Some(row) = found.next()? {
        let name: String = row.get(0)?;
        let status = name.parse().map_err(|error: nodejobs_core::status::UnknownStatus| Fault::Record {
            what: format!("the job with seq {}, column status", row.get::<_, i64>(2).unwrap_or_default()),
            source: error.into(),
        })?;
        counts.insert(status, row.get::<_, i64>(1)?.cast_unsigned());
    }
    Ok(counts)
}

pub(crate) fn events(connection: &Connection, after: u64, limit: usize) -> Result<Vec<JobEvent>, Fault> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection.prepare_cached(EVENTS)?.query_and_then([after, limit], rows::event)?.collect()
}

pub(crate) fn document(
    connection: &Connection,
    kind: DocumentKind,
    key: &str,
) -> Result<Option<Vec<u8>>, Fault> {
    let mut statement = connection.prepare_cached(DOCUMENT)?;
    let mut found = statement.query([kind.as_str(), key])?;
    found.next()?.map(|row| rows::body(row, 0, kind, key)).transpose()
}

pub(crate) fn documents(
    connection: &Connection,
    kind: DocumentKind,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(String, Vec<u8>)>, Fault> {
    let mut statement = connection.prepare_cached(DOCUMENTS)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // What is read begins at the cursor, where there is one: going there from the prefix would be a walk.
    let from = after.map_or(prefix, |after| prefix.max(after));
    let mut found = statement.query(params![kind.as_str(), from, after, limit])?;
    let mut documents = Vec::new();
    while let Some(row) = found.next()? {
        let key: String = row.get(0)?;
        // In the order of keys, those with the prefix come first and in one piece.
        if !key.starts_with(prefix) {
            break;
        }
        let body = rows::body(row, 1, kind, &key)?;
        documents.push((key, body));
    }
    Ok(documents)
}

pub(crate) fn counters(connection: &Connection) -> Result<Counters, Fault> {
    let number = |number: Option<i64>| number.unwrap_or(0).cast_unsigned();
    let found = connection.prepare_cached(COUNTERS)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Counters { last_seq: number(found.0), last_event: number(found.1) })
}
