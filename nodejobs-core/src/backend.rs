//! Where jobs run: the [`ProcessBackend`] trait and its contract.
//!
//! The owner tells a backend what to do and hears back through a [`BackendHost`]. No call waits for a process, so a
//! backend whose answers take seconds fits as well as one whose answers take microseconds.

pub mod fake;

use serde::{Deserialize, Serialize};

use crate::id::AttemptId;
use crate::job::{ExitStatus, Process, ResourceUsage};
use crate::logs::{LogPaths, LogStart};
use crate::signal::Signal;
use crate::spec::{Command, LaunchContext, Limits, TerminalSize};
use crate::status::{Reason, Status};
use crate::text::RawText;
use crate::time::{BootTime, Moment};

/// Everything a backend needs to start an attempt.
#[derive(Clone, Debug)]
pub struct LaunchSpec {
    /// What is executed.
    pub command: Command,
    /// Where.
    pub cwd: RawText,
    /// With which environment, umask and limits.
    pub context: LaunchContext,
    /// Where its input comes from.
    pub input: LaunchInput,
    /// Where its output goes. Each file is appended to, and made if it is not there.
    pub output: LogPaths,
    /// Whether the directories of these files are made if they are not there: not where the user named the file.
    pub makes_directories: bool,
    /// What it may use, if that was said.
    pub limits: Option<Box<Limits>>,
    /// As whom it runs, if not as the backend does.
    pub user: Option<User>,
}

/// A user of the machine, by the numbers that the system knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The user's own group.
    pub gid: u32,
    /// All groups that the user is in, at most [`User::MAX_GROUPS`].
    pub groups: Vec<u32>,
}

impl User {
    /// In how many groups a user may be.
    pub const MAX_GROUPS: usize = 512;
}

/// What a launched attempt reads.
#[derive(Clone, PartialEq, Eq)]
pub enum LaunchInput {
    /// Nothing.
    Null,
    /// This file.
    File(RawText),
    /// These bytes.
    Bytes(Vec<u8>),
    /// A pipe of its own, kept open by a [holder](crate::holder).
    Pipe,
    /// A terminal of its own, kept open by a [holder](crate::holder), which is its output as well.
    Terminal(TerminalSize),
}

impl std::fmt::Debug for LaunchInput {
    /// Input may be a secret, so only its length is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LaunchInput::Null => f.write_str("Null"),
            LaunchInput::File(path) => f.debug_tuple("File").field(path).finish(),
            LaunchInput::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            LaunchInput::Pipe => f.write_str("Pipe"),
            LaunchInput::Terminal(size) => f.debug_tuple("Terminal").field(size).finish(),
        }
    }
}

/// A launch that did not happen: the program was not executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// How to go on.
    pub kind: StartFailureKind,
    /// What could not be done, with the path and the system's words.
    pub detail: String,
}

impl StartFailure {
    /// One that trying again does not help, and that is no fault of the working directory.
    pub fn permanent(detail: impl Into<String>) -> Self {
        Self { kind: StartFailureKind::Permanent(Reason::Exec), detail: detail.into() }
    }

    /// One for want of something that may be there later.
    pub fn no_room(detail: impl Into<String>) -> Self {
        Self { kind: StartFailureKind::NoRoom, detail: detail.into() }
    }
}

/// What a failed launch means for the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFailureKind {
    /// It will never start; the reason goes into the record.
    Permanent(Reason),
    /// The machine had no room; the same attempt may be launched later.
    NoRoom,
    /// The owner called it off before it was executed.
    CalledOff,
}

/// A process that belongs to a job without being its main process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeMember {
    /// Its process id.
    pub pid: u32,
    /// The name of its program.
    pub name: String,
}

