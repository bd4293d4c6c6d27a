//! The statuses of an attempt and the one table of legal moves between them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where an attempt stands. A job's status is that of its newest attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted; waits for something the record names.
    Queued,
    /// The intent to launch is on disk.
    Starting,
    /// The program was executed and has not ended.
    Running,
    /// Halted on request.
    Paused,
    /// Asked to end.
    Stopping,
    /// Survivors could not be killed; they are still watched.
    FailedStop,
    /// Between two attempts: the last one has ended, and this one waits until it is due.
    Restarting,
    /// Ended with an exit code of the success set. Final.
    Finished,
    /// Ended otherwise by itself, by a signal, a timeout or a limit. Final.
    Failed,
    /// The program was never executed. Final.
    FailedStart,
    /// Ended because somebody asked. Final.
    Stopped,
    /// Never started, and never will be. Final.
    Cancelled,
    /// The outcome cannot be known. Final.
    Lost,
}

/// A text that names no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a status; one of {list}", list = Status::ALL.map(Status::as_str).join(", "))]
pub struct UnknownStatus(String);

impl Status {
    /// All of them, live ones first.
    pub const ALL: [Status; 13] = [
        Status::Queued,
        Status::Starting,
        Status::Running,
        Status::Paused,
        Status::Stopping,
        Status::FailedStop,
        Status::Restarting,
        Status::Finished,
        Status::Failed,
        Status::FailedStart,
        Status::Stopped,
        Status::Cancelled,
        Status::Lost,
    ];

    /// The name in records, listings and stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Starting => "starting",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopping => "stopping",
            Status::FailedStop => "failed_stop",
            Status::Restarting => "restarting",
            Status::Finished => "finished",
            Status::Failed => "failed",
            Status::FailedStart => "failed_start",
            Status::Stopped => "stopped",
            Status::Cancelled => "cancelled",
            Status::Lost => "lost",
        }
    }

    /// Whether this is an attempt's last word.
    pub const fn is_terminal(self) -> bool {
        match self {
            Status::Finished
            | Status::Failed
            | Status::FailedStart
            | Status::Stopped
            | Status::Cancelled
            | Status::Lost => true,
            Status::Queued
            | Status::Starting
            | Status::Running
            | Status::Paused
            | Status::Stopping
            | Status::FailedStop
            | Status::Restarting => false,
        }
    }

    /// Whether a job may go from this status to that one. Staying where it is is no move.
    ///
    /// Most moves are of one attempt. To `restarting` it comes with the next: one commit gives an attempt its last status
    /// and begins that which its policy has follow, and which waits as `restarting` until it is due.
    pub const fn may_become(self, next: Status) -> bool {
        use Status::*;
        match self {
            Queued => matches!(next, Starting | Cancelled),
            // Back to the queue means that the machine had no room (EAGAIN, ENOMEM, EMFILE): no attempt is used.
            Starting => matches!(next, Running | FailedStart | Stopping | Lost | Queued),
            // To `failed_start` only if the start was told by a journal whose keeper did not answer, before it was known that
            // the program could not be executed.
            Running => {
                matches!(next, Paused | Stopping | Restarting | Finished | Failed | FailedStart | Lost)
            }
            Paused => {
                matches!(next, Running | Stopping | Restarting | Finished | Failed | FailedStart | Lost)
            }
            Stopping => matches!(next, Stopped | FailedStop | Lost),
            FailedStop => matches!(next, Stopped | Lost),
            Restarting => matches!(next, Queued | Stopped),
            Finished | Failed | FailedStart | Stopped | Cancelled | Lost => false,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

/// Why an attempt has its status, where the status alone does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Failed: an exit code outside the success set.
    Exit,
    /// Failed: ended by a signal that nobody asked us to send.
    Signal,
    /// Failed: its time was up.
    Timeout,
    /// Failed: it used more memory than it may.
    Memory,
    /// Failed to start: the program could not be executed.
    Exec,
    /// Failed to start: its working directory could not be entered.
    Cwd,
    /// Cancelled by a person or a program.
    User,
    /// Cancelled because a job it depends on did not end as required.
    Dependency,
    /// Failed: an array of which an element did not finish.
    Element,
    /// Cancelled: a schedule left it out.
    Schedule,
    /// Lost: the machine restarted.
    Reboot,
    /// Lost: nobody was there to see the end.
    Unknown,
}

impl Reason {
    const ALL: [Reason; 12] = [
        Reason::Exit,
        Reason::Signal,
        Reason::Timeout,
        Reason::Memory,
        Reason::Exec,
        Reason::Cwd,
        Reason::User,
        Reason::Dependency,
        Reason::Element,
        Reason::Schedule,
        Reason::Reboot,
        Reason::Unknown,
    ];

    /// The name in records and stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Exit => "exit",
            Reason::Signal => "signal",
            Reason::Timeout => "timeout",
            Reason::Memory => "memory",
            Reason::Exec => "exec",
            Reason::Cwd => "cwd",
            Reason::User => "user",
            Reason::Dependency => "dependency",
            Reason::Element => "element",
            Reason::Schedule => "schedule",
            Reason::Reboot => "reboot",
            Reason::Unknown => "unknown",
        }
    }

    /// The reason of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Status::{self, *};

    /// The table of the design page, written down a second time so that a slip in either shows.
    const MOVES: [(Status, &[Status]); 13] = [
        (Queued, &[Starting, Cancelled]),
        (Starting, &[Running, FailedStart, Stopping, Lost, Queued]),
        (Running, &[Paused, Stopping, Restarting, Finished, Failed, FailedStart, Lost]),
        (Paused, &[Running, Stopping, Restarting, Finished, Failed, FailedStart, Lost]),
        (Stopping, &[Stopped, FailedStop, Lost]),
        (FailedStop, &[Stopped, Lost]),
        (Restarting, &[Queued, Stopped]),
        (Finished, &[]),
        (Failed, &[]),
        (FailedStart, &[]),
        (Stopped, &[]),
        (Cancelled, &[]),
        (Lost, &[]),
    ];

    #[test]
    fn the_table_allows_exactly_the_documented_moves() {
        for (from, allowed) in MOVES {
            for to in Status::ALL {
                assert_eq!(from.may_become(to), allowed.contains(&to), "{from} -> {to}");
            }
        }
    }

    #[test]
    fn terminal_means_that_no_move_is_left() {
        for status in Status::ALL {
            let way_out = Status::ALL.into_iter().any(|next| status.may_become(next));
            assert_eq!(status.is_terminal(), !way_out, "{status}");
        }
    }

    #[test]
    fn names_parse_back_and_match_the_json() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_string(&status).expect("a name"), format!("\"{status}\""));
        }
        let error = "done".parse::<Status>().expect_err("no such status").to_string();
        assert!(error.contains("finished"), "{error}");
        for reason in super::Reason::ALL {
            assert_eq!(super::Reason::from_name(reason.as_str()), Some(reason));
        }
    }
}
