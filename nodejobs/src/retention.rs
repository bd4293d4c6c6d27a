//! Ended jobs that are forgotten by themselves, as `[history]` in `config.toml` says.
//!
//! The events are in the order of the ends. So which job's time is up next, and when, is known from them; they are gone
//! through once, and the number of the last one is kept in the store. Nothing is looked at in between, and nothing
//! depends on how many jobs there are.

use std::time::Duration;

use nodejobs_core::Timestamp;
use nodejobs_core::filter::JobFilter;
use nodejobs_core::job::Job;
use nodejobs_core::store::{DocumentChange, DocumentKind, JobStore, Order};
use nodejobs_proc::machine::now;

use crate::config::HistorySettings;
use crate::error::Error;
use crate::owner::Owner;
use crate::prune::{Selection, before};

/// Ends that come close together are gone through together.
const PACE: Duration = Duration::from_secs(1);
/// After a failure, such as a full disk.
const RETRY: Duration = Duration::from_secs(60);
/// How many events are read at a time: some of them are ends, whose jobs are forgotten together.
const EVENTS: usize = 256;
/// How many events without a job to forget may be gone through again by the next owner.
const UNWRITTEN: u64 = 4096;
/// The document with the number of the last event that was gone through.
const PLACE: &str = "retention";

/// Forgets what is due, until the owner leaves.
pub(crate) async fn retain(owner: &Owner) {
    let mut config = owner.config.subscribe();
    loop {
        let history = config.borrow_and_update().history.clone();
        let ends = async {
            if history.keep_for.is_none() && history.keep_last.is_none() {
                std::future::pending::<()>().await;
            } else {
                as_they_end(owner, &history).await;
            }
        };
        tokio::select! {
            () = owner.hub.left() => return,
            Ok(()) = config.changed() => {}
            () = ends => {}
        }
    }
}

async fn as_they_end(owner: &Owner, history: &HistorySettings) {
    let mut newest = owner.hub.listeners.all();
    loop {
        // Before the look, so that an end after it is heard of.
        newest.borrow_and_update();
        let pause = match tidy(owner, history).await {
            Ok(next) => next,
            Err(error) => {
                log::warn!("ended jobs could not be forgotten as [history] says: {}", error.to_problem());
                Some(RETRY)
            }
        };
        // With a time to wait for, what ends meanwhile is due later.
        let hears = pause.is_none() || history.keep_last.is_some();
        tokio::select! {
            () = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            } => {}
            // The sender is in the hub.
            _ = newest.changed(), if hears => tokio::time::sleep(PACE).await,
        }
    }
}

/// Forgets what is due; how long until the next job is, if that is known.
async fn tidy(owner: &Owner, history: &HistorySettings) -> Result<Option<Duration>, Error> {
    let (mut gone, mut next) = (0, None);
    if let Some(keep_for) = history.keep_for {
        (gone, next) = forget_old(owner, keep_for).await?;
    }
    if let Some(keep_last) = history.keep_last {
        let counts = owner.blocking(|store| Ok(store.counts()?)).await?;
        let ended = counts.iter().filter(|(status, _)| status.is_terminal()).map(|(_, count)| count);
        let most = ended.sum::<u64>().saturating_sub(keep_last);
        if most > 0 {
            let (filter, order) = (JobFilter::default(), Order::OldestFirst);
            gone += owner.forget(Selection { filter, order, skip: 0, most }, false).await?.len();
        }
    }
    if gone > 0 {
        log::info!("forgot {gone} ended jobs, as [history] says");
    }
    Ok(next)
}

/// How many jobs were old enough and are gone, and how long until the next one is.
async fn forget_old(owner: &Owner, keep_for: Duration) -> Result<(usize, Option<Duration>), Error> {
    let written = owner.blocking(place).await?;
    let (mut place, mut gone) = (written, Vec::new());
    loop {
        let limit = before(now().wall, millis(keep_for));
        let Due { jobs, next, through } = owner.blocking(move |store| due(store, place, limit)).await?;
        owner.forget_batch(&jobs, &mut gone).await?;
        let is_last = next.is_some() || through == place;
        place = through;
        if !is_last {
            continue;
        }
        // What is not written is gone through again, which changes nothing.
        if !gone.is_empty() || place - written >= UNWRITTEN {
            let body = place.to_string().into_bytes();
            owner
                .keep(vec![DocumentChange::Put { kind: DocumentKind::Meta, key: PLACE.to_owned(), body }])
                .await?;
        }
        let left = |end: Timestamp| {
            let left = end.as_millis().saturating_sub(limit.as_millis());
            Duration::from_millis(u64::try_from(left).unwrap_or(0)).max(PACE)
        };
        return Ok((gone.len(), next.map(left)));
    }
}