/// What a backend found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendEvent {
    /// The program is executed.
    Started {
        /// Its main process.
        process: Process,
        /// Where its output begins in its log files.
        log_start: LogStart,
        /// When, just before it was executed.
        at: Moment,
    },
    /// The program was not executed.
    NotStarted {
        /// Why not.
        failure: StartFailure,
        /// When that was known.
        at: Moment,
    },
    /// Proven: a launch that was asked for never came to executing anything. It may be asked for again.
    NeverLaunched,
    /// The main process ended.
    Exited {
        /// How.
        exit: ExitStatus,
        /// What it used, where that is known: all of the job so far, where that is counted, else the main process with those
        /// that it has collected.
        usage: Option<ResourceUsage>,
        /// When.
        at: Moment,
        /// The processes of the job that are left; `None` if it could not be found out, so that the tree has to be ended
        /// to be sure.
        leftovers: Option<Vec<TreeMember>>,
    },
    /// A tree that was to be ended is gone, or not.
    TreeEnded {
        /// Whether anything had to be killed.
        killed: bool,
        /// The processes other than the main one that were ended.
        ended: Vec<TreeMember>,
        /// The processes that are still there. They are watched, and another event follows when they are gone.
        survivors: Vec<TreeMember>,
        /// What all of it has used, where that was counted; it takes the place of what `Exited` said.
        usage: Option<ResourceUsage>,
    },
    /// The tree uses more memory than it may. It has to be killed.
    OverMemory {
        /// How much, of how much, and who says so.
        detail: String,
    },
    /// The main process is gone and nobody can know how it ended.
    Lost {
        /// [`Reason::Reboot`] or [`Reason::Unknown`].
        reason: Reason,
        /// When that was found out.
        at: Moment,
    },
}

impl BackendEvent {
    /// When it happened in the life of the attempt's main process; `None` for what is found out about it from outside.
    pub fn at(&self) -> Option<Moment> {
        match self {
            BackendEvent::Started { at, .. }
            | BackendEvent::NotStarted { at, .. }
            | BackendEvent::Exited { at, .. } => Some(*at),
            BackendEvent::NeverLaunched
            | BackendEvent::TreeEnded { .. }
            | BackendEvent::OverMemory { .. }
            | BackendEvent::Lost { .. } => None,
        }
    }
}

/// A place in the backend's own durable memory, to be given back by [`ProcessBackend::acknowledge`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Receipt {
    /// Which of the backend's memories.
    pub source: String,
    /// Everything before this place is covered.
    pub position: u64,
}

/// An event with what identifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendReport {
    /// Which attempt.
    pub attempt: AttemptId,
    /// What happened.
    pub event: BackendEvent,
    /// To be acknowledged once what follows from the event is on disk.
    pub receipt: Option<Receipt>,
}

/// How a tree is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndPlan {
    /// Sent to every member at once.
    pub signal: Signal,
    /// What is left at this time is killed.
    pub deadline: BootTime,
}

/// Which processes of an attempt a signal goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalScope {
    /// The main process alone.
    Main,
    /// The main process and everything that it has started.
    Tree,
}

/// What the owner believes of an attempt when it takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownAttempt {
    /// Which attempt.
    pub attempt: AttemptId,
    /// The status on disk: starting, running, paused, stopping or failed_stop.
    pub status: Status,
    /// The process on disk, if it got so far.
    pub process: Option<Process>,
    /// Whether its end is on disk, so that only its tree is in question.
    pub ended: bool,
    /// When its launch was last asked for. What happened earlier is about another launch, or another job of that id.
    pub launch_asked: BootTime,
    /// How much memory its processes may have together, in bytes, if that is limited.
    pub memory_limit: Option<u64>,
}

/// How a limit on memory is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryLimits {
    /// By the kernel: nobody ever has more.
    Kernel,
    /// By looking at the processes now and then: what grows fast has more for a moment, before it is killed.
    Sampling,
}

/// What a backend can do beyond launching and ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Jobs can be paused.
    pub pause: bool,
    /// Resource use of living jobs can be read.
    pub usage: bool,
    /// Input can be given.
    pub stdin: bool,
    /// Jobs outlive the owner and are found again.
    pub adopt: bool,
    /// How limits on memory are kept.
    pub memory_limits: MemoryLimits,
}

/// What the living processes of an attempt use, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeUsage {
    /// Memory, in KiB. What several processes share counts once in all, a part for each of them.
    pub memory_kib: u64,
    /// Processor time so far, in milliseconds: theirs, and that of those they have collected. It may fall when somebody
    /// ends whose parent has ended before.
    pub cpu_ms: u64,
    /// When it was looked at.
    pub at: BootTime,
}

/// The group of processes that keeps jobs alive, for `daemon status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperStatus {
    /// The process that only waits.
    pub pid: Option<u32>,
    /// The process that launches and collects.
    pub worker_pid: Option<u32>,
    /// Version of its program.
    pub version: String,
    /// Living jobs it holds.
    pub jobs: usize,
    /// Whether it takes no more launches.
    pub draining: bool,
    /// What holds it or its launches up, a sentence each.
    #[serde(default)]
    pub trouble: Vec<String>,
}

