//! The rules under which a job starts, runs and ends.

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

use super::{Backoff, Limits, Restart, Retry};
use crate::signal::Signal;
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
    /// So many milliseconds after the attempt before has ended, measured like `AfterMs`. Only a restart policy starts so.
    Again {
        /// The delay.
        after_ms: u64,
        /// How many attempts before it have failed in a row without a healthy spell.
        failures: u32,
    },
    /// At this time on the wall clock, wherever that is set to meanwhile. A time that has passed is now.
    At(Timestamp),
}

impl Start {
    /// When a job that was accepted at that time is due; `None` for at once.
    pub fn due(self, accepted: Timestamp) -> Option<Timestamp> {
        if let Start::At(time) = self {
            return Some(time);
        }
        let delay = i64::try_from(self.delay_ms()?).unwrap_or(i64::MAX);
        Some(Timestamp::from_millis(accepted.as_millis().saturating_add(delay)))
    }

    fn delay_ms(self) -> Option<u64> {
        match self {
            Start::AfterMs(delay) | Start::Again { after_ms: delay, .. } => Some(delay),
            Start::Now | Start::At(_) => None,
        }
    }

    /// How many milliseconds are left of the wait of a job that was accepted at that time.
    pub fn left_ms(self, accepted: Timestamp, now: Moment) -> u64 {
        let Some(due) = self.due(accepted) else { return 0 };
        let left = due.as_millis().saturating_sub(now.wall.as_millis()).max(0).unsigned_abs();
        self.delay_ms().map_or(left, |delay| left.min(delay))
    }
}

/// How a job is ended, what counts as its success, and what becomes of what it leaves.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
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
    /// How long after its end, in milliseconds. Each failure in a row doubles it; up to a tenth is added, so that jobs that
    /// fail together do not come back together.
    pub restart_delay_ms: u64,
    /// How that grows, and when it is given up.
    pub backoff: Backoff,
    /// What it may use of the machine, and as whom, if that was said.
    pub limits: Option<Box<Limits>>,
    /// How many of the newest bytes of each of its log files are kept on disk, to the mebibyte; 0 is all of them. If
    /// absent in what is asked for, the owner's default counts; if absent in what is stored, all are kept: the job was
    /// accepted before there were caps.
    pub log_cap: Option<u64>,
    /// Whether it is tried again when it has failed.
    pub retry: Option<Box<Retry>>,
}

/// The least cap of a log file, in bytes.
pub const MIN_LOG_CAP: u64 = 64 << 10;
/// The cap of a log file where nothing else is said, in bytes.
pub const DEFAULT_LOG_CAP: u64 = 100 << 20;

impl Policy {
    /// How much memory its processes may have together, in bytes, if that is limited.
    pub fn memory_limit(&self) -> Option<u64> {
        self.limits.as_ref()?.memory
    }
}

impl Serialize for Policy {
    /// In JSON, what came with later versions and has its default is left out. Where fields are kept by their places, each
    /// has its own, and new ones come last.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_whole = !serializer.is_human_readable();
        let has_backoff = is_whole || self.backoff != Backoff::default();
        let has_limits = is_whole || self.limits.is_some();
        let has_log_cap = is_whole || self.log_cap.is_some();
        let has_retry = is_whole || self.retry.is_some();
        let fields =
            8 + [has_backoff, has_limits, has_log_cap, has_retry].map(usize::from).iter().sum::<usize>();
        let mut policy = serializer.serialize_struct("Policy", fields)?;
        policy.serialize_field("stop_signal", &self.stop_signal)?;
        policy.serialize_field("grace_ms", &self.grace_ms)?;
        policy.serialize_field("timeout_ms", &self.timeout_ms)?;
        policy.serialize_field("success_codes", &self.success_codes)?;
        policy.serialize_field("keep_children", &self.keep_children)?;
        policy.serialize_field("restart", &self.restart)?;
        policy.serialize_field("max_restarts", &self.max_restarts)?;
        policy.serialize_field("restart_delay_ms", &self.restart_delay_ms)?;
        if has_backoff {
            policy.serialize_field("backoff", &self.backoff)?;
        }
        if has_limits {
            policy.serialize_field("limits", &self.limits)?;
        }
        if has_log_cap {
            policy.serialize_field("log_cap", &self.log_cap)?;
        }
        if has_retry {
            policy.serialize_field("retry", &self.retry)?;
        }
        policy.end()
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
            backoff: Backoff::default(),
            limits: None,
            log_cap: None,
            retry: None,
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
        assert_eq!(left(Start::Again { after_ms: 500, failures: 3 }, 10_200), 300);
        assert!(left(Start::AfterMs(u64::MAX), 10_000) > 200_000_000_000_000, "the last time there is");
        assert_eq!(left(Start::At(Timestamp::from_millis(12_000)), 10_000), 2_000);
        assert_eq!(left(Start::At(Timestamp::from_millis(9_000)), 10_000), 0);
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
