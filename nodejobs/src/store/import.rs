//! From a file into a store.

use std::io::BufRead;
use std::path::Path;

use nodejobs_core::job::{Job, JobState};
use nodejobs_core::logs::LogLayout;
use nodejobs_core::store::content::Item;
use nodejobs_core::store::export::{Header, ReadError, Reader};
use nodejobs_core::store::{DocumentChange, DocumentKind, JobChange, JobStore, Unit, UnitOutcome};
use nodejobs_core::{Moment, RawText, Reason, Status};
use nodejobs_proc::look;
use nodejobs_proc::machine::now;
use serde::Serialize;

use super::Progress;
use super::access::Held;
use super::build::{NewStore, failed};
use crate::api::ProblemKind;
use crate::error::Error;
use crate::log_files::path_text;
use crate::owner::{GENERATION, live_jobs, stored_generation};
use crate::stores::{DirectoryAge, StoreKind};

/// What an import came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// The kind of the new store.
    pub store: StoreKind,
    /// Where it is.
    pub path: RawText,
    /// Whether the export is of this very directory, so that its jobs are its own again.
    pub restored: bool,
    /// How many jobs there are.
    pub jobs: u64,
    /// How many attempts they have.
    pub attempts: u64,
    /// How many events the export had.
    pub events: u64,
    /// How many documents there are.
    pub documents: u64,
    /// How many jobs had not ended and have now, since another directory has their processes.
    pub ended: u64,
}

/// Makes the store of a directory from an export: of a new directory, or of one whose store was lost.
///
/// An export of this very directory brings everything back as it was. One of another directory is a copy: its jobs that
/// had not ended are ended (`cancelled`, `stopped` or `lost`), since their processes belong to the other one, and log files
/// are looked for in this directory. The store appears when it is complete, and nothing is left of one that is not.
///
/// # Errors
/// [`ProblemKind::Failed`] naming the first line that is wrong, [`ProblemKind::Conflict`] if the directory has a store or
/// an owner, [`ProblemKind::Usage`] for a store that is not in this build.
pub fn import(
    data_dir: &Path,
    input: impl BufRead,
    store: Option<StoreKind>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Imported, Error> {
    if let Some(kind) = store {
        kind.as_str().parse::<StoreKind>()?;
    }
    let mut reader = Reader::new(input).map_err(bad_export)?;
    let mut held = Held::any(data_dir, None)?;
    refuse_used(&held)?;
    let restored = held.age == DirectoryAge::Used && held.meta.directory_id == reader.header().directory_id;
    let kind = store.unwrap_or(held.meta.store);
    let directory = held.directory.clone();
    let mut new = NewStore::begin(&directory, kind, progress)?;
    let logs = path_text(&directory.logs());
    while let Some((mut item, bytes)) = reader.next_item().map_err(bad_export)? {
        if let Item::Job(attempts) = &mut item
            && !restored
        {
            // Of the other directory's files this one must not remove any.
            let own = attempts.iter_mut().map(|job| &mut job.definition.logs);
            own.filter(|own| own.layout == LogLayout::Spread).for_each(|own| own.path = logs.clone());
        }
        new.push(item, bytes)?;
    }
    let totals = new.finish()?;
    let store = new.store()?;
    let ended = if restored { 0 } else { end_live_jobs(&**store, reader.header(), &held)? };
    raise_generation(&**store, &held)?;
    new.put_in_place()?;
    held.meta.store = kind;
    directory.keep_meta(&held.meta)?;
    Ok(Imported {
        store: kind,
        path: path_text(&directory.path().join(kind.file_name())),
        restored,
        jobs: totals.jobs,
        attempts: totals.attempts,
        events: totals.events,
        documents: totals.documents,
        ended,
    })
}

/// A directory has its store by the name that it says, or may have any if it says nothing yet.
fn refuse_used(held: &Held) -> Result<(), Error> {
    let path = held.directory.path();
    let there = StoreKind::all()
        .filter(|kind| held.age == DirectoryAge::New || *kind == held.meta.store)
        .map(|kind| path.join(kind.file_name()))
        .find(|store| std::fs::symlink_metadata(store).is_ok());
    match there {
        None => Ok(()),
        Some(store) => Err(Error::new(
            ProblemKind::Conflict,
            format!(
                "there is a store already, '{}'; import into a new directory with --data-dir, or move it away first",
                store.display()
            ),
        )),
    }
}

/// Ends what the other directory has the processes of, if anybody has; how many there were.
fn end_live_jobs(store: &dyn JobStore, header: &Header, held: &Held) -> Result<u64, Error> {
    let same_boot = header.boot_id.as_ref() == Some(&held.machine.boot_id);
    let live = live_jobs(store)?;
    for jobs in live.chunks(1000) {
        let units: Vec<Unit> = jobs.iter().map(|job| ending_of(job, same_boot).into()).collect();
        for (outcome, job) in store.commit(&units)?.into_iter().zip(jobs) {
            if let UnitOutcome::Rejected(rejection) = outcome {
                let message = format!("job {} of the export cannot be ended", job.id);
                return Err(Error::new(ProblemKind::Failed, message).with_source(rejection));
            }
        }
    }
    Ok(live.len() as u64)
}

fn ending_of(job: &Job, same_boot: bool) -> JobChange {
    let before = job.state.status;
    let (status, reason) = match before {
        Status::Queued => (Status::Cancelled, Some(Reason::User)),
        Status::Restarting => (Status::Stopped, None),
        _ => (Status::Lost, Some(Reason::Unknown)),
    };
    let mut at = now();
    if let (Some(started), false) = (job.state.started, same_boot) {
        // On another boot clock; so nothing is made up about how long it ran.
        at = Moment { wall: at.wall, boot: started.boot };
    }
    let state = JobState {
        status,
        reason,
        detail: Some(format!("was {before} in the directory that it was imported from")),
        waiting_on: None,
        pending_restart: None,
        ended: job.state.ended.or(Some(at)),
        last_update: at.wall,
        ..job.state.clone()
    };
    JobChange::Update { id: job.id.clone(), expected: job.revision, state }
}

/// Keepers that live here may have heard of later owners than the export, and would refuse the next one.
fn raise_generation(store: &dyn JobStore, held: &Held) -> Result<(), Error> {
    let heard = look::highest_generation(&held.directory.keepers())
        .map_err(|error| failed(&held.directory, "list its keepers", error))?;
    if heard > stored_generation(store)? {
        let put = DocumentChange::Put {
            kind: DocumentKind::Meta,
            key: GENERATION.to_owned(),
            body: heard.to_string().into_bytes(),
        };
        store.commit(&[Unit { job: None, documents: vec![put] }])?;
    }
    Ok(())
}

fn bad_export(error: ReadError) -> Error {
    Error::new(ProblemKind::Failed, "nothing was imported").with_source(error)
}
