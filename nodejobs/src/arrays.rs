//! Arrays, as the owner serves them: made, found, run again and forgotten.

mod forget;
pub(crate) mod on_done;

use std::collections::HashSet;
use std::sync::Arc;

use nodejobs_core::array::{self, Content, Counts, Which, split_element_id};
use nodejobs_core::job::{Array, Job, Origin};
use nodejobs_core::record::JobRecord;
use nodejobs_core::store::JobStore;
use nodejobs_core::{JobId, Status};
use tokio::sync::oneshot;

use crate::api::{ArrayRequest, Problem, ProblemKind};
use crate::error::Error;
use crate::owner::{Owner, Request};
use crate::service::{accepted, record, resolve};

pub(crate) use forget::finish_forgetting;

impl Owner {
    /// Accepts an array. It is on disk when this returns.
    pub(crate) async fn submit_array(
        &self,
        request: &ArrayRequest,
        resend: bool,
    ) -> Result<JobRecord, Error> {
        let size = request.validate()?;
        let spec = &request.spec;
        self.check_limits(spec).await?;
        let (reply, answer) = oneshot::channel();
        let mut message = self.submit_message(spec, &HashSet::new(), resend, reply).await?;
        // In a group it is the slots of that which say how many.
        let most = request.max_running.or_else(|| spec.group.is_none().then(processors));
        message.definition.array = Some(Array {
            size,
            fail_fast: request.fail_fast,
            max_running: most,
            on_done: request.on_done.clone(),
        });
        message.array = Some(Box::new(Content::new(request.elements.clone(), size)));
        self.submit(message)?;
        let (id, job, existing) = accepted(answer.await, spec)?;
        self.on_done_wanted.send_modify(|count| *count += 1);
        let mut record = match job {
            Some(job) => record(&job),
            None => {
                let there = self.blocking(move |store| found(store, id.as_str())).await?;
                return Ok(JobRecord { existing, ..there });
            }
        };
        record.progress = Some(Counts { size, pending: size, ..Counts::default() });
        Ok(record)
    }

    /// What is to be asked of which job so that this one begins its next attempt: an array that has ended has a plan of
    /// what is to run again, and an element of such a one is run again by its array.
    pub(crate) async fn restart_of(&self, job: Job, request: &Request) -> Result<(Job, Request), Error> {
        let Request::Restart { submit_key, how, ended, failed } = request else {
            return Ok((job, request.clone()));
        };
        let (parent, which) = match &job.definition.origin {
            _ if job.definition.array.is_some() => {
                (Some(job.clone()), if *failed { Which::Unfinished } else { Which::All })
            }
            Some(Origin::Element { array, index, .. }) => {
                let array = array.clone();
                let parent = self.blocking(move |store| Ok(store.job(&array)?)).await?;
                (parent, Which::One(*index))
            }
            _ => (None, Which::All),
        };
        if *failed && job.definition.array.is_none() && job.state.status == Status::Finished {
            return Err(nothing_failed(&job, "it"));
        }
        let is_begun = job.definition.submit_key.as_ref() == Some(submit_key);
        if (*failed || *ended) && !job.state.status.is_terminal() && !is_begun {
            let Job { id, state, .. } = &job;
            let message = format!("job '{id}' is {}; what has ended can be run again", state.status);
            return Err(Error::new(ProblemKind::Conflict, message));
        }
        let Some(parent) = parent else { return Ok((job, request.clone())) };
        let is_same = parent.definition.submit_key.as_ref() == Some(submit_key);
        if is_same || !parent.state.status.is_terminal() {
            // Begun already by an earlier sending, or the engine's to decide.
            return Ok((if is_same { parent } else { job }, request.clone()));
        }
        let stored = parent.clone();
        let content = self.blocking(move |store| Ok(array::next_attempt(store, &stored, which)?)).await?;
        if content.plan.is_empty() {
            return Err(nothing_failed(&parent, "each of its elements"));
        }
        let (submit_key, how, revision) = (submit_key.clone(), *how, parent.revision);
        let request = Request::RestartArray { submit_key, how, revision, content: Arc::new(content) };
        Ok((parent, request))
    }
}

impl Owner {
    /// Refuses to forget an element alone: it goes with its array.
    pub(crate) async fn refuse_element(&self, job: &Job) -> Result<(), Error> {
        let Some(array) = array_of(job).cloned() else { return Ok(()) };
        let parent = array.clone();
        if self.blocking(move |store| Ok(store.job(&parent)?)).await?.is_none() {
            return Ok(());
        }
        let message = format!("job '{}' is an element of array '{array}', and goes with it", job.id);
        Err(Error::new(ProblemKind::Conflict, message))
    }
}

