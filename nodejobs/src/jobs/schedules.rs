//! Schedules through the library.

use nodejobs_core::record::JobRecord;

use super::{Jobs, Mode};
use crate::api::{ScheduleAction, ScheduleQuery, ScheduleRecord, ScheduleRequest};
use crate::client::Client;
use crate::error::Error;

impl Jobs {
    /// Adds a schedule, or replaces one. It is on disk when this returns, and due as long as the directory has an owner.
    ///
    /// ```no_run
    /// # async fn example(jobs: nodejobs::Jobs) -> Result<(), Box<dyn std::error::Error>> {
    /// use nodejobs::api::{ScheduleRequest, When};
    /// use nodejobs::spec::{Command, JobSpec};
    ///
    /// let spec = JobSpec::new(Command::argv(["./backup"]), "/srv").context(nodejobs::capture_context()?);
    /// let cron = When::Cron { expression: "30 2 * * *".to_owned(), zone: Some("Europe/Berlin".to_owned()) };
    /// let backup = jobs.add_schedule(ScheduleRequest::new("backup", cron, spec)).await?;
    /// println!("runs next at {:?}", backup.next);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Usage`](crate::api::ProblemKind::Usage) for what can never be due or cannot be run;
    /// [`Conflict`](crate::api::ProblemKind::Conflict) if there is one of that name and it is not to be replaced.
    pub async fn add_schedule(&self, request: ScheduleRequest) -> Result<ScheduleRecord, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.add_schedule(&request).await,
            Mode::Connected { .. } => self.ask(move |client| client.add_schedule(&request)).await,
        }
    }

    /// Every schedule, in the order of their names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRecord>, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.schedules().await,
            Mode::Connected { .. } => self.ask(Client::schedules).await,
        }
    }

    /// One schedule, with as many of its next times as the query asks for.
    ///
    /// # Errors
    /// [`NotFound`](crate::api::ProblemKind::NotFound).
    pub async fn schedule(&self, name: &str, query: &ScheduleQuery) -> Result<ScheduleRecord, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.schedule(name, query).await,
            Mode::Connected { .. } => {
                let (name, query) = (name.to_owned(), *query);
                self.ask(move |client| client.schedule(&name, &query)).await
            }
        }
    }

    /// Pauses, resumes or removes a schedule; gives it as it is then, or was.
    ///
    /// # Errors
    /// [`NotFound`](crate::api::ProblemKind::NotFound).
    pub async fn act_on_schedule(&self, name: &str, action: ScheduleAction) -> Result<ScheduleRecord, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.act_on_schedule(name, action).await,
            Mode::Connected { .. } => {
                let name = name.to_owned();
                self.ask(move |client| client.act_on_schedule(&name, action)).await
            }
        }
    }

    /// Begins one occurrence now, also of a schedule that is paused; its job is on disk when this returns.
    ///
    /// # Errors
    /// [`NotFound`](crate::api::ProblemKind::NotFound); [`Conflict`](crate::api::ProblemKind::Conflict) if another one has
    /// not ended.
    pub async fn run_schedule(&self, name: &str) -> Result<JobRecord, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.run_schedule(name).await,
            Mode::Connected { .. } => {
                let name = name.to_owned();
                self.ask(move |client| client.run_schedule(&name)).await
            }
        }
    }
}
