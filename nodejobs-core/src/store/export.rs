//! A store's whole content as text: JSON, one item a line, between a header and an end that counts them.
//!
//! `docs/export.md` describes the lines. What a [`Writer`] has written a [`Reader`] reads as the same items, whichever
//! store they came from and go to.
//!
//! ```
//! use nodejobs_core::Timestamp;
//! use nodejobs_core::store::JobStore;
//! use nodejobs_core::store::content::walk;
//! use nodejobs_core::store::export::{Header, Reader, WriteError, Writer};
//! use nodejobs_core::store::memory::MemoryStore;
//!
//! let header = Header::new("memory", "3f", Timestamp::from_millis(0), "0.1.0");
//! let mut writer = Writer::new(Vec::new(), &header)?;
//! walk(&MemoryStore::new(), |item| writer.item(&item))?;
//! let (text, _) = writer.finish()?;
//! let mut reader = Reader::new(text.as_slice())?;
//! let copy = MemoryStore::new();
//! while let Some((item, _)) = reader.next_item()? {
//!     copy.load(&[item])?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod lines;
mod reader;
mod rules;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use self::lines::{AttemptLine, Line};
use self::rules::Rules;
use super::StoreError;
use super::content::Item;
use crate::id::JobId;
use crate::job::Job;
use crate::time::Timestamp;

pub use self::reader::{ReadError, ReadProblem, Reader};

/// The format that is written here.
pub const FORMAT: u32 = 2;

/// The first format that is read. Format 2 has added what may be left out: `backoff`, `limits` and `log_cap` of a policy, the
/// start `again`, and the inputs `pipe` and `terminal`.
pub const OLDEST_FORMAT: u32 = 1;

/// The longest line, in bytes, its end included. What is kept with one job is far below it.
pub const MAX_LINE: usize = 64 << 20;

/// A job's attempts are spread over several lines of about so many bytes.
const ATTEMPTS_LINE: usize = 4 << 20;

/// The first line: what this is, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The format, [`OLDEST_FORMAT`] to [`FORMAT`].
    nodejobs_export: u32,
    /// Version of the program that wrote it.
    pub version: String,
    /// The kind of store it comes from.
    pub store: String,
    /// The data directory it comes from.
    pub directory_id: String,
    /// The machine it was written on, where machines have ids.
    pub machine_id: Option<String>,
    /// The start of that machine: boot times in here belong to it, or to earlier ones.
    pub boot_id: Option<String>,
    /// When it was written.
    pub exported_at: Timestamp,
}

impl Header {
    /// A header that names no machine.
    pub fn new(store: &str, directory_id: &str, exported_at: Timestamp, version: &str) -> Self {
        Self {
            nodejobs_export: FORMAT,
            version: version.to_owned(),
            store: store.to_owned(),
            directory_id: directory_id.to_owned(),
            machine_id: None,
            boot_id: None,
            exported_at,
        }
    }
}

/// The last line: how many items there were of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Jobs.
    pub jobs: u64,
    /// Their attempts.
    pub attempts: u64,
    /// Events.
    pub events: u64,
    /// Documents.
    pub documents: u64,
}

/// Why an export could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The items contradict each other, so that nobody could read them again.
    #[error("{0}")]
    Rule(String),
    /// A line that no [`Reader`] takes.
    #[error("{0} does not fit into a line of {MAX_LINE} bytes")]
    TooLong(String),
    /// The output takes no more.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Writes an export.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    rules: Rules,
}

impl<W: Write> Writer<W> {
    /// Begins with the header.
    ///
    /// # Errors
    /// What `output` says.
    pub fn new(mut output: W, header: &Header) -> Result<Self, WriteError> {
        write_line(&mut output, header, || "the header".to_owned())?;
        Ok(Self { output, rules: Rules::default() })
    }

    /// Writes the next item, in the order of [`walk`](super::content::walk).
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn item(&mut self, item: &Item) -> Result<(), WriteError> {
        self.rules.take(item).map_err(WriteError::Rule)?;
        match (item, Line::of(item)) {
            (_, Some(line)) => write_line(&mut self.output, &line, || item.describe()),
            (Item::Job(attempts), None) => self.job(attempts),
            (_, None) => Ok(()),
        }
    }

    /// Writes the last line.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn finish(mut self) -> Result<(W, Totals), WriteError> {
        let totals = self.rules.end().map_err(WriteError::Rule)?;
        write_line(&mut self.output, &Line::End(totals), || "the end".to_owned())?;
        self.output.flush()?;
        Ok((self.output, totals))
    }

    fn job(&mut self, attempts: &[Job]) -> Result<(), WriteError> {
        // One that starts again and again has more attempts than any line has room for.
        let mut waiting: Vec<u8> = Vec::new();
        let mut key = "job";
        let Some(Job { seq, id, .. }) = attempts.first() else { return Ok(()) };
        for attempt in attempts {
            let text = to_json(&AttemptLine::from(attempt))?;
            if !waiting.is_empty() && waiting.len() + text.len() > ATTEMPTS_LINE {
                self.attempts(key, *seq, id, &waiting)?;
                waiting.clear();
                key = "more_attempts";
            }
            if !waiting.is_empty() {
                waiting.push(b',');
            }
            waiting.extend_from_slice(&text);
        }
        self.attempts(key, *seq, id, &waiting)
    }

    fn attempts(&mut self, key: &str, seq: u64, id: &JobId, attempts: &[u8]) -> Result<(), WriteError> {
        // An id has no character that JSON would write otherwise.
        let mut line = format!(r#"{{"{key}":{{"seq":{seq},"id":"{id}","attempts":["#).into_bytes();
        line.extend_from_slice(attempts);
        line.extend_from_slice(b"]}}\n");
        put(&mut self.output, &line, || format!("job {id}"))
    }
}

fn write_line(
    output: &mut impl Write,
    value: &impl Serialize,
    what: impl Fn() -> String,
) -> Result<(), WriteError> {
    let mut line = to_json(value)?;
    line.push(b'\n');
    put(output, &line, what)
}

fn put(output: &mut impl Write, line: &[u8], what: impl Fn() -> String) -> Result<(), WriteError> {
    if line.len() > MAX_LINE {
        return Err(WriteError::TooLong(what()));
    }
    Ok(output.write_all(line)?)
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, WriteError> {
    serde_json::to_vec(value).map_err(|error| WriteError::Output(error.into()))
}
