//! The socket interface: HTTP/1.1 and JSON on the unix socket `sock` in the data directory.
//!
//! This page is the reference; the server and every client use these types. It answers only processes of the data
//! directory's owner and root.
//!
//! `{ref}` is an id, a unique beginning of an id, or a unique name, percent-encoded.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/daemon` | | 200 [`DaemonStatus`] |
//! | `POST /v1/daemon/stop` | | 202; the daemon leaves, its jobs run on |
//! | `POST /v1/daemon/stay` | | 202; the daemon does not leave when it has nothing to do |
//! | `POST /v1/daemon/reload` | | 200 [`ConfigStatus`]; the owner goes by what `config.toml` says now. A file with a mistake leaves everything as it was |
//! | `GET /v1/config` | | 200 [`ConfigStatus`]: what the owner goes by |
//! | `GET /v1/store` | | 200 [`StoreStatus`]; reads every document, so it takes a while where there are many |
//! | `POST /v1/jobs` | [`JobSpec`](crate::spec::JobSpec) | 201 [`JobRecord`](crate::record::JobRecord), once the job is on disk |
//! | `POST /v1/jobs/batch` | array of [`JobSpec`](crate::spec::JobSpec) | 201 array of [`BatchResult`], in the order of the specs |
//! | `POST /v1/arrays` | [`ArrayRequest`] | 201 [`JobRecord`](crate::record::JobRecord) of the array, once it is on disk |
//! | `GET /v1/jobs?KEY=VALUE&order=…&after=SEQ&limit=N` | | 200 [`JobPage`], see [`ListQuery`] |
//! | `GET /v1/jobs/{ref}` | | 200 [`JobRecord`](crate::record::JobRecord) |
//! | `GET /v1/jobs/{ref}/attempts` | | 200 array of [`JobRecord`](crate::record::JobRecord), the first attempt first |
//! | `GET /v1/jobs/{ref}/logs/{stdout\|stderr}?attempt=N&tail=LINES&offset=BYTES` | | 200 the bytes, streamed, see [`LogQuery`] |
//! | `GET /v1/jobs/{ref}/follow?attempt=N&tail=LINES&stdout_from=BYTES&stderr_from=BYTES` | | 200 events, see [`FollowEvent`] and [`FollowQuery`] |
//! | `GET /v1/jobs/{ref}/bind?token=TOKEN&attempt=N&further_attempts=BOOL&heartbeat_ms=MS&tail=LINES&only_now=BOOL&since=TIME&until=TIME&times=BOOL` | | 200 events, see [`BindEvent`] and [`BindQuery`] |
//! | `GET /v1/jobs/{ref}/process` | | 200 [`JobProcess`], or `null` if the job's main process is not alive |
//! | `GET /v1/jobs/{ref}/explain` | | 200 [`Explanation`](crate::explain::Explanation): why it waits |
//! | `POST /v1/jobs/{ref}/edit` | [`Edits`](crate::Edits) | 200 [`JobRecord`](crate::record::JobRecord), once the queued job is so on disk |
//! | `GET /v1/groups` | | 200 array of [`GroupStatus`](crate::group::GroupStatus), the default group first |
//! | `POST /v1/groups/{name}` | [`GroupChange`](crate::group::GroupChange) | 200 [`GroupStatus`](crate::group::GroupStatus), once the group is so on disk |
//! | `POST /v1/groups/{name}/remove` | | 200 [`GroupStatus`](crate::group::GroupStatus) as it was, once it is gone |
//! | `POST /v1/jobs/{ref}/input` | [`SendRequest`] | 200 [`SendAnswer`], once it is taken or the time is up |
//! | `GET /v1/jobs/{ref}/terminal` | | 200 [`TerminalPlace`]: where the job's terminal is to be found |
//! | `POST /v1/jobs/{ref}/after` | [`AfterRequest`](crate::spec::AfterRequest) | 200 [`JobRecord`](crate::record::JobRecord): the queued job waits for these from now on, for none if there is none |
//! | `GET /v1/processes` | | 200 array of [`JobProcess`], in the order of submission |
//! | `GET /v1/events?after=SEQ&follow=BOOL` | | 200 events, see [`StatusEvent`] and [`EventsQuery`] |
//! | `POST /v1/wait` | [`WaitRequest`] | 200 events, see [`WaitEvent`] |
//! | `POST /v1/restart` | [`RestartRequest`] | 200 [`ActionAnswer`], once their next attempts are on disk |
//! | `POST /v1/pause`, `POST /v1/resume` | [`JobsRequest`] | 200 [`ActionAnswer`] |
//! | `POST /v1/signal` | [`SignalRequest`] | 200 [`ActionAnswer`]; the signals are on their way |
//! | `POST /v1/remove` | [`JobsRequest`] | 200 [`ActionAnswer`] with the last records; jobs, attempts and logs are gone |
//! | `POST /v1/prune` | [`PruneRequest`] | 200 [`PruneAnswer`], once they are gone |
//! | `POST /v1/schedules` | [`ScheduleRequest`] | 201 [`ScheduleRecord`], once the schedule is on disk |
//! | `GET /v1/schedules` | | 200 array of [`ScheduleRecord`], in the order of their names |
//! | `GET /v1/schedules/{name}?next=N` | | 200 [`ScheduleRecord`] with its next `N` times, see [`ScheduleQuery`] |
//! | `POST /v1/schedules/{name}/{pause\|resume\|remove}` | | 200 [`ScheduleRecord`] as it is then, or was |
//! | `POST /v1/schedules/{name}/run` | | 201 [`JobRecord`](crate::record::JobRecord), once the job is on disk |
//! | `POST /v1/stop` | [`StopRequest`] | 200 [`StopAnswer`], once each of them has ended or could not be ended |
//!
//! `POST /v1/jobs?resend=true`, and likewise `/v1/arrays`, says that the spec may have arrived before, over a connection that broke: if a job with
//! the same `submit_key` exists, it is the answer.
//!
//! Every other status carries an [`ErrorBody`] whose [`ProblemKind`] decides the status. Unknown query keys and unknown
//! fields of a body are errors of kind `usage`, and so is a method that the route does not have. What is no HTTP at all
//! gets an empty 400, 414 or 431, and the connection ends.
//!
//! Events are server-sent events: an `event:` line with the name, one `data:` line with JSON, an empty line. Comments
//! (lines that start with `:`) keep an idle connection visibly alive and mean nothing. A stream that ends without its
//! last event (`ended`, `now`, `done`, `timeout` or `error`) was cut off, and a client may ask again. A daemon that was told to leave ends
//! its streams with an `error` of kind `unavailable`, so that nobody who waits starts it again at once.
//!
//! # Starting and leaving
//! Whoever starts a daemon holds an exclusive `flock` on [`START_LOCK_NAME`] in the data directory, connects once more
//! under it, and lets it go once the daemon can be reached. A daemon that leaves takes the same lock before it stops
//! listening and holds it until its process ends, so nobody meets a directory that is still owned but not served.

