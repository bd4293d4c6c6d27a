//! Building a spec in one expression.

use std::time::Duration;

use super::{
    AfterRequest, Awaited, Condition, JobSpec, LaunchContext, Limits, Restart, Retry, Start, Stdin, Unique,
    Unmet, Whom,
};
#[cfg(doc)]
use super::{Output, Policy};
use crate::id::{InvalidId, JobId};
use crate::signal::Signal;
use crate::text::RawText;

/// Each takes the spec and gives it back changed. What a value breaks is said by [`validate`](Self::validate), at the
/// latest when the job is run.
///
/// ```
/// use nodejobs_core::spec::{Command, JobSpec};
///
/// let spec = JobSpec::new(Command::argv(["make", "all"]), "/src")
///     .id("nightly")?
///     .name("nightly build")
///     .env("LANG", "C")
///     .label("team", "core")
///     .timeout(std::time::Duration::from_secs(3600))
///     .success_codes([0, 2]);
/// assert_eq!(spec.validate(), Ok(()));
/// assert_eq!(spec.context.variable("LANG"), Some(&"C".into()));
/// # Ok::<(), nodejobs_core::id::InvalidId>(())
/// ```
impl JobSpec {
    /// The id it shall have.
    ///
    /// # Errors
    /// [`InvalidId`] says which rule the text breaks.
    pub fn id(self, id: &str) -> Result<Self, InvalidId> {
        Ok(Self { id: Some(JobId::new(id)?), ..self })
    }

    /// A name for people; several jobs may share it.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Environment, umask and limits, instead of all that was set before.
    #[must_use]
    pub fn context(self, context: LaunchContext) -> Self {
        Self { context, ..self }
    }

    /// A variable of its environment, instead of one of that name.
    #[must_use]
    pub fn env(mut self, name: impl Into<RawText>, value: impl Into<RawText>) -> Self {
        let name = name.into();
        self.context.environment.retain(|(known, _)| *known != name);
        self.context.environment.push((name, value.into()));
        self
    }

    /// A label for finding it again, instead of one of that key.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// What it reads.
    #[must_use]
    pub fn stdin(self, stdin: Stdin) -> Self {
        Self { stdin, ..self }
    }

    /// The directory of its log files, absolute, instead of one of the data directory.
    #[must_use]
    pub fn logdir(mut self, directory: impl Into<RawText>) -> Self {
        self.output.logdir = Some(directory.into());
        self
    }

    /// The file of its output, absolute or relative to [`logdir`](Self::logdir); see [`Output::logfile`].
    #[must_use]
    pub fn logfile(mut self, file: impl Into<RawText>) -> Self {
        self.output.logfile = Some(file.into());
        self
    }

    /// Has standard error written into the file of standard output.
    #[must_use]
    pub fn merge(mut self) -> Self {
        self.output.merge = true;
        self
    }

    /// How many of the newest bytes of each log file are kept, 0 for all; see [`Policy::log_cap`].
    #[must_use]
    pub fn log_cap(mut self, bytes: u64) -> Self {
        self.policy.log_cap = Some(bytes);
        self
    }

    /// When it is started.
    #[must_use]
    pub fn start(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// How long it may run, to the millisecond.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.policy.timeout_ms = Some(millis(timeout));
        self
    }

    /// The signal that asks it to end.
    #[must_use]
    pub fn stop_signal(mut self, signal: Signal) -> Self {
        self.policy.stop_signal = signal;
        self
    }

