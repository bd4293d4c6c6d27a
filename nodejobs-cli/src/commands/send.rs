//! `nodejobs send`: gives a job input that it reads from its own pipe or terminal.

use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use clap::Args;
use nodejobs::api::{SendAnswer, SendRequest};
use nodejobs::client::Client;
use nodejobs::units::parse_duration;

use crate::connect::Target;
use crate::exit::{FAILED, Failure, UNAVAILABLE};
use crate::output::{self, Format};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Send {
    /// Its id, a unique beginning of it, or a unique name
    #[arg(value_name = "ID")]
    job: String,
    /// What to send, or `-` for what comes on our standard input, which is sent as it is
    #[arg(value_name = "TEXT", required_unless_present = "eof", allow_hyphen_values = true)]
    text: Option<OsString>,
    /// End its input: nothing can be sent to it afterwards
    #[arg(long)]
    eof: bool,
    /// Send TEXT without a newline behind it
    #[arg(long)]
    no_newline: bool,
    /// How long the job has to take it, such as 500ms or 1m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5s")]
    timeout: Duration,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs send ID 'print(1 + 2)'
  nodejobs send ID --no-newline y
  nodejobs send ID --eof              nothing follows
  cat FILE | nodejobs send ID - --eof

The job has to be started with `run --stdin pipe` or `run --pty`. On a terminal, --eof is what Ctrl-D types. What is sent \
waits in the job's pipe until the job reads it: 64 KiB by default, whoever else dies meanwhile. Up to 4096 bytes are \
taken as a whole or not at all.

Exit status: 0 if all of it is taken, 1 if the job has not taken all of it in time, 3 if there is no such job, 4 if it \
reads no such input (any more), 5 if the daemon was killed meanwhile: then it is not known whether all of it was taken.";

/// Read at a time from our standard input.
const PIECE: usize = 64 << 10;

impl Send {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        super::require_references(std::slice::from_ref(&self.job))?;
        let mut connection = target.connect()?;
        // A daemon that was just killed is found out by a question that may be asked again. What is sent may not: the job
        // would read it twice.
        let job = connection.ask(|client| client.job(&self.job))?.self_id;
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let mut sender = Sender { client: connection.client, job: job.as_str(), timeout_ms, taken: 0 };
        let mut piece = Vec::new();
        match self.text {
            Some(text) if text == OsStr::new("-") => loop {
                piece = read_piece(piece)?;
                if piece.is_empty() {
                    break;
                }
                sender.send(&piece, false)?;
            },
            Some(text) => {
                piece = text.into_vec();
                if !self.no_newline {
                    piece.push(b'\n');
                }
                for part in piece.chunks(SendRequest::MAX_BYTES) {
                    sender.send(part, false)?;
                }
            }
            None => {}
        }
        if self.eof {
            sender.send(b"", true)?;
        }
        if format != Format::Table {
            output::print_json(&SendAnswer { taken: sender.taken, whole: true })?;
        }
        Ok(0)
    }
}

struct Sender<'a> {
    client: Client,
    job: &'a str,
    timeout_ms: u64,
    /// In all.
    taken: u64,
}

impl Sender<'_> {
    fn send(&mut self, bytes: &[u8], eof: bool) -> Result<(), Failure> {
        let request = SendRequest { eof, timeout_ms: self.timeout_ms, ..SendRequest::new(bytes.to_vec()) };
        let answer = self.client.send(self.job, &request).map_err(|error| {
            if !error.is_broken() {
                return Failure::from(error);
            }
            let message = format!(
                "whether job '{}' has taken all of it is not known; {} bytes were taken before",
                self.job, self.taken
            );
            Failure::caused(UNAVAILABLE, message, &error)
        })?;
        self.taken += answer.taken;
        if answer.whole {
            return Ok(());
        }
        let left = bytes.len() as u64 - answer.taken;
        let message =
            format!("job '{}' does not read: {} bytes were taken, and {left} were not", self.job, self.taken);
        Err(Failure::new(FAILED, message))
    }
}

/// What has come, at most a piece; empty at the end.
fn read_piece(mut buffer: Vec<u8>) -> Result<Vec<u8>, Failure> {
    buffer.resize(PIECE, 0);
    let length = std::io::stdin()
        .lock()
        .read(&mut buffer)
        .map_err(|error| Failure::caused(FAILED, "cannot read standard input", &error))?;
    buffer.truncate(length);
    Ok(buffer)
}
