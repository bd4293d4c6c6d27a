//! From `clone` to `execve`: what runs between the keeper and the job's program.
//!
//! The child shares the keeper's memory, and the thread that makes it stands still until the child has executed its program or
//! is gone; other threads go on. So the child may read what was prepared for it, and what it writes there is seen by who made
//! it; but it must not allocate, lock or panic, because the keeper's allocator and locks may be in any state they are in.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use super::check;
use super::errno::errno;
use crate::failpoint::{Failpoint, reached};
use crate::gates::Gate;
use crate::holder;
use crate::journal::{EntryBuffer, Stage, StartFailed};
use crate::launch::Unpacked;
use crate::protocol::LaunchLimits;

/// Everything the child needs, prepared beforehand: it owns what its pointers point to.
pub(crate) struct ChildPlan {
    unpacked: Unpacked,
    /// The program under each name it may have, tried in turn.
    candidates: Vec<*const c_char>,
    /// The arguments, with one free place in front of them (for `/bin/sh` before a script without `#!`), and a null pointer
    /// behind.
    argv: Vec<*const c_char>,
    /// The environment, with a null pointer behind.
    envp: Vec<*const c_char>,
    settings: Settings,
    /// The directories of the log files, if they are made; each ends in a NUL.
    directories: [Vec<u8>; 2],
    progress: AtomicI32,
}

// SAFETY: the pointers are to memory of `unpacked`, which moves along and is not changed.
unsafe impl Send for ChildPlan {}

/// What a plan is made of, apart from its strings.
pub(crate) struct Settings {
    /// What is held for it, instead of the streams that it stands for.
    pub(crate) held: Option<holder::End>,
    pub(crate) umask: Option<u32>,
    /// Resource number, soft limit, and an upper bound of the hard limit.
    pub(crate) rlimits: Vec<(u32, u64, u64)>,
    /// What cannot be set keeps the program from being executed.
    pub(crate) limits: LaunchLimits,
    /// The file by which it enters its cgroup.
    pub(crate) group: Option<CString>,
    pub(crate) makes_directories: bool,
    /// Where the child notes itself, open for appending, as long as any child of a launch may.
    pub(crate) journal: RawFd,
    /// The note, complete but for what only the child knows.
    pub(crate) entry: EntryBuffer,
    /// What the child has to go through.
    pub(crate) gate: Gate<'static>,
}

impl ChildPlan {
    pub(crate) fn new(unpacked: Unpacked, settings: Settings) -> Self {
        let directory = |file: &CStr| {
            let path = file.to_bytes();
            let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            [&path[..end], b"\0"].concat()
        };
        Self {
            candidates: unpacked.candidates(),
            argv: unpacked.argv(),
            envp: unpacked.envp(),
            directories: [directory(unpacked.stdout()), directory(unpacked.stderr())],
            progress: AtomicI32::new(NOT_NOTED),
            unpacked,
            settings,
        }
    }

    /// How far the child got. Only once [`spawn`] has returned is it final.
    pub(crate) fn progress(&self) -> Progress {
        match self.progress.load(Ordering::SeqCst) {
            NOT_NOTED => Progress::NotNoted,
            NOTED => Progress::Noted,
            FAILURE_NOTED => Progress::FailureNoted,
            TURNED_AWAY => Progress::TurnedAway,
            errno => Progress::FailureNotNoted(errno),
        }
    }

    /// The child's note.
    pub(crate) fn entry(&self) -> &EntryBuffer {
        &self.settings.entry
    }
}

/// An open end of what is held for a job.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Given {
    /// Standard input.
    Pipe(RawFd),
    /// All three streams, once the holder has said over `opened` where its output begins in the log.
    Terminal { fd: RawFd, opened: RawFd },
}

/// How far the child got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing of it is in the journal, so it never executed anything; or its note is, and it was killed over it.
    NotNoted,
    /// It is in the journal; the program was executed, or the child was killed on the last step.
    Noted,
    /// The journal says why it did not execute the program.
    FailureNoted,
    /// It did not execute the program, and could not write that down. The number is the system's error.
    FailureNotNoted(i32),
    /// Its gate was closed, or its owner fenced: it has done nothing.
    TurnedAway,
}