fn nothing_failed(job: &Job, who: &str) -> Error {
    let message = format!("{who} has finished, so nothing of job '{}' is to be run again", job.id);
    Error::new(ProblemKind::Conflict, message)
}

fn processors() -> u32 {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn found(store: &dyn JobStore, reference: &str) -> Result<JobRecord, Error> {
    record_with_progress(store, &resolve(store, reference)?)
}

/// The job of that id; an element that has no job yet as if it had.
pub(crate) fn find(store: &dyn JobStore, id: &JobId) -> Result<Option<Job>, Error> {
    if let Some(job) = store.job(id)? {
        return Ok(Some(job));
    }
    let Some((parent, index)) = split_element_id(id.as_str()) else { return Ok(None) };
    let parent = JobId::new(parent).ok().map(|parent| store.job(&parent)).transpose()?.flatten();
    match parent {
        Some(parent) => element(store, &parent, index),
        None => Ok(None),
    }
}

/// An element of an array, whether it has a job or not; `None` if the array has no such element, or is none.
fn element(store: &dyn JobStore, parent: &Job, index: u32) -> Result<Option<Job>, Error> {
    let size = parent.definition.array.as_ref().map_or(0, |array| array.size);
    let Some(id) = array::element_id(&parent.id, index).filter(|_| (1..=size).contains(&index)) else {
        return Ok(None);
    };
    // The array may have begun it since it was looked up.
    match store.job(&id)? {
        Some(job) => Ok(Some(job)),
        None => Ok(array::template(store, parent)?.pending(parent, index)),
    }
}

/// What `REFERENCE.NUMBER` means, where the reference is one to an array.
pub(crate) fn resolve_element(store: &dyn JobStore, reference: &str) -> Result<Option<Job>, Error> {
    let Some((parent, index)) = split_element_id(reference) else { return Ok(None) };
    match resolve(store, parent) {
        Ok(parent) if parent.definition.array.is_some() => {
            let size = parent.definition.array.as_ref().map_or(0, |array| array.size);
            element(store, &parent, index)?.map(Some).ok_or_else(|| {
                let message =
                    format!("array '{}' has {size} elements, and none of number {index}", parent.id);
                Error::new(ProblemKind::NotFound, message)
            })
        }
        // It is the whole that nobody knows, or that is unclear.
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Whether it is an element without a job.
pub(crate) fn is_pending(job: &Job) -> bool {
    job.revision == 0
}

/// The array of an element.
pub(crate) fn array_of(job: &Job) -> Option<&JobId> {
    match &job.definition.origin {
        Some(Origin::Element { array, .. }) => Some(array),
        _ => None,
    }
}

/// The record of a job, with the numbers of its elements if it is an array.
pub(crate) fn record_with_progress(store: &dyn JobStore, job: &Job) -> Result<JobRecord, Error> {
    let mut record = record(job);
    fill(store, job, &mut record)?;
    Ok(record)
}

/// Adds the numbers of its elements to the record of an array's newest attempt.
pub(crate) fn fill(store: &dyn JobStore, job: &Job, record: &mut JobRecord) -> Result<(), Error> {
    if let Some(array) = &job.definition.array {
        record.progress = Some(Counts::new(array.size, &array::progress(store, &job.id)?));
    }
    Ok(())
}

/// An id of a form that only elements of an array have, which exists.
pub(crate) fn refuse_element_id(store: &dyn JobStore, id: &JobId) -> Result<(), Problem> {
    let Some((parent, _)) = split_element_id(id.as_str()) else { return Ok(()) };
    let Ok(parent) = JobId::new(parent) else { return Ok(()) };
    match store.job(&parent) {
        Ok(Some(job)) if job.definition.array.is_some() => Err(Problem::new(
            ProblemKind::Conflict,
            format!("id '{id}' is for an element of array '{parent}'; choose another one"),
        )),
        Ok(_) => Ok(()),
        Err(error) => Err(Error::from(error).to_problem()),
    }
}

/// An array has no output of its own.
pub(crate) fn refuse_output(job: &Job) -> Result<(), Error> {
    if job.definition.array.is_none() {
        return Ok(());
    }
    let message = format!(
        "job '{id}' is an array, which writes nothing itself; name an element, as in `nodejobs logs {id}.1`",
        id = job.id
    );
    Err(Error::new(ProblemKind::Usage, message))
}
