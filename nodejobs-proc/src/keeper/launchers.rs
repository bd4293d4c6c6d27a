//! The threads that make children, each of which stands still until its child has executed its program or is gone.
//!
//! A file system that does not answer keeps a child, and so its thread, for as long as it likes; everybody else goes on. A
//! thread touches nothing but the launch it was given, and neither allocates nor frees: the loop forks beside it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::gates::GATES;
use crate::sys::child::{ChildPlan, ChildStack, spawn};

/// Threads at a time; each has a gate.
pub(super) const MOST: usize = GATES;
/// Threads that are there from the first launches on.
const FIRST: usize = 2;
/// Threads that stay when they have nothing to do.
const KEPT: usize = 4;
/// Its frames are few; the child has a stack of its own.
const STACK: usize = 64 << 10;
/// As the worker is called, whose child is called so until it executes its program.
const NAME: &str = "nodejobs-worker";

/// What a launch came to.
pub(super) struct Returned {
    pub(super) plan: Box<ChildPlan>,
    /// The child, or why there is none.
    pub(super) child: Result<u32, io::Error>,
}

/// What lies between the loop and one thread.
enum Desk {
    /// The thread waits.
    Empty,
    Given(Box<ChildPlan>),
    /// The thread makes a child.
    Taken,
    Returned(Returned),
    /// The thread is to end.
    Closed,
}

struct Shared {
    desk: Mutex<Desk>,
    given: Condvar,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of them, by the numbers of their gates.
pub(super) struct Launchers {
    threads: Vec<Option<Arc<Shared>>>,
    /// Tells the loop that something was returned.
    bell: Arc<OwnedFd>,
}

impl Launchers {
    pub(super) fn new() -> io::Result<Self> {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Self { threads: (0..MOST).map(|_| None).collect(), bell })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// A thread that has nothing to do. One more is made if there are fewer than the first, or if all have been busy for
    /// a while.
    pub(super) fn free(&mut self, may_grow: bool) -> Option<usize> {
        let is_free = |shared: &Option<Arc<Shared>>| {
            shared.as_ref().is_some_and(|shared| matches!(*shared.desk(), Desk::Empty))
        };
        if let Some(index) = self.threads.iter().position(is_free) {
            return Some(index);
        }
        let count = self.threads.iter().flatten().count();
        let index = self.threads.iter().position(Option::is_none)?;
        // Without room for another one, those that there are have to do.
        (count < FIRST || may_grow).then(|| self.start(index).ok()).flatten()
    }

    fn start(&mut self, index: usize) -> io::Result<usize> {
        let shared = Arc::new(Shared { desk: Mutex::new(Desk::Empty), given: Condvar::new() });
        let (own, bell) = (Arc::clone(&shared), Arc::clone(&self.bell));
        let mut stack = ChildStack::new();
        let thread = std::thread::Builder::new().name(NAME.to_owned()).stack_size(STACK);
        thread.spawn(move || serve(&own, &bell, &mut stack))?;
        self.threads[index] = Some(shared);
        Ok(index)
    }

    /// Has the thread make a child.
    pub(super) fn give(&self, index: usize, plan: Box<ChildPlan>) {
        if let Some(shared) = &self.threads[index] {
            *shared.desk() = Desk::Given(plan);
            shared.given.notify_one();
        }
    }

    /// Silences the bell, before what was returned is looked at.
    pub(super) fn heard(&self) {
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
    }

    /// What a thread has returned, if it has.
    pub(super) fn take(&self, index: usize) -> Option<Returned> {
        let mut desk = self.threads[index].as_ref()?.desk();
        match std::mem::replace(&mut *desk, Desk::Empty) {
            Desk::Returned(returned) => Some(returned),
            other => {
                *desk = other;
                None
            }
        }
    }

    /// Lets threads end that have nothing to do, but for a few.
    pub(super) fn shrink(&mut self) {
        let mut count = self.threads.iter().flatten().count();
        for place in self.threads.iter_mut().rev() {
            let Some(shared) = place.as_ref().filter(|_| count > KEPT) else { continue };
            let mut desk = shared.desk();
            if matches!(*desk, Desk::Empty) {
                *desk = Desk::Closed;
                shared.given.notify_one();
                drop(desk);
                *place = None;
                count -= 1;
            }
        }
    }
}

fn serve(shared: &Shared, bell: &OwnedFd, stack: &mut ChildStack) {
    loop {
        let mut desk = shared.desk();
        let mut plan = loop {
            match std::mem::replace(&mut *desk, Desk::Taken) {
                Desk::Given(plan) => break plan,
                Desk::Closed => return,
                other => {
                    *desk = other;
                    desk = shared.given.wait(desk).unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        drop(desk);
        let child = spawn(stack, &mut plan);
        *shared.desk() = Desk::Returned(Returned { plan, child });
        let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
    }
}
