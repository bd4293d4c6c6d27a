//! Stopping jobs where no owner can be: the store is lost or cannot be read.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use nodejobs_core::JobId;
use nodejobs_core::backend::TreeMember;
use nodejobs_core::signal::Signal;
use nodejobs_core::spec::Policy;
use nodejobs_proc::look::{FoundJob, Repair};
use rustix::fs::{FlockOperation, flock};

use crate::api::ProblemKind;
use crate::directory::parse;
use crate::error::Error;
use crate::foreign::{META, OWNER_LOCK};

/// A job that was stopped without an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescued {
    /// Its id.
    pub id: JobId,
    /// Processes that could not be killed.
    pub survivors: Vec<TreeMember>,
}

/// Ends running jobs of a directory that nobody owns, by what their keepers have written down; all of them if none are
/// named. With `force` at once, otherwise by SIGTERM and after the usual grace by SIGKILL: what a job has of its own is in the
/// store. The keepers note how they end, for the owner that comes when the store is there again.
///
/// # Errors
/// [`ProblemKind::Conflict`] if the directory has an owner, [`ProblemKind::NotFound`] for a job that is not running, before
/// anything is done.
pub fn stop_without_owner(data_dir: &Path, ids: &[JobId], force: bool) -> Result<Vec<Rescued>, Error> {
    let failed = |what: &str, error: std::io::Error| {
        Error::new(ProblemKind::Failed, format!("{what} in '{}'", data_dir.display())).with_source(error)
    };
    // Held meanwhile, so that nobody becomes the owner.
    let _lock = owners_lock(data_dir, "who stops jobs: `nodejobs stop`")?;
    let keepers = nodejobs_proc::look::keepers(&data_dir.join("keepers"))
        .map_err(|error| failed("the keepers cannot be listed", error))?;
    let mut jobs: Vec<FoundJob> =
        keepers.into_iter().flat_map(|keeper| keeper.jobs.unwrap_or_default()).collect();
    if let Some(unknown) = ids.iter().find(|id| !jobs.iter().any(|job| job.attempt.id == **id)) {
        let message =
            format!("no job '{unknown}' runs here; `nodejobs doctor --keepers` lists those that do");
        return Err(Error::new(ProblemKind::NotFound, message));
    }
    jobs.retain(|job| ids.is_empty() || ids.contains(&job.attempt.id));
    // Without it, processes that have left their job's session and lost their parents are not found.
    let meta = std::fs::read(data_dir.join(META)).ok().and_then(|bytes| parse(&bytes, Path::new(META)).ok());
    let directory_id = meta.map(|meta| meta.directory_id).unwrap_or_default();
    let (signal, grace_ms) =
        if force { (Signal::KILL, 0) } else { (Signal::TERM, Policy::default().grace_ms) };
    let survivors = nodejobs_proc::rescue::end_trees(&jobs, &directory_id, signal, grace_ms)
        .map_err(|error| failed("there is no room to end jobs", error))?;
    let rescued = jobs.into_iter().zip(survivors);
    Ok(rescued.map(|(job, survivors)| Rescued { id: job.attempt.id, survivors }).collect())
}

/// The lock of the owner, if there is one to be had.
fn owners_lock(data_dir: &Path, who_can: &str) -> Result<Option<File>, Error> {
    let lock = match File::open(data_dir.join(OWNER_LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let message = format!("the lock of the owner cannot be opened in '{}'", data_dir.display());
            return Err(Error::new(ProblemKind::Failed, message).with_source(error));
        }
    };
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        let message = format!("'{}' has an owner, {who_can}", data_dir.display());
        return Err(Error::new(ProblemKind::Conflict, message));
    }
    Ok(Some(lock))
}

/// Repairs what is left of dead keepers in a directory that nobody owns. Says what it has done, a sentence each.
///
/// # Errors
/// [`ProblemKind::Conflict`] if the directory has an owner, [`ProblemKind::Failed`] if a file cannot be changed.
pub fn fix(data_dir: &Path) -> Result<Vec<String>, Error> {
    let failed =
        |what: String, error: std::io::Error| Error::new(ProblemKind::Failed, what).with_source(error);
    let repairs = || {
        nodejobs_proc::look::repairs(&data_dir.join("keepers")).map_err(|error| {
            failed(format!("the keepers cannot be listed in '{}'", data_dir.display()), error)
        })
    };
    if repairs()?.is_empty() {
        return Ok(Vec::new());
    }
    let _lock = owners_lock(data_dir, "who needs no such repair; stop it first: `nodejobs daemon stop`")?;
    let mut done = Vec::new();
    for repair in repairs()? {
        let (path, sentence) = match &repair {
            Repair::WithoutJournal(path) => {
                let kept = path.with_extension("journal.unread");
                (
                    path,
                    format!(
                        "'{}' is renamed to '{}'; launches that only it tells of become lost",
                        path.display(),
                        kept.display()
                    ),
                )
            }
            Repair::Delete(path) => (path, format!("'{}' is deleted", path.display())),
        };
        repair
            .carry_out()
            .map_err(|error| failed(format!("'{}' cannot be repaired", path.display()), error))?;
        done.push(sentence);
    }
    Ok(done)
}
