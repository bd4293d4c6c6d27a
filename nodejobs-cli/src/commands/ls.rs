//! `nodejobs ls`: lists jobs.

use clap::Args;
use nodejobs::Status;
use nodejobs::api::{ListQuery, Order};

use crate::connect::Target;
use crate::exit::{Failure, USAGE, say};
use crate::output::{self, Format, JobTable, Screen};

/// List jobs, newest first
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Ls {
    /// Only jobs with this status, see below; several with commas between them
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<Status>,
    /// Only jobs of this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only jobs whose id begins so
    #[arg(long, value_name = "PREFIX")]
    id_prefix: Option<String>,
    /// Only jobs that meet this condition; may be repeated, all have to hold
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = condition)]
    filters: Vec<(String, String)>,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = ListQuery::DEFAULT_LIMIT, value_parser = limit)]
    limit: usize,
    /// Show all of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// List the first submitted first
    #[arg(long)]
    oldest_first: bool,
}

const AFTER_HELP: &str = "\
Keys of --filter:
  status                     queued, starting, running, stopping, failed_stop,
                             finished, failed, failed_start, stopped, cancelled,
                             lost; with a comma between several, any of them
  self_id, name              exactly this
  id_prefix                  an id that begins so
  cwd, dirname               its working directory; the last part of that
  logdir, logfile            where its output goes
  exit_code, last_pid        whole numbers
  created_from, created_until, started_from, started_until,
  ended_from, ended_until, last_update_from, last_update_until
                             times, such as 2026-07-14T03:33:20Z

Examples:
  nodejobs ls --status running,stopping
  nodejobs ls --filter exit_code=1 --filter dirname=src
  nodejobs ls --all --filter created_from=2026-07-14T00:00:00Z
  nodejobs ls --all -o json | jq -r '.[].self_id'";

impl Ls {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        let mut query = self.query()?;
        let mut left = if self.all { usize::MAX } else { self.limit };
        let mut connection = target.connect()?;
        let mut printer = Printer::new(format);
        loop {
            query.limit = left.min(ListQuery::MAX_LIMIT);
            let mut page = connection.ask(|client| client.list(&query))?;
            page.jobs.truncate(left);
            left -= page.jobs.len();
            printer.page(&page.jobs)?;
            match page.next {
                Some(next) if left > 0 => query.after = Some(next),
                next => {
                    printer.end()?;
                    if next.is_some() {
                        say(&format_args!("note: there are more jobs; --limit N or --all shows them"));
                    }
                    return Ok(0);
                }
            }
        }
    }

    fn query(&self) -> Result<ListQuery, Failure> {
        let mut query = ListQuery::default();
        if self.oldest_first {
            query.order = Order::OldestFirst;
        }
        let statuses = self.status.iter().map(|status| ("status", status.as_str()));
        let name = self.name.iter().map(|name| ("name", name.as_str()));
        let prefix = self.id_prefix.iter().map(|prefix| ("id_prefix", prefix.as_str()));
        let filters = self.filters.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        for (key, value) in statuses.chain(name).chain(prefix).chain(filters) {
            query.require(key, value).map_err(|error| Failure::new(USAGE, error.to_string()))?;
        }
        Ok(query)
    }
}

/// Prints pages as they come, so that a long listing needs no memory.
struct Printer {
    format: Format,
    table: JobTable,
    empty: bool,
}

impl Printer {
    fn new(format: Format) -> Self {
        Self { format, table: JobTable::new(Screen::of_stdout(), output::now()), empty: true }
    }

    fn page(&mut self, jobs: &[nodejobs::record::JobRecord]) -> Result<(), Failure> {
        let mut text = String::new();
        match self.format {
            Format::Table => text = self.table.render(jobs),
            Format::Json => {
                for (index, job) in jobs.iter().enumerate() {
                    text.push_str(if self.empty && index == 0 { "[" } else { ",\n " });
                    text.push_str(&output::json(job)?);
                }
            }
            Format::Jsonl => {
                for job in jobs {
                    text.push_str(&output::json(job)?);
                    text.push('\n');
                }
            }
        }
        self.empty &= jobs.is_empty();
        output::print(&text)
    }

    fn end(&self) -> Result<(), Failure> {
        match (self.format, self.empty) {
            (Format::Json, true) => output::print("[]\n"),
            (Format::Json, false) => output::print("]\n"),
            (Format::Table, true) => {
                say(&"no jobs");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn condition(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("there is no '=' in it; write KEY=VALUE")?;
    let mut query = ListQuery::default();
    query.require(key, value).map_err(|error| error.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("give at least 1".to_owned()),
        Ok(limit) => Ok(limit),
        Err(_) => Err("not a whole number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::AFTER_HELP;
    use crate::cli::{Cli, Command};

    fn query(arguments: &[&str]) -> Result<Vec<(String, String)>, clap::Error> {
        match Cli::try_parse_from(["nodejobs", "ls"].iter().chain(arguments))?.command {
            Command::Ls(ls) => Ok(ls.query().expect("a query").to_pairs()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_become_conditions() {
        let pairs =
            query(&["--status", "running,paused", "--name", "x", "--filter", "label=a=b", "--oldest-first"]);
        let pairs: Vec<_> =
            pairs.expect("a query").into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        let expected =
            ["status=running", "status=paused", "name=x", "label=a=b", "order=oldest_first", "limit=100"];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn the_help_has_every_filter_and_status() {
        // Nothing here groups, labels, pauses or restarts a job yet.
        let unset = ["group", "label", "paused", "restarting"];
        let statuses = nodejobs::Status::ALL.map(nodejobs::Status::as_str);
        for word in nodejobs::filter::JobFilter::KEYS.into_iter().chain(statuses) {
            let told = AFTER_HELP.split([' ', ',', ';', '\n']).any(|told| told == word);
            assert_eq!(told, !unset.contains(&word), "{word}");
        }
    }

    #[test]
    fn what_means_nothing_is_a_usage_error() {
        for arguments in [
            &["--status", "done"][..],
            &["--filter", "colour=red"],
            &["--filter", "name"],
            &["--filter", "last_pid=x"],
            &["--limit", "0"],
            &["--limit", "5", "--all"],
            &["a"],
        ] {
            assert_eq!(query(arguments).expect_err("refused").exit_code(), 2, "{arguments:?}");
        }
        let error = query(&["--filter", "colour=red"]).expect_err("no such key").to_string();
        assert!(error.contains("last_update_from"), "{error}");
    }
}
