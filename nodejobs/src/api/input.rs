//! What is sent to a job that reads from a pipe or a terminal of its own.

use std::fmt;

use nodejobs_core::{JobId, RawText};
use serde::{Deserialize, Serialize};

use super::{Problem, ProblemKind};

/// Asks that a job be given input.
///
/// ```
/// use nodejobs::api::SendRequest;
///
/// let request = SendRequest { eof: true, ..SendRequest::new("quit\n") };
/// assert!(request.check().is_ok());
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendRequest {
    /// The bytes, at most [`SendRequest::MAX_BYTES`]. As far as pipes go, 4096 bytes are given as a whole or not at all.
    #[serde(default)]
    pub data: RawText,
    /// Whether nothing follows: the job reads the end of its input. At a terminal it gets what Ctrl-D types.
    #[serde(default)]
    pub eof: bool,
    /// How long the job has to take it, in milliseconds.
    #[serde(default = "five_seconds")]
    pub timeout_ms: u64,
}

impl fmt::Debug for SendRequest {
    /// Input may be a secret, so only its length is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SendRequest");
        shown.field("bytes", &self.data.as_bytes().len());
        shown.field("eof", &self.eof).field("timeout_ms", &self.timeout_ms).finish()
    }
}

fn five_seconds() -> u64 {
    SendRequest::TIMEOUT_MS
}

impl SendRequest {
    /// The most bytes that are sent at once.
    pub const MAX_BYTES: usize = 1 << 20;
    /// How long the job has to take it if nothing else is said, in milliseconds.
    pub const TIMEOUT_MS: u64 = 5_000;

    /// Sends these bytes, as they are.
    pub fn new(data: impl Into<RawText>) -> Self {
        Self { data: data.into(), eof: false, timeout_ms: Self::TIMEOUT_MS }
    }

    /// Whether it can be sent.
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] if there is too much, or nothing at all.
    pub fn check(&self) -> Result<(), Problem> {
        let length = self.data.as_bytes().len();
        if length > Self::MAX_BYTES {
            let message = format!("{length} bytes are too much; send at most {} at once", Self::MAX_BYTES);
            return Err(Problem::new(ProblemKind::Usage, message));
        }
        if length == 0 && !self.eof {
            return Err(Problem::new(
                ProblemKind::Usage,
                "there is nothing to send; give at least one byte, or `eof`",
            ));
        }
        Ok(())
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a job that does not read takes only a part"]
pub struct SendAnswer {
    /// How many bytes the job's pipe or terminal has taken. Whether the job has read them is its own affair.
    pub taken: u64,
    /// Whether that is all, the end included if it was asked for. If not, the time was up.
    pub whole: bool,
}

/// Where the terminal of a job is to be found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalPlace {
    /// The job.
    pub self_id: JobId,
    /// Its attempt that runs.
    pub attempt: u32,
    /// A seqpacket socket, which speaks as [`nodejobs_core::holder`] says.
    pub socket: RawText,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_a_meaning_and_what_makes_no_sense_is_refused() {
        let request: SendRequest = serde_json::from_str(r#"{"data":"x"}"#).expect("a request");
        assert_eq!((&request, request.timeout_ms), (&SendRequest::new("x"), 5_000));
        assert!(serde_json::from_str::<SendRequest>(r#"{"text":"x"}"#).is_err());
        let shown = format!("{:?}", SendRequest::new("s3cret"));
        assert!(shown.contains("bytes: 6") && !shown.contains("s3cret"), "{shown}");
        let refused = |request: SendRequest| request.check().expect_err("refused").message;
        assert!(refused(SendRequest::new("")).contains("nothing to send"));
        assert!(refused(SendRequest::new(vec![0; SendRequest::MAX_BYTES + 1])).contains("1048577 bytes"));
        assert_eq!(SendRequest::new(vec![0; SendRequest::MAX_BYTES]).check(), Ok(()));
        assert_eq!(SendRequest { eof: true, ..SendRequest::new("") }.check(), Ok(()));
    }
}
