//! A blocking client of the [socket interface](crate::api): one connection, no threads, no async runtime.

mod dependencies;
mod events;
mod queues;
mod schedules;
mod stopped;
mod streams;
mod terminal;
mod transport;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nodejobs_core::record::JobRecord;
use nodejobs_core::spec::{JobSpec, TerminalSize};
use rustix::event::{Timespec, poll};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::api::{
    self, ActionAnswer, ArrayRequest, BatchResult, BindQuery, ConfigStatus, DaemonStatus, ErrorBody,
    EventsQuery, FollowQuery, JobPage, JobProcess, JobsRequest, ListQuery, LogQuery, LogStream, Problem,
    ProblemKind, PruneAnswer, PruneRequest, RestartRequest, SendAnswer, SendRequest, SignalRequest,
    StatusQuery, StopAnswer, StopRequest, StoreStatus, TerminalPlace, WaitRequest,
};

#[cfg(feature = "local")]
pub(crate) use transport::HangUp;

pub use events::{FollowEvents, WaitEvents};
pub use streams::{BindEvents, StatusEvents};
pub use terminal::Terminal;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody answers at the socket: there is no daemon, or it is not ours to talk to.
    #[error("cannot reach a daemon at {}", socket.display())]
    Unreachable {
        /// Where it should be.
        socket: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The daemon answered with an error.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// The connection ended before the answer did. The request may have been carried out or not.
    #[error("the connection to the daemon broke during {request}")]
    Broken {
        /// Method and path.
        request: String,
        /// How it broke.
        source: std::io::Error,
    },
    /// A signal has stopped the daemon, and nobody has let it go on for half a minute. What was asked may still be done
    /// when somebody does.
    #[error(
        "the daemon (process {pid}) is stopped and does not answer; `kill -CONT {pid}` lets it go on, and what was \
             asked may be done then"
    )]
    Stopped {
        /// Its process.
        pid: u32,
    },
    /// The answer is not one that this interface knows.
    #[error("the daemon's answer to {request} cannot be understood: {message}")]
    Protocol {
        /// Method and path.
        request: String,
        /// What is wrong with it.
        message: String,
    },
}

impl ClientError {
    /// Whether there is no daemon: no socket, or nobody who listens on it.
    pub fn is_no_daemon(&self) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        matches!(self, ClientError::Unreachable { source, .. } if matches!(source.kind(), ConnectionRefused | NotFound))
    }

    /// Whether the owner said that it cannot serve: it is leaving, or its store cannot be used.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, ClientError::Problem(problem) if problem.kind == ProblemKind::Unavailable)
    }

    /// Whether the connection broke, so that the same request may be sent over a new one.
    pub fn is_broken(&self) -> bool {
        matches!(self, ClientError::Broken { .. })
    }
}

/// A connection to the owner of a data directory.
///
/// ```no_run
/// use nodejobs::client::Client;
/// use nodejobs::spec::{Command, JobSpec};
///
/// let client = Client::connect("/var/lib/build/jobs".as_ref())?;
/// let mut spec = JobSpec::new(Command::argv(["make", "all"]), "/src");
/// spec.context = nodejobs::capture_context()?;
/// println!("{}", client.submit(&spec)?.self_id);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    socket: PathBuf,
    when_stopped: stopped::WhenStopped,
}

/// Which sending of a request this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    First,
    /// The first may have arrived.
    Again,
}

/// How often a request is sent at most while the daemon at the other end is killed each time.
const MAX_SENDINGS: u32 = 5;

/// Between two looks for an owner.
const STEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// An answer is bounded, since it is held in memory: far more than the largest page of records.
const MAX_ANSWER: u64 = 1 << 30;

impl Client {
    /// Connects to the owner of this data directory.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if nobody answers there.
    pub fn connect(data_dir: &Path) -> Result<Self, ClientError> {
        let socket = data_dir.join(api::SOCKET_NAME);
        let connector = transport::UnixConnector::connect(data_dir)
            .map_err(|source| ClientError::Unreachable { socket, source })?;
        Ok(Self::over(data_dir, connector))
    }

    /// How long a directory may be without an owner while a daemon is started again.
    pub const NEXT_OWNER: Duration = Duration::from_secs(10);

