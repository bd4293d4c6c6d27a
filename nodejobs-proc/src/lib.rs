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
