//! Schedules as they are asked for, and as they are shown.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use nodejobs_core::schedule::{CatchUp, Overlap};
use nodejobs_core::spec::{Command, JobSpec};
use nodejobs_core::{JobId, RawText, Status, Timestamp};
use serde::{Deserialize, Serialize};

use super::Problem;

/// When a schedule is to be due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum When {
    /// Whenever the clock of a time zone fits a cron expression.
    ///
    /// An expression whose minute and hour do not begin with `*` names fixed times: when the clock goes forward, those that it
    /// leaves out come once at that moment; when it goes back, those that it shows twice come the first time only. All
    /// others go by real time.
    Cron {
        /// Five fields: minute, hour, day of the month, month, day of the week; or six, with the second first; or `@daily`
        /// and the like.
        expression: String,
        /// A name such as `Europe/Berlin`; that of the owner's machine if absent.
        #[serde(default)]
        zone: Option<String>,
    },
    /// Each time so many milliseconds have passed, at least 1,000. The first time comes after the first interval, to the
    /// second.
    EveryMs(u64),
}

/// Asks for a schedule.
///
/// ```
/// use nodejobs::api::{ScheduleRequest, When};
/// use nodejobs::spec::{Command, JobSpec};
///
/// let spec = JobSpec::new(Command::argv(["./backup"]), "/srv");
/// let cron = When::Cron { expression: "30 2 * * *".to_owned(), zone: Some("Europe/Berlin".to_owned()) };
/// let request = ScheduleRequest::new("backup", cron, spec);
/// assert!(!request.replace);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRequest {
    /// Its name, by the rules of ids, at most 90 characters.
    pub name: String,
    /// When it is due.
    pub when: When,
    /// What becomes of an occurrence while the one before has not ended.
    #[serde(default)]
    pub overlap: Overlap,
    /// What becomes of occurrences that were missed.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// After this time it is never due again.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Whether it takes the place of a schedule of that name. What waits of that one, and whether it is paused, stays.
    #[serde(default)]
    pub replace: bool,
    /// What each occurrence runs: a job of its own, with an id made of name and time and the label `schedule=NAME`. So it has
    /// no id, starts `now`, and reads no bytes that come with it.
    pub spec: JobSpec,
}

impl ScheduleRequest {
    /// A schedule that skips what overlaps and what was missed, and has no end.
    pub fn new(name: impl Into<String>, when: When, spec: JobSpec) -> Self {
        Self {
            name: name.into(),
            when,
            overlap: Overlap::Skip,
            catch_up: CatchUp::Skip,
            until: None,
            replace: false,
            spec,
        }
    }
}

/// What can be done to a schedule, beside running it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScheduleAction {
    /// It starts nothing until it is resumed. What is due meanwhile is skipped, and what waits goes on waiting.
    Pause,
    /// It goes on.
    Resume,
    /// It is forgotten. What it has begun goes on; what waits does not start.
    Remove,
}

impl fmt::Display for ScheduleAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ScheduleAction::Pause => "pause",
            ScheduleAction::Resume => "resume",
            ScheduleAction::Remove => "remove",
        })
    }
}

impl FromStr for ScheduleAction {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let all = [ScheduleAction::Pause, ScheduleAction::Resume, ScheduleAction::Remove];
        let known = all.into_iter().find(|known| known.to_string() == text);
        known.ok_or_else(|| {
            Problem::usage(format!(
                "'{text}' is nothing that is done to a schedule; it is pause, resume, remove or run"
            ))
        })
    }
}

/// Which part of a schedule is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleQuery {
    /// How many of its next times, at most [`MAX_NEXT`](Self::MAX_NEXT).
    #[serde(default = "one")]
    pub next: usize,
}

fn one() -> usize {
    1
}

impl Default for ScheduleQuery {
    fn default() -> Self {
        Self { next: one() }
    }
}

impl ScheduleQuery {
    /// So many of the next times are told at most.
    pub const MAX_NEXT: usize = 1_000;
}

/// Whether a schedule will be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleState {
    /// It will.
    Active,
    /// Not until it is resumed.
    Paused,
    /// Never again.
    Ended,
    /// Nobody knows: its time zone is not in this machine's time zone database.
    UnknownZone,
}

impl fmt::Display for ScheduleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ScheduleState::Active => "active",
            ScheduleState::Paused => "paused",
            ScheduleState::Ended => "ended",
            ScheduleState::UnknownZone => "unknown_zone",
        })
    }
}

/// A schedule as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleRecord {
    /// Its name.
    pub name: String,
    /// Whether it will be due.
    pub state: ScheduleState,
    /// Its cron expression, if it has one.
    pub cron: Option<String>,
    /// The time zone of the expression.
    pub zone: Option<String>,
    /// Its interval in milliseconds, if it has one.
    pub every_ms: Option<u64>,
    /// What becomes of an occurrence while the one before has not ended.
    pub overlap: Overlap,
    /// What becomes of what was missed.
    pub catch_up: CatchUp,
    /// After this time it is never due again.
    pub until: Option<Timestamp>,
    /// When it was added, or replaced.
    pub created_at: Timestamp,
    /// When it is due next; empty while it is paused.
    pub next: Vec<Timestamp>,
    /// Occurrences that wait until the one before has ended.
    pub waiting: Vec<Timestamp>,
    /// The last occurrence that became a job.
    pub last: Option<ScheduledRun>,
    /// What each occurrence runs.
    pub command: Command,
    /// Where.
    pub cwd: RawText,
    /// Labels of each of its jobs; `schedule` is among them.
    pub labels: BTreeMap<String, String>,
}

/// An occurrence that became a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledRun {
    /// When it was due, or asked for by hand.
    pub due: Timestamp,
    /// Its job.
    pub self_id: JobId,
    /// Where that stands; `None` if it is forgotten.
    pub status: Option<Status>,
    /// How it ended, in a few words: `failed, exit code 3`.
    pub outcome: Option<String>,
    /// When its program was executed.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_when_and_what_and_nothing_is_added() {
        let spec = r#"{"command":{"argv":["true"]},"cwd":"/"}"#;
        let request: ScheduleRequest =
            serde_json::from_str(&format!(r#"{{"name":"a","when":{{"every_ms":1000}},"spec":{spec}}}"#))
                .expect("a request");
        assert_eq!(request, ScheduleRequest::new("a", When::EveryMs(1000), request.spec.clone()));
        for when in [
            r#"{"cron":{}}"#,
            r#"{"cron":{"expression":"x","tz":"UTC"}}"#,
            r#"{"every_ms":-1}"#,
            r#"{"every_ms":1,"cron":{"expression":"x"}}"#,
            "{}",
        ] {
            let text = format!(r#"{{"name":"a","when":{when},"spec":{spec}}}"#);
            assert!(serde_json::from_str::<ScheduleRequest>(&text).is_err(), "{text}");
        }
        let odd = format!(r#"{{"name":"a","when":{{"every_ms":1}},"spec":{spec},"catch_up":"some"}}"#);
        assert!(serde_json::from_str::<ScheduleRequest>(&odd).is_err());
        assert!(serde_json::from_str::<ScheduleQuery>(r#"{"next":1,"all":true}"#).is_err());
        assert_eq!("pause".parse(), Ok(ScheduleAction::Pause));
        assert!("stop".parse::<ScheduleAction>().is_err());
    }
}
