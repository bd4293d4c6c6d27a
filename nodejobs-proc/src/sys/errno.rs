//! Why the last system call of this thread has failed, where nothing may be allocated.

pub(super) fn errno() -> i32 {
    // SAFETY: the location is always valid.
    unsafe { *libc::__errno_location() }
}
