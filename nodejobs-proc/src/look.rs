//! Looking at what there is without being its owner: the keepers of a directory, and what this kernel can do.
//!
//! For whoever has to find out what is wrong. Nothing is fenced, locked, signalled or written.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nodejobs_core::id::AttemptId;

use crate::backend::trouble::{is_late_passage, sentence};
use crate::gates;
use crate::identity::{Found, LocalProcess, ProcStat, open_pidfd};
use crate::journal::{self, Entry, Event, Unreadable};
use crate::keeper::{ARGUMENT, KeeperFiles};
use crate::machine::{Machine, now};
use crate::protocol::{FEATURES, KeeperMessage, MESSAGE_LEN, OwnerMessage};
use crate::{socket, sys};

/// Version of the protocol that owners and keepers speak.
pub const KEEPER_PROTOCOL: u32 = crate::protocol::PROTOCOL_VERSION;

/// Whether a keeper that this process starts gives its jobs traces: who leaves its session, clears its environment and loses
/// its parent is found by them. There is no room where the hard limit of resident memory is in use for something else.
pub fn has_traces() -> bool {
    sys::resident_set_limit(0).is_ok_and(|own| crate::trace::hard_limit(0, own).is_some())
}

/// How long a keeper may take to hang up. It does nothing that takes long.
const PATIENCE: Duration = Duration::from_secs(2);

/// A keeper that has files or processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundKeeper {
    /// The beginning of its files' names.
    pub name: String,
    /// The process that only waits.
    pub guard: Option<u32>,
    /// The process that launches and collects.
    pub worker: Option<u32>,
    /// Children of the two, apart from the worker: main processes of jobs and what they left behind.
    pub children: usize,
    /// Whether it answers.
    pub state: KeeperState,
    /// The jobs in its journal whose main processes live, or what is wrong with the journal.
    pub jobs: Result<Vec<FoundJob>, BadJournal>,
    /// Launches that take long, a sentence each.
    pub held_up: Vec<String>,
}

/// A journal that does not say what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadJournal {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: String,
    /// What the next owner does about it.
    pub consequence: Consequence,
}

/// What the next owner does about a journal that does not say what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// It tells from memory what the journal does not, as long as its worker lives.
    None,
    /// It removes it: it is of an earlier boot, whose processes are gone.
    Removed,
    /// Launches that are not known to have happened become lost, and the file is set aside.
    LaunchesAreLost,
    /// It does not start: another version of the program has written it.
    StopsTheOwner,
}

/// A job that runs, as its keeper's journal tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundJob {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Its main process.
    pub pid: u32,
    pub(crate) process: LocalProcess,
}

/// Whether a keeper answers at its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeeperState {
    /// It does.
    Answers,
    /// Somebody holds the socket and does not: its process is stopped, most likely.
    Silent,
    /// Nobody holds the socket.
    Dead,
}

/// The keepers that have files in this directory, oldest first.
///
/// # Errors
/// When the directory cannot be read. One that is not there has no keepers.
pub fn keepers(directory: &Path) -> io::Result<Vec<FoundKeeper>> {
    let names = names(directory)?;
    let (processes, machine) = (processes(), Machine::read()?);
    Ok(names.into_iter().map(|name| look_at(directory, name, &processes, &machine)).collect())
}

/// The highest generation of an owner that the keepers of this directory show: the next owner's has to be higher, or
/// they refuse it. 0 if there are none. No owner may live, or it would be asked in vain what it is.
///
/// # Errors
/// When the directory cannot be read.
pub fn highest_generation(directory: &Path) -> io::Result<u64> {
    let generation_of = |name: String| {
        let (in_name, _) = name.split_once('-')?;
        let started_by = in_name.parse::<u64>().ok()?;
        Some(started_by.max(heard_by(&KeeperFiles { directory: directory.to_owned(), name })))
    };
    Ok(names(directory)?.into_iter().filter_map(generation_of).max().unwrap_or(0))
}

