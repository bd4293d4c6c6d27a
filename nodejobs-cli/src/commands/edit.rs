//! `nodejobs edit`: changes a job that is still queued.

use clap::Args;
use nodejobs::spec::AfterRequest;

use super::run::AfterOptions;
use crate::connect::Target;
use crate::exit::{Failure, USAGE};
use crate::output::{self, Format};

/// Change a job that is still queued
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Edit {
    /// An id, a unique beginning of one, or a unique name
    #[arg(value_name = "ID")]
    job: String,
    #[command(flatten)]
    after: AfterOptions,
    /// Let it wait for no other job
    #[arg(long, conflicts_with = "after")]
    no_after: bool,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs edit ID --after build --after tests:any  it waits for these instead
  nodejobs edit ID --no-after                       it waits for nobody

Exit status: 0 if it is changed; 2 if it would wait for itself; 3 if there is no such job; 4 if it is not queued any \
more.";

impl Edit {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        super::require_references(std::slice::from_ref(&self.job))?;
        let after = match (self.after.request(), self.no_after) {
            (Some(after), _) => after,
            (None, true) => AfterRequest::default(),
            (None, false) => {
                let message = "say what is to change: --after or --no-after";
                return Err(Failure::new(USAGE, message));
            }
        };
        let record = target.connect()?.ask(|client| client.set_dependencies(&self.job, &after))?;
        match format {
            Format::Table => output::print(&format!("{}: changed\n", record.self_id))?,
            Format::Json | Format::Jsonl => output::print_json(&record)?,
        }
        Ok(0)
    }
}
