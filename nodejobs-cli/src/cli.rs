//! The command line as a whole: what comes before the command, and which commands there are.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    array, attach, completions, config, daemon, doctor, edit, events, explain, group, history, joblog, logs,
    ls, man, pause, prune, restart, retry, rm, run, schedule, send, signal, status, stop, store, top, wait,
};
use crate::deferred::Deferred;
use crate::output::Format;
use crate::store_option::{self, StoreParser};

/// Any command becomes a durable job: a record, its logs, its true outcome, whatever dies in between.
#[derive(Debug, Parser)]
#[command(name = "nodejobs", version, after_help = EXAMPLES)]
// Each command has them as well, from `Deferred`: the parser would copy them to all commands at every call.
#[command(mut_args(|arg| arg.global(false)))]
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
    /// Run a command as a job; prints its id once it is on disk
    Run(Deferred<run::Run>),
    /// Run a command many times, with other values each time; prints the id of the array
    Array(Deferred<array::Array>),
    /// List jobs, newest first
    Ls(Deferred<ls::Ls>),
    /// Show everything about jobs
    Status(Deferred<status::Status>),
    /// Show what jobs wrote: their standard output and standard error on ours
    Logs(Deferred<logs::Logs>),
    /// Wait until jobs have ended, and end with their exit code
    Wait(Deferred<wait::Wait>),
    /// Show what each element of an array came to, in the order in which they were started
    Joblog(Deferred<joblog::Joblog>),
    /// End jobs with everything they started; returns once they are gone
    Stop(Deferred<stop::Stop>),
    /// Run jobs again: the next attempt of each, as it was submitted
    Restart(Deferred<restart::Restart>),
    /// Run again what has ended: jobs, and of arrays with --failed what did not finish
    Retry(Deferred<retry::Retry>),
    /// Halt running jobs with everything they started
    Pause(Deferred<pause::Pause>),
    /// Let paused jobs go on
    Resume(Deferred<pause::Resume>),
    /// Send a signal to the main processes of jobs
    Signal(Deferred<signal::Signal>),
    /// Send a job input that it reads
    Send(Deferred<send::Send>),
    /// Show the terminal of a job here, and type there; ends with the job's exit code
    Attach(Deferred<attach::Attach>),
    /// Change a queued job: its place in the queue, what it takes, what it runs
    Edit(Deferred<edit::Edit>),
    /// Forget ended jobs: their records, attempts, logs and input
    Rm(Deferred<rm::Rm>),
    /// Forget ended jobs by age, number or status: their records, attempts, logs and input
    Prune(Deferred<prune::Prune>),
    /// Show all attempts of a job, the first one first
    History(Deferred<history::History>),
    /// Show what happened to jobs: each status that each of them reached, in order
    Events(Deferred<events::Events>),
    /// Watch jobs on the terminal, and act on them
    Top(Deferred<top::Top>),
    /// Make, change and list groups: named queues, each with so many slots
    Group(Deferred<group::Group>),
    /// Say why a job waits: its position, what there is not enough of and who has it, the jobs before it and why they wait
    Explain(Deferred<explain::Explain>),
    /// Run commands again and again: at times of the day, or each so often
    Schedule(Deferred<schedule::Schedule>),
    /// Start, stop or look at the daemon
    Daemon(Deferred<daemon::Daemon>),
    /// Look at the store of the jobs, check it, copy it, or change its kind
    Store(Deferred<store::Store>),
    /// Check what works here, what is weaker, and what is broken
    Doctor(Deferred<doctor::Doctor>),
    /// Show and check the settings of config.toml
    Config(Deferred<config::Config>),
    /// Print what a shell needs to complete command lines of nodejobs
    Completions(Deferred<completions::Completions>),
    /// Print the manual page, or write all of them
    // Hidden: packagers know it, and users have `man nodejobs`.
    #[command(hide = true)]
    Man(Deferred<man::Man>),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_every_command_understands_may_come_anywhere() {
        for (line, data_dir, output) in [
            ("--data-dir d -o json ls", "d", Format::Json),
            ("--data-dir d ls -o json", "d", Format::Json),
            ("ls -o json --data-dir=d", "d", Format::Json),
            ("--data-dir run ls", "run", Format::Table),
            ("--data-dir d -o json ls --data-dir e", "e", Format::Json),
            ("-o json daemon --data-dir d start", "d", Format::Json),
            ("daemon start -o jsonl --data-dir d", "d", Format::Jsonl),
            ("--data-dir d -o jsonl daemon start", "d", Format::Jsonl),
        ] {
            let words = ["nodejobs"].into_iter().chain(line.split_whitespace());
            let global = Cli::try_parse_from(words).expect(line).global;
            assert_eq!((global.data_dir, global.output), (Some(data_dir.into()), output), "{line}");
        }
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
