//! Groups, why jobs wait, and queued jobs that become other ones.

use nodejobs_core::engine::Edits;
use nodejobs_core::explain::Explanation;
use nodejobs_core::group::{GroupChange, GroupStatus};
use nodejobs_core::record::JobRecord;

use super::{Client, ClientError, job_path, percent_encode};
use crate::api::Problem;

impl Client {
    /// All groups: the default one first, then the others by their names.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn groups(&self) -> Result<Vec<GroupStatus>, ClientError> {
        self.get("/v1/groups", &[])?.json()
    }

    /// Makes a group, or changes it while its jobs run. It is on disk when this returns.
    ///
    /// ```no_run
    /// use nodejobs::client::Client;
    /// use nodejobs::group::{GroupChange, Slots};
    ///
    /// let client = Client::connect("/var/lib/build/jobs".as_ref())?;
    /// let slots = Some(Slots::Limited(4));
    /// println!("{:?}", client.set_group("train", GroupChange { slots, ..GroupChange::default() })?);
    /// # Ok::<(), nodejobs::client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// [`ClientError`]. It may be asked again.
    pub fn set_group(&self, name: &str, change: GroupChange) -> Result<GroupStatus, ClientError> {
        self.post(&group_path(name, "")?, &change, 200)?.json()
    }

    /// Forgets a group that has no live jobs, and gives what it was.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn remove_group(&self, name: &str) -> Result<GroupStatus, ClientError> {
        self.post(&group_path(name, "/remove")?, &(), 200)?.json()
    }

    /// What keeps a job from running now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn explain(&self, reference: &str) -> Result<Explanation, ClientError> {
        self.get(&job_path(reference, "/explain")?, &[])?.json()
    }

    /// Makes a queued job another one. It keeps its age in the queue.
    ///
    /// # Errors
    /// [`ClientError`]. It may be asked again.
    pub fn edit(&self, reference: &str, edits: &Edits) -> Result<JobRecord, ClientError> {
        self.post(&job_path(reference, "/edit")?, edits, 200)?.json()
    }
}

fn group_path(name: &str, rest: &str) -> Result<String, ClientError> {
    if name.is_empty() {
        return Err(Problem::usage("an empty text is no group").into());
    }
    Ok(format!("/v1/groups/{}{rest}", percent_encode(name)))
}
