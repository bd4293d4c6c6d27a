//! Any command becomes a durable job: a record, its logs, its true outcome, and full control over it, whatever dies in
//! between.
//!
//! | module | holds |
//! |---|---|
//! | [`api`] | the socket interface: routes, messages, events, errors |
//! | `client` | a blocking client of it (feature `client`) |

pub mod api;
#[cfg(feature = "client")]
pub mod client;

pub use nodejobs_core::{
    JobId, Moment, RawText, Reason, Status, Timestamp, filter, id, job, record, signal, spec, status, text,
    time,
};
#[cfg(feature = "local")]
pub use nodejobs_proc::keeper::{main as keeper_main, serve_if_asked as serve_keeper_if_asked};
