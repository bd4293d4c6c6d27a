//! `nodejobs restart`: begins the next attempt of jobs.

use clap::Args;
use nodejobs::api::RestartRequest;
use nodejobs::new_submit_key;

use super::stop::HowToStop;
use crate::connect::Target;
use crate::exit::{FAILED, Failure};
use crate::output::Format;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Restart {
    /// Ids, unique beginnings of ids, or unique names
    #[arg(required = true, value_name = "ID")]
    jobs: Vec<String>,
    #[command(flatten)]
    how: HowToStop,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs restart ID
  nodejobs restart --grace 30s ID ID  stop both within 30 seconds, start both again
  nodejobs history ID                 its attempts so far

A job that runs is stopped first, with everything it started; one that waits to be started waits no longer. The next attempt has the command, environment and options of \
the last one. Whoever waits for the job goes on waiting for that attempt. Earlier attempts and their output stay: \
`nodejobs logs --attempt N`.

Exit status: 0 if each of them was started again; 3 if there is no such job; 4 if one was stopped \
meanwhile; 6 if only some of several were.";

impl Restart {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        super::require_references(&self.jobs)?;
        let submit_key = new_submit_key()
            .map_err(|error| Failure::caused(FAILED, "the kernel gives no random bytes", &error))?;
        let request = RestartRequest {
            jobs: self.jobs,
            submit_key,
            signal: self.how.signal,
            grace_ms: self.how.grace_ms(),
            force: self.how.force,
            ..RestartRequest::default()
        };
        let answer = target.connect()?.ask(|client| client.restart(&request))?;
        super::action::tell(&answer.results, format, |record| format!("attempt {}", record.attempt))
    }
}
