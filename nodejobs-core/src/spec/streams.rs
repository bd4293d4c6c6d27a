//! Where a job's input comes from and where its output goes, as it is asked for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::RawText;

/// What a job reads from descriptor 0.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// Nothing: `/dev/null`.
    #[default]
    Null,
    /// This file, absolute, opened when the job starts.
    File(RawText),
    /// These bytes, at most [`Stdin::MAX_BYTES`]. They are kept with the job, so that each attempt reads them.
    Bytes(RawText),
    /// A pipe, which stays open until somebody ends it: what is sent to the job. Each attempt has its own.
    Pipe,
    /// A terminal, which is its standard output and standard error as well; both are in the log of standard output, with what
    /// is echoed. Each attempt has its own.
    Terminal(TerminalSize),
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Its height, at least 1.
    pub rows: u16,
    /// Its width, at least 1.
    pub columns: u16,
}

impl Default for TerminalSize {
    /// 24 rows of 80 columns.
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

impl Stdin {
    /// The most bytes of input that are kept with a job. What is larger has to be a file.
    pub const MAX_BYTES: usize = 16 << 20;
}

impl fmt::Debug for Stdin {
    /// Input may be a secret, so only its length is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stdin::Null => f.write_str("Null"),
            Stdin::File(path) => f.debug_tuple("File").field(path).finish(),
            Stdin::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.as_bytes().len()),
            Stdin::Pipe => f.write_str("Pipe"),
            Stdin::Terminal(size) => f.debug_tuple("Terminal").field(size).finish(),
        }
    }
}

/// Where a job's output goes. With nothing said, into files of the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Output {
    /// Into this directory, absolute, as `<id>.<attempt>.out` and `.err`. It is made if it is not there.
    pub logdir: Option<RawText>,
    /// Into this file, and standard error into the one of that name with `.err` behind it. Absolute, or relative to
    /// `logdir`. Both are appended to, and never shortened or deleted by nodejobs.
    pub logfile: Option<RawText>,
    /// Standard error goes where standard output goes, in the order in which both are written.
    pub merge: bool,
}