/// What a keeper says to an owner that all others are newer than; 0 if it does not answer.
fn heard_by(files: &KeeperFiles) -> u64 {
    let asked = || {
        let socket = socket::connect(&files.directory, &files.socket_name())?;
        socket::set_read_timeout(&socket, Some(PATIENCE))?;
        let hello = OwnerMessage::Hello { version: KEEPER_PROTOCOL, generation: 0, features: FEATURES };
        socket::send(&socket, &hello.encode(), None, false)?;
        let mut buffer = [0; MESSAGE_LEN];
        let received = socket::receive(&socket, &mut buffer)?;
        let message = received.and_then(|received| KeeperMessage::decode(received.bytes).ok());
        io::Result::Ok(message)
    };
    match asked() {
        Ok(Some(KeeperMessage::Superseded { generation })) => generation,
        _ => 0,
    }
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    match KeeperFiles::names(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names,
    }
}

/// Journals that were set aside because they were damaged.
///
/// # Errors
/// When the directory cannot be read.
pub fn set_aside(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let is_set_aside = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "damaged");
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_set_aside).collect();
    paths.sort();
    Ok(paths)
}

/// Something in a directory of keepers that keeps an owner from starting, or is of no more use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// A journal of a dead keeper that only another version of this program can read. The next owner goes on without it.
    WithoutJournal(PathBuf),
    /// A journal that was set aside is deleted.
    Delete(PathBuf),
}

impl Repair {
    /// Does it. Nobody may own the directory.
    ///
    /// # Errors
    /// When the files cannot be changed.
    pub fn carry_out(&self) -> io::Result<()> {
        match self {
            Repair::WithoutJournal(journal) => {
                std::fs::rename(journal, journal.with_extension("journal.unread"))?;
                // Says that something was there: without it the next owner would take what it told of for never executed.
                std::fs::write(journal, "set aside by doctor --fix\n")
            }
            Repair::Delete(path) => std::fs::remove_file(path),
        }
    }
}

/// What can be repaired in a directory of keepers.
///
/// # Errors
/// When the directory cannot be read.
pub fn repairs(directory: &Path) -> io::Result<Vec<Repair>> {
    let stops = |bad: &BadJournal| bad.consequence == Consequence::StopsTheOwner;
    let unreadable = keepers(directory)?.into_iter().filter_map(|keeper| keeper.jobs.err().filter(stops));
    let mut repairs: Vec<Repair> = unreadable.map(|bad| Repair::WithoutJournal(bad.path)).collect();
    repairs.extend(set_aside(directory)?.into_iter().map(Repair::Delete));
    Ok(repairs)
}

fn look_at(directory: &Path, name: String, processes: &[ProcStat], machine: &Machine) -> FoundKeeper {
    let files = KeeperFiles { directory: directory.to_owned(), name };
    let serves = |stat: &&ProcStat| stat.name.starts_with("nodejobs-") && is_keeper(stat.pid, &files);
    let own: Vec<&ProcStat> = processes.iter().filter(serves).collect();
    let pid_of = |name| own.iter().find(|stat| stat.name == name).map(|stat| stat.pid);
    let is_own = |pid| own.iter().any(|stat| stat.pid == pid);
    let at = now().boot;
    let passages = gates::peek(&files.gates()).unwrap_or_default();
    let late = passages.iter().filter(|passage| is_late_passage(passage, at));
    let held_up = late.map(|passage| format!("{}: {}", passage.attempt.id, sentence(passage, None, at)));
    let held_up = held_up.collect();
    // A child has its worker's name until it executes its program.
    let workers: Vec<&&ProcStat> = own.iter().filter(|stat| stat.name == "nodejobs-worker").collect();
    let is_worker = |pid| workers.iter().any(|stat| stat.pid == pid);
    let worker = workers.iter().find(|stat| !is_worker(stat.parent));
    let (guard, worker) = (pid_of("nodejobs-guard"), worker.map(|stat| stat.pid));
    FoundKeeper {
        guard,
        worker,
        children: processes.iter().filter(|stat| is_own(stat.parent) && !is_own(stat.pid)).count(),
        state: ask(&files),
        jobs: living_jobs(&files, machine, worker.is_some()),
        held_up,
        name: files.name,
    }
}

