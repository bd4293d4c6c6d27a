//! Groups, why jobs wait, and queued jobs that become other ones.

use nodejobs_core::engine::Edits;
use nodejobs_core::explain::Explanation;
use nodejobs_core::filter::FilterError;
use nodejobs_core::group::{DEFAULT_GROUP, GroupChange, GroupStatus};
use nodejobs_core::record::JobRecord;

use super::control::Waited;
use super::{Jobs, Mode};
use crate::api::{ListQuery, ProblemKind, WaitRequest};
use crate::client::Client;
use crate::error::Error;

impl Jobs {
    /// All groups: the default one first, then the others by their names.
    ///
    /// # Errors
    /// When the owner leaves meanwhile.
    pub async fn groups(&self) -> Result<Vec<GroupStatus>, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.groups().await,
            Mode::Connected { .. } => self.ask(Client::groups).await,
        }
    }

    /// Makes a group, or changes it while its jobs run: who runs goes on. It is on disk when this returns.
    ///
    /// ```no_run
    /// # async fn example(jobs: nodejobs::Jobs) -> Result<(), Box<dyn std::error::Error>> {
    /// use nodejobs::group::{GroupChange, Slots};
    /// use nodejobs::spec::{Command, JobSpec};
    ///
    /// let slots = Some(Slots::Limited(4));
    /// jobs.set_group("train", GroupChange { slots, ..GroupChange::default() }).await?;
    /// jobs.run(JobSpec::new(Command::argv(["./train"]), "/src").group("train").slots(2).priority(5)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] for a name that no group can have; [`ProblemKind::Unavailable`] if the store cannot be
    /// written.
    pub async fn set_group(&self, name: &str, change: GroupChange) -> Result<GroupStatus, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.set_group(name, change).await,
            Mode::Connected { .. } => {
                let name = name.to_owned();
                self.ask(move |client| client.set_group(&name, change)).await
            }
        }
    }

    /// Forgets a group, and gives what it was.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`]; [`ProblemKind::Conflict`] while it has jobs that have not ended.
    pub async fn remove_group(&self, name: &str) -> Result<GroupStatus, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.remove_group(name).await,
            Mode::Connected { .. } => {
                let name = name.to_owned();
                self.ask(move |client| client.remove_group(&name)).await
            }
        }
    }

    /// What keeps a job from running now: its position, what there is not enough of, and who has it.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`].
    pub async fn explain(&self, reference: &str) -> Result<Explanation, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.explain(reference).await,
            Mode::Connected { .. } => {
                let reference = reference.to_owned();
                self.ask(move |client| client.explain(&reference)).await
            }
        }
    }

    /// Makes a queued job another one. It keeps its age in the queue.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`]; [`ProblemKind::Conflict`] for a job that is not queued;
    /// [`ProblemKind::Usage`] for what no job could be; [`ProblemKind::Unavailable`] if the store cannot be written: the
    /// change is made as soon as it can.
    pub async fn edit(&self, reference: &str, edits: &Edits) -> Result<JobRecord, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.edit(reference, edits).await,
            Mode::Connected { .. } => {
                let (reference, edits) = (reference.to_owned(), edits.clone());
                self.ask(move |client| client.edit(&reference, &edits)).await
            }
        }
    }

    /// Waits until no job of a group lives any more; also for those that come meanwhile. The records of those that ended
    /// are in the order of their ends.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn wait_for_group(&self, name: &str) -> Result<Vec<JobRecord>, Error> {
        let mut ended = Vec::new();
        loop {
            let live = self.live_jobs_of(name).await?;
            if live.is_empty() {
                return Ok(ended);
            }
            let Waited { ended: more, .. } = self.wait_for(&WaitRequest::all(live)).await?;
            ended.extend(more);
        }
    }

    async fn live_jobs_of(&self, group: &str) -> Result<Vec<String>, Error> {
        let unusable = |error: FilterError| Error::new(ProblemKind::Usage, error.to_string());
        let mut query = ListQuery::live_of_group(group).map_err(unusable)?;
        let mut live = Vec::new();
        loop {
            let page = self.list_status(&query).await?;
            let is_of = |job: &&JobRecord| job.group.as_deref().unwrap_or(DEFAULT_GROUP) == group;
            live.extend(page.jobs.iter().filter(is_of).map(|job| job.self_id.to_string()));
            query.after = page.next;
            if page.next.is_none() {
                return Ok(live);
            }
        }
    }
}
