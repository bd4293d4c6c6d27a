//! Work that is to be submitted once, however often it is asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{InvalidSpec, JobSpec};

/// The label that a job with a key has, with the key as its value. It is how the job of a key is found.
pub const UNIQUE_LABEL: &str = "unique";

/// At most one job of a key lives: a further submit is answered with the job that there is.
///
/// ```
/// use nodejobs_core::spec::{Command, JobSpec};
///
/// let spec = JobSpec::new(Command::argv(["./import"]), "/srv").unique("import of 2026-07-14");
/// assert_eq!(spec.validate(), Ok(()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unique {
    /// What the work is known by.
    pub key: String,
    /// For how many milliseconds since it was submitted a job counts although it has ended; not at all if absent.
    #[serde(default)]
    pub window_ms: Option<u64>,
}

impl JobSpec {
    /// Its labels with that of its key.
    pub(crate) fn stored_labels(&self) -> BTreeMap<String, String> {
        let own = self.unique.iter().map(|unique| (UNIQUE_LABEL.to_owned(), unique.key.clone()));
        self.labels.clone().into_iter().chain(own).collect()
    }

    pub(super) fn validate_unique(&self) -> Result<(), InvalidSpec> {
        let Some(unique) = &self.unique else { return Ok(()) };
        if self.labels.contains_key(UNIQUE_LABEL) {
            return Err(InvalidSpec::UniqueTwice);
        }
        Self::validate_name("the unique key", &unique.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Command;

    #[test]
    fn a_key_is_a_label_and_not_given_twice() {
        let spec = JobSpec::new(Command::argv(["true"]), "/").unique("k");
        assert_eq!(spec.validate(), Ok(()));
        assert_eq!(spec.clone().label(UNIQUE_LABEL, "x").validate(), Err(InvalidSpec::UniqueTwice));
        assert_eq!(spec.unique("").validate(), Err(InvalidSpec::EmptyName("the unique key")));
    }
}
