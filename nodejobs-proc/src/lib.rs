//! Runs nodejobs' jobs on this machine.
//!
//! [`LocalBackend`] is the owner's side: it starts keepers, hands launches to them, hears of exits, and ends trees.
//! [`keeper`] is the other side: the small parent of all jobs, which outlives everybody. Between them are a socket and
//! a journal. What is `unsafe` is in one directory, `src/sys`.

mod backend;
mod failpoint;
mod identity;
mod journal;
pub mod keeper;
mod launch;
pub mod logs;
pub mod machine;
mod protocol;
pub mod socket;
mod sys;
mod tree;

pub use backend::{Config, KeeperProgram, LocalBackend};
pub use tree::DAEMON_MARK;

/// Has every descriptor above standard error closed in programs that this process starts from now on.
///
/// For a process that is about to start one that outlives it: what its caller left open, such as the pipe that somebody
/// reads to its end, must not live on in there.
pub fn close_descriptors_on_exec() {
    sys::close_descriptors_on_exec();
}
