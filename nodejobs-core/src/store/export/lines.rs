//! The lines of an export as they are in the file. They are a contract, so they have types of their own: a field that
//! is added to a job does not change what an export says until somebody adds it here.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize, Serializer};

use crate::id::{AttemptId, JobId};
use crate::job::{
    Array, Definition, ExitStatus, Input, Job, JobState, Origin, Process, ResourceUsage, WaitingOn,
};
use crate::logs::{LogLayout, LogStart, Logs};
use crate::spec::{After, Command, Policy, Start};
use crate::status::{Reason, Status};
use crate::store::content::{Counters, Item};
use crate::store::{DocumentKind, JobEvent};
use crate::text::RawText;
use crate::time::{BootTime, Moment, Timestamp};

use super::Totals;

/// A line behind the header.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line {
    Counters(CountersLine),
    Document(DocumentLine),
    Job(JobLine),
    /// Further attempts of the job in the line before, if one line would be too long for all.
    MoreAttempts(JobLine),
    Event(EventLine),
    End(Totals),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CountersLine {
    last_seq: u64,
    last_event: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentLine {
    kind: String,
    key: String,
    body: Body,
}

/// Bytes as [`RawText`] has them, but also as base64 where they would be far longer as a string: most control characters
/// take six bytes each, so that the largest input would not fit into a line.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Body(RawText);

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.as_bytes();
        let escaped = |byte: &u8| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
            ..0x20 => 6,
            _ => 1,
        };
        if bytes.iter().map(escaped).sum::<usize>() <= 2 * bytes.len() {
            return self.0.serialize(serializer);
        }
        BTreeMap::from([("base64", BASE64.encode(bytes))]).serialize(serializer)
    }
}

