//! `nodejobs prune`: forgets many ended jobs.

use std::time::Duration;

use clap::Args;
use nodejobs::Status;
use nodejobs::api::{PruneAnswer, PruneRequest};
use nodejobs::units::parse_duration;

use super::ls::{condition, label};
use crate::connect::Target;
use crate::exit::{Failure, UNAVAILABLE, USAGE, say};
use crate::output::{self, Format, columns};
use crate::readable::{ago, now};

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Prune {
    /// Only jobs that ended longer ago than this, such as 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// Leave so many of them: those that were submitted last
    #[arg(long, value_name = "N", value_parser = super::whole_number::<u64>)]
    keep_last: Option<u64>,
    /// Only jobs with this status; several with commas between them
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<Status>,
    /// Only jobs of this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only jobs with this label, whatever its value or with this one; may be repeated, all have to be there
    #[arg(long = "label", value_name = "KEY[=VALUE]", value_parser = label)]
    labels: Vec<String>,
    /// Only jobs that meet this condition, see `nodejobs ls --help`; may be repeated, all have to hold
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = condition)]
    filters: Vec<(String, String)>,
    /// Only list what would go
    #[arg(long)]
    dry_run: bool,
}

const AFTER_HELP: &str = "\
Examples:
  nodejobs prune --dry-run                     all ended jobs
  nodejobs prune --older-than 7d
  nodejobs prune --status finished --keep-last 100
  nodejobs prune --label kind=test --older-than 1h

Without any condition all ended jobs go. Jobs that have not ended are never touched, whatever the conditions say; how many \
were left for that is said. Log files that were named with --logfile stay. `[history]` in config.toml has this done by itself; \
see `nodejobs config`.

Exit status: 0, also if nothing fits.";

impl Prune {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        let request = self.request()?;
        // Not sent again if the connection breaks: the second answer would not have what the first one removed.
        let answer = target.connect()?.client.prune(&request).map_err(|error| match error {
            error if error.is_broken() => {
                let message = "the daemon ended meanwhile, and some of the jobs are gone; prune again";
                Failure::caused(UNAVAILABLE, message, &error)
            }
            error => error.into(),
        })?;
        match format {
            Format::Table => tell(&answer)?,
            Format::Json | Format::Jsonl => output::print_json(&answer)?,
        }
        Ok(0)
    }

    fn request(self) -> Result<PruneRequest, Failure> {
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let mut request = PruneRequest {
            older_than_ms: self.older_than.map(millis),
            keep_last: self.keep_last,
            dry_run: self.dry_run,
            ..PruneRequest::default()
        };
        let mut conditions: Vec<(&str, String)> = Vec::new();
        conditions.extend(self.status.iter().map(|status| ("status", status.to_string())));
        conditions.extend(self.name.iter().map(|name| ("name", name.clone())));
        conditions.extend(self.labels.iter().map(|label| ("label", label.clone())));
        conditions.extend(self.filters.iter().map(|(key, value)| (key.as_str(), value.clone())));
        for (key, value) in conditions {
            request.require(key, &value).map_err(|error| Failure::new(USAGE, error.to_string()))?;
        }
        Ok(request)
    }
}

fn tell(answer: &PruneAnswer) -> Result<(), Failure> {
    let jobs = |count: u64| if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") };
    let count = jobs(answer.jobs.len() as u64);
    if answer.dry_run {
        if !answer.jobs.is_empty() {
            let row = |job: &nodejobs::api::PrunedJob| {
                let name = job.name.clone().unwrap_or_else(|| "-".to_owned());
                [job.self_id.to_string(), name, job.status.to_string(), ago(now(), job.last_update)]
            };
            let rows: Vec<_> = answer.jobs.iter().map(row).collect();
            output::print(&columns(["ID", "NAME", "STATUS", "ENDED"], &rows))?;
        }
        say(&format_args!("would remove {count}"));
    } else {
        output::print(&format!("removed {count}\n"))?;
    }
    match answer.living {
        0 => {}
        1 => say(&"left 1 job that fits and has not ended"),
        living => say(&format_args!("left {living} jobs that fit and have not ended")),
    }
    Ok(())
}
