//! `nodejobs rm`: forgets ended jobs.

use clap::Args;
use nodejobs::api::JobsRequest;

use crate::connect::Target;
use crate::exit::Failure;
use crate::output::Format;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rm {
    /// Ids, unique beginnings of ids, or unique names
    #[arg(required = true, value_name = "ID")]
    jobs: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs rm ID ID
  nodejobs stop ID && nodejobs rm ID  a running job has to be stopped first

Log files that were named with --logfile stay. Ids are free again; generated ones are not given a second time.

Exit status: 0 if each of them is gone; 3 if there is no such job; 4 if one has not ended; 6 if only some of several are \
gone.";

impl Rm {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        super::require_references(&self.jobs)?;
        let request = JobsRequest { jobs: self.jobs };
        let answer = target.connect()?.ask(|client| client.remove(&request))?;
        super::action::tell(&answer.results, format, |_| "removed".to_owned())
    }
}
