//! What a job is to wait for, as it is asked for: in words that the owner looks up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Condition, InvalidSpec, JobSpec, Unmet};

/// Whom a job is to wait for.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AfterRequest {
    /// Each of them.
    pub on: Vec<Awaited>,
    /// What becomes of it when one of them has ended otherwise.
    #[serde(default)]
    pub unmet: Unmet,
}

impl AfterRequest {
    /// The most jobs that one may wait for, those of groups counted one by one.
    pub const MAX_JOBS: usize = 10_000;

    /// Checks everything that can be checked without knowing the jobs.
    ///
    /// # Errors
    /// [`InvalidSpec`] names the first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        if self.on.is_empty() && self.unmet != Unmet::default() {
            return Err(InvalidSpec::WaitsForNobody);
        }
        if self.on.len() > Self::MAX_JOBS {
            return Err(InvalidSpec::WaitsForTooMany(self.on.len()));
        }
        for awaited in &self.on {
            let (Whom::Job(text) | Whom::Group(text)) = &awaited.whom;
            if text.is_empty() {
                return Err(InvalidSpec::EmptyName("the job to wait for"));
            }
            let length = text.chars().count();
            if length > JobSpec::MAX_NAME_LEN {
                return Err(InvalidSpec::LongName { what: "the job to wait for", length });
            }
        }
        Ok(())
    }
}

/// A job, or a group of them, that another one is to wait for.
///
/// ```
/// use nodejobs_core::spec::{Awaited, Condition, Whom};
///
/// let build: Awaited = "build:failure".parse()?;
/// assert_eq!((build.whom, build.condition), (Whom::Job("build".into()), Condition::Failure));
/// let night: Awaited = "group:night".parse()?;
/// assert_eq!((night.whom, night.condition), (Whom::Group("night".into()), Condition::Success));
/// # Ok::<(), nodejobs_core::spec::InvalidAwaited>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Awaited {
    /// Whom.
    pub whom: Whom,
    /// How it has to end.
    #[serde(default)]
    pub condition: Condition,
}

/// Whom to wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whom {
    /// The job of this id, of which this is a unique beginning, or of this unique name.
    Job(String),
    /// All jobs of this group that have not ended when the request comes.
    Group(String),
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whom::Job(text) => f.write_str(text),
            Whom::Group(name) => write!(f, "group:{name}"),
        }
    }
}

/// A text that says no job to wait for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAwaited {
    /// Nobody.
    #[error("there is no job in it; write ID, ID:any or group:NAME")]
    Nobody,
    /// A condition that there is not.
    #[error("'{0}' is not a condition; one of {list}", list = Condition::ALL.map(Condition::as_str).join(", "))]
    Condition(String),
}

impl FromStr for Awaited {
    type Err = InvalidAwaited;

    /// `ID`, `ID:CONDITION`, `group:NAME` or `group:NAME:CONDITION`. A name that has a colon needs its condition behind
    /// it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (group, rest) = match text.strip_prefix("group:") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (name, condition) = match rest.rsplit_once(':') {
            Some((name, condition)) => {
                let found = Condition::from_name(condition);
                (name, found.ok_or_else(|| InvalidAwaited::Condition(condition.to_owned()))?)
            }
            None => (rest, Condition::default()),
        };
        if name.is_empty() {
            return Err(InvalidAwaited::Nobody);
        }
        let whom = if group { Whom::Group(name.to_owned()) } else { Whom::Job(name.to_owned()) };
        Ok(Awaited { whom, condition })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Command;

    #[test]
    fn a_reference_has_a_condition_behind_it_or_success_is_meant() {
        let parsed = |text: &str| {
            let awaited = text.parse::<Awaited>().map_err(|error| error.to_string())?;
            Ok((awaited.whom.to_string(), awaited.condition))
        };
        let is = |whom: &str, condition| Ok((whom.to_owned(), condition));
        assert_eq!(parsed("a"), is("a", Condition::Success));
        assert_eq!(parsed("a:any"), is("a", Condition::Any));
        assert_eq!(parsed("two words:failure"), is("two words", Condition::Failure));
        assert_eq!(parsed("deploy:prod:success"), is("deploy:prod", Condition::Success));
        assert_eq!(parsed("group:night"), is("group:night", Condition::Success));
        assert_eq!(parsed("group:night:any"), is("group:night", Condition::Any));
        let refused = |text: &str| parsed(text).expect_err("refused");
        let typo: String = refused("a:sucess");
        assert_eq!(typo, "'sucess' is not a condition; one of success, failure, any");
        for nobody in ["", ":any", "group:"] {
            assert!(refused(nobody).contains("no job in it"), "{nobody}");
        }
    }

    #[test]
    fn what_is_asked_for_is_bounded() {
        let spec = |on: Vec<Awaited>, unmet| {
            let after = Some(AfterRequest { on, unmet });
            JobSpec { after, ..JobSpec::new(Command::argv(["true"]), "/") }.validate()
        };
        let one = || "a".parse::<Awaited>().expect("a reference");
        assert_eq!(spec(vec![one()], Unmet::Wait), Ok(()));
        assert_eq!(spec(Vec::new(), Unmet::Wait), Err(InvalidSpec::WaitsForNobody));
        let many = AfterRequest::MAX_JOBS + 1;
        assert_eq!(spec(vec![one(); many], Unmet::Cancel), Err(InvalidSpec::WaitsForTooMany(many)));
        let long = Awaited { whom: Whom::Group("x".repeat(129)), condition: Condition::Any };
        assert!(matches!(spec(vec![long], Unmet::Cancel), Err(InvalidSpec::LongName { .. })));
    }
}
