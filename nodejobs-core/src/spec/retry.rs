//! How often a job that fails is tried again.

use serde::{Deserialize, Serialize};

/// When a job that has failed by itself is tried again. Unlike [`Restart`](super::Restart), which keeps a service
/// running, this is for a job that is to succeed once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// How often at most, the first attempt not counted.
    pub retries: u32,
    /// How long after a failure, in milliseconds. Each further one doubles it.
    pub delay_ms: u64,
    /// How long at most, in milliseconds.
    pub delay_max_ms: u64,
    /// Whether an attempt that was lost because the machine restarted is followed by another one.
    pub on_reboot: bool,
    /// After how many attempts in a row that ended in the very same way it is given up; never if absent.
    pub park_after: Option<u32>,
}
