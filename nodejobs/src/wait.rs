//! Waiting for several jobs at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nodejobs_core::JobId;
use nodejobs_core::job::Job;
use nodejobs_core::record::JobRecord;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::api::{ProblemKind, WaitEvent, WaitProgress, WaitRequest};
use crate::arrays::{find, is_pending, record_with_progress};
use crate::error::Error;
use crate::hub::{LastChange, stopped};
use crate::owner::Owner;
use crate::service::resolve;

/// Between two words on how far an array got.
const PACE: Duration = Duration::from_millis(200);

/// So many that end together are looked at together: each look is a way to another thread and back.
const LOOKS: usize = 64;

type Changes = watch::Receiver<LastChange>;
type Waits = JoinSet<Result<JobId, Error>>;

fn spawn(waits: &mut Waits, owner: &Arc<Owner>, id: JobId, changes: Option<Changes>) {
    let owner = Arc::clone(owner);
    waits.spawn(async move { until_ended(&owner, &id, changes).await.map(|()| id) });
}

/// Begins to wait. The receiver hears of each job that ends, and last `Done`, `TimedOut` or `Error`.
pub(crate) async fn begin_wait(
    owner: &Arc<Owner>,
    request: &WaitRequest,
) -> Result<mpsc::Receiver<WaitEvent>, Error> {
    let WaitRequest { jobs, any, timeout_ms, progress } = request;
    if jobs.is_empty() {
        return Err(Error::new(ProblemKind::Usage, "name at least one job to wait for"));
    }
    // Before the look, so that an end after it is heard of. Most are named by their ids.
    let watched = jobs.iter().filter_map(|reference| JobId::new(reference).ok());
    let watched: HashMap<JobId, Changes> = watched.map(|id| (id.clone(), owner.hub.watch(&id))).collect();
    let references = jobs.clone();
    let look = owner.blocking(move |store| {
        references.iter().map(|reference| resolve(store, reference)).collect::<Result<Vec<Job>, _>>()
    });
    let mut found = look.await?;
    found.sort_by(|one, other| one.id.cmp(&other.id));
    found.dedup_by(|one, other| one.id == other.id);
    // Those that have ended first, in the order of their ends.
    found.sort_by_key(|job| (!job.state.status.is_terminal(), job.state.ended.map(|ended| ended.wall)));
    let (events, receiver) = mpsc::channel(16);
    let timeout = timeout_ms.map(Duration::from_millis);
    tokio::spawn(wait_for_all(Arc::clone(owner), found, watched, *any, timeout, *progress, events));
    Ok(receiver)
}

/// Tells how far an array got, until it has ended or nobody listens.
async fn tell_progress(owner: Arc<Owner>, array: Job, events: mpsc::Sender<WaitEvent>) {
    let mut newest = owner.hub.listeners.all();
    let mut told = None;
    loop {
        // Before the look, so that what happens after it is heard of.
        newest.borrow_and_update();
        let id = array.id.clone();
        let look = owner.blocking(move |store| {
            let job = store.job(&id)?.filter(|job| !job.state.status.is_terminal());
            job.map(|job| record_with_progress(store, &job)).transpose()
        });
        let Ok(Some(JobRecord { self_id: job, progress: Some(progress), .. })) = look.await else { return };
        if told.replace(progress) != Some(progress)
            && events.send(WaitEvent::Progress(WaitProgress { job, progress })).await.is_err()
        {
            return;
        }
        tokio::select! {
            changed = newest.changed() => if changed.is_err() { return },
            () = events.closed() => return,
            () = owner.hub.left() => return,
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Returns when the job has ended, most likely.
async fn until_ended(owner: &Arc<Owner>, id: &JobId, changes: Option<Changes>) -> Result<(), Error> {
    if let Some(mut changes) = changes
        && changes.wait_for(|change| change.is_some_and(|(_, status)| status.is_terminal())).await.is_ok()
    {
        return Ok(());
    }
    owner.until(id, |_, status| status.is_terminal()).await.map(drop)
}

async fn wait_for_all(
    owner: Arc<Owner>,
    jobs: Vec<Job>,
    mut watched: HashMap<JobId, Changes>,
    any: bool,
    timeout: Option<Duration>,
    progress: bool,
    events: mpsc::Sender<WaitEvent>,
) {
    // They end with the wait.
    let mut tellers = JoinSet::new();
    let is_living_array = |job: &&Job| job.definition.array.is_some() && !job.state.status.is_terminal();
    for array in jobs.iter().filter(is_living_array).filter(|_| progress) {
        tellers.spawn(tell_progress(Arc::clone(&owner), array.clone(), events.clone()));
    }
    let time_is_up = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let mut time_is_up = std::pin::pin!(time_is_up);
    let mut waits = Waits::new();
    for job in jobs {
        if job.state.status.is_terminal() {
            // Counts, also when there is no time to wait.
            let event = match owner.last_record(job).await {
                Ok(record) => WaitEvent::Ended(Box::new(record)),
                Err(error) => WaitEvent::Error(error.to_problem()),
            };
            let is_last = event.is_last();
            if events.send(event).await.is_err() || is_last {
                return;
            }
            if any {
                let _ = events.send(WaitEvent::Done).await;
                return;
            }
        } else {
            // An element that has no job yet gets one, or its array ends before.
            let changes = watched.remove(&job.id).filter(|_| !is_pending(&job));
            spawn(&mut waits, &owner, job.id, changes);
        }
    }
    drop(watched);
    let at_once = if any { 1 } else { LOOKS };
    loop {
        let ended = tokio::select! {
            biased;
            ended = waits.join_next() => ended,
            () = events.closed() => return,
            () = &mut time_is_up => {
                let _ = events.send(WaitEvent::TimedOut).await;
                return;
            }
            () = owner.hub.left() => Some(Ok(Err(stopped()))),
        };
        let Some(ended) = ended else { break };
        let mut all = vec![ended];
        while all.len() < at_once
            && let Some(ended) = waits.try_join_next()
        {
            all.push(ended);
        }
        let ids = all.into_iter().map(|ended| match ended {
            Ok(id) => id,
            Err(error) => Err(Error::new(ProblemKind::Failed, error.to_string())),
        });
        let ids: Vec<Result<JobId, Error>> = ids.collect();
        let look = owner.blocking(move |store| {
            let look = |id: JobId| find(store, &id)?.ok_or_else(|| Error::not_found(id.as_str()));
            Ok(ids.into_iter().map(|id| id.and_then(look)).collect::<Vec<_>>())
        });
        let jobs = look.await.unwrap_or_else(|error| vec![Err(error)]);
        let mut told = false;
        for job in jobs {
            let record = match job {
                // It was started again.
                Ok(job) if !job.state.status.is_terminal() => {
                    spawn(&mut waits, &owner, job.id, None);
                    continue;
                }
                Ok(job) => owner.last_record(job).await,
                Err(error) => Err(error),
            };
            let event = match record {
                Ok(record) => WaitEvent::Ended(Box::new(record)),
                Err(error) => WaitEvent::Error(error.to_problem()),
            };
            let is_last = event.is_last();
            if events.send(event).await.is_err() || is_last {
                return;
            }
            told = true;
        }
        if any && told {
            break;
        }
    }
    let _ = events.send(WaitEvent::Done).await;
}
