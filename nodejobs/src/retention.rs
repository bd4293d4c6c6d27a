//! Ended jobs that are forgotten by themselves, as `[history]` in `config.toml` says.
//!
//! Nothing is looked at in between: when the next job's time is up is known from the events, which are in the order of
//! the ends, and whether there are too many only changes when one ends.

use std::time::Duration;

use nodejobs_core::Timestamp;
use nodejobs_core::filter::JobFilter;
use nodejobs_core::store::{JobStore, Order};
use nodejobs_proc::machine::now;

use crate::config::HistorySettings;
use crate::error::Error;
use crate::events::last_event_that;
use crate::owner::Owner;
use crate::prune::{Selection, before};

/// Ends that come close together are gone through together.
const PACE: Duration = Duration::from_secs(1);
/// After a failure, such as a full disk.
const RETRY: Duration = Duration::from_secs(60);
/// How many events are read at a time.
const EVENTS: usize = 256;

/// Forgets what is due, until the owner leaves.
pub(crate) async fn retain(owner: &Owner) {
    let mut config = owner.config.subscribe();
    loop {
        let history = config.borrow_and_update().history.clone();
        let ends = async {
            if history == HistorySettings::default() {
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
    let mut gone = 0;
    let oldest = |filter, most| Selection { filter, order: Order::OldestFirst, skip: 0, most };
    if let Some(keep_for) = history.keep_for {
        let mut filter = JobFilter::default();
        filter.last_update.until = Some(before(now().wall, millis(keep_for)));
        gone += owner.forget(oldest(filter, u64::MAX), false).await?.len();
    }
    if let Some(keep_last) = history.keep_last {
        let counts = owner.blocking(|store| Ok(store.counts()?)).await?;
        let ended: u64 =
            counts.iter().filter(|(status, _)| status.is_terminal()).map(|(_, count)| count).sum();
        let excess = ended.saturating_sub(keep_last);
        if excess > 0 {
            gone += owner.forget(oldest(JobFilter::default(), excess), false).await?.len();
        }
    }
    if gone > 0 {
        log::info!("forgot {gone} ended jobs, as [history] says");
    }
    let Some(keep_for) = history.keep_for else { return Ok(None) };
    let limit = before(now().wall, millis(keep_for));
    let next = owner.blocking(move |store| first_end_after(store, limit)).await?;
    Ok(next.map(|end| {
        let left = end.as_millis().saturating_sub(limit.as_millis());
        Duration::from_millis(u64::try_from(left).unwrap_or(0)).max(PACE)
    }))
}

/// When the first attempt ended of those that ended after this time. Its job may be gone or run again: then nothing is
/// due when its time is up, and the next one is looked for.
fn first_end_after(store: &dyn JobStore, time: Timestamp) -> Result<Option<Timestamp>, Error> {
    let mut after = last_event_that(store, |event| event.at <= time)?;
    loop {
        let events = store.events(after, EVENTS)?;
        let Some(last) = events.last() else { return Ok(None) };
        after = last.seq;
        // One of before may come behind one of after where the clock was set back.
        let end = events.iter().find(|event| event.status.is_terminal() && event.at > time);
        if let Some(end) = end {
            return Ok(Some(end.at));
        }
    }
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
    fn the_next_end_is_found_among_all_events() {
        let store = MemoryStore::new();
        let put = |id: &str, at: i64, status| {
            let at = Timestamp::from_millis(at);
            let spec = JobSpec::new(Command::argv(["true"]), "/");
            let definition = Box::new(Definition::new(&spec, "/logs".into(), at));
            let id = JobId::new(id).expect("valid");
            let change = match store.job(&id).expect("memory") {
                None => JobChange::Insert { id, definition, state: JobState::new(1, status, at) },
                Some(job) => JobChange::Update {
                    id,
                    expected: job.revision,
                    state: JobState { status, last_update: at, ..job.state },
                },
            };
            store.commit(&[change.into()]).expect("memory");
        };
        let next = |time| {
            let found = first_end_after(&store, Timestamp::from_millis(time)).expect("memory");
            found.map(Timestamp::as_millis)
        };
        assert_eq!(next(0), None);
        for number in 0..600 {
            put(&format!("j{number}"), 1_000 + number, Status::Starting);
        }
        assert_eq!(next(0), None, "nothing has ended");
        put("j7", 5_000, Status::FailedStart);
        put("j8", 6_000, Status::FailedStart);
        assert_eq!(
            (next(0), next(4_999), next(5_000), next(6_000)),
            (Some(5_000), Some(5_000), Some(6_000), None)
        );
        // The clock was set back.
        put("j9", 4_000, Status::FailedStart);
        put("j10", 9_000, Status::FailedStart);
        assert_eq!(next(6_000), Some(9_000));
    }
}
