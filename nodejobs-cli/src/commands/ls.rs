//! `nodejobs ls`: lists jobs.

mod sort;

use std::path::PathBuf;

use clap::Args;
use nodejobs::api::{ListQuery, Order};
use nodejobs::array::LABEL;
use nodejobs::record::JobRecord;
use nodejobs::{Status, Timestamp};

use crate::connect::{Connection, Target};
use crate::exit::{Failure, USAGE, say};
use crate::output::{self, Format, JobTable, Screen};
use crate::readable::now;
use crate::times;
use sort::{SortKey, Top};

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
    /// Only jobs with this label, whatever its value or with this one; may be repeated, all have to be there
    #[arg(long = "label", value_name = "KEY[=VALUE]", value_parser = label)]
    labels: Vec<String>,
    /// Only jobs whose main process has, or had, this number
    #[arg(long, value_name = "N", value_parser = super::whole_number::<u32>)]
    pid: Option<u32>,
    /// Only jobs that ended with this exit code
    #[arg(long, value_name = "N", value_parser = super::whole_number::<i32>, allow_negative_numbers = true)]
    exit_code: Option<i32>,
    /// Only jobs that run in exactly this directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Only jobs submitted since then: how long ago, such as 1h30m or 7d, or a time
    #[arg(long, value_name = "TIME", value_parser = times::passed)]
    since: Option<Timestamp>,
    /// Only jobs submitted until then, written in the same way
    #[arg(long, value_name = "TIME", value_parser = times::passed)]
    until: Option<Timestamp>,
    /// Only the elements of this array
    #[arg(long, value_name = "ID", conflicts_with = "elements")]
    array: Option<String>,
    /// Also elements of arrays, which are left out otherwise
    #[arg(long)]
    elements: bool,
    /// Only jobs that meet this condition; may be repeated, all have to hold
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = condition)]
    filters: Vec<(String, String)>,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = ListQuery::DEFAULT_LIMIT, value_parser = limit)]
    limit: usize,
    /// Show all of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Go on behind the job with this number, in the order of submission
    #[arg(long, value_name = "SEQ", value_parser = super::whole_number::<u64>, conflicts_with = "sort")]
    after: Option<u64>,
    /// Sort by this, the smallest first, instead of by the order of submission
    #[arg(long, value_name = "KEY", value_enum, hide_possible_values = true)]
    sort: Option<SortKey>,
    /// Sort the other way round: the largest first, without --sort the first submitted first
    #[arg(long)]
    reverse: bool,
    /// List the first submitted first
    #[arg(long, conflicts_with_all = ["sort", "reverse"])]
    oldest_first: bool,
    /// Look at the processes of running jobs, and show the memory and processor time that they use now
    #[arg(long, conflicts_with = "quiet")]
    usage: bool,
    /// Print only ids, one a line
    #[arg(short, long)]
    quiet: bool,
}

const AFTER_HELP: &str = "\
Examples:
  nodejobs ls --status running,stopping
  nodejobs ls --label team=web --since 1h
  nodejobs ls --since 2026-07-14 --until \"2026-07-14 18:00\"
  nodejobs ls --sort runtime --reverse --limit 5     those that ran longest
  nodejobs ls --filter exit_code=1 --filter dirname=src
  nodejobs ls --status running --usage               what they use now
  nodejobs ls --array ID --status failed             elements of an array
  nodejobs ls -q --all --status failed | xargs -r nodejobs rm
  nodejobs ls --all -o json | jq -r '.[].self_id'

Keys of --filter:
  status                     queued, starting, running, paused, stopping,
                             failed_stop, restarting, finished, failed,
                             failed_start, stopped, cancelled, lost; any of
                             several with commas between them
  self_id, name, group       exactly this
  id_prefix                  an id that begins so
  label                      a label, as --label takes it
  cwd, dirname               its working directory; the last part of that
  logdir, logfile            where its output goes
  exit_code, last_pid        whole numbers
  is_element                 true or false: of an array
  created_from, created_until, started_from, started_until,
  ended_from, ended_until, last_update_from, last_update_until
                             times, such as 2026-07-14T03:33:20Z

Keys of --sort: id, name, status (living ones first), created, started, ended, last-update, runtime, exit-code, cpu-time, \
peak-memory, log-size. Jobs that have none of it come last, and equal ones newest first.

--since and --until are about the newest attempt of a job. Times without a date are the last such time, those without a \
zone are of the local clock; both ends count.

--usage shows what the whole tree of a job uses: %CPU is of one processor, over the last moment; MEMORY is what it has in \
memory, with its part of what it shares with others (PSS). Sorted by neither, and nobody looks when it is not asked for.

An array is one line, with how many of its elements have ended. They are shown with --array and --elements, and if an \
id, a process or their label (array=ID) is asked for; so it is with JSON.

