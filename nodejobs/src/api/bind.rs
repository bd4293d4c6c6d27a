//! The stream of everything that happens to one job, and the token with which it goes on after it was cut off.

use std::fmt;
use std::str::FromStr;

use nodejobs_core::Timestamp;
use nodejobs_core::record::JobRecord;
use nodejobs_core::store::JobEvent;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Problem;
use super::event::{EventError, LogStream, OutputChunk, TruncatedData, read};

/// How far a binding got: everything up to here was told.
///
/// As text, and in JSON, it is five numbers with dots between them, `JOB.ATTEMPT.STDOUT.STDERR.EVENT`: the fields in
/// their order. Programs keep it and give it back; they need not look inside. It stays good for as long as the job is
/// there, whoever owns the directory by then.
///
/// ```
/// use nodejobs::api::BindToken;
///
/// let token: BindToken = "3.1.120.0.57".parse()?;
/// assert_eq!((token.job, token.attempt, token.stdout, token.stderr, token.event), (3, 1, 120, 0, 57));
/// assert_eq!(token.to_string(), "3.1.120.0.57");
/// assert!("yesterday".parse::<BindToken>().is_err());
/// # Ok::<(), nodejobs::api::Problem>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BindToken {
    /// Which job, by [`JobRecord::seq`], which is never used for another one.
    pub job: u64,
    /// Which attempt of it.
    pub attempt: u32,
    /// Offset in its standard output, in bytes.
    pub stdout: u64,
    /// Offset in its standard error, in bytes.
    pub stderr: u64,
    /// The [`JobEvent::seq`] of the last status that was told; 0 before the first.
    pub event: u64,
}

impl fmt::Display for BindToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, attempt, stdout, stderr, event } = self;
        write!(f, "{job}.{attempt}.{stdout}.{stderr}.{event}")
    }
}

impl FromStr for BindToken {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let parse = || {
            let mut parts = text.split('.');
            let mut number = || parts.next()?.parse::<u64>().ok();
            let (job, attempt) = (number()?, u32::try_from(number()?).ok()?);
            let token = Self { job, attempt, stdout: number()?, stderr: number()?, event: number()? };
            // There is one way to write it, so `+1` and whatever follows are not overlooked.
            (token.to_string() == text).then_some(token)
        };
        parse().ok_or_else(|| {
            Problem::usage(format!("'{text}' is no token; give back one that an event of the job carried"))
        })
    }
}

impl TryFrom<String> for BindToken {
    type Error = Problem;

    fn try_from(text: String) -> Result<Self, Problem> {
        text.parse()
    }
}

impl From<BindToken> for String {
    fn from(token: BindToken) -> String {
        token.to_string()
    }
}

/// What a binding is to tell.
///
/// ```
/// use nodejobs::api::BindQuery;
///
/// let query = BindQuery { heartbeat_ms: Some(15_000), ..BindQuery::default() };
/// assert_eq!(query.to_pairs().len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindQuery {
    /// Go on behind the event that carried this token; it also says which attempt.
    pub token: Option<BindToken>,
    /// Which attempt; without a token the newest if absent.
    pub attempt: Option<u32>,
    /// Whether the attempts after this one are told too, each from its beginning, until the newest has ended. If not,
    /// the stream ends with this attempt, whatever began meanwhile.
    #[serde(default)]
    pub further_attempts: bool,
    /// Tell a [`Bound::Heartbeat`] whenever there was nothing to tell for so long, in milliseconds, at least
    /// [`MIN_HEARTBEAT_MS`](Self::MIN_HEARTBEAT_MS); never if absent.
    pub heartbeat_ms: Option<u64>,
    /// Begin with so many last lines of each stream; with all of them if absent. Not together with a token.
    pub tail: Option<u64>,
    /// Tell only what is there now, and end with [`Bound::Now`] if the attempt has not ended.
    #[serde(default)]
    pub only_now: bool,
    /// Begin with what was written at this time, in the attempt that is told first. Where it is not known what was
    /// written before it, that is told too, and [`OutputChunk::written`] says between which times it was. With a token,
    /// or with `tail`, the later of the two beginnings counts.
    pub since: Option<Timestamp>,
    /// End with what was written at this time. Only together with [`only_now`](Self::only_now).
    pub until: Option<Timestamp>,
    /// Tell of all output [when it was written](OutputChunk::written), and the two streams in the order of that.
    #[serde(default)]
    pub times: bool,
}

