//! Rows to and from the types of core. Columns go in the order that `schema.rs` names them.

use nodejobs_core::id::AttemptId;
use nodejobs_core::job::{Definition, ExitStatus, Job, JobState, Process, ResourceUsage, WaitingOn};
use nodejobs_core::logs::{LogLayout, LogStart, Logs};
use nodejobs_core::status::Reason;
use nodejobs_core::store::{DocumentKind, JobEvent};
use nodejobs_core::time::{BootTime, Moment};
use nodejobs_core::{JobId, RawText, Timestamp};
use rusqlite::types::{FromSql, ToSql, Value, ValueRef};
use rusqlite::{Row, Statement};

use crate::error::Fault;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A number that SQLite has no room for in its sign is kept bit by bit: nothing is lost, order only beyond 2^63.
pub(crate) fn from_u64(number: u64) -> i64 {
    number.cast_signed()
}

/// Text where it is UTF-8, so that a person can read it, and a blob where it is not.
pub(crate) fn raw_value(bytes: &[u8]) -> ValueRef<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) => ValueRef::Text(text.as_bytes()),
        Err(_) => ValueRef::Blob(bytes),
    }
}

/// The same, for a parameter that outlives the bytes.
pub(crate) fn raw_parameter(raw: &RawText) -> Value {
    match std::str::from_utf8(raw.as_bytes()) {
        Ok(text) => Value::Text(text.to_owned()),
        Err(_) => Value::Blob(raw.as_bytes().to_vec()),
    }
}

/// Gives a statement its parameters one after the other.
pub(crate) struct Binder<'s, 'c> {
    statement: &'s mut Statement<'c>,
    index: usize,
}

impl<'s, 'c> Binder<'s, 'c> {
    pub(crate) fn new(statement: &'s mut Statement<'c>) -> Self {
        Self { statement, index: 0 }
    }

    pub(crate) fn put(&mut self, value: impl ToSql) -> rusqlite::Result<()> {
        self.index += 1;
        self.statement.raw_bind_parameter(self.index, value)
    }

    fn put_raw(&mut self, raw: &RawText) -> rusqlite::Result<()> {
        self.put(rusqlite::types::ToSqlOutput::Borrowed(raw_value(raw.as_bytes())))
    }

    fn put_json<T: serde::Serialize>(&mut self, value: &T) -> rusqlite::Result<()> {
        let text = serde_json::to_string(value)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        self.put(text)
    }

    fn put_optional_json<T: serde::Serialize>(&mut self, value: Option<&T>) -> rusqlite::Result<()> {
        match value {
            Some(value) => self.put_json(value),
            None => self.put(None::<&str>),
        }
    }

    /// The columns of `state_columns!`.
    pub(crate) fn put_state(&mut self, state: &JobState) -> rusqlite::Result<()> {
        let (exit_code, signal, core_dumped) = match state.exit {
            None => (None, None, None),
            Some(ExitStatus::Code(code)) => (Some(code), None, None),
            Some(ExitStatus::Signal { number, core_dumped }) => (None, Some(number), Some(core_dumped)),
        };
        self.put(state.attempt)?;
        self.put(state.restarts)?;
        self.put(state.status.as_str())?;
        self.put(state.reason.map(Reason::as_str))?;
        self.put(state.detail.as_deref())?;
        self.put(state.waiting_on.map(WaitingOn::as_str))?;
        self.put(state.process.as_ref().and_then(|process| process.pid))?;
        self.put(state.process.as_ref().map(|process| process.handle.as_str()))?;
        for moment in [state.started, state.ended] {
            self.put(moment.map(|moment| moment.wall.as_millis()))?;
            self.put(moment.map(|moment| from_u64(moment.boot.0)))?;
        }
        self.put(exit_code)?;
        self.put(signal)?;
        self.put(core_dumped)?;
        self.put(state.usage.map(|usage| from_u64(usage.cpu_ms)))?;
        self.put(state.usage.map(|usage| from_u64(usage.peak_memory_kib)))?;
        self.put(from_u64(state.launch_asked.0))?;
        self.put(from_u64(state.log_start.stdout))?;
        self.put(from_u64(state.log_start.stderr))?;
        self.put(state.pending_restart.as_deref())?;
        self.put(state.last_update.as_millis())?;
        self.put_optional_json(Some(&state.assigned).filter(|assigned| !assigned.is_empty()))
    }

