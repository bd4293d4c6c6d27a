//! [`LocalBackend`]: jobs as processes of this machine, kept by keepers.
//!
//! One thread holds the connections to the keepers and descriptors of processes that are being ended, and sleeps until
//! one of them, or the owner, has something to say. This file holds that thread's loop and what keepers tell it; the rest of
//! what it does is beside it: [`recovery`] takes over from earlier owners and from keepers that died, [`remains`] reads what
//! these have left, [`silence`] cares for keepers that do not answer, [`launching`] hands attempts to a keeper, [`watching`]
//! follows jobs that no keeper holds any more, [`ending`] ends trees, and [`link`] speaks with one keeper. It touches no path
//! that a user named: that may take for ever.

mod bell;
pub(crate) mod ending;
mod groups;
mod launching;
mod link;
mod memory;
mod pulse;
mod recovery;
mod remains;
mod silence;
pub(crate) mod trouble;
mod usage;
mod watching;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nodejobs_core::backend::{
    BackendError, BackendEvent, BackendHost, BackendReport, Capabilities, EndPlan, KeeperStatus,
    KnownAttempt, MemoryLimits, ProcessBackend, Receipt, SignalScope, StartFailure, StartFailureKind,
    TreeMember, TreeUsage,
};
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::Process;
use nodejobs_core::signal::Signal;
use nodejobs_core::spec::Limits;
use nodejobs_core::time::BootTime;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cgroup::base::Bases;
use crate::cgroup::group::Group;
use crate::failpoint::{Failpoint, reached};
use crate::identity::{Found, LocalProcess, ProcStat, if_there, open_pidfd, send_signal};
use crate::journal::{Entry, Event};
use crate::keeper::{self, KeeperFiles};
use crate::machine::{Machine, now};
use crate::tree::{self, View};
use crate::{launch, limits};
use bell::Bell;
use ending::{Ending, Progress};
use groups::Groups;
use link::{Buried, Heard, Link};
use memory::Sampler;
use remains::Unsettled;
use trouble::Published;
use watching::{Ended, Watcher};

/// While more is to be launched than a keeper takes at a time, what it tells is heard so often, together: the keeper has
/// enough to do meanwhile, and each time costs a look at processes and a commit.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 3_000_000 };

/// How long whoever asks for the status of keepers waits for the thread. What it said last has to do then.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);

/// Which program keeps the jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeeperProgram {
    /// The executable of this process, whose `main` begins with [`keeper::serve_if_asked`].
    ThisExecutable,
    /// This program: `nodejobs-keeper`, or one whose `main` begins with [`keeper::serve_if_asked`].
    Path(PathBuf),
}

impl KeeperProgram {
    /// The program `nodejobs-keeper` beside this executable, else this executable if it can serve.
    ///
    /// # Errors
    /// When there is neither.
    pub fn find() -> io::Result<Self> {
        let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("nodejobs-keeper")));
        match beside.filter(|path| path.is_file()) {
            Some(path) => Ok(KeeperProgram::Path(path)),
            None if keeper::own_executable_serves() => Ok(KeeperProgram::ThisExecutable),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "no program can keep the jobs: put nodejobs-keeper beside this executable, \
                 or begin its main with nodejobs::serve_keeper_if_asked()",
            )),
        }
    }

    fn path(&self) -> &Path {
        match self {
            KeeperProgram::ThisExecutable => Path::new("/proc/self/exe"),
            KeeperProgram::Path(path) => path,
        }
    }
}

/// What a [`LocalBackend`] is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the keepers' journals and sockets are; made if it is not there.
    pub keepers: PathBuf,
    /// Tells the processes of this data directory from those of others.
    pub directory_id: String,
    /// The owner's generation: keepers obey the highest.
    pub generation: u64,
    /// The program that keeps the jobs.
    pub program: KeeperProgram,
    /// This machine.
    pub machine: Machine,
    /// In which directory of cgroup v2 those of jobs are made, unless `NODEJOBS_CGROUP` says it; where this process is, if
    /// nobody does.
    pub cgroup: Option<PathBuf>,
    /// The boot in which the last owner took over; `None` if there was none, or that is not known.
    pub previous_boot_id: Option<String>,
}

