//! What a job takes of its group and of the machine's named resources: building it, and what of it makes no sense.

use crate::group::{DEFAULT_GROUP, InvalidName, MAX_COUNT, check_group_name, check_resource_name};

use super::JobSpec;

/// Why nobody could have such a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlace {
    /// A name that nothing can have.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// It would take nothing, or more than any group has.
    #[error("{0} slots are not possible; a job takes 1 to {MAX_COUNT}")]
    Slots(u32),
    /// It would take nothing, or more than any machine has.
    #[error("{count} of resource '{name}' are not possible; a job needs 1 to {MAX_COUNT} of what it names")]
    Count {
        /// Which resource.
        name: String,
        /// How many of it.
        count: u32,
    },
    /// More than anybody needs.
    #[error("{0} different resources are too many; a job needs at most {max}", max = JobSpec::MAX_NEEDS)]
    Needs(usize),
}

impl JobSpec {
    /// The most different named resources that a job may need.
    pub const MAX_NEEDS: usize = 16;

    /// The group in whose queue it waits. `default` is that of all jobs that name none.
    #[must_use]
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.group = Some(name.into()).filter(|name| name != DEFAULT_GROUP);
        self
    }

    /// Which of those that wait goes first: higher ones, and of the same the one that has waited for longest.
    #[must_use]
    pub fn priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }

    /// How many slots of its group it takes.
    #[must_use]
    pub fn slots(self, slots: u32) -> Self {
        Self { slots, ..self }
    }

    /// How many it needs of a named resource, instead of what was said of it before. It gets the numbers of those that it
    /// has in its environment, see [`resource_variables`](crate::group::resource_variables).
    ///
    /// ```
    /// use nodejobs_core::spec::{Command, JobSpec};
    ///
    /// let spec = JobSpec::new(Command::argv(["train"]), "/src").group("train").slots(2).need("gpu", 1);
    /// assert_eq!(spec.validate(), Ok(()));
    /// ```
    #[must_use]
    pub fn need(mut self, resource: impl Into<String>, count: u32) -> Self {
        self.needs.insert(resource.into(), count);
        self
    }

    pub(super) fn validate_place(&self) -> Result<(), InvalidPlace> {
        if let Some(group) = &self.group {
            check_group_name(group)?;
        }
        if !(1..=MAX_COUNT).contains(&self.slots) {
            return Err(InvalidPlace::Slots(self.slots));
        }
        if self.needs.len() > Self::MAX_NEEDS {
            return Err(InvalidPlace::Needs(self.needs.len()));
        }
        for (name, count) in &self.needs {
            check_resource_name(name)?;
            if !(1..=MAX_COUNT).contains(count) {
                return Err(InvalidPlace::Count { name: name.clone(), count: *count });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Command;

    #[test]
    fn a_place_that_nobody_can_have_is_refused_by_name() {
        let spec = || JobSpec::new(Command::argv(["true"]), "/");
        assert_eq!(spec().group("default").group, None, "which is that of who names none");
        let refused = |spec: JobSpec| spec.validate().expect_err("refused").to_string();
        assert!(refused(spec().group("a b")).contains("'a b' is no name of a group"));
        assert!(refused(spec().slots(0)).contains("0 slots"));
        assert!(refused(spec().slots(MAX_COUNT + 1)).contains("1048577 slots"));
        assert!(refused(spec().need("gpu", 0)).contains("0 of resource 'gpu'"));
        assert!(refused(spec().need("GPU", 1)).contains("'GPU' is no name of a resource"));
        let many = (0..17).fold(spec(), |spec, number| spec.need(format!("r{number}"), 1));
        assert!(refused(many).contains("17 different resources"));
    }
}