impl BindQuery {
    /// The shortest time between heartbeats, in milliseconds.
    pub const MIN_HEARTBEAT_MS: u64 = 100;

    /// Asks for what comes behind this event, over the next connection.
    pub fn go_on_behind(&mut self, event: &BindEvent) {
        // The token says which attempt, and where in it.
        (self.token, self.attempt, self.tail, self.since) = (Some(event.token), None, None, None);
    }

    /// The query as keys and values.
    pub fn to_pairs(&self) -> Vec<(String, String)> {
        let Self { token, attempt, further_attempts, heartbeat_ms, tail, only_now, since, until, times } =
            self;
        let mut pairs = vec![("further_attempts".to_owned(), further_attempts.to_string())];
        pairs.extend(token.map(|token| ("token".to_owned(), token.to_string())));
        pairs.extend(attempt.map(|attempt| ("attempt".to_owned(), attempt.to_string())));
        pairs.extend(heartbeat_ms.map(|millis| ("heartbeat_ms".to_owned(), millis.to_string())));
        pairs.extend(tail.map(|lines| ("tail".to_owned(), lines.to_string())));
        pairs.extend(only_now.then(|| ("only_now".to_owned(), "true".to_owned())));
        pairs.extend(since.map(|time| ("since".to_owned(), time.to_string())));
        pairs.extend(until.map(|time| ("until".to_owned(), time.to_string())));
        pairs.extend(times.then(|| ("times".to_owned(), "true".to_owned())));
        pairs
    }
}

/// Something that happened to a job, with the token that goes on behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct BindEvent {
    /// Give it to [`BindQuery::token`] to hear what comes after this event, and nothing twice.
    pub token: BindToken,
    /// What happened.
    pub what: Bound,
}

/// What happens to a job. `Ended` or `Now` is last.
///
/// The attempt that it is about is [`BindToken::attempt`].
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// `status`: the attempt has another status than before. Output comes after the status under which it could be
    /// written, and the last status of an attempt after all of its output.
    Status(JobEvent),
    /// `output`: more of it. Within one stream nothing is missing; between the two the order is not known.
    Output(OutputChunk),
    /// `truncated`: the job shortened its own log file, and what it writes next stands at offset 0; or what is before the
    /// offset is not kept, because of the job's cap or the quota of all logs.
    Truncated {
        /// Of which output.
        stream: LogStream,
        /// Where the file goes on, in bytes.
        offset: u64,
    },
    /// `heartbeat`: nothing happened, and whoever tells is there.
    Heartbeat,
    /// `ended`: the attempt has ended and everything about it was told. With the record as it is then.
    Ended(Box<JobRecord>),
    /// `now`: everything up to now was told, and the attempt goes on. Only if the query wants
    /// [`only_now`](BindQuery::only_now).
    Now(Box<JobRecord>),
}

/// The data of an event: the token and what else the event has, side by side.
#[derive(Serialize, Deserialize)]
struct Data<T> {
    token: BindToken,
    #[serde(flatten)]
    rest: T,
}

#[derive(Serialize, Deserialize)]
struct Nothing {}

impl BindEvent {
    /// The name and the data of the server-sent event.
    ///
    /// # Errors
    /// When a value cannot be JSON, which does not happen for values that came from JSON.
    pub fn to_sse(&self) -> Result<(&'static str, String), serde_json::Error> {
        fn data<T: Serialize>(token: BindToken, rest: T) -> Result<String, serde_json::Error> {
            serde_json::to_string(&Data { token, rest })
        }
        let token = self.token;
        Ok(match &self.what {
            Bound::Status(event) => ("status", data(token, event)?),
            Bound::Output(chunk) => ("output", data(token, chunk)?),
            Bound::Truncated { stream, offset } => {
                ("truncated", data(token, TruncatedData { stream: *stream, offset: *offset })?)
            }
            Bound::Heartbeat => ("heartbeat", data(token, Nothing {})?),
            Bound::Ended(record) => ("ended", data(token, record)?),
            Bound::Now(record) => ("now", data(token, record)?),
        })
    }

