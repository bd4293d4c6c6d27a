//! Forgetting many ended jobs, a bounded batch at a time: whoever else asks something comes in between.

use nodejobs_core::engine::Answer;
use nodejobs_core::filter::JobFilter;
use nodejobs_core::job::Job;
use nodejobs_core::store::{JobStore, Order, PageRequest};
use nodejobs_core::{Status, Timestamp};
use nodejobs_proc::machine::now;
use tokio::sync::oneshot;

use crate::api::{Problem, ProblemKind, PruneAnswer, PruneRequest, PrunedJob};
use crate::error::Error;
use crate::hub::stopped;
use crate::owner::{Owner, Request};

/// How many jobs one turn of the owner forgets: with their logs, some tens of milliseconds.
const BATCH: usize = 128;

/// Which ended jobs go.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Of its statuses only the final ones count, all of them if it has none.
    pub(crate) filter: JobFilter,
    pub(crate) order: Order,
    /// Leave so many at the beginning of that order.
    pub(crate) skip: u64,
    /// At most so many.
    pub(crate) most: u64,
}

impl Owner {
    /// Forgets ended jobs, or says which ones it would be.
    pub(crate) async fn prune(&self, request: &PruneRequest) -> Result<PruneAnswer, Error> {
        let mut filter = request.filter().map_err(Problem::from)?;
        if let Some(age) = request.older_than_ms {
            let limit = before(now().wall, age);
            let until = &mut filter.last_update.until;
            *until = Some(until.map_or(limit, |given| given.min(limit)));
        }
        let living = of_statuses(&filter, |status| !status.is_terminal());
        let living = self.blocking(move |store| count(store, living)).await?;
        let skip = request.keep_last.unwrap_or(0);
        let selection = Selection { filter, order: Order::NewestFirst, skip, most: u64::MAX };
        let jobs = self.forget(selection, request.dry_run).await?;
        Ok(PruneAnswer { jobs, living, dry_run: request.dry_run })
    }

    /// Forgets the selected jobs, unless it is a dry run.
    pub(crate) async fn forget(&self, selection: Selection, dry_run: bool) -> Result<Vec<PrunedJob>, Error> {
        let Selection { filter, order, mut skip, mut most } = selection;
        let mut gone = Vec::new();
        let Some(filter) = of_statuses(&filter, Status::is_terminal) else { return Ok(gone) };
        // Elements go with their array.
        let filter = JobFilter { is_element: Some(false), ..filter };
        let mut after = None;
        while most > 0 {
            let request = PageRequest { filter: filter.clone(), order, after, limit: BATCH };
            let page = self.blocking(move |store| Ok(store.jobs(&request)?)).await?;
            let skipped = page.jobs.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            skip -= skipped as u64;
            let wanted = usize::try_from(most).unwrap_or(usize::MAX);
            let jobs: Vec<Job> = page.jobs.into_iter().skip(skipped).take(wanted).collect();
            most -= jobs.len() as u64;
            if dry_run {
                gone.extend(jobs.iter().map(pruned));
            } else {
                self.forget_batch(&jobs, &mut gone).await?;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(gone)
    }

    /// All are asked for before the first answer is waited for, so that they share a flush.
    pub(crate) async fn forget_batch(&self, jobs: &[Job], gone: &mut Vec<PrunedJob>) -> Result<(), Error> {
        let mut asked = Vec::with_capacity(jobs.len());
        for job in jobs {
            let (reply, answer) = oneshot::channel();
            self.ask(job.id.clone(), Request::Remove { revision: Some(job.revision) }, reply)?;
            asked.push((job, answer));
        }
        for (job, answer) in asked {
            match answer.await.map_err(|_| stopped())?.answer {
                Answer::Removed(id) => {
                    gone.push(pruned(job));
                    self.deletions.finished(&id).await;
                    if job.definition.array.is_some() {
                        Box::pin(self.forget_elements(&id)).await?;
                    }
                }
                Answer::NotStored => {
                    let message = format!(
                        "the store cannot be written; {} jobs were removed before; `nodejobs doctor` says more",
                        gone.len()
                    );
                    return Err(Error::new(ProblemKind::Unavailable, message));
                }
                // Somebody removed it or began its next attempt meanwhile: it is not the job that was meant.
                _ => {}
            }
        }
        Ok(())
    }
}

/// The filter for those of its statuses that are so; `None` if it has others only.
pub(crate) fn of_statuses(filter: &JobFilter, is_so: impl Fn(Status) -> bool) -> Option<JobFilter> {
    let asked = if filter.status.is_empty() { &Status::ALL[..] } else { &filter.status };
    let status: Vec<Status> = asked.iter().copied().filter(|status| is_so(*status)).collect();
    (!status.is_empty()).then(|| JobFilter { status, ..filter.clone() })
}

pub(crate) fn count(store: &dyn JobStore, filter: Option<JobFilter>) -> Result<u64, Error> {
    let Some(filter) = filter else { return Ok(0) };
    let mut count = 0;
    let mut request = PageRequest { filter, order: Order::OldestFirst, after: None, limit: 1000 };
    loop {
        let page = store.jobs(&request)?;
        count += page.jobs.len() as u64;
        request.after = page.next;
        if request.after.is_none() {
            return Ok(count);
        }
    }
}

/// The time so many milliseconds before.
pub(crate) fn before(time: Timestamp, millis: u64) -> Timestamp {
    Timestamp::from_millis(time.as_millis().saturating_sub(i64::try_from(millis).unwrap_or(i64::MAX)))
}

fn pruned(job: &Job) -> PrunedJob {
    PrunedJob {
        self_id: job.id.clone(),
        name: job.definition.name.clone(),
        status: job.state.status,
        last_update: job.state.last_update,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_for_living_jobs_alone_means_no_ended_one() {
        let filter = |status: &[Status]| JobFilter { status: status.to_vec(), ..JobFilter::default() };
        assert_eq!(of_statuses(&filter(&[Status::Running]), Status::is_terminal), None);
        let both = filter(&[Status::Running, Status::Failed]);
        assert_eq!(of_statuses(&both, Status::is_terminal), Some(filter(&[Status::Failed])));
        let all = of_statuses(&filter(&[]), Status::is_terminal).expect("some");
        assert!(all.status.len() == 6 && all.status.iter().all(|status| status.is_terminal()), "{all:?}");
    }

    #[test]
    fn the_beginning_of_time_is_no_overflow() {
        assert_eq!(before(Timestamp::from_millis(10), 3).as_millis(), 7);
        assert!(before(Timestamp::from_millis(10), u64::MAX).as_millis() < 0);
    }
}
