//! The events of the two streams, as values and as the name and data of a server-sent event.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nodejobs_core::Timestamp;
use nodejobs_core::log_index::EXACT_MS;
use nodejobs_core::record::JobRecord;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{ErrorBody, Problem, WaitProgress};

/// One of the two outputs of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// What it writes to descriptor 1.
    Stdout,
    /// What it writes to descriptor 2.
    Stderr,
}

impl LogStream {
    /// The name in routes and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
        }
    }
}

impl fmt::Display for LogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for LogStream {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [LogStream::Stdout, LogStream::Stderr]
            .into_iter()
            .find(|stream| stream.as_str() == text)
            .ok_or_else(|| Problem::usage(format!("'{text}' is neither stdout nor stderr")))
    }
}

/// Bytes of a job's output and where they stand in its log file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "OutputData", into = "OutputData")]
pub struct OutputChunk {
    /// From which output.
    pub stream: LogStream,
    /// Offset of the first byte.
    pub offset: u64,
    /// The bytes; `text` in JSON, or `base64` where they are not UTF-8.
    pub bytes: Vec<u8>,
    /// When they were written, if that was asked for.
    pub written: Option<Written>,
}

/// When something was written, as far as anybody knows: the two times are as long apart as nobody looked. As long as the
/// owner lives that is about a tenth of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Not before this; `written_after` in JSON.
    pub after: Timestamp,
    /// Not after this; `written_before` in JSON.
    pub before: Timestamp,
}

impl Written {
    /// The time, if it is known to half a second.
    pub fn exactly(self) -> Option<Timestamp> {
        let span = self.before.as_millis().saturating_sub(self.after.as_millis());
        (span <= EXACT_MS).then_some(self.after)
    }
}

impl OutputChunk {
    /// The offset behind the last byte: where to go on.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// [`OutputChunk`] as JSON has it.
#[derive(Clone, Serialize, Deserialize)]
struct OutputData {
    stream: LogStream,
    offset: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written_after: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written_before: Option<Timestamp>,
}

impl From<OutputChunk> for OutputData {
    fn from(chunk: OutputChunk) -> Self {
        let (text, base64) = match String::from_utf8(chunk.bytes) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(BASE64.encode(error.as_bytes()))),
        };
        let (written_after, written_before) =
            chunk.written.map(|written| (written.after, written.before)).unzip();
        Self { stream: chunk.stream, offset: chunk.offset, text, base64, written_after, written_before }
    }
}

impl TryFrom<OutputData> for OutputChunk {
    type Error = String;

    fn try_from(data: OutputData) -> Result<Self, Self::Error> {
        let bytes = match (data.text, data.base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(base64)) => BASE64.decode(base64).map_err(|error| error.to_string())?,
            _ => return Err("output needs either text or base64".to_owned()),
        };
        let written = match (data.written_after, data.written_before) {
            (Some(after), Some(before)) => Some(Written { after, before }),
            (None, None) => None,
            _ => return Err("output has one of its two times".to_owned()),
        };
        Ok(Self { stream: data.stream, offset: data.offset, bytes, written })
    }
}

/// What a follower hears. `ended` and `error` are last.
#[derive(Clone, Debug, PartialEq)]
pub enum FollowEvent {
    /// `output`: more of it.
    Output(OutputChunk),
    /// `truncated`: the job shortened its own log file, and what it writes next stands at offset 0; or what is before the
    /// offset is not kept, because of the job's cap or the quota of all logs.
    Truncated {
        /// Of which output.
        stream: LogStream,
        /// Where the file goes on.
        offset: u64,
    },
    /// `ended`: the attempt has ended, and everything it wrote was said.
    Ended(Box<JobRecord>),
    /// `error`: the stream cannot go on.
    Error(Problem),
}

/// What a waiter hears. `done`, `timeout` and `error` are last.
#[derive(Clone, Debug, PartialEq)]
pub enum WaitEvent {
    /// `ended`: one of the jobs has ended. Each is told once, in the order they ended.
    Ended(Box<JobRecord>),
    /// `progress`: how far an array got, if that was asked for; a few times a second at most.
    Progress(WaitProgress),
    /// `done`: nothing is left to wait for.
    Done,
    /// `timeout`: the time is up, and there are jobs that have not ended.
    TimedOut,
    /// `error`: the wait cannot go on.
    Error(Problem),
}

/// An event that this version does not understand.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Its name means nothing here.
    #[error("unknown event '{0}'")]
    UnknownName(String),
    /// Its data is not what its name promises.
    #[error("the data of event '{name}' cannot be read")]
    BadData {
        /// The event's name.
        name: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) struct TruncatedData {
    pub(super) stream: LogStream,
    pub(super) offset: u64,
}

