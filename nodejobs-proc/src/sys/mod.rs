//! The system calls that no safe wrapper offers. All `unsafe` of nodejobs is in this directory.
#![expect(unsafe_code, reason = "this directory is where it is allowed")]

pub(crate) mod child;
mod errno;
mod limits;
pub(crate) mod page;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Turns the C convention of -1 and errno into a result.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Has the allocator give the memory back that nobody uses.
pub(crate) fn give_memory_back() {
    // SAFETY: takes and gives plain numbers; the allocator locks itself.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Sets every signal's disposition to the default: `exec` keeps "ignore", and a job must not inherit ours.
pub(crate) fn reset_signal_dispositions() {
    for signal in 1..=64 {
        // For KILL, STOP and the C library's own signals this fails harmlessly.
        default_disposition(signal);
    }
}

/// Sets the disposition of one signal to the default.
pub(crate) fn default_disposition(signal: i32) {
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Blocks every signal in the calling thread and those it starts.
pub(crate) fn block_all_signals() -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set before it is used; a null old set is allowed.
    check(unsafe {
        libc::sigfillset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut())
    })?;
    Ok(())
}

/// A descriptor that becomes readable when a child ends. The signal must be blocked.
pub(crate) fn child_signal_fd() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before it is used; the new descriptor belongs to nobody else.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        let fd = check(libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Stops this process at this very place, as SIGSTOP does, until somebody lets it go on. The signal is the calling
/// thread's own, so that this thread does not run on until another has taken it.
#[cfg(debug_assertions)]
pub(crate) fn halt() {
    // SAFETY: takes and gives plain numbers. Raw, because a child of a launch shares the C library's memory with others.
    unsafe {
        let (process, thread) = (libc::syscall(libc::SYS_getpid), libc::syscall(libc::SYS_gettid));
        libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGSTOP);
    }
}

/// Which side of [`fork`] this is.
pub(crate) enum Forked {
    /// The one that called, with the child's process id.
    Parent(u32),
    /// The new process.
    Child,
}

/// Forks. Only for a process with a single thread, or whose other threads allocate and lock nothing.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: no other thread can be in the middle of anything that the child needs, so it may go on like any other process.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid.unsigned_abs())),
    }
}

/// The hard limit of the resident set of a process; 0 means this one.
///
/// # Errors
/// For a process of another user, and one that is gone.
pub(crate) fn resident_set_limit(pid: u32) -> io::Result<u64> {
    limit_of(pid, libc::RLIMIT_RSS).map(|(_, hard)| hard)
}

/// The soft and hard limits of this process, by their numbers.
pub(crate) fn own_limits<const N: usize>() -> [Option<(u64, u64)>; N] {
    std::array::from_fn(|number| limit_of(0, u32::try_from(number).ok()?).ok())
}

fn limit_of(pid: u32, resource: u32) -> io::Result<(u64, u64)> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: nothing is set, and what is read fits into the limit, which outlives the call.
    check(unsafe { libc::prlimit64(pid, resource, ptr::null(), &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// How a child ended, and what it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChildExit {
    pub(crate) pid: u32,
    /// `CLD_EXITED`, `CLD_KILLED` or `CLD_DUMPED`.
    pub(crate) code: i32,
    /// The exit code or the signal.
    pub(crate) status: i32,
    pub(crate) cpu_us: u64,
    pub(crate) peak_kib: u64,
}

/// Which children [`wait_child`] looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Children {
    /// Any, and only one that has ended already.
    AnyEnded,
    /// This one, waiting until it ends or is halted.
    Wait(u32),
}

/// Looks at a child that has ended and leaves it to be looked at again. `None` means that none has.
///
/// # Errors
/// `ECHILD` when there are no children.
pub(crate) fn wait_child(which: Children) -> io::Result<Option<ChildExit>> {
    let (id_type, id, options) = match which {
        Children::AnyEnded => (libc::P_ALL, 0, libc::WNOHANG),
        Children::Wait(pid) => (libc::P_PID, pid, libc::WSTOPPED),
    };
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to memory of the right type that outlives the call. The raw system call, unlike
        // the C library's function, also fills the resource usage.
        let result = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                id_type,
                id,
                info.as_mut_ptr(),
                libc::WEXITED | libc::WNOWAIT | options,
                usage.as_mut_ptr(),
            )
        };
        if result == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: both were zeroed, which is a valid value, and the successful call filled them.
    let (info, usage) = unsafe { (info.assume_init(), usage.assume_init()) };
    // SAFETY: for waitid these fields of the union are the ones that are set (or zero).
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let micros = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    Ok(Some(ChildExit {
        pid: pid.unsigned_abs(),
        code: info.si_code,
        status,
        cpu_us: micros(usage.ru_utime) + micros(usage.ru_stime),
        peak_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    }))
}

