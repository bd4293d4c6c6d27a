//! Which jobs a listing wants, as `key=value` conditions that all have to hold.

use std::num::{IntErrorKind, ParseIntError};

use serde::{Deserialize, Serialize};

use crate::id::JobId;
use crate::job::{ExitStatus, Job, JobState};
use crate::status::Status;
use crate::text::RawText;
use crate::time::Timestamp;

/// A span of wall time; both ends count as inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TimeRange {
    /// Not before this.
    pub from: Option<Timestamp>,
    /// Not after this.
    pub until: Option<Timestamp>,
}

impl TimeRange {
    /// Whether any condition is set.
    pub fn is_set(&self) -> bool {
        self.from.is_some() || self.until.is_some()
    }

    /// Whether the time is inside; an absent time is inside only of an unset range.
    pub fn contains(&self, time: Option<Timestamp>) -> bool {
        match time {
            Some(time) => {
                self.from.is_none_or(|from| from <= time) && self.until.is_none_or(|until| time <= until)
            }
            None => !self.is_set(),
        }
    }
}

/// Conditions on a job. What is unset does not restrict.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobFilter {
    /// One of these; empty for any.
    pub status: Vec<Status>,
    /// Exactly this id.
    pub self_id: Option<String>,
    /// An id that starts so.
    pub id_prefix: Option<String>,
    /// Exactly this name.
    pub name: Option<String>,
    /// Exactly this group. Jobs of the default group have none.
    pub group: Option<String>,
    /// All of these labels; an absent value accepts any.
    pub label: Vec<(String, Option<String>)>,
    /// This working directory.
    pub cwd: Option<RawText>,
    /// A working directory whose last component is this.
    pub dirname: Option<RawText>,
    /// This log directory.
    pub logdir: Option<RawText>,
    /// This file of standard output.
    pub logfile: Option<RawText>,
    /// This main process.
    pub last_pid: Option<u32>,
    /// This exit code.
    pub exit_code: Option<i32>,
    /// Last changed in this span.
    pub last_update: TimeRange,
    /// Accepted in this span.
    pub created: TimeRange,
    /// Executed in this span.
    pub started: TimeRange,
    /// Ended in this span.
    pub ended: TimeRange,
    /// Whether they are elements of an array.
    #[serde(default)]
    pub is_element: Option<bool>,
}

/// A condition that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No such key.
    #[error("'{0}' is not a filter; the filters are {list}", list = JobFilter::KEYS.join(", "))]
    UnknownKey(String),
    /// A value that does not fit its key.
    #[error("filter {key}: {message}")]
    BadValue {
        /// The key it was given for.
        key: String,
        /// What is wrong with it.
        message: String,
    },
}

impl JobFilter {
    /// Every key that [`set`](Self::set) understands.
    pub const KEYS: [&'static str; 21] = [
        "status",
        "self_id",
        "id_prefix",
        "name",
        "group",
        "label",
        "cwd",
        "dirname",
        "logdir",
        "logfile",
        "last_pid",
        "exit_code",
        "last_update_from",
        "last_update_until",
        "created_from",
        "created_until",
        "started_from",
        "started_until",
        "ended_from",
        "ended_until",
        "is_element",
    ];

