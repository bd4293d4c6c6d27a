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
//! It links no database and no async runtime, has one thread, and does nothing that its jobs do not make it do.

mod serve;

use std::ffi::{CString, OsString};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::failpoint::{self, Failpoint, reached};
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

impl KeeperFiles {
    pub(crate) fn journal(&self) -> PathBuf {
        self.directory.join(format!("{}.journal", self.name))
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
    // Made here, so that the owner hears of a full disk; opened again by the worker, whose lock must be its own.
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
    reached(Failpoint::GuardAlone);
    match sys::fork() {
        Ok(sys::Forked::Child) => {
            drop(hold_open);
            let open_journal = |()| {
                reached(Failpoint::WorkerAlone);
                Journal::open_locked(&files.journal())
            };
            let worker = detach("nodejobs-worker").and_then(open_journal).and_then(|journal| {
                Keeper::new(Role::Worker { guard, guard_alive }, listener, journal, files)
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
            let keeper = Journal::open_locked(&files.journal())
                .and_then(|journal| Keeper::new(Role::Guard, listener, journal, files));
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

/// Returns when the worker died with work to do; ends this process when it left with everything done.
fn wait_for_worker(worker: u32, journal: &Path) {
    let exit = sys::wait_child(sys::Children::Wait(worker));
    reached(Failpoint::GuardNoticed);
    let left_in_order = matches!(exit, Ok(Some(exit)) if exit.code == libc::CLD_EXITED && exit.status == 0);
    let _ = sys::reap(worker);
    if left_in_order && !journal.exists() {
        std::process::exit(0);
    }
}
