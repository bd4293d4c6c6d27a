//! How often a job that fails is tried again.

use serde::{Deserialize, Serialize};

use super::Start;
use super::restart::{Follows, delay_after};
use crate::job::{ExitStatus, JobState};
use crate::status::{Reason, Status};

/// When a job that has failed by itself is tried again. Unlike [`Restart`](super::Restart), which keeps a service
/// running, this is for a job that is to succeed once.
///
/// An attempt has failed if it ended with a bad exit code or by a signal, or was ended because of its time or memory. One
/// that could not be executed at all is not tried again, and one that somebody stopped neither.
///
/// ```
/// use nodejobs_core::spec::{Command, JobSpec, Retry};
///
/// let spec = JobSpec::new(Command::argv(["./fetch"]), "/srv").retry(Retry { retries: 5, ..Retry::default() });
/// assert_eq!(spec.validate(), Ok(()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// How often at most, the first attempt not counted.
    pub retries: u32,
    /// How long after a failure, in milliseconds. Each further one doubles it; up to a tenth is added, so that jobs that
    /// fail together do not come back together.
    pub delay_ms: u64,
    /// How long at most, in milliseconds.
    pub delay_max_ms: u64,
    /// Whether an attempt that was lost because the machine restarted is followed by another one.
    pub on_reboot: bool,
    /// After how many attempts in a row that ended in the very same way it is given up; never if absent.
    pub park_after: Option<u32>,
    /// Whether the same exit code is the same way as well. If not, it is the same signal alone: a crash does not mend
    /// itself, while many programs know one exit code for whatever failed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub park_codes: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            retries: 3,
            delay_ms: 1_000,
            delay_max_ms: 300_000,
            on_reboot: false,
            park_after: Some(3),
            park_codes: false,
        }
    }
}

impl Retry {
    /// What follows an attempt that was started so and has ended as its state says. Jobs that fail together are spread by
    /// a number that differs between them.
    pub fn follows(&self, ended: &JobState, start: Start, spread: u64) -> Follows {
        let has_failed = match ended.status {
            Status::Failed => true,
            Status::Lost => self.on_reboot && ended.reason == Some(Reason::Reboot),
            _ => false,
        };
        if !has_failed {
            return Follows::Nothing;
        }
        let ending = ended.exit.filter(|exit| self.park_codes || matches!(exit, ExitStatus::Signal { .. }));
        let same = match start {
            Start::Retry { same, ending: Some(before), .. }
                if ending.is_some_and(|ending| is_same(ending, before)) =>
            {
                same.saturating_add(1)
            }
            _ => 1,
        };
        if ending.is_some() && self.park_after.is_some_and(|most| same >= most) {
            return Follows::Parked { same };
        }
        if ended.restarts >= self.retries {
            return Follows::Nothing;
        }
        let failures = ended.restarts.saturating_add(1);
        let after_ms = delay_after(self.delay_ms, self.delay_max_ms, failures, spread);
        Follows::Retry { after_ms, same, ending }
    }
}

/// Whether both ended in the same way. Whether a core was left says more about the disk.
fn is_same(one: ExitStatus, other: ExitStatus) -> bool {
    match (one, other) {
        (ExitStatus::Code(one), ExitStatus::Code(other)) => one == other,
        (ExitStatus::Signal { number: one, .. }, ExitStatus::Signal { number: other, .. }) => one == other,
        _ => false,
    }
}

/// What a job that was given up says: `parked: 3 attempts in a row ended with signal 11; …`.
pub(crate) fn parked(same: u32, exit: Option<ExitStatus>) -> String {
    let how = match exit {
        Some(ExitStatus::Code(code)) => format!("with exit code {code}"),
        Some(ExitStatus::Signal { number, .. }) => format!("with signal {number}"),
        None => "the same way".to_owned(),
    };
    format!("parked: {same} attempts in a row ended {how}; restart it when it is mended")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn ended(status: Status, restarts: u32, exit: Option<ExitStatus>) -> JobState {
        JobState { restarts, exit, ..JobState::new(restarts + 1, status, Timestamp::default()) }
    }

    fn crash(number: i32) -> ExitStatus {
        ExitStatus::Signal { number, core_dumped: number % 2 == 0 }
    }

    /// How many attempts a job makes that ends so, one after the other, and whether it was parked.
    fn attempts(retry: &Retry, ends: &[ExitStatus]) -> (u32, bool, Vec<u64>) {
        let (mut start, mut delays) = (Start::Now, Vec::new());
        for (restarts, exit) in (0..).zip(ends) {
            match retry.follows(&ended(Status::Failed, restarts, Some(*exit)), start, 0) {
                Follows::Retry { after_ms, same, ending } => {
                    start = Start::Retry { after_ms, same, ending };
                    delays.push(after_ms);
                }
                Follows::Parked { .. } => return (restarts + 1, true, delays),
                _ => return (restarts + 1, false, delays),
            }
        }
        panic!("it goes on: {delays:?}");
    }

    #[test]
    fn it_is_tried_as_often_as_was_said_with_delays_that_grow() {
        let retry = Retry { retries: 4, delay_max_ms: 3_000, ..Retry::default() };
        let ends = [ExitStatus::Code(1); 9];
        assert_eq!(attempts(&retry, &ends), (5, false, vec![1_000, 2_000, 3_000, 3_000]));
        assert_eq!(attempts(&Retry { retries: 0, ..retry }, &ends), (1, false, vec![]));
    }

    #[test]
    fn the_same_crash_again_and_again_is_parked_and_any_other_end_begins_anew() {
        let retry = Retry { retries: 9, delay_ms: 0, ..Retry::default() };
        assert_eq!(attempts(&retry, &[crash(11); 9]).0, 3);
        assert!(attempts(&retry, &[crash(11); 9]).1);
        let mixed = [crash(11), crash(11), crash(6), crash(11), crash(11), ExitStatus::Code(1), crash(11)];
        let ends = [&mixed[..], &[crash(11); 4]].concat();
        let (made, is_parked, _) = attempts(&retry, &ends);
        assert_eq!((made, is_parked), (9, true));
        let codes = Retry { park_codes: true, ..retry.clone() };
        assert_eq!(attempts(&codes, &[ExitStatus::Code(1); 9]).0, 3);
        let never = Retry { park_after: None, ..codes };
        assert_eq!(attempts(&never, &[crash(11); 11]).0, 10);
    }

    #[test]
    fn only_what_failed_by_itself_is_tried_again() {
        let retry = Retry::default();
        let follows = |retry: &Retry, status, reason| {
            retry.follows(&JobState { reason, ..ended(status, 0, None) }, Start::Now, 0) != Follows::Nothing
        };
        for status in [Status::Finished, Status::FailedStart, Status::Stopped, Status::Cancelled] {
            assert!(!follows(&retry, status, None), "{status}");
        }
        assert!(follows(&retry, Status::Failed, Some(Reason::Timeout)));
        assert!(!follows(&retry, Status::Lost, Some(Reason::Reboot)));
        let on_reboot = Retry { on_reboot: true, ..retry };
        assert!(follows(&on_reboot, Status::Lost, Some(Reason::Reboot)));
        assert!(!follows(&on_reboot, Status::Lost, Some(Reason::Unknown)), "it may have succeeded");
    }

    #[test]
    fn what_is_parked_says_why() {
        let said = "parked: 3 attempts in a row ended with signal 11; restart it when it is mended";
        assert_eq!(parked(3, Some(crash(11))), said);
    }
}
