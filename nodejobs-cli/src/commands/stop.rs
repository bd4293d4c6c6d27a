//! `nodejobs stop`: ends jobs.

use std::time::Duration;

use clap::Args;
use nodejobs::Status;
use nodejobs::api::{StopRequest, StopResult};
use nodejobs::signal::Signal;
use nodejobs::units::parse_duration;

use crate::connect::Target;
use crate::exit::{FAILED, Failure, overall, say};
use crate::output::{self, Format, outcome};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Stop {
    /// Ids, unique beginnings of ids, or unique names
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "ID")]
    jobs: Vec<String>,
    /// Stop all jobs that have not ended
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    how: HowToStop,
}

/// How living jobs are ended: `stop` and `restart` say it alike.
#[derive(Args, Debug)]
pub(crate) struct HowToStop {
    /// Kill at once, without asking
    #[arg(long, conflicts_with_all = ["signal", "grace"])]
    pub(crate) force: bool,
    /// The signal that asks a job to end, by name or number [default: its own, see `run`]
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) signal: Option<Signal>,
    /// How long it has to obey before it is killed, such as 500ms or 1m [default: its own, see `run`]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    grace: Option<Duration>,
}

impl HowToStop {
    pub(crate) fn grace_ms(&self) -> Option<u64> {
        self.grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX))
    }
}

const EXAMPLES: &str = "\
Examples:
  nodejobs stop ID
  nodejobs stop --grace 30s ID ID     ask both at once, kill after 30 seconds
  nodejobs stop --signal INT ID
  nodejobs stop --all --force

A job is asked by a signal to all its processes. What is left after the grace is killed.

Exit status: 0 if none of them runs any more, also when one had ended before; 1 if a process cannot be killed; 3 if there \
is no such job; 6 if only some of several could be stopped.";

impl Stop {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        super::require_references(&self.jobs)?;
        let request = StopRequest {
            jobs: self.jobs,
            all: self.all,
            signal: self.how.signal,
            grace_ms: self.how.grace_ms(),
            force: self.how.force,
        };
        let results = target.connect()?.ask(|client| client.stop(&request))?.results;
        match format {
            Format::Table => results.iter().try_for_each(print_result)?,
            Format::Json => output::print_json(&results)?,
            Format::Jsonl => results.iter().try_for_each(output::print_json)?,
        }
        if results.is_empty() {
            say(&"nothing to stop");
        }
        let failures: Vec<_> = results.iter().filter_map(failure).collect();
        failures.iter().for_each(|failure| say(failure));
        Ok(overall(results.len() - failures.len(), &failures))
    }
}

fn print_result(result: &StopResult) -> Result<(), Failure> {
    match result {
        StopResult::Done { record, already_ended: true, .. } => {
            say(&format_args!("{}: already ended ({})", record.self_id, outcome(record)));
            Ok(())
        }
        StopResult::Done { record, .. } if record.status != Status::FailedStop => {
            output::print(&format!("{}: {}\n", record.self_id, outcome(record)))
        }
        // Failures are said at the end, in every format.
        StopResult::Done { .. } | StopResult::Refused { .. } => Ok(()),
    }
}

fn failure(result: &StopResult) -> Option<Failure> {
    match result {
        StopResult::Refused { error, .. } => Some(error.clone().into()),
        StopResult::Done { record, .. } if record.status == Status::FailedStop => {
            Some(Failure::new(FAILED, format!("{}: {}", record.self_id, outcome(record))))
        }
        StopResult::Done { .. } => None,
    }
}
