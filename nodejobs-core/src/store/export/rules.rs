//! What must be true of the items of an export, one after the other. Writing and reading hold to the same rules, so what
//! was written can be read.

use std::collections::HashSet;

use crate::id::JobId;
use crate::job::Job;
use crate::store::content::{Counters, Item};
use crate::store::{DocumentKind, JobEvent};

use super::Totals;

/// What came so far.
#[derive(Debug, Default)]
pub(super) struct Rules {
    counters: Option<Counters>,
    last_document: Option<(DocumentKind, String)>,
    last_seq: u64,
    last_event: u64,
    ids: HashSet<JobId>,
    totals: Totals,
}

/// Stores count with 63 bits.
const LARGEST: u64 = i64::MAX.unsigned_abs();

impl Rules {
    /// The next item; what is wrong with it, if something is.
    pub(super) fn take(&mut self, item: &Item) -> Result<(), String> {
        let Some(counters) = self.counters else {
            let Item::Counters(counters) = item else {
                return Err(format!("{} comes before the counters", item.describe()));
            };
            if counters.last_seq > LARGEST || counters.last_event > LARGEST {
                return Err(format!("the counters are beyond {LARGEST}"));
            }
            self.counters = Some(*counters);
            return Ok(());
        };
        match item {
            Item::Counters(_) => Err("the counters are there twice".to_owned()),
            Item::Document { kind, key, .. } => self.document(item, *kind, key),
            Item::Job(attempts) => self.job(attempts, counters),
            Item::Event(event) => self.event(event, counters),
        }
    }

    /// The end: how many there were of each.
    pub(super) fn end(&self) -> Result<Totals, String> {
        let Some(counters) = self.counters else { return Err("there are no counters".to_owned()) };
        if self.last_event != counters.last_event {
            return Err(format!(
                "the last event is {}, but {} was given out",
                self.last_event, counters.last_event
            ));
        }
        Ok(self.totals)
    }

    fn document(&mut self, item: &Item, kind: DocumentKind, key: &str) -> Result<(), String> {
        if self.last_seq > 0 || self.last_event > 0 {
            return Err(format!("{} comes behind the jobs", item.describe()));
        }
        let here = (kind, key.to_owned());
        if self.last_document.as_ref().is_some_and(|last| *last >= here) {
            return Err(format!("{} is out of order or there twice", item.describe()));
        }
        self.last_document = Some(here);
        self.totals.documents += 1;
        Ok(())
    }

    fn job(&mut self, attempts: &[Job], counters: Counters) -> Result<(), String> {
        let Some((newest, earlier)) = attempts.split_last() else {
            return Err("a job has no attempt".to_owned());
        };
        let Job { seq, id, .. } = newest;
        if self.last_event > 0 {
            return Err(format!("job {id} comes behind the events"));
        }
        if *seq <= self.last_seq || *seq > counters.last_seq {
            return Err(format!(
                "job {id} has seq {seq} behind {}, with {} given out",
                self.last_seq, counters.last_seq
            ));
        }
        // The oldest ones may be forgotten.
        let first = attempts.first().map_or(1, |job| job.state.attempt.max(1));
        for (job, number) in attempts.iter().zip(first..) {
            if job.state.attempt != number || job.id != *id || job.seq != *seq {
                return Err(format!(
                    "attempt {number} of job {id} (seq {seq}) says that it is attempt {} of {} (seq {})",
                    job.state.attempt, job.id, job.seq
                ));
            }
        }
        if let Some(job) = earlier.iter().find(|job| !job.state.status.is_terminal()) {
            return Err(format!("attempt {} of job {id} has not ended", job.state.attempt));
        }
        if !self.ids.insert(id.clone()) {
            return Err(format!("job {id} is there twice"));
        }
        self.last_seq = *seq;
        self.totals.jobs += 1;
        self.totals.attempts += attempts.len() as u64;
        Ok(())
    }

    fn event(&mut self, event: &JobEvent, counters: Counters) -> Result<(), String> {
        let seq = event.seq;
        // Older ones may have been pruned.
        let follows = if self.last_event == 0 { seq > 0 } else { seq == self.last_event + 1 };
        if !follows || seq > counters.last_event {
            return Err(format!(
                "event {seq} follows event {}, with {} given out",
                self.last_event, counters.last_event
            ));
        }
        self.last_event = seq;
        self.totals.events += 1;
        Ok(())
    }
}
