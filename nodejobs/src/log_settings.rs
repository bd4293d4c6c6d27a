//! How much room the logs of a data directory may take.

use nodejobs_core::spec::DEFAULT_LOG_CAP;

/// How much room the logs of a data directory may take. See [`OpenOptions::logs`](crate::OpenOptions::logs).
///
/// ```
/// use nodejobs::{LogSettings, OpenOptions};
///
/// let logs = LogSettings { quota: Some(10 << 30), ..LogSettings::default() };
/// let options = OpenOptions { logs, ..OpenOptions::default() };
/// assert_eq!(options.logs.cap, 100 << 20);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// What is kept of each log file of a job that does not say it, in bytes; 0 is all of it. A job keeps the cap that it
    /// was accepted with. See [`Policy::log_cap`](crate::spec::Policy::log_cap).
    pub cap: u64,
    /// What all log files together may take on disk, in bytes, but for those that users named with `--logfile`. If they
    /// take more, output of ended jobs is freed, the oldest first, until they take nine tenths of it; never output of a job
    /// that has not ended. Without end if absent.
    pub quota: Option<u64>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { cap: DEFAULT_LOG_CAP, quota: None }
    }
}
