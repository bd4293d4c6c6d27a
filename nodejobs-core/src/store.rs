//! Where jobs are kept: the [`JobStore`] trait and its contract.
//!
//! A store is synchronous and object-safe, and no transaction type crosses it: the owner hands over whole
//! [`Unit`]s and gets one [`UnitOutcome`] for each. The in-memory store in [`memory`] is the strictest reading of
//! the contract.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod content;
#[cfg(feature = "disk")]
pub mod disk;
pub mod export;
#[cfg(feature = "key-value")]
pub mod kv;
pub mod memory;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use self::content::{Check, Counters, Item};
use crate::filter::JobFilter;
use crate::id::{AttemptId, JobId};
use crate::job::{Definition, Job, JobState, Origin};
use crate::status::{Reason, Status};
use crate::time::Timestamp;

/// One change of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobChange {
    /// A new job with its first attempt. Rejected with [`Rejection::Exists`] if the id is taken.
    Insert {
        /// Its id.
        id: JobId,
        /// What it runs.
        definition: Box<Definition>,
        /// Where it begins.
        state: JobState,
    },
    /// A further attempt of an ended job; the attempt before it moves to the history.
    NewAttempt {
        /// Its id.
        id: JobId,
        /// The revision this was decided on.
        expected: u64,
        /// What the new attempt runs.
        definition: Box<Definition>,
        /// Where it begins.
        state: JobState,
    },
    /// The newest attempt moves on.
    Update {
        /// Its id.
        id: JobId,
        /// The revision this was decided on.
        expected: u64,
        /// Where it stands now.
        state: JobState,
    },
    /// What the newest attempt runs is changed while it is queued.
    Redefine {
        /// Its id.
        id: JobId,
        /// The revision this was decided on.
        expected: u64,
        /// What it runs now.
        definition: Box<Definition>,
        /// Where it stands now: still queued.
        state: JobState,
    },
    /// The job and its history are forgotten; its events stay. Only an ended job can be removed.
    Remove {
        /// Its id.
        id: JobId,
        /// The revision this was decided on.
        expected: u64,
    },
    /// Earlier attempts are forgotten; the newest one is as it was, with its revision.
    ForgetAttempts {
        /// The job's id.
        id: JobId,
        /// All attempts up to this one, which is not the newest.
        through: u32,
    },
}

impl JobChange {
    /// The job that changes.
    pub fn id(&self) -> &JobId {
        match self {
            JobChange::Insert { id, .. }
            | JobChange::NewAttempt { id, .. }
            | JobChange::Update { id, .. }
            | JobChange::Redefine { id, .. }
            | JobChange::Remove { id, .. }
            | JobChange::ForgetAttempts { id, .. } => id,
        }
    }

    /// The attempt this is about; `None` for a removal, and for attempts that are forgotten.
    pub fn attempt(&self) -> Option<AttemptId> {
        match self {
            JobChange::Insert { id, state, .. }
            | JobChange::NewAttempt { id, state, .. }
            | JobChange::Update { id, state, .. }
            | JobChange::Redefine { id, state, .. } => {
                Some(AttemptId { id: id.clone(), attempt: state.attempt })
            }
            JobChange::Remove { .. } | JobChange::ForgetAttempts { .. } => None,
        }
    }

    /// Whether this begins an attempt.
    pub fn begins_attempt(&self) -> bool {
        matches!(self, JobChange::Insert { .. } | JobChange::NewAttempt { .. })
    }

    /// Whether this begins an attempt that nobody waits for, because a policy, an array or a schedule has decided it.
    pub fn is_own_decision(&self) -> bool {
        match self {
            JobChange::Insert { definition, .. } => definition.origin.is_some(),
            JobChange::NewAttempt { definition, state, .. } => {
                state.status == Status::Restarting || definition.origin.is_some()
            }
            JobChange::Update { .. }
            | JobChange::Redefine { .. }
            | JobChange::Remove { .. }
            | JobChange::ForgetAttempts { .. } => false,
        }
    }

    /// Whether somebody who has asked for this is told that it is on disk.
    pub fn is_asked_for(&self) -> bool {
        self.begins_attempt() || matches!(self, JobChange::Redefine { .. })
    }