const NOT_NOTED: i32 = -1;
const NOTED: i32 = -2;
const FAILURE_NOTED: i32 = -3;
const TURNED_AWAY: i32 = -4;

/// Stack for the child, used by one child at a time.
pub(crate) struct ChildStack(Vec<MaybeUninit<u128>>);

impl ChildStack {
    /// Room for far more than the child's few frames.
    pub(crate) fn new() -> Self {
        Self(vec![MaybeUninit::uninit(); 64 * 1024 / size_of::<u128>()])
    }
}

/// Starts a process that does what the plan says, and returns once it has executed its program or is gone.
///
/// # Errors
/// When no process could be made.
pub(crate) fn spawn(stack: &mut ChildStack, plan: &mut ChildPlan) -> io::Result<u32> {
    // SAFETY: the stack is exclusively borrowed, large enough and 16-byte aligned at its upper end, where stacks
    // begin on every supported machine. CLONE_VFORK keeps this thread, and so `plan`, where it is until the child
    // no longer uses our memory. The child has this thread's place for `errno` and the like to itself meanwhile. All
    // signals are blocked in all threads of the keeper, so no handler runs in the child.
    let pid = check(unsafe {
        let top = stack.0.as_mut_ptr().add(stack.0.len());
        libc::clone(
            run_child,
            top.cast::<c_void>(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            ptr::from_mut(plan).cast::<c_void>(),
        )
    })?;
    Ok(pid.unsigned_abs())
}

/// Why the child goes no further.
enum Stop {
    Failed(StartFailed),
    TurnedAway,
}

impl From<(Stage, i32)> for Stop {
    fn from((stage, errno): (Stage, i32)) -> Self {
        Stop::Failed(StartFailed::at(stage, errno))
    }
}

extern "C" fn run_child(plan: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a pointer to its own plan, which outlives this function because of CLONE_VFORK.
    let plan = unsafe { &mut *plan.cast::<ChildPlan>() };
    // SAFETY: see `prepare_and_execute`; nothing here returns to code that expects the child to be the keeper.
    let progress = match unsafe { prepare_and_execute(plan) } {
        Stop::TurnedAway => TURNED_AWAY,
        Stop::Failed(failure) => note_failure(plan, failure),
    };
    plan.progress.store(progress, Ordering::SeqCst);
    // SAFETY: ends this process without running anything of the keeper's.
    unsafe { libc::_exit(127) }
}

/// Notes why the program was not executed, if whoever waits for it has not decided that already.
fn note_failure(plan: &mut ChildPlan, failure: StartFailed) -> i32 {
    let gate = plan.settings.gate;
    let is_through = plan.progress.load(Ordering::SeqCst) == NOTED;
    // What could not be noted has arrived already.
    if !is_through && failure.stage != Stage::Journal && !gate.arrive() {
        return TURNED_AWAY;
    }
    reached(Failpoint::ChildFailed);
    // SAFETY: takes nothing and cannot fail.
    let child = Some(unsafe { libc::getpid() }.unsigned_abs());
    plan.settings.entry.make_start_failure(StartFailed { child, ..failure }, now_wall(), now_boot());
    if let Err(errno) = append(plan) {
        // The keeper does it, unless somebody closes the gate before.
        return errno;
    }
    if !is_through && !gate.pass() {
        return TURNED_AWAY;
    }
    reached(Failpoint::ChildFailureNoted);
    FAILURE_NOTED
}

/// Returns only when it goes no further.
///
/// # Safety
/// Only in a child of [`spawn`]: it changes the process for good.
unsafe fn prepare_and_execute(plan: &mut ChildPlan) -> Stop {
    let gate = plan.settings.gate;
    // SAFETY: plain system calls on values and on NUL-terminated strings that the plan keeps alive.
    unsafe {
        let pid = libc::getpid();
        gate.set_pid(pid.unsigned_abs());
        let given = plan.settings.held.as_ref().map(holder::End::given);
        // What the keeper has open must not stay open with a child that stands still: its lock, its socket.
        let (fd, opened) = match given {
            Some(Given::Pipe(fd)) => (fd, fd),
            Some(Given::Terminal { fd, opened }) => (fd, opened),
            None => (plan.settings.journal, plan.settings.journal),
        };
        super::close_all_but(&mut [plan.settings.journal, fd, opened]);
        libc::setsid();
        // Before anything is opened, so that all that it has counts as its own.
        if let Some(Err(errno)) = plan.settings.group.as_ref().map(|group| enter(group)) {
            return (Stage::Group, errno).into();
        }
        if let Err(stop) = open_streams(plan, given) {
            return stop;
        }
        for (resource, soft, hard) in &plan.settings.rlimits {
            let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
            if libc::prlimit64(0, *resource, ptr::null(), &raw mut limit) == 0 {
                limit.rlim_max = limit.rlim_max.min(*hard);
                limit.rlim_cur = (*soft).min(limit.rlim_max);
                // A limit that cannot be set stays as the keeper has it; the program can still run.
                libc::prlimit64(0, *resource, &raw const limit, ptr::null_mut());
            }
        }
        if let Err(failed) = super::limits::set(&plan.settings.limits) {
            return failed.into();
        }
        gate.set_stage(Stage::Cwd);
        if libc::chdir(plan.unpacked.cwd().as_ptr()) == -1 {
            return (Stage::Cwd, errno()).into();
        }
        if let Some(umask) = plan.settings.umask {
            libc::umask(umask);
        }
        let start_ticks = own_start_ticks();
        let pidfs = own_pidfs_number(pid);
        reached(Failpoint::ChildAtGate);
        if !gate.arrive() {
            return Stop::TurnedAway;
        }
        plan.settings.entry.complete_started(pid.unsigned_abs(), start_ticks, pidfs, now_wall(), now_boot());
        reached(Failpoint::ChildNoting);
        if let Err(errno) = append(plan) {
            return (Stage::Journal, errno).into();
        }
        // From here on the program is executed, whoever decides what.
        if !gate.pass() {
            return Stop::TurnedAway;
        }
        gate.set_stage(Stage::Exec);
        plan.progress.store(NOTED, Ordering::SeqCst);
        reached(Failpoint::ChildNoted);
        let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(signals.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, signals.as_ptr(), ptr::null_mut());
        Stop::Failed(execute(plan))
    }
}

/// Makes descriptors 0 to 2 what they are for the job, and notes where its output begins.
///
/// # Safety
/// As [`prepare_and_execute`].
unsafe fn open_streams(plan: &mut ChildPlan, given: Option<Given>) -> Result<(), Stop> {
    let gate = plan.settings.gate;
    let append = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND;
    let streams = [(Stage::Stdin, libc::O_RDONLY), (Stage::Stdout, append), (Stage::Stderr, append)];
    for (target, (stage, flags)) in (0..).zip(streams) {
        gate.set_stage(stage);
        // SAFETY: plain system calls on values and on NUL-terminated strings that the plan keeps alive.
        unsafe {
            match given {
                Some(Given::Terminal { fd, .. }) => {
                    if libc::dup2(fd, target) == -1 {
                        return Err((stage, errno()).into());
                    }
                    continue;
                }
                Some(Given::Pipe(fd)) if target == 0 => {
                    if libc::dup2(fd, target) == -1 {
                        return Err((stage, errno()).into());
                    }
                    continue;
                }
                _ => {}
            }
            // A named pipe without anybody at its other end must not keep the child waiting.
            let opening = flags | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;
            let path = plan.unpacked.stream(target);
            let mut fd = libc::open(path, opening, 0o600 as libc::c_uint);
            if fd == -1 && errno() == libc::ENOENT && target > 0 && plan.settings.makes_directories {
                let which = target.unsigned_abs() - 1;
                gate.set_stage(Stage::LogDirectory);
                if let Err(errno) = make_directories(&mut plan.directories[which as usize]) {
                    let failure =
                        StartFailed { which: Some(which), ..StartFailed::at(Stage::LogDirectory, errno) };
                    return Err(Stop::Failed(failure));
                }
                gate.set_stage(stage);
                fd = libc::open(path, opening, 0o600 as libc::c_uint);
            }
            // The keeper has 0 to 2 open, so a new descriptor never is one of them, and dup2 clears CLOEXEC.
            if fd == -1 || libc::dup2(fd, target) == -1 {
                return Err((stage, errno()).into());
            }
            libc::close(fd);
            libc::fcntl(target, libc::F_SETFL, flags & libc::O_APPEND);
        }
    }
    if let Some(Given::Terminal { opened, .. }) = given {
        gate.set_stage(Stage::Stdout);
        let log_start = log_start(opened).map_err(Stop::from)?;
        // SAFETY: takes plain numbers. The session has no other terminal: it was made just now.
        if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } == -1 {
            return Err((Stage::Stdin, errno()).into());
        }
        plan.settings.entry.set_log_start(log_start, log_start);
    } else {
        // What cannot be positioned has no start.
        // SAFETY: takes plain numbers.
        let end_of = |fd: c_int| u64::try_from(unsafe { libc::lseek(fd, 0, libc::SEEK_END) }).unwrap_or(0);
        plan.settings.entry.set_log_start(end_of(1), end_of(2));
    }
    Ok(())
}