    /// The columns of `definition_columns!`.
    pub(crate) fn put_definition(
        &mut self,
        definition: &Definition,
        attempt: &AttemptId,
    ) -> rusqlite::Result<()> {
        self.put(definition.name.as_deref())?;
        self.put(definition.group.as_deref())?;
        self.put(definition.priority)?;
        self.put(definition.slots)?;
        self.put(definition.context_key.as_str())?;
        self.put(definition.submit_key.as_deref())?;
        self.put(definition.created_at.as_millis())?;
        self.put_raw(&definition.cwd)?;
        self.put_raw(&definition.dirname())?;
        self.put(definition.logs.layout.as_str())?;
        self.put(definition.logs.merge)?;
        self.put_raw(&definition.logs.directory())?;
        self.put_raw(&definition.logs.paths(attempt).stdout)?;
        self.put_json(&definition.input)?;
        self.put_json(&definition.start)?;
        self.put_json(&definition.policy)?;
        self.put_json(&definition.labels)?;
        self.put_json(&definition.command)?;
        self.put_optional_json(Some(&definition.needs).filter(|needs| !needs.is_empty()))?;
        self.put_optional_json(definition.after.as_ref())?;
        self.put_optional_json(definition.origin.as_ref())?;
        self.put_optional_json(definition.array.as_ref())
    }
}

/// Takes the values of a row one after the other, and remembers which column it was when one makes no sense.
struct Cells<'r> {
    row: &'r Row<'r>,
    index: usize,
}

impl<'r> Cells<'r> {
    fn new(row: &'r Row<'r>) -> Self {
        Self { row, index: 0 }
    }

    fn take<T: FromSql>(&mut self) -> Result<T, BoxError> {
        let value = self.row.get(self.index);
        self.index += 1;
        Ok(value?)
    }

    fn skip(&mut self) {
        self.index += 1;
    }

    fn take_u64(&mut self) -> Result<u64, BoxError> {
        Ok(self.take::<i64>()?.cast_unsigned())
    }

    fn take_optional_u64(&mut self) -> Result<Option<u64>, BoxError> {
        Ok(self.take::<Option<i64>>()?.map(i64::cast_unsigned))
    }

    fn take_bytes(&mut self) -> Result<Vec<u8>, BoxError> {
        self.index += 1;
        bytes(self.row, self.index - 1)
    }

