//! `nodejobs logs`: shows what jobs wrote.

use std::io::{self, Read, Write};

use clap::Args;
use nodejobs::api::{FollowEvent, FollowQuery, LogQuery, LogStream};

use crate::connect::{Connection, Target};
use crate::exit::{Failure, UNAVAILABLE, USAGE, job_code, mirrored, overall, say};
use crate::output::{Format, outcome};
use crate::watch;

/// Show what jobs wrote: their standard output and standard error on ours
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Logs {
    /// Ids, unique beginnings of ids, or unique names
    #[arg(required = true, value_name = "ID")]
    jobs: Vec<String>,
    /// Only the last N lines of each stream
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// Show more as it is written, and end with the job and its exit code
    #[arg(short, long)]
    follow: bool,
    /// Only its standard error, on our standard output
    #[arg(long)]
    stderr: bool,
    /// Output of an earlier attempt, counted from 1 [default: the newest]
    #[arg(long, value_name = "N", value_parser = attempt)]
    attempt: Option<u32>,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs logs --tail 20 ID
  nodejobs logs -f ID                 as it is written, until the job ends
  nodejobs logs ID 2> errors.txt      the streams stay apart
  nodejobs logs --stderr ID | less    only standard error, to a pipe
  nodejobs logs --attempt 1 ID        of the first run of several

Without -f standard output is shown first, then standard error. With -f the exit status is the job's own: 128+N after \
signal N, and 125 if it has none (it never started, or was lost) or something here went wrong.";

impl Logs {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        format.require_table("logs")?;
        if let (true, [job]) = (self.follow, self.jobs.as_slice()) {
            return mirrored(self.follow_one(target, job));
        }
        if self.follow {
            return Err(Failure::new(USAGE, "--follow takes one job"));
        }
        super::require_references(&self.jobs)?;
        let mut connection = target.connect()?;
        let (mut shown, mut failures) = (0, Vec::new());
        for job in &self.jobs {
            if self.jobs.len() > 1 {
                say(&format_args!("==> {job} <=="));
            }
            match self.show_one(&mut connection, job) {
                Ok(()) => shown += 1,
                Err(Failure::ClosedPipe) => return Err(Failure::ClosedPipe),
                Err(failure) => {
                    say(&failure);
                    failures.push(failure);
                }
            }
        }
        Ok(overall(shown, &failures))
    }

    fn follow_one(&self, target: &Target, job: &str) -> Result<u8, Failure> {
        super::require_references(&self.jobs)?;
        let mut connection = target.connect()?;
        // Names and beginnings of ids may mean another job later, and "newest" another attempt.
        let record = connection.ask(|client| client.job(job))?;
        let query = FollowQuery {
            attempt: Some(self.attempt.unwrap_or(record.attempt)),
            tail: self.tail,
            ..FollowQuery::default()
        };
        let printer = Printer { only_stderr: self.stderr };
        let ended =
            watch::follow(&mut connection, record.self_id.as_str(), query, |event| printer.print(event))?;
        if job_code(&ended) != 0 {
            say(&format_args!("{}: {}", ended.self_id, outcome(&ended)));
        }
        Ok(job_code(&ended))
    }

    fn show_one(&self, connection: &mut Connection<'_>, job: &str) -> Result<(), Failure> {
        let query = LogQuery { attempt: self.attempt, tail: self.tail, offset: None };
        if !self.stderr {
            let log = connection.ask(|client| client.log(job, LogStream::Stdout, &query))?;
            copy(log, &mut io::stdout().lock())?;
        }
        let log = connection.ask(|client| client.log(job, LogStream::Stderr, &query))?;
        if self.stderr { copy(log, &mut io::stdout().lock()) } else { copy(log, &mut io::stderr().lock()) }
    }
}

fn attempt(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("attempts count from 1".to_owned()),
        Ok(attempt) => Ok(attempt),
        Err(_) => Err("not the number of an attempt; they count from 1".to_owned()),
    }
}

/// Puts a job's output where it belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    /// Standard error alone, on standard output.
    pub(crate) only_stderr: bool,
}

impl Printer {
    pub(crate) fn print(self, event: &FollowEvent) -> Result<(), Failure> {
        match event {
            FollowEvent::Output(chunk) => match (chunk.stream, self.only_stderr) {
                (LogStream::Stdout, true) => Ok(()),
                (LogStream::Stdout, false) | (LogStream::Stderr, true) => {
                    write(&mut io::stdout().lock(), &chunk.bytes)
                }
                (LogStream::Stderr, false) => write(&mut io::stderr().lock(), &chunk.bytes),
            },
            FollowEvent::Truncated { stream: LogStream::Stdout, .. } if self.only_stderr => Ok(()),
            FollowEvent::Truncated { stream, .. } => {
                say(&format_args!(
                    "note: the job truncated its {stream}; what it wrote before may be incomplete"
                ));
                Ok(())
            }
            FollowEvent::Ended(_) | FollowEvent::Error(_) => Ok(()),
        }
    }
}

fn copy(mut from: impl Read, to: &mut impl Write) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => write(to, &buffer[..count])?,
            Err(error) => {
                return Err(Failure::caused(UNAVAILABLE, "the log broke off before its end", &error));
            }
        }
    }
}

fn write(to: &mut impl Write, bytes: &[u8]) -> Result<(), Failure> {
    to.write_all(bytes).and_then(|()| to.flush()).map_err(|error| Failure::output(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_count_from_1() {
        assert_eq!(attempt("1"), Ok(1));
        for text in ["0", "-1", "x", "", "4294967296"] {
            assert!(attempt(text).expect_err(text).ends_with("count from 1"), "{text}");
        }
    }
}
