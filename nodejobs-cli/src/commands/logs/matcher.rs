//! Which lines `logs --grep` shows.

use std::fmt;
use std::sync::Arc;

use regex::bytes::Regex;

use crate::exit::{Failure, USAGE};

type IsWanted = dyn Fn(&[u8]) -> bool;

/// Whether a line is one of those that are looked for. A function, as only one of our programs has regular expressions: their
/// tables for all of Unicode were nearly half of what the command had to relocate at each start.
#[derive(Clone)]
pub(super) struct Matcher(Arc<IsWanted>);

impl Matcher {
    pub(super) fn new(pattern: &str) -> Result<Self, Failure> {
        let regex = Regex::new(pattern).map_err(|error| {
            Failure::caused(USAGE, format!("--grep '{pattern}' is no regular expression"), &error)
        })?;
        Ok(Self(Arc::new(move |line| regex.is_match(line))))
    }

    pub(super) fn matches(&self, line: &[u8]) -> bool {
        (self.0)(line)
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Matcher")
    }
}
