//! The keeper: the parent of all jobs, two processes of one small program.
//!
//! Only a parent can collect an exit status, so the parent must be something that has no reason to die. The *worker*
//! launches and collects. The *guard* does nothing but wait for the worker: if the worker is killed, the children and
//! the zombies come to the guard, which reads the journal and goes on in its place, though only to the end of what
//! there is: new launches go to a fresh keeper. If the guard is killed, the worker goes on, likewise to the end.
//!
//! ```text
//! owner ──starts──► starter ──fork──► guard ──fork──► worker ──► jobs
//!                   (ends once the worker is ready)
//! ```
//!
//! It links no database and no async runtime, and does nothing that its jobs do not make it do. One thread decides and
//! serves; others make children, which may take as long as a file system takes to answer (`gates.rs`).

mod launchers;
mod launching;
mod remembered;
mod serve;
mod telling;

use std::ffi::{CString, OsString};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nodejobs_core::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::failpoint::{self, Failpoint, reached};
use crate::gates::closing::{close_all, is_unexecuted};
use crate::gates::{Gates, KeeperProcess, State};
use crate::identity::{ProcStat, open_pidfd, send_signal};
use crate::journal::{self, Journal};
use crate::machine::Machine;
use crate::{socket, sys};
use serve::{Keeper, Role};

/// The first argument that makes a program be the keeper, see [`serve_if_asked`]. Followed by the directory of
/// keepers and the keeper's name.
pub(crate) const ARGUMENT: &str = "--nodejobs-keeper";

/// Becomes the keeper, and does not return, if this process was started to be one.
///
/// The first line of `main` of a program that embeds nodejobs, so that its own executable can serve as keeper.
/// Nothing may have been started or opened before.
pub fn serve_if_asked() {
    ASKABLE.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == ARGUMENT) {
        std::process::exit(i32::from(start(arguments.collect()) != ExitCode::SUCCESS));
    }
}

static ASKABLE: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Whether this program calls [`serve_if_asked`].
pub(crate) fn own_executable_serves() -> bool {
    ASKABLE.load(std::sync::atomic::Ordering::SeqCst)
}

/// The `main` of the program `nodejobs-keeper`.
pub fn main() -> ExitCode {
    serve_if_asked();
    eprintln!(
        "nodejobs-keeper is started by nodejobs, with {ARGUMENT} DIRECTORY NAME; there is no other use for it"
    );
    ExitCode::from(2)
}

/// The files of one keeper.
#[derive(Clone, Debug)]
pub(crate) struct KeeperFiles {
    pub(crate) directory: PathBuf,
    pub(crate) name: String,
}

/// Digits of a boot id in a keeper's name.
const BOOT_DIGITS: usize = 8;

impl KeeperFiles {
    /// Of a keeper that is started in this boot. The name sorts by age, and no other owner ever uses it. A name is what a
    /// loss of power leaves whole, so it says which boot it is of.
    pub(crate) fn new(directory: &Path, generation: u64, number: u32, boot_id: &str) -> Self {
        let boot: String = boot_id.chars().take(BOOT_DIGITS).collect();
        Self { directory: directory.to_owned(), name: format!("{generation:08}-{number}.{boot}") }
    }

