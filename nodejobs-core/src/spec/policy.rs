//! The rules under which a job starts, runs and ends.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::signal::Signal;
use crate::status::Status;
use crate::time::{Moment, Timestamp};

/// When a job is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// As soon as it can be.
    #[default]
    Now,
    /// So many milliseconds after it was accepted. Measured on the boot clock as long as the owner lives, and on the
    /// wall clock by an owner that comes later; never longer than was asked for.
    AfterMs(u64),
    /// At this time on the wall clock, wherever that is set to meanwhile. A time that has passed is now.
    At(Timestamp),
}

impl Start {
    /// When a job that was accepted at that time is due; `None` for at once.
    pub fn due(self, accepted: Timestamp) -> Option<Timestamp> {
        match self {
            Start::Now => None,
            Start::AfterMs(delay) => {
                let delay = i64::try_from(delay).unwrap_or(i64::MAX);
                Some(Timestamp::from_millis(accepted.as_millis().saturating_add(delay)))
            }
            Start::At(time) => Some(time),
        }
    }

    /// How many milliseconds are left of the wait of a job that was accepted at that time.
    pub fn left_ms(self, accepted: Timestamp, now: Moment) -> u64 {
        let Some(due) = self.due(accepted) else { return 0 };
        let left = due.as_millis().saturating_sub(now.wall.as_millis()).max(0).unsigned_abs();
        if let Start::AfterMs(delay) = self { left.min(delay) } else { left }
    }
}

/// When a job that has ended by itself is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When it failed, or was lost. One that could not be executed at all is not tried again.
    OnFailure,
    /// Whenever it has ended, unless somebody stopped it or it could not be executed.
    Always,
}

impl Restart {
    /// All of them.
    pub const ALL: [Restart; 3] = [Restart::No, Restart::OnFailure, Restart::Always];

    /// The name on the command line and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Restart::No => "no",
            Restart::OnFailure => "on-failure",
            Restart::Always => "always",
        }
    }

    /// Whether an attempt that has ended so is followed by another.
    pub fn follows(self, ended: Status) -> bool {
        match ended {
            Status::Failed | Status::Lost => self != Restart::No,
            Status::Finished => self == Restart::Always,
            _ => false,
        }
    }
}

/// A text that names no restart policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a restart policy; one of {list}", list = Restart::ALL.map(Restart::as_str).join(", "))]
pub struct UnknownRestart(String);

impl FromStr for Restart {
    type Err = UnknownRestart;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|restart| restart.as_str() == text);
        found.ok_or_else(|| UnknownRestart(text.to_owned()))
    }
}

/// How a job is ended, what counts as its success, and what becomes of what it leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The signal that asks it to end.
    pub stop_signal: Signal,
    /// How long it has to obey, in milliseconds, before it is killed.
    pub grace_ms: u64,
    /// How long it may run, in milliseconds from its start on the boot clock, pauses included. What has not ended by
    /// then is stopped, and has failed with reason `timeout`.
    pub timeout_ms: Option<u64>,
    /// Exit codes that mean success.
    pub success_codes: Vec<i32>,
    /// Whether processes that it leaves behind when it ends by itself may go on. A stop ends them all the same.
    pub keep_children: bool,
    /// Whether it is started again when it has ended by itself.
    pub restart: Restart,
    /// How often at most; as often as it ends if absent.
    pub max_restarts: Option<u32>,
    /// How long after its end, in milliseconds.
    pub restart_delay_ms: u64,
    /// How many of the newest bytes of each of its log files are kept on disk, to the mebibyte; 0 is all of them. If
    /// absent in what is asked for, the owner's default counts; if absent in what is stored, all are kept: the job was
    /// accepted before there were caps.
    // Stores that keep fields without their names tell what is left out only at the end, so this has to stay the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_cap: Option<u64>,
}

/// The least cap of a log file, in bytes.
pub const MIN_LOG_CAP: u64 = 64 << 10;
/// The cap of a log file where nothing else is said, in bytes.
pub const DEFAULT_LOG_CAP: u64 = 100 << 20;

impl Policy {
    /// Whether an attempt that has ended so, after so many restarts, is followed by another.
    pub fn restarts_after(&self, ended: Status, restarts: u32) -> bool {
        self.restart.follows(ended) && self.max_restarts.is_none_or(|max| restarts < max)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            stop_signal: Signal::TERM,
            grace_ms: 5_000,
            timeout_ms: None,
            success_codes: vec![0],
            keep_children: false,
            restart: Restart::No,
            max_restarts: None,
            restart_delay_ms: 1_000,
            log_cap: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::BootTime;

    #[test]
    fn a_wait_is_what_is_left_of_it_and_never_longer_than_was_asked_for() {
        let accepted = Timestamp::from_millis(10_000);
        let left = |start: Start, wall| {
            let now = Moment { wall: Timestamp::from_millis(wall), boot: BootTime(7) };
            start.left_ms(accepted, now)
        };
        assert_eq!(left(Start::Now, 0), 0);
        assert_eq!(left(Start::AfterMs(500), 10_200), 300);
        assert_eq!(left(Start::AfterMs(500), 11_000), 0);
        assert_eq!(left(Start::AfterMs(500), 0), 500, "the clock was set back");
        assert!(left(Start::AfterMs(u64::MAX), 10_000) > 200_000_000_000_000, "the last time there is");
        assert_eq!(left(Start::At(Timestamp::from_millis(12_000)), 10_000), 2_000);
        assert_eq!(left(Start::At(Timestamp::from_millis(9_000)), 10_000), 0);
    }

    #[test]
    fn what_ended_by_itself_is_started_again_as_often_as_it_may_be() {
        let policy = |restart, max_restarts| Policy { restart, max_restarts, ..Policy::default() };
        for restart in Restart::ALL {
            assert_eq!(restart.as_str().parse(), Ok(restart));
            for ended in [Status::Stopped, Status::Cancelled, Status::FailedStart] {
                assert!(!policy(restart, None).restarts_after(ended, 0), "{ended}");
            }
        }
        assert!(policy(Restart::OnFailure, None).restarts_after(Status::Failed, 1_000));
        assert!(policy(Restart::OnFailure, None).restarts_after(Status::Lost, 0));
        assert!(!policy(Restart::OnFailure, None).restarts_after(Status::Finished, 0));
        assert!(policy(Restart::Always, Some(3)).restarts_after(Status::Finished, 2));
        assert!(!policy(Restart::Always, Some(3)).restarts_after(Status::Finished, 3));
        assert!(!policy(Restart::No, None).restarts_after(Status::Failed, 0));
    }

    #[test]
    fn what_is_left_out_has_its_default_and_what_is_unknown_is_refused() {
        let policy: Policy = serde_json::from_str(r#"{"grace_ms": 10}"#).expect("a policy");
        assert_eq!(policy, Policy { grace_ms: 10, ..Policy::default() });
        assert!(serde_json::from_str::<Policy>(r#"{"colour": "red"}"#).is_err());
        let start = |json: &str| serde_json::from_str::<Start>(json).expect("a start");
        assert_eq!(start(r#"{"after_ms": 5}"#), Start::AfterMs(5));
        assert_eq!(start(r#""now""#), Start::Now);
    }
}
