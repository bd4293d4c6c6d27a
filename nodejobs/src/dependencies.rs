//! Jobs that wait for others, as the owner finds them: what the words of a request mean, and how those named stand.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use nodejobs_core::engine::{Answer, Ended, EndedJobs, Engine, UniqueSubmit};
use nodejobs_core::filter::JobFilter;
use nodejobs_core::job::{Job, WaitingOn};
use nodejobs_core::record::JobRecord;
use nodejobs_core::spec::{After, AfterRequest, Awaited, Condition, Dependency, UNIQUE_LABEL, Unique, Whom};
use nodejobs_core::store::{DocumentKind, JobStore, Order, PageRequest, StoreError};
use nodejobs_core::{JobId, Status};

use crate::api::ProblemKind;
use crate::error::Error;
use crate::owner::{Owner, Request, live_jobs};
use crate::service::resolve;

/// The group of those that name none.
const DEFAULT_GROUP: &str = "default";
/// So many of those that a job waits for are named.
const NAMED: usize = 3;

impl Owner {
    /// The jobs that the words mean, each once. Those of the same batch that come before it are not stored yet.
    pub(crate) async fn find_awaited(
        &self,
        request: &AfterRequest,
        own: Option<&JobId>,
        batch: &HashSet<JobId>,
    ) -> Result<After, Error> {
        let (mut on, unmet) = (BTreeMap::new(), request.unmet);
        let mut unknown: Vec<Awaited> = Vec::new();
        for awaited in &request.on {
            let Awaited { whom, condition } = awaited;
            match whom {
                Whom::Job(text) if JobId::new(text).is_ok_and(|id| batch.contains(&id)) => {
                    let id = JobId::new(text).map_err(|error| usage(error.to_string()))?;
                    add(&mut on, id, *condition)?;
                }
                _ => unknown.push(awaited.clone()),
            }
        }
        if !unknown.is_empty() {
            let own = own.cloned();
            let found = self.blocking(move |store| look_up(store, &unknown, own.as_ref())).await?;
            found.into_iter().try_for_each(|(id, condition)| add(&mut on, id, condition))?;
        }
        if on.len() > AfterRequest::MAX_JOBS {
            let (count, max) = (on.len(), AfterRequest::MAX_JOBS);
            return Err(usage(format!("it is to wait for {count} jobs; at most {max} are possible")));
        }
        let on = on.into_iter().map(|(id, condition)| Dependency { id, condition }).collect();
        Ok(After { on, unmet })
    }

    /// Has a queued job wait for these instead of those it waits for; for none if the request names none.
    pub(crate) async fn set_dependencies(
        &self,
        reference: &str,
        request: &AfterRequest,
    ) -> Result<JobRecord, Error> {
        request.validate().map_err(|error| usage(error.to_string()))?;
        let job = self.job(reference).await?;
        let after = self.find_awaited(request, Some(&job.id), &HashSet::new()).await?;
        let after = (!after.on.is_empty()).then_some(after);
        self.ask_of_one(job, &Request::Depend { after }).await
    }

    /// Adds to the record of a job that waits for others which ones they are.
    pub(crate) async fn name_awaited(&self, job: Job, mut record: JobRecord) -> Result<JobRecord, Error> {
        let waits = job.state.waiting_on == Some(WaitingOn::Dependency);
        if let Some(after) = job.definition.after.filter(|_| waits) {
            record.detail = self.blocking(move |store| Ok(waits_for(store, &after)?)).await?;
        }
        Ok(record)
    }
}

fn usage(message: String) -> Error {
    Error::new(ProblemKind::Usage, message)
}

fn add(on: &mut BTreeMap<JobId, Condition>, id: JobId, condition: Condition) -> Result<(), Error> {
    match on.get(&id) {
        Some(known) if *known != condition => Err(usage(format!(
            "it is to wait for '{id}' with the conditions {} and {}; give one of them",
            known.as_str(),
            condition.as_str()
        ))),
        _ => {
            on.insert(id, condition);
            Ok(())
        }
    }
}

