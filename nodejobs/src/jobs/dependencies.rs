//! What queued jobs wait for.

use nodejobs_core::record::JobRecord;
use nodejobs_core::spec::AfterRequest;

use super::{Jobs, Mode};
#[cfg(doc)]
use crate::api::ProblemKind;
use crate::error::Error;

impl Jobs {
    /// Has a queued job wait for these jobs, instead of those it waits for; for none if the request names none.
    ///
    /// ```no_run
    /// # async fn example(jobs: nodejobs::Jobs) -> Result<(), Box<dyn std::error::Error>> {
    /// use nodejobs::spec::{AfterRequest, Unmet};
    ///
    /// let after = AfterRequest { on: vec!["build".parse()?, "tests:any".parse()?], unmet: Unmet::Wait };
    /// jobs.set_dependencies("deploy", &after).await?;
    /// jobs.set_dependencies("deploy", &AfterRequest::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`] for any of them, [`ProblemKind::Conflict`] for a job that is
    /// not queued, [`ProblemKind::Usage`] for one that would wait for itself.
    pub async fn set_dependencies(&self, reference: &str, after: &AfterRequest) -> Result<JobRecord, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.set_dependencies(reference, after).await,
            Mode::Connected { .. } => {
                let (reference, after) = (reference.to_owned(), after.clone());
                self.ask(move |client| client.set_dependencies(&reference, &after)).await
            }
        }
    }
}
