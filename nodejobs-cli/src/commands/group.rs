//! `nodejobs group`: named queues, each with so many slots.

use clap::{Args, Subcommand};
use nodejobs::client::{Client, ClientError};
use nodejobs::group::{GroupChange, GroupStatus, InvalidName, Slots, check_group_name};

use crate::connect::Target;
use crate::exit::Failure;
use crate::output::{self, Format, columns};

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP, arg_required_else_help = true)]
pub(crate) struct Group {
    #[command(subcommand)]
    command: GroupCommand,
}

const AFTER_HELP: &str = "\
Examples:
  nodejobs group set train --slots 2     make it, or change it while jobs run
  nodejobs run --group train -- ./train  wait there for one of its slots
  nodejobs run --group train --slots 2 --priority 5 -- ./big
  nodejobs group pause train             start none of its jobs; who runs goes on
  nodejobs group ls
  nodejobs wait --group train            until none of its jobs is left

Jobs without --group are in the group `default`, which always exists and has as many slots as it takes until that is \
set. Whatever the groups allow, no more jobs run than [limits] of config.toml say.

Of those that wait, the higher --priority goes first, and then who has waited for longer. Nobody goes before somebody who \
waits for longer on anything that both want, so what takes many slots is not kept waiting by what takes few.";

#[derive(Debug, Subcommand)]
enum GroupCommand {
    /// Make a group, or change it
    Set(Set),
    /// List all groups
    Ls,
    /// Forget a group that has no jobs any more that run or wait
    Rm(Named),
    /// Start none of its jobs from now on
    Pause(Named),
    /// Start its jobs again
    Resume(Named),
}

#[derive(Args, Debug)]
struct Named {
    /// The group's name
    #[arg(value_name = "NAME", value_parser = group_name)]
    name: String,
}

#[derive(Args, Debug)]
struct Set {
    #[command(flatten)]
    group: Named,
    /// How many slots its running jobs may take together, or `unlimited` [default: as it was; of a new one unlimited]
    #[arg(long, value_name = "N")]
    slots: Option<Slots>,
    /// Start none of its jobs from now on
    #[arg(long, conflicts_with = "resume")]
    pause: bool,
    /// Start its jobs again
    #[arg(long)]
    resume: bool,
}

/// A name that a group can have.
pub(crate) fn group_name(text: &str) -> Result<String, InvalidName> {
    check_group_name(text).map(|()| text.to_owned())
}

impl Group {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        let paused =
            |paused| GroupChange { paused: Some(paused), must_exist: true, ..GroupChange::default() };
        match self.command {
            GroupCommand::Ls => list(&target.connect()?.ask(Client::groups)?, format)?,
            GroupCommand::Set(Set { group, slots, pause, resume }) => {
                let paused = (pause || resume).then_some(pause);
                let change = GroupChange { slots, paused, ..GroupChange::default() };
                tell(target, format, |client| client.set_group(&group.name, change))?;
            }
            GroupCommand::Pause(Named { name }) => {
                tell(target, format, |client| client.set_group(&name, paused(true)))?;
            }
            GroupCommand::Resume(Named { name }) => {
                tell(target, format, |client| client.set_group(&name, paused(false)))?;
            }
            GroupCommand::Rm(Named { name }) => {
                let group = target.connect()?.ask(|client| client.remove_group(&name))?;
                match format {
                    Format::Table => output::print(&format!("{}: removed\n", group.name))?,
                    Format::Json | Format::Jsonl => output::print_json(&group)?,
                }
            }
        }
        Ok(0)
    }
}

fn tell(
    target: &Target,
    format: Format,
    ask: impl Fn(&Client) -> Result<GroupStatus, ClientError>,
) -> Result<(), Failure> {
    let group = target.connect()?.ask(ask)?;
    match format {
        Format::Table => output::print(&format!("{}\n", sentence(&group))),
        Format::Json | Format::Jsonl => output::print_json(&group),
    }
}

fn sentence(group: &GroupStatus) -> String {
    let slots = match group.slots {
        Some(1) => "1 slot".to_owned(),
        Some(slots) => format!("{slots} slots"),
        None => "unlimited slots".to_owned(),
    };
    let paused = if group.paused { ", paused" } else { "" };
    format!("{}: {slots}, {} taken, {} waiting{paused}", group.name, group.taken, group.waiting)
}

fn list(groups: &[GroupStatus], format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => output::print_json(&groups),
        Format::Jsonl => groups.iter().try_for_each(output::print_json),
        Format::Table => {
            let rows: Vec<[String; 6]> = groups.iter().map(row).collect();
            output::print(&columns(["NAME", "SLOTS", "TAKEN", "RUNNING", "WAITING", "STATE"], &rows))
        }
    }
}

fn row(group: &GroupStatus) -> [String; 6] {
    [
        group.name.clone(),
        group.slots.map_or_else(|| "unlimited".to_owned(), |slots| slots.to_string()),
        group.taken.to_string(),
        group.running.to_string(),
        group.waiting.to_string(),
        if group.paused { "paused" } else { "active" }.to_owned(),
    ]
}
