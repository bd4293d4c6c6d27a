//! Deleting the log files of jobs that are forgotten. Ours are deleted at once; those that users placed, in the time of
//! their file system. Until they are gone nothing is launched that would write to them: it would lose its output.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nodejobs_core::id::AttemptId;
use nodejobs_core::logs::LogPaths;
use nodejobs_core::store::{JobStore, StoreError};
use nodejobs_core::{JobId, RawText};
use tokio::sync::watch;

use super::Message;
use crate::files;

/// What is to be deleted and is not yet.
pub(crate) struct Deletions {
    pending: Mutex<HashMap<JobId, HashSet<PathBuf>>>,
    /// Counts those that are done.
    done: watch::Sender<u64>,
}

impl Deletions {
    pub(super) fn new() -> Self {
        Self { pending: Mutex::default(), done: watch::Sender::new(0) }
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<JobId, HashSet<PathBuf>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes files of a job. Those outside `own_logs` are told to `owner` when they are gone.
    pub(super) fn begin(
        self: &Arc<Self>,
        id: &JobId,
        files: &[LogPaths],
        own_logs: &RawText,
        owner: &Sender<Message>,
    ) {
        let mut placed: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
        for file in files.iter().flat_map(both) {
            if file.starts_with(OsStr::from_bytes(own_logs.as_bytes())) {
                if let Err(error) = delete(&file) {
                    warn(&file, &error);
                }
            } else {
                placed.entry(file.parent().unwrap_or(&file).to_owned()).or_default().push(file);
            }
        }
        for (directory, files) in placed {
            self.pending().entry(id.clone()).or_default().extend(files.iter().cloned());
            let (deletions, owner, id) = (Arc::clone(self), owner.clone(), id.clone());
            let gone = files.clone();
            let work =
                move || files.iter().filter_map(|file| Some((file.clone(), delete(file).err()?))).collect();
            let tell = move |failed: Option<Vec<(PathBuf, io::Error)>>| {
                failed.iter().flatten().for_each(|(file, error)| warn(file, error));
                deletions.end(&id, &gone);
                // Without the owner nothing is launched any more.
                let _ = owner.send(Message::Deleted);
            };
            files::go("delete logs in", &directory, work, tell);
        }
    }

    fn end(&self, id: &JobId, gone: &[PathBuf]) {
        let mut pending = self.pending();
        if let Some(files) = pending.get_mut(id) {
            gone.iter().for_each(|file| _ = files.remove(file));
            if files.is_empty() {
                pending.remove(id);
            }
        }
        drop(pending);
        self.done.send_modify(|count| *count += 1);
    }

    /// Whether an attempt would write to a file that is still to be deleted.
    pub(super) fn are_in_the_way(
        &self,
        store: &dyn JobStore,
        attempt: &AttemptId,
    ) -> Result<bool, StoreError> {
        if !self.pending().contains_key(&attempt.id) {
            return Ok(false);
        }
        let job = store.job(&attempt.id)?.filter(|job| job.state.attempt == attempt.attempt);
        let pending = self.pending();
        let files = pending.get(&attempt.id);
        Ok(job
            .zip(files)
            .is_some_and(|(job, files)| both(&job.log_paths()).any(|file| files.contains(&file))))
    }

    /// Waits until the files of a job are deleted, unless their file system hangs.
    pub(crate) async fn finished(&self, id: &JobId) {
        let mut done = self.done.subscribe();
        let waits = async {
            loop {
                done.borrow_and_update();
                let first = self.pending().get(id).and_then(|files| files.iter().next().cloned());
                let Some(first) = first else { return };
                if files::is_stuck(&first) || done.changed().await.is_err() {
                    return;
                }
            }
        };
        // Then they go when it answers.
        let _ = tokio::time::timeout(files::PATIENCE, waits).await;
    }
}

/// The files of an attempt, the same one only once.
fn both(paths: &LogPaths) -> impl Iterator<Item = PathBuf> {
    let stderr = (!paths.is_merged()).then_some(&paths.stderr);
    let path = |text: &RawText| PathBuf::from(OsStr::from_bytes(text.as_bytes()));
    [path(&paths.stdout)].into_iter().chain(stderr.map(path))
}

fn delete(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        deleted => deleted,
    }
}

fn warn(file: &Path, error: &io::Error) {
    log::warn!("log file '{}' of a removed job cannot be deleted: {error}", file.display());
}
