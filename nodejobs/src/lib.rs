//! Any command becomes a durable job: a record, its logs, its true outcome, and full control over it, whatever dies in
//! between.
//!
//! | module | holds |
//! |---|---|
//! | [`api`] | the socket interface: routes, messages, events, errors |
//! | `client` | a blocking client of it (feature `client`) |

pub mod api;
#[cfg(feature = "client")]
mod capture;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "local")]
pub mod daemon;
#[cfg(feature = "local")]
mod directory;
#[cfg(feature = "local")]
mod error;
#[cfg(feature = "local")]
mod follow;
#[cfg(feature = "local")]
mod hub;
#[cfg(feature = "local")]
mod jobs;
#[cfg(feature = "local")]
mod owner;
#[cfg(feature = "local")]
mod server;
#[cfg(feature = "local")]
mod service;
#[cfg(feature = "local")]
mod stores;

#[cfg(feature = "client")]
pub use capture::{OWN_VARIABLES, capture_context, new_submit_key};
#[cfg(feature = "local")]
pub use error::Error;
#[cfg(feature = "local")]
pub use jobs::{JobLogs, Jobs, OpenOptions};
pub use nodejobs_core::{
    JobId, Moment, RawText, Reason, Status, Timestamp, filter, id, job, record, signal, spec, status, text,
    time,
};
#[cfg(feature = "local")]
pub use nodejobs_proc::close_descriptors_on_exec;
#[cfg(feature = "local")]
pub use nodejobs_proc::keeper::{main as keeper_main, serve_if_asked as serve_keeper_if_asked};
#[cfg(feature = "local")]
pub use stores::StoreKind;
