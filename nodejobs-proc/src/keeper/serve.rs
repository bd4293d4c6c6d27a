//! What the worker does, and the guard once the worker is gone: launch, collect, note, tell the owner.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nodejobs_core::id::AttemptId;
use nodejobs_core::job::{ExitStatus, ResourceUsage};
use nodejobs_core::time::BootTime;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::process::Pid;

use super::KeeperFiles;
use super::launchers::Launchers;
use super::launching::{InFlight, Waiting};
use super::remembered::Remembered;
use super::telling::Connection;
use crate::failpoint::{Failpoint, is_chosen, reached};
use crate::gates::{Gates, Passage};
use crate::journal::{Contents, ENTRY_LEN, Entry, EntryBuffer, Event, Journal, StartFailed};
use crate::machine::now;
use crate::protocol::{
    FEATURES, GATES, KeeperMessage, MESSAGE_LEN, OwnerMessage, PROTOCOL_VERSION, RESOURCES, Welcome,
};
use crate::socket;
use crate::sys::{self, ChildExit, Children};

/// Which of the two processes this is.
#[derive(Debug)]
pub(super) enum Role {
    Worker { guard: Pid, guard_alive: io::PipeReader },
    Guard,
}

impl Role {
    fn point(&self, worker: Failpoint, guard: Failpoint) -> Failpoint {
        match self {
            Role::Worker { .. } => worker,
            Role::Guard => guard,
        }
    }
}

/// How long a keeper waits for its first owner, in milliseconds. The owner that started it is a system call away.
const FIRST_OWNER_MS: u64 = 5_000;
/// How long before a journal that could not be written is tried again, in milliseconds.
const RETRY_MS: u64 = 1_000;
/// The journal is rewritten shorter when it has so many entries, most of them of no further use.
const REWRITE_ENTRIES: u64 = 4096;
/// The same for a test that has the worker halt there.
const REWRITE_ENTRIES_TO_HALT: u64 = 16;
/// As long as a launch stands still the journal cannot be rewritten. A keeper whose journal is so long takes no more launches.
const MOST_ENTRIES: u64 = 65_536;
/// Connections at a time: one owner, and those that it replaces.
const MAX_CONNECTIONS: usize = 16;

/// A main process that has not ended.
pub(super) struct Running {
    pub(super) attempt: AttemptId,
    /// Where its start is in the journal.
    pub(super) start: u64,
}

pub(super) struct Keeper {
    pub(super) role: Role,
    pub(super) files: KeeperFiles,
    listener: OwnedFd,
    child_ended: OwnedFd,
    pub(super) journal: Journal,
    pub(super) gates: &'static Gates,
    pub(super) launchers: Launchers,
    /// Launches that have been read, and have no thread yet.
    pub(super) waiting: VecDeque<Waiting>,
    /// Those that have one, by their gates.
    pub(super) launches: Vec<Option<InFlight>>,
    /// When the guard looks again at launches that their worker left unsettled.
    pub(super) look_again: BootTime,
    /// By their main processes.
    pub(super) running: HashMap<u32, Running>,
    pub(super) remembered: Remembered,
    /// Everything before this has been taken in from the journal.
    taken_in: u64,
    /// Where entries are that could not be read back.
    pub(super) unread: Vec<u64>,
    /// The journal that this keeper went on with was damaged.
    is_damaged: bool,
    /// The guard: what its worker's launches have come to.
    passages: Vec<Passage>,
    pub(super) connections: Vec<Connection>,
    /// A start is about to be settled, and what follows it waits to be told.
    pub(super) waits_for_moment: bool,
    /// The newest owner's.
    generation: u64,
    had_owner: bool,
    pub(super) draining: bool,
    /// The worker's guard lives.
    has_guard: bool,
    /// It drains because too many launches stand still.
    was_stuck: bool,
    /// Everything before this is in the owner's store.
    acknowledged: u64,
    /// Where the journal is next rewritten.
    rewrite_at: u64,
    /// Tells when somebody removes the journal.
    journal_watch: OwnedFd,
    /// Somebody has removed the journal, most likely with the whole data directory: nobody will ever ask for it.
    journal_removed: bool,
    /// The journal could not be written: an ended child waits to be collected, or there are failures to be noted.
    journal_full: bool,
    /// Failed launches that could not be noted yet. Nobody would ever answer for them.
    unnoted: Vec<(AttemptId, Event)>,
    /// This process's own soft and hard limits, which its jobs inherit.
    pub(super) own_limits: [Option<(u64, u64)>; RESOURCES],
}

