//! Any command becomes a durable job: a record, its logs, its true outcome, and full control over it, whatever dies in
//! between.
//!
//! [`Jobs`] is the way in: it owns a data directory, or connects to whoever does, and means the same either way. A job
//! ends neither with the value nor with the process.
//!
//! ```standalone_crate
//! # #[cfg(feature = "local")]
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     use nodejobs::Jobs;
//!     use nodejobs::api::LogQuery;
//!     use nodejobs::spec::{Command, JobSpec};
//!
//!     // First of all in `main`: this very program may be started to be the keeper of its jobs.
//!     nodejobs::serve_keeper_if_asked();
//! #   let directory = tempfile::tempdir()?;
//! #   let data_dir = directory.path().join("jobs");
//!     tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//!         let jobs = Jobs::open(&data_dir).await?;
//!         let spec = JobSpec::new(Command::shell("echo hello | tr h j; exit 3"), "/")
//!             .id("nightly")? // one is made if there is none
//!             .context(nodejobs::capture_context()?); // environment, umask and limits of this process
//!         jobs.run(spec).await?; // on disk when this returns
//!         let ended = jobs.wait("nightly").await?;
//!         assert_eq!((ended.status, ended.exit_code), (nodejobs::Status::Failed, Some(3)));
//!         let logs = jobs.job_logs("nightly", &LogQuery::default()).await?;
//!         assert_eq!(logs.stdout, b"jello\n");
//!         jobs.close().await;
//!         Ok(())
//!     })
//! }
//! # #[cfg(not(feature = "local"))]
//! # fn main() {}
//! ```
//!
//! | item | holds | feature |
//! |---|---|---|
//! | [`Jobs`], [`OpenOptions`], [`StoreKind`] | the jobs of a data directory: run, stop, wait, look, listen | `local` |
//! | [`JobOutput`], [`JobLogs`], [`JobPages`] | what some of its calls give | `local` |
//! | [`daemon`] | a process that does nothing but own a data directory | `local` |
//! | [`store`] | a directory's store as a whole: info, check, export, import, migrate | `local` |
//! | [`doctor`] | what works here, what is weaker, what is broken | `local` |
//! | [`serve_keeper_if_asked`] | lets the program that embeds this crate keep its own jobs | `local` |
//! | [`client`] | a blocking client of the socket interface, without threads or an async runtime | `client` |
//! | [`config`] | `config.toml` in the data directory: defaults for jobs, and what the owner goes by | `client` |
//! | [`capture_context`] | what a job inherits from this process | `client` |
//! | [`api`] | the socket interface: routes, messages, events, errors | |
//! | [`spec`] | what is asked for: [`JobSpec`](spec::JobSpec), [`Command`](spec::Command) | |
//! | [`record`] | what is told: [`JobRecord`](record::JobRecord), with [`Status`] and [`Reason`] | |
//! | [`group`], [`explain`] | the queues in which jobs wait, and why one does |
//! | [`filter`] | which jobs a listing wants: [`JobFilter`](filter::JobFilter), through [`ListQuery`](api::ListQuery) | |
//! | [`words`], [`env_file`], [`units`] | how people write commands, variables, durations and sizes | |
//! | [`schedule`] | what is run again and again: [`Overlap`](schedule::Overlap), [`CatchUp`](schedule::CatchUp) | |
//! | [`machine_time_zone`] | which zone the times of schedules are in if none is named | `local` |
//! | [`id`], [`signal`], [`text`], [`time`], [`job`], [`status`] | the types that these are made of | |
//!
//! `local` is on by default and includes `client`. Each store is a feature of its own: `sqlite` (the default), `redb`,
//! `sled`; whoever owns a data directory needs one, a client none.
//!
#![doc = include_str!("coming_from.md")]

pub mod api;
#[cfg(feature = "local")]
mod arrays;
#[cfg(feature = "local")]
mod bind;
#[cfg(feature = "client")]
mod capture;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "local")]
mod clock;
#[cfg(feature = "client")]
pub mod config;
#[cfg(feature = "local")]
pub mod daemon;
#[cfg(feature = "local")]
mod dependencies;
#[cfg(feature = "local")]
mod directory;
#[cfg(feature = "local")]
pub mod doctor;
#[cfg(feature = "local")]
mod error;
#[cfg(feature = "local")]
mod events;
#[cfg(feature = "local")]
mod files;
#[cfg(feature = "local")]
mod follow;
#[cfg(feature = "local")]
mod foreign;
#[cfg(all(any(fuzzing, test), feature = "local"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "local")]
mod hooks;
#[cfg(feature = "local")]
mod hub;
#[cfg(feature = "local")]
mod input;
#[cfg(feature = "local")]
mod jobs;
#[cfg(feature = "local")]
mod last_looks;
#[cfg(feature = "local")]
mod listeners;
#[cfg(feature = "local")]
mod log_files;
#[cfg(feature = "local")]
mod owner;
#[cfg(feature = "local")]
mod processes;
#[cfg(feature = "local")]
mod prune;
#[cfg(feature = "local")]
mod queues;
#[cfg(feature = "local")]
mod reach;
#[cfg(feature = "local")]
mod recorder;
#[cfg(feature = "local")]
mod retention;
#[cfg(feature = "local")]
mod schedules;
#[cfg(feature = "local")]
mod server;
#[cfg(feature = "local")]
mod service;
#[cfg(feature = "local")]
pub mod store;
#[cfg(feature = "local")]
mod store_files;
#[cfg(feature = "local")]
mod store_status;
#[cfg(feature = "local")]
mod stores;
#[cfg(feature = "local")]
mod timeline;
#[cfg(feature = "local")]
mod upkeep;
#[cfg(feature = "local")]
mod usage;
#[cfg(feature = "local")]
mod users;
#[cfg(feature = "local")]
mod wait;

#[cfg(feature = "client")]
pub use capture::{OWN_VARIABLES, capture_context, new_submit_key};
#[cfg(feature = "local")]
pub use error::Error;
#[cfg(feature = "local")]
pub use jobs::{JobLogs, JobOutput, JobPages, Jobs, OpenOptions, Waited};
pub use nodejobs_core::engine::{Capacity, Edits, WhenFull};
pub use nodejobs_core::{
    JobId, Moment, RawText, Reason, Status, Timestamp, array, env_file, explain, filter, group, id, job,
    logs, record, schedule, signal, spec, status, text, time, units, words,
};
#[cfg(feature = "local")]
pub use nodejobs_proc::keeper::{main as keeper_main, serve_if_asked as serve_keeper_if_asked};
#[cfg(feature = "local")]
pub use nodejobs_proc::{DAEMON_MARK, close_descriptors_on_exec, end_by_signal};
#[cfg(feature = "local")]
pub use schedules::machine_time_zone;
#[cfg(feature = "local")]
pub use stores::StoreKind;
