//! What becomes of occurrences that meet another one, or nobody: by name, as people write it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What becomes of an occurrence while the one before it has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is skipped.
    #[default]
    Skip,
    /// It waits until that one has ended; at most [`Schedule::MAX_WAITING`](super::Schedule::MAX_WAITING) wait.
    Queue,
    /// That one is stopped, and then this one starts.
    Replace,
}

/// What becomes of occurrences that were due while nobody could start them: there was no daemon, or the machine was
/// suspended.
///
/// As text, also in JSON: `skip`, `one`, `all:10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CatchUp {
    /// They are skipped.
    #[default]
    Skip,
    /// The last of them runs, in place of all.
    One,
    /// The last of them run, one after another, at most so many.
    All(u32),
}

/// A text that names no way to catch up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no way to catch up; give skip, one, all (at most {default}) or all:N with 1 to {max}",
    default = CatchUp::DEFAULT_MOST, max = CatchUp::MAX_MOST
)]
pub struct UnknownCatchUp(String);

impl CatchUp {
    /// How many run at most where nothing else is said.
    pub const DEFAULT_MOST: u32 = 10;
    /// How many may be asked for.
    pub const MAX_MOST: u32 = 100;

    /// How many of the missed ones run at most.
    pub fn most(self) -> usize {
        match self {
            CatchUp::Skip => 0,
            CatchUp::One => 1,
            CatchUp::All(most) => usize::try_from(most).unwrap_or(usize::MAX),
        }
    }
}

impl fmt::Display for CatchUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CatchUp::Skip => f.write_str("skip"),
            CatchUp::One => f.write_str("one"),
            CatchUp::All(most) => write!(f, "all:{most}"),
        }
    }
}

impl From<CatchUp> for String {
    fn from(catch_up: CatchUp) -> Self {
        catch_up.to_string()
    }
}

impl TryFrom<String> for CatchUp {
    type Error = UnknownCatchUp;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl std::str::FromStr for CatchUp {
    type Err = UnknownCatchUp;

    /// ```
    /// use nodejobs_core::schedule::CatchUp;
    ///
    /// assert_eq!("all:3".parse(), Ok(CatchUp::All(3)));
    /// assert!("all:0".parse::<CatchUp>().is_err());
    /// ```
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownCatchUp(text.to_owned());
        Ok(match text {
            "skip" => CatchUp::Skip,
            "one" => CatchUp::One,
            "all" => CatchUp::All(CatchUp::DEFAULT_MOST),
            _ => {
                let most =
                    text.strip_prefix("all:").and_then(|most| most.parse().ok()).ok_or_else(unknown)?;
                if !(1..=Self::MAX_MOST).contains(&most) {
                    return Err(unknown());
                }
                CatchUp::All(most)
            }
        })
    }
}

/// A text that names no way to deal with an overlap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no way to deal with an overlap; give skip, queue or replace")]
pub struct UnknownOverlap(String);

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Overlap::Skip => "skip",
            Overlap::Queue => "queue",
            Overlap::Replace => "replace",
        })
    }
}

impl std::str::FromStr for Overlap {
    type Err = UnknownOverlap;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Overlap::Skip, Overlap::Queue, Overlap::Replace];
        let known = all.into_iter().find(|known| known.to_string() == text);
        known.ok_or_else(|| UnknownOverlap(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_catch_up_are_read_as_they_are_shown() {
        for text in ["skip", "one", "all:7", "all:100"] {
            assert_eq!(text.parse::<CatchUp>().expect(text).to_string(), text);
        }
        assert_eq!("all".parse::<CatchUp>().map(|all| all.to_string()).as_deref(), Ok("all:10"));
        for text in ["", "All", "all:", "all:0", "all:101", "all:-1", "all:x", "two"] {
            let error = text.parse::<CatchUp>().expect_err(text).to_string();
            assert!(error.contains("all:N"), "{error}");
        }
    }
}
