//! Gates: what proves that a launch never executed anything.
//!
//! A child that is being launched opens files, enters directories and reads the program from a disk, and each of these
//! may hang, for good and unkillably. So nobody waits for it. Instead the last thing it does before it may execute
//! anything is to go through its **gate**: a compare-and-set in a page that it shares with its worker, its guard and, if
//! need be, the owner. It notes itself in the journal just before. Whoever needs to know closes the gate. If that comes
//! first, the child will never execute anything, whenever it wakes up, and what it has noted is void; if not, the journal
//! tells of it. Either way the answer is there at once.
//!
//! The **fence** forbids launches of earlier owners: a halted keeper may open a gate after everybody has looked.
//!
//! The page is a file beside the journal, in the memory of all who use it. It has to outlive processes, not power.
//! Little-endian words of 64 bits; a header and [`GATES`] slots of 32 words each:
//!
//! ```text
//! header  0 magic  1 fence  2 strangers collected  3 guard  4 its start  5 worker  6 its start  7 checksum of 0 and 3 to 6
//! slot    0 state  1 stage << 32 | pid  2 generation  3 opened, in ms since the boot  4 attempt << 8 | id length
//!         5 checksum of 2 to 4 and the id  16 to 31 the id
//! ```

pub(crate) mod closing;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use nodejobs_core::id::{AttemptId, JobId};
use nodejobs_core::time::BootTime;

use crate::journal::{Entry, Stage};
use crate::sys::page::SharedWords;

/// Launches that a keeper may have between their beginning and their end, one gate each.
pub(crate) const GATES: usize = 32;
const SLOT: usize = 32;
const WORDS: usize = SLOT * (1 + GATES);
const MAGIC: u64 = u64::from_le_bytes(*b"njgates1");
const ID_WORDS: usize = 16;
const ID_AT: usize = 16;

/// The page does not say what only it could say: it is missing, cut, or not what was written to it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadGates {
    /// The file cannot be read, or is too short.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A bit of it was changed.
    #[error("its bytes are not those that were written")]
    Damaged,
}

/// How far a launch is. In memory a number each, so far apart that a changed bit makes no state of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No launch has this gate.
    Free,
    /// The child has not come to its gate.
    Open,
    /// It has come to it, and notes itself in the journal.
    Noting,
    /// It has gone through, and the journal tells of it. The program is executed, or will be, or the journal says why not.
    Noted,
    /// It will never execute anything. What the journal says of it is void.
    Closed,
}

impl State {
    const ALL: [State; 5] = [State::Free, State::Open, State::Noting, State::Noted, State::Closed];

    const fn word(self) -> u64 {
        match self {
            State::Free => 0,
            State::Open => 0x0f0f_0f0f,
            State::Noting => 0x00ff_00ff_00ff,
            State::Noted => 0xffff_0000_ffff_0000,
            State::Closed => 0x5555_aaaa_5555_aaaa,
        }
    }

    fn of(word: u64) -> Result<Self, BadGates> {
        State::ALL.into_iter().find(|state| state.word() == word).ok_or(BadGates::Damaged)
    }
}

/// Which launch a gate is of, and how far that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    /// The number of the gate.
    pub(crate) gate: usize,
    pub(crate) attempt: AttemptId,
    pub(crate) state: State,
    /// The child, once it runs.
    pub(crate) pid: Option<u32>,
    /// The step that it takes.
    pub(crate) stage: Option<Stage>,
    pub(crate) opened: BootTime,
}

impl Passage {
    /// Whether this is an entry of a child that did not go through its gate.
    pub(crate) fn makes_void(&self, entry: &Entry) -> bool {
        self.state == State::Closed
            && self.pid.is_some()
            && entry.child() == self.pid
            && entry.attempt() == Some(&self.attempt)
    }
}

/// A process of a keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeeperProcess {
    pub(crate) pid: u32,
    pub(crate) start_ticks: u64,
}

/// The gates of one keeper.
#[derive(Debug)]
pub(crate) struct Gates(SharedWords<WORDS>);

