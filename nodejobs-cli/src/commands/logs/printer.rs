//! Output for people: as it is, or line by line with words before each line.

use std::io::{self, IsTerminal as _, Write};

use nodejobs::api::{FollowEvent, LogStream, OutputChunk, Written};
use unicode_width::UnicodeWidthStr as _;

use super::matcher::Matcher;
use super::split::{Line, Splitter};
use crate::exit::{Failure, say};
use crate::output::Screen;

/// Puts a job's output where it belongs, byte for byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    /// Standard error alone, on standard output.
    pub(crate) only_stderr: bool,
}

impl Printer {
    pub(crate) fn print(self, event: &FollowEvent) -> Result<(), Failure> {
        match event {
            FollowEvent::Output(chunk) => self.output(chunk),
            FollowEvent::Truncated { stream, offset } => {
                self.truncated(*stream, *offset, "");
                Ok(())
            }
            FollowEvent::Ended(_) | FollowEvent::Error(_) => Ok(()),
        }
    }

    pub(super) fn shows(self, stream: LogStream) -> bool {
        stream == LogStream::Stderr || !self.only_stderr
    }

    pub(super) fn output(self, chunk: &OutputChunk) -> Result<(), Failure> {
        if self.shows(chunk.stream) { self.write(chunk.stream, &chunk.bytes) } else { Ok(()) }
    }

    pub(super) fn truncated(self, stream: LogStream, offset: u64, of: &str) {
        match (self.shows(stream), offset) {
            (false, _) => {}
            (true, 0) => {
                say(&format_args!(
                    "note: the job{of} truncated its {stream}; what it wrote before may be incomplete"
                ));
            }
            (true, offset) => say(&format_args!(
                "note: older {stream} of the job{of} is not kept (see `run --log-cap`); it goes on at byte {offset}"
            )),
        }
    }

    fn write(self, stream: LogStream, bytes: &[u8]) -> Result<(), Failure> {
        match (stream, self.only_stderr) {
            (LogStream::Stderr, false) => write(&mut io::stderr().lock(), bytes),
            (LogStream::Stdout, _) | (LogStream::Stderr, true) => write(&mut io::stdout().lock(), bytes),
        }
    }
}

/// What is wanted of lines.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Only those.
    pub(super) grep: Option<Matcher>,
    /// With the time at which each was written.
    pub(super) timestamps: bool,
}

impl Wanted {
    /// Whether lines are looked at, one by one.
    pub(super) fn is_about_lines(&self) -> bool {
        self.grep.is_some() || self.timestamps
    }

    pub(super) fn shows(&self, line: &Line<'_>) -> bool {
        self.grep.as_ref().is_none_or(|grep| grep.matches(line.text))
    }
}

/// Prints the output of one job line by line.
#[derive(Debug)]
pub(super) struct LinePrinter {
    to: Printer,
    wanted: Wanted,
    /// What comes before each line, on standard output and on standard error: colours are for terminals.
    prefixes: [String; 2],
    /// The name to say when something is to be said of the job.
    of: String,
    open: [Splitter; 2],
}

impl LinePrinter {
    /// For the only job.
    pub(super) fn new(to: Printer, wanted: Wanted) -> Self {
        Self { to, wanted, prefixes: Default::default(), of: String::new(), open: Default::default() }
    }

    /// One for each of several jobs, whose names are padded to the same width.
    pub(super) fn for_jobs(labels: &[String], to: Printer, wanted: &Wanted) -> Vec<Self> {
        let width = labels.iter().map(|label| label.width()).max().unwrap_or_default();
        let colours =
            [Screen::has_colour(io::stdout().is_terminal()), Screen::has_colour(io::stderr().is_terminal())];
        let printer = |(index, label): (usize, &String)| Self {
            prefixes: colours.map(|colour| prefix(label, width, index, colour)),
            of: format!(" '{label}'"),
            ..Self::new(to, wanted.clone())
        };
        labels.iter().enumerate().map(printer).collect()
    }

