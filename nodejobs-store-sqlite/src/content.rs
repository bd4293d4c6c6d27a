//! Filling a new store with what another one held, and checking that tables and indexes agree.

use std::path::Path;

use nodejobs_core::job::Job;
use nodejobs_core::status::Reason;
use nodejobs_core::store::content::{Check, Item};
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, ErrorCode, Row, Transaction, TransactionBehavior, params};

use crate::counts::Counts;
use crate::error::Fault;
use crate::rows::{self, Binder, from_u64, raw_value};
use crate::schema::attempt_columns;
use crate::write::LABEL;

macro_rules! insert_whole {
    ($table:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " (",
            attempt_columns!(),
            ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, \
             ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
    };
}

const JOB: &str = insert_whole!("jobs");
const ATTEMPT: &str = insert_whole!("attempts");
const EVENT: &str =
    "INSERT INTO events (seq, id, attempt, status, reason, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const DOCUMENT: &str = "INSERT INTO documents (kind, key, body) VALUES (?1, ?2, ?3)";
/// The engine keeps this table itself, and makes its row with the first job.
const LAST_SEQ: &str = "UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'jobs'";
const FIRST_SEQ: &str = "INSERT INTO sqlite_sequence (name, seq) VALUES ('jobs', ?1)";

pub(crate) fn load(connection: &mut Connection, items: &[Item], path: &Path) -> Result<(), Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut counts = Counts::default();
    for item in items {
        load_item(&transaction, item, &mut counts).map_err(|fault| match fault {
            Fault::Engine(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                item.is_there_already(path.to_owned()).into()
            }
            fault => fault,
        })?;
    }
    counts.write(&transaction)?;
    Ok(transaction.commit()?)
}

fn load_item(transaction: &Transaction<'_>, item: &Item, counts: &mut Counts) -> Result<(), Fault> {
    match item {
        Item::Counters(counters) => {
            // The events' numbers come from the events.
            let last = from_u64(counters.last_seq);
            if transaction.prepare_cached(LAST_SEQ)?.execute([last])? == 0 {
                transaction.prepare_cached(FIRST_SEQ)?.execute([last])?;
            }
        }
        Item::Document { kind, key, body } => {
            let body = ToSqlOutput::Borrowed(raw_value(body));
            transaction.prepare_cached(DOCUMENT)?.execute(params![kind.as_str(), key, body])?;
        }
        Item::Job(attempts) => {
            let Some((newest, earlier)) = attempts.split_last() else { return Ok(()) };
            insert_whole(transaction, JOB, newest)?;
            counts.note(None, Some(newest.state.status));
            for (key, value) in &newest.definition.labels {
                transaction.prepare_cached(LABEL)?.execute(params![key, value, from_u64(newest.seq)])?;
            }
            for job in earlier {
                insert_whole(transaction, ATTEMPT, job)?;
            }
        }
        Item::Event(event) => {
            transaction.prepare_cached(EVENT)?.execute(params![
                from_u64(event.seq),
                event.attempt.id.as_str(),
                event.attempt.attempt,
                event.status.as_str(),
                event.reason.map(Reason::as_str),
                event.at.as_millis(),
            ])?;
        }
    }
    Ok(())
}

fn insert_whole(transaction: &Transaction<'_>, statement: &str, job: &Job) -> Result<(), Fault> {
    let mut statement = transaction.prepare_cached(statement)?;
    let mut binder = Binder::new(&mut statement);
    binder.put(from_u64(job.seq))?;
    binder.put(job.id.as_str())?;
    binder.put(from_u64(job.revision))?;
    binder.put_state(&job.state)?;
    binder.put_definition(&job.definition, &job.attempt_id())?;
    statement.raw_execute()?;
    Ok(())
}

/// Every record that cannot be understood, where one was met: it has ended the walk through the others.
pub(crate) fn damaged_records(connection: &Connection, check: &mut Check, path: &Path) -> Result<(), Fault> {
    const JOBS: &str = concat!("SELECT ", attempt_columns!(), " FROM jobs");
    const ATTEMPTS: &str = concat!("SELECT ", attempt_columns!(), " FROM attempts");
    const EVENTS: &str = "SELECT seq, id, attempt, status, reason, at FROM events";
    type Decode = fn(&Row<'_>) -> Result<(), Fault>;
    let job: Decode = |row| rows::job(row).map(drop);
    let event: Decode = |row| rows::event(row).map(drop);
    for (sql, decode) in [(JOBS, job), (ATTEMPTS, job), (EVENTS, event)] {
        let mut statement = connection.prepare(sql)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            if let Err(fault @ Fault::Record { .. }) = decode(row) {
                check.note_damage::<()>(Err(fault.into_store_error("check", path)))?;
            }
        }
    }
    Ok(())
}

/// What is written twice: indexes, which the engine compares itself, labels, and columns for finding.
pub(crate) fn check(connection: &Connection, check: &mut Check) -> Result<(), Fault> {
    const LABELS: &str = "
        SELECT 'label ' || l.key || '=' || l.value || ' of seq ' || l.seq || ' is not one of its job'
          FROM job_labels AS l LEFT JOIN jobs ON jobs.seq = l.seq
         WHERE jobs.seq IS NULL
            OR NOT EXISTS (SELECT 1 FROM json_each(jobs.labels) AS j WHERE j.key = l.key AND j.value = l.value)
        UNION ALL
        SELECT 'label ' || j.key || '=' || j.value || ' of job ' || jobs.id || ' cannot be found'
          FROM jobs, json_each(jobs.labels) AS j
         WHERE NOT EXISTS (SELECT 1 FROM job_labels AS l WHERE l.key = j.key AND l.value = j.value AND l.seq = jobs.seq)
        UNION ALL
        SELECT 'attempt ' || attempt || ' of seq ' || seq || ' has no job'
          FROM attempts WHERE seq NOT IN (SELECT seq FROM jobs)";
    for sql in ["PRAGMA integrity_check(100)", LABELS] {
        let found = connection.prepare(sql).and_then(|mut statement| {
            let found = statement.query_map([], |row| row.get::<_, String>(0))?;
            found.collect::<Result<Vec<_>, _>>()
        });
        match found {
            Ok(found) => found.into_iter().filter(|said| said != "ok").for_each(|said| check.problem(said)),
            // Text that is no JSON, a page that is torn: found again here, where it cannot be compared.
            Err(error) => check.problem(error.to_string()),
        }
    }
    Ok(())
}