impl FollowEvent {
    /// The name and the data of the server-sent event.
    ///
    /// # Errors
    /// When a value cannot be JSON, which does not happen for values that came from JSON.
    pub fn to_sse(&self) -> Result<(&'static str, String), serde_json::Error> {
        Ok(match self {
            FollowEvent::Output(chunk) => ("output", serde_json::to_string(chunk)?),
            FollowEvent::Truncated { stream, offset } => {
                ("truncated", serde_json::to_string(&TruncatedData { stream: *stream, offset: *offset })?)
            }
            FollowEvent::Ended(record) => ("ended", serde_json::to_string(record)?),
            FollowEvent::Error(problem) => {
                ("error", serde_json::to_string(&ErrorBody { error: problem.clone() })?)
            }
        })
    }

    /// The event of that name with that data.
    ///
    /// # Errors
    /// [`EventError`] says whether the name or the data is the matter.
    pub fn from_sse(name: &str, data: &str) -> Result<Self, EventError> {
        Ok(match name {
            "output" => FollowEvent::Output(read(name, data)?),
            "truncated" => {
                let TruncatedData { stream, offset } = read(name, data)?;
                FollowEvent::Truncated { stream, offset }
            }
            "ended" => FollowEvent::Ended(read(name, data)?),
            "error" => FollowEvent::Error(read::<ErrorBody>(name, data)?.error),
            _ => return Err(EventError::UnknownName(name.to_owned())),
        })
    }

    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        matches!(self, FollowEvent::Ended(_) | FollowEvent::Error(_))
    }
}

impl WaitEvent {
    /// The name and the data of the server-sent event.
    ///
    /// # Errors
    /// When a value cannot be JSON, which does not happen for values that came from JSON.
    pub fn to_sse(&self) -> Result<(&'static str, String), serde_json::Error> {
        Ok(match self {
            WaitEvent::Ended(record) => ("ended", serde_json::to_string(record)?),
            WaitEvent::Progress(progress) => ("progress", serde_json::to_string(progress)?),
            WaitEvent::Done => ("done", "{}".to_owned()),
            WaitEvent::TimedOut => ("timeout", "{}".to_owned()),
            WaitEvent::Error(problem) => {
                ("error", serde_json::to_string(&ErrorBody { error: problem.clone() })?)
            }
        })
    }

    /// The event of that name with that data.
    ///
    /// # Errors
    /// [`EventError`] says whether the name or the data is the matter.
    pub fn from_sse(name: &str, data: &str) -> Result<Self, EventError> {
        Ok(match name {
            "ended" => WaitEvent::Ended(read(name, data)?),
            "progress" => WaitEvent::Progress(read(name, data)?),
            "done" => WaitEvent::Done,
            "timeout" => WaitEvent::TimedOut,
            "error" => WaitEvent::Error(read::<ErrorBody>(name, data)?.error),
            _ => return Err(EventError::UnknownName(name.to_owned())),
        })
    }

    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        !matches!(self, WaitEvent::Ended(_) | WaitEvent::Progress(_))
    }
}

pub(super) fn read<T: DeserializeOwned>(name: &str, data: &str) -> Result<T, EventError> {
    serde_json::from_str(data).map_err(|source| EventError::BadData { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ProblemKind;

    #[test]
    fn output_is_text_where_it_can_be() {
        let chunk = |bytes: &[u8]| OutputChunk {
            stream: LogStream::Stderr,
            offset: 5,
            bytes: bytes.to_vec(),
            written: None,
        };
        for (bytes, json) in [
            (&b"a\n"[..], r#"{"stream":"stderr","offset":5,"text":"a\n"}"#),
            (b"", r#"{"stream":"stderr","offset":5,"text":""}"#),
            (b"\xff\xfe\0", r#"{"stream":"stderr","offset":5,"base64":"//4A"}"#),
        ] {
            let event = FollowEvent::Output(chunk(bytes));
            let (name, data) = event.to_sse().expect("JSON");
            assert_eq!((name, data.as_str()), ("output", json));
            assert_eq!(FollowEvent::from_sse(name, &data).expect("the same"), event);
        }
        assert_eq!(chunk(b"abc").end(), 8);
    }

    #[test]
    fn the_other_events_survive_too() {
        let problem = Problem::new(ProblemKind::Failed, "gone");
        for event in [
            FollowEvent::Truncated { stream: LogStream::Stdout, offset: 0 },
            FollowEvent::Error(problem.clone()),
        ] {
            let (name, data) = event.to_sse().expect("JSON");
            assert_eq!(FollowEvent::from_sse(name, &data).expect("the same"), event);
        }
        for event in [WaitEvent::Done, WaitEvent::TimedOut, WaitEvent::Error(problem)] {
            let (name, data) = event.to_sse().expect("JSON");
            assert_eq!(WaitEvent::from_sse(name, &data).expect("the same"), event);
            assert!(event.is_last());
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let error = FollowEvent::from_sse("colour", "{}").expect_err("no such event");
        assert_eq!(error.to_string(), "unknown event 'colour'");
        for data in ["{", "{}", r#"{"stream":"stdout","offset":0}"#, r#"{"stream":"x","offset":0,"text":""}"#]
        {
            let error = FollowEvent::from_sse("output", data).expect_err(data);
            assert!(matches!(error, EventError::BadData { .. }), "{error}");
        }
    }
}
