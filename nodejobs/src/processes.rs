//! The living main processes of jobs.

use nodejobs_core::job::Job;
use nodejobs_proc::is_alive;
use nodejobs_proc::machine::Machine;

use crate::api::{JobProcess, ProblemKind};
use crate::error::Error;
use crate::owner::{Owner, live_jobs};
use crate::service::resolve;

impl Owner {
    /// The living main process of a job, if it has one.
    pub(crate) async fn find(&self, reference: &str) -> Result<Option<JobProcess>, Error> {
        let reference = reference.to_owned();
        self.blocking(move |store| Ok(living(&resolve(store, &reference)?, &this_machine()?))).await
    }

    /// The living main processes of all jobs, in the order of submission.
    pub(crate) async fn processes(&self) -> Result<Vec<JobProcess>, Error> {
        self.blocking(|store| {
            let machine = this_machine()?;
            Ok(live_jobs(store)?.iter().filter_map(|job| living(job, &machine)).collect())
        })
        .await
    }
}

fn this_machine() -> Result<Machine, Error> {
    Machine::read().map_err(|error| {
        Error::new(ProblemKind::Failed, "processes cannot be told from others").with_source(error)
    })
}

fn living(job: &Job, machine: &Machine) -> Option<JobProcess> {
    let process = job.state.process.as_ref()?;
    // Once the end is known there is nothing to look for, whoever has the number now.
    if job.state.ended.is_some() || !is_alive(process, machine) {
        return None;
    }
    Some(JobProcess {
        id: job.id.clone(),
        attempt: job.state.attempt,
        pid: process.pid?,
        started_at: job.state.started?.wall,
    })
}
