//! Errors as they travel: what kind, in which words, and the HTTP status that goes with it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Candidate;
use super::event::EventError;

/// What the caller can do about a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The request itself is wrong; sending it again will not help.
    Usage,
    /// There is no such job.
    NotFound,
    /// The thing asked for contradicts what is there, such as an id whose job is running.
    Conflict,
    /// The reference fits several jobs; `candidates` names them.
    Ambiguous,
    /// Not now: there is no owner, it is leaving, or its store cannot be used.
    Unavailable,
    /// It was tried and did not work.
    Failed,
}

impl ProblemKind {
    /// The HTTP status that carries a problem of this kind.
    pub const fn http_status(self) -> u16 {
        match self {
            ProblemKind::Usage => 400,
            ProblemKind::NotFound => 404,
            ProblemKind::Conflict | ProblemKind::Ambiguous => 409,
            ProblemKind::Unavailable => 503,
            ProblemKind::Failed => 500,
        }
    }
}

/// Why a request was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What the caller can do about it.
    pub kind: ProblemKind,
    /// A lower-case sentence that names the thing, the cause and the way out.
    pub message: String,
    /// The jobs that an ambiguous reference fits, newest first, at most [`Candidate::NAMED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// How many more it fits, of the first [`Candidate::COUNTED`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_candidates: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Problem {
    /// A problem without candidates.
    pub fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), candidates: Vec::new(), more_candidates: 0 }
    }

    /// A reference that fits all of these jobs; the newest come first.
    pub fn ambiguous(reference: &str, fitting: &[Candidate]) -> Self {
        let at_least = if fitting.len() >= Candidate::COUNTED { "at least " } else { "" };
        let message =
            format!("'{reference}' fits {at_least}{} jobs; give the id of one of them", fitting.len());
        Self {
            kind: ProblemKind::Ambiguous,
            message,
            candidates: fitting.iter().take(Candidate::NAMED).cloned().collect(),
            more_candidates: fitting.len().saturating_sub(Candidate::NAMED),
        }
    }

    /// What is said of the candidates that are not named: `and 17 more`, if there are any.
    pub fn more(&self) -> Option<String> {
        match self.more_candidates {
            0 => None,
            more if self.candidates.len() + more >= Candidate::COUNTED => {
                Some(format!("and at least {more} more"))
            }
            more => Some(format!("and {more} more")),
        }
    }

    /// A request that is wrong in itself.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ProblemKind::Usage, message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (index, candidate) in self.candidates.iter().enumerate() {
            write!(f, "{}{candidate}", if index == 0 { ": " } else { ", " })?;
        }
        self.more().map_or(Ok(()), |more| write!(f, " {more}"))
    }
}

impl std::error::Error for Problem {}

/// The body of every answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: Problem,
}

impl ErrorBody {
    /// The data of the server-sent event `error`.
    ///
    /// # Errors
    /// When a value cannot be JSON, which does not happen.
    pub fn to_sse(&self) -> Result<(&'static str, String), serde_json::Error> {
        Ok(("error", serde_json::to_string(self)?))
    }

    /// From the data of the server-sent event `error`.
    ///
    /// # Errors
    /// [`EventError::BadData`] if it is none.
    pub fn from_sse(data: &str) -> Result<Self, EventError> {
        super::event::read("error", data)
    }
}

#[cfg(test)]
mod tests {
    use nodejobs_core::{JobId, Status, Timestamp};

    use super::*;

    #[test]
    fn a_problem_is_small_json_and_one_line_for_people() {
        let problem = Problem::new(ProblemKind::NotFound, "no job 'x'");
        let json = serde_json::to_string(&ErrorBody { error: problem.clone() }).expect("JSON");
        assert_eq!(json, r#"{"error":{"kind":"not_found","message":"no job 'x'"}}"#);
        assert_eq!(problem.to_string(), "no job 'x'");

        let candidate = |number: usize| Candidate {
            id: JobId::new(&format!("a{number}")).expect("valid"),
            name: None,
            status: Status::Running,
            created_at: Timestamp::from_millis(0),
        };
        let ambiguous = |count| Problem::ambiguous("a", &(1..=count).map(candidate).collect::<Vec<_>>());
        assert_eq!(ambiguous(2).to_string(), "'a' fits 2 jobs; give the id of one of them: a1, a2");
        assert!(ambiguous(22).to_string().ends_with(", a20 and 2 more"), "{}", ambiguous(22));
        assert!(ambiguous(1000).message.contains("at least 1000 jobs"), "{}", ambiguous(1000));
        assert_eq!(ambiguous(1000).more().as_deref(), Some("and at least 980 more"));
        let ambiguous = ambiguous(22);
        let json = serde_json::to_string(&ambiguous).expect("JSON");
        assert_eq!(serde_json::from_str::<Problem>(&json).expect("the same"), ambiguous);
    }
}
