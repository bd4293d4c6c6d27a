//! Work that is submitted once: which live jobs have which key.

use std::collections::HashMap;

use crate::id::{AttemptId, JobId};
use crate::job::{Definition, Job};
use crate::spec::{UNIQUE_LABEL, Unique};
use crate::time::Timestamp;

use super::live::Live;
use super::{Answer, Engine, Submission};

/// A submit that is to happen once, with what the store knows of its key.
#[derive(Debug)]
pub struct UniqueSubmit {
    /// The key, and how long an ended job of it counts.
    pub unique: Unique,
    /// The job of the key that was first submitted last. Needed only for a key that no live job has.
    pub newest: Option<Job>,
}

/// The live jobs of each key, the newest last: a restart may have begun a second one.
#[derive(Debug, Default)]
pub(super) struct Keys(HashMap<String, Vec<JobId>>);

/// The key of a definition, if it has one.
pub(super) fn key_of(definition: &Definition) -> Option<Box<str>> {
    definition.labels.get(UNIQUE_LABEL).map(|key| key.as_str().into())
}

impl Keys {
    pub(super) fn join(&mut self, id: &JobId, live: &Live) {
        if let Some(key) = &live.key {
            self.0.entry(key.to_string()).or_default().push(id.clone());
        }
    }

    pub(super) fn leave(&mut self, id: &JobId, live: &Live) {
        let Some(key) = live.key.as_deref() else { return };
        if let Some(jobs) = self.0.get_mut(key) {
            jobs.retain(|job| job != id);
            if jobs.is_empty() {
                self.0.remove(key);
            }
        }
    }
}

impl Engine {
    /// Whether a live job has this key.
    pub fn has_key(&self, key: &str) -> bool {
        self.keys.0.contains_key(key)
    }

    /// What a submit is answered whose work is there already.
    pub(super) fn existing_work(&self, submission: &Submission, now: Timestamp) -> Option<Answer> {
        let UniqueSubmit { unique, newest } = submission.unique.as_ref()?;
        let own = &submission.definition.submit_key;
        let answer = |attempt: AttemptId, key: &Option<String>| {
            let is_repeated = key.is_some() && key == own;
            Some(if is_repeated { Answer::Accepted(attempt) } else { Answer::Existing(attempt) })
        };
        let live = self.keys.0.get(&unique.key).and_then(|jobs| jobs.last());
        if let Some((id, live)) = live.and_then(|id| self.live.get_key_value(id)) {
            return answer(live.attempt_id(id), &live.submit_key);
        }
        let newest = newest.as_ref()?;
        let age = now.as_millis().saturating_sub(newest.definition.created_at.as_millis());
        let counts = unique.window_ms.is_some_and(|window| u64::try_from(age).unwrap_or(0) < window);
        counts.then(|| answer(newest.attempt_id(), &newest.definition.submit_key)).flatten()
    }
}
