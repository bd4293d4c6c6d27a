//! What does not come back.

use nodejobs_core::{RawText, Timestamp};
use serde::{Deserialize, Serialize};

/// Something that waits for a file system that does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hang {
    /// What was to be done, such as `read`.
    pub doing: String,
    /// With which file or directory.
    pub path: RawText,
    /// Since when.
    pub since: Timestamp,
    /// How much else waits for the same file system.
    pub waiting: usize,
}

impl std::fmt::Display for Hang {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { doing, path, since: _, waiting } = self;
        write!(f, "cannot {doing} '{}': its file system does not answer", path.to_lossy())?;
        match waiting {
            0 => Ok(()),
            waiting => write!(f, "; {waiting} more wait for it"),
        }
    }
}