    /// The keepers that have files in a directory, oldest first.
    pub(crate) fn names(directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let endings = [".journal", ".sock", ".gates", ".answered"];
            names.extend(endings.iter().find_map(|ending| name.strip_suffix(ending)).map(str::to_owned));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// The first digits of the boot that it was started in. Keepers of 0.1.0 do not say, and have no gates.
    pub(crate) fn boot(&self) -> Option<&str> {
        self.name.split_once('.').map(|(_, boot)| boot)
    }

    /// Whether it says that it was started in this boot, or that it was not.
    pub(crate) fn is_of_boot(&self, boot_id: &str) -> Option<bool> {
        self.boot().map(|boot| !boot.is_empty() && boot_id.starts_with(boot))
    }

    pub(crate) fn gates(&self) -> PathBuf {
        self.directory.join(format!("{}.gates", self.name))
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.directory.join(format!("{}.journal", self.name))
    }

    /// Is there once everything is in the store that followed from a damaged journal: later launches are in other journals.
    pub(crate) fn answered(&self) -> PathBuf {
        self.directory.join(format!("{}.answered", self.name))
    }

    pub(crate) fn socket_name(&self) -> String {
        format!("{}.sock", self.name)
    }

    /// Removes them; what is not there is fine.
    pub(crate) fn remove(&self, half: Failpoint) {
        // Of a worker that was killed while it made its journal shorter.
        let _ = std::fs::remove_file(journal::temporary(&self.journal()));
        let _ = std::fs::remove_file(self.directory.join(self.socket_name()));
        reached(half);
        let _ = std::fs::remove_file(self.journal());
        // Last: what proves that nothing was executed goes after what says what was.
        let _ = std::fs::remove_file(self.gates());
        let _ = std::fs::remove_file(self.answered());
    }

    /// Keeps a journal that says less than it should, for whoever wants to find out why, and removes the rest.
    pub(crate) fn set_aside(&self) -> io::Result<PathBuf> {
        let damaged = self.journal().with_extension("journal.damaged");
        std::fs::rename(self.journal(), &damaged)?;
        self.remove(Failpoint::OwnerHalfRemoved);
        Ok(damaged)
    }
}

fn start(arguments: Vec<OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let (Some(directory), Some(name)) = (arguments.next(), arguments.next()) else {
        eprintln!("{ARGUMENT} needs a directory and a name");
        return ExitCode::from(2);
    };
    let files = KeeperFiles { directory: directory.into(), name: name.to_string_lossy().into_owned() };
    match start_pair(&files) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs in the starter; returns in it once the worker is ready. The guard and the worker never return from here.
fn start_pair(files: &KeeperFiles) -> io::Result<()> {
    failpoint::read_environment();
    sys::close_inherited_descriptors();
    sys::reset_signal_dispositions();
    sys::block_all_signals()?;
    // Already leading a session is as good as a new one.
    let _ = rustix::process::setsid();
    // The owner may be a program that is a job of somebody else's. What cannot be left is named by `doctor`.
    let _ = crate::cgroup::leave::leave_job_group();
    std::env::set_current_dir("/")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let machine = Machine::read()?;
    let listener = socket::listen(&files.directory, &files.socket_name())?;
    reached(Failpoint::StarterSocket);
    // Made here, so that the owner hears of a full disk; the journal is opened again by the worker, whose lock must be its own.
    let gates: &'static Gates = Box::leak(Box::new(Gates::create(&files.gates())?));
    drop(Journal::create(&files.journal(), &machine.boot_id, 0)?);
    reached(Failpoint::StarterJournal);
    let (mut ready, mut report_ready) = io::pipe()?;
    if let sys::Forked::Parent(_) = sys::fork()? {
        drop(report_ready);
        let mut answer = String::new();
        ready.read_to_string(&mut answer)?;
        reached(Failpoint::StarterForked);
        return if answer == READY { Ok(()) } else { Err(io::Error::other(answer)) };
    }
    drop(ready);
    // The guard, from here on. Its own end, if it comes, closes this pipe, which the worker watches.
    let (guard_alive, hold_open) = io::pipe()?;
    detach("nodejobs-guard")?;
    let guard = rustix::process::getpid();
    gates.note_guard(this_process());
    reached(Failpoint::GuardAlone);
    match sys::fork() {
        Ok(sys::Forked::Child) => {
            drop(hold_open);
            gates.note_worker(this_process());
            let open_journal = |()| {
                reached(Failpoint::WorkerAlone);
                let journal = Journal::open(&files.journal()).map_err(io::Error::other)?;
                journal.lock().map(|()| journal)
            };
            let worker = detach("nodejobs-worker").and_then(open_journal).and_then(|journal| {
                Keeper::new(Role::Worker { guard, guard_alive }, listener, journal, gates, files)
            });
            let keeper = match worker {
                Ok(keeper) => keeper,
                Err(error) => fail(&mut report_ready, &error),
            };
            let _ = report_ready.write_all(READY.as_bytes());
            drop(report_ready);
            keeper.serve()
        }
        Ok(sys::Forked::Parent(worker)) => {
            drop(report_ready);
            drop(guard_alive);
            failpoint::forget_all_but("guard-");
            wait_for_worker(worker, files.journal().as_path());
            let keeper = go_on(listener, gates, files);
            reached(Failpoint::GuardReplayed);
            match keeper {
                Ok(keeper) => keeper.serve(),
                // Without the journal nobody can be told anything; the owner finds the jobs by their identities.
                Err(_) => std::process::exit(1),
            }
        }
        Err(error) => fail(&mut report_ready, &error),
    }
}

/// The guard takes its worker's place. Launches that have not gone through their gates never will.
fn go_on(listener: OwnedFd, gates: &'static Gates, files: &KeeperFiles) -> io::Result<Keeper> {
    let closed = close_all(gates, files);
    let contents = journal::read(&files.journal()).map_err(io::Error::other)?;
    let journal = Journal::open(&files.journal()).map_err(io::Error::other)?;
    let mut keeper = Keeper::new(Role::Guard, listener, journal, gates, files)?;
    let has_bad_gates = closed.is_err();
    let passages = closed.unwrap_or_default();
    keeper.replay(contents, has_bad_gates, passages.clone());
    for passage in passages.into_iter().filter(|passage| passage.state == State::Noted) {
        if passage.pid.is_some_and(|pid| is_unexecuted(pid, files).unwrap_or(true)) {
            keeper.leave_unsettled(passage);
        }
    }
    Ok(keeper)
}

fn this_process() -> KeeperProcess {
    let pid = std::process::id();
    let stat = ProcStat::read(pid).ok().flatten();
    KeeperProcess { pid, start_ticks: stat.map_or(0, |stat| stat.start_ticks) }
}

/// Lets a halted worker go on, unless it goes on or ends in a moment.
fn continue_worker(worker: u32) {
    // Not collected, so its number is still its own.
    let Ok(pidfd) = open_pidfd(worker) else { return };
    let patience = Timespec { tv_sec: HALTED_SECONDS, tv_nsec: 0 };
    let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience));
    let is_halted = ProcStat::read(worker).ok().flatten().is_some_and(|stat| stat.state == b'T');
    if is_halted && !failpoint::halts_any() {
        let _ = send_signal(&pidfd, Signal::CONT);
    }
}

const READY: &str = "ready";

fn fail(report_ready: &mut io::PipeWriter, error: &io::Error) -> ! {
    let _ = report_ready.write_all(error.to_string().as_bytes());
    std::process::exit(1)
}

/// Makes this process one that adopts orphans and has nothing to do with any terminal.
fn detach(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    rustix::thread::set_name(&name)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// How long a worker may be halted before its guard lets it go on.
const HALTED_SECONDS: i64 = 1;

/// Returns when the worker died with work to do; ends this process when it left with everything done. A worker that is halted
/// is let go on: nobody else would hear that its jobs have ended.
fn wait_for_worker(worker: u32, journal: &Path) {
    let exit = loop {
        let change = sys::wait_child(sys::Children::Wait(worker));
        if !matches!(change, Ok(Some(change)) if change.code == libc::CLD_STOPPED) {
            break change;
        }
        if sys::note_stop(worker).is_err() {
            break change;
        }
        continue_worker(worker);
    };
    reached(Failpoint::GuardNoticed);
    let left_in_order = matches!(exit, Ok(Some(exit)) if exit.code == libc::CLD_EXITED && exit.status == 0);
    let _ = sys::reap(worker);
    if left_in_order && !journal.exists() {
        std::process::exit(0);
    }
}
