//! What is stored about a job: its definition, which stays, and its state, which moves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AttemptId, JobId};
use crate::signal::Signal;
use crate::spec::{Command, JobSpec};
use crate::status::{Reason, Status};
use crate::text::RawText;
use crate::time::{Moment, Timestamp};

/// A job with one attempt, as a store returns it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Order of first submission, assigned by the store, never used twice.
    pub seq: u64,
    /// Its id.
    pub id: JobId,
    /// Counts the changes of the job; a change names the revision it was decided on.
    pub revision: u64,
    /// What this attempt runs.
    pub definition: Definition,
    /// How far it got.
    pub state: JobState,
}

impl Job {
    /// The attempt this value describes.
    pub fn attempt_id(&self) -> AttemptId {
        AttemptId { id: self.id.clone(), attempt: self.state.attempt }
    }
}

/// What an attempt runs and under which rules. Does not change while the attempt lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// A name for people.
    pub name: Option<String>,
    /// What is executed.
    pub command: Command,
    /// The working directory, absolute.
    pub cwd: RawText,
    /// Key of the stored [`LaunchContext`](crate::spec::LaunchContext).
    pub context_key: String,
    /// The group it belongs to.
    pub group: Option<String>,
    /// Higher goes first.
    pub priority: i32,
    /// How many places of its group it takes.
    pub slots: u32,
    /// Free `key=value` pairs.
    pub labels: BTreeMap<String, String>,
    /// Directory of the log files, absolute.
    pub logdir: RawText,
    /// The signal that asks it to end.
    pub stop_signal: Signal,
    /// Milliseconds it has to obey.
    pub grace_ms: u64,
    /// Exit codes that mean success.
    pub success_codes: Vec<i32>,
    /// Which submit made this attempt.
    pub submit_key: Option<String>,
    /// When the attempt was accepted.
    pub created_at: Timestamp,
}

impl Definition {
    /// What is stored of a spec; the caller adds where its logs go and when it was accepted.
    pub fn new(spec: &JobSpec, logdir: RawText, created_at: Timestamp) -> Self {
        Self {
            name: spec.name.clone(),
            command: spec.command.clone(),
            cwd: spec.cwd.clone(),
            context_key: spec.context.key(),
            group: None,
            priority: 0,
            slots: 1,
            labels: spec.labels.clone(),
            logdir,
            stop_signal: spec.stop_signal,
            grace_ms: spec.grace_ms,
            success_codes: spec.success_codes.clone(),
            submit_key: spec.submit_key.clone(),
            created_at,
        }
    }

    /// The last component of the working directory.
    pub fn dirname(&self) -> RawText {
        let trimmed = self.cwd.as_bytes().strip_suffix(b"/").unwrap_or(self.cwd.as_bytes());
        trimmed.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec().into()
    }
}

/// A process as its backend knows it. The handle means something only to the backend that made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// What the backend needs to find this very process again, and no other.
    pub handle: String,
    /// Its process id, where there is one.
    pub pid: Option<u32>,
}

/// How a process ended, from its wait status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It ended with this code.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// The signal's number.
        number: i32,
        /// Whether a core was dumped.
        core_dumped: bool,
    },
}

impl ExitStatus {
    /// What a shell would show: the code, or 128 and the signal's number.
    pub fn shell_code(self) -> i32 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal { number, .. } => 128 + number,
        }
    }
}

/// What a process used, from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceUsage {
    /// User and system time, in milliseconds.
    pub cpu_ms: u64,
    /// Largest resident size, in KiB.
    pub peak_memory_kib: u64,
}

/// What a queued job waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitingOn {
    /// The machine had no room for a process; it is tried again.
    Resources,
}

impl WaitingOn {
    /// The name in records and stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            WaitingOn::Resources => "resources",
        }
    }

    /// The one of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        [WaitingOn::Resources].into_iter().find(|known| known.as_str() == name)
    }
}

/// How far an attempt got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobState {
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// How often the job was started again by its policy.
    pub restarts: u32,
    /// Where it stands.
    pub status: Status,
    /// Why, where the status alone does not say.
    pub reason: Option<Reason>,
    /// A sentence for people.
    pub detail: Option<String>,
    /// What it waits for while queued.
    pub waiting_on: Option<WaitingOn>,
    /// Its main process, once there is one.
    pub process: Option<Process>,
    /// When the program was executed.
    pub started: Option<Moment>,
    /// When its main process ended, or its fate was decided.
    pub ended: Option<Moment>,
    /// How its main process ended.
    pub exit: Option<ExitStatus>,
    /// What it used.
    pub usage: Option<ResourceUsage>,
    /// When this state was decided.
    pub last_update: Timestamp,
}

impl JobState {
    /// A first or further attempt at its beginning.
    pub fn new(attempt: u32, status: Status, now: Timestamp) -> Self {
        Self {
            attempt,
            restarts: 0,
            status,
            reason: None,
            detail: None,
            waiting_on: None,
            process: None,
            started: None,
            ended: None,
            exit: None,
            usage: None,
            last_update: now,
        }
    }

    /// Milliseconds between start and end on the boot clock, once both are known.
    pub fn runtime_ms(&self) -> Option<u64> {
        Some(self.ended?.boot.millis_since(self.started?.boot))
    }
}

/// Where an attempt's output goes below its log directory, without the ending: `<xx>/<id>.<attempt>`.
///
/// The two hex digits spread the files over 256 directories; they come from the id alone, so they can be found again
/// by hand: `ls logs/*/ID.*`.
pub fn log_stem(attempt: &AttemptId) -> String {
    // FNV-1a: any stable spread does.
    let hash = attempt
        .id
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{:02x}/{}.{}", (hash ^ (hash >> 16)) & 0xff, attempt.id, attempt.attempt)
}

/// The two log files of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPaths {
    /// What the job writes to descriptor 1.
    pub stdout: RawText,
    /// What it writes to descriptor 2.
    pub stderr: RawText,
}

impl LogPaths {
    /// The files of this attempt in that log directory.
    pub fn of(logdir: &RawText, attempt: &AttemptId) -> Self {
        let stem = log_stem(attempt);
        let path = |ending: &str| {
            let mut bytes = logdir.as_bytes().to_vec();
            bytes.extend_from_slice(format!("/{stem}.{ending}").as_bytes());
            RawText::from(bytes)
        };
        Self { stdout: path("out"), stderr: path("err") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_files_are_flat_spread_and_reproducible() {
        let attempt = AttemptId { id: JobId::new("a.b").expect("valid"), attempt: 3 };
        let paths = LogPaths::of(&"/logs".into(), &attempt);
        assert_eq!(paths, LogPaths::of(&"/logs".into(), &attempt));
        let stdout = paths.stdout.to_string();
        assert!(stdout.starts_with("/logs/") && stdout.ends_with("/a.b.3.out"), "{stdout}");
        assert_eq!(stdout.split('/').nth(2).map(str::len), Some(2));
    }

    #[test]
    fn dirname_is_the_last_component() {
        let spec = JobSpec::new(Command::argv(["true"]), "/srv/www/");
        let definition = Definition::new(&spec, "/logs".into(), Timestamp::default());
        assert_eq!(definition.dirname(), "www".into());
    }
}
