//! From `clone` to `execve`: what runs between the keeper and the job's program.
//!
//! The child shares the keeper's memory, and the keeper stands still until the child has executed its program or is
//! gone. So the child may read everything the keeper prepared, and what it writes is seen by the keeper; but it must
//! not allocate, lock or panic, because the keeper's allocator and locks may be in any state it left them in.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use super::check;
use super::errno::errno;
use crate::failpoint::{Failpoint, reached};
use crate::journal::{EntryBuffer, Stage};
use crate::protocol::LaunchLimits;

/// Everything the child needs, prepared beforehand. All pointers end in a null pointer where they are lists, and
/// point into memory that the caller keeps until [`spawn`] returns.
pub(crate) struct ChildPlan<'a> {
    /// The program under each name it may have, tried in turn.
    pub(crate) candidates: &'a [*const c_char],
    /// The arguments, with one free place in front of them (for `/bin/sh` before a script without `#!`).
    pub(crate) argv: &'a mut [*const c_char],
    /// The environment.
    pub(crate) envp: &'a [*const c_char],
    pub(crate) cwd: &'a CStr,
    pub(crate) stdin: &'a CStr,
    pub(crate) stdout: &'a CStr,
    pub(crate) stderr: &'a CStr,
    /// What is held for it, instead of the streams that it stands for.
    pub(crate) given: Option<Given>,
    pub(crate) umask: Option<u32>,
    /// Resource number, soft limit, and an upper bound of the hard limit.
    pub(crate) rlimits: &'a [(u32, u64, u64)],
    /// What cannot be set keeps the program from being executed.
    pub(crate) limits: &'a LaunchLimits,
    /// The file by which it enters its cgroup.
    pub(crate) group: Option<&'a CStr>,
    /// Where the child notes itself, open for appending.
    pub(crate) journal: RawFd,
    /// The note, complete but for what only the child knows.
    pub(crate) entry: &'a mut EntryBuffer,
}

/// An open end of what is held for a job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given {
    pub(crate) fd: RawFd,
    /// Of a terminal, which is all three streams: where its output begins in the log.
    pub(crate) terminal: Option<u64>,
}

/// How far the child got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing of it is in the journal, so it never executed anything.
    NotNoted,
    /// It is in the journal; the program was executed, or the child was killed on the last step.
    Noted,
    /// The journal says why it did not execute the program.
    FailureNoted,
    /// It did not execute the program, and could not write that down. The number is the system's error.
    FailureNotNoted(i32),
}

const NOT_NOTED: i32 = -1;
const NOTED: i32 = -2;
const FAILURE_NOTED: i32 = -3;

/// Stack for the child, used by one child at a time.
pub(crate) struct ChildStack(Vec<MaybeUninit<u128>>);

impl ChildStack {
    /// Room for far more than the child's few frames.
    pub(crate) fn new() -> Self {
        Self(vec![MaybeUninit::uninit(); 64 * 1024 / size_of::<u128>()])
    }
}

struct Passed<'a, 'b> {
    plan: &'a mut ChildPlan<'b>,
    progress: &'a AtomicI32,
}