    /// The array that begins an attempt so, if one does.
    pub fn array(&self) -> Option<&JobId> {
        let (JobChange::Insert { definition, .. } | JobChange::NewAttempt { definition, .. }) = self else {
            return None;
        };
        match &definition.origin {
            Some(Origin::Element { array, .. }) => Some(array),
            Some(Origin::Schedule { .. }) | None => None,
        }
    }

    /// The revision the job has once this is applied; `None` if it is gone then, or has the one it had.
    pub fn revision_after(&self) -> Option<u64> {
        match self {
            JobChange::Insert { .. } => Some(1),
            JobChange::NewAttempt { expected, .. }
            | JobChange::Update { expected, .. }
            | JobChange::Redefine { expected, .. } => Some(expected + 1),
            JobChange::Remove { .. } | JobChange::ForgetAttempts { .. } => None,
        }
    }

    /// Checks the change against the job as it is stored now. Every store calls this before it applies a change, so
    /// that all of them refuse the same things for the same reason.
    ///
    /// # Errors
    /// The [`Rejection`] to answer with.
    pub fn check(&self, stored: Option<StoredHead>) -> Result<(), Rejection> {
        let existing = |expected: u64| match stored {
            None => Err(Rejection::Missing),
            Some(head) if head.revision != expected => Err(Rejection::Stale { found: head.revision }),
            Some(head) => Ok(head),
        };
        let illegal = |head: StoredHead, to: Status| Rejection::IllegalMove { from: head.status, to };
        match self {
            JobChange::Insert { .. } => match stored {
                Some(_) => Err(Rejection::Exists),
                None => Ok(()),
            },
            JobChange::NewAttempt { expected, state, .. } => {
                let head = existing(*expected)?;
                let legal = head.status.is_terminal() && state.attempt == head.attempt + 1;
                if legal { Ok(()) } else { Err(illegal(head, state.status)) }
            }
            JobChange::Update { expected, state, .. } => {
                let head = existing(*expected)?;
                let stays = head.status == state.status && !head.status.is_terminal();
                let legal = state.attempt == head.attempt && (stays || head.status.may_become(state.status));
                if legal { Ok(()) } else { Err(illegal(head, state.status)) }
            }
            JobChange::Redefine { expected, state, .. } => {
                let head = existing(*expected)?;
                let is_queued = [head.status, state.status] == [Status::Queued; 2];
                let legal = is_queued && state.attempt == head.attempt;
                if legal { Ok(()) } else { Err(illegal(head, state.status)) }
            }
            JobChange::Remove { expected, .. } => {
                let head = existing(*expected)?;
                if head.status.is_terminal() { Ok(()) } else { Err(illegal(head, head.status)) }
            }
            JobChange::ForgetAttempts { through, .. } => match stored {
                None => Err(Rejection::Missing),
                Some(head) if *through < head.attempt => Ok(()),
                Some(head) => Err(illegal(head, head.status)),
            },
        }
    }
}

/// What a store has to look up to check a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredHead {
    /// The job's revision.
    pub revision: u64,
    /// Number of its newest attempt.
    pub attempt: u32,
    /// Status of that attempt.
    pub status: Status,
}

/// The families of small documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentKind {
    /// Launch contexts by their key.
    Context,
    /// What attempts read, by `<id>/<attempt>` of the attempt that was submitted with it.
    Input,
    /// Facts about the data directory, such as the owner's generation.
    Meta,
    /// Groups by their names.
    Group,
    /// The parameters of arrays, by the ids of their parents.
    Array,
    /// How far arrays got, by the ids of their parents.
    Progress,
    /// Schedules by their names.
    Schedule,
}

impl DocumentKind {
    /// Every kind.
    pub const ALL: [DocumentKind; 7] = [
        DocumentKind::Context,
        DocumentKind::Input,
        DocumentKind::Meta,
        DocumentKind::Group,
        DocumentKind::Array,
        DocumentKind::Progress,
        DocumentKind::Schedule,
    ];

    /// The name it has in stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            DocumentKind::Context => "context",
            DocumentKind::Input => "input",
            DocumentKind::Meta => "meta",
            DocumentKind::Group => "group",
            DocumentKind::Array => "array",
            DocumentKind::Progress => "progress",
            DocumentKind::Schedule => "schedule",
        }
    }

    /// The one of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }
}

