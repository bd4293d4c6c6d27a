//! Arbitrary bytes on the socket: the real connection, router and owner, with a store in memory and a backend that
//! launches nothing. See [`crate::fuzzing`].

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::Method;
use axum::middleware::{Next, from_fn};
use nodejobs_core::backend::{
    BackendError, BackendEvent, BackendHost, BackendReport, Capabilities, EndPlan, KeeperStatus,
    KnownAttempt, MemoryLimits, ProcessBackend, Receipt, SignalScope, StartFailure, StartFailureKind,
    TreeUsage,
};
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::{ExitStatus, Process};
use nodejobs_core::logs::LogStart;
use nodejobs_core::signal::Signal;
use nodejobs_core::spec::{Command, Limits};
use nodejobs_core::status::Reason;
use nodejobs_core::store::memory::MemoryStore;
use nodejobs_proc::machine::now;
use tokio::io::AsyncWrite;
use tokio::time::timeout;

use super::*;
use crate::config::Config;
use crate::directory::DataDirectory;
use crate::stores::StoreKind;

/// What is sent last, so that whoever has understood what came before it closes the connection.
const LAST: &[u8] = b"GET /v1/daemon HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
/// After so long without a byte the server is taken to wait for the rest of a request.
const QUIET: Duration = Duration::from_millis(5);
/// The same while a request that has come to a route has no answer yet: its body may be missing, or it takes a while.
const QUIET_UNANSWERED: Duration = Duration::from_millis(100);
/// After so long it hangs.
const DEADLINE: Duration = Duration::from_secs(20);

/// Whatever a client sends, each answer is well-formed HTTP, as [`crate::api`] describes it, and the connection ends
/// soon after the client has closed its side.
///
/// Jobs that are accepted end at once without having been executed. `directory` is for one caller at a time.
pub fn http(directory: &std::path::Path, bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let directory = DataDirectory::prepare(directory).expect("a directory");
    let lock = directory.lock_owner().expect("a lock").expect("one caller at a time");
    let store = Arc::new(MemoryStore::default());
    let owner = Owner::take_over(
        directory,
        lock,
        StoreKind::Sqlite,
        store,
        "a boot",
        Config::default(),
        |_, host| Ok(Arc::new(NothingIsLaunched(host))),
    );
    let owner = Arc::new(owner.expect("an owner"));
    let (answers, methods, cut) = runtime
        .block_on(async { timeout(DEADLINE, converse(&owner, bytes)).await.expect("the connection hangs") });
    owner.hub.leave();
    drop(runtime);
    check(bytes, &answers, &methods, cut);
}

/// Sends everything and hears everything. Also returns the methods of the requests that came to a route, and whether
/// this side has closed the connection before the server did.
async fn converse(owner: &Arc<Owner>, bytes: &[u8]) -> (Vec<u8>, Vec<Method>, bool) {
    let state = ServerState {
        owner: Arc::clone(owner),
        socket: "/fuzz/sock".into(),
        leave_requested: watch::Sender::new(false),
        stay_requested: watch::Sender::new(false),
    };
    let methods = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&methods);
    let router = router(state).layer(from_fn(move |request: axum::extract::Request, next: Next| {
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.method().clone());
        next.run(request)
    }));
    let seen = || methods.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
    let (connections, stop) = (watch::Sender::new(0), watch::Sender::new(false));
    let serving = serve_client(server, router, stop.subscribe(), Counted::new(&connections));
    let talking = async {
        let sent = [bytes, LAST].concat();
        let (mut left, mut answers) = (&sent[..], Vec::new());
        loop {
            if !left.is_empty() {
                tokio::select! {
                    _ = client.writable() => match client.try_write(left) {
                        Ok(length) => left = &left[length..],
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        // It closes a connection that it has understood enough of.
                        Err(_) => left = &[],
                    },
                    more = read(&client, &mut answers) => if !more { return (answers, false) },
                }
                continue;
            }
            let unanswered = seen().len() > Answers::new(&answers, &seen()).count();
            let quiet = if unanswered { QUIET_UNANSWERED } else { QUIET };
            match timeout(quiet, read(&client, &mut answers)).await {
                Ok(true) => {}
                Ok(false) => return (answers, false),
                Err(_) => break,
            }
        }
        poll_fn(|context| Pin::new(&mut client).poll_shutdown(context)).await.expect("shut");
        while read(&client, &mut answers).await {}
        (answers, true)
    };
    let ((), (answers, cut)) = tokio::join!(serving, talking);
    assert_eq!(*connections.borrow(), 0, "a connection that has ended is counted");
    (answers, seen(), cut)
}

