//! Starts that failed, remembered in the data directory, so that not every command starts anew what dies each time.
//!
//! The rule:
//! - A start counts as failed when the daemon said why it cannot serve (the store, the directory, the system), when it
//!   ended without a word, however it was killed, or when it served and then ended by itself with an error or a panic.
//!   A command line that contradicts the directory is no failed start.
//! - A daemon that was killed while it served does not count: from here that cannot be told from somebody's `kill -9`,
//!   which is harmless and must lock nobody out.
//! - Failures within a minute of each other (not counting the time that had to be waited) are a series. From the third
//!   on, commands do not start a daemon for 1, 2, 4 … at most 60 seconds, and say so with exit code 5.
//! - The series ends when a daemon leaves in order, and when `daemon start`, which never waits, has started one that
//!   serves. Whoever changes `nodejobs.json` or the store, for instance puts a lost one back, need not wait either.
//!
//! Whoever gave words to the failure notes it: the daemon its errors and panics, its starter an end without words. The
//! starter holds the lock of starts, and so does a daemon that does not serve yet. One that served does not, and at
//! worst takes the place of another's note: the file is replaced as a whole.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nodejobs::Timestamp;
use serde::{Deserialize, Serialize};

use crate::exit::{Failure, UNAVAILABLE};
use crate::readable::now;
use nodejobs::units::show_duration;

/// Its name in the data directory.
pub(crate) const FAILED_STARTS: &str = "failed-starts.json";

/// So many failures in a row are nobody's business but the next command's.
const HARMLESS: u32 = 2;
const FIRST_PAUSE_MS: u64 = 1_000;
const LONGEST_PAUSE_MS: u64 = 60_000;
/// Failures further apart have nothing to do with each other.
const SERIES_MS: u64 = 60_000;
/// What is kept of the words of one, in characters.
const MOST_WORDS: usize = 1_000;

/// A series of starts that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailedStarts {
    pub(crate) failures: u32,
    pub(crate) last_at: Timestamp,
    /// Why the last one failed.
    pub(crate) why: String,
    /// What the files were like that a way out may change.
    files: String,
}

impl FailedStarts {
    /// The series that there is; nothing, if nobody can tell.
    pub(crate) fn read(data_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(data_dir.join(FAILED_STARTS)).ok()?).ok()
    }

    /// Adds one. Where it cannot be written down, or is not ours to write, nothing is remembered.
    pub(crate) fn note(data_dir: &Path, why: &str) {
        if !matches!(nodejobs::daemon::foreign_file(data_dir), Ok(None)) {
            return;
        }
        let next = Self::after(Self::read(data_dir), why, files_of(data_dir), now());
        let write = || {
            // Two at a time would spoil each other's, and what cannot be read is no series.
            let new = data_dir.join(format!("{FAILED_STARTS}.new"));
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            serde_json::to_writer(&mut file, &next)?;
            file.write_all(b"\n")?;
            std::fs::rename(&new, data_dir.join(FAILED_STARTS))
        };
        let _ = write();
    }

    /// Ends the series.
    pub(crate) fn clear(data_dir: &Path) {
        let _ = std::fs::remove_file(data_dir.join(FAILED_STARTS));
    }

    /// How long a command has to wait before it may start a daemon, in milliseconds.
    pub(crate) fn wait_ms(&self, data_dir: &Path) -> Option<u64> {
        self.wait_in(data_dir, now())
    }

    fn wait_in(&self, data_dir: &Path, at: Timestamp) -> Option<u64> {
        self.wait_at(at).filter(|_| self.files == files_of(data_dir))
    }

    /// Why a command may not start a daemon now, if it may not.
    pub(crate) fn refusal(data_dir: &Path) -> Option<Failure> {
        Self::read(data_dir)?.refuse(data_dir, now())
    }

    fn refuse(self, data_dir: &Path, at: Timestamp) -> Option<Failure> {
        let wait = self.wait_in(data_dir, at)?;
        let message = format!(
            "no daemon is started now: it failed {} times in a row, so the next try is in {}; \
             `nodejobs daemon start` tries at once",
            self.failures,
            show_duration(wait)
        );
        Some(Failure::caused(UNAVAILABLE, message, &std::io::Error::other(self.why)))
    }

    fn after(last: Option<Self>, why: &str, files: String, at: Timestamp) -> Self {
        let same_series =
            |last: &Self| last.age(at).is_some_and(|age| age <= SERIES_MS + pause_ms(last.failures));
        let before = last.filter(same_series).map_or(0, |last| last.failures);
        let why = why.chars().take(MOST_WORDS).collect();
        Self { failures: before.saturating_add(1), last_at: at, why, files }
    }

    /// How long ago the last one was; nothing, if the clock was set back since.
    fn age(&self, now: Timestamp) -> Option<u64> {
        u64::try_from(now.as_millis() - self.last_at.as_millis()).ok()
    }

    fn wait_at(&self, now: Timestamp) -> Option<u64> {
        let left = pause_ms(self.failures).saturating_sub(self.age(now)?);
        (left > 0).then_some(left)
    }
}

