//! Who listens to status events: to all of them, or to every one of a job.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use nodejobs_core::JobId;
use nodejobs_core::store::JobEvent;
use tokio::sync::{broadcast, watch};

/// How many events of a job wait for a slow listener. Beyond that it is told that it missed some, and asks the store.
const BACKLOG: usize = 16;

/// Tells of events that are on disk. Where nobody listens, it costs a look at an empty table.
#[derive(Debug)]
pub(crate) struct Listeners(Mutex<Listening>);

#[derive(Debug)]
struct Listening {
    /// The number of the newest event since somebody began to listen. The events themselves are in the store, so a
    /// slow listener takes no memory.
    newest: watch::Sender<u64>,
    jobs: HashMap<JobId, broadcast::Sender<JobEvent>>,
}

impl Listeners {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Listening { newest: watch::Sender::new(0), jobs: HashMap::new() }))
    }

    /// Changes whenever there are events that were not there before: a look at the store after this call and after
    /// each change misses none.
    pub(crate) fn all(&self) -> watch::Receiver<u64> {
        self.lock().newest.subscribe()
    }

    /// Every event of a job from now on. Closed when nothing more will come from it: look at the store, and listen anew.
    pub(crate) fn of_job(&self, id: &JobId) -> broadcast::Receiver<JobEvent> {
        let jobs = &mut self.lock().jobs;
        if let Some(sender) = jobs.get(id) {
            return sender.subscribe();
        }
        // Those whose listeners have left go before the table grows.
        if jobs.len() == jobs.capacity() {
            jobs.retain(|_, sender| sender.receiver_count() > 0);
        }
        let (sender, receiver) = broadcast::channel(BACKLOG);
        jobs.insert(id.clone(), sender);
        receiver
    }

    pub(crate) fn publish(&self, event: &JobEvent) {
        let mut listening = self.lock();
        if listening.newest.receiver_count() > 0 {
            listening.newest.send_replace(event.seq);
        }
        let Some(sender) = listening.jobs.get(&event.attempt.id) else { return };
        if sender.send(event.clone()).is_err() {
            listening.jobs.remove(&event.attempt.id);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Listening> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use nodejobs_core::id::AttemptId;
    use nodejobs_core::{Status, Timestamp};

    use super::*;

    fn event(seq: u64, id: &str) -> JobEvent {
        JobEvent {
            seq,
            attempt: AttemptId { id: JobId::new(id).expect("valid"), attempt: 1 },
            status: Status::Running,
            reason: None,
            at: Timestamp::default(),
        }
    }

    #[test]
    fn whoever_left_is_forgotten_and_whoever_is_slow_is_told_so() {
        let listeners = Listeners::new();
        let a = JobId::new("a").expect("valid");
        (0..1000).for_each(|n| drop(listeners.of_job(&JobId::new(&format!("j{n}")).expect("valid"))));
        assert!(listeners.lock().jobs.len() < 100);

        let mut slow = listeners.of_job(&a);
        listeners.publish(&event(1, "a"));
        listeners.publish(&event(2, "b"));
        assert_eq!(slow.try_recv().expect("heard"), event(1, "a"));
        assert_eq!(slow.try_recv(), Err(broadcast::error::TryRecvError::Empty));
        (0..100).for_each(|seq| listeners.publish(&event(seq, "a")));
        assert!(matches!(slow.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
        drop(slow);
        listeners.publish(&event(200, "a"));
        assert!(!listeners.lock().jobs.contains_key(&a));
    }

    #[test]
    fn the_newest_is_told_to_whoever_listens_to_all() {
        let listeners = Listeners::new();
        listeners.publish(&event(1, "a"));
        let mut all = listeners.all();
        assert!(!all.has_changed().expect("there"));
        (2..5).for_each(|seq| listeners.publish(&event(seq, "a")));
        assert_eq!(*all.borrow_and_update(), 4);
    }
}