/// Reads what is there, or waits for something. False at the end.
async fn read(client: &UnixStream, answers: &mut Vec<u8>) -> bool {
    loop {
        let mut buffer = [0; 16 * 1024];
        match client.try_read(&mut buffer) {
            Ok(0) => return false,
            Ok(length) => {
                answers.extend_from_slice(&buffer[..length]);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                client.readable().await.expect("a socket");
            }
            // What we sent after the server had closed resets the connection.
            Err(_) => return false,
        }
    }
}

/// Checks every answer to what was sent. The last one may be cut off if this side was the first to close the connection.
fn check(sent: &[u8], bytes: &[u8], methods: &[Method], cut: bool) {
    let mut answers = Answers::new(bytes, methods);
    let mut count = 0;
    for answer in answers.by_ref() {
        count += 1;
        answer.check(count > methods.len());
    }
    let rest = &bytes[answers.at..];
    assert!(cut || rest.is_empty(), "cut off: {}", rest.escape_ascii());
    // Who begins like this speaks another version of HTTP, and an answer would mean nothing there.
    let foreign = sent.starts_with(b"PRI * HTTP/2.0\r\n");
    assert!(cut || foreign || count > 0, "no answer at all");
    assert!(cut || count >= methods.len(), "{count} answers to {methods:?}");
    assert!(count <= methods.len() + 1, "{count} answers to {methods:?}");
}

/// The complete answers in what a server has sent.
struct Answers<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Of the requests that came to a route, which all that is refused later comes after.
    methods: std::slice::Iter<'a, Method>,
}

struct Answer<'a> {
    status: u16,
    head: &'a str,
    kind: Option<&'a str>,
    /// `None` for an answer to HEAD.
    body: Option<Vec<u8>>,
}

impl<'a> Answers<'a> {
    fn new(bytes: &'a [u8], methods: &'a [Method]) -> Self {
        Self { bytes, at: 0, methods: methods.iter() }
    }

    /// The next answer, interim ones too, and its length.
    fn parse(&self) -> Option<(Answer<'a>, usize)> {
        let rest = &self.bytes[self.at..];
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&rest[..end]).expect("an ASCII head");
        assert!(head.is_ascii() && !head.replace("\r\n", "").contains(char::is_control), "{head:?}");
        let (line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "));
        let status: u16 = status.and_then(|rest| rest.get(..3)?.parse().ok()).expect("a status line");
        let header = |name: &str| {
            let mut found = headers.split_terminator("\r\n").filter_map(|line| {
                let (key, value) = line.split_once(": ").expect("a header");
                key.eq_ignore_ascii_case(name).then_some(value)
            });
            let value = found.next();
            assert!(found.next().is_none(), "{name} twice: {head:?}");
            value
        };
        let kind = header("content-type");
        let length = header("content-length").map(|value| value.parse::<usize>().expect("a length"));
        let body = &rest[end + 4..];
        let (body, length) = if status < 200 || self.methods.as_slice().first() == Some(&Method::HEAD) {
            (None, 0)
        } else if let Some(length) = length {
            (Some(body.get(..length)?.to_vec()), length)
        } else if header("transfer-encoding") == Some("chunked") {
            let (chunks, length) = chunked(body)?;
            (Some(chunks), length)
        } else {
            (Some(body.to_vec()), body.len())
        };
        Some((Answer { status, head, kind, body }, end + 4 + length))
    }
}

impl<'a> Iterator for Answers<'a> {
    type Item = Answer<'a>;

    fn next(&mut self) -> Option<Answer<'a>> {
        loop {
            let (answer, length) = self.parse()?;
            self.at += length;
            if answer.status >= 200 {
                self.methods.next();
                return Some(answer);
            }
            assert_eq!(answer.status, 100, "{}", answer.head);
        }
    }
}

/// The content of a chunked body and the length of all of it, if its end is there.
fn chunked(body: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut content, mut at) = (Vec::new(), 0);
    loop {
        let line = body[at..].windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&body[at..at + line]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        at += line + 2;
        let chunk = body.get(at..at + size + 2)?;
        assert_eq!(&chunk[size..], b"\r\n", "the end of a chunk");
        content.extend_from_slice(&chunk[..size]);
        at += size + 2;
        if size == 0 {
            return Some((content, at));
        }
    }
}

