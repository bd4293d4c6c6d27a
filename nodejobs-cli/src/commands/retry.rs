//! `nodejobs retry`: runs again what has ended.

use clap::Args;
use nodejobs::api::RestartRequest;
use nodejobs::new_submit_key;

use crate::connect::Target;
use crate::exit::{FAILED, Failure};
use crate::output::Format;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Retry {
    /// Ids, unique beginnings of ids, or unique names
    #[arg(required = true, value_name = "ID")]
    jobs: Vec<String>,
    /// Only what did not finish: of an array, only such elements
    #[arg(long)]
    failed: bool,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs retry --failed ID       of an array, what did not finish
  nodejobs retry ID                all of it, as `restart` does
  nodejobs retry ID.57             one element of an array that has ended

The next attempt of an array runs the elements that failed, were stopped, lost or never started, each as its own next \
attempt; those that finished count as they are. Its attempts are in `history`, and those of an element as well.

Exit status: 0 if each of them was started again; 3 if there is no such job; 4 if one has not ended, or has nothing to \
run again; 6 if only some of several were started.";

impl Retry {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        super::require_references(&self.jobs)?;
        let submit_key = new_submit_key()
            .map_err(|error| Failure::caused(FAILED, "the kernel gives no random bytes", &error))?;
        let request = RestartRequest {
            jobs: self.jobs,
            submit_key,
            failed: self.failed,
            ended: true,
            ..RestartRequest::default()
        };
        let answer = target.connect()?.ask(|client| client.restart(&request))?;
        super::action::tell(&answer.results, format, |record| match &record.progress {
            Some(counts) => format!(
                "attempt {}, {} of {} elements",
                record.attempt,
                counts.size - counts.ended(),
                counts.size
            ),
            None => format!("attempt {}", record.attempt),
        })
    }
}