    /// Connects to the owner of this data directory, as soon as there is one within this time. Not before a moment has
    /// passed: this is for whoever was just told that an owner leaves.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if nobody answers there.
    pub fn connect_within(data_dir: &Path, patience: Duration) -> Result<Self, ClientError> {
        let deadline = Instant::now() + patience;
        loop {
            // Nothing tells when a socket gets a listener.
            let _ = poll(&mut [], Some(&STEP));
            match Self::connect(data_dir) {
                Err(error) if error.is_no_daemon() && Instant::now() < deadline => {}
                connected => return connected,
            }
        }
    }

    fn over(data_dir: &Path, connector: transport::UnixConnector) -> Self {
        let config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("nodejobs/", env!("CARGO_PKG_VERSION")))
            .input_buffer_size(transport::BUFFER_LEN)
            .output_buffer_size(transport::BUFFER_LEN)
            .build();
        let when_stopped = connector.when_stopped();
        let agent = Agent::with_parts(config, connector, transport::NoResolver);
        Self { agent, socket: data_dir.join(api::SOCKET_NAME), when_stopped }
    }

    /// Calls `tell` with the daemon's process when an answer does not come because a signal has stopped the daemon, a few
    /// seconds after it was asked. The answer is waited for all the same, up to half a minute.
    #[must_use]
    pub fn on_stopped(self, tell: fn(u32)) -> Self {
        self.when_stopped.tell(tell);
        self
    }

    /// Connects, and gives a way to end the connection from elsewhere while something is read from it.
    #[cfg(feature = "local")]
    pub(crate) fn connect_with_hang_up(data_dir: &Path) -> Result<(Self, HangUp), ClientError> {
        let unreachable =
            |source| ClientError::Unreachable { socket: data_dir.join(api::SOCKET_NAME), source };
        let connector = transport::UnixConnector::connect(data_dir).map_err(unreachable)?;
        let hang_up = connector.hang_up().map_err(unreachable)?;
        Ok((Self::over(data_dir, connector), hang_up))
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the daemon says about itself.
    ///
    /// # Errors
    /// [`ClientError`], as with every method here.
    pub fn daemon_status(&self) -> Result<DaemonStatus, ClientError> {
        self.get("/v1/daemon", &[])?.json()
    }

    /// What the daemon goes by: `config.toml` as it last read it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn config(&self) -> Result<ConfigStatus, ClientError> {
        self.get("/v1/config", &[])?.json()
    }

    /// Has the daemon go by what `config.toml` says now.
    ///
    /// # Errors
    /// [`ClientError`]; a problem of kind [`Usage`](ProblemKind::Usage) names every mistake in the file, and the daemon
    /// goes by what it did before.
    pub fn reload_daemon(&self) -> Result<ConfigStatus, ClientError> {
        self.post("/v1/daemon/reload", &(), 200)?.json()
    }

    /// What the daemon's store is, promises and holds.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn store_status(&self) -> Result<StoreStatus, ClientError> {
        self.get("/v1/store", &[])?.json()
    }

    /// Asks the daemon to leave. It still has to, when this returns; its jobs run on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn stop_daemon(&self) -> Result<(), ClientError> {
        self.post("/v1/daemon/stop", &(), 202).map(drop)
    }

    /// Asks the daemon not to leave when it has nothing to do.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn keep_daemon(&self) -> Result<(), ClientError> {
        self.post("/v1/daemon/stay", &(), 202).map(drop)
    }

    /// Submits a job; it is on disk when this returns.
    ///
    /// # Errors
    /// [`ClientError`]. After [`ClientError::Broken`] the job may exist or not: see [`submit_or_resend`](Self::submit_or_resend).
    pub fn submit(&self, spec: &JobSpec) -> Result<JobRecord, ClientError> {
        self.send_spec(spec, Sending::First)
    }

    /// Submits a job, and again over the connection that `reconnect` makes when one breaks. The spec's `submit_key`
    /// tells the owner that all of them mean the same job; without one nothing is sent twice.
    ///
    /// # Errors
    /// [`ClientError`] when connections keep breaking, or what `reconnect` says.
    pub fn submit_or_resend<E: From<ClientError>>(
        &mut self,
        spec: &JobSpec,
        reconnect: impl FnMut() -> Result<Client, E>,
    ) -> Result<JobRecord, E> {
        if spec.submit_key.is_none() {
            return Ok(self.submit(spec)?);
        }
        self.retry_sending(|client, sending| client.send_spec(spec, sending), reconnect)
    }

    /// Makes a request that may be made more than once, and again over the connection that `reconnect` makes when one
    /// breaks.
    ///
    /// # Errors
    /// What `request` says when connections keep breaking, or what `reconnect` says.
    pub fn retry<T, E: From<ClientError>>(
        &mut self,
        request: impl Fn(&Client) -> Result<T, ClientError>,
        reconnect: impl FnMut() -> Result<Client, E>,
    ) -> Result<T, E> {
        self.retry_sending(|client, _| request(client), reconnect)
    }

    fn retry_sending<T, E: From<ClientError>>(
        &mut self,
        request: impl Fn(&Client, Sending) -> Result<T, ClientError>,
        mut reconnect: impl FnMut() -> Result<Client, E>,
    ) -> Result<T, E> {
        let mut sending = Sending::First;
        for _ in 1..MAX_SENDINGS {
            match request(self, sending) {
                Err(error) if error.is_broken() => *self = reconnect()?,
                answer => return Ok(answer?),
            }
            sending = Sending::Again;
        }
        Ok(request(self, sending)?)
    }

    /// Submits many jobs with one flush to disk. Each is accepted or refused for itself.
    ///
    /// # Errors
    /// [`ClientError`] if the batch as a whole has no answer.
    pub fn submit_batch(&self, specs: &[JobSpec]) -> Result<Vec<BatchResult>, ClientError> {
        self.post("/v1/jobs/batch", specs, 201)?.json()
    }

    /// Submits an array; it is on disk when this returns.
    ///
    /// # Errors
    /// [`ClientError`]. After [`ClientError::Broken`] the array may exist or not: see
    /// [`submit_array_or_resend`](Self::submit_array_or_resend).
    pub fn submit_array(&self, array: &ArrayRequest) -> Result<JobRecord, ClientError> {
        self.send_array(array, Sending::First)
    }

    /// Submits an array, and again over the connection that `reconnect` makes when one breaks, if its spec has a
    /// `submit_key`.
    ///
    /// # Errors
    /// [`ClientError`] when connections keep breaking, or what `reconnect` says.
    pub fn submit_array_or_resend<E: From<ClientError>>(
        &mut self,
        array: &ArrayRequest,
        reconnect: impl FnMut() -> Result<Client, E>,
    ) -> Result<JobRecord, E> {
        if array.spec.submit_key.is_none() {
            return Ok(self.submit_array(array)?);
        }
        self.retry_sending(|client, sending| client.send_array(array, sending), reconnect)
    }

    fn send_array(&self, array: &ArrayRequest, sending: Sending) -> Result<JobRecord, ClientError> {
        let path = match sending {
            Sending::First => "/v1/arrays".to_owned(),
            Sending::Again => format!("/v1/arrays?{}=true", api::RESEND),
        };
        self.post(&path, array, 201)?.json()
    }

    /// A part of the listing.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn list(&self, query: &ListQuery) -> Result<JobPage, ClientError> {
        self.get("/v1/jobs", &query.to_pairs())?.json()
    }

    /// The record of a job.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn job(&self, reference: &str) -> Result<JobRecord, ClientError> {
        self.get(&job_path(reference, "")?, &[])?.json()
    }

    /// The record of a job, with what the query asks for beside what is stored.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn job_with(&self, reference: &str, query: &StatusQuery) -> Result<JobRecord, ClientError> {
        self.get(&job_path(reference, "")?, &query.to_pairs())?.json()
    }

    /// The bytes of a log file, as they come.
    ///
    /// # Errors
    /// [`ClientError`] if there is no such log; later trouble comes from the reader.
    pub fn log(
        &self,
        reference: &str,
        stream: LogStream,
        query: &LogQuery,
    ) -> Result<impl Read + Send + use<>, ClientError> {
        let answer = self.get(&job_path(reference, &format!("/logs/{stream}"))?, &query.to_pairs())?;
        Ok(answer.response.into_body().into_reader())
    }

    /// Output as it is written, until the attempt has ended.
    ///
    /// # Errors
    /// [`ClientError`] if there is nothing to follow; later trouble comes from the iterator.
    pub fn follow(&self, reference: &str, query: &FollowQuery) -> Result<FollowEvents, ClientError> {
        Ok(FollowEvents::new(self.get(&job_path(reference, "/follow")?, &query.to_pairs())?))
    }

    /// Everything that happens to a job, until it has ended.
    ///
    /// # Errors
    /// [`ClientError`] if there is nothing to bind to; later trouble comes from the iterator.
    pub fn bind(&self, reference: &str, query: &BindQuery) -> Result<BindEvents, ClientError> {
        Ok(BindEvents::new(self.get(&job_path(reference, "/bind")?, &query.to_pairs())?))
    }

    /// Status events of the data directory, each once and in order.
    ///
    /// # Errors
    /// [`ClientError`]; later trouble comes from the iterator, and asking again after the last
    /// [`seq`](crate::api::JobEvent::seq) misses nothing.
    pub fn events(&self, query: &EventsQuery) -> Result<StatusEvents, ClientError> {
        Ok(StatusEvents::new(self.get("/v1/events", &query.to_pairs())?))
    }

    /// The number of the newest status event, 0 if there is none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn newest_event(&self) -> Result<u64, ClientError> {
        let mut events = self.events(&EventsQuery { after: u64::MAX, follow: false })?;
        events.by_ref().try_for_each(|event| event.map(drop))?;
        Ok(events.newest().unwrap_or_default())
    }

    /// The living main process of a job; `None` if it is not running.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn find(&self, reference: &str) -> Result<Option<JobProcess>, ClientError> {
        self.get(&job_path(reference, "/process")?, &[])?.json()
    }

    /// The living main processes of all jobs, in the order of submission.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn processes(&self) -> Result<Vec<JobProcess>, ClientError> {
        self.get("/v1/processes", &[])?.json()
    }

    /// The records of jobs, each once it has ended.
    ///
    /// # Errors
    /// [`ClientError`] if one of them does not exist; later trouble comes from the iterator.
    pub fn wait(&self, request: &WaitRequest) -> Result<WaitEvents, ClientError> {
        Ok(WaitEvents::new(self.post("/v1/wait", request, 200)?))
    }

    /// The records of all attempts of a job, the first one first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn history(&self, reference: &str) -> Result<Vec<JobRecord>, ClientError> {
        self.get(&job_path(reference, "/attempts")?, &[])?.json()
    }

    /// Begins the next attempt of jobs; living ones are stopped first. May be sent again with the same key.
    ///
    /// # Errors
    /// [`ClientError`] if the request as a whole has no answer.
    pub fn restart(&self, request: &RestartRequest) -> Result<ActionAnswer, ClientError> {
        self.post("/v1/restart", request, 200)?.json()
    }

    /// Forgets ended jobs, with their attempts and logs.
    ///
    /// # Errors
    /// [`ClientError`] if the request as a whole has no answer.
    pub fn remove(&self, request: &JobsRequest) -> Result<ActionAnswer, ClientError> {
        self.post("/v1/remove", request, 200)?.json()
    }

    /// Forgets many ended jobs, with their attempts and logs.
    ///
    /// # Errors
    /// [`ClientError`]. After [`ClientError::Broken`] some of them may be gone.
    pub fn prune(&self, request: &PruneRequest) -> Result<PruneAnswer, ClientError> {
        self.post("/v1/prune", request, 200)?.json()
    }

    /// Halts jobs with everything they started.
    ///
    /// # Errors
    /// [`ClientError`] if the request as a whole has no answer.
    pub fn pause(&self, request: &JobsRequest) -> Result<ActionAnswer, ClientError> {
        self.post("/v1/pause", request, 200)?.json()
    }

    /// Lets halted jobs go on.
    ///
    /// # Errors
    /// [`ClientError`] if the request as a whole has no answer.
    pub fn resume(&self, request: &JobsRequest) -> Result<ActionAnswer, ClientError> {
        self.post("/v1/resume", request, 200)?.json()
    }

    /// Sends jobs a signal.
    ///
    /// # Errors
    /// [`ClientError`] if the request as a whole has no answer; after [`ClientError::Broken`] it may have been sent.
    pub fn signal(&self, request: &SignalRequest) -> Result<ActionAnswer, ClientError> {
        self.post("/v1/signal", request, 200)?.json()
    }

    /// Gives a job input that it reads from its own pipe or terminal.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Broken`] the job may have got some of it.
    pub fn send(&self, reference: &str, request: &SendRequest) -> Result<SendAnswer, ClientError> {
        self.post(&job_path(reference, "/input")?, request, 200)?.json()
    }

    /// Connects to the terminal of a job, in whatever process the job's owner is. The connection outlives the owner.
    ///
    /// # Errors
    /// [`ClientError`] if there is none.
    pub fn attach(&self, reference: &str, size: TerminalSize) -> Result<Terminal, ClientError> {
        let place: TerminalPlace = self.get(&job_path(reference, "/terminal")?, &[])?.json()?;
        Ok(Terminal::attach(place, size)?)
    }

    /// Ends jobs; answers once each of them has ended or could not be ended.
    ///
    /// # Errors
    /// [`ClientError`] if the request as a whole has no answer.
    pub fn stop(&self, request: &StopRequest) -> Result<StopAnswer, ClientError> {
        self.post("/v1/stop", request, 200)?.json()
    }

    fn send_spec(&self, spec: &JobSpec, sending: Sending) -> Result<JobRecord, ClientError> {
        let path = match sending {
            Sending::First => "/v1/jobs".to_owned(),
            Sending::Again => format!("/v1/jobs?{}=true", api::RESEND),
        };
        self.post(&path, spec, 201)?.json()
    }

    fn get(&self, path: &str, query: &[(String, String)]) -> Result<Answer, ClientError> {
        let path = with_query(path, query);
        let response = self.agent.get(format!("http://localhost{path}")).call();
        Answer::new(format!("GET {path}"), response, 200)
    }

    fn post(
        &self,
        path: &str,
        body: &(impl Serialize + ?Sized),
        expected: u16,
    ) -> Result<Answer, ClientError> {
        let request = format!("POST {path}");
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Protocol {
            request: request.clone(),
            message: error.to_string(),
        })?;
        let response = self
            .agent
            .post(format!("http://localhost{path}"))
            .content_type("application/json")
            .send(&body[..]);
        Answer::new(request, response, expected)
    }
}