impl Gates {
    /// Makes the page, with all gates free. It must not exist.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let length = SharedWords::<WORDS>::BYTES as u64;
        // With its room, or a full disk would kill whoever writes to it.
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length)?;
        let gates = Self(SharedWords::map(&file)?);
        gates.0.hold_in_memory();
        gates.header()[0].store(MAGIC, SeqCst);
        gates.seal_header();
        Ok(gates)
    }

    /// Has a part in the page of a keeper.
    pub(crate) fn open(path: &Path) -> Result<Self, BadGates> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Self::of(&file)
    }

    fn of(file: &File) -> Result<Self, BadGates> {
        let gates = Self(SharedWords::map(file)?);
        let header = gates.header();
        if header[0].load(SeqCst) != MAGIC || header[7].load(SeqCst) != gates.header_checksum() {
            return Err(BadGates::Damaged);
        }
        Ok(gates)
    }

    fn header(&self) -> &[AtomicU64] {
        &self.0.words()[..SLOT]
    }

    fn header_checksum(&self) -> u64 {
        checksum([0, 3, 4, 5, 6].map(|at| self.header()[at].load(SeqCst)))
    }

    fn seal_header(&self) {
        self.header()[7].store(self.header_checksum(), SeqCst);
    }

    fn note_process(&self, at: usize, process: KeeperProcess) {
        self.header()[at].store(u64::from(process.pid), SeqCst);
        self.header()[at + 1].store(process.start_ticks, SeqCst);
        self.seal_header();
    }

    /// Says who the guard is. Before the worker is there.
    pub(crate) fn note_guard(&self, process: KeeperProcess) {
        self.note_process(3, process);
    }

    /// Says who the worker is.
    pub(crate) fn note_worker(&self, process: KeeperProcess) {
        self.note_process(5, process);
    }

    fn process(&self, at: usize) -> Option<KeeperProcess> {
        let pid = u32::try_from(self.header()[at].load(SeqCst)).ok().filter(|pid| *pid != 0)?;
        Some(KeeperProcess { pid, start_ticks: self.header()[at + 1].load(SeqCst) })
    }

    pub(crate) fn guard(&self) -> Option<KeeperProcess> {
        self.process(3)
    }

    pub(crate) fn worker(&self) -> Option<KeeperProcess> {
        self.process(5)
    }

    /// From now on no launch of an owner of a lower generation goes through its gate.
    pub(crate) fn raise_fence(&self, generation: u64) {
        self.header()[1].fetch_max(generation, SeqCst);
    }

    pub(crate) fn fence(&self) -> u64 {
        self.header()[1].load(SeqCst)
    }

    /// One of them.
    pub(crate) fn gate(&self, index: usize) -> Gate<'_> {
        let at = SLOT * (1 + index);
        Gate { words: &self.0.words()[at..at + SLOT], fence: &self.header()[1] }
    }

    /// All of them, in their order.
    pub(crate) fn all(&self) -> impl Iterator<Item = Gate<'_>> {
        (0..GATES).map(|index| self.gate(index))
    }

    /// The launches that have gates.
    ///
    /// # Errors
    /// When it cannot be said of one.
    pub(crate) fn passages(&self) -> Result<Vec<Passage>, BadGates> {
        self.all().enumerate().filter_map(|(number, gate)| gate.passage(number).transpose()).collect()
    }
}

/// The launches that have gates in a page which is only read, as whoever is not its keeper's may.
///
/// # Errors
/// When they cannot be told.
pub(crate) fn peek(path: &Path) -> Result<Vec<Passage>, BadGates> {
    let bytes = std::fs::read(path)?;
    let (words, _) = bytes.as_chunks::<8>();
    let words: Vec<AtomicU64> = words.iter().map(|word| AtomicU64::new(u64::from_le_bytes(*word))).collect();
    if words.len() != WORDS || words[0].load(SeqCst) != MAGIC {
        return Err(BadGates::Damaged);
    }
    let slots = words[SLOT..].chunks(SLOT).enumerate();
    let passage = |(number, slot)| Gate { words: slot, fence: &words[1] }.passage(number);
    slots.filter_map(|slot| passage(slot).transpose()).collect()
}

/// One gate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate<'p> {
    words: &'p [AtomicU64],
    fence: &'p AtomicU64,
}

