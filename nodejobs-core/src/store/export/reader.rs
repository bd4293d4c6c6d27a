//! Reading an export: every line is bounded, understood and checked before it is given away.

use std::io::{self, BufRead, Read as _};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::lines::Line;
use super::rules::Rules;
use super::{FORMAT, Header, MAX_LINE, OLDEST_FORMAT, Totals};
use crate::job::Job;
use crate::store::content::Item;

/// What is wrong with an export, and in which line.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ReadError {
    /// Counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: ReadProblem,
}

/// What is wrong with a line of an export.
#[derive(Debug, thiserror::Error)]
pub enum ReadProblem {
    /// The first line is something else.
    #[error("this is no export of nodejobs: {0}")]
    NoExport(String),
    /// Written by a version that this one does not know.
    #[error(
        "the export has format {found}, this version knows {OLDEST_FORMAT} to {FORMAT}; use the version that wrote it"
    )]
    UnknownFormat {
        /// The format it has.
        found: u64,
    },
    /// No line of an export is so long.
    #[error("it is longer than {MAX_LINE} bytes")]
    TooLong,
    /// Not the JSON that was expected.
    #[error("it cannot be understood: {0}")]
    Json(String),
    /// It contradicts the lines before it.
    #[error("{0}")]
    Rule(String),
    /// The last line is missing.
    #[error("the export is cut off: its last line, which counts the others, is missing")]
    Cut,
    /// Something follows the last line.
    #[error("there is something behind the end")]
    BehindEnd,
    /// The input cannot be read.
    #[error("it cannot be read: {0}")]
    Input(io::Error),
}

