//! Staying with jobs until they end, also when the daemon in between is killed and started again.

use std::time::{Duration, Instant};

use nodejobs::api::{
    BindEvent, BindQuery, Bound, EventsQuery, FollowEvent, FollowQuery, JobEvent, ProblemKind, WaitRequest,
};
use nodejobs::client::{Client, ClientError};
use nodejobs::record::JobRecord;

use crate::bars::Bars;
use crate::connect::Connection;
use crate::exit::{FAILED, Failure};

/// How long to wait, and for how many.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Until {
    /// The first that ends is enough.
    pub(crate) any: bool,
    /// Not longer than this.
    pub(crate) timeout: Option<Duration>,
}

/// Waits until each of these jobs has ended, and calls `ended` for each as it does. `None` if the time was up before.
pub(crate) fn wait(
    connection: &mut Connection<'_>,
    references: &[String],
    until: Until,
    mut ended: impl FnMut(&JobRecord) -> Result<(), Failure>,
) -> Result<Option<Vec<JobRecord>>, Failure> {
    let deadline = until.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let bars = Bars::on_terminal();
    let (any, progress) = (until.any, bars.is_some());
    let mut request = WaitRequest { any, progress, ..WaitRequest::all(references) };
    let (mut records, mut patience) = (Vec::new(), Patience::new());
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        request.timeout_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let cut = match connection.client.wait(&request) {
            Ok(events) => {
                let shown = bars.clone();
                let mut events = events.on_progress(move |progress| {
                    shown.iter().for_each(|bars| bars.show(progress));
                });
                let mut cut = None;
                for event in events.by_ref() {
                    match event {
                        Ok(record) => {
                            request.go_on_behind(&record);
                            bars.iter().for_each(|bars| bars.end(&record.self_id));
                            ended(&record)?;
                            records.push(record);
                        }
                        Err(error) => cut = Some(error),
                    }
                }
                if events.timed_out() {
                    return Ok(None);
                }
                cut
            }
            Err(error) => Some(error),
        };
        match cut {
            None => return Ok(Some(records)),
            Some(_) if request.jobs.is_empty() || (until.any && !records.is_empty()) => {
                return Ok(Some(records));
            }
            Some(error) => patience.reconnect(connection, error)?,
        }
    }
}

/// Calls `heard` with what a job writes, each byte once, until the attempt has ended.
pub(crate) fn follow(
    connection: &mut Connection<'_>,
    id: &str,
    mut query: FollowQuery,
    mut heard: impl FnMut(&FollowEvent) -> Result<(), Failure>,
) -> Result<JobRecord, Failure> {
    let mut patience = Patience::new();
    loop {
        let cut = match connection.client.follow(id, &query) {
            Ok(events) => {
                let mut cut = None;
                for event in events {
                    let event = match event {
                        Ok(event) => event,
                        Err(error) => {
                            cut = Some(error);
                            break;
                        }
                    };
                    patience.went_on();
                    heard(&event)?;
                    query.go_on_behind(&event);
                    match event {
                        FollowEvent::Output(_) | FollowEvent::Truncated { .. } => {}
                        FollowEvent::Ended(record) => return Ok(*record),
                        // The iterator makes an error of it.
                        FollowEvent::Error(problem) => return Err(problem.into()),
                    }
                }
                cut
            }
            Err(error) => Some(error),
        };
        match cut {
            Some(error) => patience.reconnect(connection, error)?,
            None => return Err(Failure::new(FAILED, "the stream ended without the end of the job")),
        }
    }
}

/// [`follow`], and then every attempt that the job's policy or its retries begin after this one. `ended` hears of each that
/// is followed by another.
pub(crate) fn follow_through(
    connection: &mut Connection<'_>,
    id: &str,
    mut query: FollowQuery,
    mut heard: impl FnMut(&FollowEvent) -> Result<(), Failure>,
    mut ended: impl FnMut(&JobRecord),
) -> Result<JobRecord, Failure> {
    loop {
        let record = follow(connection, id, query, &mut heard)?;
        // The commit that ends an attempt has the next one, if there is one. A job that is forgotten has none.
        let is_last = connection.ask(|client| match client.job(id) {
            Ok(newest) => Ok(newest.attempt <= record.attempt),
            Err(ClientError::Problem(problem)) if problem.kind == ProblemKind::NotFound => Ok(true),
            Err(error) => Err(error),
        })?;
        if is_last {
            return Ok(record);
        }
        ended(&record);
        query = FollowQuery { attempt: Some(record.attempt + 1), ..FollowQuery::default() };
    }
}

