//! Schedules through the client.

use nodejobs_core::record::JobRecord;

use super::{Client, ClientError, with_schedule};
use crate::api::{ScheduleAction, ScheduleQuery, ScheduleRecord, ScheduleRequest};

impl Client {
    /// Adds a schedule, or replaces one; it is on disk when this returns. Sent again with the same `submit_key` in its spec,
    /// it is the same schedule.
    ///
    /// # Errors
    /// [`ClientError`]; a problem of kind [`Conflict`](crate::api::ProblemKind::Conflict) if there is one of that name and it
    /// is not to be replaced.
    pub fn add_schedule(&self, request: &ScheduleRequest) -> Result<ScheduleRecord, ClientError> {
        self.post("/v1/schedules", request, 201)?.json()
    }

    /// Every schedule, in the order of their names.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn schedules(&self) -> Result<Vec<ScheduleRecord>, ClientError> {
        self.get("/v1/schedules", &[])?.json()
    }

    /// One schedule, with as many of its next times as the query asks for.
    ///
    /// # Errors
    /// [`ClientError`]; a problem of kind [`NotFound`](crate::api::ProblemKind::NotFound) if there is none of that name.
    pub fn schedule(&self, name: &str, query: &ScheduleQuery) -> Result<ScheduleRecord, ClientError> {
        let next = [("next".to_owned(), query.next.to_string())];
        self.get(&with_schedule(name, "")?, &next)?.json()
    }

    /// Pauses, resumes or removes a schedule; gives it as it is then, or was.
    ///
    /// # Errors
    /// [`ClientError`]; a problem of kind [`NotFound`](crate::api::ProblemKind::NotFound) if there is none of that name.
    pub fn act_on_schedule(&self, name: &str, action: ScheduleAction) -> Result<ScheduleRecord, ClientError> {
        self.post(&with_schedule(name, &format!("/{action}"))?, &(), 200)?.json()
    }

    /// Begins one occurrence now; its job is on disk when this returns.
    ///
    /// # Errors
    /// [`ClientError`]; a problem of kind [`Conflict`](crate::api::ProblemKind::Conflict) if another one has not ended.
    /// After [`ClientError::Broken`] it may have begun or not.
    pub fn run_schedule(&self, name: &str) -> Result<JobRecord, ClientError> {
        self.post(&with_schedule(name, "/run")?, &(), 201)?.json()
    }
}