    pub(super) fn output(&mut self, chunk: &OutputChunk) -> Result<(), Failure> {
        if !self.to.shows(chunk.stream) {
            return Ok(());
        }
        let mut lines = Vec::with_capacity(chunk.bytes.len() + 64);
        let mut open = std::mem::take(&mut self.open[index(chunk.stream)]);
        open.push(chunk, |line| self.add(&mut lines, chunk.stream, line));
        self.open[index(chunk.stream)] = open;
        self.to.write(chunk.stream, &lines)
    }

    pub(super) fn truncated(&mut self, stream: LogStream, offset: u64) -> Result<(), Failure> {
        self.finish_stream(stream)?;
        self.to.truncated(stream, offset, &self.of);
        Ok(())
    }

    /// Prints what has no newline at its end: nothing more comes.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.finish_stream(LogStream::Stdout)?;
        self.finish_stream(LogStream::Stderr)
    }

    fn finish_stream(&mut self, stream: LogStream) -> Result<(), Failure> {
        let mut lines = Vec::new();
        std::mem::take(&mut self.open[index(stream)]).finish(|line| self.add(&mut lines, stream, line));
        self.to.write(stream, &lines)
    }

    fn add(&self, lines: &mut Vec<u8>, stream: LogStream, line: Line<'_>) {
        if !self.wanted.shows(&line) {
            return;
        }
        let on_stdout = stream == LogStream::Stdout || self.to.only_stderr;
        lines.extend_from_slice(self.prefixes[if on_stdout { 0 } else { 1 }].as_bytes());
        if self.wanted.timestamps {
            lines.extend_from_slice(time(line.written).as_bytes());
        }
        lines.extend_from_slice(line.text);
        lines.push(b'\n');
    }
}

/// The time and a space, in the width of a time: none, where nobody knows it.
fn time(written: Option<Written>) -> String {
    match written.and_then(Written::exactly) {
        Some(time) => format!("{time} "),
        None => format!("{:<24} ", "-"),
    }
}

pub(super) fn index(stream: LogStream) -> usize {
    match stream {
        LogStream::Stdout => 0,
        LogStream::Stderr => 1,
    }
}

/// Neither red, which is for failures, nor black and white, one of which is the background.
const COLOURS: [&str; 5] = ["36", "33", "32", "35", "34"];

fn prefix(label: &str, width: usize, index: usize, colour: bool) -> String {
    let text = format!("{label}{} | ", " ".repeat(width.saturating_sub(label.width())));
    if colour { format!("\x1b[{}m{text}\x1b[0m", COLOURS[index % COLOURS.len()]) } else { text }
}

pub(super) fn write(to: &mut impl Write, bytes: &[u8]) -> Result<(), Failure> {
    if bytes.is_empty() {
        return Ok(());
    }
    to.write_all(bytes).and_then(|()| to.flush()).map_err(|error| Failure::output(&error))
}

#[cfg(test)]
mod tests {
    use nodejobs::Timestamp;

    use super::*;

    #[test]
    fn a_time_that_is_not_known_takes_as_much_room_as_one_that_is() {
        let written = |after, before| {
            let [after, before] = [after, before].map(Timestamp::from_millis);
            time(Some(Written { after, before }))
        };
        assert_eq!(written(100, 600), "1970-01-01T00:00:00.100Z ");
        for unknown in [written(100, 601), time(None)] {
            assert_eq!(unknown, "-                        ");
        }
    }

    #[test]
    fn prefixes_are_aligned_and_coloured_one_after_the_other() {
        assert_eq!(prefix("a", 3, 0, false), "a   | ");
        assert_eq!(prefix("abc", 3, 1, false), "abc | ");
        assert_eq!(prefix("a", 1, 1, true), "\x1b[33ma | \x1b[0m");
        assert_eq!(prefix("a", 1, 5, true), prefix("a", 1, 0, true));
    }
}
