//! What is stored about a job: its definition, which stays, and its state, which moves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AttemptId, JobId};
use crate::logs::{LogPaths, LogStart, Logs};
use crate::spec::{After, Command, JobSpec, Policy, Start, Stdin, TerminalSize};
use crate::status::{Reason, Status};
use crate::text::RawText;
use crate::time::{BootTime, Moment, Timestamp};

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

    /// Its log files.
    pub fn log_paths(&self) -> LogPaths {
        self.definition.logs.paths(&self.attempt_id())
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
    /// What it reads.
    pub input: Input,
    /// Where its output goes.
    pub logs: Logs,
    /// The group it belongs to.
    pub group: Option<String>,
    /// Higher goes first.
    pub priority: i32,
    /// How many places of its group it takes.
    pub slots: u32,
    /// Free `key=value` pairs.
    pub labels: BTreeMap<String, String>,
    /// When it is started.
    pub start: Start,
    /// How it is ended and judged.
    pub policy: Policy,
    /// Which submit made this attempt, or the one that its policy has had this follow.
    pub submit_key: Option<String>,
    /// When the attempt was accepted.
    pub created_at: Timestamp,
    /// How much it takes of which named resources.
    #[serde(default)]
    pub needs: BTreeMap<String, u32>,
    /// Which jobs have to have ended before it starts.
    #[serde(default)]
    pub after: Option<After>,
    /// What has begun it, if that was not somebody's submit.
    #[serde(default)]
    pub origin: Option<Origin>,
    /// What makes it the parent of an array, which has no process of its own.
    #[serde(default)]
    pub array: Option<Array>,
}

/// What begins jobs beside those who submit them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Origin {
    /// An array.
    Element {
        /// Its parent.
        array: JobId,
        /// Its number in the array, from 1.
        index: u32,
    },
    /// A schedule.
    Schedule {
        /// Which one.
        name: String,
        /// For which time.
        due: Timestamp,
    },
}

/// Many jobs of one definition that differ in their parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Array {
    /// How many elements it has.
    pub size: u32,
    /// Whether the first element that fails ends the others.
    pub fail_fast: bool,
    /// How many elements run at a time at most; as many as there is room for if absent.
    pub max_running: Option<u32>,
}

impl Definition {
    /// What is stored of a spec; the caller adds where logs go if the spec does not say it, and when it was accepted.
    /// Input that is kept with the job gets its key once the job has an id.
    pub fn new(spec: &JobSpec, logdir: RawText, created_at: Timestamp) -> Self {
        let merge = spec.output.merge || matches!(spec.stdin, Stdin::Terminal(_));
        Self {
            name: spec.name.clone(),
            command: spec.command.clone(),
            cwd: spec.cwd.clone(),
            context_key: spec.context.key(),
            input: match &spec.stdin {
                Stdin::File(path) => Input::File(path.clone()),
                Stdin::Null | Stdin::Bytes(_) => Input::Null,
                Stdin::Pipe => Input::Pipe,
                Stdin::Terminal(size) => Input::Terminal(*size),
            },
            logs: Logs { merge, ..Logs::new(&spec.output, logdir) },
            group: spec.group.clone(),
            priority: spec.priority,
            slots: spec.slots,
            labels: spec.labels.clone(),
            start: spec.start,
            policy: spec.policy.clone(),
            submit_key: spec.submit_key.clone(),
            created_at,
            needs: spec.needs.clone(),
            after: None,
            origin: None,
            array: None,
        }
    }

    /// The last component of the working directory.
    pub fn dirname(&self) -> RawText {
        let trimmed = self.cwd.as_bytes().strip_suffix(b"/").unwrap_or(self.cwd.as_bytes());
        trimmed.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec().into()
    }
}

/// What an attempt reads.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Nothing.
    #[default]
    Null,
    /// This file.
    File(RawText),
    /// The document of kind [`Input`](crate::store::DocumentKind::Input) with this key.
    Stored(String),
    /// What is sent to it through a pipe.
    Pipe,
    /// What is typed at a terminal of its own, which is its output as well.
    Terminal(TerminalSize),
}

impl Input {
    /// Whether it has a [holder](crate::holder).
    pub fn is_held(&self) -> bool {
        matches!(self, Input::Pipe | Input::Terminal(_))
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

/// What an attempt used: all its processes, where its backend counts them together, else the main one with those that it has
/// collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceUsage {
    /// User and system time, in milliseconds.
    pub cpu_ms: u64,
    /// The most memory at a time, in KiB: of all together, or else of one process.
    pub peak_memory_kib: u64,
}

/// What a queued job waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitingOn {
    /// The machine had no room for a process; it is tried again.
    Resources,
    /// Its time has not come.
    Time,
    /// There is no place for it: as many jobs run as may at a time, or what it needs is taken.
    Slot,
    /// Other jobs have to end first.
    Dependency,
}

impl WaitingOn {
    /// The name in records and stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            WaitingOn::Resources => "resources",
            WaitingOn::Time => "time",
            WaitingOn::Slot => "slot",
            WaitingOn::Dependency => "dependency",
        }
    }

    /// The one of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        [WaitingOn::Resources, WaitingOn::Time, WaitingOn::Slot, WaitingOn::Dependency]
            .into_iter()
            .find(|known| known.as_str() == name)
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
    /// When its launch was last decided, on the boot clock. What happened earlier in the same boot is not about it.
    pub launch_asked: BootTime,
    /// Where its output begins in its log files, once there is some.
    pub log_start: LogStart,
    /// The submit key of the next attempt, if that is to begin as soon as this one was stopped.
    pub pending_restart: Option<String>,
    /// When this state was decided.
    pub last_update: Timestamp,
    /// Which ones of the named resources it has, by their numbers.
    #[serde(default)]
    pub assigned: BTreeMap<String, Vec<u32>>,
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
            launch_asked: BootTime::default(),
            log_start: LogStart::default(),
            pending_restart: None,
            last_update: now,
            assigned: BTreeMap::new(),
        }
    }

    /// How it ended, in a few words: `failed, exit code 3`.
    pub fn outcome(&self) -> String {
        let how = match self.exit {
            Some(ExitStatus::Code(code)) => format!(", exit code {code}"),
            Some(ExitStatus::Signal { number, .. }) => format!(", signal {number}"),
            None => String::new(),
        };
        let why = match self.reason {
            Some(reason @ (Reason::Timeout | Reason::Memory | Reason::Reboot)) => format!(", {reason}"),
            _ => String::new(),
        };
        format!("{}{how}{why}", self.status)
    }

    /// Milliseconds between start and end on the boot clock, once both are known.
    pub fn runtime_ms(&self) -> Option<u64> {
        Some(self.ended?.boot.millis_since(self.started?.boot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirname_is_the_last_component() {
        let spec = JobSpec::new(Command::argv(["true"]), "/srv/www/");
        let definition = Definition::new(&spec, "/logs".into(), Timestamp::default());
        assert_eq!(definition.dirname(), "www".into());
    }
}
