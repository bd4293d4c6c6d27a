//! Status events of a data directory, and everything that happens to one job, as iterators.

use nodejobs_core::store::JobEvent;

use super::events::Events;
use super::{Answer, ClientError};
use crate::api::{BindEvent, ErrorBody, EventError, Problem, StatusEvent};

/// Status events in the order of their numbers. Ends after the newest, if the query does not follow; everything else
/// that cuts it short is an error.
#[derive(Debug)]
pub struct StatusEvents {
    events: Events,
    newest: Option<u64>,
    ended: bool,
}

impl StatusEvents {
    pub(super) fn new(answer: Answer) -> Self {
        Self { events: Events::new(answer), newest: None, ended: false }
    }

    /// The number of the newest event there was, once the iterator has ended; `None` before.
    pub fn newest(&self) -> Option<u64> {
        self.newest
    }
}

impl Iterator for StatusEvents {
    type Item = Result<JobEvent, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = match self.events.next(StatusEvent::from_sse) {
            Ok(StatusEvent::Status(event)) => Some(Ok(event)),
            Ok(StatusEvent::Done { newest }) => {
                self.newest = Some(newest);
                None
            }
            Ok(StatusEvent::Error(problem)) => Some(Err(problem.into())),
            Err(error) => Some(Err(error)),
        };
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

/// What happens to a job. Ends after [`Bound::Ended`](crate::api::Bound::Ended) or
/// [`Bound::Now`](crate::api::Bound::Now); everything that cuts it short is an error, after which the token of the last event goes on.
#[derive(Debug)]
pub struct BindEvents {
    events: Events,
    ended: bool,
}

impl BindEvents {
    pub(super) fn new(answer: Answer) -> Self {
        Self { events: Events::new(answer), ended: false }
    }
}

impl Iterator for BindEvents {
    type Item = Result<BindEvent, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = match self.events.next(understand) {
            Ok(Ok(event)) => Ok(event),
            Ok(Err(problem)) => Err(problem.into()),
            Err(error) => Err(error),
        };
        self.ended = !matches!(&item, Ok(event) if !event.is_last());
        Some(item)
    }
}

fn understand(name: &str, data: &str) -> Result<Result<BindEvent, Problem>, EventError> {
    match name {
        "error" => Ok(Err(ErrorBody::from_sse(data)?.error)),
        _ => Ok(Ok(BindEvent::from_sse(name, data)?)),
    }
}
