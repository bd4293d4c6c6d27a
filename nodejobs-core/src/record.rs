//! What is shown about a job: the JSON record, the same for the command line, the library and the socket.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::array::Counts;
use crate::id::JobId;
use crate::job::{ExitStatus, Job, Origin, WaitingOn};
use crate::spec::{After, Command, Limits, Values};
use crate::status::{Reason, Status};
use crate::text::RawText;
use crate::time::{Moment, Timestamp};

/// One job as it is shown. Absent values are `null` in JSON. Contains no environment value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The job's id.
    pub self_id: JobId,
    /// Order of first submission; listings page by it.
    pub seq: u64,
    /// A name for people.
    pub name: Option<String>,
    /// Where the newest attempt stands.
    pub status: Status,
    /// Why, where the status alone does not say.
    pub reason: Option<Reason>,
    /// A sentence for people.
    pub detail: Option<String>,
    /// `{"argv": […]}` or `{"shell": "…"}`.
    pub command: Command,
    /// Number of the attempt shown, from 1.
    pub attempt: u32,
    /// How often the job's policy started it again.
    pub restarts: u32,
    /// The main process, living or not.
    pub last_pid: Option<u32>,
    /// The exit code, if it ended with one.
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Whether that signal left a core.
    pub core_dumped: Option<bool>,
    /// When the attempt was accepted.
    pub created_at: Timestamp,
    /// When the program was executed.
    pub started_at: Option<Timestamp>,
    /// When the main process ended.
    pub ended_at: Option<Timestamp>,
    /// When it is started, while it waits for a time or for its restart.
    #[serde(default)]
    pub next_start_at: Option<Timestamp>,
    /// When the record last changed.
    pub last_update: Timestamp,
    /// Milliseconds it ran, or has run so far; measured on the boot clock.
    pub runtime_ms: Option<u64>,
    /// Last component of the working directory.
    pub dirname: RawText,
    /// The working directory.
    pub cwd: RawText,
    /// Directory of the log files.
    pub logdir: RawText,
    /// The file with standard output. Standard error is beside it, with `.err` instead of `.out` or behind a name of
    /// the user's choice, or in the same file if they are merged.
    pub logfile: RawText,
    /// The group it belongs to.
    pub group: Option<String>,
    /// Higher goes first.
    pub priority: i32,
    /// Places of its group that it takes.
    pub slots: u32,
    /// How much it takes of named resources, if it names any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<String, u32>,
    /// Which ones of each it has, by their numbers, or had.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub assigned: BTreeMap<String, Vec<u32>>,
    /// What it may use of the machine, and as whom it runs, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Box<Limits>>,
    /// Which jobs have to end before it starts, and how, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<After>,
    /// Whether it was there before: the answer to a further submit of the same unique key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub existing: bool,
    /// Of an array: how many of its elements came how far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Counts>,
    /// Of an element of an array: which one it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub element: Option<ElementRecord>,
    /// Free `key=value` pairs.
    pub labels: BTreeMap<String, String>,
    /// What it waits for while queued.
    pub waiting_on: Option<String>,
    /// Memory that its processes have now, in MiB, while it runs, if it was asked for.
    pub memory_mb: Option<f64>,
    /// What its processes use now, in percent of one processor, while it runs, if it was asked for.
    pub cpu_percent: Option<f64>,
    /// Largest resident memory, in MiB, once it ended.
    pub peak_memory_mb: Option<f64>,
    /// Processor time used, in milliseconds, once it ended.
    pub cpu_ms: Option<u64>,
    /// Bytes of output on disk.
    pub log_bytes: Option<u64>,
}

/// Which element of which array a job is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ElementRecord {
    /// The id of the array.
    pub array: JobId,
    /// Its number, from 1.
    pub index: u32,
    /// Its values, by name.
    pub values: Values,
}

impl JobRecord {
    /// The record of a stored job. What only a look at the machine can tell (memory, log sizes) is left absent.
    pub fn new(job: &Job, now: Moment) -> Self {
        let Job { seq, id, revision: _, definition, state } = job;
        let (exit_code, signal, core_dumped) = match state.exit {
            Some(ExitStatus::Code(code)) => (Some(code), None, None),
            Some(ExitStatus::Signal { number, core_dumped }) => (None, Some(number), Some(core_dumped)),
            None => (None, None, None),
        };
        let waits_for_time = state.waiting_on == Some(WaitingOn::Time);
        let running_for = match (state.started, state.status.is_terminal()) {
            (Some(started), false) => Some(now.boot.millis_since(started.boot)),
            _ => None,
        };
        Self {
            self_id: id.clone(),
            seq: *seq,
            name: definition.name.clone(),
            status: state.status,
            reason: state.reason,
            detail: state.detail.clone(),
            command: definition.command.clone(),
            attempt: state.attempt,
            restarts: state.restarts,
            last_pid: state.process.as_ref().and_then(|process| process.pid),
            exit_code,
            signal,
            core_dumped,
            created_at: definition.created_at,
            started_at: state.started.map(|moment| moment.wall),
            ended_at: state.ended.map(|moment| moment.wall),
            next_start_at: waits_for_time.then(|| definition.start.due(definition.created_at)).flatten(),
            last_update: state.last_update,
            runtime_ms: state.runtime_ms().or(running_for),
            dirname: definition.dirname(),
            cwd: definition.cwd.clone(),
            logdir: definition.logs.directory(),
            logfile: job.log_paths().stdout,
            group: definition.group.clone(),
            priority: definition.priority,
            slots: definition.slots,
            needs: definition.needs.clone(),
            assigned: state.assigned.clone(),
            limits: definition.policy.limits.clone(),
            after: definition.after.clone(),
            existing: false,
            progress: None,
            element: match &definition.origin {
                Some(Origin::Element { array, index, values }) => {
                    Some(ElementRecord { array: array.clone(), index: *index, values: values.clone() })
                }
                Some(Origin::Schedule { .. }) | None => None,
            },
            labels: definition.labels.clone(),
            waiting_on: state.waiting_on.map(|waiting| waiting.as_str().to_owned()),
            memory_mb: None,
            cpu_percent: None,
            peak_memory_mb: state.usage.map(|usage| to_mebibytes(usage.peak_memory_kib)),
            cpu_ms: state.usage.map(|usage| usage.cpu_ms),
            log_bytes: None,
        }
    }

    /// How the main process ended, if it did and somebody saw it.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        match (self.exit_code, self.signal) {
            (Some(code), _) => Some(ExitStatus::Code(code)),
            (None, Some(number)) => {
                Some(ExitStatus::Signal { number, core_dumped: self.core_dumped.unwrap_or(false) })
            }
            (None, None) => None,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a size in KiB is far below 2^53")]
fn to_mebibytes(kib: u64) -> f64 {
    (kib as f64 / 1024.0 * 10.0).round() / 10.0
}
