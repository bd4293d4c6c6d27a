//! `--on-done`: a script that is run once an array has ended, as a hook is.
//!
//! A document says of each attempt of an array with a script that it is still to be run; it was written with the attempt,
//! and goes once the script is through. So the script runs at least once: an owner that is killed over it is followed by
//! one that ends what is left of it, and runs it again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nodejobs_core::JobId;
use nodejobs_core::array::ON_DONE;
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::Job;
use nodejobs_core::spec::LaunchContext;
use nodejobs_core::store::{DocumentChange, DocumentKind, JobEvent, JobStore};
use tokio::task::JoinSet;

use crate::config::{Hook, HookCommand};
use crate::error::Error;
use crate::hooks::run::{Surroundings, run};
use crate::hub::stopped;
use crate::owner::Owner;

/// How many documents are read at a time.
const BATCH: usize = 128;
/// How long a script may take before it is killed.
const TIMEOUT: Duration = Duration::from_secs(600);
/// After trouble with the store.
const RETRY: Duration = Duration::from_secs(10);

/// Runs scripts until the owner leaves.
pub(crate) async fn serve(owner: &Arc<Owner>) {
    let mut wanted = owner.on_done_wanted.subscribe();
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut running: JoinSet<String> = JoinSet::new();
    loop {
        // Before the look, so that one after it is heard of.
        wanted.borrow_and_update();
        let mut is_in_trouble = false;
        match owner.blocking(wanted_keys).await {
            Ok(keys) => {
                for key in keys {
                    if known.insert(key.clone()) {
                        running.spawn(run_once(Arc::clone(owner), key));
                    }
                }
            }
            Err(error) => {
                log::warn!("scripts for the ends of arrays cannot be looked for: {}", error.to_problem());
                is_in_trouble = true;
            }
        }
        owner.on_done_busy.send_replace(!known.is_empty());
        tokio::select! {
            Some(through) = running.join_next() => {
                if let Ok(key) = through {
                    known.remove(&key);
                }
            }
            _ = wanted.changed() => {}
            () = tokio::time::sleep(RETRY), if is_in_trouble => {}
            () = owner.hub.left() => break,
        }
    }
    // Those that run are killed here, and run again by the next owner.
    running.shutdown().await;
}

/// The keys of what is still to be run.
fn wanted_keys(store: &dyn JobStore) -> Result<Vec<String>, Error> {
    let (mut keys, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
    loop {
        let batch = store.documents(DocumentKind::Meta, ON_DONE, after.as_deref(), BATCH)?;
        keys.extend(batch.into_iter().map(|(key, _)| key));
        if keys.len() % BATCH != 0 || keys.last() == after.as_ref() {
            return Ok(keys);
        }
        after = keys.last().cloned();
    }
}

/// Waits for the end of an attempt, runs its script and forgets that it was to be run.
async fn run_once(owner: Arc<Owner>, key: String) -> String {
    if let Err(error) = run_at_the_end(&owner, &key).await
        && !owner.hub.is_leaving()
    {
        log::warn!("the script for the end of '{key}' was not run: {}", error.to_problem());
        // The next look finds it again.
        let _ = owner.hub.unless_left(tokio::time::sleep(RETRY)).await;
    }
    key
}

async fn run_at_the_end(owner: &Arc<Owner>, key: &str) -> Result<(), Error> {
    if let Some(attempt) = attempt_of(key) {
        let AttemptId { id, attempt: number } = &attempt;
        let has_ended = |newest, status: nodejobs_core::Status| newest > *number || status.is_terminal();
        let job = match owner.until(id, has_ended).await {
            Ok(job) if job.state.attempt == *number => Some(job),
            Ok(job) => {
                let (id, number) = (job.id, *number);
                let attempts = owner.blocking(move |store| Ok(store.attempts(&id)?)).await?;
                attempts.into_iter().find(|job| job.state.attempt == number)
            }
            Err(_) if owner.hub.is_leaving() => return Err(stopped()),
            // It is forgotten, and nobody can be told of it.
            Err(_) => None,
        };
        if let Some(job) = job {
            run_for(owner, &job).await?;
        }
    }
    let key = key.to_owned();
    owner.keep(vec![DocumentChange::Remove { kind: DocumentKind::Meta, key }]).await
}

async fn run_for(owner: &Arc<Owner>, job: &Job) -> Result<(), Error> {
    let Some(script) = job.definition.array.as_ref().and_then(|array| array.on_done.clone()) else {
        return Ok(());
    };
    // An id does not begin with a dot, so it is no job's.
    let mark = format!("{}:.done:{}:", owner.directory_id, job.attempt_id().id);
    let left = mark.clone();
    let context_key = job.definition.context_key.clone();
    let context = owner.blocking(move |store| {
        if let Err(error) = nodejobs_proc::marked::kill_marked(&left) {
            log::warn!("scripts that still run cannot be looked for: {error}");
        }
        let body = store.document(DocumentKind::Context, &context_key)?;
        Ok(body.and_then(|body| serde_json::from_slice::<LaunchContext>(&body).ok()))
    });
    let environment = context.await?.unwrap_or_default().environment;
    let surroundings = Surroundings { environment, cwd: job.definition.cwd.clone() };
    let command = HookCommand::Shell(script);
    let hook = Hook { on: Vec::new(), command, timeout: TIMEOUT, variables: Vec::new() };
    let event = JobEvent {
        seq: 0,
        attempt: job.attempt_id(),
        status: job.state.status,
        reason: job.state.reason,
        at: job.state.last_update,
    };
    run(owner, &hook, "--on-done", Some(&surroundings), &event, &mark).await;
    Ok(())
}

/// The attempt that a key is about.
fn attempt_of(key: &str) -> Option<AttemptId> {
    let (id, attempt) = key.strip_prefix(ON_DONE)?.split_once('/')?;
    Some(AttemptId { id: JobId::new(id).ok()?, attempt: attempt.parse().ok()? })
}
