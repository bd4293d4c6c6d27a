//! Forgetting many ended jobs at once.

use nodejobs_core::filter::{FilterError, JobFilter};
use nodejobs_core::{JobId, Status, Timestamp};
use serde::{Deserialize, Serialize};

use super::Problem;

/// Asks that ended jobs are forgotten: those that meet all conditions. Living ones never are. Without any condition all
/// ended jobs go.
///
/// ```
/// use nodejobs::api::PruneRequest;
///
/// let mut request = PruneRequest { older_than_ms: Some(7 * 86_400_000), ..PruneRequest::default() };
/// request.require("status", "finished")?;
/// assert!(request.require("colour", "red").is_err());
/// # Ok::<(), nodejobs::filter::FilterError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneRequest {
    /// Keys and values of [`JobFilter`]; all have to hold.
    #[serde(default)]
    pub conditions: Vec<(String, String)>,
    /// Only jobs that ended at least so long ago, in milliseconds.
    #[serde(default)]
    pub older_than_ms: Option<u64>,
    /// Leave so many of those that meet the conditions: the ones that were submitted last.
    #[serde(default)]
    pub keep_last: Option<u64>,
    /// Only say which ones would go.
    #[serde(default)]
    pub dry_run: bool,
}

impl PruneRequest {
    /// Adds a condition; the keys are those of [`JobFilter`].
    ///
    /// # Errors
    /// [`FilterError`] for a key or value that means nothing; the request is as it was.
    pub fn require(&mut self, key: &str, value: &str) -> Result<(), FilterError> {
        let mut filter = self.filter()?;
        filter.set(key, value)?;
        self.conditions.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    /// The conditions, understood, without those on the age.
    pub(crate) fn filter(&self) -> Result<JobFilter, FilterError> {
        let mut filter = JobFilter::default();
        self.conditions.iter().try_for_each(|(key, value)| filter.set(key, value))?;
        Ok(filter)
    }
}

impl From<FilterError> for Problem {
    fn from(error: FilterError) -> Self {
        Problem::usage(error.to_string())
    }
}

/// What became of a [`PruneRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneAnswer {
    /// The jobs that are gone, or would be.
    pub jobs: Vec<PrunedJob>,
    /// How many jobs meet the conditions and were left because they have not ended.
    pub living: u64,
    /// Whether nothing was done.
    pub dry_run: bool,
}

/// A job that is gone, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedJob {
    /// Its id.
    pub self_id: JobId,
    /// Its name, if it had one.
    pub name: Option<String>,
    /// How its newest attempt ended.
    pub status: Status,
    /// When that was decided.
    pub last_update: Timestamp,
}
