//! The connection to one keeper. Nothing here waits for it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nodejobs_core::backend::{KeeperStatus, Receipt};
use nodejobs_core::id::AttemptId;
use nodejobs_core::time::BootTime;

use super::pulse::Pulse;
use crate::journal::{ENTRY_LEN, Entry, Event, Unreadable, decode_all, without_void_starts};
use crate::keeper::KeeperFiles;
use crate::protocol::{
    FEATURES, GATES, KeeperMessage, LaunchHeader, MESSAGE_LEN, OwnerMessage, PROTOCOL_VERSION, Welcome,
};
use crate::socket;

/// A keeper has two processes that may end while they answer; more often it is not that.
const MOST_CONNECTIONS: u32 = 5;

/// Why a keeper cannot be spoken to, or what it left cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("neither of its processes is alive")]
    Dead,
    #[error("a newer owner, of generation {0}, has taken it over")]
    Superseded(u64),
    #[error("it speaks another protocol")]
    Foreign,
    #[error("it ends every connection")]
    Broken,
    #[error("{journal}: {error}; {way_out}")]
    Journal { journal: String, error: Unreadable, way_out: &'static str },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a keeper has told.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing of consequence.
    Nothing,
    /// Its past is complete.
    Past(Past),
    /// What has happened since.
    Entries(Vec<(u64, Entry)>),
}

/// What a keeper knows when it is spoken to.
#[derive(Debug, Default)]
pub(super) struct Past {
    pub(super) entries: Vec<(u64, Entry)>,
    /// Launches without an outcome so far.
    pub(super) launching: Vec<AttemptId>,
    /// What it does not tell of proves nothing.
    pub(super) is_damaged: bool,
}

/// A keeper that has not told all of its past.
#[derive(Debug)]
struct Greeting {
    is_welcome: bool,
    past: Past,
    /// The position up to which it has told it.
    heard: u64,
}

/// A living keeper.
#[derive(Debug)]
pub(super) struct Link {
    files: KeeperFiles,
    generation: u64,
    socket: OwnedFd,
    tries: u32,
    greeting: Option<Greeting>,
    welcome: Welcome,
    buffer: Vec<u8>,
    told: Told,
    /// The last acknowledgement that found no room.
    unsent: Option<u64>,
    /// It was fenced: this owner launches nothing with it any more.
    is_retired: bool,
    /// Whether it answers.
    pub(super) pulse: Pulse,
}

/// How far a journal was told and acknowledged.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// One more than the position of the last attempt's entry in it. That a program was executed counts as well: until
    /// the store says so, this is all that keeps it from being executed again.
    last_entry: u64,
    acknowledged: u64,
    /// Where the ends of attempts and failed starts are that the keeper was not told to be in the store, oldest first.
    outcomes: VecDeque<u64>,
}

impl Told {
    fn note(&mut self, entries: &[(u64, Entry)]) {
        for (position, entry) in entries {
            match entry {
                Entry::Acknowledged { position } => self.acknowledged = self.acknowledged.max(*position),
                Entry::Attempt { event, .. } => {
                    self.last_entry = self.last_entry.max(position + 1);
                    if !matches!(event, Event::Started { .. }) {
                        self.outcomes.push_back(*position);
                    }
                }
            }
        }
    }

    /// Whether the keeper has to hear that everything before this position is in the store. That a job runs is told along
    /// with its end: until then the keeper needs its start anyway.
    fn wants(&mut self, position: u64) -> bool {
        let before = self.outcomes.len();
        while self.outcomes.front().is_some_and(|outcome| *outcome < position) {
            self.outcomes.pop_front();
        }
        self.outcomes.len() < before
    }
}

impl Link {
    /// Connects, which cuts off earlier owners as soon as it is read.
    ///
    /// Only where nobody listens is nobody alive.
    pub(super) fn connect(files: &KeeperFiles, generation: u64, now: BootTime) -> Result<Self, LinkError> {
        let socket = say_hello(files, generation)?;
        Ok(Self {
            files: files.clone(),
            generation,
            socket,
            tries: 1,
            greeting: Some(Greeting::new()),
            welcome: unknown(),
            buffer: vec![0; MESSAGE_LEN],
            told: Told::default(),
            unsent: None,
            is_retired: false,
            pulse: Pulse::asked(now),
        })
    }

