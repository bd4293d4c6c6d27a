//! Waiting for several jobs at once.

use std::sync::Arc;
use std::time::Duration;

use nodejobs_core::job::Job;
use nodejobs_core::record::JobRecord;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::api::{Problem, ProblemKind, WaitEvent, WaitProgress, WaitRequest};
use crate::arrays::record_with_progress;
use crate::error::Error;
use crate::owner::Owner;

/// Between two words on how far an array got.
const PACE: Duration = Duration::from_millis(200);

/// Begins to wait. The receiver hears of each job that ends, and last `Done`, `TimedOut` or `Error`.
pub(crate) async fn begin_wait(
    owner: &Arc<Owner>,
    request: &WaitRequest,
) -> Result<mpsc::Receiver<WaitEvent>, Error> {
    let WaitRequest { jobs, any, timeout_ms, progress } = request;
    if jobs.is_empty() {
        return Err(Error::new(ProblemKind::Usage, "name at least one job to wait for"));
    }
    let mut found: Vec<Job> = Vec::with_capacity(jobs.len());
    for reference in jobs {
        found.push(owner.job(reference).await?);
    }
    found.sort_by(|one, other| one.id.cmp(&other.id));
    found.dedup_by(|one, other| one.id == other.id);
    // Those that have ended first, in the order of their ends.
    found.sort_by_key(|job| (!job.state.status.is_terminal(), job.state.ended.map(|ended| ended.wall)));
    let (events, receiver) = mpsc::channel(16);
    let timeout = timeout_ms.map(Duration::from_millis);
    tokio::spawn(wait_for_all(Arc::clone(owner), found, *any, timeout, *progress, events));
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

async fn wait_for_all(
    owner: Arc<Owner>,
    jobs: Vec<Job>,
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
    let mut waits = JoinSet::new();
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
            let owner = Arc::clone(&owner);
            waits.spawn(async move { owner.wait(&job.id).await });
        }
    }
    loop {
        let ended = tokio::select! {
            biased;
            ended = waits.join_next() => ended,
            () = events.closed() => return,
            () = &mut time_is_up => {
                let _ = events.send(WaitEvent::TimedOut).await;
                return;
            }
        };
        let event = match ended {
            None => break,
            Some(Ok(Ok(record))) => WaitEvent::Ended(Box::new(record)),
            Some(Ok(Err(error))) => WaitEvent::Error(error.to_problem()),
            Some(Err(error)) => WaitEvent::Error(Problem::new(ProblemKind::Failed, error.to_string())),
        };
        let is_last = event.is_last();
        if events.send(event).await.is_err() || is_last {
            return;
        }
        if any {
            break;
        }
    }
    let _ = events.send(WaitEvent::Done).await;
}
