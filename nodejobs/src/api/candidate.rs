//! The jobs that an ambiguous reference fits, as much of each as tells it from the others.

use std::fmt;

use nodejobs_core::job::Job;
use nodejobs_core::{JobId, Status, Timestamp};
use serde::{Deserialize, Serialize};

/// A job that an ambiguous reference fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its id.
    pub id: JobId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Where its newest attempt stands.
    pub status: Status,
    /// When that attempt was accepted.
    pub created_at: Timestamp,
}

impl Candidate {
    /// At most so many are named.
    pub const NAMED: usize = 20;
    /// At most so many are counted.
    pub const COUNTED: usize = 1000;
}

impl From<&Job> for Candidate {
    fn from(job: &Job) -> Self {
        Self {
            id: job.id.clone(),
            name: job.definition.name.clone(),
            status: job.state.status,
            created_at: job.definition.created_at,
        }
    }
}

/// Shown as its id.
impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}
