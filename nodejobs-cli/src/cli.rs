//! The command line as a whole: what comes before the command, and which commands there are.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    array, attach, completions, config, daemon, doctor, edit, events, explain, group, history, joblog, logs,
    ls, man, pause, prune, restart, retry, rm, run, schedule, send, signal, status, stop, store, top, wait,
};
use crate::output::Format;
use crate::store_option::{self, StoreParser};

/// Any command becomes a durable job: a record, its logs, its true outcome, whatever dies in between.
#[derive(Debug, Parser)]
#[command(name = "nodejobs", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs run -- make all            start a job; prints its id
  nodejobs run 'make all > out.txt'   one argument is a script for /bin/sh
  nodejobs run --wait -- make test    wait, and end with the job's exit code
  nodejobs array --range 1-100 -- CMD {}   the same command with many values
  nodejobs ls --status running        what runs
  nodejobs logs -f ID                 its output, as it is written
  nodejobs stop ID                    end it, with everything it started
  nodejobs restart ID                 run it again, as its next attempt
  nodejobs doctor                     what works here, and what does not

ID is a job's id, a unique beginning of it, or a unique name. No daemon has to be started: a command that needs one \
starts it.

Exit status:
  0  done                  4  conflict: the id is in use, or a name fits several
  1  the operation failed  5  no daemon, or its store is unavailable
  2  usage                 6  partly done
  3  no such job

`wait`, `run --wait`, `run --follow`, `logs --follow` and `attach` end with the job's own exit code: 128+N after signal N, 124 if \
its time was up, and 125 if there is none (it never started, or was lost) or something here went wrong.";

/// Under which words every command lists what all of them understand.
const GLOBAL: &str = "Global options";

/// What every command understands.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Where jobs are kept [default: $NODEJOBS_DIR, $XDG_STATE_HOME/nodejobs or ~/.local/state/nodejobs]
    #[arg(long, global = true, value_name = "DIR", help_heading = GLOBAL)]
    pub(crate) data_dir: Option<PathBuf>,
    /// The store of a new data directory; one that exists must be of this kind
    #[arg(long, global = true, value_name = "STORE", help_heading = GLOBAL)]
    #[arg(value_parser = StoreParser, help = store_option::help())]
    pub(crate) store: Option<String>,
    /// Print for people (table), one JSON document (json), or a JSON document a line (jsonl)
    #[arg(short, long, global = true, value_name = "FORMAT", help_heading = GLOBAL, value_enum, default_value_t)]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<run::Run>),
    Array(Box<array::Array>),
    Ls(ls::Ls),
    Status(status::Status),
    Logs(logs::Logs),
    Wait(wait::Wait),
    Joblog(joblog::Joblog),
    Stop(stop::Stop),
    Restart(restart::Restart),
    Retry(retry::Retry),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Signal(signal::Signal),
    Send(send::Send),
    Attach(attach::Attach),
    Edit(edit::Edit),
    Rm(rm::Rm),
    Prune(prune::Prune),
    History(history::History),
    Events(events::Events),
    Top(top::Top),
    Group(group::Group),
    Explain(explain::Explain),
    Schedule(schedule::Schedule),
    Daemon(daemon::Daemon),
    Store(store::Store),
    Doctor(doctor::Doctor),
    Config(config::Config),
    Completions(completions::Completions),
    Man(man::Man),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    /// The help pages of a command and of everything below it.
    fn help_pages(command: &mut clap::Command) -> Vec<String> {
        let mut pages = vec![command.render_long_help().to_string()];
        let below = command.get_subcommands_mut().filter(|below| !below.is_hide_set());
        below.for_each(|below| pages.extend(help_pages(below)));
        pages
    }

    #[test]
    fn help_fits_80_columns_and_keeps_global_options_apart() {
        let mut command = Cli::command().term_width(80);
        command.build();
        let pages = help_pages(&mut command);
        assert!(pages.len() >= 10, "{pages:?}");
        for page in pages {
            for line in page.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
            if let Some((own, global)) = page.split_once("Global options:") {
                assert!(!own.contains("--data-dir <") && global.contains("--data-dir <"), "{page}");
            }
        }
    }
}
