//! Wakes the backend's thread, and only if it sleeps: the system call would cost more than what it tells of.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

const AWAKE: u8 = 0;
/// For a moment, after which it looks by itself.
const NAPPING: u8 = 1;
const ASLEEP: u8 = 2;

/// Rung by whoever has sent something; waited for by the thread.
#[derive(Debug)]
pub(super) struct Bell {
    wake: Arc<OwnedFd>,
    state: AtomicU8,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Self { wake, state: AtomicU8::new(AWAKE) })
    }

    /// Has the thread look at what was sent before this call. What is not urgent does not end its nap.
    pub(super) fn ring(&self, urgent: bool) {
        // Either this sees that it sleeps, or it sees what was sent: it says that it sleeps before its last look.
        fence(Ordering::SeqCst);
        let state = self.state.load(Ordering::Relaxed);
        if state == ASLEEP || (state == NAPPING && urgent) {
            self.state.store(AWAKE, Ordering::Relaxed);
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// To be said before the last look at what was sent.
    pub(super) fn falls_asleep(&self) {
        self.say(ASLEEP);
    }

    /// The same before a nap.
    pub(super) fn takes_a_nap(&self) {
        self.say(NAPPING);
    }

    /// What is sent from now on is looked at before the next sleep.
    pub(super) fn is_awake(&self, was_rung: bool) {
        self.say(AWAKE);
        if was_rung {
            let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        }
    }

    fn say(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// For threads that are there for a while and ring always.
    pub(super) fn wake(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.wake)
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_rung(bell: &Bell) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("polled") == 1
    }

    #[test]
    fn it_rings_for_who_sleeps_and_in_a_nap_only_if_it_is_urgent() {
        let bell = Bell::new().expect("a bell");
        bell.ring(true);
        assert!(!is_rung(&bell), "who is awake looks before it sleeps");
        bell.takes_a_nap();
        bell.ring(false);
        assert!(!is_rung(&bell), "it looks soon");
        bell.ring(true);
        assert!(is_rung(&bell));
        bell.is_awake(true);
        assert!(!is_rung(&bell));
        bell.falls_asleep();
        bell.ring(false);
        assert!(is_rung(&bell));
        bell.is_awake(true);
        bell.ring(true);
        assert!(!is_rung(&bell));
    }
}
