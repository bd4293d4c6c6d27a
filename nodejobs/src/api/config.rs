//! The settings in force, as they travel.

use nodejobs_core::RawText;
use serde::{Deserialize, Serialize};

/// The settings that somebody goes by, and the file that they are from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// Where the file is, or would be.
    pub path: RawText,
    /// Every setting, the defaults included.
    pub settings: Vec<Setting>,
}

/// One setting, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Table and key, such as `defaults.grace`; `hooks.1` for the first hook.
    pub key: String,
    /// The value as it is written in the file, without quotes; `None` if nothing is set.
    pub value: Option<String>,
    /// The line of the file that says so; `None` for a default.
    pub line: Option<u32>,
}