If there are more jobs than --limit shows, standard error says with which --after the next part begins. It is the `seq` \
of the last job shown, so with -o json it is in the last record. With -o json the listing is one array, with -o jsonl a \
record a line; docs/json.md in the source describes every field.";

impl Ls {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        if self.quiet && format != Format::Table {
            return Err(Failure::new(USAGE, "--quiet prints ids, which are not JSON; leave out -o"));
        }
        let mut query = self.query()?;
        let left = if self.all { usize::MAX } else { self.limit };
        let mut connection = target.connect()?;
        let mut printer = Printer::new(format, self.quiet, self.usage);
        self.choose_elements(&mut connection, &mut query)?;
        match self.sort {
            None => in_order_of_submission(&mut connection, query, left, &mut printer)?,
            Some(key) => {
                let top = Top::new(key, self.reverse, left);
                sorted(&mut connection, query, top, &mut printer)?;
            }
        }
        Ok(0)
    }

    /// Of an array with 10,000 elements its own line says most; they are shown to those who ask for them.
    fn choose_elements(&self, connection: &mut Connection<'_>, query: &mut ListQuery) -> Result<(), Failure> {
        let refused = |error: nodejobs::filter::FilterError| Failure::new(USAGE, error.to_string());
        if let Some(reference) = &self.array {
            let record = array_of(connection, reference)?;
            let label = format!("{LABEL}={}", record.self_id);
            return query.require("label", &label).map_err(refused);
        }
        let filter = query.filter();
        let is_meant = |label: &(String, Option<String>)| label.0 == LABEL;
        let is_asked = self.elements
            || filter.is_element.is_some()
            || filter.self_id.is_some()
            || filter.last_pid.is_some()
            || filter.label.iter().any(is_meant)
            || filter.id_prefix.as_ref().is_some_and(|prefix| prefix.contains('.'));
        if is_asked { Ok(()) } else { query.require("is_element", "false").map_err(refused) }
    }

    fn query(&self) -> Result<ListQuery, Failure> {
        let mut query = ListQuery::default();
        query.after = self.after;
        query.usage = self.usage;
        if self.oldest_first || (self.reverse && self.sort.is_none()) {
            query.order = Order::OldestFirst;
        }
        let mut conditions: Vec<(&str, String)> = Vec::new();
        conditions.extend(self.status.iter().map(|status| ("status", status.to_string())));
        conditions.extend(self.name.iter().map(|name| ("name", name.clone())));
        conditions.extend(self.id_prefix.iter().map(|prefix| ("id_prefix", prefix.clone())));
        conditions.extend(self.labels.iter().map(|label| ("label", label.clone())));
        conditions.extend(self.pid.iter().map(|pid| ("last_pid", pid.to_string())));
        conditions.extend(self.exit_code.iter().map(|code| ("exit_code", code.to_string())));
        if let Some(cwd) = &self.cwd {
            let absolute = super::absolute_directory(cwd, "--cwd")?;
            let text = absolute.to_str().ok_or_else(|| {
                let message = format!("--cwd '{}' is not UTF-8, which no filter can be", absolute.display());
                Failure::new(USAGE, message)
            })?;
            conditions.push(("cwd", text.to_owned()));
        }
        conditions.extend(self.since.iter().map(|time| ("created_from", time.to_string())));
        conditions.extend(self.until.iter().map(|time| ("created_until", time.to_string())));
        conditions.extend(self.filters.iter().map(|(key, value)| (key.as_str(), value.clone())));
        for (key, value) in conditions {
            query.require(key, &value).map_err(|error| Failure::new(USAGE, error.to_string()))?;
        }
        Ok(query)
    }
}

/// The record of an array, and of nothing else.
pub(super) fn array_of(connection: &mut Connection<'_>, reference: &str) -> Result<JobRecord, Failure> {
    if reference.is_empty() {
        return Err(Failure::new(USAGE, "the id of an array is empty; `nodejobs ls` lists them"));
    }
    let record = connection.ask(|client| client.job(reference))?;
    if record.progress.is_none() {
        return Err(Failure::new(
            USAGE,
            format!("job '{}' is no array, so it has no elements", record.self_id),
        ));
    }
    Ok(record)
}

/// Prints each part as it comes.
fn in_order_of_submission(
    connection: &mut Connection<'_>,
    mut query: ListQuery,
    mut left: usize,
    printer: &mut Printer,
) -> Result<(), Failure> {
    loop {
        query.limit = left.min(ListQuery::MAX_LIMIT);
        let mut page = connection.ask(|client| client.list(&query))?;
        page.jobs.truncate(left);
        left -= page.jobs.len();
        printer.page(&page.jobs)?;
        query.after = page.next;
        if query.after.is_none() || left == 0 {
            break;
        }
    }
    printer.end()?;
    if let Some(next) = query.after {
        say(&format_args!(
            "note: there are more jobs; --limit N or --all shows them, --after {next} the next part"
        ));
    }
    Ok(())
}

