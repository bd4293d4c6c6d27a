//! Runs nodejobs' jobs on this machine.
//!
//! [`LocalBackend`] is the owner's side: it starts keepers, hands launches to them, hears of exits, and ends trees.
//! [`keeper`] is the other side: the small parent of all jobs, which outlives everybody. Between them are a socket and
//! a journal. What is `unsafe` is in one directory, `src/sys`.

mod backend;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod benching;
mod cgroup;
#[doc(hidden)]
pub mod failpoint;
#[cfg(test)]
mod first_protocol;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod gates;
pub mod holder;
mod identity;
mod journal;
pub mod keeper;
mod launch;
mod limits;
pub mod logs;
pub mod look;
pub mod machine;
pub mod marked;
mod proc_file;
mod protocol;
pub mod rescue;
pub mod socket;
mod sys;
mod trace;
mod tree;
mod usage;

pub use backend::{Config, KeeperProgram, LocalBackend};
pub use cgroup::base::{Base, Controllers, NoBase, Origin, look as look_for_base, way_out as base_way_out};
pub use cgroup::leave::{job_group_of, leave_job_group};
pub use identity::is_alive;
pub use tree::DAEMON_MARK;

/// Has every descriptor above standard error closed in programs that this process starts from now on.
///
/// For a process that is about to start one that outlives it: what its caller left open, such as the pipe that somebody
/// reads to its end, must not live on in there.
pub fn close_descriptors_on_exec() {
    sys::close_descriptors_on_exec();
}

/// Gives the calling thread a descriptor table of its own, with the standard streams only: what it opens is its own, it
/// must use nothing that others have open, and if it is stuck when the process ends, it keeps none of its locks.
/// Where that is not possible it goes on with the process's table.
pub fn own_descriptors() {
    use std::os::fd::AsFd as _;
    if machine::may_have_own_tables() {
        // Where the kernel or a sandbox does not allow it, that is what remains.
        let _ = sys::own_descriptor_table([std::io::stdout().as_fd(), std::io::stderr().as_fd()]);
    }
}

/// Gives these signals back the meaning that they have by default, which is to end the process.
pub fn default_signals(signals: &[nodejobs_core::signal::Signal]) {
    signals.iter().for_each(|signal| sys::default_disposition(signal.number()));
}

/// Ends this process by the signal, so that its parent sees it.
///
/// For whoever got it, has put its things in order and has nothing left to do. The exit code is 128 plus the signal's
/// number where the signal cannot end the process, because it is blocked.
pub fn end_by_signal(signal: nodejobs_core::signal::Signal) -> ! {
    default_signals(&[signal]);
    if let Some(number) = rustix::process::Signal::from_named_raw(signal.number()) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), number);
    }
    std::process::exit(128 + signal.number())
}
