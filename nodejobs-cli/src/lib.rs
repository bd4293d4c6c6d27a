//! The command line of nodejobs, which is built as two programs. `nodejobs` is what people and scripts call, many times a
//! second; `nodejobs-daemon` is the daemon, and all of the command line: see `program.rs`.
//!
//! For other programs there is nothing in here: the crate `nodejobs` is the library.

mod bars;
mod cli;
mod commands;
mod connect;
mod deferred;
mod exit;
mod output;
mod program;
mod readable;
mod starts;
mod store_option;
mod times;
mod watch;

use std::mem::ManuallyDrop;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use cli::Cli;
use program::Program;

/// The `main` of `nodejobs`.
pub fn client() -> ExitCode {
    run(program::CLIENT)
}

/// The `main` of `nodejobs-daemon`.
pub fn whole() -> ExitCode {
    nodejobs::serve_keeper_if_asked();
    run(program::WHOLE)
}

fn run(program: Program) -> ExitCode {
    match parse() {
        Ok(cli) => exit::report(commands::run(cli, program)),
        Err(error) => {
            // Nobody may be left to read the help; that is no failure.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE))
        }
    }
}

/// As `Cli::try_parse`, except that what was said of the command line is left to the end of the process: taking it apart
/// again was a twentieth of what a call executed.
fn parse() -> Result<Cli, clap::Error> {
    let mut command = ManuallyDrop::new(Cli::command());
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}
