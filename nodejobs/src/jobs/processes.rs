//! The living processes of jobs.

use super::{Jobs, Mode};
use crate::api::JobProcess;
use crate::client::Client;
use crate::error::Error;

impl Jobs {
    /// The main process of a job, if it is alive: checked to be the one that was started, by more than its number.
    /// `None` before it starts, once it has ended, and where nobody can tell, such as in another pid namespace.
    ///
    /// By the time the caller looks it may have ended. To signal it, use [`stop`](Self::stop), which cannot hit
    /// another process.
    ///
    /// ```no_run
    /// # async fn example(jobs: nodejobs::Jobs) -> Result<(), nodejobs::Error> {
    /// match jobs.find("nightly").await? {
    ///     Some(process) => println!("runs as {} since {}", process.pid, process.started_at),
    ///     None => println!("is not running"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](crate::api::ProblemKind::NotFound) or [`Ambiguous`](crate::api::ProblemKind::Ambiguous).
    pub async fn find(&self, reference: &str) -> Result<Option<JobProcess>, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.find(reference).await,
            Mode::Connected { .. } => {
                let reference = reference.to_owned();
                self.ask(move |client| client.find(&reference)).await
            }
        }
    }

    /// The living main processes of all jobs of the data directory, in the order in which the jobs were submitted; see
    /// [`find`](Self::find). Jobs that wait or have ended have none.
    ///
    /// # Errors
    /// [`Unavailable`](crate::api::ProblemKind::Unavailable) when the store cannot be read.
    pub async fn list(&self) -> Result<Vec<JobProcess>, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.processes().await,
            Mode::Connected { .. } => self.ask(Client::processes).await,
        }
    }
}
