//! Printing: tables, blocks and sentences for people, JSON for programs.

mod block;
mod columns;
mod schedules;
mod table;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write};

use clap::ValueEnum;
use nodejobs::record::JobRecord;
use nodejobs::signal::Signal;
use nodejobs::units::show_duration;
use nodejobs::{Reason, Status};
use serde::Serialize;

pub(crate) use block::{daemon_block, record_block, store_block, values};
pub(crate) use columns::columns;
pub(crate) use schedules::{next_sentence, schedule_block, schedule_table};
pub(crate) use table::JobTable;

use crate::exit::{Failure, USAGE};
use crate::readable::printable;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // Documented variants would make a long list of every help page.
    #[default]
    Table,
    Json,
    Jsonl,
}

impl Format {
    /// Refuses JSON where the output is a job's own.
    pub(crate) fn require_table(self, command: &str) -> Result<(), Failure> {
        match self {
            Format::Table => Ok(()),
            Format::Json | Format::Jsonl => {
                let message =
                    format!("`{command}` writes the job's own output, which is not JSON; leave out -o");
                Err(Failure::new(USAGE, message))
            }
        }
    }

    /// Refuses one document where there is no end to wait for.
    pub(crate) fn require_stream(self, command: &str) -> Result<(), Failure> {
        match self {
            Format::Table | Format::Jsonl => Ok(()),
            Format::Json => {
                let message =
                    format!("`{command}` does not end, so it cannot be one JSON document; use -o jsonl");
                Err(Failure::new(USAGE, message))
            }
        }
    }
}

/// Writes to standard output, all of it and at once.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| Failure::output(&error))
}

/// Writes one JSON document and a line break.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&(json(value)? + "\n"))
}

/// A value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|error| Failure::caused(crate::exit::FAILED, "cannot write JSON", &error))
}

/// What standard output is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// Columns of the terminal; `None` where there is none, and lines may be as long as they like.
    pub(crate) width: Option<usize>,
    /// Whether colours are welcome.
    pub(crate) colour: bool,
}

