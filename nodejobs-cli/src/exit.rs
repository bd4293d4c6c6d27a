//! How the program ends: its exit codes, its failures and how they are said.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use nodejobs::api::{Problem, ProblemKind};
use nodejobs::client::ClientError;
use nodejobs::record::JobRecord;
use nodejobs::{Reason, Status};

use crate::readable::{candidate_lines, now};

/// The operation failed.
pub(crate) const FAILED: u8 = 1;
/// The command line makes no sense.
pub(crate) const USAGE: u8 = 2;
/// There is no such job.
pub(crate) const NOT_FOUND: u8 = 3;
/// It contradicts what is there.
pub(crate) const CONFLICT: u8 = 4;
/// No daemon, or its store is unavailable.
pub(crate) const UNAVAILABLE: u8 = 5;
/// Some of it was done.
pub(crate) const PARTLY: u8 = 6;
/// Where a job's code is mirrored: its time was up.
pub(crate) const TIMEOUT: u8 = 124;
/// Where a job's code is mirrored: there is none.
const NO_CODE: u8 = 125;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody reads our output any more, so there is nothing left to do.
    ClosedPipe,
    /// Something to say, and an exit code.
    Error {
        /// The exit code.
        code: u8,
        /// A lower-case sentence.
        message: String,
        /// What it comes from, the nearest cause first.
        causes: Vec<String>,
    },
}

impl Failure {
    /// A failure without a cause.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Failure::Error { code, message: message.into(), causes: Vec::new() }
    }

    /// A failure with everything it comes from.
    pub(crate) fn caused(code: u8, message: impl Into<String>, cause: &dyn Error) -> Self {
        let mut causes = Vec::new();
        let mut next = Some(cause);
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        Failure::Error { code, message: message.into(), causes }
    }

    /// Trouble with our own output.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
            _ => Failure::caused(FAILED, "cannot write to standard output", error),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let error = match error {
            ClientError::Problem(problem) => return problem.into(),
            error => error,
        };
        let code = match &error {
            ClientError::Unreachable { .. } | ClientError::Broken { .. } | ClientError::Stopped { .. } => {
                UNAVAILABLE
            }
            _ => FAILED,
        };
        let message = match &error {
            error if error.is_no_daemon() => format!("{error}; `nodejobs daemon start` starts one"),
            error => error.to_string(),
        };
        match error.source() {
            Some(cause) => Failure::caused(code, message, cause),
            None => Failure::new(code, message),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let mut message = problem.message.clone();
        let candidates = candidate_lines(&problem.candidates, now());
        candidates.iter().for_each(|line| message.push_str(&format!("\n  {line}")));
        if let Some(more) = problem.more() {
            message.push_str(&format!("\n  {more}"));
        }
        Failure::new(problem_code(&problem), message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::ClosedPipe => f.write_str("nobody reads the output"),
            Failure::Error { message, causes, .. } => {
                write!(f, "error: {message}")?;
                causes.iter().try_for_each(|cause| write!(f, "\n  caused by: {cause}"))
            }
        }
    }
}

/// The exit code that goes with a problem.
pub(crate) fn problem_code(problem: &Problem) -> u8 {
    match problem.kind {
        ProblemKind::Usage => USAGE,
        ProblemKind::NotFound => NOT_FOUND,
        ProblemKind::Conflict | ProblemKind::Ambiguous => CONFLICT,
        ProblemKind::Unavailable => UNAVAILABLE,
        ProblemKind::Failed => FAILED,
    }
}

/// The code of an ended job, as a shell would have it had the job been its child.
pub(crate) fn job_code(record: &JobRecord) -> u8 {
    if record.progress.is_some() && record.status.is_terminal() && record.status != Status::Cancelled {
        // An array has no code of its own.
        return if record.status == Status::Finished { 0 } else { FAILED };
    }
    match (record.status, record.reason) {
        (Status::Failed, Some(Reason::Timeout)) => TIMEOUT,
        (Status::Finished | Status::Failed | Status::Stopped, _) => {
            record.exit_status().and_then(|exit| u8::try_from(exit.shell_code()).ok()).unwrap_or(NO_CODE)
        }
        _ => NO_CODE,
    }
}