    /// Adds one condition. `status` and `label` may be given several times: any of the statuses, all of the labels.
    /// Every other key may be given once.
    ///
    /// ```
    /// use nodejobs_core::filter::JobFilter;
    ///
    /// let mut filter = JobFilter::default();
    /// filter.set("status", "running")?;
    /// assert!(filter.set("colour", "red").unwrap_err().to_string().contains("last_update_from"));
    /// # Ok::<(), nodejobs_core::filter::FilterError>(())
    /// ```
    ///
    /// # Errors
    /// [`FilterError::UnknownKey`] lists the keys; [`FilterError::BadValue`] says what the value should be. The filter is
    /// as it was then.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), FilterError> {
        fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
            key: &str,
            value: &str,
        ) -> Result<T, FilterError> {
            value.parse().map_err(|error: T::Err| FilterError::BadValue {
                key: key.to_owned(),
                message: error.to_string(),
            })
        }
        fn number<T: std::str::FromStr<Err = ParseIntError>>(
            key: &str,
            value: &str,
        ) -> Result<T, FilterError> {
            value.parse().map_err(|error: ParseIntError| {
                let what = match error.kind() {
                    IntErrorKind::PosOverflow => "is too large",
                    IntErrorKind::NegOverflow => "is too small",
                    _ => "is not a whole number",
                };
                FilterError::BadValue { key: key.to_owned(), message: format!("'{value}' {what}") }
            })
        }
        fn once<T>(key: &str, condition: &mut Option<T>, value: T) -> Result<(), FilterError> {
            if condition.is_some() {
                return Err(FilterError::BadValue {
                    key: key.to_owned(),
                    message: "is given twice".to_owned(),
                });
            }
            *condition = Some(value);
            Ok(())
        }
        match key {
            "status" => {
                let statuses = value.split(',').map(|name| parse::<Status>(key, name));
                self.status.extend(statuses.collect::<Result<Vec<_>, _>>()?);
            }
            "self_id" => once(key, &mut self.self_id, value.to_owned())?,
            "id_prefix" => once(key, &mut self.id_prefix, value.to_owned())?,
            "name" => once(key, &mut self.name, value.to_owned())?,
            "group" => once(key, &mut self.group, value.to_owned())?,
            "label" => self.label.push(match value.split_once('=') {
                Some((label, value)) => (label.to_owned(), Some(value.to_owned())),
                None => (value.to_owned(), None),
            }),
            "cwd" => once(key, &mut self.cwd, value.into())?,
            "dirname" => once(key, &mut self.dirname, value.into())?,
            "logdir" => once(key, &mut self.logdir, value.into())?,
            "logfile" => once(key, &mut self.logfile, value.into())?,
            "last_pid" => once(key, &mut self.last_pid, number(key, value)?)?,
            "exit_code" => once(key, &mut self.exit_code, number(key, value)?)?,
            "last_update_from" => once(key, &mut self.last_update.from, parse(key, value)?)?,
            "last_update_until" => once(key, &mut self.last_update.until, parse(key, value)?)?,
            "created_from" => once(key, &mut self.created.from, parse(key, value)?)?,
            "created_until" => once(key, &mut self.created.until, parse(key, value)?)?,
            "started_from" => once(key, &mut self.started.from, parse(key, value)?)?,
            "started_until" => once(key, &mut self.started.until, parse(key, value)?)?,
            "ended_from" => once(key, &mut self.ended.from, parse(key, value)?)?,
            "ended_until" => once(key, &mut self.ended.until, parse(key, value)?)?,
            "is_element" => once(key, &mut self.is_element, parse(key, value)?)?,
            _ => return Err(FilterError::UnknownKey(key.to_owned())),
        }
        Ok(())
    }

    /// Whether the job meets every condition. This is the meaning; stores may use indexes to get there sooner.
    pub fn matches(&self, job: &Job) -> bool {
        self.matches_state(&job.id, &job.state) && self.matches_definition(job)
    }

    /// Whether it meets the conditions on its id and on how far it got: a store that keeps what the job runs elsewhere
    /// need not look there if not.
    pub fn matches_state(&self, id: &JobId, state: &JobState) -> bool {
        let id = id.as_str();
        let exit_code = match state.exit {
            Some(ExitStatus::Code(code)) => Some(code),
            _ => None,
        };
        (self.status.is_empty() || self.status.contains(&state.status))
            && self.self_id.as_deref().is_none_or(|wanted| wanted == id)
            && self.id_prefix.as_deref().is_none_or(|prefix| id.starts_with(prefix))
            && self.last_pid.is_none_or(|pid| state.process.as_ref().and_then(|p| p.pid) == Some(pid))
            && self.exit_code.is_none_or(|code| exit_code == Some(code))
            && self.last_update.contains(Some(state.last_update))
            && self.started.contains(state.started.map(|moment| moment.wall))
            && self.ended.contains(state.ended.map(|moment| moment.wall))
    }

    fn matches_definition(&self, job: &Job) -> bool {
        let definition = &job.definition;
        let wants = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| value == Some(wanted))
        };
        let is =
            |wanted: &Option<RawText>, value: &RawText| wanted.as_ref().is_none_or(|wanted| wanted == value);
        wants(&self.name, definition.name.as_deref())
            && wants(&self.group, definition.group.as_deref())
            && self.label.iter().all(|(key, wanted)| {
                definition.labels.get(key).is_some_and(|value| wanted.as_ref().is_none_or(|w| w == value))
            })
            && is(&self.cwd, &definition.cwd)
            && self.dirname.as_ref().is_none_or(|wanted| *wanted == definition.dirname())
            && is(&self.logdir, &definition.logs.directory())
            && self.logfile.as_ref().is_none_or(|wanted| *wanted == job.log_paths().stdout)
            && self.created.contains(Some(definition.created_at))
            && self.is_element.is_none_or(|wanted| wanted == definition.is_element())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_key_is_understood_and_no_other() {
        for key in JobFilter::KEYS {
            let value = match key {
                "status" => "running,failed",
                "last_pid" | "exit_code" => "7",
                "is_element" => "true",
                _ if key.ends_with("_from") || key.ends_with("_until") => "2026-07-14T03:33:20Z",
                _ => "x",
            };
            let mut filter = JobFilter::default();
            filter.set(key, value).unwrap_or_else(|error| panic!("{key}: {error}"));
            assert_ne!(filter, JobFilter::default(), "{key} set nothing");
        }
        let error = JobFilter::default().set("state", "x").expect_err("no such key").to_string();
        assert!(JobFilter::KEYS.iter().all(|key| error.contains(key)), "{error}");
    }

    #[test]
    fn what_can_hold_only_once_is_refused_a_second_time() {
        for key in JobFilter::KEYS {
            let value = match key {
                "status" => "running",
                "last_pid" | "exit_code" => "7",
                "is_element" => "true",
                _ if key.ends_with("_from") || key.ends_with("_until") => "2026-07-14T03:33:20Z",
                _ => "x",
            };
            let mut filter = JobFilter::default();
            filter.set(key, value).expect(key);
            let before = filter.clone();
            match filter.set(key, value) {
                Ok(()) => assert!(["status", "label"].contains(&key), "{key}"),
                Err(error) => {
                    assert_eq!(error.to_string(), format!("filter {key}: is given twice"));
                    assert_eq!(filter, before);
                }
            }
        }
    }

    #[test]
    fn a_value_that_is_no_number_is_named() {
        for (key, value, what) in [
            ("exit_code", "x", "'x' is not a whole number"),
            ("exit_code", "", "'' is not a whole number"),
            ("exit_code", "2147483648", "'2147483648' is too large"),
            ("last_pid", "-1", "'-1' is not a whole number"),
            ("last_pid", "4294967296", "'4294967296' is too large"),
        ] {
            let error = JobFilter::default().set(key, value).expect_err("no number").to_string();
            assert_eq!(error, format!("filter {key}: {what}"));
        }
    }
}
