//! The command line as a whole: what comes before the command, and which commands there are.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};

use crate::commands::{daemon, logs, ls, run, status, stop, wait};
use crate::output::Format;

/// The stores that this program was built with.
const STORES: &[&str] = &[
    #[cfg(feature = "sqlite")]
    "sqlite",
    #[cfg(feature = "redb")]
    "redb",
    #[cfg(feature = "sled")]
    "sled",
];

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
  nodejobs run -- make all              start a job; its id is printed once it is on disk
  nodejobs run 'make all > out.txt'     one argument is a script for /bin/sh
  nodejobs run --wait -- make test      wait, and end with the job's own exit code
  nodejobs ls --status running          what runs
  nodejobs logs -f ID                   its output, as it is written
  nodejobs stop ID                      end it, with everything it started

An ID is a job's id, a unique beginning of it, or a unique name.

Exit status:
  0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 no daemon or its
  store is unavailable, 6 partly done.

`wait`, `run --wait`, `run --follow` and `logs --follow` end with the job's own code: 128+N after signal N, 124 after a \
timeout, 125 when the code is not the job's (it never started, was lost, or something here went wrong).";

/// What every command understands.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Where jobs are kept [default: $NODEJOBS_DIR, $XDG_STATE_HOME/nodejobs or ~/.local/state/nodejobs]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The store of a new data directory; one that exists must be of this kind
    #[arg(long, global = true, value_name = "STORE", value_parser = PossibleValuesParser::new(STORES))]
    pub(crate) store: Option<String>,
    /// How to print what was asked for: for people, one JSON document, or one a line
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(run::Run),
    Ls(ls::Ls),
    Status(status::Status),
    Logs(logs::Logs),
    Wait(wait::Wait),
    Stop(stop::Stop),
    Daemon(daemon::Daemon),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
