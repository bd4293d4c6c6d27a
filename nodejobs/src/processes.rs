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
        self.blocking(move |store| living(&resolve(store, &reference)?, &this_machine()?)).await
    }

    /// The living main processes of all jobs, in the order of submission.
    pub(crate) async fn processes(&self) -> Result<Vec<JobProcess>, Error> {
        self.blocking(|store| {
            let machine = this_machine()?;
            live_jobs(store)?.iter().filter_map(|job| living(job, &machine).transpose()).collect()
        })
        .await
    }
}

fn this_machine() -> Result<Machine, Error> {
    Machine::read().map_err(|error| {
        Error::new(ProblemKind::Failed, "processes cannot be told from others").with_source(error)
    })
}

fn living(job: &Job, machine: &Machine) -> Result<Option<JobProcess>, Error> {
    // Once the end is known there is nothing to look for, whoever has the number now.
    let Some(process) = job.state.process.as_ref().filter(|_| job.state.ended.is_none()) else {
        return Ok(None);
    };
    let is_alive = is_alive(process, machine).map_err(|error| {
        Error::new(ProblemKind::Unavailable, format!("the process of job '{}' cannot be looked at", job.id))
            .with_source(error)
    })?;
    let found = process.pid.zip(job.state.started).filter(|_| is_alive);
    Ok(found.map(|(pid, started)| JobProcess {
        id: job.id.clone(),
        attempt: job.state.attempt,
        pid,
        started_at: started.wall,
    }))
}
