//! `nodejobs wait`: waits for the end of jobs.

use std::time::{Duration, Instant};

use clap::Args;
use nodejobs::api::ListQuery;
use nodejobs::client::Client;
use nodejobs::group::DEFAULT_GROUP;
use nodejobs::record::JobRecord;

use super::group::group_name;
use crate::connect::{Connection, Target};
use crate::exit::{Failure, NOT_FOUND, TIMEOUT, USAGE, job_code, mirrored, say};
use crate::output::{self, Format, outcome};
use crate::watch::{self, Until};
use nodejobs::units::{parse_duration, show_duration};

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Wait {
    /// Ids, unique beginnings of ids, or unique names
    #[arg(required_unless_present = "group", value_name = "ID")]
    jobs: Vec<String>,
    /// Wait until this group has no job any more that runs or waits
    #[arg(long, value_name = "NAME", value_parser = group_name, conflicts_with_all = ["jobs", "any"])]
    group: Option<String>,
    /// The first one that ends is enough
    #[arg(long)]
    any: bool,
    /// Wait at most so long, such as 500ms or 10m, and end with 124 if that was not enough [default: no limit]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

const AFTER_HELP: &str = "\
Examples:
  nodejobs wait ID && echo done
  nodejobs wait ID ID                 until all of them have ended
  nodejobs wait --any ID ID           until one of them has
  nodejobs wait --group train         until none of its jobs is left
  nodejobs wait --timeout 10m ID || echo not done, or failed
  nodejobs wait ID -o json | jq .status

The exit status is the job's own: its exit code, 128+N after signal N, 124 if the time was up, the job's or that of \
--timeout, and 125 if there is none (it never started, or was lost) or something here went wrong. For several jobs it is \
the first one that is not 0, in the order in which they are given; with --group, in that of their ends, and 0 if no job \
of the group was left.

How each job ended is said on standard error; with -o json their records go to standard output.";

impl Wait {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        mirrored(self.wait(target, format))
    }

    fn wait(&self, target: &Target, format: Format) -> Result<u8, Failure> {
        super::require_references(&self.jobs)?;
        let mut connection = target.connect()?;
        if let Some(group) = &self.group {
            return self.wait_for_group(&mut connection, group, format);
        }
        let mut jobs = self.jobs.clone();
        if jobs.len() > 1 {
            // Answers come under ids, in the order of their ends; only ids tell which is which.
            for job in &mut jobs {
                *job = connection.ask(|client| client.job(job))?.self_id.to_string();
            }
            let mut seen = std::collections::BTreeSet::new();
            jobs.retain(|job| seen.insert(job.clone()));
        }
        let until = Until { any: self.any, timeout: self.timeout };
        let waited = watch::wait(&mut connection, &jobs, until, |record| tell(record, format))?;
        let Some(mut records) = waited else { return Ok(self.timed_out()) };
        records.sort_by_key(|record| jobs.iter().position(|job| job == record.self_id.as_str()));
        if format == Format::Json {
            match (self.jobs.len(), records.as_slice()) {
                (1, [record]) => output::print_json(record)?,
                (_, records) => output::print_json(&records)?,
            }
        }
        Ok(first_failure(&records))
    }
}

impl Wait {
    fn wait_for_group(
        &self,
        connection: &mut Connection<'_>,
        group: &str,
        format: Format,
    ) -> Result<u8, Failure> {
        let deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let known = connection.ask(Client::groups)?;
        if !known.iter().any(|known| known.name == group) {
            let message = format!("there is no group '{group}'; `nodejobs group ls` lists them");
            return Err(Failure::new(NOT_FOUND, message));
        }
        let mut records = Vec::new();
        loop {
            let jobs = live_jobs(connection, group)?;
            if jobs.is_empty() {
                break;
            }
            let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let until = Until { any: false, timeout };
            match watch::wait(connection, &jobs, until, |record| tell(record, format))? {
                Some(more) => records.extend(more),
                None => return Ok(self.timed_out()),
            }
        }
        if format == Format::Json {
            output::print_json(&records)?;
        }
        Ok(first_failure(&records))
    }

    fn timed_out(&self) -> u8 {
        let timeout =
            show_duration(u64::try_from(self.timeout.unwrap_or_default().as_millis()).unwrap_or(u64::MAX));
        say(&format_args!("error: not ended within {timeout}; the jobs run on"));
        TIMEOUT
    }
}

/// The ids of those of a group that have not ended.
fn live_jobs(connection: &mut Connection<'_>, group: &str) -> Result<Vec<String>, Failure> {
    let mut query =
        ListQuery::live_of_group(group).map_err(|error| Failure::new(USAGE, error.to_string()))?;
    let mut jobs = Vec::new();
    loop {
        let page = connection.ask(|client| client.list(&query))?;
        let is_of = |job: &&JobRecord| job.group.as_deref().unwrap_or(DEFAULT_GROUP) == group;
        jobs.extend(page.jobs.iter().filter(is_of).map(|job| job.self_id.to_string()));
        query.after = page.next;
        if page.next.is_none() {
            return Ok(jobs);
        }
    }
}

fn tell(record: &JobRecord, format: Format) -> Result<(), Failure> {
    match format {
        Format::Table => {
            say(&format_args!("{}: {}", record.self_id, outcome(record)));
            Ok(())
        }
        Format::Jsonl => output::print_json(record),
        Format::Json => Ok(()),
    }
}

fn first_failure(records: &[JobRecord]) -> u8 {
    records.iter().map(job_code).find(|code| *code != 0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use nodejobs::Status;

    use super::*;
    use crate::output::tests::record;

    #[test]
    fn the_first_code_that_is_not_0_counts() {
        let failed = |code| {
            let mut record = record("f");
            (record.status, record.exit_code) = (Status::Failed, Some(code));
            record
        };
        assert_eq!(first_failure(&[record("a"), record("b")]), 0);
        assert_eq!(first_failure(&[record("a"), failed(4), failed(3)]), 4);
    }
}