    /// Takes in what it has told: one message, or `all` that wait.
    pub(super) fn receive(&mut self, all: bool, now: BootTime) -> Result<Heard, LinkError> {
        let mut entries = Vec::new();
        loop {
            let message = match understand(socket::receive_at_once(&self.socket, &mut self.buffer)) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                // A worker that is killed while it answers ends the connection, and its guard answers at the same address.
                Err(LinkError::Broken) if self.greeting.is_some() && self.tries < MOST_CONNECTIONS => {
                    self.tries += 1;
                    self.greeting = Some(Greeting::new());
                    self.socket = say_hello(&self.files, self.generation)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.pulse.beats(now);
            if let KeeperMessage::Superseded { generation } = message {
                return Err(LinkError::Superseded(generation));
            }
            if let Some(greeting) = &mut self.greeting {
                greeting.take_in(message, &mut self.welcome)?;
                if greeting.is_over(&self.welcome)
                    && let Some(greeting) = self.greeting.take()
                {
                    self.told.note(&greeting.past.entries);
                    return Ok(Heard::Past(greeting.past));
                }
                continue;
            }
            match message {
                KeeperMessage::Entries { position, raw } => entries.extend(decode_all(position, &raw)),
                KeeperMessage::Pong => {}
                _ => return Err(LinkError::Foreign),
            }
            if !all {
                break;
            }
        }
        if entries.is_empty() {
            return Ok(Heard::Nothing);
        }
        self.told.note(&entries);
        without_void_starts(&mut entries);
        Ok(Heard::Entries(entries))
    }

    /// Whether its past is not known yet.
    pub(super) fn is_greeting(&self) -> bool {
        self.greeting.is_some()
    }

    /// # Errors
    /// `WouldBlock` if it has no room for one more.
    pub(super) fn launch(&mut self, header: LaunchHeader, memfd: &OwnedFd) -> io::Result<()> {
        let message = OwnerMessage::Launch(Box::new(header)).encode();
        socket::send(&self.socket, &message, Some(memfd.as_fd()), false)
    }

    pub(super) fn acknowledge(&mut self, position: u64) {
        if self.told.wants(position) {
            self.unsent = Some(position);
        }
        self.send_acknowledgement();
    }

    /// Says what it had no room for. If the connection has ended, the next one hears the same again, which does no harm.
    pub(super) fn send_acknowledgement(&mut self) {
        let Some(position) = self.unsent else { return };
        let message = OwnerMessage::Acknowledge { position }.encode();
        let sent = socket::send(&self.socket, &message, None, false);
        if !sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.unsent = None;
        }
    }

    /// Says that the launch of an attempt is not wanted any more.
    pub(super) fn call_off(&self, attempt: &AttemptId) {
        if self.has_gates() {
            let message = OwnerMessage::CallOff { attempt: attempt.clone() }.encode();
            // One that has no room is asked again, or fenced.
            let _ = socket::send(&self.socket, &message, None, false);
        }
    }

    /// Asks whether anybody is there; `false` if it cannot be asked.
    pub(super) fn ping(&self) -> bool {
        self.has_gates() && socket::send(&self.socket, &OwnerMessage::Ping.encode(), None, false).is_ok()
    }

    pub(super) fn has_gates(&self) -> bool {
        self.welcome.features & GATES != 0
    }

    pub(super) fn retire(&mut self) {
        self.is_retired = true;
    }

    /// Whether it leaves by itself.
    pub(super) fn is_draining(&self) -> bool {
        self.welcome.draining
    }

    /// Whether everything that it told is in the store, and it has noted that: whoever hung up earlier would take back what
    /// it has not read yet.
    pub(super) fn is_settled(&self) -> bool {
        !self.is_greeting() && self.told.last_entry <= self.told.acknowledged
    }

    pub(super) fn takes_launches(&self) -> bool {
        !self.is_greeting() && !self.is_retired && takes_launches(&self.welcome)
    }

