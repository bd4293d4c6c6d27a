//! Jobs that no keeper holds any more: both of its processes were killed, and the jobs run on. Their main processes are
//! somebody else's children now, so their ends are seen through descriptors, and their exit statuses asked of the kernel.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nodejobs_core::backend::{BackendEvent, BackendReport};
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::ExitStatus;
use nodejobs_core::status::Reason;
use nodejobs_core::time::Moment;

use super::Loop;
use crate::identity::{Found, LocalProcess, ProcStat};
use crate::machine::now;
use crate::sys;
use crate::tree::View;

/// A main process that is somebody else's to collect.
pub(super) struct Watched {
    pub(super) pidfd: OwnedFd,
    /// When it was seen to have ended, if its exit status can only be had once it is collected.
    pub(super) ended: Option<Moment>,
}

impl Watched {
    pub(super) fn new(pidfd: OwnedFd) -> Self {
        Self { pidfd, ended: None }
    }
}

impl Loop {
    /// Watches a main process that has no keeper, or reports what became of it.
    pub(super) fn watch(
        &mut self,
        attempt: &AttemptId,
        process: &LocalProcess,
        reports: &mut Vec<BackendReport>,
    ) {
        let reason = match process.find(&self.config.machine) {
            Found::Alive(pidfd) => {
                self.watched.insert(attempt.clone(), Watched::new(pidfd));
                return;
            }
            Found::Zombie(pidfd) => {
                self.watched.insert(attempt.clone(), Watched::new(pidfd));
                self.watched_ended(attempt, reports);
                return;
            }
            Found::Gone if process.boot_id != self.config.machine.boot_id => Reason::Reboot,
            Found::Gone | Found::OutOfReach => Reason::Unknown,
        };
        self.running.remove(attempt);
        let event = BackendEvent::Lost { reason, at: now() };
        reports.push(BackendReport { attempt: attempt.clone(), event, receipt: None });
    }

    /// The wait status of a process that nobody has collected yet, if the kernel lets us see it.
    pub(super) fn exit_of_zombie(process: &LocalProcess) -> Option<i32> {
        let owner = std::fs::metadata(format!("/proc/{}", process.pid)).ok()?.uid();
        let own = rustix::process::geteuid();
        // To others the kernel shows 0, which would be read as success.
        (own.is_root() || own.as_raw() == owner).then_some(())?;
        // Checked on what the status is taken from: the number may be another process's by now.
        let stat = ProcStat::read(process.pid)?;
        (stat.is_dead() && stat.start_ticks == process.start_ticks).then_some(stat.exit_code)
    }

    /// A main process without a keeper has ended; whoever is its parent now has collected it, or is about to.
    pub(super) fn watched_ended(&mut self, attempt: &AttemptId, reports: &mut Vec<BackendReport>) {
        let machine = &self.config.machine;
        let (Some(watched), Some(running)) = (self.watched.get_mut(attempt), self.running.get(attempt))
        else {
            return;
        };
        let at = *watched.ended.get_or_insert_with(now);
        // Looked at first: if it is collected in between, the descriptor tells that next.
        let is_uncollected = matches!(running.process.find(machine), Found::Zombie(_));
        let info = machine.use_pidfd_info.then(|| sys::pidfd_exit_status(watched.pidfd.as_fd()).ok());
        let status = Self::exit_of_zombie(&running.process).or(info.flatten());
        if status.is_none() && is_uncollected && machine.use_pidfd_info {
            // It is not ours to look at, so its status is there only once it was collected.
            return;
        }
        self.watched.remove(attempt);
        let Some(running) = self.running.remove(attempt) else { return };
        let event = match status {
            Some(status) => {
                let exit = exit_of_wait_status(status);
                let leftovers = self.leftovers(&View::everywhere(), attempt, &running.process);
                BackendEvent::Exited { exit, usage: None, at, leftovers }
            }
            None => BackendEvent::Lost { reason: Reason::Unknown, at },
        };
        reports.push(BackendReport { attempt: attempt.clone(), event, receipt: None });
    }
}

fn exit_of_wait_status(status: i32) -> ExitStatus {
    if libc::WIFEXITED(status) {
        ExitStatus::Code(libc::WEXITSTATUS(status))
    } else {
        ExitStatus::Signal { number: libc::WTERMSIG(status), core_dumped: libc::WCOREDUMP(status) }
    }
}
