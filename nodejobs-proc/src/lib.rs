//! Runs nodejobs' jobs on this machine.

mod failpoint;
mod identity;
mod journal;
pub mod machine;
mod sys;