impl Screen {
    /// The real one.
    pub(crate) fn of_stdout() -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let colour = Self::has_colour(is_terminal);
        if !is_terminal {
            return Self { width: None, colour };
        }
        let width = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
        Self { width: Some(if width == 0 { 80 } else { width }), colour }
    }

    /// Whether colours are welcome on an output that is a terminal or not.
    pub(crate) fn has_colour(is_terminal: bool) -> bool {
        wants_colour(is_terminal, |name| std::env::var_os(name))
    }

    /// The text in the colour of the status, if colours are welcome.
    fn paint(self, status: Status, text: &str) -> String {
        let colour = match status {
            Status::Queued | Status::Starting | Status::Restarting => "36",
            Status::Running => "32",
            Status::Paused | Status::Stopping | Status::Lost => "33",
            Status::Failed | Status::FailedStart | Status::FailedStop => "31",
            Status::Finished | Status::Stopped | Status::Cancelled => return text.to_owned(),
        };
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Whether colours are welcome, by the usual variables (no-color.org, bixense.com/clicolors).
fn wants_colour(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let value = |name| variable(name).filter(|value| !value.is_empty());
    if value("NO_COLOR").is_some() {
        return false;
    }
    if value("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        return true;
    }
    let refused = value("CLICOLOR").is_some_and(|value| value == "0")
        || value("TERM").is_some_and(|value| value == "dumb");
    is_terminal && !refused
}

/// How it ended, in one line: `failed, exit code 3, after 1.2s`, `stopped by SIGTERM after 1.2s (also ended: 7 (sleep))`.
pub(crate) fn outcome(record: &JobRecord) -> String {
    let mut text = record.status.to_string();
    let mut facts = Vec::new();
    match (record.exit_code, record.signal) {
        (Some(code), _) => facts.push(format!("exit code {code}")),
        (None, Some(number)) => text.push_str(&format!(" by {}", signal_name(number))),
        (None, None) => {}
    }
    if record.core_dumped == Some(true) {
        facts.push("core dumped".to_owned());
    }
    let has_exit = record.exit_code.is_some() || record.signal.is_some();
    match record.reason {
        // The exit code or the signal was said.
        Some(Reason::Exit | Reason::Signal) | None => {}
        // Who else would have: `cancelled` says as much.
        Some(Reason::User) => {}
        // What never ran or was lost is explained by its detail.
        Some(_) if !has_exit && record.detail.is_some() => {}
        Some(reason) => facts.push(reason.to_string()),
    }
    for fact in &facts {
        text.push_str(&format!(", {fact}"));
    }
    let ran = record.runtime_ms.filter(|_| record.started_at.is_some());
    if let Some(millis) = ran {
        let comma = if facts.is_empty() { "" } else { "," };
        let how_long = if record.ended_at.is_some() { "after" } else { "for" };
        text.push_str(&format!("{comma} {how_long} {}", show_duration(millis)));
    }
    match record.detail.as_deref().map(printable) {
        // SIGKILL says as much.
        Some(detail) if detail == "killed" && record.signal == Some(SIGKILL) => {}
        Some(detail) if has_exit || ran.is_some() => text.push_str(&format!(" ({detail})")),
        Some(detail) => text.push_str(&format!(": {detail}")),
        None => {}
    }
    text
}

const SIGKILL: i32 = 9;

pub(crate) fn signal_name(number: i32) -> String {
    Signal::from_number(number).map_or_else(|_| format!("signal {number}"), |signal| signal.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use nodejobs::Timestamp;

    use super::*;

    /// A job that finished.
    pub(crate) fn record(id: &str) -> JobRecord {
        let record = json!({
            "self_id": id, "seq": 1, "name": null, "status": "finished", "reason": null, "detail": null,
            "command": {"argv": ["make", "all"]}, "attempt": 1, "restarts": 0, "last_pid": 7, "exit_code": 0,
            "signal": null, "core_dumped": null, "created_at": "2026-07-14T03:33:20.000Z",
            "started_at": "2026-07-14T03:33:20.100Z", "ended_at": "2026-07-14T03:33:21.350Z",
            "last_update": "2026-07-14T03:33:21.351Z", "runtime_ms": 1250, "dirname": "src", "cwd": "/home/u/src",
            "logdir": "/d/logs", "logfile": "/d/logs/00/x.1.out", "group": null, "priority": 0, "slots": 1,
            "labels": {}, "waiting_on": null, "memory_mb": null, "cpu_percent": null, "peak_memory_mb": 2.5,
            "cpu_ms": 12, "log_bytes": null,
        });
        serde_json::from_value(record).expect("a record")
    }

    /// Three minutes after [`record`] was started.
    pub(crate) fn noon() -> Timestamp {
        "2026-07-14T03:36:20.500Z".parse().expect("a time")
    }

    #[test]
    fn an_outcome_is_one_line() {
        let mut record = record("a");
        assert_eq!(outcome(&record), "finished, exit code 0, after 1.2s");
        (record.status, record.exit_code, record.reason) = (Status::Failed, Some(3), Some(Reason::Exit));
        assert_eq!(outcome(&record), "failed, exit code 3, after 1.2s");
        (record.exit_code, record.signal, record.core_dumped) = (None, Some(11), Some(true));
        assert_eq!(outcome(&record), "failed by SIGSEGV, core dumped, after 1.2s");
        (record.reason, record.core_dumped) = (Some(Reason::Timeout), None);
        assert_eq!(outcome(&record), "failed by SIGSEGV, timeout, after 1.2s");
        record.signal = None;
        assert_eq!(outcome(&record), "failed, timeout, after 1.2s");
        (record.status, record.reason, record.started_at) = (Status::FailedStart, Some(Reason::Exec), None);
        record.detail = Some("cannot execute\n'/x'".to_owned());
        assert_eq!(outcome(&record), "failed_start: cannot execute '/x'");
    }

    #[test]
    fn the_runtime_comes_before_what_else_there_is_to_say() {
        let mut record = record("a");
        record.detail = Some("also ended: 7779 (sleep)".to_owned());
        assert_eq!(outcome(&record), "finished, exit code 0, after 1.2s (also ended: 7779 (sleep))");
        (record.status, record.exit_code, record.signal) = (Status::Stopped, None, Some(9));
        record.detail = Some("killed; also ended: 9 (sleep)".to_owned());
        assert_eq!(outcome(&record), "stopped by SIGKILL after 1.2s (killed; also ended: 9 (sleep))");
        record.detail = Some("killed".to_owned());
        assert_eq!(outcome(&record), "stopped by SIGKILL after 1.2s");
        record.signal = Some(15);
        assert_eq!(outcome(&record), "stopped by SIGTERM after 1.2s (killed)");
        (record.status, record.signal) = (Status::FailedStop, None);
        (record.runtime_ms, record.ended_at) = (None, None);
        record.detail = Some("could not be killed: 77 (stuck)".to_owned());
        assert_eq!(outcome(&record), "failed_stop: could not be killed: 77 (stuck)");
        (record.status, record.reason) = (Status::Lost, Some(Reason::Reboot));
        record.detail = None;
        assert_eq!(outcome(&record), "lost, reboot");
        (record.status, record.reason) = (Status::Cancelled, Some(Reason::User));
        assert_eq!(outcome(&record), "cancelled");
    }

    #[test]
    fn what_has_not_ended_has_lasted_so_long() {
        let mut record = record("a");
        (record.status, record.exit_code, record.ended_at) = (Status::Paused, None, None);
        assert_eq!(outcome(&record), "paused for 1.2s");
    }

    #[test]
    fn colours_are_for_terminals_unless_variables_say_otherwise() {
        let wants = |is_terminal, set: &[(&str, &str)]| {
            wants_colour(is_terminal, |name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            })
        };
        assert!(wants(true, &[]) && wants(true, &[("NO_COLOR", ""), ("CLICOLOR", "1"), ("TERM", "xterm")]));
        assert!(!wants(false, &[]) && !wants(false, &[("CLICOLOR", "1"), ("CLICOLOR_FORCE", "0")]));
        for refusal in [("NO_COLOR", "1"), ("CLICOLOR", "0"), ("TERM", "dumb")] {
            assert!(!wants(true, &[refusal]), "{refusal:?}");
        }
        assert!(wants(false, &[("CLICOLOR_FORCE", "1"), ("TERM", "dumb"), ("CLICOLOR", "0")]));
        assert!(!wants(true, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    }
}
