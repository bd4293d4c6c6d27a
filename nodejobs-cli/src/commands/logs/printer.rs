//! Output for people: as it is, or line by line with words before each line.

use std::io::{self, IsTerminal as _, Write};

use nodejobs::api::{FollowEvent, LogStream, OutputChunk};
use unicode_width::UnicodeWidthStr as _;

use super::split::Splitter;
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

    pub(super) fn truncated(self, stream: LogStream, _offset: u64, of: &str) {
        if self.shows(stream) {
            say(&format_args!(
                "note: the job{of} truncated its {stream}; what it wrote before may be incomplete"
            ));
        }
    }

    fn write(self, stream: LogStream, bytes: &[u8]) -> Result<(), Failure> {
        match (stream, self.only_stderr) {
            (LogStream::Stderr, false) => write(&mut io::stderr().lock(), bytes),
            (LogStream::Stdout, _) | (LogStream::Stderr, true) => write(&mut io::stdout().lock(), bytes),
        }
    }
}

/// Prints the output of one job line by line.
#[derive(Debug)]
pub(super) struct LinePrinter {
    to: Printer,
    /// What comes before each line, on standard output and on standard error: colours are for terminals.
    prefixes: [String; 2],
    /// The name to say when something is to be said of the job.
    of: String,
    open: [Splitter; 2],
}

impl LinePrinter {
    /// One for each of several jobs, whose names are padded to the same width.
    pub(super) fn for_jobs(labels: &[String], to: Printer) -> Vec<Self> {
        let width = labels.iter().map(|label| label.width()).max().unwrap_or_default();
        let colours =
            [Screen::has_colour(io::stdout().is_terminal()), Screen::has_colour(io::stderr().is_terminal())];
        let printer = |(index, label): (usize, &String)| Self {
            to,
            prefixes: colours.map(|colour| prefix(label, width, index, colour)),
            of: format!(" '{label}'"),
            open: [Splitter::default(), Splitter::default()],
        };
        labels.iter().enumerate().map(printer).collect()
    }

    pub(super) fn output(&mut self, chunk: &OutputChunk) -> Result<(), Failure> {
        if !self.to.shows(chunk.stream) {
            return Ok(());
        }
        let mut lines = Vec::with_capacity(chunk.bytes.len() + 64);
        let prefix = self.prefix(chunk.stream);
        self.open[index(chunk.stream)].push(&chunk.bytes, |line| add_line(&mut lines, &prefix, line));
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
        let prefix = self.prefix(stream);
        self.open[index(stream)].finish(|line| add_line(&mut lines, &prefix, line));
        self.to.write(stream, &lines)
    }

    fn prefix(&self, stream: LogStream) -> String {
        let on_stdout = stream == LogStream::Stdout || self.to.only_stderr;
        self.prefixes[if on_stdout { 0 } else { 1 }].clone()
    }
}

fn add_line(lines: &mut Vec<u8>, prefix: &str, line: &[u8]) {
    lines.extend_from_slice(prefix.as_bytes());
    lines.extend_from_slice(line);
    lines.push(b'\n');
}

fn index(stream: LogStream) -> usize {
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
    use super::*;

    #[test]
    fn prefixes_are_aligned_and_coloured_one_after_the_other() {
        assert_eq!(prefix("a", 3, 0, false), "a   | ");
        assert_eq!(prefix("abc", 3, 1, false), "abc | ");
        assert_eq!(prefix("a", 1, 1, true), "\x1b[33ma | \x1b[0m");
        assert_eq!(prefix("a", 1, 5, true), prefix("a", 1, 0, true));
    }
}
