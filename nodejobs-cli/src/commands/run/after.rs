//! The options of `run` and `edit` that say which other jobs a job waits for.

use clap::{Args, ValueEnum};
use nodejobs::spec::{AfterRequest, Awaited, Unmet};

const AFTER: &str = "After other jobs, and once";

#[derive(Args, Debug)]
pub(crate) struct AfterOptions {
    /// Start it once this job has ended, and if it has succeeded; ID:failure or ID:any say otherwise. May be repeated
    #[arg(long, value_name = "ID[:CONDITION]|group:NAME[:CONDITION]", help_heading = AFTER)]
    pub(crate) after: Vec<Awaited>,
    /// What becomes of it when one of them has ended otherwise: it is cancelled, or waits until that is run again
    #[arg(long, value_name = "cancel|wait", requires = "after", help_heading = AFTER, hide_possible_values = true)]
    if_unmet: Option<IfUnmet>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IfUnmet {
    Cancel,
    Wait,
}

impl AfterOptions {
    /// What was asked for, if anything was.
    pub(crate) fn request(self) -> Option<AfterRequest> {
        let unmet = match self.if_unmet {
            Some(IfUnmet::Wait) => Unmet::Wait,
            Some(IfUnmet::Cancel) | None => Unmet::Cancel,
        };
        (!self.after.is_empty()).then_some(AfterRequest { on: self.after, unmet })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::Cli;

    #[test]
    fn what_is_no_dependency_is_a_usage_error() {
        for (arguments, said) in [
            (&["--after", ""][..], "no job in it"),
            (&["--after", "a:sucess"], "'sucess' is not a condition; one of success, failure, any"),
            (&["--if-unmet", "wait"], "--after"),
            (&["--after", "a", "--if-unmet", "hope"], "'hope'"),
            (&["--window", "5m"], "--unique"),
            (&["--backoff", "1s"], "--retries"),
            (&["--park-after", "2"], "--retries"),
            (&["--retries", "2", "--park-after", "1"], "2 or more"),
            (&["--retries", "-1"], "-1"),
            (&["--retries", "2", "--backoff", "5m..1s"], "5m..1s"),
            (&["--retries", "2", "--restart", "always"], "--restart"),
        ] {
            let refused = Cli::try_parse_from(["nodejobs", "run"].iter().chain(arguments).chain(&["true"]));
            let refused = refused.expect_err(said);
            assert_eq!(refused.exit_code(), 2);
            assert!(refused.to_string().contains(said), "{refused}");
        }
    }
}