/// A backend that cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation}")]
pub struct BackendError {
    /// What was being done.
    pub operation: String,
    /// What the system said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What a backend asks of its owner.
pub trait BackendHost: Send + Sync {
    /// What to launch. Called when the launch is about to happen, which may be long after it was asked for.
    ///
    /// # Errors
    /// Why it cannot be told; the attempt then fails to start so.
    fn launch_spec(&self, attempt: &AttemptId) -> Result<LaunchSpec, StartFailure>;

    /// Takes a report. Does not block.
    fn report(&self, report: BackendReport);

    /// Takes a sentence for the owner's log: something is weaker than it should be, and work goes on.
    fn warn(&self, message: String);
}

/// Runs attempts.
///
/// # Contract
/// - **At most once.** An attempt is executed at most once, whichever process dies at whichever instant. Exactly one of
///   `Started`, `NotStarted`, `NeverLaunched` or `Lost` answers a launch; `NeverLaunched` is proof, not a guess. A backend whose
///   engine may run twice what it was given once has a gate and proves by taking it: a launch passes its gate at most once, and
///   a gate that is closed stays closed, for a launch that hung before it as well.
/// - **Settled.** `Started` is reported once the program was executed, or with its end. Only where a start must be known
///   earlier, for somebody wants it ended or its engine does not answer, may `NotStarted` follow it.
/// - **Silence.** While the engine cannot be asked, an attempt may stay without an answer: it keeps its status, nothing is decided
///   about it, and what happened is reported later. It holds up no other attempt.
/// - **True.** `Exited` carries the wait status as the system gave it. What nobody saw is `Lost`.
/// - **Kept.** A report is repeated to the next owner until its receipt, or a later one of the same source, was
///   acknowledged. Reports may come twice; they are told apart by attempt and kind.
/// - **Ordered.** For one attempt, `Started` comes before `Exited`.
/// - **Identity.** A process is signalled only after it was checked to be the very one that was launched, or one that
///   provably belongs to it.
/// - Nothing here waits for a process.
pub trait ProcessBackend: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Takes over what an earlier owner left: cuts off earlier owners first, then answers for every attempt given,
    /// in the order in which things happened. Called once, before anything else.
    ///
    /// An attempt may stay unanswered while its launch is still on its way, or while the keeper or engine that may have it
    /// cannot be asked. Its answer is reported later.
    ///
    /// # Errors
    /// When the state of earlier attempts cannot be found out at all.
    fn recover(&self, attempts: &[KnownAttempt]) -> Result<Vec<BackendReport>, BackendError>;

    /// What [`recover`](Self::recover) reported is on disk: what it was read from may be put away. Called once, after the
    /// owner has committed it.
    fn settled(&self) {}

    /// Whether these limits can be enforced, as far as it can be known beforehand.
    ///
    /// # Errors
    /// Which one cannot, why, and what to do: lower-case words.
    fn check_limits(&self, limits: &Limits) -> Result<(), String>;

    /// Starts an attempt whose intent is on disk.
    fn launch(&self, attempt: &AttemptId);

    /// Ends an attempt's tree, or changes the plan by which it is being ended. A launch that has not happened yet is
    /// called off. An attempt without a process may have been executed all the same (it was reported as lost): its processes
    /// are found by what they carry. Answered by `TreeEnded`, or by `NotStarted`.
    fn end_tree(&self, attempt: &AttemptId, process: Option<&Process>, plan: EndPlan);

    /// Sends a signal to processes of an attempt. Nothing answers; what has ended is not reached.
    fn signal(&self, attempt: &AttemptId, process: &Process, signal: Signal, scope: SignalScope);

    /// What the trees of these attempts use now, in the order of the attempts; `None` where there is nobody, or nobody may
    /// look. Looks at each of their processes, and so takes its time: not for a thread that others wait for.
    fn usage(&self, attempts: &[(AttemptId, Process)]) -> Vec<Option<TreeUsage>>;

    /// The outcome of everything up to here is on disk and need not be repeated.
    fn acknowledge(&self, receipts: &[Receipt]);

    /// Who keeps the jobs. Answers in time also if nothing is heard of them.
    fn keepers(&self) -> Vec<KeeperStatus>;

    /// What holds up the launch of an attempt, in words: the step that it is at, and since when. `None` if nothing does that
    /// is worth a word. Never waits.
    fn held_up(&self, _attempt: &AttemptId) -> Option<String> {
        None
    }
}

const _: fn(&dyn ProcessBackend) = |_| {};