/// Reads an export, item by item.
///
/// Nothing that comes out of it contradicts what came before: sequences rise, events have no gap, ids are there once and
/// attempts follow each other. Whether the export is whole is known when [`next_item`](Self::next_item) says `None`.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    buffer: Vec<u8>,
    line: u64,
    header: Header,
    rules: Rules,
    /// Read to see whether the job before it goes on.
    ahead: Option<Line>,
    totals: Option<Totals>,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`ReadError`] for anything that does not begin as an export does.
    pub fn new(input: R) -> Result<Self, ReadError> {
        let header = Header::new("", "", crate::Timestamp::default(), "");
        let mut reader = Self {
            input,
            buffer: Vec::new(),
            line: 0,
            header,
            rules: Rules::default(),
            ahead: None,
            totals: None,
        };
        reader.header = reader.read_header()?;
        Ok(reader)
    }

    /// The first line.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many items there were, once all were read.
    pub fn totals(&self) -> Option<Totals> {
        self.totals
    }

    /// The next item, and the bytes it had as text; `None` behind the last one of an export that is whole.
    ///
    /// # Errors
    /// [`ReadError`] at the first line that is wrong; there is nothing to read behind it.
    pub fn next_item(&mut self) -> Result<Option<(Item, usize)>, ReadError> {
        if self.totals.is_some() {
            return Ok(None);
        }
        let (line, mut bytes) = match self.ahead.take() {
            Some(line) => (line, self.buffer.len()),
            None => (self.read_item_line()?, self.buffer.len()),
        };
        let at = self.line;
        let item = match line {
            Line::Counters(counters) => Item::Counters(counters.into()),
            Line::Document(document) => document.into_item().map_err(|kind| {
                self.wrong(ReadProblem::Rule(format!("there is no document of kind '{kind}'")))
            })?,
            Line::Event(event) => Item::Event(event.into()),
            Line::Job(job) => {
                let mut attempts = job.into_attempts();
                bytes += self.more_attempts(&mut attempts)?;
                Item::Job(attempts)
            }
            Line::MoreAttempts(more) => {
                let words = format!("the attempts of job {} do not follow the job", more.id);
                return Err(self.wrong(ReadProblem::Rule(words)));
            }
            Line::End(said) => return self.end(said).map(|()| None),
        };
        self.rules.take(&item).map_err(|words| ReadError { line: at, problem: ReadProblem::Rule(words) })?;
        Ok(Some((item, bytes)))
    }

    /// Adds what following lines have of the same job; the bytes of these lines.
    fn more_attempts(&mut self, attempts: &mut Vec<Job>) -> Result<usize, ReadError> {
        let mut bytes = 0;
        loop {
            // Without a further line, that is an error of the next call.
            let Some(bytes_of_line) = self.read_line()? else { return Ok(bytes) };
            match self.parse::<Line>()? {
                Line::MoreAttempts(more) => {
                    if attempts.first().is_none_or(|first| (first.seq, &first.id) != (more.seq, &more.id)) {
                        let words = format!("the attempts of job {} do not follow the job", more.id);
                        return Err(self.wrong(ReadProblem::Rule(words)));
                    }
                    attempts.extend(more.into_attempts());
                    bytes += bytes_of_line;
                }
                other => {
                    self.ahead = Some(other);
                    return Ok(bytes);
                }
            }
        }
    }

    fn end(&mut self, said: Totals) -> Result<(), ReadError> {
        let counted = self.rules.end().map_err(|words| self.wrong(ReadProblem::Rule(words)))?;
        if said != counted {
            let words = format!(
                "it counts {} jobs, {} attempts, {} events and {} documents, but there are {}, {}, {} and {}",
                said.jobs,
                said.attempts,
                said.events,
                said.documents,
                counted.jobs,
                counted.attempts,
                counted.events,
                counted.documents
            );
            return Err(self.wrong(ReadProblem::Rule(words)));
        }
        if self.read_line()?.is_some() {
            return Err(self.wrong(ReadProblem::BehindEnd));
        }
        self.totals = Some(counted);
        Ok(())
    }

    fn read_header(&mut self) -> Result<Header, ReadError> {
        /// Read first: what else there is to read depends on it.
        #[derive(Deserialize)]
        struct Format {
            nodejobs_export: u64,
        }
        if self.read_line()?.is_none() {
            self.line = 1;
            return Err(self.wrong(ReadProblem::NoExport("there is nothing in it".to_owned())));
        }
        let no_export = |error: &serde_json::Error| ReadProblem::NoExport(words_of(error));
        let format = serde_json::from_slice::<Format>(&self.buffer);
        let found = format.map_err(|error| self.wrong(no_export(&error)))?.nodejobs_export;
        if !(u64::from(OLDEST_FORMAT)..=u64::from(FORMAT)).contains(&found) {
            return Err(self.wrong(ReadProblem::UnknownFormat { found }));
        }
        self.parse()
    }

    fn read_item_line(&mut self) -> Result<Line, ReadError> {
        if self.read_line()?.is_none() {
            self.line += 1;
            return Err(self.wrong(ReadProblem::Cut));
        }
        self.parse()
    }

    /// Reads a line into the buffer; its length, or `None` at the end of the input.
    fn read_line(&mut self) -> Result<Option<usize>, ReadError> {
        self.buffer.clear();
        let limit = MAX_LINE as u64 + 1;
        let read = self.input.by_ref().take(limit).read_until(b'\n', &mut self.buffer);
        match read {
            Ok(0) => Ok(None),
            Ok(length) => {
                self.line += 1;
                if length > MAX_LINE {
                    return Err(self.wrong(ReadProblem::TooLong));
                }
                Ok(Some(length))
            }
            Err(error) => {
                self.line += 1;
                Err(self.wrong(ReadProblem::Input(error)))
            }
        }
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, ReadError> {
        match serde_json::from_slice(&self.buffer) {
            Ok(value) => Ok(value),
            // Without its end it is the last line, and what is left of it.
            Err(error) if error.is_eof() && !self.buffer.ends_with(b"\n") => {
                Err(self.wrong(ReadProblem::Cut))
            }
            Err(error) => Err(self.wrong(ReadProblem::Json(words_of(&error)))),
        }
    }

    fn wrong(&self, problem: ReadProblem) -> ReadError {
        ReadError { line: self.line, problem }
    }
}

/// What the parser says, which knows of one line only.
fn words_of(error: &serde_json::Error) -> String {
    error.to_string().replacen(" at line 1 column ", " at column ", 1)
}