enum Command {
    Launch(AttemptId),
    EndTree {
        attempt: AttemptId,
        process: Option<Process>,
        plan: EndPlan,
    },
    Signal {
        attempt: AttemptId,
        process: Process,
        signal: Signal,
        scope: SignalScope,
    },
    Acknowledge(Vec<Receipt>),
    Keepers(SyncSender<Vec<KeeperStatus>>),
    /// Somebody wants to look at processes.
    Look(SyncSender<Lookout>),
    /// The one who looks after limits on memory wants to know whose.
    Limited(SyncSender<Option<memory::Round>>),
    /// A main process without a keeper has ended.
    Ended(Ended),
    /// What `recover` reported is on disk.
    Settled,
    Quit,
}

impl Command {
    /// Whether nobody waits for it while there is much to launch.
    fn has_time(&self) -> bool {
        matches!(self, Command::Launch(_) | Command::Acknowledge(_))
    }
}

/// Runs jobs as processes of this machine.
pub struct LocalBackend {
    machine: Machine,
    directory_id: String,
    bases: Arc<Bases>,
    keepers: PathBuf,
    host: Arc<dyn BackendHost>,
    commands: Sender<Command>,
    bell: Arc<Bell>,
    /// What the thread has said last.
    published: Arc<Mutex<Published>>,
    /// Until `recover` has started it.
    dormant: Mutex<Option<Loop>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl LocalBackend {
    /// Prepares a backend. Nothing is touched before [`ProcessBackend::recover`].
    ///
    /// # Errors
    /// When the directory of keepers cannot be made.
    pub fn new(config: Config, host: Arc<dyn BackendHost>) -> Result<Self, BackendError> {
        let failed =
            |operation: String, source: io::Error| BackendError { operation, source: Box::new(source) };
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&config.keepers)
            .map_err(|error| failed(format!("create {}", config.keepers.display()), error))?;
        let bell = Bell::new().map_err(|error| failed("make an eventfd".to_owned(), error))?;
        let (commands, receiver) = channel();
        let bell = Arc::new(bell);
        let (machine, directory_id) = (config.machine.clone(), config.directory_id.clone());
        let groups = Groups::new(&config);
        let bases = groups.bases();
        let published = Arc::default();
        let keepers = config.keepers.clone();
        let dormant = Loop {
            groups,
            config,
            host: Arc::clone(&host),
            published: Arc::clone(&published),
            asked: HashMap::new(),
            is_recovered: false,
            is_damaged: false,
            mute: BTreeSet::new(),
            unreached: BTreeMap::new(),
            undecided: Vec::new(),
            unsettled: Vec::new(),
            blocked: (BootTime::default(), Vec::new()),
            commands: receiver,
            own_commands: commands.clone(),
            taken: Vec::new(),
            bell: Arc::clone(&bell),
            links: BTreeMap::new(),
            buried: Vec::new(),
            keepers_started: 0,
            launching: None,
            waiting: VecDeque::new(),
            in_flight: HashMap::new(),
            inputs: HashSet::new(),
            running: HashMap::new(),
            unwatched: Vec::new(),
            watchers: Vec::new(),
            endings: HashMap::new(),
            awaited: HashSet::new(),
            memory_limits: HashMap::new(),
            sampler: None,
            orphans_anywhere: false,
        };
        let dormant = Mutex::new(Some(dormant));
        Ok(Self {
            machine,
            directory_id,
            bases,
            keepers,
            host,
            commands,
            bell,
            published,
            dormant,
            thread: Mutex::new(None),
        })
    }

    fn command(&self, command: Command) {
        // The thread ends only with this value, so there is always somebody to receive it.
        let is_urgent = !command.has_time();
        let _ = self.commands.send(command);
        self.bell.ring(is_urgent);
    }
}

