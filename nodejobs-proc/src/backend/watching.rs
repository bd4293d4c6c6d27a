//! Jobs that no keeper holds any more: both of its processes were killed, and the jobs run on. Their main processes are
//! somebody else's children now, so their ends are seen through descriptors, and their exit statuses asked of the kernel.
//!
//! That is one descriptor for each of them, and there may be more of them than this process may have descriptors. So
//! they are watched by threads that have descriptor tables of their own, each with the whole limit, and as many threads
//! as that takes: mostly one. Where the kernel gives no such tables, a part of this process's own has to do; who is not
//! in it is looked at now and then, and its exit status may be missed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use nodejobs_core::backend::{BackendEvent, BackendHost, BackendReport};
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::ExitStatus;
use nodejobs_core::status::Reason;
use nodejobs_core::time::Moment;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::{Resource, getrlimit};

use super::{Command, Loop};
use crate::identity::{Found, LocalProcess, ProcStat, if_there};
use crate::machine::{Machine, now};
use crate::sys;
use crate::tree::View;

/// How long before what there was no room for is tried again.
pub(super) const RETRY_MS: u64 = 1_000;
/// The same where there is room for a part only, so that it will stay like that.
const SLOW_RETRY_MS: u64 = 2_000;
/// Descriptors of a table that are not for watching: standard streams, two to be told by, and those for looking.
const RESERVED: usize = 12;

/// How many descriptors a table may have.
pub(super) fn table_size() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// A main process without a keeper has ended.
pub(super) struct Ended {
    attempt: AttemptId,
    /// Its wait status, if the kernel told.
    status: Option<i32>,
    at: Moment,
}

/// A thread that watches some processes until the last of them has ended, or until this is dropped.
pub(super) struct Watcher {
    thread: Option<JoinHandle<()>>,
    quit: Arc<OwnedFd>,
}

impl Watcher {
    fn start(
        processes: Vec<(AttemptId, LocalProcess)>,
        machine: Machine,
        host: Arc<dyn BackendHost>,
        owner: (Sender<Command>, Arc<OwnedFd>),
    ) -> io::Result<Self> {
        let quit = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mut watching =
            Watching { unheld: processes, held: Vec::new(), machine, host, owner, quit: Arc::clone(&quit) };
        let thread = std::thread::Builder::new().name("nodejobs-watch".to_owned());
        let thread = thread.spawn(move || watching.run())?;
        Ok(Self { thread: Some(thread), quit })
    }

    fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.quit, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Held {
    attempt: AttemptId,
    process: LocalProcess,
    pidfd: OwnedFd,
    /// The descriptor's, if it has to have one.
    _place: Option<SharedPlace>,
    /// When it was seen to have ended, if its exit status can only be had once it is collected.
    ended: Option<Moment>,
}

/// A place in the table that all threads share, of which watching takes a fourth.
struct SharedPlace;

static SHARED_PLACES: AtomicUsize = AtomicUsize::new(0);

impl SharedPlace {
    fn take() -> Option<Self> {
        let most = table_size() / 4;
        let one_more = |taken: usize| (taken < most).then_some(taken + 1);
        SHARED_PLACES.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok().map(|_| Self)
    }
}

impl Drop for SharedPlace {
    fn drop(&mut self) {
        SHARED_PLACES.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the thread has.
struct Watching {
    /// Those of whom no descriptor could be had yet.
    unheld: Vec<(AttemptId, LocalProcess)>,
    held: Vec<Held>,
    machine: Machine,
    host: Arc<dyn BackendHost>,
    owner: (Sender<Command>, Arc<OwnedFd>),
    quit: Arc<OwnedFd>,
}

impl Watching {
    fn run(&mut self) {
        let has_own_table = self.machine.use_own_tables
            && sys::own_descriptor_table([self.quit.as_fd(), self.owner.1.as_fd()]).is_ok();
        let mut has_warned = false;
        while !(self.unheld.is_empty() && self.held.is_empty()) {
            self.hold(has_own_table);
            if !self.unheld.is_empty() && !has_warned {
                has_warned = true;
                self.host.warn(format!(
                    "there is no room to watch {} running jobs without a keeper; they are looked at every few seconds, \
                     and exit codes may be missed: raise the hard limit of open files and start the daemon anew",
                    self.unheld.len()
                ));
            }
            let retry = if has_own_table { RETRY_MS } else { SLOW_RETRY_MS };
            let Some(ready) = self.wait((!self.unheld.is_empty()).then_some(retry), true) else { break };
            if !self.look_at(&ready) && self.wait(Some(RETRY_MS), false).is_none() {
                break;
            }
        }
    }

    /// Takes descriptors of as many as there is room for, and tells of those who are gone.
    fn hold(&mut self, has_own_table: bool) {
        for (attempt, process) in std::mem::take(&mut self.unheld) {
            match process.find(&self.machine) {
                Ok(Found::Alive(pidfd) | Found::Zombie(pidfd)) => {
                    let place = if has_own_table { None } else { SharedPlace::take() };
                    if has_own_table || place.is_some() {
                        self.held.push(Held { attempt, process, pidfd, _place: place, ended: None });
                    } else {
                        self.unheld.push((attempt, process));
                    }
                }
                Ok(Found::Gone | Found::OutOfReach) => self.tell(attempt, None, now()),
                Err(_) => self.unheld.push((attempt, process)),
            }
        }
    }

    fn tell(&self, attempt: AttemptId, status: Option<i32>, at: Moment) {
        // An owner that is leaving hears nothing more; the next one looks for the process itself.
        let _ = self.owner.0.send(Command::Ended(Ended { attempt, status, at }));
        let _ = rustix::io::write(&self.owner.1, &1_u64.to_ne_bytes());
    }

    /// Which of those held have something to tell; `None` when it is time to leave.
    fn wait(&self, millis: Option<u64>, for_processes: bool) -> Option<Vec<bool>> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.quit.as_fd(), PollFlags::IN)];
        // Ended but not yet collected shows as IN for ever; that it is collected shows as HUP.
        let flags = |held: &Held| if held.ended.is_some() { PollFlags::empty() } else { PollFlags::IN };
        let processes = self.held.iter().filter(|_| for_processes);
        fds.extend(processes.map(|held| PollFd::from_borrowed_fd(held.pidfd.as_fd(), flags(held))));
        let timeout = millis.map(|millis| Timespec {
            tv_sec: (millis / 1000).cast_signed(),
            tv_nsec: (millis % 1000 * 1_000_000).cast_signed(),
        });
        if rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref())).is_err() {
            // No memory, or somebody has lowered the limit of descriptors meanwhile.
            fds.truncate(1);
            let pause = Timespec { tv_sec: 1, tv_nsec: 0 };
            let _ = poll(&mut fds, Some(&pause));
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let is_quit = ready.next() == Some(true);
        (!is_quit).then(|| ready.collect())
    }

    /// Tells of those who have ended. `false` if there was no room to find out about somebody.
    fn look_at(&mut self, ready: &[bool]) -> bool {
        // Of all of them: looking at many takes a while.
        let at = now();
        let mut is_clear = true;
        let mut ready = ready.iter();
        for mut held in std::mem::take(&mut self.held) {
            if ready.next() != Some(&true) {
                self.held.push(held);
                continue;
            }
            match self.exit_status(&mut held, at) {
                Ok(Some(status)) => self.tell(held.attempt, status, held.ended.unwrap_or(at)),
                Ok(None) => self.held.push(held),
                Err(_) => {
                    is_clear = false;
                    self.held.push(held);
                }
            }
        }
        is_clear
    }

    /// The wait status of a process that has ended, `Some(None)` if nobody can know it, and `None` as long as it is to
    /// be waited for: whoever is its parent now has collected it, or is about to.
    fn exit_status(&self, held: &mut Held, at: Moment) -> io::Result<Option<Option<i32>>> {
        // Looked at first: if it is collected in between, the descriptor tells that next.
        let is_uncollected = matches!(held.process.find(&self.machine)?, Found::Zombie(_));
        let status = match exit_of_zombie(&held.process)? {
            None if self.machine.use_pidfd_info => sys::pidfd_exit_status(held.pidfd.as_fd()).ok(),
            status => status,
        };
        held.ended.get_or_insert(at);
        // If it is not ours to look at, its status is there only once it was collected.
        let is_to_come = status.is_none() && is_uncollected && self.machine.use_pidfd_info;
        Ok((!is_to_come).then_some(status))
    }
}

