//! The connection to one keeper, and what is left of a keeper that is gone.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nodejobs_core::backend::{KeeperStatus, Receipt};

use crate::failpoint::Failpoint;
use crate::journal::{Entry, Event, Journal, decode_all};
use crate::keeper::KeeperFiles;
use crate::protocol::{
    FEATURES, KeeperMessage, LaunchHeader, MESSAGE_LEN, OwnerMessage, PROTOCOL_VERSION, Welcome,
};
use crate::socket;

/// How long a keeper may take to answer a hello. It does nothing that takes long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A keeper has two processes that may end while they answer; more often it is not that.
const MOST_CONNECTIONS: u32 = 5;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("neither of its processes is alive")]
    Dead,
    #[error("it does not answer; is its worker (or its guard) stopped?")]
    Silent,
    #[error("a newer owner, of generation {0}, has taken it over")]
    Superseded(u64),
    #[error("it speaks another protocol")]
    Foreign,
    #[error("it ends every connection")]
    Broken,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A living keeper.
#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
    welcome: Welcome,
    buffer: Vec<u8>,
    told: Told,
}

/// How far a journal was told and acknowledged.
#[derive(Debug, Default)]
struct Told {
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
                Entry::Acknowledged { position } => self.acknowledge(*position),
                Entry::Attempt { event, .. } => {
                    self.last_entry = position + 1;
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

    fn acknowledge(&mut self, position: u64) {
        self.acknowledged = self.acknowledged.max(position);
    }

    /// Whether nothing in it is needed any more.
    fn is_settled(&self) -> bool {
        self.last_entry <= self.acknowledged
    }
}

impl Link {
    /// Connects, cuts off earlier owners, and hears the keeper's past.
    ///
    /// A worker that is killed while it answers ends the connection, and its guard answers at the same address. Only where
    /// nobody listens is nobody alive: whoever took a living guard for dead would wait for ever for the lock it holds.
    pub(super) fn connect(
        files: &KeeperFiles,
        generation: u64,
    ) -> Result<(Self, Vec<(u64, Entry)>), LinkError> {
        for _ in 1..MOST_CONNECTIONS {
            match Self::connect_once(files, generation) {
                Err(LinkError::Broken) => {}
                connected => return connected,
            }
        }
        Self::connect_once(files, generation)
    }

    fn connect_once(files: &KeeperFiles, generation: u64) -> Result<(Self, Vec<(u64, Entry)>), LinkError> {
        let socket = match socket::connect(&files.directory, &files.socket_name()) {
            Ok(socket) => socket,
            Err(error) if is_nobody_there(&error) => return Err(LinkError::Dead),
            Err(error) => return Err(error.into()),
        };
        socket::set_read_timeout(&socket, Some(PATIENCE))?;
        let hello = OwnerMessage::Hello { version: PROTOCOL_VERSION, generation }.encode();
        if let Err(error) = socket::send(&socket, &hello, None, true) {
            return Err(if is_nobody_there(&error) { LinkError::Broken } else { error.into() });
        }
        let mut buffer = vec![0; MESSAGE_LEN];
        let welcome = match read(&socket, &mut buffer)? {
            KeeperMessage::Welcome(welcome) => welcome,
            KeeperMessage::Superseded { generation } => return Err(LinkError::Superseded(generation)),
            KeeperMessage::Entries { .. } => return Err(LinkError::Foreign),
        };
        let mut past = Vec::new();
        let mut heard = welcome.first;
        while heard < welcome.end {
            let KeeperMessage::Entries { position, raw } = read(&socket, &mut buffer)? else {
                return Err(LinkError::Foreign);
            };
            heard = position + (raw.len() / crate::journal::ENTRY_LEN) as u64;
            past.extend(decode_all(position, &raw));
        }
        socket::set_read_timeout(&socket, None)?;
        let mut told = Told::default();
        told.note(&past);
        Ok((Self { socket, welcome, buffer, told }, past))
    }

    /// Reads a message of entries, which must be waiting, or `all` that wait.
    pub(super) fn receive(&mut self, all: bool) -> Result<Vec<(u64, Entry)>, LinkError> {
        let mut entries = Vec::new();
        let mut message = read(&self.socket, &mut self.buffer);
        loop {
            match message? {
                KeeperMessage::Entries { position, raw } => entries.extend(decode_all(position, &raw)),
                KeeperMessage::Superseded { generation } => return Err(LinkError::Superseded(generation)),
                KeeperMessage::Welcome(_) => return Err(LinkError::Foreign),
            }
            if !all {
                break;
            }
            message = understand(socket::receive_at_once(&self.socket, &mut self.buffer));
            if matches!(message, Err(LinkError::Silent)) {
                break;
            }
        }
        self.told.note(&entries);
        Ok(entries)
    }

    pub(super) fn launch(&mut self, header: LaunchHeader, memfd: &OwnedFd) -> io::Result<()> {
        socket::send(
            &self.socket,
            &OwnerMessage::Launch(Box::new(header)).encode(),
            Some(memfd.as_fd()),
            true,
        )
    }

    pub(super) fn acknowledge(&mut self, position: u64) -> io::Result<()> {
        if !self.told.wants(position) {
            return Ok(());
        }
        socket::send(&self.socket, &OwnerMessage::Acknowledge { position }.encode(), None, true)
    }

    /// Whether it leaves by itself.
    pub(super) fn is_draining(&self) -> bool {
        self.welcome.draining
    }