impl ProcessBackend for LocalBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            pause: true,
            usage: true,
            stdin: true,
            adopt: true,
            memory_limits: match self.bases.look() {
                Ok(base) if base.controllers.memory => MemoryLimits::Kernel,
                _ => MemoryLimits::Sampling,
            },
        }
    }

    fn check_limits(&self, limits: &Limits) -> Result<(), String> {
        limits::check(limits)?;
        groups::check_limits(&self.bases, limits)
    }

    fn recover(&self, attempts: &[KnownAttempt]) -> Result<Vec<BackendReport>, BackendError> {
        let dormant = self.dormant.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut work) = dormant else { return Ok(Vec::new()) };
        let reports = work.recover(attempts)?;
        work.is_recovered = true;
        work.publish();
        let thread =
            std::thread::Builder::new().name("nodejobs-procs".to_owned()).spawn(move || work.run()).map_err(
                |error| BackendError { operation: "start a thread".to_owned(), source: Box::new(error) },
            )?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(reports)
    }

    fn launch(&self, attempt: &AttemptId) {
        self.command(Command::Launch(attempt.clone()));
    }

    fn end_tree(&self, attempt: &AttemptId, process: Option<&Process>, plan: EndPlan) {
        self.command(Command::EndTree { attempt: attempt.clone(), process: process.cloned(), plan });
    }

    fn signal(&self, attempt: &AttemptId, process: &Process, signal: Signal, scope: SignalScope) {
        self.command(Command::Signal { attempt: attempt.clone(), process: process.clone(), signal, scope });
    }

    fn usage(&self, attempts: &[(AttemptId, Process)]) -> Vec<Option<TreeUsage>> {
        let (answer, receiver) = sync_channel(1);
        self.command(Command::Look(answer));
        let Ok(lookout) = receiver.recv() else { return vec![None; attempts.len()] };
        usage::of_attempts(attempts, &lookout, &self.machine, &self.directory_id)
    }

    fn acknowledge(&self, receipts: &[Receipt]) {
        self.command(Command::Acknowledge(receipts.to_vec()));
    }

    fn keepers(&self) -> Vec<KeeperStatus> {
        let (answer, receiver) = sync_channel(1);
        self.command(Command::Keepers(answer));
        let answered = receiver.recv_timeout(STATUS_PATIENCE);
        self.with_trouble(answered.ok())
    }

    fn held_up(&self, attempt: &AttemptId) -> Option<String> {
        self.trouble_of(attempt)
    }

    fn settled(&self) {
        self.command(Command::Settled);
    }
}

