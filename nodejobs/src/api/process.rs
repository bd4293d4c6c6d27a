//! The living process of a job, as it is told.

use nodejobs_core::{JobId, Timestamp};
use serde::{Deserialize, Serialize};

/// The main process of a job that is alive, checked to be the one that was started and no other with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProcess {
    /// Whose it is.
    pub id: JobId,
    /// Of which attempt.
    pub attempt: u32,
    /// Its process id, as the owner of the data directory sees it.
    pub pid: u32,
    /// When its program was executed.
    pub started_at: Timestamp,
}