impl Keeper {
    pub(super) fn new(
        role: Role,
        listener: OwnedFd,
        journal: Journal,
        gates: &'static Gates,
        files: &KeeperFiles,
    ) -> io::Result<Self> {
        let draining = matches!(role, Role::Guard);
        let mut keeper = Self {
            role,
            files: files.clone(),
            listener,
            child_ended: sys::child_signal_fd()?,
            journal_watch: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            journal_removed: false,
            gates,
            launchers: Launchers::new()?,
            waiting: VecDeque::new(),
            launches: std::iter::repeat_with(|| None).take(crate::gates::GATES).collect(),
            look_again: BootTime::default(),
            running: HashMap::new(),
            remembered: Remembered::default(),
            taken_in: journal.first(),
            unread: Vec::new(),
            is_damaged: false,
            passages: Vec::new(),
            connections: Vec::new(),
            waits_for_moment: false,
            generation: 0,
            had_owner: draining,
            draining,
            has_guard: true,
            was_stuck: false,
            acknowledged: 0,
            rewrite_at: journal.first() + rewrite_entries(),
            journal_full: false,
            unnoted: Vec::new(),
            own_limits: sys::own_limits(),
            journal,
        };
        keeper.watch_journal();
        Ok(keeper)
    }

    /// Takes in what the journal says, as the guard does when it goes on for the worker.
    pub(super) fn replay(&mut self, contents: Contents, has_bad_gates: bool, passages: Vec<Passage>) {
        self.is_damaged = contents.is_damaged || has_bad_gates;
        self.passages = passages;
        for (position, entry) in contents.entries {
            if self.is_void(&entry) {
                continue;
            }
            let buffer = entry.encode();
            if let Entry::Attempt { attempt, event: Event::Started { pid, .. }, .. } = &entry {
                self.running.insert(*pid, Running { attempt: attempt.clone(), start: position });
            }
            self.take_in_entry(position, buffer, &entry);
        }
        self.taken_in = self.journal.end();
    }

    fn watch_journal(&mut self) {
        // Removing a file that is open changes its attributes; it is deleted only once nobody has it open. Without the
        // watch, a keeper whose directory was removed stays until it is killed.
        let _ = inotify::add_watch(&self.journal_watch, self.files.journal(), WatchFlags::ATTRIB);
    }

    fn journal_changed(&mut self) {
        let mut events = [0; 1024];
        while rustix::io::read(&self.journal_watch, &mut events).is_ok_and(|length| length > 0) {}
        self.journal_removed = self.journal.file().metadata().is_ok_and(|metadata| metadata.nlink() == 0);
    }

    /// Takes in what was appended to the journal, by children as well: only reading it says where it is.
    pub(super) fn take_in(&mut self) {
        let _ = self.journal.refresh_end();
        let mut buffer = [0; 16 * ENTRY_LEN];
        while self.taken_in < self.journal.end() {
            let first = self.taken_in;
            let Ok(raw) = self.journal.read_raw(first, &mut buffer) else {
                // It is told from memory, where that has it.
                self.unread.extend(first..self.journal.end());
                self.taken_in = self.journal.end();
                return;
            };
            let (entries, _) = raw.as_chunks::<ENTRY_LEN>();
            self.taken_in += entries.len() as u64;
            for (position, bytes) in (first..).zip(entries) {
                match Entry::decode(bytes) {
                    Ok(entry) if self.is_void(&entry) => {}
                    Ok(entry) => self.take_in_entry(position, EntryBuffer::of(bytes), &entry),
                    Err(_) => self.unread.push(position),
                }
            }
        }
    }