/// One change of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentChange {
    /// The document shall have this body, whatever it had.
    Put {
        /// Its family.
        kind: DocumentKind,
        /// Its key within the family.
        key: String,
        /// What it says.
        body: Vec<u8>,
    },
    /// The document shall exist; one that exists already stays as it is.
    PutIfAbsent {
        /// Its family.
        kind: DocumentKind,
        /// Its key within the family.
        key: String,
        /// What it says.
        body: Vec<u8>,
    },
    /// The document shall not exist.
    Remove {
        /// Its family.
        kind: DocumentKind,
        /// Its key within the family.
        key: String,
    },
}

/// Changes that happen together or not at all: at most one job, and documents.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Unit {
    /// The job's change. Each one that is applied appends one [`JobEvent`]; what is forgotten appends none.
    pub job: Option<JobChange>,
    /// Documents that belong to it.
    pub documents: Vec<DocumentChange>,
}

impl From<JobChange> for Unit {
    fn from(change: JobChange) -> Self {
        Unit { job: Some(change), documents: Vec::new() }
    }
}

/// What became of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitOutcome {
    /// It is on disk.
    Applied {
        /// The job's place in the order of submission, 0 for a unit without a job.
        seq: u64,
        /// Number of the event that was appended, 0 if none was.
        event: u64,
    },
    /// Nothing of it was done.
    Rejected(Rejection),
}

/// Why nothing of a unit was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The id is taken.
    #[error("a job of that id exists")]
    Exists,
    /// There is no such job.
    #[error("no job of that id exists")]
    Missing,
    /// The job has changed since.
    #[error("the job has changed since; its revision is {found}")]
    Stale {
        /// The revision it has.
        found: u64,
    },
    /// The status table does not allow it.
    #[error("a job that is {from} cannot become {to}")]
    IllegalMove {
        /// The status it has.
        from: Status,
        /// The status that was asked for.
        to: Status,
    },
}

/// A job reached a status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEvent {
    /// Counted from 1 without a gap.
    pub seq: u64,
    /// Which attempt of which job.
    #[serde(flatten)]
    pub attempt: AttemptId,
    /// The status it has now.
    pub status: Status,
    /// Why, where the status alone does not say.
    pub reason: Option<Reason>,
    /// When that was decided.
    pub at: Timestamp,
}

/// In which direction a listing goes through the order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// First submitted first.
    #[default]
    OldestFirst,
    /// Last submitted first.
    NewestFirst,
}

/// Which part of a listing is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Which jobs.
    pub filter: JobFilter,
    /// In which direction.
    pub order: Order,
    /// Only jobs behind this `seq` in that direction.
    pub after: Option<u64>,
    /// At most so many, at least 1.
    pub limit: usize,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The jobs, with their newest attempts.
    pub jobs: Vec<Job>,
    /// What to give as [`PageRequest::after`] for the next part; `None` when this is the last.
    pub next: Option<u64>,
}

/// What a store says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreInfo {
    /// `sqlite`, `redb`, `sled` or `memory`.
    pub engine: String,
    /// Version of its format.
    pub format: u32,
    /// Where it is.
    pub path: Option<PathBuf>,
    /// Whether it can be opened a second time while it is open.
    pub shareable: bool,
    /// What it does not promise, in sentences; empty when it promises everything.
    pub weaker: Vec<String>,
}