/// Prints once all parts were seen, of which only those are kept that are to be printed.
fn sorted(
    connection: &mut Connection<'_>,
    mut query: ListQuery,
    mut top: Top,
    printer: &mut Printer,
) -> Result<(), Failure> {
    query.limit = ListQuery::MAX_LIMIT;
    loop {
        let page = connection.ask(|client| client.list(&query))?;
        page.jobs.into_iter().for_each(|job| top.push(job));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    let left_some_out = top.left_some_out();
    printer.page(&top.into_sorted())?;
    printer.end()?;
    if left_some_out {
        say(&"note: there are more jobs; --limit N or --all shows them");
    }
    Ok(())
}

/// Prints pages as they come, so that a long listing needs no memory.
struct Printer {
    format: Format,
    quiet: bool,
    table: JobTable,
    empty: bool,
}

impl Printer {
    fn new(format: Format, quiet: bool, usage: bool) -> Self {
        let table = JobTable::new(Screen::of_stdout(), now());
        Self { format, quiet, table: if usage { table.with_usage() } else { table }, empty: true }
    }

    fn page(&mut self, jobs: &[nodejobs::record::JobRecord]) -> Result<(), Failure> {
        let mut text = String::new();
        match self.format {
            Format::Table if self.quiet => {
                jobs.iter().for_each(|job| text.extend([job.self_id.as_str(), "\n"]));
            }
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
            (Format::Table, true) if !self.quiet => {
                say(&"no jobs");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn condition(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("there is no '=' in it; write KEY=VALUE")?;
    let mut query = ListQuery::default();
    query.require(key, value).map_err(|error| error.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn label(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('=') {
        return Err("a label has a key; write KEY or KEY=VALUE".to_owned());
    }
    Ok(text.to_owned())
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

    use clap::ValueEnum as _;

    use super::{AFTER_HELP, SortKey};
    use crate::cli::{Cli, Command};

    fn query(arguments: &[&str]) -> Result<Vec<(String, String)>, clap::Error> {
        match Cli::try_parse_from(["nodejobs", "ls"].iter().chain(arguments))?.command {
            Command::Ls(ls) => Ok(ls.0.query().expect("a query").to_pairs()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_become_conditions() {
        let written = |arguments: &[&str]| -> Vec<String> {
            let pairs = query(arguments).expect("a query");
            pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
        };
        let arguments =
            ["--status", "running,paused", "--name", "x", "--filter", "label=a=b", "--oldest-first"];
        let expected =
            ["status=running", "status=paused", "name=x", "label=a=b", "order=oldest_first", "limit=100"];
        assert_eq!(written(&arguments), expected);
        let arguments = [
            "--label=k",
            "--label=a=b=c",
            "--pid=7",
            "--exit-code=-1",
            "--cwd=/a/./b/",
            "--after=5",
            "--since=2026-07-14T03:33:20+02:00",
            "--until=2026-07-14T03:33:20Z",
            "--reverse",
        ];
        let expected = [
            "label=k",
            "label=a=b=c",
            "last_pid=7",
            "exit_code=-1",
            "cwd=/a/b",
            "created_from=2026-07-14T01:33:20.000Z",
            "created_until=2026-07-14T03:33:20.000Z",
            "order=oldest_first",
            "after=5",
            "limit=100",
        ];
        assert_eq!(written(&arguments), expected);
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(written(&["--cwd", "."])[0], format!("cwd={}", here.display()));
        assert!(written(&["--sort", "runtime", "--reverse"]).contains(&"order=newest_first".to_owned()));
    }

    #[test]
    fn the_help_has_every_filter_status_and_sort_key() {
        let statuses = nodejobs::Status::ALL.map(nodejobs::Status::as_str);
        let is_told = |word: &str| AFTER_HELP.split([' ', ',', ';', '.', '\n']).any(|told| told == word);
        for word in nodejobs::filter::JobFilter::KEYS.into_iter().chain(statuses) {
            assert!(is_told(word), "{word}");
        }
        for key in SortKey::value_variants() {
            let name = key.to_possible_value().expect("not hidden").get_name().to_owned();
            assert!(is_told(&name), "{name}");
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
            &["--label", ""],
            &["--label", "=x"],
            &["--pid", "-1"],
            &["--exit-code", "x"],
            &["--since", "yesterday"],
            &["--sort", "colour"],
            &["--sort", "id", "--after", "3"],
            &["--sort", "id", "--oldest-first"],
            &["a"],
        ] {
            assert_eq!(query(arguments).expect_err("refused").exit_code(), 2, "{arguments:?}");
        }
        let error = query(&["--filter", "colour=red"]).expect_err("no such key").to_string();
        assert!(error.contains("last_update_from"), "{error}");
    }
}
