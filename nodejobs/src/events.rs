//! Status events as they are in the store: all of them as they come, and those of one attempt.

use std::sync::Arc;

use nodejobs_core::Timestamp;
use nodejobs_core::job::Job;
use nodejobs_core::store::{JobEvent, JobStore};
use tokio::sync::mpsc;

use crate::api::{EventsQuery, StatusEvent};
use crate::error::Error;
use crate::hub::stopped;
use crate::owner::Owner;

/// How many events are read at a time.
const BATCH: usize = 256;

/// Every status event after a number. The receiver hears last `Done`, if the query does not follow, or `Error`.
pub(crate) fn events(owner: &Arc<Owner>, query: &EventsQuery) -> mpsc::Receiver<StatusEvent> {
    let (sender, receiver) = mpsc::channel(16);
    let (owner, query) = (Arc::clone(owner), query.clone());
    tokio::spawn(async move {
        let told = tell(&owner, &query, &sender).await;
        // Whoever does not listen now does not keep the owner from leaving.
        drop(owner);
        let last = match told {
            Ok(Some(newest)) => StatusEvent::Done { newest },
            // Nobody listens any more.
            Ok(None) => return,
            Err(error) => StatusEvent::Error(error.to_problem()),
        };
        let _ = sender.send(last).await;
    });
    receiver
}

/// The number of the newest event at the end of a stream that does not follow; `None` if nobody listens.
async fn tell(
    owner: &Owner,
    query: &EventsQuery,
    sender: &mpsc::Sender<StatusEvent>,
) -> Result<Option<u64>, Error> {
    let mut newest = owner.hub.listeners.all();
    let mut after = query.after;
    loop {
        newest.borrow_and_update();
        let events = owner.blocking(move |store| Ok(store.events(after, BATCH)?)).await?;
        let all = events.len() < BATCH;
        for event in events {
            after = event.seq;
            if owner.hub.unless_left(sender.send(StatusEvent::Status(event))).await?.is_err() {
                return Ok(None);
            }
        }
        if !all {
            continue;
        }
        if !query.follow {
            // Whoever asks from behind the end hears where the end is.
            let told = after > query.after;
            let newest = if told { Ok(after) } else { owner.blocking(newest_event).await };
            return newest.map(Some);
        }
        tokio::select! {
            changed = newest.changed() => changed.map_err(|_| stopped())?,
            () = owner.hub.left() => return Err(stopped()),
            () = sender.closed() => return Ok(None),
        }
    }
}

/// The number of the newest event, 0 if there is none.
pub(crate) fn newest_event(store: &dyn JobStore) -> Result<u64, Error> {
    last_event_that(store, |_| true)
}

/// The number of the last event of those at the beginning that all fulfil the condition; 0 if the first does not.
fn last_event_that(store: &dyn JobStore, condition: impl Fn(&JobEvent) -> bool) -> Result<u64, Error> {
    // Numbers have no gap, so the event after N - 1 is number N.
    let fulfils = |number: u64| -> Result<bool, Error> {
        Ok(store.events(number - 1, 1)?.first().is_some_and(&condition))
    };
    let (mut yes, mut no) = (0, 1);
    while fulfils(no)? {
        yes = no;
        no *= 2;
    }
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if fulfils(middle)? {
            yes = middle;
        } else {
            no = middle;
        }
    }
    Ok(yes)
}

/// A clock that is set back by no more than this while an attempt is accepted costs no second look.
const CLOCK_TOLERANCE_MS: i64 = 60_000;

/// At least all events that an attempt had when `attempt` was read, oldest first.
///
/// Stores keep events by number only. Where to begin is looked up by time; that nothing is missing is known from the
/// job's revision, which counts its events. If the clock was set back in between, all events are gone through.
pub(crate) fn events_of_attempt(store: &dyn JobStore, attempt: &Job) -> Result<Vec<JobEvent>, Error> {
    let before = match attempt.state.attempt {
        1 => Some(0),
        number => {
            let attempts = store.attempts(&attempt.id)?;
            attempts.iter().find(|job| job.state.attempt == number - 1).map(|job| job.revision)
        }
    };
    // Of an attempt whose predecessor was forgotten it cannot be said, so everything is gone through.
    let expected = before.and_then(|before| usize::try_from(attempt.revision - before).ok());
    let accepted = attempt.definition.created_at.as_millis();
    let bound = Timestamp::from_millis(accepted - CLOCK_TOLERANCE_MS);
    let start = last_event_that(store, |event| event.at < bound)?;
    let found = scan(store, attempt, start, expected)?;
    if start > 0 && expected.is_none_or(|expected| found.len() < expected) {
        return scan(store, attempt, 0, expected);
    }
    Ok(found)
}