/// Starts a process that does what the plan says, and returns once it has executed its program or is gone.
///
/// # Errors
/// When no process could be made.
pub(crate) fn spawn(stack: &mut ChildStack, plan: &mut ChildPlan<'_>) -> io::Result<(u32, Progress)> {
    let progress = AtomicI32::new(NOT_NOTED);
    let mut passed = Passed { plan, progress: &progress };
    // SAFETY: the stack is exclusively borrowed, large enough and 16-byte aligned at its upper end, where stacks
    // begin on every supported machine. CLONE_VFORK keeps this thread, and so `passed`, where it is until the child
    // no longer uses our memory. All signals are blocked in the keeper, so no handler runs in the child.
    let pid = check(unsafe {
        let top = stack.0.as_mut_ptr().add(stack.0.len());
        libc::clone(
            run_child,
            top.cast::<c_void>(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            ptr::from_mut(&mut passed).cast::<c_void>(),
        )
    })?;
    let progress = match progress.load(Ordering::SeqCst) {
        NOT_NOTED => Progress::NotNoted,
        NOTED => Progress::Noted,
        FAILURE_NOTED => Progress::FailureNoted,
        errno => Progress::FailureNotNoted(errno),
    };
    Ok((pid.unsigned_abs(), progress))
}

extern "C" fn run_child(passed: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a pointer to its own `Passed`, which outlives this function because of CLONE_VFORK.
    let Passed { plan, progress } = unsafe { &mut *passed.cast::<Passed<'_, '_>>() };
    // SAFETY: see `prepare`; nothing here returns to code that expects the child to be the keeper.
    let (stage, errno) = unsafe { prepare_and_execute(plan, progress) };
    reached(Failpoint::ChildFailed);
    plan.entry.make_start_failure(stage, errno, now_wall(), now_boot());
    progress.store(if append(plan).is_ok() { FAILURE_NOTED } else { errno }, Ordering::SeqCst);
    reached(Failpoint::ChildFailureNoted);
    // SAFETY: ends this process without running anything of the keeper's.
    unsafe { libc::_exit(127) }
}

/// Returns only when something failed.
///
/// # Safety
/// Only in a child of [`spawn`]: it changes the process for good.
unsafe fn prepare_and_execute(plan: &mut ChildPlan<'_>, progress: &AtomicI32) -> (Stage, i32) {
    // SAFETY: plain system calls on values and on NUL-terminated strings that the plan keeps alive.
    unsafe {
        libc::setsid();
        // Before anything is opened, so that all that it has counts as its own.
        if let Some(Err(errno)) = plan.group.map(|group| enter(group)) {
            return (Stage::Group, errno);
        }
        let streams = [
            (Stage::Stdin, plan.stdin, libc::O_RDONLY, 0),
            (Stage::Stdout, plan.stdout, libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND, 1),
            (Stage::Stderr, plan.stderr, libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND, 2),
        ];
        for (stage, path, flags, target) in streams {
            if let Some(given) = plan.given.filter(|given| target == 0 || given.terminal.is_some()) {
                if libc::dup2(given.fd, target) == -1 {
                    return (stage, errno());
                }
                continue;
            }
            // A named pipe without anybody at its other end must not keep the keeper waiting, which waits for us.
            let opening = libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;
            let fd = libc::open(path.as_ptr(), flags | opening, 0o600 as libc::c_uint);
            // The keeper has 0 to 2 open, so a new descriptor never is one of them, and dup2 clears CLOEXEC.
            if fd == -1 || libc::dup2(fd, target) == -1 {
                return (stage, errno());
            }
            libc::close(fd);
            libc::fcntl(target, libc::F_SETFL, flags & libc::O_APPEND);
        }
        // What cannot be positioned has no start.
        let end_of = |fd: c_int| u64::try_from(libc::lseek(fd, 0, libc::SEEK_END)).unwrap_or(0);
        match plan.given.and_then(|given| given.terminal) {
            Some(log_start) => {
                // The session has no other: it was made just now.
                if libc::ioctl(0, libc::TIOCSCTTY, 0) == -1 {
                    return (Stage::Stdin, errno());
                }
                plan.entry.set_log_start(log_start, log_start);
            }
            None => plan.entry.set_log_start(end_of(1), end_of(2)),
        }
        for (resource, soft, hard) in plan.rlimits {
            let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
            if libc::prlimit64(0, *resource, ptr::null(), &raw mut limit) == 0 {
                limit.rlim_max = limit.rlim_max.min(*hard);
                limit.rlim_cur = (*soft).min(limit.rlim_max);
                // A limit that cannot be set stays as the keeper has it; the program can still run.
                libc::prlimit64(0, *resource, &raw const limit, ptr::null_mut());
            }
        }
        if let Err(failed) = super::limits::set(plan.limits) {
            return failed;
        }
        if libc::chdir(plan.cwd.as_ptr()) == -1 {
            return (Stage::Cwd, errno());
        }
        if let Some(umask) = plan.umask {
            libc::umask(umask);
        }
        reached(Failpoint::ChildBeforeNote);
        let pid = libc::getpid();
        let start_ticks = own_start_ticks();
        plan.entry.complete_started(
            pid.unsigned_abs(),
            start_ticks,
            own_pidfs_number(pid),
            now_wall(),
            now_boot(),
        );
        if let Err(errno) = append(plan) {
            return (Stage::Journal, errno);
        }
        progress.store(NOTED, Ordering::SeqCst);
        reached(Failpoint::ChildNoted);
        let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(signals.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, signals.as_ptr(), ptr::null_mut());
        (Stage::Exec, execute(plan))
    }
}

/// Takes this process into the cgroup whose `cgroup.procs` this is.
///
/// # Safety
/// As [`prepare_and_execute`].
unsafe fn enter(group: &CStr) -> Result<(), i32> {
    // SAFETY: the path is NUL-terminated and the buffer as long as is said.
    unsafe {
        let fd = libc::open(group.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd == -1 {
            return Err(errno());
        }
        let written = libc::write(fd, c"0".as_ptr().cast::<c_void>(), 1);
        let failed = errno();
        libc::close(fd);
        if written == 1 { Ok(()) } else { Err(failed) }
    }
}

/// Like `execvp`: the first name that exists and may be executed; a script without `#!` goes to `/bin/sh`.
///
/// # Safety
/// As [`prepare_and_execute`].
unsafe fn execute(plan: &mut ChildPlan<'_>) -> i32 {
    let mut denied = false;
    let mut last = libc::ENOENT;
    for candidate in plan.candidates {
        // SAFETY: candidates, arguments and environment are NUL-terminated and the lists end in a null pointer.
        unsafe {
            libc::execve(*candidate, plan.argv.as_ptr().add(1), plan.envp.as_ptr());
            last = errno();
            if last == libc::ENOEXEC {
                plan.argv[0] = c"/bin/sh".as_ptr();
                plan.argv[1] = *candidate;
                libc::execve(c"/bin/sh".as_ptr(), plan.argv.as_ptr(), plan.envp.as_ptr());
                return libc::ENOEXEC;
            }
        }
        match last {
            libc::EACCES => denied = true,
            libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ESTALE => {}
            _ => return last,
        }
    }
    if denied { libc::EACCES } else { last }
}

fn append(plan: &ChildPlan<'_>) -> Result<(), i32> {
    let bytes = plan.entry.as_bytes();
    // SAFETY: the buffer is as long as is said.
    let written = unsafe { libc::write(plan.journal, bytes.as_ptr().cast::<c_void>(), bytes.len()) };
    match usize::try_from(written) {
        Ok(length) if length == bytes.len() => Ok(()),
        // Entries never cross a page, so the kernel writes them whole or not at all.
        Ok(_) => Err(libc::EIO),
        Err(_) => Err(errno()),
    }
}

fn clock(id: libc::clockid_t) -> (i64, i64) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place to write to.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    (time.tv_sec, time.tv_nsec)
}

fn millis((seconds, nanos): (i64, i64)) -> i64 {
    seconds * 1000 + nanos / 1_000_000
}

fn now_wall() -> i64 {
    millis(clock(libc::CLOCK_REALTIME))
}

fn now_boot() -> u64 {
    millis(clock(libc::CLOCK_BOOTTIME)).unsigned_abs()
}

/// Field 22 of `/proc/self/stat`; 0 if it cannot be read, which no running process has.
fn own_start_ticks() -> u64 {
    let mut buffer = [0_u8; 512];
    // SAFETY: the path is NUL-terminated and the buffer as long as is said.
    let length = unsafe {
        let fd = libc::open(c"/proc/self/stat".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd == -1 {
            return 0;
        }
        let length = libc::read(fd, buffer.as_mut_ptr().cast::<c_void>(), buffer.len());
        libc::close(fd);
        usize::try_from(length).unwrap_or(0)
    };
    crate::identity::start_ticks_of_stat(&buffer[..length.min(buffer.len())]).unwrap_or(0)
}

/// 0 where the kernel has none.
fn own_pidfs_number(pid: libc::pid_t) -> u64 {
    // SAFETY: takes and gives plain numbers; the descriptor is closed again.
    unsafe {
        let Ok(fd) = c_int::try_from(libc::syscall(libc::SYS_pidfd_open, pid, 0)) else { return 0 };
        if fd == -1 {
            return 0;
        }
        let number = super::pidfs_number_raw(fd).unwrap_or(0);
        libc::close(fd);
        number
    }
}
