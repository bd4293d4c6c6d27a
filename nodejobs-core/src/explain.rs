//! Why a job waits: where it stands, what is missing, and who has it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::JobId;
use crate::spec::Dependency;
use crate::status::Status;
use crate::time::Timestamp;

/// What keeps a job from running now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The job's id.
    pub id: JobId,
    /// Its attempt.
    pub attempt: u32,
    /// Where it stands.
    pub status: Status,
    /// What it waits for while queued: `time`, `dependency`, `slot` or `resources`. While starting: `deletion`, of log
    /// files of an earlier job of its id.
    pub waiting_on: Option<String>,
    /// What holds up its launch: the step that it is at, with the path, and since when.
    #[serde(default)]
    pub held_up: Option<String>,
    /// When it is started, if it waits for a time.
    pub next_start_at: Option<Timestamp>,
    /// How it stands in the queue, if it waits for a place.
    pub queue: Option<QueuePlace>,
    /// The jobs that have to end before it starts, and how.
    pub after: Vec<Dependency>,
    /// The same of the jobs that it waits for, and of those that these wait for, the nearest first; at most
    /// [`Explanation::CHAINED`]. Theirs are empty.
    pub chain: Vec<Explanation>,
}

impl Explanation {
    /// Of so many other jobs at most it is said what they wait for.
    pub const CHAINED: usize = 100;
}

/// How a job stands in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePlace {
    /// Its group.
    pub group: String,
    /// Which one of its group it is among those that wait, from 1.
    pub position: usize,
    /// How many of its group wait.
    pub waiting: u32,
    /// Its priority.
    pub priority: i32,
    /// What there is not enough of.
    pub lacks: Vec<Shortage>,
    /// Who waits for longer, or has a higher priority, and keeps aside what this one wants as well, if there is enough
    /// of everything otherwise.
    pub behind: Option<JobId>,
}

/// Something of which there is not enough for a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Shortage {
    /// Its group is paused.
    Paused {
        /// Which group.
        group: String,
    },
    /// Slots of its group.
    Slots {
        /// Which group.
        group: String,
        /// So many it takes.
        wants: u64,
        /// So many are taken.
        taken: u64,
        /// So many there are.
        total: u64,
        /// By whom.
        held_by: Holders,
    },
    /// Places of the machine.
    Processes {
        /// So many jobs run.
        taken: u64,
        /// So many may.
        total: u64,
        /// Which ones.
        held_by: Holders,
    },
    /// Memory of the machine, in bytes, by the jobs' own limits.
    Memory {
        /// So much it may have.
        wants: u64,
        /// So much those may have that run.
        taken: u64,
        /// So much all may have together.
        total: u64,
        /// Who has a limit.
        held_by: Holders,
    },
    /// A named resource.
    Resource {
        /// Which one.
        name: String,
        /// So many it needs.
        wants: u64,
        /// So many are in use.
        taken: u64,
        /// So many there are.
        total: u64,
        /// By whom.
        held_by: Holders,
    },
}

/// Jobs that have what another one waits for.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Holders {
    /// The first of them, at most [`Holders::LISTED`].
    pub jobs: Vec<JobId>,
    /// How many there are beside these.
    pub more: usize,
}

impl Holders {
    /// At most so many are named.
    pub const LISTED: usize = 10;
}

impl FromIterator<JobId> for Holders {
    fn from_iter<T: IntoIterator<Item = JobId>>(jobs: T) -> Self {
        let mut jobs: Vec<JobId> = jobs.into_iter().collect();
        jobs.sort();
        let more = jobs.len().saturating_sub(Self::LISTED);
        jobs.truncate(Self::LISTED);
        Self { jobs, more }
    }
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<&str> = self.jobs.iter().map(JobId::as_str).collect();
        write!(f, "{}", named.join(", "))?;
        if self.more > 0 { write!(f, " and {} more", self.more) } else { Ok(()) }
    }
}

impl Shortage {
    /// Who has what is missing.
    pub fn held_by(&self) -> Option<&Holders> {
        match self {
            Shortage::Paused { .. } => None,
            Shortage::Slots { held_by, .. }
            | Shortage::Processes { held_by, .. }
            | Shortage::Memory { held_by, .. }
            | Shortage::Resource { held_by, .. } => Some(held_by).filter(|held_by| !held_by.jobs.is_empty()),
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shortage::Paused { group } => write!(f, "group '{group}' is paused"),
            Shortage::Slots { group, wants, taken, total, .. } => {
                write!(f, "{taken} of {total} slots of group '{group}' are taken, and it takes {wants}")
            }
            Shortage::Processes { taken, total, .. } => {
                write!(f, "{taken} run, and no more than {total} may at a time")
            }
            Shortage::Memory { wants, taken, total, .. } => write!(
                f,
                "those that run may have {} MiB of memory, it {} MiB, and all together {} MiB",
                taken >> 20,
                wants >> 20,
                total >> 20
            ),
            Shortage::Resource { name, wants, total, .. } if wants > total => {
                write!(f, "it needs {wants} of resource '{name}', and there are only {total}")
            }
            Shortage::Resource { name, wants, taken, total, .. } => {
                write!(f, "{taken} of {total} of resource '{name}' are in use, and it needs {wants}")
            }
        }
    }
}

impl fmt::Display for QueuePlace {
    /// One sentence: the position, and what is missing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} that wait in group '{}'", self.position, self.waiting, self.group)?;
        for (index, lack) in self.lacks.iter().enumerate() {
            write!(f, "{}{lack}", if index == 0 { ": " } else { "; " })?;
        }
        match &self.behind {
            Some(id) => write!(f, ": '{id}' is before it, and waits for what it wants"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_queue_is_a_sentence() {
        let ids =
            |count: usize| (0..count).map(|number| JobId::new(&format!("j{number:02}")).expect("valid"));
        let held_by: Holders = ids(12).collect();
        assert!(held_by.to_string().ends_with("j09 and 2 more"), "{held_by}");
        let mut place = QueuePlace {
            group: "train".to_owned(),
            position: 3,
            waiting: 17,
            priority: 0,
            lacks: vec![
                Shortage::Slots { group: "train".to_owned(), wants: 2, taken: 3, total: 4, held_by },
                Shortage::Resource {
                    name: "gpu".to_owned(),
                    wants: 1,
                    taken: 2,
                    total: 2,
                    held_by: Holders::default(),
                },
            ],
            behind: None,
        };
        assert_eq!(
            place.to_string(),
            "3 of 17 that wait in group 'train': 3 of 4 slots of group 'train' are taken, and it takes 2; \
             2 of 2 of resource 'gpu' are in use, and it needs 1"
        );
        (place.lacks, place.behind) = (Vec::new(), ids(1).next());
        assert!(
            place.to_string().ends_with("group 'train': 'j00' is before it, and waits for what it wants")
        );
    }
}
