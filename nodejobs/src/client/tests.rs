//! The client against a scripted server: one thread that answers what the test says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;

use nodejobs_core::record::JobRecord;
use nodejobs_core::spec::{Command, JobSpec};
use nodejobs_core::{JobId, Timestamp};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::api::{Bound, FollowEvent, OutputChunk, ProblemKind};

/// What the server does with each connection in turn: for each request the bytes of its answer, then it hangs up.
type Script = Vec<Vec<String>>;

struct Server {
    directory: TempDir,
    thread: JoinHandle<Vec<String>>,
}

impl Server {
    fn start(script: Script) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("sock")).expect("a socket");
        let thread = std::thread::spawn(move || {
            let mut requests = Vec::new();
            for answers in script {
                let (stream, _) = listener.accept().expect("a connection");
                let mut reader = BufReader::new(stream);
                for answer in answers {
                    requests.push(read_request(&mut reader));
                    reader.get_mut().write_all(answer.as_bytes()).expect("sent");
                }
            }
            requests
        });
        Self { directory, thread }
    }

    fn connect(&self) -> Client {
        Client::connect(self.directory.path()).expect("a connection")
    }

    /// First lines and bodies of the requests that came.
    fn requests(self) -> Vec<String> {
        self.thread.join().expect("the server")
    }
}