/// How long after so many failures nobody but `daemon start` tries again.
fn pause_ms(failures: u32) -> u64 {
    match failures.saturating_sub(HARMLESS) {
        0 => 0,
        more => {
            FIRST_PAUSE_MS.checked_shl(more - 1).map_or(LONGEST_PAUSE_MS, |pause| pause.min(LONGEST_PAUSE_MS))
        }
    }
}

/// What tells whether somebody has changed the files on which a start depends: their numbers and change times.
fn files_of(data_dir: &Path) -> String {
    let look = |name: &str| match std::fs::metadata(data_dir.join(name)) {
        Ok(found) => format!("{}:{}.{:09}", found.ino(), found.ctime(), found.ctime_nsec()),
        Err(_) => "-".to_owned(),
    };
    // A directory does not change with what is inside of its files.
    ["nodejobs.json", "jobs.sqlite", "jobs.redb", "jobs.sled", "jobs.sled/db"].map(look).join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private_directory() -> tempfile::TempDir {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        tempfile::Builder::new().permissions(private).tempdir().expect("a directory")
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn failed(last: Option<FailedStarts>, millis: i64) -> FailedStarts {
        FailedStarts::after(last, "why", String::new(), at(millis))
    }

    #[test]
    fn the_pause_doubles_from_the_third_failure_on_up_to_a_minute() {
        let pauses: Vec<u64> = (0..=10).map(pause_ms).collect();
        assert_eq!(pauses, [0, 0, 0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(pause_ms(u32::MAX), 60_000);
    }

    #[test]
    fn only_quick_repetitions_are_a_series() {
        let mut series = failed(None, 0);
        assert_eq!((series.failures, series.wait_at(at(0))), (1, None));
        series = failed(Some(series), 60_000);
        series = failed(Some(series), 120_000);
        assert_eq!((series.failures, series.wait_at(at(120_000))), (3, Some(1_000)));
        assert_eq!((series.wait_at(at(120_999)), series.wait_at(at(121_000))), (Some(1), None));
        // The time that had to be waited does not break the series.
        let next = failed(Some(series.clone()), 181_000);
        assert_eq!((next.failures, next.wait_at(at(181_000))), (4, Some(2_000)));
        assert_eq!(failed(Some(series), 181_001).failures, 1);
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nobody_out() {
        let series = FailedStarts { failures: 9, ..failed(None, 0) };
        assert_eq!(series.wait_at(at(-1)), None);
        assert_eq!(failed(Some(series), -1).failures, 1);
    }

    #[test]
    fn who_changes_the_store_need_not_wait() {
        let directory = private_directory();
        let data_dir = directory.path();
        std::fs::write(data_dir.join("jobs.sqlite"), "bad").expect("written");
        // At the time of the last failure, so that a slow machine does not wait the pause out.
        let refusal = || {
            FailedStarts::read(data_dir).and_then(|series| {
                let at = series.last_at;
                series.refuse(data_dir, at)
            })
        };
        for failures in 1..=3 {
            assert!(refusal().is_none(), "after {} failures", failures - 1);
            FailedStarts::note(data_dir, "the store is bad");
        }
        let refused = refusal().expect("refused").to_string();
        assert!(refused.contains("failed 3 times") && refused.contains("daemon start"), "{refused}");
        assert!(refused.ends_with("caused by: the store is bad"), "{refused}");
        std::fs::write(data_dir.join("new"), "good").expect("written");
        std::fs::rename(data_dir.join("new"), data_dir.join("jobs.sqlite")).expect("renamed");
        assert!(refusal().is_none());
        FailedStarts::note(data_dir, "bad again");
        assert!(refusal().is_some());
        FailedStarts::clear(data_dir);
        assert!(refusal().is_none());
    }

    #[test]
    fn what_cannot_be_read_or_written_is_no_series() {
        let directory = private_directory();
        std::fs::write(directory.path().join(FAILED_STARTS), "{\"fail").expect("written");
        assert_eq!(FailedStarts::read(directory.path()), None);
        FailedStarts::note(directory.path(), "x".repeat(5_000).as_str());
        let noted = FailedStarts::read(directory.path()).expect("replaced");
        assert_eq!((noted.failures, noted.why.len()), (1, MOST_WORDS));
        FailedStarts::note(&directory.path().join("nowhere"), "why");
    }
}
