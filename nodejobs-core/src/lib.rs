//! The words, rules and traits of nodejobs.
//!
//! Everything here is pure: no operating system, no clock, no threads, no printing. The parts that act (stores,
//! processes, the daemon) depend on this crate and never the other way round. Two features add what is outside of that:
//! `disk` what stores on disk have in common, in `store::disk`, and `conformance`, which nothing that is delivered has, the
//! tests of stores.
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | validated job ids and their generation |
//! | [`status`] | the statuses, the reasons and the table of legal moves |
//! | [`spec`] | what a user asks for |
//! | [`job`] | what is stored about a job and its attempts |
//! | [`group`] | the queues in which jobs wait for a place |
//! | [`explain`] | why one waits |
//! | [`schedule`] | what is run again and again, and what of it is due |
//! | [`logs`] | where the output of attempts is |
//! | [`log_index`] | when an attempt wrote what |
//! | [`record`] | what is shown about a job, as JSON |
//! | [`words`], [`env_file`], [`units`] | how people write commands, variables, durations and sizes |
//! | [`filter`] | which jobs a listing wants |
//! | [`store`] | [`JobStore`](store::JobStore), its contract, and the in-memory store |
//! | [`backend`] | [`ProcessBackend`](backend::ProcessBackend), its contract, and the scripted fake |
//! | [`holder`] | what is said to the process that keeps a job's pipe or terminal open |
//! | [`engine`] | the decisions: inputs in, changes and effects out |

pub mod array;
pub mod backend;
pub mod engine;
pub mod env_file;
pub mod explain;
pub mod filter;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod group;
pub mod holder;
pub mod id;
pub mod job;
pub mod log_index;
pub mod logs;
pub mod record;
pub mod schedule;
pub mod signal;
pub mod spec;
pub mod status;
pub mod store;
pub mod text;
pub mod time;
pub mod units;
pub mod words;

pub use id::JobId;
pub use status::{Reason, Status};
pub use text::RawText;
pub use time::{Moment, Timestamp};
