//! Job ids: validated on the way in, short and sortable when generated.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The id of a job: 1 to 128 of `A-Z a-z 0-9 . _ -`, not starting with `.` or `-`.
///
/// Such an id is safe as a file name, as an argument and in a URL path.
///
/// ```
/// use nodejobs_core::JobId;
///
/// assert!("nightly-backup.1".parse::<JobId>().is_ok());
/// assert!("../x".parse::<JobId>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(Box<str>);

/// Why a text is not a job id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// No character at all.
    #[error("a job id may not be empty")]
    Empty,
    /// More than [`JobId::MAX_LEN`] bytes.
    #[error("a job id has at most {max} characters, this one has {0}", max = JobId::MAX_LEN)]
    TooLong(usize),
    /// A first character that would hide a file or look like an option.
    #[error("job id {0:?} may not start with '.' or '-'")]
    BadStart(String),
    /// A character outside the allowed set.
    #[error("job id {id:?} contains {character:?}; allowed are A-Z a-z 0-9 . _ -")]
    BadCharacter {
        /// The text that was refused.
        id: String,
        /// The first character of it that is not allowed.
        character: char,
    },
}

impl JobId {
    /// The longest id, in characters (all of them ASCII).
    pub const MAX_LEN: usize = 128;

    /// Checks a text and makes an id of it.
    ///
    /// # Errors
    /// [`InvalidId`] says which rule the text breaks.
    pub fn new(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() {
            return Err(InvalidId::Empty);
        }
        if text.len() > Self::MAX_LEN {
            return Err(InvalidId::TooLong(text.chars().count()));
        }
        if let Some(character) = text.chars().find(|c| !Self::is_allowed(*c)) {
            return Err(InvalidId::BadCharacter { id: text.to_owned(), character });
        }
        if text.starts_with(['.', '-']) {
            return Err(InvalidId::BadStart(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_allowed(c: char) -> bool {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for JobId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl TryFrom<String> for JobId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> String {
        id.0.into()
    }
}

// By hand, since `into = "String"` would copy the id for each record that it is written to.
impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct JobIdVisitor;

        impl Visitor<'_> for JobIdVisitor {
            type Value = JobId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<JobId, E> {
                JobId::new(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(JobIdVisitor)
    }
}

/// One attempt of one job: what a launch, an exit status and a log file belong to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The job.
    pub id: JobId,
    /// Counted from 1.
    pub attempt: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (attempt {})", self.id, self.attempt)
    }
}

/// Makes ids of ten characters that sort by the time they were made.
///
/// Eight characters count milliseconds since 2024, two say which start of the owner made them. Within one owner the
/// time part only ever rises, also when the clock is set back; between owners the generation keeps them apart.
#[derive(Debug, Clone)]
pub struct IdGenerator {
    last: u64,
    generation: u64,
}

impl IdGenerator {
    /// Crockford's base 32 in lower case: no letter that looks like a digit.
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    const EPOCH_2024: i64 = 1_704_067_200_000;

    /// A generator for the owner with this generation number.
    pub fn new(generation: u64) -> Self {
        Self { last: 0, generation }
    }

    /// The next id, never one that this generator gave before.
    pub fn next_id(&mut self, now: Timestamp) -> JobId {
        let millis = now.as_millis().saturating_sub(Self::EPOCH_2024).max(0).unsigned_abs();
        self.last = millis.max(self.last + 1);
        let mut text = String::with_capacity(10);
        for position in (0..8).rev() {
            text.push(Self::digit(self.last >> (5 * position)));
        }
        text.push(Self::digit(self.generation >> 5));
        text.push(Self::digit(self.generation));
        JobId(text.into())
    }

    fn digit(value: u64) -> char {
        char::from(Self::DIGITS[(value & 31) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_that_could_leave_the_directory_or_look_like_options_are_refused() {
        let long = "x".repeat(129);
        for bad in ["", ".", "..", "../x", "a/b", "-rf", ".hidden", "a b", "a\0b", "ü", "a\n", long.as_str()]
        {
            assert!(JobId::new(bad).is_err(), "{bad:?} was accepted");
        }
        let longest = "x".repeat(128);
        for good in ["a", "0", "_", "A.b_c-d", longest.as_str()] {
            assert_eq!(JobId::new(good).expect(good).as_str(), good);
        }
    }

    #[test]
    fn generated_ids_rise_even_when_the_clock_is_set_back() {
        let mut ids = IdGenerator::new(7);
        let first = ids.next_id(Timestamp::from_millis(1_784_000_000_000));
        let second = ids.next_id(Timestamp::from_millis(1_784_000_000_000));
        let third = ids.next_id(Timestamp::from_millis(1_600_000_000_000));
        assert!(first < second && second < third, "{first} {second} {third}");
        assert_eq!(first.as_str().len(), 10);
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_a_plain_file_name(text in any::<String>()) {
            if let Ok(id) = JobId::new(&text) {
                prop_assert_eq!(std::path::Path::new(id.as_str()).file_name(), Some(std::ffi::OsStr::new(&text)));
                prop_assert!(id.as_str().len() <= JobId::MAX_LEN);
            }
        }

        #[test]
        fn generated_ids_are_valid_and_sort_by_time(
            earlier in 1_704_067_200_001_i64..2_700_000_000_000, gap in 1_i64..1_000_000_000, generation in 0_u64..2000,
        ) {
            let first = IdGenerator::new(generation).next_id(Timestamp::from_millis(earlier));
            let second = IdGenerator::new(generation + 1).next_id(Timestamp::from_millis(earlier + gap));
            prop_assert!(first < second);
            prop_assert_eq!(JobId::new(first.as_str()), Ok(first));
        }
    }
}
