//! Threads for what touches paths that users named. Their file systems may hang, and a system call that waits for one
//! may not end by any signal: so no thread that decides or serves makes one, and this is the place for all of them.
//!
//! At most two threads are stuck in one mount, whatever else is to be done there waits in the mount's own list, and
//! other mounts are not disturbed. On which mount a path is, is known from its text, and where it leads through symbolic
//! links, each link is read by a thread of the mount that it is on. With nothing to do there is no thread.
//!
//! The threads have descriptor tables of their own. What is stuck in one outlives the process's end, and would
//! otherwise keep its locks: no next owner could take over. So whatever is done here opens files by their paths, keeps
//! none open, and uses no descriptor of the process; what follows from it is told by a thread that may.

mod lanes;
mod mounts;
mod walk;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lanes::{Lanes, Task};
use mounts::Mounts;
use tokio::sync::oneshot;

use crate::api::ProblemKind;
use crate::error::Error;

pub(crate) use lanes::Stuck;

/// What is said with every answer may take so long, once; where something is stuck for longer it is left out.
const GLANCE: Duration = Duration::from_millis(80);
/// Whoever wants just this waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// A thread without work stays for so long.
const REST: Duration = Duration::from_millis(500);

/// One for the process, as its mounts are.
static FILES: LazyLock<Files> = LazyLock::new(Files::new);

#[derive(Default)]
struct State {
    lanes: Lanes,
    /// Threads that wait for work.
    idle: usize,
    /// Threads that were started and have not begun.
    coming: usize,
    /// What is done and not yet told.
    told: VecDeque<Box<dyn FnOnce() + Send>>,
    /// Tasks that are not told of yet.
    outstanding: usize,
    /// Whether there is a thread that tells.
    has_teller: bool,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    tell: Condvar,
    all_told: Condvar,
}

struct Files {
    shared: Arc<Shared>,
    /// Has a descriptor, so the threads do not have it.
    mounts: Mutex<Mounts>,
}

/// Does something with a file when it is its turn there, and tells of it: `None` if it ended in a panic. `work` must use
/// no descriptor but those it opens, so it neither logs nor wakes anybody.
pub(crate) fn go<T: Send + 'static>(
    doing: &'static str,
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
    tell: impl FnOnce(Option<T>) + Send + 'static,
) {
    FILES.go(doing, path, None, work, tell);
}

/// The same for somebody who waits for it, but not for ever.
///
/// # Errors
/// When there is no answer in [`PATIENCE`], or where something has been stuck for so long.
pub(crate) async fn ask<T: Send + 'static>(
    doing: &'static str,
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    if let Some(stuck) = FILES.stuck_for(path).filter(|stuck| *stuck >= PATIENCE) {
        return Err(no_answer(doing, path, stuck));
    }
    let given_up = Arc::new(AtomicBool::new(false));
    let (sender, answer) = oneshot::channel();
    FILES.go(doing, path, Some(Arc::clone(&given_up)), work, move |value| {
        // Whoever has given up does not listen.
        let _ = sender.send(value);
    });
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(Some(value))) => Ok(value),
        Ok(_) => Err(Error::new(ProblemKind::Failed, format!("to {doing} a file ended with a panic"))),
        Err(_) => {
            given_up.store(true, Ordering::Relaxed);
            Err(no_answer(doing, path, PATIENCE))
        }
    }
}

/// The same for a thread that has a moment for it and can do without: `None` if the file system does not answer at
/// once.
pub(crate) fn glance<T: Send + 'static>(
    doing: &'static str,
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    wait(doing, path, GLANCE, work)
}

/// The same with any patience.
pub(crate) fn wait<T: Send + 'static>(
    doing: &'static str,
    path: &Path,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if FILES.stuck_for(path).is_some_and(|stuck| stuck >= patience) {
        return None;
    }
    let given_up = Arc::new(AtomicBool::new(false));
    let answer = Arc::new((Mutex::new(None), Condvar::new()));
    let answered = Arc::clone(&answer);
    // Told by the thread itself: to wake a thread takes no descriptor.
    let work = move || {
        let value = work();
        *answered.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        answered.1.notify_one();
    };
    FILES.go(doing, path, Some(Arc::clone(&given_up)), work, drop);
    let slot = answer.0.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = answer.1.wait_timeout_while(slot, patience, |value| value.is_none());
    let value = waited.unwrap_or_else(PoisonError::into_inner).0.take();
    given_up.store(value.is_none(), Ordering::Relaxed);
    value
}

/// What is said of a file system that has not answered for this long.
pub(crate) fn no_answer(doing: &str, path: &Path, waited: Duration) -> Error {
    let path = path.display();
    let message = format!("cannot {doing} '{path}': its file system has not answered for {waited:.0?}");
    Error::new(ProblemKind::Unavailable, message)
}

/// What has not come back for two seconds, the longest first.
pub(crate) fn stuck() -> Vec<Stuck> {
    FILES.shared.lock().lanes.stuck(PATIENCE)
}

