//! Leaving the group of a job: a daemon or keeper that a job was first to need is none of it.

use std::path::PathBuf;

use super::{LEAF, Place, job_group_around, write};

/// Takes this process out of the group of a job, if it is in one and may leave it.
///
/// Gives the group in which it has to stay. Its job's limits are then its own as well, and it is spared when the job is
/// ended, process by process.
pub fn leave_job_group() -> Option<PathBuf> {
    let group = job_group_around(&Place::own()?.directory)?;
    let leaf = group.parent()?.join(LEAF);
    let _ = std::fs::create_dir(&leaf);
    let left = write(&leaf, "cgroup.procs", "0");
    left.is_err().then_some(group)
}

/// The group of a job in which this process is, if it is in one.
pub fn job_group_of(pid: u32) -> Option<PathBuf> {
    job_group_around(&Place::of(pid)?.directory)
}