    /// Whether it had ever launched anything when this connection was made.
    pub(super) fn has_history(&self) -> bool {
        self.welcome.end > 0
    }

    /// So many launches stand still that it takes no more.
    pub(super) fn is_stuck(&self) -> bool {
        self.welcome.is_stuck
    }

    /// The process whose children the jobs are.
    pub(super) fn collector(&self) -> Option<u32> {
        self.welcome.worker.or(self.welcome.guard)
    }

    pub(super) fn status(&self, jobs: usize) -> KeeperStatus {
        KeeperStatus {
            pid: self.welcome.guard,
            worker_pid: self.welcome.worker,
            version: self.welcome.program_version.clone(),
            jobs,
            draining: self.welcome.draining || self.is_retired,
            trouble: Vec::new(),
        }
    }
}

impl Greeting {
    fn new() -> Self {
        Self { is_welcome: false, past: Past::default(), heard: 0 }
    }

    fn take_in(&mut self, message: KeeperMessage, welcome: &mut Welcome) -> Result<(), LinkError> {
        match message {
            KeeperMessage::Welcome(said) if !self.is_welcome => {
                self.is_welcome = true;
                self.heard = said.first;
                self.past.is_damaged = said.is_damaged;
                *welcome = said;
            }
            KeeperMessage::Launching { attempt } if self.is_welcome => self.past.launching.push(attempt),
            KeeperMessage::Entries { position, raw } if self.is_welcome => {
                self.heard = position + (raw.len() / ENTRY_LEN) as u64;
                self.past.entries.extend(decode_all(position, &raw));
            }
            _ => return Err(LinkError::Foreign),
        }
        Ok(())
    }

    fn is_over(&mut self, welcome: &Welcome) -> bool {
        let has_told = self.past.launching.len() >= welcome.launching as usize && self.heard >= welcome.end;
        let is_over = self.is_welcome && has_told;
        if is_over {
            without_void_starts(&mut self.past.entries);
        }
        is_over
    }
}

fn say_hello(files: &KeeperFiles, generation: u64) -> Result<OwnedFd, LinkError> {
    let socket = match socket::connect_at_once(&files.directory, &files.socket_name()) {
        Ok(socket) => socket,
        Err(error) if is_nobody_there(&error) => return Err(LinkError::Dead),
        Err(error) => return Err(error.into()),
    };
    let hello = OwnerMessage::Hello { version: PROTOCOL_VERSION, generation, features: FEATURES }.encode();
    match socket::send(&socket, &hello, None, false) {
        // Whoever has ended the connection is heard to have done so.
        Err(error) if !is_nobody_there(&error) => Err(error.into()),
        _ => Ok(socket),
    }
}

/// As long as it has not said.
fn unknown() -> Welcome {
    Welcome {
        version: 0,
        guard: None,
        worker: None,
        draining: false,
        first: 0,
        end: 0,
        program_version: String::new(),
        features: 0,
        launching: 0,
        is_damaged: false,
        is_stuck: false,
    }
}

fn takes_launches(welcome: &Welcome) -> bool {
    // One that does not know all that a launch may ask for would leave it out without a word.
    let knows_all = welcome.features & FEATURES == FEATURES;
    !welcome.draining && welcome.version == PROTOCOL_VERSION && knows_all
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `None` if there is no message.
fn understand(
    received: io::Result<Option<socket::Received<'_>>>,
) -> Result<Option<KeeperMessage>, LinkError> {
    match received {
        Ok(Some(received)) => KeeperMessage::decode(received.bytes).map(Some).map_err(|_| LinkError::Foreign),
        Ok(None) => Err(LinkError::Broken),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if is_nobody_there(&error) => Err(LinkError::Broken),
        Err(error) => Err(error.into()),
    }
}

fn is_nobody_there(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
    )
}

/// What a dead keeper has left behind, kept until everything in it is in the store.
#[derive(Debug)]
pub(super) struct Buried {
    files: KeeperFiles,
    /// One more than the position of the last entry that only this journal tells.
    needed: u64,
    /// Up to where this owner has written it down.
    written: u64,
    /// Where entries are that have not been told, or whose receipts have not come back.
    held: Vec<(AttemptId, u64)>,
    fate: BuriedFate,
}

