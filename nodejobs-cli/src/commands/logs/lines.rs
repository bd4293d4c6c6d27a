//! `nodejobs logs` with tokens: output as JSON lines, each of which says where to go on, and what comes after a token.

use nodejobs::api::{BindEvent, BindToken, Bound, LogStream, OutputChunk};
use nodejobs::record::JobRecord;
use serde::Serialize;

use super::printer::{LinePrinter, Printer};
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
struct Line<'a> {
    job: &'a str,
    #[serde(flatten)]
    what: What<'a>,
    token: BindToken,
}

/// Reads what a line had as its token.
pub(super) fn token(text: &str) -> Result<BindToken, String> {
    text.parse().map_err(|_| "not a token; give the one of a line of `nodejobs logs -o jsonl`".to_owned())
}

/// Prints an event as JSON, if it is about output.
pub(super) fn print_json(job: &str, event: &BindEvent, printer: Printer) -> Result<(), Failure> {
    line(job, event, printer).map_or(Ok(()), |line| output::print_json(&line))
}

fn line<'a>(job: &'a str, event: &'a BindEvent, printer: Printer) -> Option<Line<'a>> {
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
    Some(Line { job, what, token: BindToken { event: 0, ..event.token } })
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

    use super::*;
    use crate::output::tests::record;

    fn told(what: Bound, only_stderr: bool) -> Option<serde_json::Value> {
        let event = BindEvent { token: "1.2.3.4.5".parse().expect("a token"), what };
        line("a", &event, Printer { only_stderr }).map(|line| serde_json::to_value(line).expect("JSON"))
    }

    #[test]
    fn each_line_says_what_there_was_and_where_to_go_on() {
        let chunk =
            |bytes: &[u8]| OutputChunk { stream: LogStream::Stdout, offset: 1, bytes: bytes.to_vec() };
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