/// Waits for what the holder says of its log, see [`holder::Opened`].
fn log_start(opened: RawFd) -> Result<u64, (Stage, i32)> {
    let mut bytes = [0; holder::Opened::LEN];
    // SAFETY: the buffer is as long as is said.
    let read = unsafe { libc::read(opened, bytes.as_mut_ptr().cast::<c_void>(), bytes.len()) };
    // A holder that is gone has said nothing.
    let is_whole = usize::try_from(read) == Ok(bytes.len());
    if is_whole { holder::Opened::decode(&bytes) } else { Err((Stage::Stdout, libc::EPIPE)) }
}

/// Makes a directory, with those that it is in.
///
/// # Safety
/// As [`prepare_and_execute`]; the path ends in a NUL.
unsafe fn make_directories(path: &mut [u8]) -> Result<(), i32> {
    let make = |path: &[u8]| {
        // SAFETY: the path ends in a NUL, here or before.
        let result = unsafe { libc::mkdir(path.as_ptr().cast(), 0o700) };
        if result == -1 { Err(errno()) } else { Ok(()) }
    };
    let is_there = |made: Result<(), i32>| match made {
        Err(libc::EEXIST) => Ok(()),
        made => made,
    };
    match make(path) {
        Err(libc::ENOENT) => {}
        made => return is_there(made),
    }
    for at in 1..path.len() {
        if path[at] == b'/' {
            path[at] = 0;
            let made = is_there(make(path));
            path[at] = b'/';
            made?;
        }
    }
    is_there(make(path))
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
unsafe fn execute(plan: &mut ChildPlan) -> StartFailed {
    let (mut denied, mut found) = (false, None);
    let mut last = libc::ENOENT;
    for (number, candidate) in (0..).zip(&plan.candidates) {
        // SAFETY: candidates, arguments and environment are NUL-terminated and the lists end in a null pointer.
        unsafe {
            libc::execve(*candidate, plan.argv.as_ptr().add(1), plan.envp.as_ptr());
            last = errno();
            if last == libc::ENOEXEC {
                plan.argv[0] = c"/bin/sh".as_ptr();
                plan.argv[1] = *candidate;
                libc::execve(c"/bin/sh".as_ptr(), plan.argv.as_ptr(), plan.envp.as_ptr());
                return StartFailed { which: Some(number), ..StartFailed::at(Stage::Exec, libc::ENOEXEC) };
            }
            // Only here is it sure not to keep anybody waiting who has more to do.
            let mut stat = MaybeUninit::<libc::stat>::uninit();
            if found.is_none() && libc::lstat(*candidate, stat.as_mut_ptr()) == 0 {
                found = Some(number);
            }
        }
        match last {
            libc::EACCES => denied = true,
            libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ESTALE => {}
            _ => break,
        }
    }
    let is_final = !matches!(last, libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ESTALE);
    let errno = if denied && !is_final { libc::EACCES } else { last };
    StartFailed { which: found, ..StartFailed::at(Stage::Exec, errno) }
}

fn append(plan: &ChildPlan) -> Result<(), i32> {
    let bytes = plan.settings.entry.as_bytes();
    // SAFETY: the buffer is as long as is said.
    let written = unsafe { libc::write(plan.settings.journal, bytes.as_ptr().cast::<c_void>(), bytes.len()) };
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
