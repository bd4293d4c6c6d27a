//! One file for each command.

pub(crate) mod daemon;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod wait;

use crate::cli::{Cli, Command};
use crate::connect::Target;
use crate::exit::Failure;

/// Runs the command that was given; the exit code.
pub(crate) fn run(cli: Cli) -> Result<u8, Failure> {
    let target = Target::new(cli.global.data_dir, cli.global.store)?;
    let format = cli.global.output;
    match cli.command {
        Command::Run(run) => run.execute(&target, format),
        Command::Ls(ls) => ls.execute(&target, format),
        Command::Status(status) => status.execute(&target, format),
        Command::Logs(logs) => logs.execute(&target, format),
        Command::Wait(wait) => wait.execute(&target, format),
        Command::Stop(stop) => stop.execute(&target, format),
        Command::Daemon(daemon) => daemon.execute(&target, format),
    }
}
