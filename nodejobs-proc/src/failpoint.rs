//! Instants at which tests have the keeper's worker killed. Release builds have none.
//!
//! Random kills hit the windows that matter too rarely, so debug builds let a test name one:
//! `NODEJOBS_FAILPOINT=worker-peeked` in the environment of the owner that starts the keeper. Only an owner's first
//! keeper hears of it.

/// The variable that names one.
pub(crate) const VARIABLE: &str = "NODEJOBS_FAILPOINT";

/// An instant worth dying at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Failpoint {
    /// The worker has read a launch and done nothing about it.
    WorkerReceived = 1,
    /// The child is about to note itself in the journal.
    ChildBeforeNote,
    /// The child has noted itself and is about to execute the program.
    ChildNoted,
    /// The worker knows that the program is executed and has told nobody.
    WorkerLaunched,
    /// The worker has seen an exit status and not noted it.
    WorkerPeeked,
    /// The worker has noted an exit status and not collected the process.
    WorkerNoted,
}

#[cfg(debug_assertions)]
mod enabled {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Failpoint;

    static CHOSEN: AtomicU8 = AtomicU8::new(0);

    /// Remembers the failpoint that the environment names.
    pub(crate) fn read_environment() {
        let Ok(name) = std::env::var(super::VARIABLE) else { return };
        let chosen = match name.as_str() {
            "worker-received" => Failpoint::WorkerReceived,
            "child-before-note" => Failpoint::ChildBeforeNote,
            "child-noted" => Failpoint::ChildNoted,
            "worker-launched" => Failpoint::WorkerLaunched,
            "worker-peeked" => Failpoint::WorkerPeeked,
            "worker-noted" => Failpoint::WorkerNoted,
            _ => return,
        };
        CHOSEN.store(chosen as u8, Ordering::SeqCst);
    }

    /// Kills the worker if this is the chosen instant; called in the worker and, marked so, in its child.
    pub(crate) fn reached(failpoint: Failpoint) {
        if CHOSEN.load(Ordering::SeqCst) != failpoint as u8 {
            return;
        }
        CHOSEN.store(0, Ordering::SeqCst);
        let in_child = matches!(failpoint, Failpoint::ChildBeforeNote | Failpoint::ChildNoted);
        let worker = if in_child { rustix::process::getppid() } else { Some(rustix::process::getpid()) };
        if let Some(worker) = worker {
            let _ = rustix::process::kill_process(worker, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(not(debug_assertions))]
mod enabled {
    pub(crate) fn read_environment() {}
    pub(crate) fn reached(_failpoint: super::Failpoint) {}
}

pub(crate) use enabled::{reached, read_environment};
