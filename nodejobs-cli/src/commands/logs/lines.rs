//! `nodejobs logs` with tokens: output as JSON lines, each of which says where to go on, and what comes after a token.

use nodejobs::api::{BindEvent, BindToken, Bound, LogStream, OutputChunk};
use nodejobs::record::JobRecord;
use serde::Serialize;

use super::printer::{LinePrinter, Printer, Wanted, index};
use super::split::{Line, Splitter};
use crate::exit::Failure;
use crate::output;

/// What a line says. The end is the last one.
#[derive(Serialize)]
#[serde(untagged)]
enum What<'a> {
    Output(&'a OutputChunk),
    Truncated { stream: LogStream, offset: u64, truncated: bool },
    End { ended: bool, record: &'a JobRecord },
}

#[derive(Serialize)]
struct JsonLine<'a> {
    job: &'a str,
    #[serde(flatten)]
    what: What<'a>,
    token: BindToken,
}

/// Reads what a line had as its token.
pub(super) fn token(text: &str) -> Result<BindToken, String> {
    text.parse().map_err(|_| "not a token; give the one of a line of `nodejobs logs -o jsonl`".to_owned())
}

/// Prints events of a job as JSON: piece by piece, or only lines that are looked for.
#[derive(Debug)]
pub(super) struct JsonPrinter {
    job: String,
    to: Printer,
    wanted: Wanted,
    open: [Splitter; 2],
}

impl JsonPrinter {
    pub(super) fn new(job: &str, to: Printer, wanted: Wanted) -> Self {
        Self { job: job.to_owned(), to, wanted, open: Default::default() }
    }

    /// Prints an event, if it is about output.
    pub(super) fn print(&mut self, event: &BindEvent) -> Result<(), Failure> {
        self.lines(event).iter().try_for_each(output::print_json)
    }

    fn lines(&mut self, event: &BindEvent) -> Vec<serde_json::Value> {
        let (job, to, wanted) = (self.job.as_str(), self.to, &self.wanted);
        let mut values = Vec::new();
        let mut add = |event: &BindEvent| {
            values.extend(line(job, event, to).and_then(|line| serde_json::to_value(line).ok()));
        };
        let mut found = Vec::new();
        match &event.what {
            Bound::Output(chunk) if wanted.grep.is_some() => {
                let take =
                    |line: Line<'_>| found.extend(wanted.shows(&line).then(|| piece(chunk.stream, line)));
                self.open[index(chunk.stream)].push(chunk, take);
            }
            Bound::Truncated { stream, .. } if wanted.grep.is_some() => {
                let take = |line: Line<'_>| found.extend(wanted.shows(&line).then(|| piece(*stream, line)));
                self.open[index(*stream)].finish(take);
            }
            Bound::Ended(_) | Bound::Now(_) => {
                for stream in [LogStream::Stdout, LogStream::Stderr] {
                    let take =
                        |line: Line<'_>| found.extend(wanted.shows(&line).then(|| piece(stream, line)));
                    self.open[index(stream)].finish(take);
                }
            }
            _ => {}
        }
        for chunk in found {
            // Whoever goes on behind a line gets what comes after it, and of the other stream no line in part.
            let mut token = event.token;
            for (stream, open) in [LogStream::Stdout, LogStream::Stderr].into_iter().zip(&self.open) {
                let offset = match stream {
                    LogStream::Stdout => &mut token.stdout,
                    LogStream::Stderr => &mut token.stderr,
                };
                let told = open.open_since().unwrap_or(*offset);
                *offset = if stream == chunk.stream { chunk.end() } else { told };
            }
            add(&BindEvent { token, what: Bound::Output(chunk) });
        }
        if !(wanted.grep.is_some() && matches!(event.what, Bound::Output(_))) {
            add(event);
        }
        values
    }
}

fn piece(stream: LogStream, line: Line<'_>) -> OutputChunk {
    let mut bytes = line.text.to_vec();
    bytes.extend(line.ends.then_some(b'\n'));
    OutputChunk { stream, offset: line.offset, bytes, written: line.written }
}

fn line<'a>(job: &'a str, event: &'a BindEvent, printer: Printer) -> Option<JsonLine<'a>> {
    let what = match &event.what {
        Bound::Output(chunk) if printer.shows(chunk.stream) => What::Output(chunk),
        Bound::Truncated { stream, offset } if printer.shows(*stream) => {
            What::Truncated { stream: *stream, offset: *offset, truncated: true }
        }
        Bound::Ended(record) => What::End { ended: true, record },
        Bound::Now(record) => What::End { ended: false, record },
        Bound::Output(_) | Bound::Truncated { .. } | Bound::Status(_) | Bound::Heartbeat => return None,
    };
    // Nothing is told of statuses here, so whoever goes on elsewhere has heard none.
    Some(JsonLine { job, what, token: BindToken { event: 0, ..event.token } })
}