/// The events of an attempt after that number, up to the one that made it what it is, or all there are.
fn scan(
    store: &dyn JobStore,
    attempt: &Job,
    start: u64,
    expected: Option<usize>,
) -> Result<Vec<JobEvent>, Error> {
    let (id, state) = (attempt.attempt_id(), &attempt.state);
    let mut found: Vec<JobEvent> = Vec::new();
    let mut after = start;
    loop {
        let events = store.events(after, BATCH)?;
        let Some(last) = events.last() else { return Ok(found) };
        after = last.seq;
        for event in events.into_iter().filter(|event| event.attempt == id) {
            // Nothing follows the end of an attempt, so what was before is of a job that was removed.
            if found.last().is_some_and(|last| last.status.is_terminal()) {
                found.clear();
            }
            let is_newest = (event.status, event.at) == (state.status, state.last_update);
            found.push(event);
            if is_newest && Some(found.len()) == expected {
                return Ok(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nodejobs_core::id::AttemptId;
    use nodejobs_core::job::{Definition, JobState};
    use nodejobs_core::spec::{Command, JobSpec};
    use nodejobs_core::store::memory::MemoryStore;
    use nodejobs_core::store::{JobChange, UnitOutcome};
    use nodejobs_core::{JobId, Status};

    use super::*;

    /// A store with a clock that goes as the test says.
    struct Past {
        store: MemoryStore,
        now: i64,
    }

    impl Past {
        fn new() -> Self {
            Self { store: MemoryStore::new(), now: 1_000_000_000 }
        }

        fn job(&self, id: &str) -> Option<Job> {
            self.store.job(&JobId::new(id).expect("valid")).expect("read")
        }

        fn commit(&mut self, change: JobChange) {
            let outcomes = self.store.commit(&[change.into()]).expect("committed");
            assert!(matches!(outcomes[..], [UnitOutcome::Applied { .. }]), "{outcomes:?}");
            self.now += 1000;
        }

        /// Runs an attempt through these statuses, the first of which it begins with.
        fn attempt(&mut self, id: &str, statuses: &[Status]) {
            for (index, status) in statuses.iter().enumerate() {
                let now = Timestamp::from_millis(self.now);
                let spec = JobSpec::new(Command::argv(["true"]), "/");
                let definition = Box::new(Definition::new(&spec, "/logs".into(), now));
                let job = self.job(id);
                let id = JobId::new(id).expect("valid");
                self.commit(match job {
                    None => JobChange::Insert { id, definition, state: JobState::new(1, *status, now) },
                    Some(job) if index == 0 => JobChange::NewAttempt {
                        id,
                        expected: job.revision,
                        definition,
                        state: JobState::new(job.state.attempt + 1, *status, now),
                    },
                    Some(job) => JobChange::Update {
                        id,
                        expected: job.revision,
                        state: JobState { status: *status, last_update: now, ..job.state },
                    },
                });
            }
        }

        fn remove(&mut self, id: &str) {
            let job = self.job(id).expect("there");
            self.commit(JobChange::Remove { id: job.id, expected: job.revision });
        }

        fn events_of(&self, id: &str, attempt: u32) -> Vec<(u64, Status)> {
            let attempts = self.store.attempts(&JobId::new(id).expect("valid")).expect("read");
            let job = attempts.into_iter().find(|job| job.state.attempt == attempt).expect("there");
            let events = events_of_attempt(&self.store, &job).expect("read");
            let expected = AttemptId { id: job.id, attempt };
            assert!(events.iter().all(|event| event.attempt == expected));
            events.into_iter().map(|event| (event.seq, event.status)).collect()
        }
    }

    use Status::{Finished, Running, Starting};
    const WHOLE: &[Status] = &[Starting, Running, Running, Finished];

    #[test]
    fn the_newest_is_found_by_its_number() {
        let mut past = Past::new();
        for count in 0..40 {
            assert_eq!(newest_event(&past.store).expect("read"), count);
            past.attempt(&format!("j{count}"), &[Starting]);
        }
    }

    #[test]
    fn an_attempt_has_its_own_events_and_all_of_them() {
        let mut past = Past::new();
        past.attempt("a", WHOLE);
        (0..300).for_each(|n| past.attempt(&format!("noise{n}"), WHOLE));
        past.attempt("a", WHOLE);
        past.attempt("b", &[Starting, Running]);
        (300..600).for_each(|n| past.attempt(&format!("noise{n}"), WHOLE));
        let whole = |first: u64| (first..).zip(WHOLE.iter().copied()).collect::<Vec<_>>();
        assert_eq!(past.events_of("a", 1), whole(1));
        assert_eq!(past.events_of("a", 2), whole(1205));
        assert_eq!(past.events_of("b", 1), [(1209, Starting), (1210, Running)]);
    }

    #[test]
    fn a_clock_that_was_set_back_hides_nothing() {
        let mut past = Past::new();
        (0..20).for_each(|n| past.attempt(&format!("before{n}"), WHOLE));
        past.now += 1_000_000;
        past.attempt("a", &[Starting]);
        past.now -= 500_000_000;
        (0..300).for_each(|n| past.attempt(&format!("noise{n}"), WHOLE));
        let bound = |event: &JobEvent| event.at < past.job("a").expect("there").definition.created_at;
        assert!(last_event_that(&past.store, bound).expect("read") > 81, "its times lead behind it");
        let job = past.job("a").expect("there");
        let state = JobState { status: Running, last_update: Timestamp::from_millis(past.now), ..job.state };
        past.commit(JobChange::Update { id: job.id, expected: job.revision, state });
        assert_eq!(past.events_of("a", 1), [(81, Starting), (1282, Running)]);
    }

    #[test]
    fn what_an_earlier_job_of_that_id_did_is_left_out() {
        let mut past = Past::new();
        past.attempt("a", &[Starting, Running, Finished]);
        past.remove("a");
        past.attempt("a", &[Starting, Running]);
        assert_eq!(past.events_of("a", 1), [(4, Starting), (5, Running)]);
    }
}
