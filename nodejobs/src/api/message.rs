//! The bodies of requests and answers.

use std::collections::BTreeMap;

use nodejobs_core::array::Counts;
use nodejobs_core::backend::{KeeperStatus, MemoryLimits};
use nodejobs_core::record::JobRecord;
use nodejobs_core::signal::Signal;
use nodejobs_core::{JobId, RawText, Status, Timestamp};
use serde::{Deserialize, Serialize};

use super::Problem;
use super::hang::Hang;

/// What a daemon says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its process.
    pub pid: u32,
    /// Version of its program.
    pub version: String,
    /// The directory it owns.
    pub data_dir: RawText,
    /// Where it listens.
    pub socket: RawText,
    /// The store it uses: `sqlite`, `redb` or `sled`.
    pub store: String,
    /// Version of the store's format.
    #[serde(default)]
    pub store_format: Option<u32>,
    /// What the store does not promise, in sentences; empty when it promises everything.
    #[serde(default)]
    pub store_weaker: Vec<String>,
    /// Why the last write to the store failed, such as a full disk; what has happened since is written as soon as it can be.
    /// `None` once a write has succeeded again.
    #[serde(default)]
    pub store_trouble: Option<String>,
    /// When it became the owner.
    pub started_at: Timestamp,
    /// Who keeps the jobs.
    pub keepers: Vec<KeeperStatus>,
    /// How many jobs have each status; one that none has may be absent.
    pub jobs: BTreeMap<Status, u64>,
    /// How many schedules there are.
    #[serde(default)]
    pub schedules: usize,
    /// How limits on memory are kept.
    #[serde(default = "sampling")]
    pub memory_limits: MemoryLimits,
    /// What has waited for two seconds or more for a file system that does not answer, the longest first. Nothing else waits
    /// for it.
    #[serde(default)]
    pub hanging: Vec<Hang>,
}

fn sampling() -> MemoryLimits {
    MemoryLimits::Sampling
}

/// What became of one spec of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchResult {
    /// The job is on disk under this id.
    Id(JobId),
    /// It was refused.
    Error(Problem),
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobPage {
    /// The jobs, in the order asked for.
    pub jobs: Vec<JobRecord>,
    /// What to give as `after` for the next part; `null` when this is the last.
    pub next: Option<u64>,
}

impl JobPage {
    /// The jobs by their ids. Generated ids sort by the time of their submission; the vector
    /// [`jobs`](Self::jobs) is in the order asked for.
    pub fn into_map(self) -> BTreeMap<JobId, JobRecord> {
        self.jobs.into_iter().map(|job| (job.self_id.clone(), job)).collect()
    }
}

/// Asks to be told when jobs have ended. Ended ones count at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitRequest {
    /// References, each to one job.
    pub jobs: Vec<String>,
    /// Whether the first that ends is enough.
    #[serde(default)]
    pub any: bool,
    /// Wait at most so many milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Whether to be told how far arrays got meanwhile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub progress: bool,
}

/// How far an array got that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitProgress {
    /// The array.
    pub job: JobId,
    /// Its elements in numbers.
    pub progress: Counts,
}

impl WaitRequest {
    /// Waits for all of these, without end.
    pub fn all<T: Into<String>>(jobs: impl IntoIterator<Item = T>) -> Self {
        Self {
            jobs: jobs.into_iter().map(Into::into).collect(),
            any: false,
            timeout_ms: None,
            progress: false,
        }
    }

    /// Asks for those that have not ended yet, over the next connection.
    pub fn go_on_behind(&mut self, ended: &JobRecord) {
        // A single reference may be a name or the beginning of an id.
        let only = self.jobs.len() == 1;
        self.jobs.retain(|job| !only && job != ended.self_id.as_str());
    }
}

/// Asks something of jobs.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobsRequest {
    /// References, each to one job.
    pub jobs: Vec<String>,
}

/// Asks that jobs begin their next attempts. Living ones are stopped first.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartRequest {
    /// References, each to one job.
    pub jobs: Vec<String>,
    /// Chosen by the client, one for each intent to restart: a request that is sent again after a broken connection is
    /// recognised by it, and answered with the attempts that it has begun already.
    pub submit_key: String,
    /// Which signal asks a living job to end, instead of its own.
    #[serde(default)]
    pub signal: Option<Signal>,
    /// How long it has to obey, in milliseconds, instead of its own.
    #[serde(default)]
    pub grace_ms: Option<u64>,
    /// Kill without asking.
    #[serde(default)]
    pub force: bool,
    /// Only what has ended: a living job is refused instead of stopped.
    #[serde(default)]
    pub ended: bool,
    /// Only what has ended without success: jobs that did not finish, and of arrays the elements that did not.
    #[serde(default)]
    pub failed: bool,
}