/// Prints what an event says of output, as it is.
pub(super) fn print_bytes(event: &BindEvent, printer: Printer) -> Result<(), Failure> {
    match &event.what {
        Bound::Output(chunk) => printer.output(chunk),
        Bound::Truncated { stream, offset } => {
            printer.truncated(*stream, *offset, "");
            Ok(())
        }
        Bound::Status(_) | Bound::Heartbeat | Bound::Ended(_) | Bound::Now(_) => Ok(()),
    }
}

/// Prints what an event says of output, line by line.
pub(super) fn print_lines(event: &BindEvent, printer: &mut LinePrinter) -> Result<(), Failure> {
    match &event.what {
        Bound::Output(chunk) => printer.output(chunk),
        Bound::Truncated { stream, offset } => printer.truncated(*stream, *offset),
        Bound::Ended(_) | Bound::Now(_) => printer.finish(),
        Bound::Status(_) | Bound::Heartbeat => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::matcher::Matcher;
    use super::*;
    use crate::output::tests::record;

    fn told(what: Bound, only_stderr: bool) -> Option<serde_json::Value> {
        let event = BindEvent { token: "1.2.3.4.5".parse().expect("a token"), what };
        line("a", &event, Printer { only_stderr }).map(|line| serde_json::to_value(line).expect("JSON"))
    }

    #[test]
    fn lines_that_are_looked_for_have_tokens_that_go_on_behind_them() {
        let wanted = Wanted { grep: Some(Matcher::new("b").expect("valid")), timestamps: false };
        let mut printer = JsonPrinter::new("a", Printer { only_stderr: false }, wanted);
        let mut told = |stream, offset: u64, bytes: &[u8], token: &str| -> Vec<(String, String)> {
            let chunk = OutputChunk { stream, offset, bytes: bytes.to_vec(), written: None };
            let token = token.parse().expect("a token");
            let lines = printer.lines(&BindEvent { token, what: Bound::Output(chunk) });
            let text =
                |line: &serde_json::Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
            lines.iter().map(|line| (text(line, "text"), text(line, "token"))).collect()
        };
        let pair = |text: &str, token: &str| (text.to_owned(), token.to_owned());
        assert_eq!(told(LogStream::Stderr, 0, b"open", "1.1.0.4.0"), []);
        let found = told(LogStream::Stdout, 0, b"a\nb1\nb2\nb", "1.1.9.4.0");
        assert_eq!(found, [pair("b1\n", "1.1.5.0.0"), pair("b2\n", "1.1.8.0.0")]);
        assert_eq!(told(LogStream::Stderr, 4, b"b\n", "1.1.9.6.0"), [pair("openb\n", "1.1.8.6.0")]);
        let end = BindEvent {
            token: "1.1.9.6.0".parse().expect("a token"),
            what: Bound::Ended(Box::new(record("a"))),
        };
        let lines = printer.lines(&end);
        assert_eq!((lines.len(), &lines[0]["text"], &lines[1]["ended"]), (2, &json!("b"), &json!(true)));
    }

    #[test]
    fn each_line_says_what_there_was_and_where_to_go_on() {
        let chunk = |bytes: &[u8]| OutputChunk {
            stream: LogStream::Stdout,
            offset: 1,
            bytes: bytes.to_vec(),
            written: None,
        };
        let output =
            json!({"job": "a", "stream": "stdout", "offset": 1, "text": "a\n", "token": "1.2.3.4.0"});
        assert_eq!(told(Bound::Output(chunk(b"a\n")), false), Some(output));
        let binary =
            json!({"job": "a", "stream": "stdout", "offset": 1, "base64": "//4A", "token": "1.2.3.4.0"});
        assert_eq!(told(Bound::Output(chunk(b"\xff\xfe\0")), false), Some(binary));
        assert_eq!(told(Bound::Output(chunk(b"a\n")), true), None);
        let truncated =
            json!({"job": "a", "stream": "stderr", "offset": 0, "truncated": true, "token": "1.2.3.4.0"});
        let shortened = || Bound::Truncated { stream: LogStream::Stderr, offset: 0 };
        assert_eq!(told(shortened(), true), Some(truncated));
        for (what, ended) in
            [(Bound::Ended(Box::new(record("a"))), true), (Bound::Now(Box::new(record("a"))), false)]
        {
            let end = json!({"job": "a", "ended": ended, "record": record("a"), "token": "1.2.3.4.0"});
            assert_eq!(told(what, true), Some(end));
        }
        assert_eq!(told(Bound::Heartbeat, false), None);
    }
}
