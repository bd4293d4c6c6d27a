//! The socket interface, served: HTTP/1.1 and JSON on a unix socket, see [`crate::api`].

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod queues;
mod schedules;

use std::convert::Infallible;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use nodejobs_core::record::JobRecord;
use nodejobs_core::spec::{AfterRequest, JobSpec};
use nodejobs_proc::socket::with_address;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};

use crate::api::{
    ActionAnswer, ArrayRequest, BatchResult, BindQuery, ConfigStatus, DaemonStatus, ErrorBody, EventsQuery,
    FollowEvent, FollowQuery, JobPage, JobProcess, JobsRequest, ListQuery, LogQuery, LogStream, ProblemKind,
    PruneAnswer, PruneRequest, RestartRequest, SOCKET_NAME, SendAnswer, SendRequest, SignalRequest,
    StatusEvent, StatusQuery, StopAnswer, StopRequest, StoreStatus, TerminalPlace, WaitEvent,
};
use crate::error::Error;
use crate::follow::follow;
use crate::log_files::LogPart;
use crate::owner::{Owner, Request};
use crate::wait::begin_wait;

/// The largest request: a batch of many jobs.
const MAX_BODY: usize = 256 << 20;
/// Bytes of a log that are read at a time.
const LOG_CHUNK: usize = 256 * 1024;
/// How long an owner that leaves waits for its clients: everybody else waits for it meanwhile.
const LEAVING: Duration = Duration::from_secs(2);

/// A bound socket, not yet served.
pub(crate) struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Tells the socket from another that somebody may have put in its place.
    inode: u64,
    state: ServerState,
    connections: watch::Sender<usize>,
    stop: watch::Sender<bool>,
}

#[derive(Clone)]
struct ServerState {
    owner: Arc<Owner>,
    socket: PathBuf,
    leave_requested: watch::Sender<bool>,
    stay_requested: watch::Sender<bool>,
}

/// What others can see and do of a running server.
#[derive(Clone, Debug)]
pub(crate) struct ServerHandle {
    /// How many clients are connected.
    pub(crate) connections: watch::Receiver<usize>,
    /// Turns true when a client asks the daemon to leave; only a daemon listens, see [`ServerHandle::leave_requests`].
    leave_requested: watch::Sender<bool>,
    /// Turns true when a client asks the daemon to stay.
    pub(crate) stay_requested: watch::Receiver<bool>,
    /// Turns true when the server shall stop.
    stop: watch::Sender<bool>,
}

impl ServerHandle {
    /// Clients that ask the owner to leave, who are refused as long as nobody holds this.
    pub(crate) fn leave_requests(&self) -> watch::Receiver<bool> {
        self.leave_requested.subscribe()
    }

    /// Has the server answer what is under way, take no more, and return.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Server {
    /// Takes the socket of the directory, whose lock the owner holds: what is there is of a dead owner.
    pub(crate) fn bind(owner: &Arc<Owner>) -> Result<Self, Error> {
        let directory = owner.directory.path();
        let path = directory.join(SOCKET_NAME);
        let bind = || {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            let listener = with_address(directory, SOCKET_NAME, |address| UnixListener::bind(address))?;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
            Ok((listener, std::fs::metadata(&path)?.ino()))
        };
        let (listener, inode) = bind().map_err(|error| {
            Error::new(ProblemKind::Unavailable, format!("socket '{}' cannot be served", path.display()))
                .with_source(error)
        })?;
        let state = ServerState {
            owner: Arc::clone(owner),
            socket: path.clone(),
            leave_requested: watch::Sender::new(false),
            stay_requested: watch::Sender::new(false),
        };
        Ok(Self {
            listener,
            path,
            inode,
            state,
            connections: watch::Sender::new(0),
            stop: watch::Sender::new(false),
        })
    }

    pub(crate) fn handle(&self) -> ServerHandle {
        ServerHandle {
            connections: self.connections.subscribe(),
            leave_requested: self.state.leave_requested.clone(),
            stay_requested: self.state.stay_requested.subscribe(),
            stop: self.stop.clone(),
        }
    }