/// A job, or more of its attempts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobLine {
    pub(super) seq: u64,
    pub(super) id: JobId,
    pub(super) attempts: Vec<AttemptLine>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AttemptLine {
    attempt: u32,
    revision: u64,
    status: Status,
    reason: Option<Reason>,
    detail: Option<String>,
    waiting_on: Option<WaitingOn>,
    restarts: u32,
    process: Option<ProcessLine>,
    started: Option<MomentLine>,
    ended: Option<MomentLine>,
    exit: Option<ExitLine>,
    usage: Option<UsageLine>,
    launch_asked_boot_ms: u64,
    log_start: LogStartLine,
    pending_restart: Option<String>,
    last_update: Timestamp,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    assigned: BTreeMap<String, Vec<u32>>,
    name: Option<String>,
    command: Command,
    cwd: RawText,
    context_key: String,
    input: Input,
    logs: LogsLine,
    group: Option<String>,
    priority: i32,
    slots: u32,
    labels: BTreeMap<String, String>,
    start: Start,
    policy: Policy,
    submit_key: Option<String>,
    created_at: Timestamp,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    needs: BTreeMap<String, u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<After>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    array: Option<Array>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProcessLine {
    handle: String,
    pid: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MomentLine {
    wall: Timestamp,
    boot_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum ExitLine {
    Code(i32),
    Signal { number: i32, core_dumped: bool },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageLine {
    cpu_ms: u64,
    peak_memory_kib: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogStartLine {
    stdout: u64,
    stderr: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogsLine {
    layout: LogLayout,
    path: RawText,
    merge: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventLine {
    seq: u64,
    id: JobId,
    attempt: u32,
    status: Status,
    reason: Option<Reason>,
    at: Timestamp,
}

impl Line {
    /// An item that is one line. A job is not: see [`AttemptLine`].
    pub(super) fn of(item: &Item) -> Option<Self> {
        match item {
            Item::Counters(Counters { last_seq, last_event }) => {
                Some(Line::Counters(CountersLine { last_seq: *last_seq, last_event: *last_event }))
            }
            Item::Document { kind, key, body } => Some(Line::Document(DocumentLine {
                kind: kind.as_str().to_owned(),
                key: key.clone(),
                body: Body(RawText::from(body.clone())),
            })),
            Item::Event(JobEvent { seq, attempt, status, reason, at }) => Some(Line::Event(EventLine {
                seq: *seq,
                id: attempt.id.clone(),
                attempt: attempt.attempt,
                status: *status,
                reason: *reason,
                at: *at,
            })),
            Item::Job(_) => None,
        }
    }
}

impl From<CountersLine> for Counters {
    fn from(CountersLine { last_seq, last_event }: CountersLine) -> Self {
        Self { last_seq, last_event }
    }
}

impl DocumentLine {
    /// Fails with the name of a kind that there is not.
    pub(super) fn into_item(self) -> Result<Item, String> {
        let Self { kind, key, body } = self;
        let kind = DocumentKind::from_name(&kind).ok_or(kind)?;
        Ok(Item::Document { kind, key, body: body.0.into_bytes() })
    }
}

impl JobLine {
    pub(super) fn into_attempts(self) -> Vec<Job> {
        let Self { seq, id, attempts } = self;
        attempts.into_iter().map(|attempt| attempt.into_job(seq, id.clone())).collect()
    }
}

impl From<EventLine> for JobEvent {
    fn from(EventLine { seq, id, attempt, status, reason, at }: EventLine) -> Self {
        Self { seq, attempt: AttemptId { id, attempt }, status, reason, at }
    }
}

impl From<Moment> for MomentLine {
    fn from(Moment { wall, boot: BootTime(boot_ms) }: Moment) -> Self {
        Self { wall, boot_ms }
    }
}

impl From<MomentLine> for Moment {
    fn from(MomentLine { wall, boot_ms }: MomentLine) -> Self {
        Self { wall, boot: BootTime(boot_ms) }
    }
}

// Every value is taken apart field by field on both ways, so that a field that is added is not forgotten here.

impl From<&Job> for AttemptLine {
    fn from(Job { seq: _, id: _, revision, definition, state }: &Job) -> Self {
        let Definition {
            name,
            command,
            cwd,
            context_key,
            input,
            logs: Logs { layout, path, merge },
            group,
            priority,
            slots,
            labels,
            start,
            policy,
            submit_key,
            created_at,
            needs,
            after,
            origin,
            array,
        } = definition.clone();
        let JobState {
            attempt,
            restarts,
            status,
            reason,
            detail,
            waiting_on,
            process,
            started,
            ended,
            exit,
            usage,
            launch_asked: BootTime(launch_asked_boot_ms),
            log_start: LogStart { stdout, stderr },
            pending_restart,
            last_update,
            assigned,
        } = state.clone();
        Self {
            attempt,
            revision: *revision,
            status,
            reason,
            detail,
            waiting_on,
            restarts,
            process: process.map(|Process { handle, pid }| ProcessLine { handle, pid }),
            started: started.map(MomentLine::from),
            ended: ended.map(MomentLine::from),
            exit: exit.map(|exit| match exit {
                ExitStatus::Code(code) => ExitLine::Code(code),
                ExitStatus::Signal { number, core_dumped } => ExitLine::Signal { number, core_dumped },
            }),
            usage: usage
                .map(|ResourceUsage { cpu_ms, peak_memory_kib }| UsageLine { cpu_ms, peak_memory_kib }),
            launch_asked_boot_ms,
            log_start: LogStartLine { stdout, stderr },
            pending_restart,
            last_update,
            assigned,
            name,
            command,
            cwd,
            context_key,
            input,
            logs: LogsLine { layout, path, merge },
            group,
            priority,
            slots,
            labels,
            start,
            policy,
            submit_key,
            created_at,
            needs,
            after,
            origin,
            array,
        }
    }
}

impl AttemptLine {
    fn into_job(self, seq: u64, id: JobId) -> Job {
        let Self {
            attempt,
            revision,
            status,
            reason,
            detail,
            waiting_on,
            restarts,
            process,
            started,
            ended,
            exit,
            usage,
            launch_asked_boot_ms,
            log_start: LogStartLine { stdout, stderr },
            pending_restart,
            last_update,
            assigned,
            name,
            command,
            cwd,
            context_key,
            input,
            logs: LogsLine { layout, path, merge },
            group,
            priority,
            slots,
            labels,
            start,
            policy,
            submit_key,
            created_at,
            needs,
            after,
            origin,
            array,
        } = self;
        let definition = Definition {
            name,
            command,
            cwd,
            context_key,
            input,
            logs: Logs { layout, path, merge },
            group,
            priority,
            slots,
            labels,
            start,
            policy,
            submit_key,
            created_at,
            needs,
            after,
            origin,
            array,
        };
        let state = JobState {
            attempt,
            restarts,
            status,
            reason,
            detail,
            waiting_on,
            process: process.map(|ProcessLine { handle, pid }| Process { handle, pid }),
            started: started.map(Moment::from),
            ended: ended.map(Moment::from),
            exit: exit.map(|exit| match exit {
                ExitLine::Code(code) => ExitStatus::Code(code),
                ExitLine::Signal { number, core_dumped } => ExitStatus::Signal { number, core_dumped },
            }),
            usage: usage
                .map(|UsageLine { cpu_ms, peak_memory_kib }| ResourceUsage { cpu_ms, peak_memory_kib }),
            launch_asked: BootTime(launch_asked_boot_ms),
            log_start: LogStart { stdout, stderr },
            pending_restart,
            last_update,
            assigned,
        };
        Job { seq, id, revision, definition, state }
    }
}
