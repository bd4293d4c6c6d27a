//! Any command becomes a durable job: a record, its logs, its true outcome, and full control over it, whatever dies in
//! between.
//!
//! [`Jobs`] is the way in: it owns a data directory, or connects to whoever does, and means the same either way. A job
//! ends neither with the value nor with the process.
//!
//! ```no_run
//! # #[cfg(feature = "local")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use nodejobs::Jobs;
//! use nodejobs::api::LogQuery;
//! use nodejobs::spec::{Command, JobSpec};
//!
//! // First of all in `main`: this very program may be started to be the keeper of its jobs.
//! nodejobs::serve_keeper_if_asked();
//! tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//!     let jobs = Jobs::open("/var/lib/my-program/jobs").await?;
//!     let mut spec = JobSpec::new(Command::shell("make all | tail"), "/src");
//!     spec.id = Some("nightly".parse()?); // one is made if there is none
//!     spec.context = nodejobs::capture_context()?; // environment, umask and limits of this process
//!     jobs.run(spec).await?; // on disk when this returns
//!     let ended = jobs.wait("nightly").await?;
//!     println!("{}: {} {:?}", ended.self_id, ended.status, ended.exit_code);
//!     let logs = jobs.job_logs("nightly", &LogQuery::default()).await?;
//!     println!("{}", String::from_utf8_lossy(&logs.stdout));
//!     jobs.close().await;
//!     Ok(())
//! })
//! # }
//! # #[cfg(not(feature = "local"))]
//! # fn main() {}
//! ```
//!
//! | item | holds | feature |
//! |---|---|---|
//! | [`Jobs`], [`OpenOptions`], [`StoreKind`] | the jobs of a data directory: run, stop, wait, look, follow | `local` |
//! | [`daemon`] | a process that does nothing but own a data directory | `local` |
//! | [`serve_keeper_if_asked`] | lets the program that embeds this crate keep its own jobs | `local` |
//! | [`client`] | a blocking client of the socket interface, without threads or an async runtime | `client` |
//! | [`capture_context`] | what a job inherits from this process | `client` |
//! | [`api`] | the socket interface: routes, messages, events, errors | |
//! | [`spec`] | what is asked for: [`JobSpec`](spec::JobSpec), [`Command`](spec::Command) | |
//! | [`record`] | what is told: [`JobRecord`](record::JobRecord), with [`Status`] and [`Reason`] | |
//! | [`filter`] | which jobs a listing wants: [`JobFilter`](filter::JobFilter), through [`ListQuery`](api::ListQuery) | |
//! | [`id`], [`signal`], [`text`], [`time`], [`job`], [`status`] | the types that these are made of | |
//!
//! `local` is on by default and includes `client`. Each store is a feature of its own: `sqlite` (the default), `redb`,
//! `sled`; whoever owns a data directory needs one, a client none.
//!
//! # Coming from the Python nodejobs
//!
//! | there | here |
//! |---|---|
//! | `Jobs(db_path=…)` | [`Jobs::open`]`(data_dir)`; a directory, with the store and the logs in it |
//! | `run(command, job_id)` | [`Jobs::run`]`(spec)`, with the id in [`JobSpec::id`](spec::JobSpec::id) |
//! | `stop(job_id)` | [`Jobs::stop`]`(id)`; returns when the whole tree is gone, with the record |
//! | `list_status(filter)` | [`Jobs::list_status`]`(&query)`; [`ListQuery::require`](api::ListQuery::require)`("status", "running")` is the filter |
//! | `get_status(job_id)` | [`Jobs::get_status`]`(id)`; an unknown id is an error |
//! | `job_logs(job_id)` | [`Jobs::job_logs`]`(id, &query)`: both outputs as bytes; [`Jobs::follow`] as they are written |
//! | `JobRecord`, `JobFilter` | [`record::JobRecord`], [`filter::JobFilter`], with fields of the same names |

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
pub use nodejobs_proc::keeper::{main as keeper_main, serve_if_asked as serve_keeper_if_asked};
#[cfg(feature = "local")]
pub use nodejobs_proc::{DAEMON_MARK, close_descriptors_on_exec};
#[cfg(feature = "local")]
pub use stores::StoreKind;
