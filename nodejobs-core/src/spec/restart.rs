//! Whether and when a job that has ended by itself is started again.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Policy, Start};
use crate::job::{ExitStatus, JobState};
use crate::status::{Reason, Status};

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

/// What becomes of a job that fails again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backoff {
    /// The longest that the delay is doubled to, in milliseconds.
    pub delay_max_ms: u64,
    /// How long an attempt has to run, in milliseconds, for its failure to be the first of a row.
    pub healthy_after_ms: u64,
    /// After so many failures in a row it is not started again. Never given up if absent.
    pub give_up_after: Option<u32>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { delay_max_ms: 300_000, healthy_after_ms: 30_000, give_up_after: Some(16) }
    }
}

/// What follows an attempt that has ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// Nothing: its policy wants no more.
    Nothing,
    /// Nothing: it has failed too often in a row.
    GivesUp,
    /// Another attempt.
    Attempt {
        /// So long after the end, in milliseconds.
        delay_ms: u64,
        /// How many attempts up to here have failed in a row without a healthy spell.
        failures: u32,
    },
    /// Another attempt of a job that is to succeed once.
    Retry {
        /// So long after the end, in milliseconds.
        after_ms: u64,
        /// How many attempts up to here have ended in the same way in a row.
        same: u32,
        /// Which way, if it is one that counts.
        ending: Option<ExitStatus>,
    },
    /// Nothing: so many attempts in a row have ended in the same way.
    Parked {
        /// How many.
        same: u32,
    },
}

impl Follows {
    /// How the attempt is started that follows, if one does.
    pub fn start(self) -> Option<Start> {
        match self {
            Follows::Attempt { delay_ms: after_ms, failures } => Some(Start::Again { after_ms, failures }),
            Follows::Retry { after_ms, same, ending } => Some(Start::Retry { after_ms, same, ending }),
            Follows::Nothing | Follows::GivesUp | Follows::Parked { .. } => None,
        }
    }
}

impl Policy {
    /// What follows an attempt that has ended as its state says, after so many failures in a row before it. Jobs that fail
    /// together are spread by a number that differs between them.
    pub fn follows(&self, ended: &JobState, failures_before: u32, spread: u64) -> Follows {
        let is_wanted = self.restart.follows(ended.status);
        if !is_wanted || self.max_restarts.is_some_and(|max| ended.restarts >= max) {
            return Follows::Nothing;
        }
        let was_healthy = ended.runtime_ms().is_some_and(|ran| ran >= self.backoff.healthy_after_ms);
        let failures = match (ended.status, ended.reason) {
            // Neither is a sign of something wrong with the job.
            (Status::Finished, _) | (_, Some(Reason::Reboot)) => 0,
            _ if was_healthy => 1,
            _ => failures_before.saturating_add(1),
        };
        if self.backoff.give_up_after.is_some_and(|most| failures >= most) {
            return Follows::GivesUp;
        }
        let delay_ms = delay_after(self.restart_delay_ms, self.backoff.delay_max_ms, failures, spread);
        Follows::Attempt { delay_ms, failures }
    }
}

