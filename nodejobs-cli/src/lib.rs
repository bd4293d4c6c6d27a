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

use std::process::ExitCode;

use clap::Parser as _;

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
    match cli::Cli::try_parse() {
        Ok(cli) => exit::report(commands::run(cli, program)),
        Err(error) => {
            // Nobody may be left to read the help; that is no failure.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE))
        }
    }
}