    /// The guard: whether it is of a child that did not go through its gate before its worker died.
    fn is_void(&self, entry: &Entry) -> bool {
        self.passages.iter().any(|passage| passage.makes_void(entry))
    }

    fn take_in_entry(&mut self, position: u64, buffer: EntryBuffer, entry: &Entry) {
        let (attempt, event) = match entry {
            Entry::Acknowledged { position: before } => {
                self.acknowledged = self.acknowledged.max(*before);
                return self.remembered.acknowledged(self.acknowledged, Some((position, buffer)));
            }
            Entry::Attempt { attempt, event, .. } => (attempt, event),
        };
        // Another launch of that attempt may stand still for good, with its gate closed.
        let gates = self.gates;
        let mut launches =
            self.launches.iter_mut().enumerate().filter_map(|(at, it)| Some((at, it.as_mut()?)));
        let launch =
            launches.find(|(at, launch)| launch.attempt == *attempt && !launch.is_over(gates.gate(*at)));
        let launch = launch.map(|(_, launch)| launch);
        match event {
            Event::Started { .. } => {
                if let Some(launch) = launch {
                    launch.start = Some(position);
                } else if matches!(self.role, Role::Worker { .. }) {
                    // Its gate is closed.
                    return;
                }
                self.remembered.started(position, buffer);
            }
            Event::StartFailed(failed) => {
                if let (Some(launch), Some(_), Role::Worker { .. }) = (launch, failed.child, &self.role) {
                    // It counts if the child goes through its gate.
                    launch.failure = Some((position, buffer));
                    return;
                }
                let of_running = self.running.extract_if(|_, running| running.attempt == *attempt);
                let starts: Vec<u64> = of_running.map(|(_, running)| running.start).collect();
                starts.into_iter().for_each(|start| self.remembered.take_back(start));
                self.remembered.ended(position, buffer, None);
            }
            Event::Exited { pid, .. } => {
                let start = self.running.remove(pid).map(|running| running.start);
                self.remembered.ended(position, buffer, start);
            }
        }
    }

