//! Who waits for which job to change.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nodejobs_core::store::JobEvent;
use nodejobs_core::{JobId, Status};
use tokio::sync::watch;

use crate::api::ProblemKind;
use crate::error::Error;
use crate::listeners::Listeners;

/// The newest attempt's number and status, once it has changed since somebody began to watch.
pub(crate) type LastChange = Option<(u32, Status)>;

/// Tells those who watch a job that it has changed. A job that nobody watches costs nothing.
#[derive(Debug)]
pub(crate) struct Hub {
    watched: Mutex<HashMap<JobId, watch::Sender<LastChange>>>,
    live_jobs: watch::Sender<usize>,
    schedules: AtomicUsize,
    leaving: watch::Sender<bool>,
    /// Why the last write to the store failed, if it did.
    store_trouble: Mutex<Option<String>>,
    /// Those who want to hear every event.
    pub(crate) listeners: Listeners,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            watched: Mutex::default(),
            live_jobs: watch::Sender::new(0),
            schedules: AtomicUsize::new(0),
            leaving: watch::Sender::new(false),
            store_trouble: Mutex::default(),
            listeners: Listeners::new(),
        }
    }

    /// Begins to watch a job. Whatever is published from now on is heard, so a look at the store after this misses
    /// nothing.
    pub(crate) fn watch(&self, id: &JobId) -> watch::Receiver<LastChange> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        match watched.get(id) {
            Some(sender) => sender.subscribe(),
            None => {
                // Nobody takes out a job that had ended before it was watched, so they go before the table grows.
                if watched.len() == watched.capacity() {
                    watched.retain(|_, sender| sender.receiver_count() > 0);
                }
                let (sender, receiver) = watch::channel(None);
                watched.insert(id.clone(), sender);
                receiver
            }
        }
    }

    /// Tells of a change that is on disk. An ended job is forgotten here: those who watch it have heard the last word.
    pub(crate) fn publish(&self, event: &JobEvent) {
        self.listeners.publish(event);
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = watched.get(&event.attempt.id) else { return };
        let change = Some((event.attempt.attempt, event.status));
        if sender.send(change).is_err() || event.status.is_terminal() {
            watched.remove(&event.attempt.id);
        }
    }

    /// How many schedules there are.
    pub(crate) fn schedules(&self) -> usize {
        self.schedules.load(Ordering::Relaxed)
    }

    pub(crate) fn set_schedules(&self, count: usize) {
        self.schedules.store(count, Ordering::Relaxed);
    }

    /// Ends every wait: this owner is leaving, and nothing more will be told.
    pub(crate) fn leave(&self) {
        self.leaving.send_replace(true);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        *self.leaving.borrow()
    }

    /// Returns when the owner is leaving.
    pub(crate) async fn left(&self) {
        // The sender is in `self`, so this ends only with the value that is waited for.
        let _ = self.leaving.subscribe().wait_for(|leaving| *leaving).await;
    }

    /// What the future gives, or an error once the owner is leaving: nobody who does not listen keeps it.
    pub(crate) async fn unless_left<T>(&self, future: impl Future<Output = T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            given = future => Ok(given),
            () = self.left() => Err(stopped()),
        }
    }

    /// Says why a write to the store failed, or that one succeeded; gives what was known before.
    pub(crate) fn set_store_trouble(&self, trouble: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.store_trouble.lock().unwrap_or_else(PoisonError::into_inner), trouble)
    }

    /// Why the last write to the store failed, if it did.
    pub(crate) fn store_trouble(&self) -> Option<String> {
        self.store_trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_live_jobs(&self, count: usize) {
        // Whoever waits for there being none need not hear how many there are.
        self.live_jobs.send_if_modified(|known| (std::mem::replace(known, count) == 0) != (count == 0));
    }

    /// How many jobs are live. Tells when there are some or none.
    pub(crate) fn live_jobs(&self) -> watch::Receiver<usize> {
        self.live_jobs.subscribe()
    }
}

/// The owner is leaving, or its thread has ended; the next owner starts from what is on disk.
pub(crate) fn stopped() -> Error {
    Error::new(ProblemKind::Unavailable, "the owner of this data directory is leaving; its jobs run on")
}

#[cfg(test)]
mod tests {
    use nodejobs_core::Timestamp;
    use nodejobs_core::id::AttemptId;

    use super::*;

    #[tokio::test]
    async fn watchers_hear_the_last_word_and_an_ended_job_is_forgotten() {
        let hub = Hub::new();
        let id = JobId::new("a").expect("valid");
        let event = |attempt, status| JobEvent {
            seq: 1,
            attempt: AttemptId { id: id.clone(), attempt },
            status,
            reason: None,
            at: Timestamp::default(),
        };
        let mut watcher = hub.watch(&id);
        hub.publish(&event(1, Status::Running));
        hub.publish(&event(1, Status::Finished));
        let last = watcher.wait_for(Option::is_some).await.expect("heard");
        assert_eq!(*last, Some((1, Status::Finished)));
        drop(last);
        // The next attempt begins without the last one's word.
        assert_eq!(*hub.watch(&id).borrow(), None);
        drop(hub.watch(&id));
        hub.publish(&event(2, Status::Failed));
        assert!(hub.watched.lock().expect("no panic").is_empty());
    }

    #[test]
    fn ended_jobs_that_were_looked_at_do_not_gather() {
        let hub = Hub::new();
        let held = hub.watch(&JobId::new("held").expect("valid"));
        (0..1000).for_each(|n| drop(hub.watch(&JobId::new(&format!("j{n}")).expect("valid"))));
        let watched = hub.watched.lock().expect("no panic");
        assert!(
            watched.len() < 100 && watched.contains_key(&JobId::new("held").expect("valid")),
            "{}",
            watched.len()
        );
        drop(held);
    }
}
