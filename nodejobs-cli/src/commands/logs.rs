//! `nodejobs logs`: shows what jobs wrote.

mod doubt;
mod lines;
mod matcher;
mod printer;
mod several;
mod split;

use std::io::{self, Read, Write};

use clap::Args;
use nodejobs::Timestamp;
use nodejobs::api::{BindEvent, BindQuery, BindToken, FollowQuery, LogQuery, LogStream};
use nodejobs::record::JobRecord;

use crate::connect::{Connection, Target};
use crate::exit::{Failure, UNAVAILABLE, USAGE, job_code, mirrored, overall, say};
use crate::output::{Format, outcome};
use crate::{times, watch};

use super::run::say_next;
use doubt::Doubts;
use lines::JsonPrinter;
use matcher::Matcher;
pub(crate) use printer::Printer;
use printer::{LinePrinter, Wanted};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Logs {
    /// Ids, unique beginnings of ids, or unique names
    #[arg(required = true, value_name = "ID")]
    jobs: Vec<String>,
    /// Only the last N lines of each stream [default: all]
    #[arg(long, value_name = "N", value_parser = super::whole_number::<u64>)]
    tail: Option<u64>,
    /// Show more as it is written, also by the attempts that follow this one, and end with the job and its exit code;
    /// with --attempt, only by that one
    #[arg(short, long)]
    follow: bool,
    /// Only its standard error, on our standard output
    #[arg(long)]
    stderr: bool,
    /// Output of an earlier attempt, counted from 1 [default: the newest]
    #[arg(long, value_name = "N", value_parser = attempt)]
    attempt: Option<u32>,
    /// Go on behind the line of `logs -o jsonl` that had this token, in the attempt that it is about
    #[arg(long, value_name = "TOKEN", value_parser = lines::token, conflicts_with_all = ["tail", "attempt"])]
    from: Option<BindToken>,
    /// Only what was written since then: how long ago, such as 1h30m or 7d, or a time
    #[arg(long, value_name = "TIME", value_parser = times::passed)]
    since: Option<Timestamp>,
    /// Only what was written until then
    #[arg(long, value_name = "TIME", value_parser = times::passed, conflicts_with = "follow")]
    until: Option<Timestamp>,
    /// Only lines in which this regular expression is found
    #[arg(long, value_name = "REGEX")]
    pub(crate) grep: Option<String>,
    #[arg(skip)]
    matcher: Option<Matcher>,
    /// Show when each line was written, and both streams in that order
    #[arg(long)]
    timestamps: bool,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs logs --tail 20 ID
  nodejobs logs -f ID                 as it is written, until the job ends
  nodejobs logs ID 2> errors.txt      the streams stay apart
  nodejobs logs --stderr ID | less    only standard error, to a pipe
  nodejobs logs --attempt 1 ID        of the first run of several
  nodejobs logs -o jsonl ID           as JSON lines, each with a token
  nodejobs logs --from TOKEN ID       what came after that token
  nodejobs logs -f web db             of several jobs, each line with its job
  nodejobs logs --since 1h --grep 'error|warn' ID
  nodejobs logs --timestamps --since 18:00 --until 18:05 ID

Without -f standard output is shown first, then standard error. With -f the exit status is the job's own: 128+N after \
signal N, 124 if its time was up, and 125 if it has none (it never started, or was lost) or something here went wrong.

Of several jobs each line begins with the job's name, or its id. With -f that goes on until all of them have ended, and the \
exit status is 0, whatever theirs are; `wait` has those.

When something was written is noted while a daemon runs, to a tenth of a second. With --timestamps, --since and --until both \
streams are shown in that order; with `run --merge` it is exact. What was written while no daemon ran has no time, shown as \
`-`; if --since or --until falls into such a span, all of it is shown, and standard error says so. --tail counts lines \
before --grep looks at them, and a line of more than 64 KiB is looked at in parts.

With -o jsonl each line has a piece of output: `job`, `stream`, `offset` in its log file in bytes, `text` (or `base64` where it is \
not UTF-8), and `token`. The last line has `ended` and the job's `record`. Who gives back a token with --from misses no \
byte and gets none twice, whatever was killed in between; a token stays good as long as the job is there. See \
docs/json.md in the source.";

impl Logs {
    /// Understands `grep`, which is left out of account otherwise: for the program that has regular expressions.
    pub(crate) fn with_matcher(mut self) -> Result<Self, Failure> {
        self.matcher = self.grep.as_deref().map(Matcher::new).transpose()?;
        Ok(self)
    }

    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        if format == Format::Json {
            let message = "`logs` has no single JSON document; -o jsonl prints one a line";
            return Err(Failure::new(USAGE, message));
        }
        if self.from.is_some() && self.jobs.len() > 1 {
            return Err(Failure::new(USAGE, "--from takes one job"));
        }
        super::require_references(&self.jobs)?;
        match self.jobs.as_slice() {
            [job] if self.is_plain(format) && self.follow => mirrored(self.follow_one(target, job)),
            [job] if self.is_plain(format) => {
                let mut connection = target.connect()?;
                let record = connection.ask(|client| client.job(job))?;
                // Of a job that writes, what is shown may be freed meanwhile, and then it goes on behind that.
                if record.status.is_terminal() {
                    self.show_one(&mut connection, record.self_id.as_str())?;
                    return Ok(0);
                }
                self.show_events(target, job, format)
            }
            [job] => {
                let shown = self.show_events(target, job, format);
                if self.follow { mirrored(shown) } else { shown }
            }
            _ => self.show_several(target, format),
        }
    }

    /// Whether the bytes are wanted as they are, and nothing else.
    fn is_plain(&self, format: Format) -> bool {
        format == Format::Table && self.from.is_none() && !self.is_about_times() && self.grep.is_none()
    }

    fn is_about_times(&self) -> bool {
        self.timestamps || self.since.is_some() || self.until.is_some()
    }

    fn wanted(&self) -> Wanted {
        Wanted { grep: self.matcher.clone(), timestamps: self.timestamps }
    }

    fn doubts(&self) -> Doubts {
        Doubts::new(self.since, self.until, self.timestamps)
    }

    fn query(&self, attempt: u32) -> BindQuery {
        BindQuery {
            token: self.from,
            attempt: self.from.is_none().then(|| self.attempt.unwrap_or(attempt)),
            tail: self.tail,
            further_attempts: self.follow && self.attempt.is_none() && self.from.is_none(),
            only_now: !self.follow,
            since: self.since,
            until: self.until,
            times: self.is_about_times(),
            ..BindQuery::default()
        }
    }

    fn show_events(&self, target: &Target, job: &str, format: Format) -> Result<u8, Failure> {
        let mut connection = target.connect()?;
        let job = connection.ask(|client| client.job(job))?;
        let printer = Printer { only_stderr: self.stderr };
        let (id, query) = (job.self_id.as_str(), self.query(job.attempt));
        let (mut doubts, wanted) = (self.doubts(), self.wanted());
        let is_about_lines = wanted.is_about_lines();
        let mut as_lines = LinePrinter::new(printer, wanted.clone());
        let mut as_json = JsonPrinter::new(id, printer, wanted);
        let record = watch::bind(&mut connection, id, query, |event| {
            doubts.hear(id, event);
            match format {
                Format::Table if is_about_lines => lines::print_lines(event, &mut as_lines),
                Format::Table => lines::print_bytes(event, printer),
                Format::Json | Format::Jsonl => as_json.print(event),
            }
        })?;
        if !self.follow {
            return Ok(0);
        }
        if format == Format::Table {
            say_failure(&record);
        }
        Ok(job_code(&record))
    }

    /// Each line with the job that it is of. Ends when all have ended, and with nobody's code.
    fn show_several(&self, target: &Target, format: Format) -> Result<u8, Failure> {
        let mut connection = target.connect()?;
        let (jobs, mut failures) = several::resolve(&mut connection, &self.jobs)?;
        let to = Printer { only_stderr: self.stderr };
        let wanted = self.wanted();
        let mut as_lines = LinePrinter::for_jobs(&several::labels(&jobs), to, &wanted);
        let as_json = |job: &JobRecord| JsonPrinter::new(job.self_id.as_str(), to, wanted.clone());
        let mut as_json: Vec<_> = jobs.iter().map(as_json).collect();
        let mut doubts: Vec<_> = jobs.iter().map(|_| self.doubts()).collect();
        let mut heard = |index: usize, event: &BindEvent| {
            doubts[index].hear(jobs[index].self_id.as_str(), event);
            match format {
                Format::Table => lines::print_lines(event, &mut as_lines[index]),
                Format::Json | Format::Jsonl => as_json[index].print(event),
            }
        };
        let mut shown = 0;
        let mut ended = |record: Result<JobRecord, Failure>| match record {
            Ok(record) => {
                if self.follow && format == Format::Table {
                    say_failure(&record);
                }
                shown += 1;
                Ok(())
            }
            Err(Failure::ClosedPipe) => Err(Failure::ClosedPipe),
            Err(failure) => {
                say(&failure);
                failures.push(failure);
                Ok(())
            }
        };
        let query = |job: &JobRecord| self.query(job.attempt);
        if self.follow {
            several::follow(target, &jobs, query, heard, |_, record| ended(record))?;
        } else {
            for (index, job) in jobs.iter().enumerate() {
                let id = job.self_id.as_str();
                ended(watch::bind(&mut connection, id, query(job), |event| heard(index, event)))?;
            }
        }
        Ok(overall(shown, &failures))
    }

    fn follow_one(&self, target: &Target, job: &str) -> Result<u8, Failure> {
        let mut connection = target.connect()?;
        // Names and beginnings of ids may mean another job later, and "newest" another attempt.
        let record = connection.ask(|client| client.job(job))?;
        let query = FollowQuery {
            attempt: Some(self.attempt.unwrap_or(record.attempt)),
            tail: self.tail,
            ..FollowQuery::default()
        };
        let printer = Printer { only_stderr: self.stderr };
        let (id, print) = (record.self_id.as_str(), |event: &_| printer.print(event));
        let ended = match self.attempt {
            Some(_) => watch::follow(&mut connection, id, query, print)?,
            None => watch::follow_through(&mut connection, id, query, print, say_next)?,
        };
        say_failure(&ended);
        Ok(job_code(&ended))
    }

    fn show_one(&self, connection: &mut Connection<'_>, job: &str) -> Result<(), Failure> {
        let query = LogQuery { attempt: self.attempt, tail: self.tail, offset: None };
        if !self.stderr {
            let log = connection.ask(|client| client.log(job, LogStream::Stdout, &query))?;
            copy(log, &mut io::stdout().lock())?;
        }
        let log = connection.ask(|client| client.log(job, LogStream::Stderr, &query))?;
        if self.stderr { copy(log, &mut io::stdout().lock()) } else { copy(log, &mut io::stderr().lock()) }
    }
}

fn say_failure(ended: &JobRecord) {
    if job_code(ended) != 0 {
        say(&format_args!("{}: {}", ended.self_id, outcome(ended)));
    }
}

fn attempt(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("attempts count from 1".to_owned()),
        Ok(attempt) => Ok(attempt),
        Err(_) => Err("not the number of an attempt; they count from 1".to_owned()),
    }
}

fn copy(mut from: impl Read, to: &mut impl Write) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => printer::write(to, &buffer[..count])?,
            Err(error) => {
                return Err(Failure::caused(UNAVAILABLE, "the log broke off before its end", &error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_count_from_1() {
        assert_eq!(attempt("1"), Ok(1));
        for text in ["0", "-1", "x", "", "4294967296"] {
            assert!(attempt(text).expect_err(text).ends_with("count from 1"), "{text}");
        }
    }
}
