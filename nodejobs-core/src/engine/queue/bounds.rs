//! How much may run at a time, of the machine and of a group.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::group::Group;

/// How much may run at a time in a whole data directory. What is absent is not limited.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capacity {
    /// Jobs.
    pub max_processes: Option<u32>,
    /// Bytes of memory that running jobs may have together by their own limits. A job without a limit on its memory
    /// counts for nothing.
    pub max_memory: Option<u64>,
    /// What becomes of a job for which there is no room by these two.
    pub when_full: WhenFull,
    /// How many there are of each named resource that jobs may need, such as `gpu`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, u32>,
}

/// What becomes of a job for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// It is queued.
    #[default]
    Queue,
    /// It is refused. What was accepted before is queued all the same, such as a restart or what was due later. Who waits
    /// for its group or for a named resource is queued, too.
    Refuse,
}

/// A group as far as it is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(in crate::engine) struct Load {
    /// What was set, `None` for one that nobody has made: a job of an earlier time is of it.
    pub(in crate::engine) settings: Option<Group>,
    /// Slots of those who run.
    pub(in crate::engine) taken: u64,
    /// Jobs that have a place.
    pub(in crate::engine) running: u32,
    /// Jobs that wait for one.
    pub(in crate::engine) waiting: u32,
}

impl Load {
    pub(in crate::engine) fn is_paused(&self) -> bool {
        self.settings.is_some_and(|group| group.paused)
    }

    pub(in crate::engine) fn slots(&self) -> Option<u32> {
        self.settings.and_then(|group| group.slots)
    }
}