    pub(super) fn serve(mut self) -> ! {
        // What ended before this process was there to hear of it.
        self.collect();
        let mut buffer = vec![0; MESSAGE_LEN];
        loop {
            self.tell_owners();
            if self.rewrite_journal() {
                self.tell_owners();
            }
            self.dispatch();
            if !self.draining && (self.is_stuck() || self.journal.end() - self.journal.first() > MOST_ENTRIES)
            {
                self.was_stuck = true;
                self.drain();
            }
            if self.may_leave() {
                self.leave();
            }
            // Nothing here can fail for good; trying again is all there is to do.
            let Ok(ready) = self.wait() else { continue };
            let Ready { child_ended, guard_gone, connecting, journal_changed, settled, readable } = ready;
            if journal_changed {
                self.journal_changed();
            }
            if child_ended {
                // There is never more than one: the signal says that some child has ended.
                let _ = rustix::io::read(&self.child_ended, &mut [0; 512]);
            }
            if settled {
                self.settle();
            } else if child_ended || self.journal_full {
                self.collect();
            }
            self.look_at_unsettled();
            if guard_gone {
                self.has_guard = false;
                self.drain();
                continue;
            }
            for index in readable.into_iter().rev() {
                let connections = self.connections.len();
                self.receive(index, &mut buffer);
                if self.connections.len() != connections {
                    // The indices have changed; whoever is still waiting is still readable.
                    break;
                }
            }
            if connecting {
                self.accept();
            }
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let guard_pipe = match &self.role {
            Role::Worker { guard_alive, .. } if self.has_guard => Some(guard_alive.as_fd()),
            _ => None,
        };
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.child_ended.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.journal_watch.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.launchers.as_fd(), PollFlags::IN),
        ];
        let first = fds.len();
        for connection in &self.connections {
            let flags = if connection.blocked { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            fds.push(PollFd::from_borrowed_fd(connection.socket.as_fd(), flags));
        }
        fds.extend(guard_pipe.map(|pipe: BorrowedFd<'_>| PollFd::from_borrowed_fd(pipe, PollFlags::empty())));
        let at = now().boot;
        let millis = match (self.journal_full, self.had_owner) {
            (true, _) => Some(RETRY_MS),
            (false, false) => Some(FIRST_OWNER_MS),
            (false, true) => None,
        };
        // One more, so that the deadline has passed when this returns.
        let launches = self.launches_deadline().map(|deadline| deadline.millis_since(at) + 1);
        let timeout = millis.into_iter().chain(launches).min().map(|millis| Timespec {
            tv_sec: (millis / 1000).cast_signed(),
            tv_nsec: (millis % 1000 * 1_000_000).cast_signed(),
        });
        let count = rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref()))?;
        if count == 0 && !self.had_owner && !self.journal_full {
            self.leave();
        }
        let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        let connections = first..first + self.connections.len();
        Ok(Ready {
            child_ended: is_ready(0),
            connecting: is_ready(1),
            journal_changed: is_ready(2),
            settled: is_ready(3),
            guard_gone: guard_pipe.is_some() && is_ready(connections.end),
            readable: connections.filter(|index| is_ready(*index)).map(|index| index - first).collect(),
        })
    }

    fn accept(&mut self) {
        if let Ok(Some(socket)) = socket::accept(self.listener.as_fd())
            && self.connections.len() < MAX_CONNECTIONS
        {
            self.connections.push(Connection::new(socket));
        }
    }

    fn receive(&mut self, index: usize, buffer: &mut [u8]) {
        let connection = &mut self.connections[index];
        connection.blocked = false;
        let (message, descriptor) = match socket::receive(&connection.socket, buffer) {
            Ok(Some(received)) => (OwnerMessage::decode(received.bytes), received.descriptor),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok(None) | Err(_) => {
                self.connections.remove(index);
                return;
            }
        };
        match (message, connection.generation, descriptor) {
            (Ok(OwnerMessage::Hello { generation, features, .. }), None, _) => {
                self.hello(index, generation, features);
            }
            (Ok(OwnerMessage::Acknowledge { position }), Some(_), _) => self.acknowledge(position),
            (Ok(OwnerMessage::CallOff { attempt }), Some(_), _) => self.call_off(&attempt),
            (Ok(OwnerMessage::Ping), Some(_), _) => {
                // Who does not read hears nothing, and asks again.
                let _ = socket::send(&connection.socket, &KeeperMessage::Pong.encode(), None, false);
            }
            (Ok(OwnerMessage::Launch(header)), Some(generation), Some(memfd)) if !self.draining => {
                reached(Failpoint::WorkerReceived);
                self.waiting.push_back(Waiting { header, memfd, generation });
            }
            // Whoever asks for a launch here has overlooked that this keeper is draining; whoever says anything else is
            // not an owner that this keeper can serve.
            _ => {
                self.connections.remove(index);
            }
        }
    }