    /// Serves until told to stop; then answers what is under way, and returns.
    pub(crate) async fn serve(self) {
        let Self { listener, path, inode, state, connections, stop } = self;
        let mut stopping = stop.subscribe();
        let router = router(state);
        let mut clients = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopping.wait_for(|stop| *stop) => break,
                Some(_) = clients.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) if is_trusted(&stream) => {
                    let counted = Counted::new(&connections);
                    clients.spawn(serve_client(stream, router.clone(), stopping.clone(), counted));
                }
                // A stranger learns nothing, not even why.
                Ok(_) => {}
                Err(error) => {
                    // Out of descriptors, most likely: others have to close some first.
                    log::warn!("no client can be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        // Whoever comes now finds nobody, and starts or finds the next owner.
        if std::fs::metadata(&path).is_ok_and(|metadata| metadata.ino() == inode) {
            let _ = std::fs::remove_file(&path);
        }
        drop(listener);
        // Answers that are under way take a moment, or as long as somebody reads who may have been halted.
        let all_answered = async { while clients.join_next().await.is_some() {} };
        if tokio::time::timeout(LEAVING, all_answered).await.is_err() {
            log::warn!(
                "left {} clients that did not finish their requests or read their answers",
                clients.len()
            );
        }
    }
}

async fn serve_client(
    stream: UnixStream,
    router: axum::Router,
    mut stopping: watch::Receiver<bool>,
    _counted: Counted,
) {
    let service = TowerToHyperService::new(router);
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // A client that breaks off, or talks nonsense, ends its own connection and nothing else.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Counts a client for as long as it is connected.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(connections: &watch::Sender<usize>) -> Self {
        connections.send_modify(|count| *count += 1);
        Self(connections.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

fn is_trusted(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

fn router(state: ServerState) -> axum::Router {
    axum::Router::new()
        .route("/v1/daemon", get(daemon_status))
        .route("/v1/daemon/stop", post(daemon_stop))
        .route("/v1/daemon/stay", post(daemon_stay))
        .route("/v1/daemon/reload", post(daemon_reload))
        .route("/v1/config", get(config_status))
        .route("/v1/store", get(store_status))
        .route("/v1/jobs", post(run).get(list))
        .route("/v1/jobs/batch", post(run_batch))
        .route("/v1/arrays", post(submit_array))
        .route("/v1/jobs/{reference}", get(status))
        .route("/v1/jobs/{reference}/attempts", get(history))
        .route("/v1/jobs/{reference}/logs/{stream}", get(logs))
        .route("/v1/jobs/{reference}/follow", get(follow_job))
        .route("/v1/jobs/{reference}/bind", get(bind_job))
        .route("/v1/jobs/{reference}/process", get(find))
        .route("/v1/jobs/{reference}/input", post(send_input))
        .route("/v1/jobs/{reference}/terminal", get(terminal))
        .route("/v1/jobs/{reference}/after", post(set_dependencies))
        .merge(queues::routes())
        .route("/v1/processes", get(processes))
        .route("/v1/events", get(events))
        .route("/v1/wait", post(wait))
        .route("/v1/stop", post(stop))
        .route("/v1/restart", post(restart))
        .route("/v1/remove", ask(|| Request::Remove { revision: None }))
        .route("/v1/prune", post(prune))
        .route("/v1/pause", ask(|| Request::Pause))
        .route("/v1/resume", ask(|| Request::Resume))
        .route("/v1/signal", post(signal))
        .merge(schedules::routes())
        .fallback(|| async {
            Error::new(ProblemKind::NotFound, "there is no such route; see the api's documentation")
        })
        .method_not_allowed_fallback(|| async {
            Error::new(ProblemKind::Usage, "this route has no such method; see the api's documentation")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(state)
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = self.to_problem();
        let status =
            StatusCode::from_u16(problem.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(ErrorBody { error: problem })).into_response()
    }
}

/// A body that is read as JSON whatever the client calls it, with the reason if it cannot be.
fn parse<T: serde::de::DeserializeOwned>(body: BodyBytes) -> Result<T, Error> {
    serde_json::from_slice(&whole(body)?)
        .map_err(|error| Error::new(ProblemKind::Usage, format!("the request cannot be understood: {error}")))
}

// The parts of a request, not yet understood: what axum says of a bad one is no answer of ours.
type PathOf<T> = Result<Path<T>, PathRejection>;
type QueryOf<T> = Result<Query<T>, QueryRejection>;
type BodyBytes = Result<Bytes, BytesRejection>;

fn path<T>(path: PathOf<T>) -> Result<T, Error> {
    let bad = |error: PathRejection| format!("the path cannot be understood: {}", error.body_text());
    path.map(|Path(value)| value).map_err(|error| Error::new(ProblemKind::Usage, bad(error)))
}

fn query<T>(query: QueryOf<T>) -> Result<T, Error> {
    query.map(|Query(value)| value).map_err(|error| Error::new(ProblemKind::Usage, error.body_text()))
}

fn whole(body: BodyBytes) -> Result<Bytes, Error> {
    let bad = |error: BytesRejection| format!("the body cannot be read: {}", error.body_text());
    body.map_err(|error| Error::new(ProblemKind::Usage, bad(error)))
}

async fn daemon_status(State(state): State<ServerState>) -> Result<Json<DaemonStatus>, Error> {
    Ok(Json(state.owner.daemon_status(state.socket.clone()).await?))
}

async fn store_status(State(state): State<ServerState>) -> Result<Json<StoreStatus>, Error> {
    Ok(Json(state.owner.store_status().await?))
}

// Both take the body, and so read it to its end: whoever is answered before it has sent all may find the connection
// gone.

async fn daemon_stop(State(state): State<ServerState>, body: BodyBytes) -> Result<StatusCode, Error> {
    whole(body)?;
    // Nobody listens in a program that only embeds the library; it leaves when it wants to.
    if state.leave_requested.send(true).is_err() {
        let message = format!(
            "process {} owns the data directory and is no daemon; end that program instead",
            std::process::id()
        );
        return Err(Error::new(ProblemKind::Conflict, message));
    }
    Ok(StatusCode::ACCEPTED)
}

async fn daemon_stay(State(state): State<ServerState>, body: BodyBytes) -> Result<StatusCode, Error> {
    whole(body)?;
    state.stay_requested.send_replace(true);
    Ok(StatusCode::ACCEPTED)
}

async fn daemon_reload(
    State(state): State<ServerState>,
    body: BodyBytes,
) -> Result<Json<ConfigStatus>, Error> {
    whole(body)?;
    Ok(Json(state.owner.reload().await?))
}

async fn config_status(State(state): State<ServerState>) -> Json<ConfigStatus> {
    Json(state.owner.config_status())
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RunQuery {
    #[serde(default)]
    resend: bool,
}

async fn run(
    State(state): State<ServerState>,
    parameters: QueryOf<RunQuery>,
    body: BodyBytes,
) -> Result<(StatusCode, Json<JobRecord>), Error> {
    let RunQuery { resend } = query(parameters)?;
    let spec: JobSpec = parse(body)?;
    Ok((StatusCode::CREATED, Json(state.owner.run(&spec, resend).await?)))
}

async fn submit_array(
    State(state): State<ServerState>,
    parameters: QueryOf<RunQuery>,
    body: BodyBytes,
) -> Result<(StatusCode, Json<JobRecord>), Error> {
    let RunQuery { resend } = query(parameters)?;
    let array: ArrayRequest = parse(body)?;
    Ok((StatusCode::CREATED, Json(state.owner.submit_array(&array, resend).await?)))
}

async fn run_batch(
    State(state): State<ServerState>,
    body: BodyBytes,
) -> Result<(StatusCode, Json<Vec<BatchResult>>), Error> {
    let specs: Vec<JobSpec> = parse(body)?;
    let results = state.owner.run_batch(&specs).await.into_iter().map(|result| match result {
        Ok(id) => BatchResult::Id(id),
        Err(error) => BatchResult::Error(error.to_problem()),
    });
    Ok((StatusCode::CREATED, Json(results.collect())))
}

async fn list(
    State(state): State<ServerState>,
    parameters: QueryOf<Vec<(String, String)>>,
) -> Result<Json<JobPage>, Error> {
    let list = ListQuery::from_pairs(query(parameters)?)?;
    Ok(Json(state.owner.list(&list).await?))
}

async fn status(
    State(state): State<ServerState>,
    reference: PathOf<String>,
    parameters: QueryOf<StatusQuery>,
) -> Result<Json<JobRecord>, Error> {
    Ok(Json(state.owner.status(&path(reference)?, &query(parameters)?).await?))
}

async fn history(
    State(state): State<ServerState>,
    reference: PathOf<String>,
) -> Result<Json<Vec<JobRecord>>, Error> {
    let reference = path(reference)?;
    Ok(Json(state.owner.history(&reference).await?))
}

async fn logs(
    State(state): State<ServerState>,
    job_and_stream: PathOf<(String, String)>,
    parameters: QueryOf<LogQuery>,
) -> Result<Response, Error> {
    let (reference, stream) = path(job_and_stream)?;
    let stream: LogStream = stream.parse()?;
    let part = state.owner.log(&reference, stream, &query(parameters)?).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, (part.end - part.start).to_string()),
    ];
    Ok((headers, Body::from_stream(log_chunks(part))).into_response())
}

/// The bytes of a log, read where nobody has to wait for them, a few pieces ahead of the client.
fn log_chunks(mut part: LogPart) -> impl Stream<Item = io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(4);
    match part.named.take() {
        Some(file) => drop(tokio::spawn(async move {
            let mut start = part.start;
            while start < part.end {
                let to = part.end.min(start + LOG_CHUNK as u64);
                let piece = LogPart::piece(&file, start, to).await.map_err(io::Error::other);
                start += piece.as_ref().map_or(part.end, |bytes| bytes.len() as u64);
                if sender.send(piece.map(Bytes::from)).await.is_err() {
                    return;
                }
            }
        })),
        None => drop(tokio::task::spawn_blocking(move || send_log(&part, &sender))),
    }
    ReceiverStream::new(receiver)
}

fn send_log(part: &LogPart, sender: &mpsc::Sender<io::Result<Bytes>>) {
    let Some(mut file) = part.file.as_ref() else { return };
    let mut left = part.end - part.start;
    let mut read = || {
        while left > 0 {
            file.seek(SeekFrom::Start(part.end - left))?;
            let mut bytes = Vec::with_capacity(LOG_CHUNK);
            let length = file.by_ref().take(left.min(LOG_CHUNK as u64)).read_to_end(&mut bytes)?;
            if length == 0 {
                return Err(io::Error::other("the log file was truncated while it was read"));
            }
            // What was freed while it was read has come as zeros.
            if part.freed(part.end - left)?.is_some() {
                return Err(io::Error::other("the beginning of the log was freed while it was read"));
            }
            left -= length as u64;
            if sender.blocking_send(Ok(Bytes::from(bytes))).is_err() {
                break;
            }
        }
        Ok(())
    };
    if let Err(error) = read() {
        let _ = sender.blocking_send(Err(error));
    }
}

async fn follow_job(
    State(state): State<ServerState>,
    reference: PathOf<String>,
    parameters: QueryOf<FollowQuery>,
) -> Result<impl IntoResponse, Error> {
    let events = follow(&state.owner, &path(reference)?, &query(parameters)?, false).await?;
    Ok(sse(events, FollowEvent::to_sse))
}

async fn bind_job(
    State(state): State<ServerState>,
    reference: PathOf<String>,
    parameters: QueryOf<BindQuery>,
) -> Result<impl IntoResponse, Error> {
    let reference = path(reference)?;
    let events = crate::bind::bind(&state.owner, &reference, &query(parameters)?).await?;
    Ok(sse(events, |event| match event {
        Ok(event) => event.to_sse(),
        Err(error) => ErrorBody { error: error.to_problem() }.to_sse(),
    }))
}

async fn find(
    State(state): State<ServerState>,
    reference: PathOf<String>,
) -> Result<Json<Option<JobProcess>>, Error> {
    let reference = path(reference)?;
    Ok(Json(state.owner.find(&reference).await?))
}

async fn send_input(
    State(state): State<ServerState>,
    reference: PathOf<String>,
    body: BodyBytes,
) -> Result<Json<SendAnswer>, Error> {
    let (reference, request): (String, SendRequest) = (path(reference)?, parse(body)?);
    Ok(Json(state.owner.send_input(&reference, &request).await?))
}

async fn terminal(
    State(state): State<ServerState>,
    reference: PathOf<String>,
) -> Result<Json<TerminalPlace>, Error> {
    let reference = path(reference)?;
    Ok(Json(state.owner.terminal(&reference).await?))
}

async fn set_dependencies(
    State(state): State<ServerState>,
    reference: PathOf<String>,
    body: BodyBytes,
) -> Result<Json<JobRecord>, Error> {
    let (reference, request): (String, AfterRequest) = (path(reference)?, parse(body)?);
    Ok(Json(state.owner.set_dependencies(&reference, &request).await?))
}

async fn processes(State(state): State<ServerState>) -> Result<Json<Vec<JobProcess>>, Error> {
    Ok(Json(state.owner.processes().await?))
}

async fn events(
    State(state): State<ServerState>,
    parameters: QueryOf<EventsQuery>,
) -> Result<impl IntoResponse, Error> {
    Ok(sse(crate::events::events(&state.owner, &query(parameters)?), StatusEvent::to_sse))
}

async fn wait(State(state): State<ServerState>, body: BodyBytes) -> Result<impl IntoResponse, Error> {
    Ok(sse(begin_wait(&state.owner, &parse(body)?).await?, WaitEvent::to_sse))
}

fn require_jobs(jobs: &[String]) -> Result<(), Error> {
    if jobs.is_empty() {
        return Err(Error::new(ProblemKind::Usage, "name at least one job"));
    }
    Ok(())
}

async fn restart(State(state): State<ServerState>, body: BodyBytes) -> Result<Json<ActionAnswer>, Error> {
    let request: RestartRequest = parse(body)?;
    require_jobs(&request.jobs)?;
    Ok(Json(state.owner.ask_of_all(&request.jobs, &request.clone().into()).await))
}

async fn signal(State(state): State<ServerState>, body: BodyBytes) -> Result<Json<ActionAnswer>, Error> {
    let request: SignalRequest = parse(body)?;
    require_jobs(&request.jobs)?;
    Ok(Json(state.owner.signal_jobs(&request).await?))
}

/// Serves a request that says nothing but which jobs.
fn ask(request: fn() -> Request) -> MethodRouter<ServerState> {
    post(
        async move |State(state): State<ServerState>, body: BodyBytes| -> Result<Json<ActionAnswer>, Error> {
            let JobsRequest { jobs } = parse(body)?;
            require_jobs(&jobs)?;
            Ok(Json(state.owner.ask_of_all(&jobs, &request()).await))
        },
    )
}

async fn prune(State(state): State<ServerState>, body: BodyBytes) -> Result<Json<PruneAnswer>, Error> {
    let request: PruneRequest = parse(body)?;
    Ok(Json(state.owner.prune(&request).await?))
}

async fn stop(State(state): State<ServerState>, body: BodyBytes) -> Result<Json<StopAnswer>, Error> {
    let request: StopRequest = parse(body)?;
    if request.jobs.is_empty() && !request.all {
        return Err(Error::new(ProblemKind::Usage, "name the jobs to stop, or ask for all"));
    }
    Ok(Json(state.owner.stop_jobs(&request).await?))
}

fn sse<E: Send + 'static>(
    events: mpsc::Receiver<E>,
    to_sse: fn(&E) -> Result<(&'static str, String), serde_json::Error>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(ReceiverStream::new(events).map(move |event| {
        let (name, data) =
            to_sse(&event).unwrap_or_else(|error| ("error", format!("{:?}", error.to_string())));
        Ok(Event::default().event(name).data(data))
    }))
}