impl Answer<'_> {
    /// Whether this is an answer of [`crate::api`], or, if it came to no route, one that says that it is no HTTP.
    fn check(&self, no_route: bool) {
        let shown =
            || format!("{}\n\n{}", self.head, self.body.as_deref().unwrap_or_default().escape_ascii());
        let Some(body) = &self.body else { return };
        match self.status {
            _ if no_route => {
                assert!(matches!(self.status, 400 | 414 | 431) && body.is_empty(), "{}", shown());
            }
            200 | 201 if self.kind == Some("application/json") => {
                assert!(serde_json::from_slice::<serde_json::Value>(body).is_ok(), "{}", shown());
            }
            200 if self.kind == Some("text/event-stream") => check_events(body),
            200 if self.kind == Some("application/octet-stream") => {}
            202 => assert!(body.is_empty(), "{}", shown()),
            _ => {
                let ErrorBody { error } =
                    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {}", shown()));
                assert_eq!(self.status, error.kind.http_status(), "{}", shown());
                // Nothing fails here but what is asked for.
                assert!(!matches!(error.kind, ProblemKind::Failed | ProblemKind::Unavailable), "{}", shown());
            }
        }
    }
}

/// Every event is one of the two streams' events, and the last one, and only that, is a last one.
fn check_events(body: &[u8]) {
    let text = std::str::from_utf8(body).expect("events are text");
    let events: Vec<bool> = text
        .split_terminator("\n\n")
        .filter(|event| !event.starts_with(':'))
        .map(|event| {
            let (name, data) = event.split_once('\n').expect("two lines");
            let name = name.strip_prefix("event: ").expect("a name");
            let data = data.strip_prefix("data: ").expect("data");
            match (FollowEvent::from_sse(name, data), WaitEvent::from_sse(name, data)) {
                (_, Ok(WaitEvent::Done | WaitEvent::TimedOut)) => true,
                // A wait goes on after it, and a follower hears nothing else.
                (Ok(FollowEvent::Ended(_)), _) => text.ends_with(&format!("{event}\n\n")),
                (Ok(event), _) => event.is_last(),
                (Err(error), _) => panic!("{error}: {event}"),
            }
        })
        .collect();
    let (last, others) = events.split_last().expect("an event");
    assert!(*last && !others.contains(&true), "{text}");
}

/// A backend that makes no process. Scripts end with exit code 7, programs cannot be executed.
struct NothingIsLaunched(Arc<dyn BackendHost>);

impl ProcessBackend for NothingIsLaunched {
    fn capabilities(&self) -> Capabilities {
        let memory_limits = MemoryLimits::Sampling;
        Capabilities { pause: false, usage: false, stdin: false, adopt: false, memory_limits }
    }

    fn check_limits(&self, _limits: &Limits) -> Result<(), String> {
        Ok(())
    }

    fn recover(&self, _attempts: &[KnownAttempt]) -> Result<Vec<BackendReport>, BackendError> {
        Ok(Vec::new())
    }

    fn launch(&self, attempt: &AttemptId) {
        let at = now();
        let spec = self.0.launch_spec(attempt).expect("what was accepted can be launched");
        let events = if matches!(spec.command, Command::Shell(_)) {
            let process = Process { handle: "none".to_owned(), pid: None };
            let exit = ExitStatus::Code(7);
            vec![
                BackendEvent::Started { process, log_start: LogStart::default(), at },
                BackendEvent::Exited { exit, usage: None, at, leftovers: Some(Vec::new()) },
            ]
        } else {
            let kind = StartFailureKind::Permanent(Reason::Exec);
            let failure = StartFailure { kind, detail: "nothing is executed here".to_owned() };
            vec![BackendEvent::NotStarted { failure, at }]
        };
        for event in events {
            self.0.report(BackendReport { attempt: attempt.clone(), event, receipt: None });
        }
    }

    fn end_tree(&self, attempt: &AttemptId, _process: Option<&Process>, _plan: EndPlan) {
        let event =
            BackendEvent::TreeEnded { killed: false, ended: Vec::new(), survivors: Vec::new(), usage: None };
        self.0.report(BackendReport { attempt: attempt.clone(), event, receipt: None });
    }

    fn signal(&self, _attempt: &AttemptId, _process: &Process, _signal: Signal, _scope: SignalScope) {}

    fn usage(&self, attempts: &[(AttemptId, Process)]) -> Vec<Option<TreeUsage>> {
        vec![None; attempts.len()]
    }

    fn acknowledge(&self, _receipts: &[Receipt]) {}

    fn keepers(&self) -> Vec<KeeperStatus> {
        Vec::new()
    }
}
