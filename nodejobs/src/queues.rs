//! Groups, why jobs wait in them, and queued jobs that become other ones: what can be asked of an owner about its queues.

use std::sync::Arc;

use nodejobs_core::Status;
use nodejobs_core::engine::{Answer, Edits, Refusal};
use nodejobs_core::explain::Explanation;
use nodejobs_core::group::{GroupChange, GroupStatus, check_group_name};
use nodejobs_core::job::{Job, WaitingOn};
use nodejobs_core::record::JobRecord;
use tokio::sync::oneshot;

use crate::api::ProblemKind;
use crate::error::Error;
use crate::hub::stopped;
use crate::owner::{GroupRequest, Look, Owner, Request};

impl Owner {
    /// All groups, the default one first.
    pub(crate) async fn groups(&self) -> Result<Vec<GroupStatus>, Error> {
        let (reply, answer) = oneshot::channel();
        self.look(Look::Groups(reply))?;
        answer.await.map_err(|_| stopped())
    }

    async fn group(&self, name: &str) -> Result<GroupStatus, Error> {
        let found = self.groups().await?.into_iter().find(|group| group.name == name);
        found.ok_or_else(|| Error::new(ProblemKind::NotFound, format!("there is no group '{name}'")))
    }

    /// Makes a group, or changes it. It is on disk when this returns.
    pub(crate) async fn set_group(&self, name: &str, change: GroupChange) -> Result<GroupStatus, Error> {
        check_group_name(name).map_err(|error| Error::new(ProblemKind::Usage, error.to_string()))?;
        self.ask_of_group(name, GroupRequest::Change(change)).await?;
        self.group(name).await
    }

    /// Forgets a group without jobs, and gives what it was.
    pub(crate) async fn remove_group(&self, name: &str) -> Result<GroupStatus, Error> {
        let group = self.group(name).await?;
        self.ask_of_group(name, GroupRequest::Remove).await?;
        Ok(group)
    }

    async fn ask_of_group(&self, name: &str, request: GroupRequest) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.ask_group(name.to_owned(), request, reply)?;
        match answer.await.map_err(|_| stopped())?.answer {
            Answer::GroupChanged => Ok(()),
            // Here it is what is asked about.
            Answer::Refused(refusal @ Refusal::UnknownGroup { .. }) => {
                Err(Error::new(ProblemKind::NotFound, refusal.to_string()))
            }
            Answer::Refused(refusal) => Err(refused(&refusal)),
            Answer::NotStored => Err(Error::new(
                ProblemKind::Unavailable,
                format!(
                    "the store cannot be written, so group '{name}' is as it was; `nodejobs doctor` says more"
                ),
            )),
            _ => Err(stopped()),
        }
    }

    /// What keeps a job from running now.
    pub(crate) async fn explain(&self, reference: &str) -> Result<Explanation, Error> {
        let job = self.job(reference).await?;
        let explanation = self.explanation(&job).await?.unwrap_or_else(|| Explanation {
            held_up: None,
            id: job.id.clone(),
            attempt: job.state.attempt,
            status: job.state.status,
            waiting_on: None,
            next_start_at: None,
            queue: None,
            after: Vec::new(),
            chain: Vec::new(),
        });
        Ok(Explanation { held_up: self.held_up(&job).await, ..explanation })
    }

    /// What holds up the launch of a job that is being started, or stopped meanwhile.
    async fn held_up(&self, job: &Job) -> Option<String> {
        let is_launching = matches!(job.state.status, Status::Starting | Status::Stopping);
        if !is_launching || job.state.process.is_some() {
            return None;
        }
        let (backend, attempt) = (Arc::clone(&self.backend), job.attempt_id());
        tokio::task::spawn_blocking(move || backend.held_up(&attempt)).await.ok().flatten()
    }

    /// `None` if it has ended.
    async fn explanation(&self, job: &Job) -> Result<Option<Explanation>, Error> {
        let (reply, answer) = oneshot::channel();
        self.look(Look::Explain(job.id.clone(), reply))?;
        answer.await.map_err(|_| stopped())
    }

    /// The record of a job, which says where it stands in the queue if it does.
    pub(crate) async fn record_in_queue(&self, job: &Job) -> Result<JobRecord, Error> {
        let mut record = self.record_of(job.clone()).await?;
        if job.state.waiting_on == Some(WaitingOn::Slot) {
            let queue = self.explanation(job).await?.and_then(|explanation| explanation.queue);
            record.detail = queue.map(|place| place.to_string());
        }
        if record.detail.is_none() {
            record.detail = self.held_up(job).await;
        }
        Ok(record)
    }

    /// Makes a queued job another one.
    pub(crate) async fn edit(&self, reference: &str, edits: &Edits) -> Result<JobRecord, Error> {
        let usage = |message: String| Error::new(ProblemKind::Usage, message);
        if *edits == Edits::default() {
            return Err(usage("nothing is to be changed; say what".to_owned()));
        }
        edits.validate().map_err(|error| usage(error.to_string()))?;
        let job = self.job(reference).await?;
        let request = Request::Edit(Box::new(edits.clone()));
        self.ask_of_one(job, &request).await
    }
}

/// Something that makes no sense as things are set.
pub(crate) fn refused(refusal: &Refusal) -> Error {
    let kind = match refusal {
        Refusal::HasJobs { .. } | Refusal::HasSchedule { .. } | Refusal::DefaultGroup => {
            ProblemKind::Conflict
        }
        Refusal::UnknownGroup { .. }
        | Refusal::MoreSlots { .. }
        | Refusal::UnknownResource { .. }
        | Refusal::Other(_)
        | Refusal::MoreThanExist { .. } => ProblemKind::Usage,
    };
    Error::new(kind, refusal.to_string())
}
