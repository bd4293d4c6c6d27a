//! `nodejobs history`: shows all attempts of a job.

use clap::Args;
use nodejobs::record::JobRecord;

use crate::connect::Target;
use crate::exit::Failure;
use crate::output::{self, Format, outcome};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct History {
    /// An id, a unique beginning of one, or a unique name
    #[arg(value_name = "ID")]
    job: String,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs history ID
  nodejobs history ID -o json | jq '.[].exit_code'
  nodejobs logs --attempt 1 ID        what an attempt wrote

With -o json it is an array of records like those of `status`, one for each attempt.";

impl History {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        super::require_references(std::slice::from_ref(&self.job))?;
        let records = target.connect()?.ask(|client| client.history(&self.job))?;
        match format {
            Format::Table => output::print(&table(&records))?,
            Format::Json => output::print_json(&records)?,
            Format::Jsonl => records.iter().try_for_each(output::print_json)?,
        }
        Ok(0)
    }
}

/// A time in RFC 3339 has 24 characters.
fn table(records: &[JobRecord]) -> String {
    let mut text = format!("{:<9}{:<26}OUTCOME\n", "ATTEMPT", "STARTED");
    for record in records {
        let started = record.started_at.map_or_else(|| "-".to_owned(), |time| time.to_string());
        text.push_str(&format!("{:<9}{started:<26}{}\n", record.attempt, outcome(record)));
    }
    text
}

#[cfg(test)]
mod tests {
    use nodejobs::{Reason, Status};

    use super::*;
    use crate::output::tests::record;

    #[test]
    fn each_attempt_is_a_line() {
        let mut second = record("a");
        (second.attempt, second.status, second.reason) = (2, Status::FailedStart, Some(Reason::Exec));
        (second.started_at, second.exit_code, second.runtime_ms) = (None, None, None);
        second.detail = Some("cannot execute '/x'".to_owned());
        let expected = "ATTEMPT  STARTED                   OUTCOME\n\
                        1        2026-07-14T03:33:20.100Z  finished, exit code 0, after 1.2s\n\
                        2        -                         failed_start: cannot execute '/x'\n";
        assert_eq!(table(&[record("a"), second]), expected);
    }
}