/// A store that cannot do what it was asked. The variants follow what the caller can do next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("store {} is in use by another process", path.display())]
    InUse {
        /// The store's file or directory.
        path: PathBuf,
    },
    /// Written by a version this one does not know. Nothing was read or written.
    #[error("store {} has format {found}, this version knows {known}", path.display())]
    UnknownFormat {
        /// The store's file or directory.
        path: PathBuf,
        /// The format it has.
        found: i64,
        /// The format that is known here.
        known: u32,
    },
    /// What is stored cannot be understood.
    #[error("store is damaged at {what}")]
    Damaged {
        /// The file or record that is damaged.
        what: String,
        /// What the engine or decoder said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No room to write. Works again once there is.
    #[error("no space left to {operation} store {}", path.display())]
    Full {
        /// What was being done.
        operation: &'static str,
        /// The store's file or directory.
        path: PathBuf,
    },
    /// Anything else: permissions, a missing directory, a failing disk.
    #[error("failed to {operation} store {}", path.display())]
    Failed {
        /// What was being done.
        operation: &'static str,
        /// The store's file or directory.
        path: PathBuf,
        /// What the engine or the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Keeps jobs, their attempts and events, and small documents.
///
/// # Contract
/// - **Durable.** When [`commit`](Self::commit) returns `Ok`, everything it applied survives the death of the process
///   and, unless [`info`](Self::info) says otherwise, the loss of power. One flush covers all units.
/// - **Atomic.** A unit is applied wholly or not at all, and its outcome does not depend on the other units, except
///   that units are decided in order: a later unit sees what earlier ones did.
/// - **Conditional.** Changes are checked by [`JobChange::check`]; a rejected unit leaves no trace and does not
///   disturb the others.
/// - **All or error.** When `commit` returns an error, nothing of it is visible, and the store can be used again.
/// - **Ordered.** `seq` and event numbers rise with each insert and event and are never used again, removed jobs
///   included. Event numbers have no gap.
/// - **Honest.** A damaged record is [`StoreError::Damaged`] naming it, never left out of a listing.
/// - Reads see every commit that returned before they began. Reads never write. Time comes from the caller.
/// - Dropping the last handle frees the store for the next opener.
pub trait JobStore: Send + Sync {
    /// Applies units, in order, with one flush. The outcomes are in the order of the units.
    ///
    /// # Errors
    /// When nothing could be applied at all.
    fn commit(&self, units: &[Unit]) -> Result<Vec<UnitOutcome>, StoreError>;

    /// The job of that id, with its newest attempt.
    ///
    /// # Errors
    /// When the store cannot be read; an unknown id is `Ok(None)`.
    fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError>;

    /// One page of the jobs that match, in order of submission. The cursor is stable: jobs that come or go meanwhile
    /// make no other job appear twice or not at all.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn jobs(&self, request: &PageRequest) -> Result<Page, StoreError>;

    /// How many jobs there are of each status; statuses without a job are absent.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn counts(&self) -> Result<BTreeMap<Status, u64>, StoreError>;

    /// All attempts of a job that are not forgotten, oldest first; empty for an unknown id.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn attempts(&self, id: &JobId) -> Result<Vec<Job>, StoreError>;

    /// At most `limit` events after that number, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn events(&self, after: u64, limit: usize) -> Result<Vec<JobEvent>, StoreError>;

    /// The body of a document.
    ///
    /// # Errors
    /// When the store cannot be read; an unknown key is `Ok(None)`.
    fn document(&self, kind: DocumentKind, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// At most `limit` documents of a kind whose keys start so, in the order of their keys, and only those behind the
    /// key `after`.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn documents(
        &self,
        kind: DocumentKind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// The last numbers that were given out, to jobs and events that are gone as well.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn counters(&self) -> Result<Counters, StoreError>;

    /// Adds items as they are, with the numbers and revisions they have, and one flush. This is how a new store is
    /// filled from another one: nothing is decided and nothing is appended to the events.
    ///
    /// # Errors
    /// When nothing could be added at all: also because a job, an event or a document is there already.
    fn load(&self, items: &[Item]) -> Result<(), StoreError>;

    /// Reads everything, and compares what is written twice: records and indexes, jobs and counts. `progress` hears
    /// the number of records read so far, again and again.
    ///
    /// # Errors
    /// When the check cannot go on; what is wrong with the content is in the [`Check`].
    fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<Check, StoreError>;

    /// What was found damaged when it was opened and is gone, in words, where the store could be opened all the same.
    fn damage(&self) -> Option<&str> {
        None
    }

    /// Whether commits have put something off that [`rest`](Self::rest) does. The owner asks before it waits, so it is
    /// cheap; a store that always says no costs an idle owner no wake-up.
    fn has_put_off(&self) -> bool {
        false
    }

    /// Does what commits have put off: no commit has come for a moment. It does not wait for readers, and may be
    /// killed at any instant without a loss.
    ///
    /// # Errors
    /// When it cannot be done. Nothing is lost; the owner asks again only after the next commit.
    fn rest(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// What it is and what it does not promise.
    fn info(&self) -> StoreInfo;
}

// The trait has to stay usable behind a pointer: the owner holds whichever store the data directory names.
const _: fn(&dyn JobStore) = |_| {};