/// The number of the last event that was gone through.
fn place(store: &dyn JobStore) -> Result<u64, Error> {
    let body = store.document(DocumentKind::Meta, PLACE)?;
    let place = body.and_then(|body| String::from_utf8(body).ok()?.parse().ok());
    // Without it all is gone through once more.
    Ok(place.unwrap_or(0))
}

/// What the next events say.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    /// Jobs that ended before the limit, and have not begun again since.
    jobs: Vec<Job>,
    /// The first end after it. What ended after that waits for it: the events are in their order, unless the clock was set
    /// back.
    next: Option<Timestamp>,
    /// The last event that was gone through.
    through: u64,
}

fn due(store: &dyn JobStore, after: u64, limit: Timestamp) -> Result<Due, Error> {
    let mut due = Due { jobs: Vec::new(), next: None, through: after };
    for event in store.events(after, EVENTS)? {
        if event.status.is_terminal() {
            if event.at > limit {
                due.next = Some(event.at);
                break;
            }
            let job = store.job(&event.attempt.id)?;
            let is_due = |job: &Job| job.state.status.is_terminal() && job.state.last_update <= limit;
            let is_new = |job: &Job| due.jobs.iter().all(|known| known.id != job.id);
            due.jobs.extend(job.filter(|job| is_due(job)).filter(is_new));
        }
        due.through = event.seq;
    }
    Ok(due)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use nodejobs_core::job::{Definition, JobState};
    use nodejobs_core::spec::{Command, JobSpec};
    use nodejobs_core::store::JobChange;
    use nodejobs_core::store::memory::MemoryStore;
    use nodejobs_core::{JobId, Status};

    use super::*;

    #[test]
    fn what_is_due_is_found_by_the_events() {
        let store = MemoryStore::new();
        let put = |id: &str, at: i64, status| {
            let at = Timestamp::from_millis(at);
            let spec = JobSpec::new(Command::argv(["true"]), "/");
            let definition = Box::new(Definition::new(&spec, "/logs".into(), at));
            let id = JobId::new(id).expect("valid");
            let change = match store.job(&id).expect("memory") {
                None => JobChange::Insert { id, definition, state: JobState::new(1, status, at) },
                Some(job) if job.state.status.is_terminal() => JobChange::NewAttempt {
                    id,
                    expected: job.revision,
                    definition,
                    state: JobState::new(job.state.attempt + 1, status, at),
                },
                Some(job) => JobChange::Update {
                    id,
                    expected: job.revision,
                    state: JobState { status, last_update: at, ..job.state },
                },
            };
            store.commit(&[change.into()]).expect("memory");
        };
        let look = |after, time| {
            let Due { jobs, next, through } =
                due(&store, after, Timestamp::from_millis(time)).expect("memory");
            let ids: Vec<_> = jobs.iter().map(|job| job.id.to_string()).collect();
            (ids.join(" "), next.map(Timestamp::as_millis), through)
        };
        assert_eq!(look(0, 0), (String::new(), None, 0));
        for (number, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
            put(id, 1_000 + i64::try_from(number).expect("small"), Status::Starting);
        }
        assert_eq!(look(0, 9_000), (String::new(), None, 4), "nothing has ended");
        put("a", 2_000, Status::FailedStart);
        put("b", 3_000, Status::FailedStart);
        put("c", 4_000, Status::FailedStart);
        assert_eq!(look(0, 1_999), (String::new(), Some(2_000), 4));
        assert_eq!(look(0, 3_000), ("a b".to_owned(), Some(4_000), 6));
        assert_eq!(look(6, 4_000), ("c".to_owned(), None, 7));
        // One that has begun again is not due, nor when it has ended again; one of before is meant once.
        put("a", 4_500, Status::Starting);
        assert_eq!(look(0, 4_600), ("b c".to_owned(), None, 8));
        put("a", 5_000, Status::FailedStart);
        assert_eq!(look(0, 4_600), ("b c".to_owned(), Some(5_000), 8));
        assert_eq!(look(0, 5_000), ("a b c".to_owned(), None, 9));
        // A job that is gone is none.
        let job = store.job(&JobId::new("b").expect("valid")).expect("memory").expect("there");
        store.commit(&[JobChange::Remove { id: job.id, expected: job.revision }.into()]).expect("memory");
        assert_eq!(look(0, 5_000), ("a c".to_owned(), None, 9));
        // No more than a batch at a time.
        (0..300).for_each(|number| put(&format!("j{number}"), 6_000, Status::Starting));
        assert_eq!(look(9, 9_000), (String::new(), None, 9 + EVENTS as u64));
    }
}