/// Calls `heard` with everything that happens to a job, each once, the last event included.
pub(crate) fn bind(
    connection: &mut Connection<'_>,
    id: &str,
    mut query: BindQuery,
    mut heard: impl FnMut(&BindEvent) -> Result<(), Failure>,
) -> Result<JobRecord, Failure> {
    let mut patience = Patience::new();
    loop {
        let cut = match connection.client.bind(id, &query) {
            Ok(events) => {
                let mut cut = None;
                for event in events {
                    match event {
                        Ok(event) => {
                            patience.went_on();
                            heard(&event)?;
                            query.go_on_behind(&event);
                            if let Bound::Ended(record) | Bound::Now(record) = event.what {
                                return Ok(*record);
                            }
                        }
                        Err(error) => cut = Some(error),
                    }
                }
                cut
            }
            Err(error) => Some(error),
        };
        match cut {
            Some(error) => patience.reconnect(connection, error)?,
            None => return Err(Failure::new(FAILED, "the stream ended without the end of the job")),
        }
    }
}

/// Calls `heard` with each status event that the query asks for, once and in order, until there are no more; if it follows,
/// until something fails.
pub(crate) fn events(
    connection: &mut Connection<'_>,
    mut query: EventsQuery,
    mut heard: impl FnMut(JobEvent) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut patience = Patience::new();
    loop {
        let cut = match connection.client.events(&query) {
            Ok(mut events) => events.find_map(|event| match event {
                Ok(event) => {
                    patience.went_on();
                    query.after = event.seq;
                    heard(event).err().map(Err)
                }
                Err(error) => Some(Ok(error)),
            }),
            Err(error) => Some(Ok(error)),
        };
        match cut {
            None => return Ok(()),
            Some(cut) => patience.reconnect(connection, cut?)?,
        }
    }
}

/// How often a connection may break: as often as it likes, but not at once and again and again without a word. And how
/// long an owner that was told to leave may have no successor.
struct Patience {
    connected: Instant,
    breaks: u32,
    left: Option<Instant>,
}

impl Patience {
    const MOST_BREAKS: u32 = 3;
    const LASTING: Duration = Duration::from_secs(1);

    fn new() -> Self {
        Self { connected: Instant::now(), breaks: 0, left: None }
    }

    /// Something was heard, so it is not the same break again and again.
    fn went_on(&mut self) {
        (self.breaks, self.left) = (0, None);
    }

    fn reconnect(&mut self, connection: &mut Connection<'_>, error: ClientError) -> Result<(), Failure> {
        if error.is_unavailable() {
            // Somebody has told it to leave. With `daemon restart` they also start the next one.
            let left = self.left.get_or_insert_with(Instant::now).elapsed();
            let patience = Client::NEXT_OWNER.checked_sub(left);
            return match patience.map(|patience| connection.next_owner(patience)).transpose()? {
                Some(true) => Ok(()),
                _ => Err(error.into()),
            };
        }
        if self.connected.elapsed() >= Self::LASTING {
            self.breaks = 0;
        }
        self.breaks += 1;
        if !error.is_broken() || self.breaks > Self::MOST_BREAKS {
            return Err(error.into());
        }
        connection.renew()?;
        self.connected = Instant::now();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    use super::*;
    use crate::connect::Target;
    use crate::output::tests::record;

    /// A daemon that answers one request a connection with these events, and hangs up without an end.
    struct Daemon {
        directory: tempfile::TempDir,
        thread: JoinHandle<Vec<String>>,
    }

    impl Daemon {
        fn start(answers: Vec<String>) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let listener = UnixListener::bind(directory.path().join("sock")).expect("a socket");
            let answer = move |events: String| {
                let (stream, _) = listener.accept().expect("a connection");
                let mut reader = BufReader::new(stream);
                let (mut request, mut length) = (String::new(), 0);
                reader.read_line(&mut request).expect("a request");
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).expect("a header");
                    match line.trim_end().to_ascii_lowercase().strip_prefix("content-length: ") {
                        Some(value) => length = value.parse().expect("a length"),
                        None if line.trim_end().is_empty() => break,
                        None => {}
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).expect("a body");
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                // In one piece: whoever has read `done` closes the connection.
                let answer = format!("{head}{:x}\r\n{events}\r\n", events.len());
                reader.get_mut().write_all(answer.as_bytes()).expect("sent");
                format!(
                    "{} {}",
                    request.trim_end().trim_end_matches(" HTTP/1.1"),
                    String::from_utf8_lossy(&body)
                )
            };
            let thread = std::thread::spawn(move || answers.into_iter().map(answer).collect());
            Self { directory, thread }
        }

