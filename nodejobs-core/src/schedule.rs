//! Schedules: what is run again and again, when, and what becomes of times that cannot be kept.
//!
//! Each time at which a schedule is due is an **occurrence**, and each of them is decided once: it runs, it waits, or a
//! record says why it was skipped. A schedule is stored with everything that this takes, in the same unit as the
//! occurrence, so that none is lost or run twice whoever dies in between.

mod due;
mod every;
mod words;

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{InvalidId, JobId};
use crate::job::Definition;
use crate::store::{DocumentChange, DocumentKind};
use crate::time::Timestamp;
use crate::units::show_duration;

pub use due::{Due, Skipped, due};
pub use every::Every;
pub use words::{CatchUp, Overlap, UnknownCatchUp, UnknownOverlap};

/// The times of a schedule.
pub trait Calendar: fmt::Debug + Send + Sync {
    /// The first time after this one; `None` if there is none any more.
    fn next_after(&self, after: Timestamp) -> Option<Timestamp>;

    /// Whether it names times of the day, which are not to come again when the clock is set back a little. What goes by
    /// hours, minutes or an interval goes on by the new time.
    fn is_fixed(&self) -> bool;
}

/// When a schedule is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Timing {
    /// Whenever the clock of a time zone fits an expression.
    Cron {
        /// Five fields, or six with seconds first.
        expression: String,
        /// The zone's name in the time zone database.
        zone: String,
    },
    /// Again and again.
    Every {
        /// The interval, in milliseconds.
        every_ms: u64,
        /// One interval before the first time.
        from: Timestamp,
    },
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Timing::Cron { expression, zone } => write!(f, "{expression} ({zone})"),
            Timing::Every { every_ms, .. } => write!(f, "every {}", show_duration(*every_ms)),
        }
    }
}

/// The last occurrence that became a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// When it was due, or asked for by hand.
    pub due: Timestamp,
    /// Its job.
    pub id: JobId,
}

/// A schedule as it is stored, under its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Its name, by the rules of ids.
    pub name: String,
    /// When it is due.
    pub timing: Timing,
    /// What becomes of an occurrence while the one before has not ended.
    pub overlap: Overlap,
    /// What becomes of what was missed.
    pub catch_up: CatchUp,
    /// After this time it is never due again.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// What each occurrence runs. Origin and time are filled in.
    pub definition: Box<Definition>,
    /// Which submit made it: one that is sent again is recognised.
    #[serde(default)]
    pub submit_key: Option<String>,
    /// When it was added, or replaced.
    pub created_at: Timestamp,
    /// Whether it starts nothing at present.
    #[serde(default)]
    pub is_paused: bool,
    /// Every occurrence up to this time is decided.
    pub decided_until: Timestamp,
    /// Occurrences that wait until the one before has ended, the first one first.
    #[serde(default)]
    pub waiting: VecDeque<Timestamp>,
    /// The last one that ran.
    #[serde(default)]
    pub last: Option<LastRun>,
}

/// Why a schedule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// A name that no ids can be made of.
    #[error("the name of a schedule follows the rules of ids: {0}")]
    Name(#[from] InvalidId),
    /// A name that leaves no room for the time in the ids of its jobs.
    #[error("the name of a schedule has at most {max} characters, this one has {0}", max = Schedule::MAX_NAME_LEN)]
    LongName(usize),
    /// An interval in which nothing can be done.
    #[error("an interval of {}ms is too short; it is at least 1s", .0)]
    ShortInterval(u64),
    /// An interval whose end nobody sees.
    #[error("an interval has at most 3650d")]
    LongInterval,
    /// It would never be due.
    #[error("it would never run: its first time is {first}, and it ends at {until}")]
    NeverDue {
        /// Its first time.
        first: Timestamp,
        /// After which it is never due.
        until: Timestamp,
    },
    /// Its end has passed.
    #[error("'until' {0} has passed; give a time that is still to come, or none")]
    Ended(Timestamp),
    /// Several cannot be caught up with if they may not wait for each other.
    #[error(
        "to catch up with all, they have to wait for each other: give overlap queue, or catch up with one instead of all"
    )]
    AllAtOnce,
    /// What is kept for each occurrence is too large.
    #[error("command and options take {0} bytes; a schedule keeps at most {max}, so put the command into a file", max = Schedule::MAX_BYTES)]
    TooLarge(usize),
    /// Something that only a single job can have.
    #[error("a schedule has no {0}")]
    OnlyForOne(&'static str),
}