/// The first delay, doubled with each further failure up to the longest one; then up to a tenth more.
pub(super) fn delay_after(first: u64, longest: u64, failures: u32, spread: u64) -> u64 {
    let delay = match failures.saturating_sub(1) {
        0 => first,
        doublings => {
            let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
            first.max(1).saturating_mul(factor).min(longest.max(first))
        }
    };
    let most_more = delay / 10;
    delay.saturating_add(spread % most_more.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{BootTime, Moment, Timestamp};

    fn policy() -> Policy {
        Policy { restart: Restart::OnFailure, ..Policy::default() }
    }

    fn with(change: impl FnOnce(&mut Backoff)) -> Policy {
        let mut policy = policy();
        change(&mut policy.backoff);
        policy
    }

    fn ended(status: Status, ran_ms: u64) -> JobState {
        let at = |boot| Some(Moment { wall: Timestamp::default(), boot: BootTime(boot) });
        JobState {
            started: at(1_000),
            ended: at(1_000 + ran_ms),
            ..JobState::new(1, status, Timestamp::default())
        }
    }

    /// The delays after failures that come at once, until there is no more.
    fn delays(policy: &Policy) -> Vec<u64> {
        let mut failures_so_far = 0;
        let next = || match policy.follows(&ended(Status::Failed, 5), failures_so_far, 0) {
            Follows::Attempt { delay_ms, failures } => {
                failures_so_far = failures;
                Some(delay_ms)
            }
            _ => None,
        };
        std::iter::from_fn(next).take(100).collect()
    }

    #[test]
    fn each_failure_in_a_row_doubles_the_delay_up_to_the_longest_and_at_last_it_gives_up() {
        let short = with(|backoff| (backoff.give_up_after, backoff.delay_max_ms) = (Some(7), 10_000));
        assert_eq!(delays(&short), [1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
        assert_eq!(delays(&policy()).len(), 15, "16 attempts");
        let stubborn = with(|backoff| backoff.give_up_after = None);
        assert_eq!(delays(&stubborn)[99], stubborn.backoff.delay_max_ms);
        let at_once = Policy { restart_delay_ms: 0, ..policy() };
        assert_eq!(delays(&at_once)[..5], [0, 2, 4, 8, 16], "and never a loop that burns a processor");
        let constant = Policy { restart_delay_ms: 50, ..with(|backoff| backoff.delay_max_ms = 0) };
        assert_eq!(delays(&constant)[..3], [50, 50, 50]);
        let longest = Policy { restart_delay_ms: u64::MAX, ..policy() };
        assert_eq!(longest.follows(&ended(Status::Lost, 0), 3, u64::MAX - 1), {
            Follows::Attempt { delay_ms: u64::MAX, failures: 4 }
        });
    }

    #[test]
    fn a_healthy_spell_a_success_and_a_reboot_begin_anew() {
        let policy = Policy { restart: Restart::Always, ..policy() };
        let failures = |state: &JobState| match policy.follows(state, 9, 0) {
            Follows::Attempt { delay_ms, failures } => (failures, delay_ms),
            other => panic!("{other:?}"),
        };
        assert_eq!(failures(&ended(Status::Failed, policy.backoff.healthy_after_ms)), (1, 1_000));
        assert_eq!(failures(&ended(Status::Failed, policy.backoff.healthy_after_ms - 1)), (10, 300_000));
        assert_eq!(failures(&ended(Status::Finished, 0)), (0, 1_000));
        assert_eq!(failures(&ended(Status::Lost, 0)), (10, 300_000));
        let rebooted = JobState { reason: Some(Reason::Reboot), ..ended(Status::Lost, 0) };
        assert_eq!(failures(&rebooted), (0, 1_000));
    }

    #[test]
    fn those_that_fail_together_do_not_come_back_together_and_never_too_early() {
        let delay = |spread| match policy().follows(&ended(Status::Failed, 0), 3, spread) {
            Follows::Attempt { delay_ms, .. } => delay_ms,
            other => panic!("{other:?}"),
        };
        let delays: Vec<_> =
            (0..10_000).map(|number: u64| delay(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        assert!(delays.iter().all(|delay| (8_000..=8_800).contains(delay)));
        let distinct: std::collections::BTreeSet<_> = delays.iter().collect();
        assert_eq!(distinct.len(), 801, "all there are");
    }

    #[test]
    fn what_ended_by_itself_is_started_again_as_often_as_it_may_be() {
        let follows = |restart, max_restarts, status, restarts| {
            let state = JobState { restarts, ..ended(status, 0) };
            Policy { restart, max_restarts, ..Policy::default() }.follows(&state, 0, 0) != Follows::Nothing
        };
        for restart in Restart::ALL {
            assert_eq!(restart.as_str().parse(), Ok(restart));
            for status in [Status::Stopped, Status::Cancelled, Status::FailedStart] {
                assert!(!follows(restart, None, status, 0), "{status}");
            }
        }
        assert!(follows(Restart::OnFailure, None, Status::Failed, 1_000));
        assert!(follows(Restart::OnFailure, None, Status::Lost, 0));
        assert!(!follows(Restart::OnFailure, None, Status::Finished, 0));
        assert!(follows(Restart::Always, Some(3), Status::Finished, 2));
        assert!(!follows(Restart::Always, Some(3), Status::Finished, 3));
        assert!(!follows(Restart::No, None, Status::Failed, 0));
    }
}
