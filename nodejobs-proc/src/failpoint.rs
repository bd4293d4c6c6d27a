//! Instants at which a test can have a process halt, to kill it, or another one, exactly there. Release builds have none.
//!
//! Random kills hit the windows that matter too rarely, so debug builds let a test name some:
//! `NODEJOBS_FAILPOINT=worker-peeked,guard-noted@2` in the environment of the daemon, which passes it on to its first
//! keeper. Whoever comes to one of them, for the second time where it says `@2`, stops itself there, once, as by SIGSTOP.
//! What is killed then, and what goes on, is the test's to decide. The names say which process halts.

/// The variable that names them.
pub const VARIABLE: &str = "NODEJOBS_FAILPOINT";

macro_rules! failpoints {
    ($($(#[doc = $doc:literal])+ $point:ident $name:literal,)*) => {
        /// An instant worth dying at. What is known afterwards is in ARCHITECTURE.md.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Failpoint {
            $($(#[doc = $doc])+ $point,)*
        }

        /// All of them by their names, in the order of the enumeration.
        #[cfg(debug_assertions)]
        const NAMES: &[&str] = &[$($name,)*];
    };
}

failpoints! {
    /// A new directory has its store and does not yet say which.
    OwnerStoreMade "owner-store-made",
    /// The generation is in the store; no keeper has heard of it.
    OwnerGeneration "owner-generation",
    /// All keepers are fenced and have told their past; nothing of it is in the store.
    OwnerRecovered "owner-recovered",
    /// What the keepers told is in the store; nothing that follows is done.
    OwnerTookOver "owner-took-over",
    /// The socket is there; nobody is answered yet.
    OwnerBound "owner-bound",
    /// A turn is decided and not committed.
    OwnerDecided "owner-decided",
    /// A turn is committed; none of its effects is done.
    OwnerCommitted "owner-committed",
    /// One more effect of a turn is done.
    OwnerEffect "owner-effect",
    /// The log directory and the input of a launch are there; it is not sent.
    OwnerPacked "owner-packed",
    /// A keeper is started and nobody has spoken to it.
    OwnerKeeperStarted "owner-keeper-started",
    /// A launch is sent.
    OwnerLaunchSent "owner-launch-sent",
    /// A keeper has told something, which has not been reported.
    OwnerHeard "owner-heard",
    /// A tree has been asked to end.
    OwnerSignalled "owner-signalled",
    /// What was left of a tree has been killed.
    OwnerKilled "owner-killed",
    /// A keeper has been told what is in the store.
    OwnerAcknowledged "owner-acknowledged",
    /// The journal of a dead keeper is read; its jobs are not yet watched.
    OwnerBuried "owner-buried",
    /// A keeper that does not answer is fenced, its gates are closed and its journal is read; nothing of it is told.
    OwnerFencedSilent "owner-fenced-silent",
    /// Of a dead keeper, whose journal is in the store, the socket is removed and the journal is not.
    OwnerHalfRemoved "owner-half-removed",
    /// The socket is gone, the owner's lock is not.
    OwnerLeaving "owner-leaving",

    /// The socket is there, the journal is not.
    StarterSocket "starter-socket",
    /// The journal is there; no keeper is.
    StarterJournal "starter-journal",
    /// Guard and worker are there.
    StarterForked "starter-forked",

    /// The guard is alone so far.
    GuardAlone "guard-alone",

    /// The worker has no journal yet.
    WorkerAlone "worker-alone",
    /// The worker obeys a new owner and has not answered.
    WorkerObeys "worker-obeys",
    /// The worker has read a launch and done nothing about it.
    WorkerReceived "worker-received",
    /// The worker hears that the program is executed, or that it is not, and has not taken that in.
    WorkerSettling "worker-settling",
    /// The worker knows that the program is executed, or why not, and has told nobody.
    WorkerLaunched "worker-launched",
    /// The worker has seen an exit status and not noted it.
    WorkerPeeked "worker-peeked",
    /// The worker has noted an exit status and not collected the process.
    WorkerNoted "worker-noted",
    /// The worker has collected a process and told nobody.
    WorkerReaped "worker-reaped",
    /// The worker has told the owner something.
    WorkerTold "worker-told",
    /// The worker has noted what is in the store.
    WorkerAcknowledged "worker-acknowledged",
    /// A shorter journal is complete, beside the one that counts.
    WorkerRewriting "worker-rewriting",
    /// The shorter journal counts.
    WorkerRewritten "worker-rewritten",
    /// The worker has nothing left to do; its files are there.
    WorkerLeaving "worker-leaving",
    /// Of the worker's files, the socket is removed and the journal is not.
    WorkerHalfRemoved "worker-half-removed",

    /// The worker has ended and is not collected.
    GuardNoticed "guard-noticed",
    /// The guard has closed the gates and has read the journal.
    GuardReplayed "guard-replayed",
    /// The guard has seen an exit status and not noted it.
    GuardPeeked "guard-peeked",
    /// The guard has noted an exit status and not collected the process.
    GuardNoted "guard-noted",
    /// The guard has collected a process.
    GuardReaped "guard-reaped",
    /// The guard has nothing left to do; its files are there.
    GuardLeaving "guard-leaving",
    /// Of the guard's files, the socket is removed and the journal is not.
    GuardHalfRemoved "guard-half-removed",

    /// The child has come to its gate.
    ChildAtGate "child-at-gate",
    /// The child has gone through its gate and is about to note itself in the journal.
    ChildNoting "child-noting",
    /// The child has noted itself and is about to execute the program.
    ChildNoted "child-noted",
    /// The program could not be executed, which is not noted.
    ChildFailed "child-failed",
    /// The child has noted that the program could not be executed.
    ChildFailureNoted "child-failure-noted",
}

#[cfg(debug_assertions)]
mod enabled {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{Failpoint, NAMES};

    /// How many times each is still to be reached before it halts; 0 for never.
    static LEFT: [AtomicU32; NAMES.len()] = [const { AtomicU32::new(0) }; NAMES.len()];

    /// Remembers the failpoints that the environment names. A name that there is not ends the process: a test that
    /// waits for it would prove nothing.
    pub fn read_environment() {
        let Ok(chosen) = std::env::var(super::VARIABLE) else { return };
        for word in chosen.split(',').filter(|word| !word.is_empty()) {
            let (name, time) = word.split_once('@').unwrap_or((word, "1"));
            let point = NAMES.iter().position(|known| *known == name);
            let (Some(point), Ok(time)) = (point, time.parse()) else {
                eprintln!("{} has no failpoint '{word}'", super::VARIABLE);
                std::process::exit(2);
            };
            LEFT[point].store(time, Ordering::SeqCst);
        }
    }

    /// Whether this instant is still to be halted at.
    pub fn is_chosen(point: Failpoint) -> bool {
        LEFT[point as usize].load(Ordering::SeqCst) != 0
    }

    /// Whether a process of a keeper is to be halted, and nobody may make it go on.
    pub fn halts_keepers() -> bool {
        let is_keepers = |name: &str| !name.starts_with("owner-");
        let chosen = |name: &str| std::env::var(super::VARIABLE).is_ok_and(|chosen| chosen.contains(name));
        let is_meant = NAMES.iter().any(|name| is_keepers(name) && chosen(name));
        is_meant && !chosen("owner-fenced-silent")
    }

    /// Whether a test has chosen an instant: then who is halted is meant to stay so.
    pub fn halts_any() -> bool {
        std::env::var_os(super::VARIABLE).is_some_and(|chosen| !chosen.is_empty())
    }

    /// Forgets those of others, for a process that goes on where another one was killed.
    pub fn forget_all_but(prefix: &str) {
        let others = NAMES.iter().zip(&LEFT).filter(|(name, _)| !name.starts_with(prefix));
        others.for_each(|(_, left)| left.store(0, Ordering::SeqCst));
    }

    /// Halts this process if this is a chosen instant, until somebody lets it go on. Also in the child of a launch: it
    /// allocates and locks nothing.
    pub fn reached(point: Failpoint) {
        let left = &LEFT[point as usize];
        if left.load(Ordering::SeqCst) != 0 && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            crate::sys::halt();
        }
    }
}

#[cfg(not(debug_assertions))]
mod enabled {
    /// Nothing, as this build has no failpoints.
    pub const fn read_environment() {}

    /// No, as this build has no failpoints.
    pub const fn is_chosen(_point: super::Failpoint) -> bool {
        false
    }

    /// No, as this build has no failpoints.
    pub const fn halts_keepers() -> bool {
        false
    }

    /// No, as this build has no failpoints.
    pub const fn halts_any() -> bool {
        false
    }

    /// Nothing, as this build has no failpoints.
    pub const fn forget_all_but(_prefix: &str) {}

    /// Nothing, as this build has no failpoints.
    pub const fn reached(_point: super::Failpoint) {}
}

pub use enabled::{forget_all_but, halts_any, halts_keepers, is_chosen, reached, read_environment};

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::NAMES;

    #[test]
    fn the_architecture_has_a_row_for_each_of_them() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../ARCHITECTURE.md");
        let page = std::fs::read_to_string(page).expect("the page");
        let (_, section) = page.split_once("\n## Failpoints\n").expect("the section");
        let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let points: Vec<&str> = rows.map(|(name, _)| name).collect();
        assert_eq!(points, NAMES);
    }
}