/// Whether something has been stuck for two seconds where this path leads to.
pub(crate) fn is_stuck(path: &Path) -> bool {
    FILES.stuck_for(path).is_some_and(|stuck| stuck >= PATIENCE)
}

/// Whether a path is on another mount than the root, by its text.
pub(crate) fn is_elsewhere(path: &Path) -> bool {
    let state = FILES.lock();
    path.is_absolute() && state.lanes.mounts.of(path).1 != state.lanes.mounts.of(Path::new("/")).1
}

/// Waits until everything is done, for so long at most.
pub(crate) fn finish(limit: Duration) {
    let state = FILES.shared.lock();
    drop(FILES.shared.all_told.wait_timeout_while(state, limit, |state| state.outstanding > 0));
}

impl Files {
    fn new() -> Self {
        let shared = Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            tell: Condvar::new(),
            all_told: Condvar::new(),
        };
        Self { shared: Arc::new(shared), mounts: Mutex::default() }
    }

    /// With the mounts as they are now.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner).now();
        let mut state = self.shared.lock();
        state.lanes.mounts = mounts;
        state
    }

    fn stuck_for(&self, path: &Path) -> Option<Duration> {
        self.lock().lanes.stuck_for(path)
    }

    fn go<T: Send + 'static>(
        &self,
        doing: &'static str,
        path: &Path,
        given_up: Option<Arc<AtomicBool>>,
        work: impl FnOnce() -> T + Send + 'static,
        tell: impl FnOnce(Option<T>) + Send + 'static,
    ) {
        let value = Arc::new(Mutex::new(None));
        let made = Arc::clone(&value);
        let task = Task {
            doing,
            path: path.to_owned(),
            work: Box::new(move || {
                let value = work();
                *made.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            }),
            done: Box::new(move || tell(value.lock().unwrap_or_else(PoisonError::into_inner).take())),
            given_up,
        };
        let mut state = self.lock();
        let unwanted = state.lanes.add(task);
        state.told.extend(unwanted.into_iter().map(|task| task.done));
        state.outstanding += 1;
        if !state.has_teller {
            let shared = Arc::clone(&self.shared);
            state.has_teller = start("nodejobs-told", move || shared.tell_all());
        } else if !state.told.is_empty() {
            self.shared.tell.notify_one();
        }
        self.shared.have_threads(&mut state, 0);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread for each task that may go on, but for those that the calling one takes.
    fn have_threads(self: &Arc<Self>, state: &mut State, own: usize) {
        let ready = state.lanes.ready.len().saturating_sub(own);
        (0..ready.min(state.idle)).for_each(|_| self.work.notify_one());
        while state.idle + state.coming < ready {
            let shared = Arc::clone(self);
            if !start("nodejobs-files", move || shared.work_all()) {
                // Without a thread it waits for one that has time, or for the next task to come.
                return;
            }
            state.coming += 1;
        }
    }

    /// A thread that touches files.
    fn work_all(self: Arc<Self>) {
        nodejobs_proc::own_descriptors();
        let mut state = self.lock();
        state.coming -= 1;
        loop {
            let Some(mut under) = state.lanes.ready.pop_front() else {
                state.idle += 1;
                let (woken, waited) =
                    self.work.wait_timeout(state, REST).unwrap_or_else(PoisonError::into_inner);
                state = woken;
                state.idle -= 1;
                if waited.timed_out() && state.lanes.ready.is_empty() {
                    return;
                }
                continue;
            };
            let mounts = Arc::clone(&state.lanes.mounts);
            drop(state);
            let next = under.walk.go_on(under.device, &mounts);
            let given_up = match next {
                Some(device) => {
                    state = self.lock();
                    state.lanes.moves(under, device)
                }
                None => {
                    let work = std::mem::replace(&mut under.task.work, Box::new(|| ()));
                    // One that panics has no answer; the others go on.
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                    state = self.lock();
                    let mut told = state.lanes.ended(&under);
                    told.push(under.task);
                    told
                }
            };
            state.told.extend(given_up.into_iter().map(|task| task.done));
            if !state.told.is_empty() {
                self.tell.notify_one();
            }
            self.have_threads(&mut state, 1);
        }
    }

    /// The thread that tells what is done. It shares the process's descriptors.
    fn tell_all(self: Arc<Self>) {
        let mut state = self.lock();
        loop {
            while let Some(done) = state.told.pop_front() {
                drop(state);
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(done));
                state = self.lock();
                state.outstanding -= 1;
                if state.outstanding == 0 {
                    self.all_told.notify_all();
                }
            }
            if state.outstanding > 0 {
                state = self.tell.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let rest = Instant::now() + REST;
            while state.outstanding == 0 {
                let left = rest.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    state.has_teller = false;
                    return;
                }
                state = self.tell.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// Whether a thread could be started.
fn start(name: &str, work: impl FnOnce() + Send + 'static) -> bool {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).is_ok()
}

#[cfg(test)]
mod tests;