impl Schedule {
    /// The label of every occurrence; its value is the schedule's name.
    pub const LABEL: &str = "schedule";
    /// The longest name, which leaves room for a time in the ids of its jobs.
    pub const MAX_NAME_LEN: usize = 90;
    /// The shortest interval, in milliseconds.
    pub const MIN_EVERY_MS: u64 = 1_000;
    /// The longest interval, in milliseconds.
    pub const MAX_EVERY_MS: u64 = 3_650 * 24 * 3_600_000;
    /// How many occurrences wait at most until the one before has ended; further ones are skipped.
    pub const MAX_WAITING: usize = 100;
    /// How many schedules a data directory has at most.
    pub const MAX_COUNT: usize = 1_000;
    /// How large it is at most as it is stored, in bytes: it is written with every occurrence.
    pub const MAX_BYTES: usize = 64 << 10;
    /// How long after its time an occurrence counts as kept, in milliseconds. What is later was missed.
    pub const LATE_MS: i64 = 10_000;

    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidSchedule::Name`] and [`InvalidSchedule::LongName`].
    pub fn check_name(name: &str) -> Result<(), InvalidSchedule> {
        let id = JobId::new(name)?;
        let length = id.as_str().len();
        if length > Self::MAX_NAME_LEN { Err(InvalidSchedule::LongName(length)) } else { Ok(()) }
    }

    /// Checks everything that can be checked without the machine, for one that is added at that time.
    ///
    /// # Errors
    /// [`InvalidSchedule`] names the first thing that is wrong.
    pub fn validate(&self, calendar: &dyn Calendar, now: Timestamp) -> Result<(), InvalidSchedule> {
        Self::check_name(&self.name)?;
        if let Timing::Every { every_ms, .. } = self.timing {
            if every_ms < Self::MIN_EVERY_MS {
                return Err(InvalidSchedule::ShortInterval(every_ms));
            }
            if every_ms > Self::MAX_EVERY_MS {
                return Err(InvalidSchedule::LongInterval);
            }
        }
        if matches!(self.catch_up, CatchUp::All(_)) && self.overlap != Overlap::Queue {
            return Err(InvalidSchedule::AllAtOnce);
        }
        if let Some(until) = self.until {
            if until <= now {
                return Err(InvalidSchedule::Ended(until));
            }
            if let Some(first) = calendar.next_after(self.decided_until).filter(|first| *first > until) {
                return Err(InvalidSchedule::NeverDue { first, until });
            }
        }
        let bytes = self.to_bytes().len();
        if bytes > Self::MAX_BYTES { Err(InvalidSchedule::TooLarge(bytes)) } else { Ok(()) }
    }

    /// When it is due next, whether or not it is paused; `None` if never again.
    pub fn next(&self, calendar: &dyn Calendar) -> Option<Timestamp> {
        let next = calendar.next_after(self.decided_until);
        next.filter(|next| self.until.is_none_or(|until| *next <= until))
    }

    /// The id of the job of an occurrence: `nightly-20261122T030000Z`. What is begun by hand is hardly ever due at a whole
    /// second, and has the milliseconds as well.
    pub fn occurrence_id(&self, due: Timestamp) -> String {
        // As it is written in RFC 3339, without what separates.
        let time = due.to_string().replace(['-', ':'], "").replace(".000Z", "Z");
        format!("{}-{time}", self.name)
    }

    /// As it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        // What it consists of is text, numbers and lists, all of which JSON can write.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From what is stored.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The change that stores it as it is now.
    pub fn put(&self) -> DocumentChange {
        DocumentChange::Put { kind: DocumentKind::Schedule, key: self.name.clone(), body: self.to_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Command, JobSpec};

    pub(crate) fn schedule() -> Schedule {
        let spec = JobSpec::new(Command::argv(["true"]), "/");
        let from = Timestamp::from_millis(1_784_000_000_000);
        Schedule {
            name: "nightly".to_owned(),
            timing: Timing::Every { every_ms: 60_000, from },
            overlap: Overlap::Skip,
            catch_up: CatchUp::Skip,
            until: None,
            definition: Box::new(Definition::new(&spec, "/logs".into(), from)),
            submit_key: None,
            created_at: from,
            is_paused: false,
            decided_until: from,
            waiting: VecDeque::new(),
            last: None,
        }
    }

    fn refused(change: impl FnOnce(&mut Schedule)) -> String {
        let mut schedule = schedule();
        change(&mut schedule);
        let every = Every { every_ms: 60_000, from: schedule.created_at };
        schedule.validate(&every, schedule.created_at).expect_err("refused").to_string()
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_the_reason() {
        let good = schedule();
        let every = Every { every_ms: 60_000, from: good.created_at };
        assert_eq!(good.validate(&every, good.created_at), Ok(()));
        assert!(refused(|it| it.name = "a/b".to_owned()).contains("allowed are"));
        assert!(refused(|it| it.name = "x".repeat(91)).contains("at most 90"));
        let every = |every_ms| refused(|it| it.timing = Timing::Every { every_ms, from: it.created_at });
        assert!(every(0).contains("at least 1s") && every(999).contains("999ms is too short"));
        assert!(every(u64::MAX).contains("at most 3650d"));
        assert!(refused(|it| it.catch_up = CatchUp::All(3)).contains("overlap queue"));
        let past = |it: &mut Schedule| it.until = Some(it.created_at);
        assert!(refused(past).contains("has passed"), "{}", refused(past));
        let short =
            |it: &mut Schedule| it.until = Some(Timestamp::from_millis(it.created_at.as_millis() + 1));
        assert!(refused(short).contains("would never run"), "{}", refused(short));
        let large = |it: &mut Schedule| it.definition.command = Command::shell("x".repeat(70_000));
        assert!(refused(large).contains("put the command into a file"));
    }

    #[test]
    fn an_id_tells_the_time_and_a_schedule_is_read_as_it_was_written() {
        let mut schedule = schedule();
        schedule.waiting.push_back(schedule.created_at);
        assert_eq!(schedule.occurrence_id(schedule.created_at), "nightly-20260714T033320Z");
        assert_eq!(Schedule::from_bytes(&schedule.to_bytes()).expect("the same"), schedule);
        let by_hand = Timestamp::from_millis(schedule.created_at.as_millis() + 7);
        assert_eq!(schedule.occurrence_id(by_hand), "nightly-20260714T033320.007Z");
        schedule.name = "x".repeat(Schedule::MAX_NAME_LEN);
        let longest = format!("{}-0123456789", schedule.occurrence_id(Timestamp::from_millis(i64::MAX)));
        assert!(JobId::new(&longest).is_ok());
    }
}