mod array;
mod bind;
mod candidate;
mod config;
mod event;
mod hang;
mod input;
mod message;
mod problem;
mod process;
mod prune;
mod query;
mod schedule;
mod signal;
mod status_event;
mod store_status;

pub use array::ArrayRequest;
pub use bind::{BindEvent, BindQuery, BindToken, Bound};
pub use candidate::Candidate;
pub use config::{ConfigStatus, Setting};
pub use event::{EventError, FollowEvent, LogStream, OutputChunk, WaitEvent, Written};
pub use hang::Hang;
pub use input::{SendAnswer, SendRequest, TerminalPlace};
pub use message::{
    ActionAnswer, ActionResult, BatchResult, DaemonStatus, JobPage, JobsRequest, RestartRequest, StopAnswer,
    StopRequest, StopResult, WaitProgress, WaitRequest,
};
pub use nodejobs_core::backend::{KeeperStatus, MemoryLimits};
pub use nodejobs_core::store::{JobEvent, Order};
pub use problem::{ErrorBody, Problem, ProblemKind};
pub use process::JobProcess;
pub use prune::{PruneAnswer, PruneRequest, PrunedJob};
pub use query::{FollowQuery, ListQuery, LogQuery, StatusQuery};
pub use schedule::{
    ScheduleAction, ScheduleQuery, ScheduleRecord, ScheduleRequest, ScheduleState, ScheduledRun, When,
};
pub use signal::SignalRequest;
pub use status_event::{EventsQuery, StatusEvent};
pub use store_status::StoreStatus;

/// Name of the socket in the data directory.
pub const SOCKET_NAME: &str = "sock";

/// Name of the file in the data directory whose lock serialises the starting and the leaving of daemons.
pub const START_LOCK_NAME: &str = "start.lock";

/// Name of the file in the data directory that takes the standard error of a daemon that nobody watches.
///
/// It has at most 1 MiB; what was there before is in the file of the same name with `.1` at its end.
pub const LOG_NAME: &str = "daemon.log";

/// The query key that marks a spec as sent again.
pub const RESEND: &str = "resend";