/// The wait status of a process that nobody has collected yet, if the kernel lets us see it.
fn exit_of_zombie(process: &LocalProcess) -> io::Result<Option<i32>> {
    let Some(owner) = if_there(std::fs::metadata(format!("/proc/{}", process.pid)))? else { return Ok(None) };
    let own = rustix::process::geteuid();
    // To others the kernel shows 0, which would be read as success.
    if !own.is_root() && own.as_raw() != owner.uid() {
        return Ok(None);
    }
    // Checked on what the status is taken from: the number may be another process's by now.
    let stat = ProcStat::read(process.pid)?;
    let stat = stat.filter(|stat| stat.is_dead() && stat.start_ticks == process.start_ticks);
    Ok(stat.map(|stat| stat.exit_code))
}

impl Loop {
    /// Has a main process that has no keeper watched, or reports that it is none of here and now.
    pub(super) fn watch(
        &mut self,
        attempt: AttemptId,
        process: LocalProcess,
        reports: &mut Vec<BackendReport>,
    ) {
        let machine = &self.config.machine;
        let reason =
            match (process.boot_id == machine.boot_id, process.pid_namespace == machine.pid_namespace) {
                (true, true) => return self.unwatched.push((attempt, process)),
                (true, false) => Reason::Unknown,
                (false, _) => Reason::Reboot,
            };
        self.running.remove(&attempt);
        let event = BackendEvent::Lost { reason, at: now() };
        reports.push(BackendReport { attempt, event, receipt: None });
    }

    /// Has threads watch those who are not yet.
    pub(super) fn start_watchers(&mut self) {
        if self.unwatched.is_empty() {
            return;
        }
        self.watchers.retain(|watcher| !watcher.is_over());
        let portion = table_size().saturating_sub(RESERVED).max(1);
        while !self.unwatched.is_empty() {
            let rest = self.unwatched.split_off(portion.min(self.unwatched.len()));
            let processes = std::mem::replace(&mut self.unwatched, rest);
            let owner = (self.own_commands.clone(), self.bell.wake());
            let (machine, host) = (self.config.machine.clone(), Arc::clone(&self.host));
            match Watcher::start(processes.clone(), machine, host, owner) {
                Ok(watcher) => self.watchers.push(watcher),
                Err(error) => {
                    self.host.warn(format!("jobs without a keeper cannot be watched yet: {error}"));
                    // Tried again after a while.
                    return self.unwatched.extend(processes);
                }
            }
        }
    }

    /// A main process without a keeper has ended.
    pub(super) fn watched_ended(&mut self, ended: Ended, view: &mut Option<io::Result<View>>) {
        let Ended { attempt, status, at } = ended;
        let Some(running) = self.running.remove(&attempt) else { return };
        self.is_gone(&attempt, running.process.pid);
        let event = match status {
            Some(status) => {
                let exit = exit_of_wait_status(status);
                let view = view.get_or_insert_with(View::everywhere);
                let leftovers =
                    view.as_ref().ok().and_then(|view| self.leftovers(view, &attempt, &running.process));
                let (usage, killed) = self.groups.main_ended(&attempt, exit, None, None);
                if let Some(event) = killed {
                    self.host.report(BackendReport { attempt: attempt.clone(), event, receipt: None });
                }
                BackendEvent::Exited { exit, usage, at, leftovers }
            }
            None => {
                self.groups.discard(&attempt);
                BackendEvent::Lost { reason: Reason::Unknown, at }
            }
        };
        self.host.report(BackendReport { attempt, event, receipt: None });
    }
}

fn exit_of_wait_status(status: i32) -> ExitStatus {
    if libc::WIFEXITED(status) {
        ExitStatus::Code(libc::WEXITSTATUS(status))
    } else {
        ExitStatus::Signal { number: libc::WTERMSIG(status), core_dumped: libc::WCOREDUMP(status) }
    }
}
