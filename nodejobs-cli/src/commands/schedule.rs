//! `nodejobs schedule`: runs commands again and again.

mod add;

use clap::{Args, Subcommand};
use nodejobs::api::{ScheduleAction, ScheduleQuery};

use crate::connect::Target;
use crate::exit::{Failure, UNAVAILABLE, USAGE};
use crate::output::{self, Format, schedule_block, schedule_table};
use crate::readable::now;

#[derive(Args, Debug)]
#[command(after_help = ABOUT)]
pub(crate) struct Schedule {
    #[command(subcommand)]
    command: Command,
}

const ABOUT: &str = "\
Each time that a schedule is due is a job of its own, with an id such as backup-20261122T013000Z and the label \
schedule=NAME: `nodejobs ls --label schedule=backup` lists them, and `prune` and `[history]` in config.toml keep their \
number down. Those that are skipped are there as well, as `cancelled` with the reason.

A daemon stays as long as a schedule will be due. After a reboot nobody starts it: have whatever starts with the machine \
run `nodejobs daemon start`. What was missed until then is dealt with by --catch-up.";

#[derive(Debug, Subcommand)]
enum Command {
    Add(Box<add::Add>),
    /// List schedules: when they run next, and how they ran last
    Ls,
    Show(Show),
    /// Let a schedule start nothing until it is resumed; what is due meanwhile is skipped
    Pause(One),
    /// Let a paused schedule go on
    Resume(One),
    /// Run a schedule's command now, once; prints the id of the job. Its times stay as they are
    Run(One),
    /// Forget a schedule; what it has started goes on
    Rm(One),
}

#[derive(Args, Debug)]
struct One {
    /// The name of the schedule
    #[arg(value_name = "NAME")]
    name: String,
}

/// Show a schedule, and when it runs next
#[derive(Args, Debug)]
struct Show {
    /// The name of the schedule
    #[arg(value_name = "NAME")]
    name: String,
    /// How many of its next times, at most 1000
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = super::whole_number::<usize>)]
    next: usize,
}

impl Schedule {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        match self.command {
            Command::Add(add) => add.execute(target, format)?,
            Command::Ls => list(target, format)?,
            Command::Show(Show { name, next }) => {
                require_name(&name)?;
                let query = ScheduleQuery { next };
                let record = target.connect()?.ask(|client| client.schedule(&name, &query))?;
                match format {
                    Format::Table => output::print(&schedule_block(&record, now()))?,
                    Format::Json | Format::Jsonl => output::print_json(&record)?,
                }
            }
            Command::Pause(One { name }) => act(target, format, &name, ScheduleAction::Pause)?,
            Command::Resume(One { name }) => act(target, format, &name, ScheduleAction::Resume)?,
            Command::Rm(One { name }) => act(target, format, &name, ScheduleAction::Remove)?,
            Command::Run(One { name }) => run(target, format, &name)?,
        }
        Ok(0)
    }
}

fn require_name(name: &str) -> Result<(), Failure> {
    if name.is_empty() {
        let message = "the name of a schedule is empty; `nodejobs schedule ls` lists them";
        return Err(Failure::new(USAGE, message));
    }
    Ok(())
}

fn list(target: &Target, format: Format) -> Result<(), Failure> {
    let records = target.connect()?.ask(nodejobs::client::Client::schedules)?;
    match format {
        Format::Table => output::print(&schedule_table(&records, now())),
        Format::Json => output::print_json(&records),
        Format::Jsonl => records.iter().try_for_each(output::print_json),
    }
}

fn act(target: &Target, format: Format, name: &str, action: ScheduleAction) -> Result<(), Failure> {
    require_name(name)?;
    let answer = match action {
        // Not sent again if the connection breaks: the first sending may have removed it.
        ScheduleAction::Remove => {
            target.connect()?.client.act_on_schedule(name, action).map_err(|error| match error {
                error if error.is_broken() => {
                    let message =
                        "the daemon ended meanwhile; `nodejobs schedule ls` says whether it is there";
                    Failure::caused(UNAVAILABLE, message, &error)
                }
                error => error.into(),
            })?
        }
        _ => target.connect()?.ask(|client| client.act_on_schedule(name, action))?,
    };
    match format {
        Format::Table => {
            let done = match action {
                ScheduleAction::Pause => "paused",
                ScheduleAction::Resume => "resumed",
                ScheduleAction::Remove => "removed",
            };
            output::print(&format!("{done} {}\n", answer.name))
        }
        Format::Json | Format::Jsonl => output::print_json(&answer),
    }
}

fn run(target: &Target, format: Format, name: &str) -> Result<(), Failure> {
    require_name(name)?;
    // Not sent again either: it would run twice.
    let record = target.connect()?.client.run_schedule(name).map_err(|error| match error {
        error if error.is_broken() => {
            let message = format!(
                "the daemon ended meanwhile, and may have started it; `nodejobs schedule show {name}` says so"
            );
            Failure::caused(UNAVAILABLE, message, &error)
        }
        error => error.into(),
    })?;
    match format {
        Format::Table => output::print(&format!("{}\n", record.self_id)),
        Format::Json | Format::Jsonl => output::print_json(&record),
    }
}