/// For commands that end with a job's code: a failure of our own must not look like the job's.
pub(crate) fn mirrored(result: Result<u8, Failure>) -> Result<u8, Failure> {
    match result {
        Err(Failure::Error { message, causes, .. }) => Err(Failure::Error { code: NO_CODE, message, causes }),
        result => result,
    }
}

/// The code of a command about several things of which some failed.
pub(crate) fn overall(done: usize, failures: &[Failure]) -> u8 {
    let mut codes = failures.iter().map(|failure| match failure {
        Failure::Error { code, .. } => *code,
        Failure::ClosedPipe => 0,
    });
    match (done, codes.next()) {
        (_, None) => 0,
        (0, Some(first)) if codes.all(|code| code == first) => first,
        (0, Some(_)) => FAILED,
        (_, Some(_)) => PARTLY,
    }
}

/// Says what went wrong, if something did; the code to end with.
pub(crate) fn report(result: Result<u8, Failure>) -> ExitCode {
    let code = match result {
        Ok(code) => code,
        Err(Failure::ClosedPipe) => 0,
        Err(failure @ Failure::Error { code, .. }) => {
            say(&failure);
            code
        }
    };
    ExitCode::from(code)
}

/// A line of words on standard error. That nobody reads it is no reason to fail.
pub(crate) fn say(words: &dyn fmt::Display) {
    use io::Write as _;
    let _ = writeln!(io::stderr(), "{words}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::record;

    #[test]
    fn a_job_s_code_is_what_a_shell_would_see() {
        let code = |status: Status, exit: Option<i32>, signal: Option<i32>, reason: Option<Reason>| {
            let mut record = record("a");
            (record.status, record.exit_code, record.signal, record.reason) = (status, exit, signal, reason);
            job_code(&record)
        };
        assert_eq!(code(Status::Finished, Some(0), None, None), 0);
        assert_eq!(code(Status::Finished, Some(3), None, None), 3, "a success code of the job's own");
        assert_eq!(code(Status::Failed, Some(3), None, Some(Reason::Exit)), 3);
        assert_eq!(code(Status::Failed, None, Some(11), Some(Reason::Signal)), 139);
        assert_eq!(code(Status::Failed, None, Some(15), Some(Reason::Timeout)), 124);
        assert_eq!(code(Status::Stopped, None, Some(15), None), 143);
        assert_eq!(code(Status::Stopped, None, None, None), 125);
        assert_eq!(code(Status::FailedStart, None, None, Some(Reason::Exec)), 125);
        assert_eq!(code(Status::Cancelled, None, None, Some(Reason::User)), 125);
        assert_eq!(code(Status::Lost, None, None, Some(Reason::Reboot)), 125);
    }

    #[test]
    fn some_of_several_is_6_and_none_is_what_was_wrong_with_all() {
        let failure = |code| Failure::new(code, "x");
        assert_eq!(overall(2, &[]), 0);
        assert_eq!(overall(0, &[]), 0);
        assert_eq!(overall(0, &[failure(3), failure(3)]), 3);
        assert_eq!(overall(0, &[failure(3), failure(4)]), 1);
        assert_eq!(overall(1, &[failure(3)]), 6);
    }

    #[test]
    fn a_failure_names_its_causes_and_keeps_its_code_to_itself_where_a_job_s_is_expected() {
        let cause = io::Error::other("disk on fire");
        let failure = Failure::caused(UNAVAILABLE, "cannot open '/d'", &cause);
        assert_eq!(failure.to_string(), "error: cannot open '/d'\n  caused by: disk on fire");
        assert!(matches!(mirrored(Err(failure)), Err(Failure::Error { code: 125, .. })));
        assert!(matches!(mirrored(Ok(3)), Ok(3)));
        assert!(matches!(mirrored(Err(Failure::ClosedPipe)), Err(Failure::ClosedPipe)));
    }
}