/// Whether the keeper hangs up on somebody who does not say hello first, as every version of it does. A hello would
/// make it drop its owner.
fn ask(files: &KeeperFiles) -> KeeperState {
    let asked = || {
        let socket = socket::connect(&files.directory, &files.socket_name())?;
        socket::set_read_timeout(&socket, Some(PATIENCE))?;
        socket::send(&socket, &OwnerMessage::Acknowledge { position: 0 }.encode(), None, false)?;
        socket::receive(&socket, &mut [0; MESSAGE_LEN]).map(drop)
    };
    match asked().map_err(|error| error.kind()) {
        Ok(()) | Err(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => KeeperState::Answers,
        Err(io::ErrorKind::WouldBlock) => KeeperState::Silent,
        Err(_) => KeeperState::Dead,
    }
}

fn living_jobs(
    files: &KeeperFiles,
    machine: &Machine,
    has_worker: bool,
) -> Result<Vec<FoundJob>, BadJournal> {
    let is_of_this_boot = files.is_of_boot(&machine.boot_id).unwrap_or(true);
    let bad = |error: String, is_unknown: bool| BadJournal {
        path: files.journal(),
        error,
        consequence: match (has_worker, is_of_this_boot, is_unknown) {
            (true, ..) => Consequence::None,
            // An earlier owner has said what became of them.
            (false, true, false) if files.answered().exists() => Consequence::None,
            (false, false, _) => Consequence::Removed,
            (false, true, true) => Consequence::StopsTheOwner,
            (false, true, false) => Consequence::LaunchesAreLost,
        },
    };
    let contents = journal::read(&files.journal())
        .map_err(|error| bad(error.to_string(), matches!(error, Unreadable::Version(_))))?;
    if contents.is_damaged && is_of_this_boot {
        return Err(bad("some of its entries are damaged".to_owned(), false));
    }
    if let Err(error) = gates::peek(&files.gates())
        && files.boot().is_some()
        && is_of_this_boot
        && files.journal().exists()
    {
        let error =
            format!("the page of gates beside it, '{}', is damaged: {error}", files.gates().display());
        return Err(bad(error, false));
    }
    let journal::Contents { boot_id, mut entries, .. } = contents;
    journal::without_void_starts(&mut entries);
    let mut jobs: Vec<FoundJob> = Vec::new();
    for (_, entry) in entries {
        let Entry::Attempt { attempt, event, .. } = entry else { continue };
        jobs.retain(|job| job.attempt != attempt);
        if let Event::Started { pid, start_ticks, pidfs, .. } = event {
            let (boot_id, pid_namespace) = (boot_id.clone(), machine.pid_namespace);
            let process = LocalProcess { boot_id, pid_namespace, pid, start_ticks, pidfs };
            jobs.push(FoundJob { attempt, pid, process });
        }
    }
    jobs.retain(|job| matches!(job.process.find(machine), Ok(Found::Alive(_))));
    Ok(jobs)
}

/// Whether a process was started as this very keeper, or is a child of it that has executed nothing.
pub(crate) fn is_keeper(pid: u32, files: &KeeperFiles) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&OsStr> = line.split(|byte| *byte == 0).map(OsStr::from_bytes).collect();
    let [_, argument, directory, name, ..] = words.as_slice() else { return false };
    // The owner may have come by another way, through a link.
    let is_same = |other: &Path| {
        other == files.directory
            || other
                .canonicalize()
                .is_ok_and(|other| files.directory.canonicalize().is_ok_and(|own| own == other))
    };
    *argument == ARGUMENT && *name == files.name.as_str() && is_same(Path::new(directory))
}

fn processes() -> Vec<ProcStat> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| ProcStat::read(entry.file_name().to_str()?.parse().ok()?).ok()?).collect()
}

/// What this kernel offers to tell processes apart and to learn how they ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFeatures {
    /// Descriptors of processes (Linux 5.3).
    pub pidfds: bool,
    /// Numbers of processes that are never used twice (Linux 6.14).
    pub pidfs: bool,
    /// Exit statuses of processes that somebody else has collected (Linux 6.15).
    pub exit_statuses: bool,
}

impl KernelFeatures {
    /// Tries them; what [`DISABLE_VARIABLE`](crate::machine::DISABLE_VARIABLE) forbids counts as missing.
    pub fn of(machine: &Machine) -> Self {
        let own = open_pidfd(std::process::id()).ok();
        let has_number = own.as_ref().is_some_and(|own| sys::pidfs_number(own.as_fd()).is_ok());
        Self {
            pidfds: own.is_some(),
            pidfs: machine.use_pidfs && has_number,
            exit_statuses: machine.use_pidfd_info,
        }
    }
}
