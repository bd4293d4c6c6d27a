//! Runs nodejobs' jobs on this machine.

mod failpoint;
mod identity;
mod journal;
pub mod keeper;
mod launch;
pub mod machine;
mod protocol;
pub mod socket;
mod sys;
