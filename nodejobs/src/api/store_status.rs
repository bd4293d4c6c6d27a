//! What can be told of a data directory's store.

use std::collections::BTreeMap;

use nodejobs_core::{RawText, Status};
use serde::{Deserialize, Serialize};

/// A data directory's store: what it is, what it promises, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// `sqlite`, `redb` or `sled`.
    pub store: String,
    /// Version of its format.
    pub format: u32,
    /// Its file or directory.
    pub path: RawText,
    /// Bytes it takes on disk, with everything that belongs to it.
    pub bytes: u64,
    /// Whether another program can read it while it is in use.
    pub shareable: bool,
    /// What it does not promise, in sentences; empty when it promises everything.
    pub weaker: Vec<String>,
    /// The process that owns the directory, if one does.
    pub owner_pid: Option<u32>,
    /// How many jobs have each status; one that none has is absent.
    pub jobs: BTreeMap<Status, u64>,
    /// How many events it holds.
    pub events: u64,
    /// How many documents it holds: environments, input of jobs, facts about the directory.
    pub documents: u64,
    /// The highest `seq` that a job ever had, 0 if there never was one.
    pub last_seq: u64,
    /// The number of the last event, 0 if there never was one.
    pub last_event: u64,
}