/// What became of something that was asked of jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionAnswer {
    /// One for each reference, in their order.
    pub results: Vec<ActionResult>,
}

/// What became of something that was asked of one job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ActionResult {
    /// It is done.
    Done {
        /// The reference as it was given.
        job: String,
        /// How the job stands now; of a removed one, how it last stood.
        record: Box<JobRecord>,
    },
    /// Nothing was done.
    Refused {
        /// The reference as it was given.
        job: String,
        /// Why.
        error: Problem,
    },
}

/// Asks that jobs end. Nothing is signalled if a reference is unknown or ambiguous: its result says so, the others go on.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// References, each to one job.
    #[serde(default)]
    pub jobs: Vec<String>,
    /// All jobs that have not ended, instead of `jobs`.
    #[serde(default)]
    pub all: bool,
    /// Which signal asks, instead of the job's own.
    #[serde(default)]
    pub signal: Option<Signal>,
    /// How long they have to obey, in milliseconds, instead of the job's own; one deadline for all.
    #[serde(default)]
    pub grace_ms: Option<u64>,
    /// Kill without asking.
    #[serde(default)]
    pub force: bool,
}

/// What became of a stop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StopAnswer {
    /// One for each reference, in their order; for `all`, one for each job.
    pub results: Vec<StopResult>,
}

impl StopAnswer {
    /// How many jobs were ended by it: not those that had ended before, nor those that could not be ended.
    pub fn stopped(&self) -> usize {
        let is_stopped = |result: &&StopResult| matches!(result, StopResult::Done { record, already_ended: false, .. } if record.status.is_terminal());
        self.results.iter().filter(is_stopped).count()
    }
}

/// What became of the stop of one job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StopResult {
    /// It has ended, or it could not be ended and its status is `failed_stop`.
    Done {
        /// The reference as it was given.
        job: String,
        /// How it stands now.
        record: Box<JobRecord>,
        /// Whether it had ended before anything was done.
        already_ended: bool,
    },
    /// Nothing was done.
    Refused {
        /// The reference as it was given.
        job: String,
        /// Why.
        error: Problem,
    },
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ProblemKind;

    #[test]
    fn the_json_is_the_documented_one() {
        let results = [
            BatchResult::Id(JobId::new("a").expect("valid")),
            BatchResult::Error(Problem::new(ProblemKind::Conflict, "taken")),
        ];
        let json = json!([{"id": "a"}, {"error": {"kind": "conflict", "message": "taken"}}]);
        assert_eq!(serde_json::to_value(&results).expect("JSON"), json);
        assert_eq!(serde_json::from_value::<[BatchResult; 2]>(json).expect("the same"), results);

        let refused = json!({"job": "x", "error": {"kind": "not_found", "message": "no job 'x'"}});
        let result: StopResult = serde_json::from_value(refused.clone()).expect("a result");
        assert!(matches!(&result, StopResult::Refused { job, .. } if job == "x"), "{result:?}");
        assert_eq!(serde_json::to_value(&result).expect("JSON"), refused);

        let status = DaemonStatus {
            pid: 1,
            version: "0".into(),
            data_dir: "/d".into(),
            socket: "/d/sock".into(),
            store: "sqlite".into(),
            store_format: Some(1),
            store_weaker: vec![],
            store_trouble: None,
            started_at: Timestamp::from_millis(0),
            keepers: vec![],
            jobs: BTreeMap::from([(Status::FailedStart, 2)]),
            schedules: 2,
            memory_limits: MemoryLimits::Kernel,
            hanging: vec![],
        };
        let json = serde_json::to_value(&status).expect("JSON");
        assert_eq!((&json["jobs"], &json["socket"]), (&json!({"failed_start": 2}), &json!("/d/sock")));
        assert_eq!(serde_json::from_value::<DaemonStatus>(json).expect("the same"), status);
    }

    #[test]
    fn what_a_request_leaves_out_has_a_meaning_and_what_it_adds_is_refused() {
        let stop: StopRequest = serde_json::from_str(r#"{"jobs":["a"]}"#).expect("a request");
        assert_eq!(stop, StopRequest { jobs: vec!["a".into()], ..StopRequest::default() });
        assert!(serde_json::from_str::<StopRequest>(r#"{"job":["a"]}"#).is_err());
        assert!(serde_json::from_str::<WaitRequest>(r#"{"jobs":["a"],"colour":1}"#).is_err());
    }
}