/// An answer with the status that was expected; its body is still to be read.
#[derive(Debug)]
struct Answer {
    request: String,
    response: Response<Body>,
}

impl Answer {
    fn new(
        request: String,
        response: Result<Response<Body>, ureq::Error>,
        expected: u16,
    ) -> Result<Self, ClientError> {
        let response = match response {
            Ok(response) => response,
            Err(error) => return Err(broken(request, error)),
        };
        let status = response.status().as_u16();
        let mut answer = Self { request, response };
        if status == expected {
            return Ok(answer);
        }
        let body = answer.bytes()?;
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => Err(body.error.into()),
            Err(_) => {
                let said: String = String::from_utf8_lossy(&body).chars().take(200).collect();
                Err(ClientError::Protocol {
                    request: answer.request,
                    message: format!("HTTP status {status} instead of {expected}: {said}"),
                })
            }
        }
    }

    fn bytes(&mut self) -> Result<Vec<u8>, ClientError> {
        let body = self.response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        body.map_err(|error| broken(self.request.clone(), error))
    }

    fn json<T: DeserializeOwned>(mut self) -> Result<T, ClientError> {
        let body = self.bytes()?;
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::Protocol { request: self.request, message: error.to_string() })
    }
}

fn broken(request: String, error: ureq::Error) -> ClientError {
    match error {
        ureq::Error::Io(source) => {
            match source.get_ref().and_then(|inner| inner.downcast_ref::<stopped::StoppedPeer>()) {
                Some(stopped::StoppedPeer(pid)) => ClientError::Stopped { pid: *pid },
                None => ClientError::Broken { request, source },
            }
        }
        other => ClientError::Protocol { request, message: other.to_string() },
    }
}

/// The path of a job, or of something that belongs to it.
fn job_path(reference: &str, rest: &str) -> Result<String, ClientError> {
    if reference.is_empty() {
        return Err(Problem::usage("an empty text refers to no job").into());
    }
    Ok(format!("/v1/jobs/{}{rest}", percent_encode(reference)))
}

fn with_schedule(name: &str, rest: &str) -> Result<String, ClientError> {
    if name.is_empty() {
        return Err(Problem::usage("the name of a schedule is empty").into());
    }
    Ok(format!("/v1/schedules/{}{rest}", percent_encode(name)))
}

/// The path with a query.
pub(crate) fn with_query(path: &str, query: &[(String, String)]) -> String {
    let mut path = path.to_owned();
    for (index, (key, value)) in query.iter().enumerate() {
        path.push(if index == 0 { '?' } else { '&' });
        path.push_str(&percent_encode(key));
        path.push('=');
        path.push_str(&percent_encode(value));
    }
    path
}

/// Everything but the unreserved characters of RFC 3986 as `%XX`.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