impl Gate<'_> {
    /// Gives the gate to a launch: the worker, before it makes the child.
    pub(crate) fn open(&self, attempt: &AttemptId, generation: u64, now: BootTime) {
        let id = attempt.id.as_str().as_bytes();
        self.words[1].store(0, SeqCst);
        self.words[2].store(generation, SeqCst);
        self.words[3].store(now.0, SeqCst);
        self.words[4].store(u64::from(attempt.attempt) << 8 | id.len() as u64, SeqCst);
        for (at, word) in (0..ID_WORDS).zip(&self.words[ID_AT..]) {
            let mut bytes = [0; 8];
            let part = id.chunks(8).nth(at).unwrap_or_default();
            bytes[..part.len()].copy_from_slice(part);
            word.store(u64::from_le_bytes(bytes), SeqCst);
        }
        self.words[5].store(self.checksum(), SeqCst);
        self.words[0].store(State::Open.word(), SeqCst);
    }

    fn checksum(&self) -> u64 {
        let words = self.words[2..5].iter().chain(&self.words[ID_AT..ID_AT + ID_WORDS]);
        checksum(words.map(|word| word.load(SeqCst)))
    }

    /// Says who the child is. Allocates nothing, as all that the child does.
    pub(crate) fn set_pid(&self, pid: u32) {
        self.words[1].fetch_or(u64::from(pid), SeqCst);
    }

    /// Says which step the child takes next.
    pub(crate) fn set_stage(&self, stage: Stage) {
        let pid = self.words[1].load(SeqCst) & u64::from(u32::MAX);
        self.words[1].store((stage as u64) << 32 | pid, SeqCst);
    }

    /// The child comes to the gate and is about to note itself; not if its owner is fenced or the gate is closed.
    pub(crate) fn arrive(&self) -> bool {
        !self.is_fenced() && self.moves(State::Open, State::Noting)
    }

    /// The child, whose note is in the journal, goes through, unless the gate is closed.
    pub(crate) fn pass(&self) -> bool {
        self.moves(State::Noting, State::Noted)
    }

    /// Closes the gate, unless the child has gone through. What it is then is final.
    ///
    /// # Errors
    /// When it cannot be said what it is.
    pub(crate) fn close(&self) -> Result<State, BadGates> {
        let is_closed = self.moves(State::Open, State::Closed) || self.moves(State::Noting, State::Closed);
        if is_closed { Ok(State::Closed) } else { self.state() }
    }

    /// Whether its launch is of an owner that is fenced.
    fn is_fenced(&self) -> bool {
        self.fence.load(SeqCst) > self.words[2].load(SeqCst)
    }

    /// Whether its launch executes nothing any more.
    pub(crate) fn is_shut(&self) -> bool {
        match self.state() {
            Ok(State::Closed) => true,
            Ok(State::Open) => self.is_fenced(),
            _ => false,
        }
    }

    /// The launch has come to its end: the worker may give the gate to another one.
    pub(crate) fn free(&self) {
        self.words[0].store(State::Free.word(), SeqCst);
    }

    fn moves(&self, from: State, to: State) -> bool {
        self.words[0].compare_exchange(from.word(), to.word(), SeqCst, SeqCst).is_ok()
    }

    pub(crate) fn state(&self) -> Result<State, BadGates> {
        State::of(self.words[0].load(SeqCst))
    }

    /// The child, once it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        u32::try_from(self.words[1].load(SeqCst) & u64::from(u32::MAX)).ok().filter(|pid| *pid != 0)
    }

    /// Whose launch has the gate, if one has.
    ///
    /// # Errors
    /// When the words are not those that were written.
    fn passage(&self, number: usize) -> Result<Option<Passage>, BadGates> {
        let state = self.state()?;
        if state == State::Free {
            return Ok(None);
        }
        if self.words[5].load(SeqCst) != self.checksum() {
            return Err(BadGates::Damaged);
        }
        let of_attempt = self.words[4].load(SeqCst);
        let length = usize::try_from(of_attempt & 0xff).unwrap_or_default();
        let bytes: Vec<u8> = self.words[ID_AT..]
            .iter()
            .flat_map(|word| word.load(SeqCst).to_le_bytes())
            .take(length)
            .collect();
        let id =
            String::from_utf8(bytes).ok().and_then(|id| JobId::new(&id).ok()).ok_or(BadGates::Damaged)?;
        let attempt = u32::try_from(of_attempt >> 8).map_err(|_| BadGates::Damaged)?;
        let opened = BootTime(self.words[3].load(SeqCst));
        let stage = u8::try_from(self.words[1].load(SeqCst) >> 32).ok().and_then(Stage::of);
        Ok(Some(Passage {
            gate: number,
            attempt: AttemptId { id, attempt },
            state,
            pid: self.pid(),
            stage,
            opened,
        }))
    }
}

