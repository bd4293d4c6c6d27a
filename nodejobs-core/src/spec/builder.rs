//! Building a spec in one expression.

use std::time::Duration;

use super::{JobSpec, LaunchContext};
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

    /// The signal that asks it to end.
    #[must_use]
    pub fn stop_signal(self, stop_signal: Signal) -> Self {
        Self { stop_signal, ..self }
    }

    /// How long it has to obey before it is killed, to the millisecond.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX), ..self }
    }

    /// The exit codes that mean success, instead of 0.
    #[must_use]
    pub fn success_codes(self, codes: impl IntoIterator<Item = i32>) -> Self {
        Self { success_codes: codes.into_iter().collect(), ..self }
    }

    /// Which intent to run this is; see [`submit_key`](Self::submit_key).
    #[must_use]
    pub fn submit_key(self, key: impl Into<String>) -> Self {
        Self { submit_key: Some(key.into()), ..self }
    }
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
        assert_eq!(spec.clone().grace(Duration::from_micros(1_500)).grace_ms, 1);
        assert_eq!(spec.clone().grace(Duration::MAX).grace_ms, u64::MAX);
        assert!(spec.id("../x").is_err());
    }
}