/// What becomes of a dead keeper's files in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BuriedFate {
    /// They are removed once they are not needed.
    Removed,
    /// They say nothing. They are removed once what followed from that is in the store.
    RemovedAfterRecovery,
    /// The journal is damaged. It is set aside once what followed from that is in the store.
    SetAside,
}

/// Where everything has been written down that followed from a journal which cannot be read.
pub(super) const ALL_WRITTEN: u64 = u64::MAX;

impl Buried {
    pub(super) fn new(files: KeeperFiles, entries: &[(u64, Entry)], fate: BuriedFate) -> Self {
        let acknowledged = entries.iter().filter_map(|(_, entry)| match entry {
            Entry::Acknowledged { position } => Some(*position),
            Entry::Attempt { .. } => None,
        });
        let acknowledged = acknowledged.max().unwrap_or(0);
        // An acknowledgement is of ends. A start is needed as long as its end is, and without an end until this owner has it.
        let mut ended = std::collections::HashMap::new();
        let mut needed = 0;
        for (position, entry) in entries.iter().rev() {
            let Entry::Attempt { attempt, event, .. } = entry else { continue };
            let is_needed = match event {
                Event::Started { .. } => ended.remove(attempt).unwrap_or(true),
                Event::StartFailed(_) | Event::Exited { .. } => {
                    let is_needed = *position >= acknowledged;
                    ended.insert(attempt, is_needed);
                    is_needed
                }
            };
            if is_needed {
                needed = needed.max(position + 1);
            }
        }
        Self { files, needed, written: 0, held: Vec::new(), fate }
    }

    pub(super) fn acknowledge(&mut self, receipt: &Receipt) {
        if receipt.source == self.files.name {
            self.written = self.written.max(receipt.position);
            self.held.retain(|(_, position)| receipt.position != position + 1);
            self.note_answered();
        }
    }

    /// As long as a launch keeps a damaged journal here, the next owner is told that it answers for no later launch.
    fn note_answered(&self) {
        let is_answered = self.fate == BuriedFate::SetAside && self.written == ALL_WRITTEN;
        if is_answered && !self.held.is_empty() {
            // Without it more launches are lost than need be.
            let _ = std::fs::write(self.files.answered(), "");
        }
    }

    /// The entry of an attempt is told later than what follows it, whose receipts do not cover it.
    pub(super) fn hold(&mut self, attempt: &AttemptId, position: u64) {
        self.held.retain(|(held, _)| held != attempt);
        self.held.push((attempt.clone(), position));
    }

    /// Whether it is what this keeper has left.
    pub(super) fn is_of(&self, files: &KeeperFiles) -> bool {
        self.files.name == files.name
    }

    /// Everything that was reported when this owner took over is in the store.
    pub(super) fn recovery_is_written(&mut self) {
        if self.fate != BuriedFate::Removed {
            self.written = ALL_WRITTEN;
            self.note_answered();
        }
    }

    /// Whether nothing in it is needed any more.
    pub(super) fn is_settled(&self) -> bool {
        let is_written = match self.fate {
            BuriedFate::Removed => self.needed <= self.written,
            BuriedFate::RemovedAfterRecovery | BuriedFate::SetAside => self.written == ALL_WRITTEN,
        };
        is_written && self.held.is_empty()
    }

    /// Removes it. Gives a sentence if that is worth one.
    pub(super) fn remove(&self) -> Option<String> {
        let name = &self.files.name;
        match self.fate {
            BuriedFate::SetAside => Some(match self.files.set_aside() {
                Ok(path) => format!(
                    "the damaged journal of keeper {name} is set aside as '{}'; it can be deleted",
                    path.display()
                ),
                Err(error) => {
                    let journal = self.files.journal();
                    format!("the damaged journal '{}' cannot be set aside: {error}", journal.display())
                }
            }),
            BuriedFate::Removed | BuriedFate::RemovedAfterRecovery => {
                self.files.remove(crate::failpoint::Failpoint::OwnerHalfRemoved);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
