//! What a job may use, and as whom it runs, set by the child of a launch in itself: nothing here allocates or locks.

use std::ptr;

use nodejobs_core::backend::User;

use super::errno::errno;
use crate::journal::Stage;
use crate::protocol::LaunchLimits;

// Raw, because the C library's functions have all threads of a process take part, and those are the keeper's.
#[cfg(target_pointer_width = "64")]
use libc::{SYS_setgroups, SYS_setresgid, SYS_setresuid};
#[cfg(target_pointer_width = "32")]
use libc::{
    SYS_setgroups32 as SYS_setgroups, SYS_setresgid32 as SYS_setresgid, SYS_setresuid32 as SYS_setresuid,
};

/// Sets them, in an order in which each is still allowed.
///
/// # Safety
/// Only in a child of [`spawn`](super::child::spawn): it changes the process for good.
pub(super) unsafe fn set(limits: &LaunchLimits) -> Result<(), (Stage, i32)> {
    let LaunchLimits { open_files, nice, user } = limits;
    if let Some((soft, hard)) = open_files {
        let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both point to a limit that is there as long as the call.
        let result = unsafe {
            libc::prlimit64(0, libc::RLIMIT_NOFILE, ptr::null(), &raw mut limit);
            limit.rlim_cur = *soft;
            limit.rlim_max = hard.unwrap_or(limit.rlim_max.max(*soft));
            libc::prlimit64(0, libc::RLIMIT_NOFILE, &raw const limit, ptr::null_mut())
        };
        if result == -1 {
            return Err((Stage::OpenFiles, errno()));
        }
    }
    if let Some(nice) = nice {
        // SAFETY: takes plain numbers; 0 is this process.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, *nice) } == -1 {
            return Err((Stage::Nice, errno()));
        }
    }
    if let Some(User { uid, gid, groups }) = user {
        // SAFETY: the list is as long as is said, the rest are plain numbers. The groups go first: whoever is no longer
        // root may not change them.
        let failed = unsafe {
            libc::syscall(SYS_setgroups, groups.len(), groups.as_ptr()) == -1
                || libc::syscall(SYS_setresgid, *gid, *gid, *gid) == -1
                || libc::syscall(SYS_setresuid, *uid, *uid, *uid) == -1
        };
        if failed {
            return Err((Stage::User, errno()));
        }
    }
    Ok(())
}
