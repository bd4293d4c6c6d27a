//! `nodejobs schedule add`: has a command run again and again.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use nodejobs::Timestamp;
use nodejobs::api::{ScheduleRequest, When};
use nodejobs::machine_time_zone;
use nodejobs::schedule::{CatchUp, Overlap, Schedule};
use nodejobs::units::parse_duration;

use crate::commands::run::{JobOptions, spec_of};
use crate::connect::Target;
use crate::exit::{Failure, USAGE};
use crate::output::{self, Format, next_sentence};
use crate::readable::now;
use crate::times;

const WHEN: &str = "When it runs";

/// Have a command run at times of the day, or each so often
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, override_usage = USAGE_LINES)]
// What only a single job can have is refused by the owner; here it is not offered.
#[command(group(ArgGroup::new("when").required(true).args(["cron", "every"])))]
#[command(mut_arg("delay", |arg| arg.hide(true)), mut_arg("at", |arg| arg.hide(true)))]
pub(super) struct Add {
    /// The name of the schedule, made of A-Z a-z 0-9 . _ -
    #[arg(value_name = "NAME")]
    schedule: String,
    /// Run it whenever the clock fits: minute, hour, day of the month, month, day of the week
    #[arg(long, value_name = "EXPRESSION", help_heading = WHEN)]
    cron: Option<String>,
    /// The time zone of --cron, such as Europe/Berlin [default: that of TZ or /etc/localtime]
    #[arg(long, value_name = "ZONE", conflicts_with = "every", help_heading = WHEN)]
    tz: Option<String>,
    /// Run it each time so much time has passed, such as 90s, 10m or 1d; at least 1s
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, help_heading = WHEN)]
    every: Option<Duration>,
    /// If the last run has not ended: skip this one, queue it, or replace the last one [default: skip]
    #[arg(long, value_name = "WHAT", default_value_t, hide_default_value = true, help_heading = WHEN)]
    overlap: Overlap,
    /// What was missed without a daemon: skip it, run one in place of all, or run all (the last 10), or all:N [default: skip]
    #[arg(long, value_name = "WHAT", default_value_t, hide_default_value = true, help_heading = WHEN)]
    catch_up: CatchUp,
    /// Never run it after this time, such as "2026-12-24 18:00" or 2026-12-24T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = until, help_heading = WHEN)]
    until: Option<Timestamp>,
    /// Put it in the place of a schedule of this name
    #[arg(long, help_heading = WHEN)]
    replace: bool,
    /// A name for each of its jobs
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The directory to run in [default: the current one]
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Take the one argument as a script for /bin/sh, also after `--`
    #[arg(long)]
    shell: bool,
    #[command(flatten)]
    options: JobOptions,
    /// The command: a program and its arguments, or one script for /bin/sh
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    words: Vec<OsString>,
}

const USAGE_LINES: &str = "\
nodejobs schedule add <NAME> --cron <EXPRESSION> [OPTIONS] <COMMAND>...
       nodejobs schedule add <NAME> --every <DURATION> [OPTIONS] <COMMAND>...";

const EXAMPLES: &str = "\
Examples:
  nodejobs schedule add backup --cron '30 2 * * *' -- ./backup      each night
  nodejobs schedule add report --cron '0 9 * * MON-FRI' --tz Europe/Berlin -- ./report
  nodejobs schedule add poll --every 10m --timeout 5m -- ./poll
  nodejobs schedule add sync --every 1h --overlap queue --catch-up all -- ./sync
  nodejobs schedule show backup --next 10                           when it runs next
  nodejobs schedule run backup                                      now, once

An EXPRESSION has five fields with numbers, names, ranges, lists and steps: * 5 1-5 MON,WED */15; L is the last day of the \
month. If both kinds of days are given, either of them will do. Six fields begin with the second. @hourly, @daily, \
@weekly, @monthly and @yearly are understood as well.

When the clock changes: a time of day that it leaves out comes at the moment of the change, and one that it shows twice \
comes the first time only. If minute or hour begin with *, it goes by real time: what is left out does not come, and what \
is shown twice comes twice. --every counts from now on, and knows no time zone. If the clock is set back by more than \
three hours (a minute, if it goes by real time), times that were over come again; else they do not.

A run that starts more than 10s late was missed. --catch-up all needs --overlap queue, in which at most 100 wait.

Each run gets the environment, directory, umask and soft limits of this command.";

impl Add {
    pub(super) fn execute(self, target: &Target, format: Format) -> Result<(), Failure> {
        let request = self.request(target)?;
        let record = target.connect()?.ask(|client| client.add_schedule(&request))?;
        match format {
            Format::Table => output::print(&next_sentence(&record, now())),
            Format::Json | Format::Jsonl => output::print_json(&record),
        }
    }

    fn request(self, target: &Target) -> Result<ScheduleRequest, Failure> {
        // Before anything is read or asked for.
        Schedule::check_name(&self.schedule).map_err(|error| Failure::new(USAGE, error.to_string()))?;
        let when = match (self.cron, self.every) {
            (Some(expression), _) => {
                let zone = match self.tz {
                    Some(zone) => zone,
                    None => {
                        machine_time_zone().map_err(|why| Failure::new(USAGE, format!("{why}, with --tz")))?
                    }
                };
                When::Cron { expression, zone: Some(zone) }
            }
            (None, every) => {
                let every = every.unwrap_or_default();
                When::EveryMs(u64::try_from(every.as_millis()).unwrap_or(u64::MAX))
            }
        };
        let mut spec = spec_of(self.words, self.shell, self.cwd, self.options, &target.job_defaults()?)?;
        spec.name = self.name;
        spec.validate().map_err(|error| Failure::new(USAGE, error.to_string()))?;
        Ok(ScheduleRequest {
            overlap: self.overlap,
            catch_up: self.catch_up,
            until: self.until,
            replace: self.replace,
            ..ScheduleRequest::new(self.schedule, when, spec)
        })
    }
}

fn until(text: &str) -> Result<Timestamp, String> {
    times::to_come(text, "give a time that is still to come, or none")
}
