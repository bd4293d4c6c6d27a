//! Watching a job while it writes.
