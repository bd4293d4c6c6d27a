//! Becoming the owner of a directory, or finding that the one there is answers.

use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};

use crate::api::ProblemKind;
use crate::client::Client;
use crate::directory::{DataDirectory, Lock};
use crate::error::Error;

/// How long an owner that does not answer may still hold the directory: one that was killed gives up its socket a
/// moment before its lock.
pub(crate) const DYING: Duration = Duration::from_secs(5);

/// Becomes the owner, or finds that the owner there is answers.
pub(crate) fn own_or_reach(directory: &DataDirectory) -> Result<Option<Lock>, Error> {
    let deadline = Instant::now() + DYING;
    loop {
        let holder = match directory.lock_owner()? {
            Ok(lock) => return Ok(Some(lock)),
            Err(holder) => holder,
        };
        match Client::connect(directory.path()) {
            Ok(_) => return Ok(None),
            Err(error) if !error.is_no_daemon() => return Err(error.into()),
            Err(error) if Instant::now() >= deadline => {
                let pid = holder.map_or("a process".to_owned(), |holder| format!("process {}", holder.pid));
                let message = format!(
                    "data directory '{}' is owned by {pid}, which does not answer",
                    directory.path().display()
                );
                return Err(Error::new(ProblemKind::Unavailable, message).with_source(error));
            }
            // Nothing tells when a lock is given up, except waiting for it without end.
            Err(_) => drop(poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 10_000_000 }))),
        }
    }
}