    fn take_text(&mut self) -> Result<&'r str, BoxError> {
        let value = self.row.get_ref(self.index)?;
        self.index += 1;
        Ok(value.as_str()?)
    }

    fn take_parsed<T: std::str::FromStr<Err: Into<BoxError>>>(&mut self) -> Result<T, BoxError> {
        self.take_text()?.parse().map_err(Into::into)
    }

    /// A name out of a fixed set, or nothing.
    fn take_named<T>(&mut self, from_name: fn(&str) -> Option<T>) -> Result<Option<T>, BoxError> {
        match self.take::<Option<String>>()? {
            None => Ok(None),
            Some(name) => match from_name(&name) {
                Some(known) => Ok(Some(known)),
                None => Err(format!("'{name}' is not a name that is known here").into()),
            },
        }
    }

    fn take_json<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, BoxError> {
        Ok(serde_json::from_str(self.take_text()?)?)
    }

    fn take_optional_json<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, BoxError> {
        let text = self.take::<Option<String>>()?;
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    fn take_moment(&mut self) -> Result<Option<Moment>, BoxError> {
        let wall = self.take::<Option<i64>>()?;
        match (wall, self.take_optional_u64()?) {
            (None, None) => Ok(None),
            (Some(wall), Some(boot)) => {
                Ok(Some(Moment { wall: Timestamp::from_millis(wall), boot: BootTime(boot) }))
            }
            _ => Err("one clock is there without the other".into()),
        }
    }

    fn take_timestamp(&mut self) -> Result<Timestamp, BoxError> {
        Ok(Timestamp::from_millis(self.take()?))
    }

    fn take_state(&mut self) -> Result<JobState, BoxError> {
        Ok(JobState {
            attempt: self.take()?,
            restarts: self.take()?,
            status: self.take_parsed()?,
            reason: self.take_named(Reason::from_name)?,
            detail: self.take()?,
            waiting_on: self.take_named(WaitingOn::from_name)?,
            process: {
                let pid = self.take()?;
                self.take::<Option<String>>()?.map(|handle| Process { handle, pid })
            },
            started: self.take_moment()?,
            ended: self.take_moment()?,
            exit: {
                let code = self.take::<Option<i32>>()?;
                let signal = self.take::<Option<i32>>()?;
                let core_dumped = self.take::<Option<bool>>()?;
                match (code, signal) {
                    (None, None) => None,
                    (Some(code), None) => Some(ExitStatus::Code(code)),
                    (None, Some(number)) => {
                        Some(ExitStatus::Signal { number, core_dumped: core_dumped.unwrap_or(false) })
                    }
                    (Some(_), Some(_)) => return Err("an exit code and a signal at once".into()),
                }
            },
            usage: match (self.take_optional_u64()?, self.take_optional_u64()?) {
                (Some(cpu_ms), Some(peak_memory_kib)) => Some(ResourceUsage { cpu_ms, peak_memory_kib }),
                (None, None) => None,
                _ => return Err("half of a usage".into()),
            },
            launch_asked: BootTime(self.take_u64()?),
            log_start: LogStart { stdout: self.take_u64()?, stderr: self.take_u64()? },
            pending_restart: self.take()?,
            last_update: self.take_timestamp()?,
            assigned: self.take_optional_json()?.unwrap_or_default(),
        })
    }

    fn take_definition(&mut self) -> Result<Definition, BoxError> {
        let name = self.take()?;
        let group = self.take()?;
        let priority = self.take()?;
        let slots = self.take()?;
        let context_key = self.take()?;
        let submit_key = self.take()?;
        let created_at = self.take_timestamp()?;
        let cwd = self.take_bytes()?.into();
        // The last component of `cwd`, for finding.
        self.skip();
        let logs = self.take_logs()?;
        let input = self.take_json()?;
        let start = self.take_json()?;
        let policy = self.take_json()?;
        let labels = self.take_json()?;
        let command = self.take_json()?;
        Ok(Definition {
            name,
            command,
            cwd,
            context_key,
            group,
            priority,
            slots,
            labels,
            input,
            logs,
            start,
            policy,
            submit_key,
            created_at,
            needs: self.take_optional_json()?.unwrap_or_default(),
            after: self.take_optional_json()?,
            origin: self.take_optional_json()?,
            array: self.take_optional_json()?,
        })
    }

    /// Directory and file are both there for finding; which of them was asked for says the layout.
    fn take_logs(&mut self) -> Result<Logs, BoxError> {
        let layout = self.take_named(LogLayout::from_name)?.ok_or("no layout")?;
        let merge = self.take()?;
        let (directory, file) = (self.take_bytes()?, self.take_bytes()?);
        let path = if layout.is_shared() { file } else { directory };
        Ok(Logs { layout, path: path.into(), merge })
    }

    /// Says which record and which column could not be understood.
    fn damaged(&self, what: &str, source: BoxError) -> Fault {
        let column = self.row.as_ref().column_name(self.index.saturating_sub(1)).unwrap_or("?");
        Fault::Record { what: format!("{what}, column {column}"), source }
    }
}

/// A job from a row of `attempt_columns!`.
pub(crate) fn job(row: &Row<'_>) -> Result<Job, Fault> {
    let seq: i64 = row.get(0)?;
    let mut cells = Cells::new(row);
    let decoded = (|| {
        let seq = cells.take_u64()?;
        let id: JobId = cells.take_parsed()?;
        let revision = cells.take_u64()?;
        let state = cells.take_state()?;
        let definition = cells.take_definition()?;
        Ok(Job { seq, id, revision, definition, state })
    })();
    decoded.map_err(|source| {
        let id = row.get_ref(1).ok().and_then(|id| id.as_bytes().ok().map(String::from_utf8_lossy));
        cells.damaged(&format!("job {} (seq {seq})", id.as_deref().unwrap_or("?")), source)
    })
}

/// An event from a row of `seq, id, attempt, status, reason, at`.
pub(crate) fn event(row: &Row<'_>) -> Result<JobEvent, Fault> {
    let seq: i64 = row.get(0)?;
    let mut cells = Cells::new(row);
    let decoded = (|| {
        Ok(JobEvent {
            seq: cells.take_u64()?,
            attempt: AttemptId { id: cells.take_parsed()?, attempt: cells.take()? },
            status: cells.take_parsed()?,
            reason: cells.take_named(Reason::from_name)?,
            at: cells.take_timestamp()?,
        })
    })();
    decoded.map_err(|source| cells.damaged(&format!("event {seq}"), source))
}

/// The body of a document from that column.
pub(crate) fn body(row: &Row<'_>, column: usize, kind: DocumentKind, key: &str) -> Result<Vec<u8>, Fault> {
    bytes(row, column)
        .map_err(|source| Fault::Record { what: format!("document {} '{key}'", kind.as_str()), source })
}

/// Text or blob, as bytes.
fn bytes(row: &Row<'_>, column: usize) -> Result<Vec<u8>, BoxError> {
    match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(bytes.to_vec()),
        other => Err(format!("{} where text was expected", other.data_type()).into()),
    }
}
