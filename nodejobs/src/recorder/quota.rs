//! The quota of all logs together: how much they take, and freeing those of ended jobs, the oldest first.
//!
//! To count them is to look at each job that there is, so it is done on a thread of its own: at the start, and whenever
//! what was written since may be too much.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nodejobs_core::job::Job;
use nodejobs_core::store::{JobStore, Order, PageRequest, StoreError};
use nodejobs_proc::logs::free;

use super::tracked::path_of;
use super::{Message, Shared};

/// Between two counts, unless a tenth of the quota was written since the last.
const PAUSE: Duration = Duration::from_secs(10);

/// How long a file that a user placed is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the thread that looks at logs knows of the quota.
pub(super) struct Quota {
    limit: u64,
    /// What all logs take, as far as that is known; `None` before they were counted.
    total: Option<u64>,
    /// Written less freed since the last count began.
    since: i64,
    /// When they were last counted.
    counted: Option<Instant>,
    counting: Option<(JoinHandle<()>, Arc<AtomicBool>)>,
}

impl Quota {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, total: None, since: 0, counted: None, counting: None }
    }

    /// Something was written, or freed.
    pub(super) fn grew(&mut self, bytes: i64) {
        self.since = self.since.saturating_add(bytes);
    }

    /// When to count next, if it has to be.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.counting.is_some() {
            return None;
        }
        let (Some(total), Some(counted)) = (self.total, self.counted) else { return Some(Instant::now()) };
        let is_exceeded = total.saturating_add_signed(self.since) > self.limit;
        let is_much = self.since.unsigned_abs() > self.limit / 10 && self.since > 0;
        match (is_exceeded && self.since > 0, is_much) {
            (true, true) => Some(Instant::now()),
            (true, false) => Some(counted + PAUSE),
            (false, _) => None,
        }
    }

    /// Begins to count, and to free if it is too much.
    pub(super) fn count(&mut self, shared: &Arc<Shared>, store: &Arc<dyn JobStore>) -> io::Result<()> {
        let (shared, store, limit) = (Arc::clone(shared), Arc::clone(store), self.limit);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        self.since = 0;
        let thread = std::thread::Builder::new().name("nodejobs-quota".to_owned()).spawn(move || {
            let total = keep(&*store, limit, &stopped).map_err(|error| error.to_string());
            shared.send(Message::Counted(total), true);
        })?;
        self.counting = Some((thread, stop));
        Ok(())
    }

    /// They were counted; without a number if that failed.
    pub(super) fn counted(&mut self, total: Option<u64>) {
        if let Some((thread, _)) = self.counting.take() {
            let _ = thread.join();
        }
        self.total = total.or(self.total).or(Some(0));
        self.counted = Some(Instant::now());
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        if let Some((thread, stop)) = self.counting.take() {
            stop.store(true, Ordering::Relaxed);
            let _ = thread.join();
        }
    }
}

/// Counts all logs, and frees until they take nine tenths of the limit if they take more than it. What they take then.
fn keep(store: &dyn JobStore, limit: u64, stop: &AtomicBool) -> Result<u64, StoreError> {
    let mut total = 0_u64;
    each(store, |job| {
        total += files(job).map(|log| log.on_disk()).sum::<u64>();
        !stop.load(Ordering::Relaxed)
    })?;
    if total <= limit {
        return Ok(total);
    }
    let enough = limit / 10 * 9;
    let (mut freed, mut failed) = (0, None);
    each(store, |job| {
        if job.state.status.is_terminal() {
            for log in files(job) {
                let before = log.on_disk();
                if before > 0 {
                    failed = log.empty().or(failed.take());
                    freed += before.saturating_sub(log.on_disk());
                }
            }
        }
        total.saturating_sub(freed) > enough && !stop.load(Ordering::Relaxed)
    })?;
    if freed > 0 {
        log::info!(
            "logs took {total} bytes and may take {limit}: {freed} of ended jobs were freed, the oldest first"
        );
    }
    if let Some(error) = failed {
        log::warn!("logs of ended jobs cannot be freed: {error}");
    }
    Ok(total.saturating_sub(freed))
}

/// Every attempt, the oldest job first, as long as there is a wish for more.
fn each(store: &dyn JobStore, mut more: impl FnMut(&Job) -> bool) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = store.jobs(&PageRequest {
            order: Order::OldestFirst,
            after,
            limit: 500,
            filter: Default::default(),
        })?;
        for job in page.jobs {
            let attempts = if job.state.attempt == 1 { vec![job] } else { store.attempts(&job.id)? };
            if !attempts.iter().all(&mut more) {
                return Ok(());
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// A log file of ours.
struct Log {
    path: PathBuf,
    /// Whether the user placed it, so that it may not answer.
    is_named: bool,
}

impl Log {
    /// How much room it takes; 0 where nobody can know.
    fn on_disk(&self) -> u64 {
        self.touch("measure", on_disk).unwrap_or(0)
    }

    /// Why it cannot be freed, if it cannot.
    fn empty(&self) -> Option<io::Error> {
        let failed = self.touch("free", |path| empty(path).err());
        failed.unwrap_or_else(|| Some(io::Error::from(io::ErrorKind::TimedOut)))
    }

    fn touch<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Option<T> {
        if !self.is_named {
            return Some(work(&self.path));
        }
        let path = self.path.clone();
        crate::files::wait(doing, &self.path, PATIENCE, move || work(&path))
    }
}

/// The log files of an attempt that are ours.
fn files(job: &Job) -> impl Iterator<Item = Log> {
    let is_named = job.definition.logs.layout.is_named();
    let has_own = job.state.started.is_some() && !job.definition.logs.layout.is_shared();
    let paths = has_own.then(|| job.log_paths());
    let paths = paths.into_iter().flat_map(|paths| {
        let stderr = (!paths.is_merged()).then_some(paths.stderr);
        std::iter::once(paths.stdout).chain(stderr)
    });
    paths.map(move |path| Log { path: path_of(&path), is_named })
}

fn on_disk(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.blocks() * 512)
}

/// Frees all of a file. It keeps its length, so that whoever has read a part of it is told that the rest is gone; where
/// that is not possible, it is deleted.
fn empty(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let found = file.metadata()?;
    match free(&file, 0, found.len().next_multiple_of(found.blksize().max(4096))) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => std::fs::remove_file(path),
        freed => freed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_counted_again_when_what_was_written_since_is_too_much() {
        let mut quota = Quota::new(1000);
        assert!(quota.due().is_some(), "nobody knows what there is");
        quota.counted(Some(500));
        assert_eq!(quota.due(), None);
        quota.grew(400);
        assert_eq!(quota.due(), None);
        quota.grew(200);
        assert!(quota.due().is_some_and(|due| due <= Instant::now()));
        quota.grew(-300);
        assert_eq!(quota.due(), None);
        // Too much, and nothing there was to free: not again at once for a few bytes.
        quota.since = 0;
        quota.counted(Some(5_000));
        assert_eq!(quota.due(), None);
        quota.grew(1);
        assert!(quota.due().is_some_and(|due| due > Instant::now()));
        quota.grew(200);
        assert!(quota.due().is_some_and(|due| due <= Instant::now()));
    }

    #[test]
    fn an_emptied_file_keeps_its_length_and_takes_no_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        std::fs::write(&path, vec![b'x'; 10_000]).expect("written");
        assert!(on_disk(&path) >= 10_000);
        empty(&path).expect("freed");
        assert_eq!((on_disk(&path), path.metadata().expect("a file").len()), (0, 10_000));
    }
}