/// Takes note that a child is halted, so that [`wait_child`] waits for what comes next.
pub(crate) fn note_stop(pid: u32) -> io::Result<()> {
    // SAFETY: null info and usage are allowed.
    check(unsafe { libc::waitid(libc::P_PID, pid, ptr::null_mut(), libc::WSTOPPED | libc::WNOHANG) })?;
    Ok(())
}

/// Collects a child that [`wait_child`] has shown to have ended.
pub(crate) fn reap(pid: u32) -> io::Result<()> {
    // SAFETY: null info and usage are allowed.
    check(unsafe { libc::waitid(libc::P_PID, pid, ptr::null_mut(), libc::WEXITED | libc::WNOHANG) })?;
    Ok(())
}

#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    data: [u8; 8],
}

/// The number by which pidfs knows a process for as long as the machine runs, never used twice.
///
/// # Errors
/// On kernels without pidfs (before 6.14 its files had no handles).
pub(crate) fn pidfs_number(pidfd: BorrowedFd<'_>) -> io::Result<u64> {
    pidfs_number_raw(pidfd.as_raw_fd())
}

fn pidfs_number_raw(pidfd: RawFd) -> io::Result<u64> {
    let mut handle = FileHandle { bytes: 8, kind: 0, data: [0; 8] };
    let mut mount: libc::c_int = 0;
    // SAFETY: the handle has the layout the kernel expects, with room for the eight bytes it announces.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            pidfd,
            c"".as_ptr(),
            ptr::from_mut(&mut handle),
            ptr::from_mut(&mut mount),
            libc::AT_EMPTY_PATH,
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    if handle.bytes != 8 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(u64::from_ne_bytes(handle.data))
}

/// `struct pidfd_info` of Linux 6.15 up to the exit code.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    pids: [u32; 3],
    credentials: [u32; 8],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)` with the first published size of the structure, 64 bytes.
const PIDFD_GET_INFO: libc::c_ulong = 0xC040_FF0B;

/// The wait status of a process that was reaped by somebody else, through a descriptor opened before that.
///
/// # Errors
/// Before Linux 6.15, and while the process has not been reaped.
pub(crate) fn pidfd_exit_status(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request number carries the structure's size, and the structure outlives the call.
    check(unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, ptr::from_mut(&mut info)) })?;
    if info.mask & PIDFD_INFO_EXIT == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(info.exit_code)
}

/// Has every descriptor from 3 on closed in programs that this process starts from now on, whoever opened it.
pub(crate) fn close_descriptors_on_exec() {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: nothing is closed here; a flag is set on descriptors that stay what they are. A kernel before 5.11 does
    // not know the call, and what was inherited is inherited further.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, CLOSE_RANGE_CLOEXEC) };
}

/// Gives the calling thread a descriptor table of its own, in which only 0 to 2 and `kept` are open. From here on
/// the thread has the whole limit of descriptors for itself, and must touch no other descriptor of the process.
///
/// # Errors
/// Where the kernel (before 5.9) or a sandbox does not allow it: the thread goes on with the process's table.
pub(crate) fn own_descriptor_table(kept: [BorrowedFd<'_>; 2]) -> io::Result<()> {
    const CLOSE_RANGE_UNSHARE: libc::c_uint = 2;
    let close_range = |first: RawFd, last: libc::c_uint, flags: libc::c_uint| {
        // SAFETY: the first call separates the tables, so that what it and the second close stays open for all
        // other threads; the second comes only after it has succeeded.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    let mut kept = kept.map(|fd| fd.as_raw_fd());
    kept.sort_unstable();
    close_range(kept[1] + 1, u32::MAX, CLOSE_RANGE_UNSHARE)?;
    let gaps = [(3, kept[0] - 1), (kept[0] + 1, kept[1] - 1)];
    for (first, last) in gaps.into_iter().filter(|(first, last)| first <= last) {
        close_range(first, last.unsigned_abs(), 0)?;
    }
    Ok(())
}

/// Gives up every descriptor from 3 on but these, in a process that goes on with nothing else of what it had. Allocates
/// nothing.
pub(crate) fn close_all_but(kept: &mut [RawFd]) {
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.iter().map(|fd| fd.unsigned_abs()).chain([u32::MAX]) {
        if first < fd {
            let last = if fd == u32::MAX { fd } else { fd - 1 };
            // SAFETY: whoever calls this uses no other descriptor from here on, and ends without dropping any.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
        first = fd.saturating_add(1);
    }
}

/// Gives up every descriptor from 3 on, whoever left it open.
pub(crate) fn close_inherited_descriptors() {
    // SAFETY: called before the keeper has opened anything of its own, so nobody's descriptor is taken away. An
    // ancient kernel without the call keeps them, which costs nothing but the descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_structures_have_their_published_sizes() {
        assert_eq!(std::mem::size_of::<PidfdInfo>(), 64);
        assert_eq!(std::mem::size_of::<FileHandle>(), 16);
    }
}
