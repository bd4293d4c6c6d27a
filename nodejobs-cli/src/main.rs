//! The `nodejobs` command.

mod bars;
mod cli;
mod commands;
mod connect;
mod deferred;
mod exit;
mod output;
mod readable;
mod starts;
mod store_option;
mod times;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    nodejobs::serve_keeper_if_asked();
    match cli::Cli::try_parse() {
        Ok(cli) => exit::report(commands::run(cli)),
        Err(error) => {
            // Nobody may be left to read the help; that is no failure.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE))
        }
    }
}