        fn target(&self) -> Target {
            Target {
                data_dir: self.directory.path().to_owned(),
                store: None,
                daemon: crate::program::WHOLE.daemon,
            }
        }
    }

    fn ended(id: &str) -> String {
        format!("event: ended\ndata: {}\n\n", serde_json::to_string(&record(id)).expect("JSON"))
    }

    fn output(stream: &str, offset: u64, text: &str) -> String {
        let data = serde_json::json!({"stream": stream, "offset": offset, "text": text});
        format!("event: output\ndata: {data}\n\n")
    }

    #[test]
    fn a_follower_goes_on_where_it_was_cut_off() {
        let daemon = Daemon::start(vec![
            output("stdout", 0, "one\n") + &output("stdout", 4, "two\n") + "event: output\nda",
            output("stderr", 0, "e\n") + "event: truncated\ndata: {\"stream\":\"stdout\",\"offset\":2}\n\n",
            output("stdout", 2, "three\n") + &ended("a"),
        ]);
        let target = daemon.target();
        let mut connection = target.connect().expect("a connection");
        let mut bytes = Vec::new();
        let query = FollowQuery { attempt: Some(1), tail: Some(5), ..FollowQuery::default() };
        let ended = follow(&mut connection, "a", query, |event| {
            if let FollowEvent::Output(chunk) = event {
                bytes.extend_from_slice(&chunk.bytes);
            }
            Ok(())
        });
        assert_eq!(ended.expect("the end"), record("a"));
        assert_eq!(String::from_utf8_lossy(&bytes), "one\ntwo\ne\nthree\n");
        assert_eq!(
            daemon.thread.join().expect("the daemon"),
            [
                "GET /v1/jobs/a/follow?attempt=1&tail=5 ",
                "GET /v1/jobs/a/follow?attempt=1&tail=5&stdout_from=8 ",
                "GET /v1/jobs/a/follow?attempt=1&tail=5&stdout_from=2&stderr_from=2 ",
            ]
        );
    }

    #[test]
    fn whoever_is_bound_goes_on_behind_the_last_token() {
        let token =
            |data: String, token: &str| data.replace("data: {", &format!("data: {{\"token\":\"{token}\","));
        let daemon = Daemon::start(vec![
            token(output("stdout", 0, "one\n"), "1.1.4.0.3") + "event: output\nda",
            token(ended("a"), "1.1.4.0.5"),
        ]);
        let target = daemon.target();
        let mut connection = target.connect().expect("a connection");
        let mut tokens = Vec::new();
        let query = BindQuery { attempt: Some(1), tail: Some(5), ..BindQuery::default() };
        let ended = bind(&mut connection, "a", query, |event| {
            tokens.push(event.token.to_string());
            Ok(())
        });
        assert_eq!(
            (ended.expect("the end"), tokens),
            (record("a"), vec!["1.1.4.0.3".to_owned(), "1.1.4.0.5".to_owned()])
        );
        assert_eq!(
            daemon.thread.join().expect("the daemon"),
            [
                "GET /v1/jobs/a/bind?further_attempts=false&attempt=1&tail=5 ",
                "GET /v1/jobs/a/bind?further_attempts=false&token=1.1.4.0.3 ",
            ]
        );
    }

    #[test]
    fn a_waiter_asks_again_for_those_that_have_not_ended() {
        let daemon = Daemon::start(vec![ended("b"), ended("a") + "event: done\ndata: {}\n\n"]);
        let target = daemon.target();
        let mut connection = target.connect().expect("a connection");
        let jobs = ["a", "b"].map(str::to_owned);
        let records =
            wait(&mut connection, &jobs, Until::default(), |_| Ok(())).expect("both").expect("no timeout");
        assert_eq!(records, [record("b"), record("a")]);
        assert_eq!(
            daemon.thread.join().expect("the daemon"),
            [
                r#"POST /v1/wait {"jobs":["a","b"],"any":false,"timeout_ms":null}"#,
                r#"POST /v1/wait {"jobs":["a"],"any":false,"timeout_ms":null}"#
            ]
        );
    }

    #[test]
    fn a_daemon_that_breaks_at_once_again_and_again_is_given_up() {
        let daemon = Daemon::start(vec![String::new(); 4]);
        let target = daemon.target();
        let mut connection = target.connect().expect("a connection");
        let failure =
            wait(&mut connection, &["a".to_owned()], Until::default(), |_| Ok(())).expect_err("no answer");
        assert!(failure.to_string().contains("broke during POST /v1/wait"), "{failure}");
        assert_eq!(daemon.thread.join().expect("the daemon").len(), 4);
    }

    #[test]
    fn an_answer_that_is_an_error_is_not_asked_again() {
        let gone = "event: error\ndata: {\"error\":{\"kind\":\"not_found\",\"message\":\"removed\"}}\n\n";
        let daemon = Daemon::start(vec![gone.to_owned()]);
        let target = daemon.target();
        let mut connection = target.connect().expect("a connection");
        let failure =
            wait(&mut connection, &["a".to_owned()], Until::default(), |_| Ok(())).expect_err("removed");
        assert_eq!(failure.to_string(), "error: removed");
        daemon.thread.join().expect("the daemon");
    }

    #[test]
    fn whoever_is_told_that_the_owner_leaves_goes_on_with_the_next() {
        let gone = "event: error\ndata: {\"error\":{\"kind\":\"unavailable\",\"message\":\"leaving\"}}\n\n";
        let daemon = Daemon::start(vec![gone.to_owned(), ended("a") + "event: done\ndata: {}\n\n"]);
        let target = daemon.target();
        let mut connection = target.connect().expect("a connection");
        let records = wait(&mut connection, &["a".to_owned()], Until::default(), |_| Ok(()));
        assert_eq!(records.expect("it ended"), Some(vec![record("a")]));
        daemon.thread.join().expect("the daemon");
    }
}
