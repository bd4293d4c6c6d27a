//! `nodejobs status`: shows jobs.

use clap::Args;
use nodejobs::api::StatusQuery;

use crate::connect::Target;
use crate::exit::{Failure, overall, say};
use crate::output::{self, Format, Screen, record_block};
use crate::readable::now;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    /// Ids, unique beginnings of ids, or unique names
    #[arg(required = true, value_name = "ID")]
    jobs: Vec<String>,
    /// Look at the processes of running jobs, and show the memory and processor time that they use now
    #[arg(long)]
    usage: bool,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs status ID
  nodejobs status ID ID
  nodejobs status ID -o json | jq .exit_code
  nodejobs status --usage ID                 what its processes use now

With -o json one ID gives its record, several give an array of records.

Exit status: 0 if all of them were found, 3 if there is no such job, 6 if only some of several were found.";

impl Status {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        super::require_references(&self.jobs)?;
        let mut connection = target.connect()?;
        let (mut records, mut failures) = (Vec::new(), Vec::new());
        let query = StatusQuery { usage: self.usage };
        for job in &self.jobs {
            match connection.ask(|client| client.job_with(job, &query)) {
                Ok(record) => records.push(record),
                Err(failure) => failures.push(failure),
            }
        }
        match (format, records.as_slice()) {
            (Format::Json, [record]) if self.jobs.len() == 1 => output::print_json(record)?,
            (Format::Json, _) if self.jobs.len() == 1 => {}
            (Format::Json, records) => output::print_json(&records)?,
            (Format::Jsonl, records) => records.iter().try_for_each(output::print_json)?,
            (Format::Table, records) => {
                let (screen, now) = (Screen::of_stdout(), now());
                let blocks: Vec<_> = records.iter().map(|record| record_block(record, screen, now)).collect();
                output::print(&blocks.join("\n"))?;
            }
        }
        failures.iter().for_each(|failure| say(failure));
        Ok(overall(records.len(), &failures))
    }
}