    /// Whether everything that it told is in the store, and it has noted that: whoever hung up earlier would take back what
    /// it has not read yet.
    pub(super) fn is_settled(&self) -> bool {
        self.told.is_settled()
    }

    pub(super) fn takes_launches(&self) -> bool {
        takes_launches(&self.welcome)
    }

    /// Whether it had ever launched anything when this connection was made.
    pub(super) fn has_history(&self) -> bool {
        self.welcome.end > 0
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
            draining: self.welcome.draining,
        }
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

fn read(socket: &OwnedFd, buffer: &mut [u8]) -> Result<KeeperMessage, LinkError> {
    understand(socket::receive(socket, buffer))
}

fn understand(received: io::Result<Option<socket::Received<'_>>>) -> Result<KeeperMessage, LinkError> {
    match received {
        Ok(Some(received)) => KeeperMessage::decode(received.bytes).map_err(|_| LinkError::Foreign),
        Ok(None) => Err(LinkError::Broken),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(LinkError::Silent),
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

/// The journal of a keeper that is gone, kept until everything in it is in the store.
#[derive(Debug)]
pub(super) struct Buried {
    files: KeeperFiles,
    boot_id: String,
    told: Told,
}

impl Buried {
    /// Reads the journal once no launch is in flight any more. A keeper that left in order has left none.
    pub(super) fn open(files: KeeperFiles) -> Result<(Self, Vec<(u64, Entry)>), LinkError> {
        let (boot_id, entries) = match Journal::open_locked(&files.journal()) {
            Ok(journal) => (journal.boot_id().to_owned(), journal.read_all()?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), Vec::new()),
            // Killed while it made the file: it has launched nothing. A journal that is damaged or of another version
            // says nothing of the kind, and what it may have launched must not be launched again.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => (String::new(), Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut told = Told::default();
        told.note(&entries);
        Ok((Self { files, boot_id, told }, entries))
    }

    /// The boot in which it was written.
    pub(super) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    pub(super) fn acknowledge(&mut self, receipt: &Receipt) {
        if receipt.source == self.files.name {
            self.told.acknowledge(receipt.position);
        }
    }

    /// Whether nothing in it is needed any more.
    pub(super) fn is_settled(&self) -> bool {
        self.told.is_settled()
    }

    pub(super) fn remove(&self) {
        self.files.remove(Failpoint::OwnerHalfRemoved);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::time::Instant;

    use nodejobs_core::JobId;
    use nodejobs_core::id::AttemptId;
    use nodejobs_core::logs::LogStart;

    use super::*;
    use crate::journal::Stage;
    use crate::machine::now;

    #[test]
    fn a_start_is_acknowledged_along_with_the_next_outcome() {
        let entry = |position: u64, event| {
            let attempt = AttemptId { id: JobId::new(&format!("j{position}")).expect("valid"), attempt: 1 };
            (position, Entry::Attempt { attempt, event, at: now() })
        };
        let log_start = LogStart::default();
        let started = Event::Started { pid: 1, start_ticks: 1, pidfs: None, log_start };
        let failed = Event::StartFailed { stage: Stage::Exec, errno: 2 };
        let mut told = Told::default();
        told.note(&[entry(0, started), entry(1, started), entry(2, failed), entry(3, started)]);
        assert!(!told.wants(2), "nobody waits for it");
        assert!(told.wants(3) && !told.wants(3) && !told.wants(4));
        told.note(&[entry(4, failed)]);
        assert!(told.wants(5));
    }

    #[test]
    fn a_keeper_that_would_leave_limits_out_gets_no_launches() {
        let welcome = Welcome {
            version: PROTOCOL_VERSION,
            guard: None,
            worker: None,
            draining: false,
            first: 0,
            end: 0,
            program_version: "0.1.0".to_owned(),
            features: FEATURES | 1 << 31,
        };
        assert!(takes_launches(&welcome), "it may know more");
        for other in [
            Welcome { features: 0, ..welcome.clone() },
            Welcome { draining: true, ..welcome.clone() },
            Welcome { version: PROTOCOL_VERSION + 1, ..welcome },
        ] {
            assert!(!takes_launches(&other), "{other:?}");
        }
    }

    #[test]
    fn a_guard_answers_for_its_worker_that_was_killed_over_the_hello() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = KeeperFiles { directory: directory.path().to_owned(), name: "1-1".to_owned() };
        let listener = socket::listen(&files.directory, &files.socket_name()).expect("a listener");
        let deadline = Instant::now() + Duration::from_secs(20);
        let accept = || loop {
            if let Some(socket) = socket::accept(listener.as_fd()).expect("accepted") {
                break socket;
            }
            assert!(Instant::now() < deadline, "nobody connects");
            std::thread::yield_now();
        };
        let keeper = || {
            // The worker, which does not live to answer; the guard, which does.
            drop(accept());
            let welcome = Welcome {
                version: PROTOCOL_VERSION,
                guard: Some(7),
                worker: None,
                draining: true,
                first: 0,
                end: 0,
                program_version: "0".to_owned(),
                features: 0,
            };
            let guard = accept();
            socket::send(&guard, &KeeperMessage::Welcome(welcome).encode(), None, false).expect("sent");
            guard
        };
        let (link, past) = std::thread::scope(|scope| {
            // What it returns stays open until the scope has heard all.
            let _guard = scope.spawn(keeper);
            Link::connect(&files, 1).expect("the guard is there")
        });
        assert_eq!((link.collector(), past.len()), (Some(7), 0));
        drop(listener);
        assert!(matches!(Link::connect(&files, 1), Err(LinkError::Dead)), "nobody listens");
    }
}