fn checksum(words: impl IntoIterator<Item = u64>) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    words.into_iter().for_each(|word| hasher.update(&word.to_le_bytes()));
    // Not 0 for nothing but zeros.
    u64::from(hasher.finalize()) | 1 << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(id: &str) -> AttemptId {
        AttemptId { id: JobId::new(id).expect("valid"), attempt: 3 }
    }

    fn page() -> (tempfile::TempDir, std::path::PathBuf, Gates) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("k.gates");
        let gates = Gates::create(&path).expect("made");
        (directory, path, gates)
    }

    #[test]
    fn a_gate_is_gone_through_or_closed_and_never_both() {
        let (_directory, path, gates) = page();
        let other = Gates::open(&path).expect("opened");
        for round in 0..2_000 {
            let gate = gates.gate(round % GATES);
            gate.open(&attempt("a"), 1, BootTime(7));
            let (passed, closed) = std::thread::scope(|scope| {
                let child = scope.spawn(|| gate.arrive() && gate.pass());
                let closed = other.gate(round % GATES).close().expect("whole") == State::Closed;
                (child.join().expect("no panic"), closed)
            });
            assert!(passed != closed, "round {round}: passed {passed}, closed {closed}");
            gate.free();
        }
    }

    #[test]
    fn no_launch_of_a_fenced_owner_goes_through() {
        let (_directory, _path, gates) = page();
        let gate = gates.gate(0);
        gate.open(&attempt("a"), 4, BootTime(7));
        gates.raise_fence(5);
        gates.raise_fence(2);
        assert!(!gate.arrive() && gate.is_shut());
        gate.free();
        gate.open(&attempt("a"), 5, BootTime(7));
        assert!(!gate.is_shut() && gate.arrive());
        // It has noted itself, and is not through.
        assert_eq!(gate.close().expect("whole"), State::Closed);
        assert!(!gate.pass() && gate.is_shut());
        gate.free();
        gate.open(&attempt("a"), 5, BootTime(7));
        assert!(gate.arrive() && gate.pass());
        assert_eq!(gate.close().expect("whole"), State::Noted, "it cannot be closed any more");
    }

    #[test]
    fn the_page_says_whose_launch_is_where() {
        let (_directory, path, gates) = page();
        let longest = "x".repeat(JobId::MAX_LEN);
        for (index, id) in ["a", longest.as_str()].into_iter().enumerate() {
            gates.gate(index).open(&attempt(id), 1, BootTime(7));
            gates.gate(index).set_pid(42);
            gates.gate(index).set_stage(Stage::Cwd);
        }
        let expected = |gate: usize, id: &str| Passage {
            gate,
            attempt: attempt(id),
            state: State::Open,
            pid: Some(42),
            stage: Some(Stage::Cwd),
            opened: BootTime(7),
        };
        let all = [expected(0, "a"), expected(1, &longest)];
        assert_eq!(gates.passages().expect("whole"), all);
        assert_eq!(peek(&path).expect("whole"), all);
        gates.note_guard(KeeperProcess { pid: 1, start_ticks: 2 });
        gates.note_worker(KeeperProcess { pid: 3, start_ticks: 4 });
        let other = Gates::open(&path).expect("opened");
        assert_eq!(other.guard(), Some(KeeperProcess { pid: 1, start_ticks: 2 }));
        assert_eq!(other.worker(), Some(KeeperProcess { pid: 3, start_ticks: 4 }));
    }

    #[test]
    fn a_bit_that_is_changed_is_noticed_wherever_it_matters() {
        let (_directory, path, gates) = page();
        gates.gate(0).open(&attempt("abc"), 1, BootTime(7));
        gates.note_worker(KeeperProcess { pid: 3, start_ticks: 4 });
        let whole = std::fs::read(&path).expect("read");
        let changed_slot = |word: usize| [0, 2, 3, 4, 5, 16, 17, 31].contains(&word);
        let changed_header = |word: usize| [0, 3, 4, 5, 6, 7].contains(&word);
        for word in (0..SLOT)
            .filter(|word| changed_header(*word))
            .chain((0..SLOT).filter(|w| changed_slot(*w)).map(|w| SLOT + w))
        {
            for bit in 0..64 {
                let mut bytes = whole.clone();
                bytes[word * 8 + bit / 8] ^= 1 << (bit % 8);
                std::fs::write(&path, &bytes).expect("written");
                let read = Gates::open(&path).and_then(|gates| gates.passages());
                assert!(read.is_err(), "word {word}, bit {bit}: {read:?}");
            }
        }
        std::fs::write(&path, &whole[..100]).expect("cut");
        assert!(matches!(Gates::open(&path), Err(BadGates::Io(_))));
        assert!(peek(&path).is_err());
        std::fs::write(&path, vec![0; whole.len()]).expect("emptied");
        assert!(Gates::open(&path).is_err() && peek(&path).is_err());
    }
}