impl Drop for LocalBackend {
    fn drop(&mut self) {
        self.command(Command::Quit);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

/// A launched attempt that has not ended.
struct Running {
    process: LocalProcess,
    /// Its keeper, as long as that one lives.
    keeper: Option<String>,
}

/// A launch that a keeper has been told of and has not answered.
struct Flight {
    keeper: String,
    /// When it was told.
    told: BootTime,
    /// It is not wanted any more.
    is_called_off: bool,
}

/// What somebody has to know to look at the processes of jobs without this thread.
struct Lookout {
    collectors: Option<Vec<u32>>,
    main_processes: HashSet<u32>,
    groups: HashMap<AttemptId, Group>,
}

impl Lookout {
    fn view(&self) -> io::Result<View> {
        View::of_keepers_or_everywhere(self.collectors.as_deref(), &self.main_processes)
    }
}

/// What is done once the trees that are being ended were looked at.
#[derive(Default)]
struct Later {
    receipts: Vec<Receipt>,
    questions: Vec<SyncSender<Vec<KeeperStatus>>>,
}

struct Loop {
    groups: Groups,
    config: Config,
    host: Arc<dyn BackendHost>,
    commands: Receiver<Command>,
    /// For the watchers.
    own_commands: Sender<Command>,
    /// Received and not carried out.
    taken: Vec<Command>,
    bell: Arc<Bell>,
    /// Living keepers by name.
    links: BTreeMap<String, Link>,
    /// Dead ones whose journals hold what is not acknowledged.
    buried: Vec<Buried>,
    keepers_started: u32,
    /// The keeper that takes launches.
    launching: Option<String>,
    /// Launches that no keeper has been told of.
    waiting: VecDeque<AttemptId>,
    in_flight: HashMap<AttemptId, Flight>,
    /// Those of them whose input is in a file of ours.
    inputs: HashSet<AttemptId>,
    running: HashMap<AttemptId, Running>,
    /// Main processes without a keeper that are still to be watched.
    unwatched: Vec<(AttemptId, LocalProcess)>,
    watchers: Vec<Watcher>,
    endings: HashMap<AttemptId, Ending>,
    /// Those of them whose keepers have to tell their ends, also once their trees are gone.
    awaited: HashSet<AttemptId>,
    /// In bytes, of those that are launched or run, and of some that have just ended.
    memory_limits: HashMap<AttemptId, u64>,
    sampler: Option<Sampler>,
    /// A keeper with living jobs has died, so their orphans are not all with a keeper.
    orphans_anywhere: bool,
    published: Arc<Mutex<Published>>,
    /// During the recovery: when launches were asked for that earlier owners had not heard of.
    asked: HashMap<AttemptId, BootTime>,
    is_recovered: bool,
    /// During the recovery: a journal of this boot does not tell all.
    is_damaged: bool,
    /// Keepers of the first version that do not answer.
    mute: BTreeSet<String>,
    /// Keepers that there was no room to connect to again, and since when.
    unreached: BTreeMap<String, BootTime>,
    /// Attempts that keepers of the first version may know of.
    undecided: Vec<KnownAttempt>,
    /// Launches of dead keepers that may yet come to something.
    unsettled: Vec<Unsettled>,
    /// The file systems that so many launches wait for that no more are sent there, and when that was looked at.
    blocked: (BootTime, Vec<PathBuf>),
}

impl Loop {
    fn files(&self, name: &str) -> KeeperFiles {
        KeeperFiles { directory: self.config.keepers.clone(), name: name.to_owned() }
    }

    fn run(mut self) {
        loop {
            let (commands, is_last) = self.take_commands();
            let Later { receipts, questions } = self.carry_out(commands);
            if !is_last {
                self.advance_endings();
            }
            // After the trees were looked at: a keeper that is half gone leaves with its last acknowledgement, and what
            // a job has left behind is a child of it until then.
            self.acknowledge(&receipts);
            self.tidy_groups();
            // Whoever asks may want to know that what was said before has been done.
            questions.into_iter().for_each(|answer| drop(answer.send(self.keeper_statuses())));
            if is_last {
                return;
            }
            self.send_launches();
            self.start_watchers();
            self.keep_memory_limits();
            self.let_go();
            let Ready { links, endings, all } = self.wait();
            let mut reports = Vec::new();
            for name in links {
                self.hear(&name, all, &mut reports);
            }
            self.care_for_keepers(&mut reports);
            self.look_at_unsettled(&mut reports);
            for (attempt, pid) in endings {
                self.is_gone(&attempt, pid);
            }
            for report in reports {
                reached(Failpoint::OwnerHeard);
                self.host.report(report);
            }
        }
    }

    /// What has arrived, and whether the backend is dropped.
    fn take_commands(&mut self) -> (Vec<Command>, bool) {
        self.take();
        let mut commands = std::mem::take(&mut self.taken);
        let last = commands.iter().position(|command| matches!(command, Command::Quit));
        commands.truncate(last.unwrap_or(commands.len()));
        (commands, last.is_some())
    }

    fn take(&mut self) {
        self.taken.extend(self.commands.try_iter());
    }

    /// Does all but what has to come after a look at the trees that are being ended.
    fn carry_out(&mut self, commands: Vec<Command>) -> Later {
        let mut later = Later::default();
        // Taken by the first who wants it, after everything that the commands tell of has happened; serves all of them.
        let mut view = None;
        for command in commands {
            match command {
                Command::Launch(attempt) => self.waiting.push_back(attempt),
                Command::EndTree { attempt, process, plan } => {
                    self.begin_ending(attempt, process.as_ref(), plan);
                }
                Command::Signal { attempt, process, signal, scope } => {
                    let sent = match scope {
                        SignalScope::Main => self.signal_main(&process, signal),
                        SignalScope::Tree => self.signal_tree(&attempt, &process, signal),
                    };
                    if let Err(error) = sent {
                        self.host
                            .warn(format!("{attempt}: {signal} did not reach all of its processes: {error}"));
                    }
                }
                Command::Acknowledge(receipts) => later.receipts.extend(receipts),
                Command::Keepers(answer) => later.questions.push(answer),
                Command::Limited(answer) => self.answer_round(&answer),
                Command::Look(answer) => drop(answer.send(self.lookout(self.main_processes()))),
                Command::Ended(ended) => self.watched_ended(ended, &mut view),
                // As long as somebody may know more of a launch, what cannot be read has to stay.
                Command::Settled if !self.undecided.is_empty() => {}
                Command::Settled => {
                    self.buried.iter_mut().for_each(Buried::recovery_is_written);
                    self.clear_settled();
                }
                Command::Quit => {}
            }
        }
        later
    }

    /// Lets what keepers tell gather for a moment, unless somebody waits.
    fn nap(&mut self) {
        self.bell.takes_a_nap();
        self.take();
        let mut was_rung = false;
        if self.taken.iter().all(Command::has_time) {
            let mut fds = [PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN)];
            was_rung = poll(&mut fds, Some(&NAP)).is_ok_and(|count| count > 0);
        }
        self.bell.is_awake(was_rung);
    }

    fn wait(&mut self) -> Ready {
        let naps = !self.waiting.is_empty() && self.endings.is_empty();
        if naps {
            self.nap();
        }
        self.bell.falls_asleep();
        self.take();
        let ready = self.wait_for_any(naps);
        let (was_rung, ready) = ready.unwrap_or_default();
        self.bell.is_awake(was_rung);
        ready
    }

    /// Whether the bell was rung, and who has something to tell.
    fn wait_for_any(&self, all: bool) -> io::Result<(bool, Ready)> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN)];
        let links: Vec<&String> = self.links.keys().collect();
        fds.extend(self.links.values().map(|link| PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN)));
        let mut members = Vec::new();
        for (attempt, ending) in &self.endings {
            for (pid, pidfd) in ending.held() {
                members.push((attempt, pid));
                fds.push(PollFd::from_borrowed_fd(pidfd, PollFlags::IN));
            }
        }
        let retry = (!self.unwatched.is_empty()).then(|| now().boot.plus_millis(watching::RETRY_MS));
        let looks = [retry, self.care_deadline(), self.unsettled_deadline()];
        let deadlines = self.endings.values().map(Ending::deadline).chain(looks.into_iter().flatten());
        let deadline = deadlines.filter(|at| *at != BootTime(u64::MAX)).min();
        let mut timeout = deadline.map(|deadline| {
            // One more, so that the deadline has passed when this returns.
            let millis = deadline.millis_since(now().boot) + 1;
            let nanos = (millis % 1000) * 1_000_000;
            Timespec { tv_sec: (millis / 1000).cast_signed(), tv_nsec: nanos.cast_signed() }
        });
        if !self.taken.is_empty() {
            timeout = Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        }
        rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref()))?;
        let mut results = fds.iter().map(|fd| !fd.revents().is_empty());
        let was_rung = results.next() == Some(true);
        let mut ready = Ready { all, ..Ready::default() };
        ready.links.extend(links.into_iter().filter(|_| results.next() == Some(true)).cloned());
        let ended = members.into_iter().filter(|_| results.next() == Some(true));
        ready.endings.extend(ended.map(|(attempt, pid)| (attempt.clone(), pid)));
        Ok((was_rung, ready))
    }

    fn hear(&mut self, name: &str, all: bool, reports: &mut Vec<BackendReport>) {
        let Some(link) = self.links.get_mut(name) else { return };
        match link.receive(all, now().boot) {
            Ok(Heard::Nothing) => {}
            Ok(Heard::Past(past)) => self.reattached(name, past, reports),
            Ok(Heard::Entries(entries)) => {
                let boot_id = self.config.machine.boot_id.clone();
                self.handle_entries(name, &boot_id, entries, reports);
            }
            Err(_) => self.reattach(name, reports),
        }
    }

    fn handle_entries(
        &mut self,
        name: &str,
        boot_id: &str,
        entries: Vec<(u64, Entry)>,
        reports: &mut Vec<BackendReport>,
    ) {
        // Taken when the first exit wants it, after everything in `entries` has happened; serves all of them.
        let mut view: Option<io::Result<View>> = None;
        let started = entries.iter().filter_map(|(_, entry)| match entry {
            Entry::Attempt { event: Event::Started { pid, .. }, .. } => Some(*pid),
            _ => None,
        });
        let started: Vec<u32> = started.collect();
        for (position, entry) in entries {
            let Entry::Attempt { attempt, event, at } = entry else { continue };
            // What is heard again may be about an earlier launch, or an earlier job of that id.
            let is_answer = |flight: &Flight| flight.keeper == name && at.boot >= flight.told;
            if self.in_flight.get(&attempt).is_some_and(is_answer) {
                self.in_flight.remove(&attempt);
                self.drop_input(&attempt);
            }
            let receipt = Some(Receipt { source: name.to_owned(), position: position + 1 });
            let event = match event {
                Event::Started { pid, start_ticks, pidfs, log_start } => {
                    let process = LocalProcess {
                        boot_id: boot_id.to_owned(),
                        pid_namespace: self.config.machine.pid_namespace,
                        pid,
                        start_ticks,
                        pidfs,
                    };
                    let event = BackendEvent::Started { process: process.to_process(), log_start, at };
                    if !self.is_earlier(&attempt, at.boot) {
                        // If the keeper turns out to be dead, `orphan` follows and takes it out again.
                        let keeper = Some(name.to_owned());
                        self.running.insert(attempt.clone(), Running { process, keeper });
                    }
                    event
                }
                Event::StartFailed(failed) => {
                    if !self.is_earlier(&attempt, at.boot) {
                        self.running.remove(&attempt);
                    }
                    let failure = self.start_failure(&attempt, failed);
                    self.groups.discard(&attempt);
                    BackendEvent::NotStarted { failure, at }
                }
                // Of an earlier job of that id.
                Event::Exited { exit, usage, .. } if self.is_earlier(&attempt, at.boot) => {
                    BackendEvent::Exited { exit, usage: Some(usage), at, leftovers: Some(Vec::new()) }
                }
                Event::Exited { exit, usage, .. } => {
                    if view.is_none() && self.running.contains_key(&attempt) {
                        let mut main_processes = self.main_processes();
                        main_processes.extend(&started);
                        view = Some(self.view(&main_processes));
                    }
                    self.awaited.remove(&attempt);
                    let running = self.running.remove(&attempt);
                    let leftovers = running.map_or(Some(Vec::new()), |running| {
                        // Not everybody who is being ended is held, see `ending`.
                        self.is_gone(&attempt, running.process.pid);
                        self.leftovers(view.as_ref()?.as_ref().ok()?, &attempt, &running.process)
                    });
                    let (usage, killed) =
                        self.groups.main_ended(&attempt, exit, Some(usage), receipt.as_ref());
                    if let Some(event) = killed {
                        // With what the keeper remembers, and before the end: to whoever hears that first, it is the last word.
                        let receipt = Some(Receipt { source: name.to_owned(), position });
                        reports.push(BackendReport { attempt: attempt.clone(), event, receipt });
                    }
                    BackendEvent::Exited { exit, usage, at, leftovers }
                }
            };
            reports.push(BackendReport { attempt, event, receipt });
        }
    }

    /// Whether what happened at this time is about an earlier launch of an attempt, or an earlier job of that id: a later one
    /// was asked for, is on its way, or runs.
    fn is_earlier(&self, attempt: &AttemptId, at: BootTime) -> bool {
        let asked = self.asked.get(attempt).copied();
        let told = self.in_flight.get(attempt).map(|flight| flight.told);
        let started = self.running.get(attempt).map(|running| running.process.start());
        asked.max(told).max(started).is_some_and(|later| at < later)
    }

    fn main_processes(&self) -> HashSet<u32> {
        self.running.values().map(|running| running.process.pid).collect()
    }

    /// A process of a tree that is being ended, if it is, has ended.
    fn is_gone(&mut self, attempt: &AttemptId, pid: u32) {
        if let Some(ending) = self.endings.get_mut(attempt) {
            ending.gone(pid);
        }
    }

    fn view(&self, main_processes: &HashSet<u32>) -> io::Result<View> {
        View::of_keepers_or_everywhere(self.collectors().as_deref(), main_processes)
    }

    /// The processes to which whoever loses its parent comes; `None` where somebody who adopted orphans is gone.
    fn collectors(&self) -> Option<Vec<u32>> {
        let collectors = || self.links.values().map(Link::collector).collect();
        (!self.orphans_anywhere).then(collectors).flatten()
    }

    fn lookout(&self, main_processes: HashSet<u32>) -> Lookout {
        Lookout { collectors: self.collectors(), main_processes, groups: self.groups.all() }
    }

    /// Whom an ended main process has left behind; `None` if there is no room to look, so that the ending looks again.
    fn leftovers(&self, view: &View, attempt: &AttemptId, main: &LocalProcess) -> Option<Vec<TreeMember>> {
        // The main process has ended, so it has no children.
        if view.is_nobody() && self.groups.of(attempt).is_none() {
            return Some(Vec::new());
        }
        let named = |stat: ProcStat| TreeMember { pid: stat.pid, name: stat.name };
        Some(self.members(view, attempt, main).ok()?.into_iter().map(named).collect())
    }

    fn members(&self, view: &View, attempt: &AttemptId, main: &LocalProcess) -> io::Result<Vec<ProcStat>> {
        if main.boot_id != self.config.machine.boot_id {
            return Ok(Vec::new());
        }
        let mark = launch::mark(&self.config.directory_id, attempt);
        view.members(&tree::Root { main, mark: &mark, group: self.groups.of(attempt) })
    }

    /// Signals the main process of a job, if it is there.
    fn signal_main(&self, process: &Process, signal: Signal) -> io::Result<()> {
        let Some(main) = LocalProcess::from_process(process) else { return Ok(()) };
        match main.find(&self.config.machine)? {
            Found::Alive(pidfd) => send_signal(&pidfd, signal),
            Found::Zombie(_) | Found::Gone | Found::OutOfReach => Ok(()),
        }
    }

    /// Signals the processes of a job. Whoever is made meanwhile is looked for once more: a halted tree makes no more.
    fn signal_tree(&self, attempt: &AttemptId, process: &Process, signal: Signal) -> io::Result<()> {
        let Some(main) = LocalProcess::from_process(process) else { return Ok(()) };
        let mut signalled = HashSet::new();
        loop {
            let view = self.view(&self.main_processes())?;
            let members = self.members(&view, attempt, &main)?;
            let new: Vec<_> =
                members.iter().filter(|stat| signalled.insert((stat.pid, stat.start_ticks))).collect();
            for stat in &new {
                let Some(pidfd) = if_there(open_pidfd(stat.pid))? else { continue };
                if ProcStat::read(stat.pid)?.is_some_and(|now| now.start_ticks == stat.start_ticks) {
                    // One of another user cannot be signalled, and stays as it is.
                    let _ = send_signal(&pidfd, signal);
                }
            }
            if new.is_empty() || signal != Signal::STOP {
                return Ok(());
            }
        }
    }

    fn acknowledge(&mut self, receipts: &[Receipt]) {
        self.groups.acknowledge(receipts);
        for receipt in receipts {
            if let Some(link) = self.links.get_mut(&receipt.source) {
                link.acknowledge(receipt.position);
                reached(Failpoint::OwnerAcknowledged);
            }
            for buried in &mut self.buried {
                buried.acknowledge(receipt);
            }
        }
        self.links.values_mut().for_each(Link::send_acknowledgement);
        self.clear_settled();
    }

    fn clear_settled(&mut self) {
        let settled: Vec<Buried> = self.buried.extract_if(.., |buried| buried.is_settled()).collect();
        settled.iter().for_each(|buried| self.clear_away(buried));
    }

    fn keeper_statuses(&self) -> Vec<KeeperStatus> {
        self.links.iter().map(|(name, link)| link.status(self.jobs_of(name).count())).collect()
    }

    /// The running attempts that this keeper holds.
    fn jobs_of(&self, name: &str) -> impl Iterator<Item = &AttemptId> {
        let held = self.running.iter().filter(move |(_, running)| running.keeper.as_deref() == Some(name));
        held.map(|(attempt, _)| attempt)
    }

    fn begin_ending(&mut self, attempt: AttemptId, process: Option<&Process>, plan: EndPlan) {
        if let Some(index) = self.waiting.iter().position(|waiting| *waiting == attempt) {
            self.waiting.remove(index);
            let failure = StartFailure { kind: StartFailureKind::CalledOff, detail: "called off".to_owned() };
            let event = BackendEvent::NotStarted { failure, at: now() };
            return self.host.report(BackendReport { attempt, event, receipt: None });
        }
        let known = self.running.get(&attempt).map(|running| running.process.clone());
        let main = match known.or_else(|| process.and_then(LocalProcess::from_process)) {
            Some(main) => main,
            None => {
                // It is being launched. If it is too late to call it off, the engine asks again once it has started.
                if let Some(flight) = self.in_flight.get_mut(&attempt) {
                    flight.is_called_off = true;
                    if let Some(link) = self.links.get(&flight.keeper) {
                        link.call_off(&attempt);
                    }
                    return;
                }
                if self.undecided.iter().any(|known| known.attempt == attempt) {
                    return;
                }
                // No keeper tells of it. If it was executed all the same, its mark tells.
                LocalProcess::unknown(&self.config.machine)
            }
        };
        let keeper = self.running.get(&attempt).and_then(|running| running.keeper.clone());
        if let Some(keeper) = keeper {
            self.quicken(&keeper);
            self.awaited.insert(attempt.clone());
        }
        match self.endings.get_mut(&attempt) {
            Some(ending) => ending.change_plan(plan),
            None => {
                let mark = launch::mark(&self.config.directory_id, &attempt);
                let group = self.groups.of(&attempt).cloned();
                self.endings.insert(attempt, Ending::new(main, mark, group, plan));
            }
        }
    }

    /// Takes every ending as far as it gets now. All that have to look at the processes share one look.
    fn advance_endings(&mut self) {
        if self.endings.is_empty() {
            return;
        }
        let at = now();
        let mut endings = std::mem::take(&mut self.endings);
        let mut shared: Option<Rc<View>> = None;
        let mut view = || match &shared {
            Some(view) => Ok(Rc::clone(view)),
            None => Ok(Rc::clone(shared.insert(Rc::new(self.view(&self.main_processes())?)))),
        };
        let held: usize = endings.values().map(|ending| ending.held().count()).sum();
        let mut room = ending::max_held().saturating_sub(held);
        let mut told = Vec::new();
        endings.retain(|attempt, ending| {
            let (event, is_over) = match ending.advance(&mut view, &mut room, &self.config.machine, at) {
                Progress::Waiting => return true,
                Progress::Ended(event) => (event, true),
                Progress::Survived(event) => (event, false),
            };
            told.push((attempt.clone(), event));
            !is_over
        });
        self.endings = endings;
        for (attempt, mut event) in told {
            if let BackendEvent::TreeEnded { usage, .. } = &mut event {
                *usage = self.groups.last_usage(&attempt);
            }
            self.host.report(BackendReport { attempt, event, receipt: None });
        }
    }
}

#[derive(Default)]
struct Ready {
    links: Vec<String>,
    endings: Vec<(AttemptId, u32)>,
    /// Whether all that keepers have told is heard together.
    all: bool,
}