    fn hello(&mut self, index: usize, generation: u64, features: u32) {
        if generation < self.generation {
            let superseded = KeeperMessage::Superseded { generation: self.generation };
            let connection = self.connections.remove(index);
            let _ = socket::send(&connection.socket, &superseded.encode(), None, false);
            return;
        }
        self.generation = generation;
        self.had_owner = true;
        reached(Failpoint::WorkerObeys);
        self.take_in();
        // Others have never heard of launches that take a while: to them a start is told when it is noted.
        let unsettled = if features & GATES == 0 { Vec::new() } else { self.unsettled() };
        let welcome = Welcome {
            version: PROTOCOL_VERSION,
            guard: self.guard_pid(),
            worker: self.worker_pid(),
            draining: self.draining,
            first: self.journal.first(),
            end: self.journal.end(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            features: FEATURES,
            launching: u32::try_from(unsettled.len()).unwrap_or(u32::MAX),
            is_damaged: self.is_damaged,
            is_stuck: self.was_stuck,
        };
        let connection = &mut self.connections[index];
        connection.generation = Some(generation);
        connection.features = features;
        connection.cursor = self.journal.first();
        connection.past_end = Some(welcome.end);
        let launching = unsettled.into_iter().map(|attempt| KeeperMessage::Launching { attempt });
        for message in std::iter::once(KeeperMessage::Welcome(welcome)).chain(launching) {
            let _ = socket::send(&connection.socket, &message.encode(), None, false);
        }
        // Fencing: what earlier owners have sent and nobody has read goes with their connections.
        let mut current = 0..;
        self.connections.retain(|connection| {
            let is_new = current.next() == Some(index);
            is_new || connection.generation.is_none()
        });
    }

    fn guard_pid(&self) -> Option<u32> {
        match &self.role {
            Role::Worker { guard, .. } => self.has_guard.then(|| guard.as_raw_pid().unsigned_abs()),
            Role::Guard => Some(std::process::id()),
        }
    }

    fn worker_pid(&self) -> Option<u32> {
        matches!(self.role, Role::Worker { .. }).then(std::process::id)
    }

    /// Takes no more launches. The owner notices because its connection ends, and hears why when it comes back; what
    /// it had sent and nobody has read ends with the connection.
    fn drain(&mut self) {
        self.draining = true;
        self.waiting.clear();
        self.connections.retain(|connection| connection.generation.is_none());
    }

    fn acknowledge(&mut self, position: u64) {
        let position = position.min(self.journal.end());
        if position > self.acknowledged {
            self.acknowledged = position;
            // If it cannot be noted, the next reader of the journal repeats what the owner knows already.
            if self.journal.append(&Entry::Acknowledged { position }.encode()).is_ok() {
                self.take_in();
            }
            self.remembered.acknowledged(position, None);
            reached(Failpoint::WorkerAcknowledged);
        }
    }

    pub(super) fn note_start_failure(&mut self, attempt: &AttemptId, failure: StartFailed) {
        let event = Event::StartFailed(failure);
        if !self.note_outcome(attempt, event, None) {
            self.unnoted.push((attempt.clone(), event));
            self.journal_full = true;
        }
    }

    fn note_outcome(&mut self, attempt: &AttemptId, event: Event, start: Option<u64>) -> bool {
        let entry = Entry::Attempt { attempt: attempt.clone(), event, at: now() }.encode();
        let before = self.taken_in;
        if self.journal.append(&entry).is_err() {
            return false;
        }
        self.take_in();
        let is_taken_in = self.remembered.from(before).any(|(_, taken)| taken.as_bytes() == entry.as_bytes());
        if !is_taken_in {
            // It cannot be read back, so it is told from here.
            let position = self.unread.pop().unwrap_or(before);
            self.remembered.ended(position, entry, start);
        }
        true
    }

    /// Looks at each child that ended, writes its status down, and only then collects it. Whoever is killed in
    /// between leaves a status that is seen twice, never one that is lost.
    pub(super) fn collect(&mut self) {
        self.journal_full = false;
        for (attempt, event) in std::mem::take(&mut self.unnoted) {
            if !self.note_outcome(&attempt, event, None) {
                self.unnoted.push((attempt, event));
                self.journal_full = true;
            }
        }
        while let Ok(Some(exit)) = sys::wait_child(Children::AnyEnded) {
            reached(self.role.point(Failpoint::WorkerPeeked, Failpoint::GuardPeeked));
            if !self.running.contains_key(&exit.pid) && self.is_of_launch(exit.pid) {
                return;
            }
            self.ended_unsettled(exit.pid);
            if let Some(running) = self.running.get(&exit.pid) {
                let (attempt, start) = (running.attempt.clone(), running.start);
                let usage = ResourceUsage { cpu_ms: exit.cpu_us / 1000, peak_memory_kib: exit.peak_kib };
                let event = Event::Exited { pid: exit.pid, exit: exit_status(&exit), usage };
                if !self.note_outcome(&attempt, event, Some(start)) {
                    // It stays a zombie, which is the safest place for its status until there is room.
                    self.journal_full = true;
                    return;
                }
                self.running.remove(&exit.pid);
                reached(self.role.point(Failpoint::WorkerNoted, Failpoint::GuardNoted));
            }
            let _ = sys::reap(exit.pid);
            reached(self.role.point(Failpoint::WorkerReaped, Failpoint::GuardReaped));
        }
    }

    /// Whether the journal is to be made shorter as soon as no child may write to it.
    pub(super) fn is_to_rewrite(&self) -> bool {
        let is_read = self.connections.iter().all(|connection| !connection.blocked);
        self.journal.end() >= self.rewrite_at && is_read
    }

    /// Keeps the journal from growing with history. Says whether it was rewritten.
    fn rewrite_journal(&mut self) -> bool {
        let is_in_use = self.launches.iter().any(Option::is_some);
        if is_in_use || !self.is_to_rewrite() || !self.has_told_all() {
            return false;
        }
        self.take_in();
        let count = self.remembered.len() as u64;
        let kept = self.remembered.from(0).map(|(_, entry)| entry);
        let is_rewritten = self.journal.rewrite(kept).is_ok();
        if is_rewritten {
            reached(Failpoint::WorkerRewritten);
            let places = self.remembered.renumber(self.journal.first());
            for running in self.running.values_mut() {
                running.start = places.get(&running.start).copied().unwrap_or(running.start);
            }
            self.taken_in = self.journal.end();
            self.unread.clear();
            self.watch_journal();
        }
        self.rewrite_at = self.journal.end() + rewrite_entries().max(count);
        is_rewritten
    }

    fn may_leave(&self) -> bool {
        let has_owner = self.connections.iter().any(|connection| connection.generation.is_some());
        let is_wanted = !self.draining && (has_owner || !self.had_owner);
        let is_being_asked = self.connections.iter().any(|connection| connection.generation.is_none());
        self.running.is_empty()
            && self.launches_are_over()
            && self.unnoted.is_empty()
            && (self.remembered.is_settled() || self.journal_removed)
            && !is_wanted
            && !is_being_asked
    }

    fn leave(&self) -> ! {
        // What has these names now, if anything, is another keeper's.
        if !self.journal_removed {
            reached(self.role.point(Failpoint::WorkerLeaving, Failpoint::GuardLeaving));
            self.files.remove(self.role.point(Failpoint::WorkerHalfRemoved, Failpoint::GuardHalfRemoved));
        }
        std::process::exit(0)
    }
}

struct Ready {
    child_ended: bool,
    guard_gone: bool,
    connecting: bool,
    journal_changed: bool,
    settled: bool,
    readable: Vec<usize>,
}

fn rewrite_entries() -> u64 {
    let halts = [Failpoint::WorkerRewriting, Failpoint::WorkerRewritten].into_iter().any(is_chosen);
    if halts { REWRITE_ENTRIES_TO_HALT } else { REWRITE_ENTRIES }
}

fn exit_status(exit: &ChildExit) -> ExitStatus {
    match exit.code {
        libc::CLD_EXITED => ExitStatus::Code(exit.status),
        code => ExitStatus::Signal { number: exit.status, core_dumped: code == libc::CLD_DUMPED },
    }
}
