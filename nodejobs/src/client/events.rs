//! Reading server-sent events: lines into events, events into values.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use nodejobs_core::record::JobRecord;
use ureq::BodyReader;

use super::{Answer, ClientError};
use crate::api::{EventError, FollowEvent, WaitEvent, WaitProgress};

/// The longest line and the most data of one event: an output event holds far less.
const MAX_LINE: usize = 16 << 20;

/// What a job writes, as it writes it. Ends after [`FollowEvent::Ended`]; everything that cuts it short is an error.
#[derive(Debug)]
pub struct FollowEvents {
    events: Events,
    ended: bool,
}

impl FollowEvents {
    pub(super) fn new(answer: Answer) -> Self {
        Self { events: Events::new(answer), ended: false }
    }
}

impl Iterator for FollowEvents {
    type Item = Result<FollowEvent, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = match self.events.next(FollowEvent::from_sse) {
            Ok(FollowEvent::Error(problem)) => Err(problem.into()),
            item => item,
        };
        self.ended = !matches!(&item, Ok(event) if !event.is_last());
        Some(item)
    }
}

/// Records of jobs in the order they ended. Ends when nothing is left to wait for, or when the time is up; what cuts it
/// short is an error.
pub struct WaitEvents {
    events: Events,
    ended: bool,
    timed_out: bool,
    hears_progress: Box<dyn FnMut(&WaitProgress) + Send>,
}

impl std::fmt::Debug for WaitEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitEvents")
            .field("events", &self.events)
            .field("ended", &self.ended)
            .field("timed_out", &self.timed_out)
            .finish_non_exhaustive()
    }
}

impl WaitEvents {
    pub(super) fn new(answer: Answer) -> Self {
        let hears_progress = Box::new(|_: &WaitProgress| {});
        Self { events: Events::new(answer), ended: false, timed_out: false, hears_progress }
    }

    /// The same, which calls this with how far arrays got, if the request asked for that.
    #[must_use]
    pub fn on_progress(self, hear: impl FnMut(&WaitProgress) + Send + 'static) -> Self {
        Self { hears_progress: Box::new(hear), ..self }
    }

    /// Whether the time was up before all had ended. Known once the iterator has ended.
    pub fn timed_out(&self) -> bool {
        self.timed_out
    }
}

impl Iterator for WaitEvents {
    type Item = Result<JobRecord, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = loop {
            break match self.events.next(WaitEvent::from_sse) {
                Ok(WaitEvent::Progress(progress)) => {
                    (self.hears_progress)(&progress);
                    continue;
                }
                Ok(WaitEvent::Ended(record)) => Some(Ok(*record)),
                Ok(WaitEvent::Done) => None,
                Ok(WaitEvent::TimedOut) => {
                    self.timed_out = true;
                    None
                }
                Ok(WaitEvent::Error(problem)) => Some(Err(problem.into())),
                Err(error) => Some(Err(error)),
            };
        };
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

/// The events of an answer, read one by one.
pub(super) struct Events {
    request: String,
    body: BufReader<BodyReader<'static>>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn new(answer: Answer) -> Self {
        let body =
            BufReader::with_capacity(super::transport::BUFFER_LEN, answer.response.into_body().into_reader());
        Self { request: answer.request, body }
    }

    pub(super) fn next<T>(
        &mut self,
        understand: impl Fn(&str, &str) -> Result<T, EventError>,
    ) -> Result<T, ClientError> {
        let protocol = |message: String| ClientError::Protocol { request: self.request.clone(), message };
        match read_event(&mut self.body) {
            Ok(event) => understand(&event.name, &event.data).map_err(|error| {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                protocol(format!("{error}{}", cause.unwrap_or_default()))
            }),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(protocol(error.to_string())),
            Err(source) => Err(ClientError::Broken { request: self.request.clone(), source }),
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct RawEvent {
    name: String,
    data: String,
}

/// The next event. The end of the stream is an error, since every stream has a last event that says so.
fn read_event(reader: &mut impl BufRead) -> io::Result<RawEvent> {
    let mut event = RawEvent::default();
    let mut has_data = false;
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            // An event without data is none, says the standard.
            if has_data {
                return Ok(event);
            }
            event = RawEvent::default();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => event.name = value.to_owned(),
            "data" => {
                if event.data.len() + value.len() > MAX_LINE {
                    return Err(too_long());
                }
                if has_data {
                    event.data.push('\n');
                }
                has_data = true;
                event.data.push_str(value);
            }
            // Comments have an empty name; `id` and `retry` mean nothing here.
            _ => {}
        }
    }
}

/// One line without its end.
fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    let count = reader.by_ref().take(MAX_LINE as u64 + 2).read_until(b'\n', &mut line)?;
    if line.pop_if(|last| *last == b'\n').is_none() {
        return Err(if count > MAX_LINE { too_long() } else { io::ErrorKind::UnexpectedEof.into() });
    }
    line.pop_if(|last| *last == b'\r');
    String::from_utf8(line).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "an event is not UTF-8"))
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an event is longer than {MAX_LINE} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> RawEvent {
        RawEvent { name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        let text = ": alive\n\nevent: a\ndata: 1\n\n\nevent:b\r\ndata:  2\r\ndata\r\nid: 7\r\n\r\nevent: lost\n\ndata: 3\n\n";
        let mut reader = text.as_bytes();
        assert_eq!(read_event(&mut reader).expect("first"), event("a", "1"));
        assert_eq!(read_event(&mut reader).expect("second"), event("b", " 2\n"));
        assert_eq!(read_event(&mut reader).expect("third"), event("", "3"));
        let end = read_event(&mut reader).expect_err("nothing is left");
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_cut_line_is_no_event_and_an_endless_one_is_refused() {
        let cut = read_event(&mut "event: a\ndata: 1\n".as_bytes()).expect_err("the empty line is missing");
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);

        let mut endless = BufReader::new(io::repeat(b'x'));
        let error = read_event(&mut endless).expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);

        let many = format!("data: {}\n", "x".repeat(MAX_LINE / 2)).repeat(3);
        let error = read_event(&mut many.as_bytes()).expect_err("too much");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);

        let error = read_event(&mut &b"data: \xff\n\n"[..]).expect_err("not UTF-8");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