fn read_request(reader: &mut BufReader<UnixStream>) -> String {
    let (mut request, mut length, mut first) = (String::new(), 0, true);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        let line = line.trim_end();
        if first {
            request = line.trim_end_matches(" HTTP/1.1").to_owned();
            first = false;
        } else if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.parse().expect("a length");
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    if length > 0 {
        request = format!("{request} {}", String::from_utf8_lossy(&body));
    }
    request
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A stream whose chunks have borders at odd places.
fn stream(events: &str) -> String {
    let mut answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for chunk in events.as_bytes().chunks(7) {
        let chunk = std::str::from_utf8(chunk).expect("ASCII");
        answer.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }
    answer
}

fn record(id: &str) -> JobRecord {
    let record = json!({
        "self_id": id, "seq": 1, "name": null, "status": "finished", "reason": null, "detail": null,
        "command": {"argv": ["true"]}, "attempt": 1, "restarts": 0, "last_pid": 7, "exit_code": 0, "signal": null,
        "core_dumped": null, "created_at": Timestamp::from_millis(1), "started_at": null, "ended_at": null,
        "last_update": Timestamp::from_millis(2), "runtime_ms": 3, "dirname": "d", "cwd": "/d", "logdir": "/l",
        "logfile": "/l/x", "group": null, "priority": 0, "slots": 1, "labels": {}, "waiting_on": null,
        "memory_mb": null, "cpu_percent": null, "peak_memory_mb": null, "cpu_ms": null, "log_bytes": null,
    });
    serde_json::from_value(record).expect("a record")
}

fn record_json(id: &str) -> String {
    serde_json::to_string(&record(id)).expect("JSON")
}

fn spec(key: Option<&str>) -> JobSpec {
    let mut spec = JobSpec::new(Command::argv(["true"]), "/");
    spec.submit_key = key.map(str::to_owned);
    spec
}

#[test]
fn requests_share_one_connection() {
    let server = Server::start(vec![vec![
        answer("201 Created", &record_json("a")),
        answer("200 OK", &record_json("a")),
        answer("200 OK", r#"{"jobs":[],"next":null}"#),
        answer("202 Accepted", ""),
    ]]);
    let client = server.connect();
    assert_eq!(client.submit(&spec(None)).expect("a record"), record("a"));
    assert_eq!(client.job("ü/a b").expect("a record"), record("a"));
    let mut query = ListQuery::default();
    query.require("label", "a=b&c").expect("a condition");
    assert_eq!(client.list(&query).expect("a page").jobs, []);
    client.stop_daemon().expect("accepted");
    let requests = server.requests();
    assert!(requests[0].starts_with(r#"POST /v1/jobs {"id":null,"#), "{}", requests[0]);
    assert_eq!(requests[1], "GET /v1/jobs/%C3%BC%2Fa%20b");
    assert_eq!(requests[2], "GET /v1/jobs?label=a%3Db%26c&order=newest_first&limit=100");
    assert!(requests[3].starts_with("POST /v1/daemon/stop"), "{}", requests[3]);
}

#[test]
fn a_problem_arrives_typed_and_a_riddle_is_shown() {
    let body = r#"{"error":{"kind":"ambiguous","message":"'a' fits several","candidates":[{"id":"a1","name":null,"status":"running","created_at":"2026-07-14T03:33:20Z"}]}}"#;
    let server = Server::start(vec![vec![
        answer("409 Conflict", body),
        answer("404 Not Found", "no such page"),
        answer("200 OK", "{}"),
    ]]);
    let client = server.connect();
    match client.job("a") {
        Err(ClientError::Problem(problem)) => {
            assert_eq!(problem.kind, ProblemKind::Ambiguous);
            assert_eq!(problem.candidates.len(), 1);
            assert_eq!(problem.candidates[0].id, JobId::new("a1").expect("valid"));
        }
        other => panic!("{other:?}"),
    }
    let error = client.job("a").expect_err("no JSON").to_string();
    assert!(
        error.contains("GET /v1/jobs/a") && error.contains("404") && error.contains("no such page"),
        "{error}"
    );
    let error = client.job("a").expect_err("no record").to_string();
    assert!(error.contains("self_id"), "{error}");
    assert!(matches!(client.job(""), Err(ClientError::Problem(_))));
    drop(client);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn nobody_there_is_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let no_socket = Client::connect(directory.path()).expect_err("no socket");
    assert!(no_socket.is_no_daemon(), "{no_socket}");
    assert!(no_socket.to_string().contains(&*directory.path().join("sock").to_string_lossy()));

    drop(UnixListener::bind(directory.path().join("sock")).expect("a socket"));
    let nobody = Client::connect(directory.path()).expect_err("nobody listens");
    assert!(nobody.is_no_daemon(), "{nobody}");

    std::fs::remove_file(directory.path().join("sock")).expect("removed");
    std::fs::write(directory.path().join("sock"), "").expect("a file");
    let file = Client::connect(directory.path()).expect_err("a file");
    assert!(matches!(file, ClientError::Unreachable { .. }), "{file:?}");
}

#[test]
fn a_submit_is_sent_again_over_a_new_connection_with_the_same_key() {
    // The first connection takes the request and hangs up; the second answers.
    let server = Server::start(vec![vec![String::new()], vec![answer("201 Created", &record_json("a"))]]);
    let mut client = server.connect();
    let record = client.submit_or_resend(&spec(Some("k")), || Client::connect(server.directory.path()));
    assert_eq!(record.expect("a record").self_id.as_str(), "a");
    let requests = server.requests();
    assert!(requests[0].starts_with("POST /v1/jobs {"), "{}", requests[0]);
    assert!(requests[1].starts_with("POST /v1/jobs?resend=true {"), "{}", requests[1]);
    assert!(requests.iter().all(|request| request.contains(r#""submit_key":"k""#)));
}

#[test]
fn a_submit_is_sent_a_few_times_at_most_and_never_again_without_a_key() {
    let sendings = MAX_SENDINGS as usize + 1;
    let server = Server::start(vec![vec![String::new()]; sendings]);
    let reconnect = || Client::connect(server.directory.path());
    let error = server.connect().submit_or_resend(&spec(Some("k")), reconnect).expect_err("broken each time");
    assert!(error.is_broken(), "{error}");
    let error = server.connect().submit_or_resend(&spec(None), reconnect).expect_err("broken");
    assert!(error.is_broken(), "{error}");
    assert_eq!(server.requests().len(), sendings);
}

#[test]
fn an_answer_cut_off_in_the_middle_is_a_broken_connection() {
    let mut cut = answer("200 OK", &record_json("a"));
    cut.truncate(cut.len() - 5);
    let server = Server::start(vec![vec![cut], vec![answer("200 OK", &record_json("a"))]]);
    let mut client = server.connect();
    let record = client.retry(|client| client.job("a"), || Client::connect(server.directory.path()));
    assert_eq!(record.expect("a record"), super::tests::record("a"));
    assert_eq!(server.requests(), ["GET /v1/jobs/a", "GET /v1/jobs/a"]);
}

#[test]
fn logs_are_bytes_and_a_cut_one_is_an_error() {
    let server = Server::start(vec![
        vec![stream("one\ntwo\nthree\n") + "0\r\n\r\n"],
        vec!["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort".to_owned()],
    ]);
    let query = LogQuery { attempt: Some(2), tail: Some(3), offset: None };
    let mut text = String::new();
    let client = server.connect();
    client.log("a", LogStream::Stderr, &query).expect("a log").read_to_string(&mut text).expect("all of it");
    assert_eq!(text, "one\ntwo\nthree\n");
    drop(client);
    let client = server.connect();
    let mut log = client.log("a", LogStream::Stdout, &LogQuery::default()).expect("a log");
    log.read_to_end(&mut Vec::new()).expect_err("five bytes are missing");
    assert_eq!(
        server.requests(),
        ["GET /v1/jobs/a/logs/stderr?attempt=2&tail=3", "GET /v1/jobs/a/logs/stdout"]
    );
}

#[test]
fn a_follower_hears_every_event_once_and_then_nothing() {
    let events = format!(
        "event: output\ndata: {{\"stream\":\"stdout\",\"offset\":0,\"text\":\"hi\\n\"}}\n\n: alive\n\n\
         event: truncated\ndata: {{\"stream\":\"stderr\",\"offset\":0}}\n\nevent: ended\ndata: {}\n\n",
        record_json("a")
    );
    let server = Server::start(vec![vec![stream(&events) + "0\r\n\r\n"]]);
    let query = FollowQuery { stdout_from: Some(3), ..FollowQuery::default() };
    let heard: Result<Vec<_>, _> = server.connect().follow("a", &query).expect("a stream").collect();
    let output = OutputChunk { stream: LogStream::Stdout, offset: 0, bytes: b"hi\n".to_vec(), written: None };
    assert_eq!(
        heard.expect("no error"),
        [
            FollowEvent::Output(output),
            FollowEvent::Truncated { stream: LogStream::Stderr, offset: 0 },
            FollowEvent::Ended(Box::new(record("a"))),
        ]
    );
    assert_eq!(server.requests(), ["GET /v1/jobs/a/follow?stdout_from=3"]);
}

#[test]
fn a_wait_ends_with_done_and_a_cut_or_failed_one_with_an_error() {
    let ended = format!("event: ended\ndata: {}\n\n", record_json("a"));
    let failed = "event: error\ndata: {\"error\":{\"kind\":\"failed\",\"message\":\"no\"}}\n\n";
    let server = Server::start(vec![
        vec![stream(&format!("{ended}event: done\ndata: {{}}\n\n")) + "0\r\n\r\n"],
        vec![stream(&ended)],
        vec![stream(failed) + "0\r\n\r\n"],
    ]);
    let request = WaitRequest::all(["a"]);
    let wait = || server.connect().wait(&request).expect("a stream").collect::<Vec<_>>();
    let whole = wait();
    assert!(matches!(&whole[..], [Ok(record)] if record.self_id.as_str() == "a"), "{whole:?}");
    let cut = wait();
    assert!(matches!(&cut[..], [Ok(_), Err(ClientError::Broken { .. })]), "{cut:?}");
    let failed = wait();
    assert!(matches!(&failed[..], [Err(ClientError::Problem(_))]), "{failed:?}");
    assert_eq!(server.requests()[0], r#"POST /v1/wait {"jobs":["a"],"any":false,"timeout_ms":null}"#);
}

#[test]
fn a_path_longer_than_a_socket_address_works() {
    let directory = tempfile::tempdir().expect("a directory");
    let deep = directory.path().join("x".repeat(120)).join("y".repeat(120));
    std::fs::create_dir_all(&deep).expect("created");
    let handle = std::fs::File::open(&deep).expect("a directory");
    let short = Path::new("/proc/self/fd").join(handle.as_raw_fd().to_string()).join("sock");
    let listener = UnixListener::bind(short).expect("a socket");
    let client = Client::connect(&deep).expect("a connection");
    listener.accept().expect("it arrived");
    assert_eq!(client.socket(), deep.join("sock"));
}

#[test]
fn a_stream_of_status_events_ends_with_the_newest_number() {
    let status = |seq: u64| {
        format!(
            "event: status\ndata: {}\n\n",
            json!({"seq": seq, "id": "a", "attempt": 1, "status": "running", "reason": null, "at": Timestamp::from_millis(1)})
        )
    };
    let server = Server::start(vec![
        vec![stream(&format!("{}{}event: done\ndata: {{\"newest\":8}}\n\n", status(7), status(8)))],
        vec![stream(&status(9))],
    ]);
    let client = server.connect();
    let mut events = client.events(&EventsQuery { after: 6, follow: false }).expect("a stream");
    assert_eq!(events.newest(), None);
    let seqs: Vec<u64> = events.by_ref().map(|event| event.expect("an event").seq).collect();
    assert_eq!((seqs, events.newest()), (vec![7, 8], Some(8)));
    // One that is cut off is not at its end.
    let mut events = server.connect().events(&EventsQuery { after: 8, follow: true }).expect("a stream");
    assert_eq!(events.next().expect("an event").expect("no error").seq, 9);
    assert!(events.next().expect("a word").expect_err("it was cut off").is_broken());
    assert!(events.next().is_none());
    assert_eq!(
        server.requests(),
        ["GET /v1/events?after=6&follow=false", "GET /v1/events?after=8&follow=true"]
    );
}

#[test]
fn a_binding_ends_with_the_record_and_an_error_is_its_last_word() {
    let mut ended: serde_json::Value = serde_json::from_str(&record_json("a")).expect("JSON");
    ended["token"] = "1.1.3.0.9".into();
    let output = r#"event: output
data: {"token":"1.1.3.0.2","stream":"stdout","offset":0,"text":"hi\n"}

"#;
    let leaving = "event: error\ndata: {\"error\":{\"kind\":\"unavailable\",\"message\":\"leaving\"}}\n\n";
    let server = Server::start(vec![
        vec![stream(&format!("{output}event: ended\ndata: {ended}\n\n"))],
        vec![stream(&format!("{output}{leaving}"))],
    ]);
    let query = BindQuery { token: Some("1.1.0.0.2".parse().expect("a token")), ..BindQuery::default() };
    let heard: Vec<_> =
        server.connect().bind("a", &query).expect("bound").map(|event| event.expect("no error")).collect();
    assert_eq!(heard.len(), 2);
    assert_eq!((heard[0].token.to_string().as_str(), heard[0].token.stdout), ("1.1.3.0.2", 3));
    assert_eq!(heard[1].what, Bound::Ended(Box::new(record("a"))));
    let mut heard = server.connect().bind("a", &query).expect("bound").skip(1);
    let Some(Err(ClientError::Problem(problem))) = heard.next() else { panic!("no error") };
    assert_eq!(problem, Problem::new(ProblemKind::Unavailable, "leaving"));
    assert!(heard.next().is_none());
    let request = "GET /v1/jobs/a/bind?further_attempts=false&token=1.1.0.0.2";
    assert_eq!(server.requests(), [request, request]);
}