fn look_up(
    store: &dyn JobStore,
    awaited: &[Awaited],
    own: Option<&JobId>,
) -> Result<Vec<(JobId, Condition)>, Error> {
    let mut found = Vec::new();
    for Awaited { whom, condition } in awaited {
        match whom {
            Whom::Job(text) => found.push((resolve(store, text)?.id, *condition)),
            Whom::Group(name) => {
                let is_known = name == DEFAULT_GROUP || store.document(DocumentKind::Group, name)?.is_some();
                if !is_known {
                    let message = format!("there is no group '{name}'; make it first, or name jobs");
                    return Err(Error::new(ProblemKind::NotFound, message));
                }
                let is_in = |job: &Job| job.definition.group.as_deref().unwrap_or(DEFAULT_GROUP) == name;
                let members = live_jobs(store)?.into_iter().filter(is_in).map(|job| job.id);
                found.extend(members.filter(|id| Some(id) != own).map(|id| (id, *condition)));
            }
        }
    }
    Ok(found)
}

/// How those have ended that are awaited and not live.
pub(crate) fn ended<'a>(
    store: &dyn JobStore,
    engine: &Engine,
    awaited: impl IntoIterator<Item = &'a JobId>,
) -> Result<EndedJobs, StoreError> {
    let mut ended = EndedJobs::new();
    for id in awaited.into_iter().filter(|id| !engine.is_live(id)) {
        if let Some(job) = store.job(id)? {
            ended.insert(job.id, Ended::new(&job.state));
        }
    }
    Ok(ended)
}

/// Every job that it waits for.
pub(crate) fn awaited(after: Option<&After>) -> impl Iterator<Item = &JobId> {
    after.into_iter().flat_map(|after| &after.on).map(|dependency| &dependency.id)
}

/// What the engine has to know of a key.
pub(crate) fn unique_submit(
    store: &dyn JobStore,
    engine: &Engine,
    unique: Unique,
) -> Result<UniqueSubmit, StoreError> {
    let newest = if unique.window_ms.is_none() || engine.has_key(&unique.key) {
        None
    } else {
        let label = vec![(UNIQUE_LABEL.to_owned(), Some(unique.key.clone()))];
        let filter = JobFilter { label, ..JobFilter::default() };
        let request = PageRequest { filter, order: Order::NewestFirst, after: None, limit: 1 };
        store.jobs(&request)?.jobs.pop()
    };
    Ok(UniqueSubmit { unique, newest })
}

/// What a job still waits for: `waits for 'build' (running) and 2 more`.
fn waits_for(store: &dyn JobStore, after: &After) -> Result<Option<String>, StoreError> {
    let mut open = Vec::new();
    for Dependency { id, condition } in &after.on {
        match store.job(id)? {
            Some(job) if !condition.is_met_by(job.state.status) => open.push((job, *condition)),
            // What is gone had met it.
            _ => {}
        }
    }
    let mut text = String::new();
    for (job, condition) in open.iter().take(NAMED) {
        let separator = if text.is_empty() { "waits for" } else { "," };
        let name = job
            .definition
            .name
            .as_deref()
            .map_or_else(|| job.id.to_string(), |name| format!("{name} ({})", job.id));
        let again = match (job.state.status.is_terminal(), condition) {
            (false, _) => "",
            (true, Condition::Failure) => ", to be run again and fail",
            (true, _) => ", to be run again and succeed",
        };
        let _ = write!(text, "{separator} '{name}' ({}{again})", job.state.status);
    }
    if open.len() > NAMED {
        let _ = write!(text, " and {} more", open.len() - NAMED);
    }
    Ok((!text.is_empty()).then_some(text))
}

/// What is said to somebody whose job may not wait for those it was to wait for, or is still waited for.
pub(crate) fn refusal(answer: &Answer, job: &str) -> Option<Error> {
    Some(match answer {
        Answer::NoDependency(id) => Error::new(
            ProblemKind::NotFound,
            format!("there is no job '{id}' to wait for; it was removed meanwhile"),
        ),
        Answer::Cycle(way) => {
            let mut names = way.iter().map(|id| format!("'{id}'"));
            let first = names.next().unwrap_or_default();
            let way = names.map(|name| format!(" waits for {name}")).collect::<Vec<_>>().join(", which");
            usage(format!("it would wait for itself: {first}{way}; leave out one of them"))
        }
        Answer::Needed { by } => Error::new(
            ProblemKind::Conflict,
            format!(
                "job '{by}' waits for job '{job}' to be run again; stop '{by}' first, or change what it waits for"
            ),
        ),
        _ => return None,
    })
}

/// The way out for whoever wants to change what a job waits for that is not queued.
pub(crate) fn way_out(status: Option<Status>) -> &'static str {
    match status {
        Some(status) if status.is_terminal() => {
            "it waits for nothing any more; run it again with other dependencies"
        }
        _ => "only a job that is queued can wait for others",
    }
}
