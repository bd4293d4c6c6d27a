//! `nodejobs pause` and `nodejobs resume`: halt jobs, and let them go on.

use clap::Args;
use nodejobs::api::JobsRequest;

use crate::connect::Target;
use crate::exit::Failure;
use crate::output::Format;

#[derive(Args, Debug)]
#[command(after_help = PAUSE_HELP)]
pub(crate) struct Pause {
    #[command(flatten)]
    jobs: Jobs,
}

#[derive(Args, Debug)]
#[command(after_help = RESUME_HELP)]
pub(crate) struct Resume {
    #[command(flatten)]
    jobs: Jobs,
}

#[derive(Args, Debug)]
struct Jobs {
    /// Ids, unique beginnings of ids, or unique names
    #[arg(required = true, value_name = "ID")]
    jobs: Vec<String>,
}

const PAUSE_HELP: &str = "\
Examples:
  nodejobs pause ID
  nodejobs resume ID                  let it go on
  nodejobs stop ID                    end it; this works while it is paused, too

All its processes get SIGSTOP. They keep their memory, and the job's --timeout goes on.

Exit status: 0 if all of them are paused, 3 if there is no such job, 4 if one does not run, 6 if only some of several are.";

const RESUME_HELP: &str = "\
Examples:
  nodejobs resume ID ID

Exit status: 0 if all of them run, 3 if there is no such job, 4 if one has ended or not begun, 6 if only some of several do.";

impl Pause {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        let request = self.jobs.request()?;
        let answer = target.connect()?.ask(|client| client.pause(&request))?;
        super::action::tell(&answer.results, format, |record| record.status.to_string())
    }
}

impl Resume {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        let request = self.jobs.request()?;
        let answer = target.connect()?.ask(|client| client.resume(&request))?;
        super::action::tell(&answer.results, format, |record| record.status.to_string())
    }
}

impl Jobs {
    fn request(self) -> Result<JobsRequest, Failure> {
        super::require_references(&self.jobs)?;
        Ok(JobsRequest { jobs: self.jobs })
    }
}
