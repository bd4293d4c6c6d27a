//! Which jobs have to have ended, and how, before another one starts.

use serde::{Deserialize, Serialize};

use crate::id::JobId;
use crate::status::Status;

/// How a job has to have ended so that one that depends on it may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// As `finished`.
    #[default]
    Success,
    /// As anything but `finished`.
    Failure,
    /// In any way.
    Any,
}

impl Condition {
    /// Whether a job that has ended so meets it; a job that has not ended meets none.
    pub fn is_met_by(self, status: Status) -> bool {
        let has_succeeded = status == Status::Finished;
        status.is_terminal()
            && match self {
                Condition::Success => has_succeeded,
                Condition::Failure => !has_succeeded,
                Condition::Any => true,
            }
    }
}

/// What becomes of a job whose condition cannot be met any more, because the other one has ended otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unmet {
    /// It is cancelled.
    #[default]
    Cancel,
    /// It waits until the other one is run again, and then ends as required.
    Wait,
}

/// One job that another one waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// Which job.
    pub id: JobId,
    /// How it has to have ended.
    pub condition: Condition,
}

/// All jobs that one waits for.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct After {
    /// Each of them, once.
    pub on: Vec<Dependency>,
    /// What becomes of it when one of them has ended otherwise.
    pub unmet: Unmet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_meets_a_condition() {
        for status in Status::ALL {
            let met = [Condition::Success, Condition::Failure, Condition::Any]
                .map(|condition| condition.is_met_by(status));
            let expected = match status {
                Status::Finished => [true, false, true],
                status if status.is_terminal() => [false, true, true],
                _ => [false; 3],
            };
            assert_eq!(met, expected, "{status}");
        }
    }
}