    /// How long it has to obey before it is killed, to the millisecond.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.policy.grace_ms = millis(grace);
        self
    }

    /// The exit codes that mean success, instead of 0.
    #[must_use]
    pub fn success_codes(mut self, codes: impl IntoIterator<Item = i32>) -> Self {
        self.policy.success_codes = codes.into_iter().collect();
        self
    }

    /// When it is started again after it has ended by itself.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.policy.restart = restart;
        self
    }

    /// How often at most it is started again.
    #[must_use]
    pub fn max_restarts(mut self, max: u32) -> Self {
        self.policy.max_restarts = Some(max);
        self
    }

    /// How long after its end it is started again, to the millisecond; doubled with each failure in a row, up to
    /// [`restart_delay_max`](Self::restart_delay_max).
    #[must_use]
    pub fn restart_delay(mut self, delay: Duration) -> Self {
        self.policy.restart_delay_ms = millis(delay);
        self
    }

    /// The longest that the delay is doubled to, to the millisecond.
    #[must_use]
    pub fn restart_delay_max(mut self, delay: Duration) -> Self {
        self.policy.backoff.delay_max_ms = millis(delay);
        self
    }

    /// How long an attempt has to run, to the millisecond, for its failure to be the first of a row.
    #[must_use]
    pub fn healthy_after(mut self, spell: Duration) -> Self {
        self.policy.backoff.healthy_after_ms = millis(spell);
        self
    }

    /// After how many failures in a row it is not started again; `None` for never.
    #[must_use]
    pub fn give_up_after(mut self, failures: impl Into<Option<u32>>) -> Self {
        self.policy.backoff.give_up_after = failures.into();
        self
    }

    /// When it is tried again after it has failed; not together with [`restart`](Self::restart).
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.policy.retry = Some(Box::new(retry));
        self
    }

    /// Has it wait for the end of one more job, named as everywhere: by its id, a unique beginning of that, or its unique
    /// name.
    ///
    /// ```
    /// use nodejobs_core::spec::{Command, Condition, JobSpec};
    ///
    /// let spec = JobSpec::new(Command::argv(["./deploy"]), "/src").after("build", Condition::Success);
    /// assert_eq!(spec.validate(), Ok(()));
    /// ```
    #[must_use]
    pub fn after(self, job: impl Into<String>, condition: Condition) -> Self {
        self.awaits(Awaited { whom: Whom::Job(job.into()), condition })
    }

    /// Has it wait for the ends of all jobs of a group that have not ended when it is submitted.
    #[must_use]
    pub fn after_group(self, group: impl Into<String>, condition: Condition) -> Self {
        self.awaits(Awaited { whom: Whom::Group(group.into()), condition })
    }

    fn awaits(mut self, awaited: Awaited) -> Self {
        self.after.get_or_insert_with(AfterRequest::default).on.push(awaited);
        self
    }

    /// What becomes of it when one of those it waits for has ended otherwise than required.
    #[must_use]
    pub fn if_unmet(mut self, unmet: Unmet) -> Self {
        self.after.get_or_insert_with(AfterRequest::default).unmet = unmet;
        self
    }

    /// Has it submitted only if no job of this key lives: otherwise that one is the answer.
    #[must_use]
    pub fn unique(self, key: impl Into<String>) -> Self {
        Self { unique: Some(Unique { key: key.into(), window_ms: None }), ..self }
    }

    /// As [`unique`](Self::unique), and neither if one was submitted within this time, to the millisecond.
    #[must_use]
    pub fn unique_within(self, key: impl Into<String>, window: Duration) -> Self {
        Self { unique: Some(Unique { key: key.into(), window_ms: Some(millis(window)) }), ..self }
    }

    /// Lets processes that it leaves behind go on when it ends by itself.
    #[must_use]
    pub fn keep_children(mut self) -> Self {
        self.policy.keep_children = true;
        self
    }

    /// What it may use of the machine, and as whom, instead of what was said before.
    ///
    /// ```
    /// use nodejobs_core::spec::{Command, JobSpec, Limits};
    ///
    /// let limits = Limits { memory: Some(512 << 20), nice: Some(10), ..Limits::default() };
    /// let spec = JobSpec::new(Command::argv(["make"]), "/src").limits(limits);
    /// assert_eq!(spec.validate(), Ok(()));
    /// ```
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.policy.limits = (limits != Limits::default()).then(|| Box::new(limits));
        self
    }

    /// Which intent to run this is; see [`submit_key`](Self::submit_key).
    #[must_use]
    pub fn submit_key(self, key: impl Into<String>) -> Self {
        Self { submit_key: Some(key.into()), ..self }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Command;

    #[test]
    fn what_is_set_twice_has_the_last_value() {
        let spec = JobSpec::new(Command::shell("true"), "/");
        let built = spec.clone().env("A", "1").env("B", "2").env("A", "3").label("k", "1").label("k", "2");
        assert_eq!(built.context.environment, [("B".into(), "2".into()), ("A".into(), "3".into())]);
        assert_eq!(built.labels, [("k".to_owned(), "2".to_owned())].into());
        assert_eq!(spec.clone().grace(Duration::from_micros(1_500)).policy.grace_ms, 1);
        assert_eq!(spec.clone().grace(Duration::MAX).policy.grace_ms, u64::MAX);
        assert!(spec.id("../x").is_err());
    }
}
