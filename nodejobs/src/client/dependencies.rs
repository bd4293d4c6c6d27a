//! What queued jobs wait for, changed through the socket.

use nodejobs_core::record::JobRecord;
use nodejobs_core::spec::AfterRequest;

use super::{Client, ClientError, job_path};

impl Client {
    /// Has a queued job wait for these jobs, instead of those it waits for; for none if the request names none.
    ///
    /// # Errors
    /// [`ClientError`]; a problem of kind [`Conflict`](crate::api::ProblemKind::Conflict) if the job is not queued,
    /// [`Usage`](crate::api::ProblemKind::Usage) if it would wait for itself.
    pub fn set_dependencies(&self, reference: &str, after: &AfterRequest) -> Result<JobRecord, ClientError> {
        self.post(&job_path(reference, "/after")?, after, 200)?.json()
    }
}
