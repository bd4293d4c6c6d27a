//! What the worker does, and the guard once the worker is gone: launch, collect, note, tell the owner.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nodejobs_core::id::AttemptId;
use nodejobs_core::job::{ExitStatus, ResourceUsage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::process::Pid;

use super::KeeperFiles;
use crate::failpoint::{Failpoint, is_chosen, reached};
use crate::holder;
use crate::journal::{Entry, EntryBuffer, Event, Journal, Stage};
use crate::launch::Unpacked;
use crate::machine::now;
use crate::protocol::{
    ENTRIES_LEN, FEATURES, KeeperMessage, LaunchHeader, MESSAGE_LEN, OwnerMessage, PROTOCOL_VERSION,
    RESOURCES, Welcome,
};
use crate::socket;
use crate::sys::child::{ChildPlan, ChildStack, Progress, spawn};
use crate::sys::{self, ChildExit, Children};
use crate::trace;

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

/// How long a keeper waits for its first owner, in seconds. The owner that started it is a system call away.
const FIRST_OWNER_SECONDS: i64 = 5;
/// How long before a journal that could not be written is tried again, in seconds.
const RETRY_SECONDS: i64 = 1;
/// The journal is rewritten shorter when it has so many entries, most of them of no further use.
const REWRITE_ENTRIES: u64 = 4096;
/// The same for a test that has the worker halt there.
const REWRITE_ENTRIES_TO_HALT: u64 = 16;
/// Connections at a time: one owner, and those that it replaces.
const MAX_CONNECTIONS: usize = 16;

struct Connection {
    socket: OwnedFd,
    /// Set by its hello.
    generation: Option<u64>,
    /// The next journal entry it has to be told.
    cursor: u64,
    /// The socket was full.
    blocked: bool,
}

pub(super) struct Keeper {
    role: Role,
    files: KeeperFiles,
    listener: OwnedFd,
    child_ended: OwnedFd,
    journal: Journal,
    /// The main processes of attempts that have not ended.
    running: HashMap<u32, AttemptId>,
    connections: Vec<Connection>,
    /// The newest owner's.
    generation: u64,
    had_owner: bool,
    draining: bool,
    /// Everything before this is in the owner's store.
    acknowledged: u64,
    /// The newest entry that the owner has to acknowledge before this keeper may leave.
    last_outcome: Option<u64>,
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
    stack: ChildStack,
    /// This process's own soft and hard limits, which its jobs inherit.
    own_limits: [Option<(u64, u64)>; RESOURCES],
}

impl Keeper {
    pub(super) fn new(
        role: Role,
        listener: OwnedFd,
        journal: Journal,
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
            running: HashMap::new(),
            connections: Vec::new(),
            generation: 0,
            had_owner: draining,
            draining,
            acknowledged: 0,
            last_outcome: None,
            rewrite_at: journal.first() + rewrite_entries(),
            journal_full: false,
            unnoted: Vec::new(),
            stack: ChildStack::new(),
            own_limits: sys::own_limits(),
            journal,
        };
        for (position, entry) in keeper.journal.read_all()? {
            keeper.replay(position, entry);
        }
        keeper.watch_journal();
        Ok(keeper)
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

    /// Takes in what the journal says, as the guard does when it goes on for the worker.
    fn replay(&mut self, position: u64, entry: Entry) {
        match entry {
            Entry::Acknowledged { position } => self.acknowledged = self.acknowledged.max(position),
            Entry::Attempt { attempt, event, .. } => match event {
                Event::Started { pid, .. } => {
                    self.running.insert(pid, attempt);
                }
                Event::StartFailed { .. } => {
                    self.running.retain(|_, running| *running != attempt);
                    self.last_outcome = Some(position);
                }
                Event::Exited { pid, .. } => {
                    self.running.remove(&pid);
                    self.last_outcome = Some(position);
                }
            },
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
            if self.may_leave() {
                self.leave();
            }
            // Nothing here can fail for good; trying again is all there is to do.
            let Ok(ready) = self.wait() else { continue };
            let Ready { child_ended, guard_gone, connecting, journal_changed, readable } = ready;
            if journal_changed {
                self.journal_changed();
            }
            if child_ended {
                // There is never more than one: the signal says that some child has ended.
                let _ = rustix::io::read(&self.child_ended, &mut [0; 512]);
            }
            if child_ended || self.journal_full {
                self.collect();
            }
            if guard_gone {
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
            Role::Worker { guard_alive, .. } if !self.draining => Some(guard_alive.as_fd()),
            _ => None,
        };
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.child_ended.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.journal_watch.as_fd(), PollFlags::IN),
        ];
        for connection in &self.connections {
            let flags = if connection.blocked { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            fds.push(PollFd::from_borrowed_fd(connection.socket.as_fd(), flags));
        }
        fds.extend(guard_pipe.map(|pipe: BorrowedFd<'_>| PollFd::from_borrowed_fd(pipe, PollFlags::empty())));
        let seconds = match (self.journal_full, self.had_owner) {
            (true, _) => Some(RETRY_SECONDS),
            (false, false) => Some(FIRST_OWNER_SECONDS),
            (false, true) => None,
        };
        let timeout = seconds.map(|tv_sec| Timespec { tv_sec, tv_nsec: 0 });
        let count = rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref()))?;
        if count == 0 && !self.had_owner && !self.journal_full {
            self.leave();
        }
        let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        let connections = 3..3 + self.connections.len();
        Ok(Ready {
            child_ended: is_ready(0),
            connecting: is_ready(1),
            journal_changed: is_ready(2),
            guard_gone: guard_pipe.is_some() && is_ready(connections.end),
            readable: connections.filter(|index| is_ready(*index)).map(|index| index - 3).collect(),
        })
    }

    fn accept(&mut self) {
        if let Ok(Some(socket)) = socket::accept(self.listener.as_fd())
            && self.connections.len() < MAX_CONNECTIONS
        {
            self.connections.push(Connection { socket, generation: None, cursor: 0, blocked: false });
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
            (Ok(OwnerMessage::Hello { generation, .. }), None, _) => self.hello(index, generation),
            (Ok(OwnerMessage::Acknowledge { position }), Some(_), _) => self.acknowledge(position),
            (Ok(OwnerMessage::Launch(header)), Some(_), Some(memfd)) if !self.draining => {
                reached(Failpoint::WorkerReceived);
                self.launch(&header, memfd);
                reached(Failpoint::WorkerLaunched);
            }
            // Whoever asks for a launch here has overlooked that this keeper is draining; whoever says anything else is
            // not an owner that this keeper can serve.
            _ => {
                self.connections.remove(index);
            }
        }
    }

    fn hello(&mut self, index: usize, generation: u64) {
        if generation < self.generation {
            let superseded = KeeperMessage::Superseded { generation: self.generation };
            let connection = self.connections.remove(index);
            let _ = socket::send(&connection.socket, &superseded.encode(), None, false);
            return;
        }
        self.generation = generation;
        self.had_owner = true;
        reached(Failpoint::WorkerObeys);
        let welcome = KeeperMessage::Welcome(Welcome {
            version: PROTOCOL_VERSION,
            guard: self.guard_pid(),
            worker: self.worker_pid(),
            draining: self.draining,
            first: self.journal.first(),
            end: self.journal.end(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            features: FEATURES,
        });
        let connection = &mut self.connections[index];
        connection.generation = Some(generation);
        connection.cursor = self.journal.first();
        let _ = socket::send(&connection.socket, &welcome.encode(), None, false);
        // Fencing: what earlier owners have sent and nobody has read goes with their connections.
        let mut current = 0..;
        self.connections.retain(|connection| {
            let is_new = current.next() == Some(index);
            is_new || connection.generation.is_none()
        });
    }

    fn guard_pid(&self) -> Option<u32> {
        match &self.role {
            Role::Worker { guard, .. } => (!self.draining).then(|| guard.as_raw_pid().unsigned_abs()),
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
        self.connections.retain(|connection| connection.generation.is_none());
    }

    fn acknowledge(&mut self, position: u64) {
        let position = position.min(self.journal.end());
        if position > self.acknowledged {
            self.acknowledged = position;
            // If it cannot be noted, the next reader of the journal repeats what the owner knows already.
            let _ = self.journal.append(&Entry::Acknowledged { position });
            reached(Failpoint::WorkerAcknowledged);
        }
    }

    fn launch(&mut self, header: &LaunchHeader, memfd: OwnedFd) {
        let attempt = &header.attempt;
        let unpacked = match Unpacked::read(header, memfd) {
            Ok(unpacked) => unpacked,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                return self.note_start_failure(attempt, Stage::Message, errno);
            }
        };
        let Ok(group) = header.group.clone().map(CString::new).transpose() else {
            return self.note_start_failure(attempt, Stage::Message, libc::EINVAL);
        };
        // Closed here when the child has it.
        let held = header.held.map(|held| {
            holder::start(
                held,
                attempt,
                &self.files.directory,
                unpacked.stdout(),
                header.limits.user.as_ref(),
            )
        });
        let given = match held.transpose() {
            Ok(given) => given,
            Err((stage, error)) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                return self.note_start_failure(attempt, stage, errno);
            }
        };
        let mut limits = header.soft_limits.map(|soft| soft.map(|soft| (soft, u64::MAX)));
        if let Some(hard) = header
            .trace
            .zip(self.own_limits[libc::RLIMIT_RSS as usize])
            .and_then(|(of_mark, (_, own))| trace::hard_limit(of_mark, own))
        {
            let place = &mut limits[libc::RLIMIT_RSS as usize];
            *place = Some((place.map_or(u64::MAX, |(soft, _)| soft), hard));
        }
        let rlimits: Vec<(u32, u64, u64)> = (0..)
            .zip(limits.into_iter().zip(self.own_limits))
            .filter(|(_, (limit, own))| !limit.zip(*own).is_some_and(|(limit, own)| is_inherited(limit, own)))
            .filter_map(|(number, (limit, _))| limit.map(|(soft, hard)| (number, soft, hard)))
            .collect();
        let mut entry = EntryBuffer::for_attempt(attempt);
        let mut plan = ChildPlan {
            candidates: &unpacked.candidates(),
            argv: &mut unpacked.argv(),
            envp: &unpacked.envp(),
            cwd: unpacked.cwd(),
            stdin: unpacked.stdin(),
            stdout: unpacked.stdout(),
            stderr: unpacked.stderr(),
            given: given.as_ref().map(holder::End::given),
            umask: header.umask,
            rlimits: &rlimits,
            limits: &header.limits,
            group: group.as_deref(),
            journal: self.journal.file().as_raw_fd(),
            entry: &mut entry,
        };
        let spawned = spawn(&mut self.stack, &mut plan);
        let _ = self.journal.refresh_end();
        match spawned {
            Err(error) => {
                self.note_start_failure(attempt, Stage::Fork, error.raw_os_error().unwrap_or(libc::EAGAIN));
            }
            Ok((pid, Progress::Noted)) => {
                self.running.insert(pid, attempt.clone());
            }
            Ok((_, Progress::FailureNoted)) => self.last_outcome = self.journal.end().checked_sub(1),
            Ok((_, Progress::FailureNotNoted(errno))) => {
                self.note_start_failure(attempt, Stage::Journal, errno);
            }
            Ok((_, Progress::NotNoted)) => self.note_start_failure(attempt, Stage::Killed, 0),
        }
    }

    fn note_start_failure(&mut self, attempt: &AttemptId, stage: Stage, errno: i32) {
        let event = Event::StartFailed { stage, errno };
        if !self.note_outcome(attempt, event) {
            self.unnoted.push((attempt.clone(), event));
            self.journal_full = true;
        }
    }

    fn note_outcome(&mut self, attempt: &AttemptId, event: Event) -> bool {
        let entry = Entry::Attempt { attempt: attempt.clone(), event, at: now() };
        let noted = self.journal.append(&entry).is_ok();
        if noted {
            self.last_outcome = Some(self.journal.end() - 1);
        }
        noted
    }

    /// Looks at each child that ended, writes its status down, and only then collects it. Whoever is killed in
    /// between leaves a status that is seen twice, never one that is lost.
    fn collect(&mut self) {
        self.journal_full = false;
        for (attempt, event) in std::mem::take(&mut self.unnoted) {
            if !self.note_outcome(&attempt, event) {
                self.unnoted.push((attempt, event));
                self.journal_full = true;
            }
        }
        while let Ok(Some(exit)) = sys::wait_child(Children::AnyEnded) {
            reached(self.role.point(Failpoint::WorkerPeeked, Failpoint::GuardPeeked));
            if let Some(attempt) = self.running.remove(&exit.pid) {
                let usage = ResourceUsage { cpu_ms: exit.cpu_us / 1000, peak_memory_kib: exit.peak_kib };
                let event = Event::Exited { pid: exit.pid, exit: exit_status(&exit), usage };
                if !self.note_outcome(&attempt, event) {
                    // It stays a zombie, which is the safest place for its status until there is room.
                    self.running.insert(exit.pid, attempt);
                    self.journal_full = true;
                    return;
                }
                reached(self.role.point(Failpoint::WorkerNoted, Failpoint::GuardNoted));
            }
            let _ = sys::reap(exit.pid);
            reached(self.role.point(Failpoint::WorkerReaped, Failpoint::GuardReaped));
        }
    }

    fn tell_owners(&mut self) {
        let mut raw = [0; ENTRIES_LEN];
        let journal = &self.journal;
        self.connections.retain_mut(|connection| {
            while connection.generation.is_some() && !connection.blocked && connection.cursor < journal.end()
            {
                let Ok(mut entries) = journal.read_raw(connection.cursor, &mut raw) else { return false };
                if connection.cursor + entry_count(entries) < journal.end() {
                    entries = crate::journal::without_last_start(entries);
                }
                let count = entry_count(entries);
                let message = KeeperMessage::Entries { position: connection.cursor, raw: entries.to_vec() };
                match socket::send(&connection.socket, &message.encode(), None, false) {
                    Ok(()) => {
                        connection.cursor += count;
                        reached(Failpoint::WorkerTold);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => connection.blocked = true,
                    Err(_) => return false,
                }
            }
            true
        });
    }

    /// Keeps the journal from growing with history. Says whether it was rewritten.
    fn rewrite_journal(&mut self) -> bool {
        let heard_all = self
            .connections
            .iter()
            .all(|connection| connection.generation.is_none() || connection.cursor == self.journal.end());
        if self.journal.end() < self.rewrite_at || !heard_all {
            return false;
        }
        let Ok(entries) = self.journal.read_all() else { return false };
        let kept: Vec<(Entry, bool)> = entries
            .into_iter()
            .filter_map(|(position, entry)| match &entry {
                // Also of one that has ended, if the owner has heard of neither: its end alone does not say who it was.
                Entry::Attempt { attempt, event: Event::Started { pid, .. }, .. } => {
                    let is_needed = position >= self.acknowledged || self.running.get(pid) == Some(attempt);
                    is_needed.then_some((entry, false))
                }
                Entry::Attempt { .. } => (position >= self.acknowledged).then_some((entry, true)),
                Entry::Acknowledged { .. } => None,
            })
            .collect();
        let outcomes: Vec<bool> = kept.iter().map(|(_, is_outcome)| *is_outcome).collect();
        let entries: Vec<Entry> = kept.into_iter().map(|(entry, _)| entry).collect();
        let is_rewritten = self.journal.rewrite(&entries).is_ok();
        if is_rewritten {
            reached(Failpoint::WorkerRewritten);
            let first = self.journal.first();
            let last = outcomes.iter().rposition(|is_outcome| *is_outcome);
            self.last_outcome = last.map(|index| first + index as u64);
            self.watch_journal();
        }
        self.rewrite_at = self.journal.end() + REWRITE_ENTRIES.max(entries.len() as u64);
        is_rewritten
    }

    fn may_leave(&self) -> bool {
        let all_told = self.last_outcome.is_none_or(|position| position < self.acknowledged);
        let has_owner = self.connections.iter().any(|connection| connection.generation.is_some());
        let is_wanted = !self.draining && (has_owner || !self.had_owner);
        let is_being_asked = self.connections.iter().any(|connection| connection.generation.is_none());
        self.running.is_empty()
            && self.unnoted.is_empty()
            && (all_told || self.journal_removed)
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
    readable: Vec<usize>,
}

fn rewrite_entries() -> u64 {
    let halts = [Failpoint::WorkerRewriting, Failpoint::WorkerRewritten].into_iter().any(is_chosen);
    if halts { REWRITE_ENTRIES_TO_HALT } else { REWRITE_ENTRIES }
}

/// Whether a child has this soft limit, and this bound of the hard one, by inheriting its parent's own limits.
fn is_inherited((soft, bound): (u64, u64), (own_soft, own_hard): (u64, u64)) -> bool {
    bound >= own_hard && soft.min(own_hard) == own_soft
}

fn entry_count(raw: &[u8]) -> u64 {
    (raw.len() / crate::journal::ENTRY_LEN) as u64
}

fn exit_status(exit: &ChildExit) -> ExitStatus {
    match exit.code {
        libc::CLD_EXITED => ExitStatus::Code(exit.status),
        code => ExitStatus::Signal { number: exit.status, core_dumped: code == libc::CLD_DUMPED },
    }
}