    /// The event of that name with that data.
    ///
    /// # Errors
    /// [`EventError`] says whether the name or the data is the matter.
    pub fn from_sse(name: &str, text: &str) -> Result<Self, EventError> {
        fn data<T: DeserializeOwned>(
            name: &str,
            text: &str,
            what: impl FnOnce(T) -> Bound,
        ) -> Result<BindEvent, EventError> {
            let Data { token, rest } = read::<Data<T>>(name, text)?;
            Ok(BindEvent { token, what: what(rest) })
        }
        match name {
            "status" => data(name, text, Bound::Status),
            "output" => data(name, text, Bound::Output),
            "truncated" => {
                data(name, text, |TruncatedData { stream, offset }| Bound::Truncated { stream, offset })
            }
            "heartbeat" => data(name, text, |Nothing {}| Bound::Heartbeat),
            "ended" => data(name, text, Bound::Ended),
            "now" => data(name, text, Bound::Now),
            _ => Err(EventError::UnknownName(name.to_owned())),
        }
    }

    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        matches!(self.what, Bound::Ended(_) | Bound::Now(_))
    }
}

#[cfg(test)]
mod tests {
    use nodejobs_core::id::AttemptId;
    use nodejobs_core::{JobId, Status};

    use super::*;

    #[test]
    fn a_token_is_written_in_one_way() {
        for text in ["1.2.3.4.5", "18446744073709551615.4294967295.0.0.0"] {
            assert_eq!(text.parse::<BindToken>().expect(text).to_string(), text);
        }
        for text in
            ["", "1.2.3.4", "1.2.3.4.5.6", "1.2.3.4.+5", "01.2.3.4.5", "1.4294967296.3.4.5", "1.2.3.4.x"]
        {
            let problem = text.parse::<BindToken>().expect_err(text);
            assert!(problem.message.contains(&format!("'{text}'")), "{problem}");
        }
    }

    #[test]
    fn events_survive_the_way_and_the_json_is_the_documented_one() {
        let token = BindToken { job: 1, attempt: 2, stdout: 3, stderr: 4, event: 5 };
        let status = JobEvent {
            seq: 5,
            attempt: AttemptId { id: JobId::new("a").expect("valid"), attempt: 2 },
            status: Status::Running,
            reason: None,
            at: Timestamp::from_millis(0),
        };
        let chunk = |bytes: &[u8]| OutputChunk {
            stream: LogStream::Stdout,
            offset: 1,
            bytes: bytes.to_vec(),
            written: None,
        };
        for (what, name, json) in [
            (
                Bound::Status(status),
                "status",
                r#"{"token":"1.2.3.4.5","seq":5,"id":"a","attempt":2,"status":"running","reason":null,"at":"1970-01-01T00:00:00.000Z"}"#,
            ),
            (
                Bound::Output(chunk(b"a\n")),
                "output",
                r#"{"token":"1.2.3.4.5","stream":"stdout","offset":1,"text":"a\n"}"#,
            ),
            (
                Bound::Output(chunk(b"\xff\xfe\0")),
                "output",
                r#"{"token":"1.2.3.4.5","stream":"stdout","offset":1,"base64":"//4A"}"#,
            ),
            (
                Bound::Truncated { stream: LogStream::Stderr, offset: 0 },
                "truncated",
                r#"{"token":"1.2.3.4.5","stream":"stderr","offset":0}"#,
            ),
            (Bound::Heartbeat, "heartbeat", r#"{"token":"1.2.3.4.5"}"#),
        ] {
            let event = BindEvent { token, what };
            let (said, data) = event.to_sse().expect("JSON");
            assert_eq!((said, data.as_str()), (name, json));
            assert_eq!(BindEvent::from_sse(name, &data).expect("the same"), event);
            assert!(!event.is_last());
        }
        let query = BindQuery { tail: Some(2), only_now: true, ..BindQuery::default() };
        let pairs = query.to_pairs().into_iter().map(|(key, value)| format!("{key}={value}"));
        assert_eq!(pairs.collect::<Vec<_>>(), ["further_attempts=false", "tail=2", "only_now=true"]);
        let error = BindEvent::from_sse("output", r#"{"token":"1.2"}"#).expect_err("no token");
        assert!(matches!(error, EventError::BadData { .. }), "{error}");
    }
}
