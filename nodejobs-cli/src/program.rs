//! The two programs that the command line is built as.
//!
//! A call of `nodejobs` takes as long as its program takes to be mapped, relocated and unmapped, so that has what speaks to
//! a daemon and nothing else. The daemon with its stores, the drawing of screens and the tables of regular expressions are
//! in `nodejobs-daemon`, which is the whole command line: `nodejobs` starts it as the daemon, and executes it in its own
//! place for a command with [large parts](Large). Copied alone, under whatever name, it does everything.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::commands::completions::Completions;
use crate::commands::daemon::Serve;
use crate::commands::doctor::Doctor;
use crate::commands::logs::Logs;
use crate::commands::man::Man;
use crate::commands::store::Store;
use crate::commands::top::Top;
use crate::connect::Target;
use crate::exit::{FAILED, Failure};
use crate::output::Format;

/// What differs between the two. As functions, so that the linker leaves out of each what it never calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    /// Executes a command with large parts.
    pub(crate) large: fn(Large) -> Result<u8, Failure>,
    /// The program that is executed to be the daemon.
    pub(crate) daemon: fn() -> PathBuf,
}

/// A command that only the whole program has.
#[derive(Debug)]
pub(crate) enum Large {
    Completions(Completions),
    Doctor(Doctor, Target, Format),
    /// With `--grep`.
    Logs(Logs, Target, Format),
    Man(Man),
    Serve(Serve, Target),
    Store(Store, Target, Format),
    Top(Top, Target, Format),
}

/// `nodejobs`.
pub(crate) const CLIENT: Program = Program { large: hand_over, daemon: beside };

/// `nodejobs-daemon`.
pub(crate) const WHOLE: Program = Program { large: execute, daemon: itself };

fn execute(command: Large) -> Result<u8, Failure> {
    match command {
        Large::Completions(completions) => completions.execute(Cli::command()),
        Large::Doctor(doctor, target, format) => doctor.execute(&target, format),
        Large::Logs(logs, target, format) => logs.with_matcher()?.execute(&target, format),
        Large::Man(man) => man.execute(Cli::command()),
        Large::Serve(serve, target) => serve.execute(&target),
        Large::Store(store, target, format) => store.execute(&target, format),
        Large::Top(top, target, format) => top.execute(&target, format),
    }
}

/// Executes the whole program in our place, with our arguments: what it is called for was understood already.
fn hand_over(_: Large) -> Result<u8, Failure> {
    let program = beside();
    let mut arguments = std::env::args_os();
    let mut command = Command::new(&program);
    command.arg0(arguments.next().unwrap_or_else(|| "nodejobs".into())).args(arguments);
    let error = command.exec();
    let message = format!(
        "cannot execute '{}', which this command needs; install nodejobs-daemon in the same directory as nodejobs",
        program.display()
    );
    Err(Failure::caused(FAILED, message, &error))
}

/// `nodejobs-daemon` in the directory of this program: the one that is installed now, also if we are an older one.
fn beside() -> PathBuf {
    const NAME: &str = "nodejobs-daemon";
    std::env::current_exe().map_or_else(|_| NAME.into(), |own| own.with_file_name(NAME))
}

/// The very same program, even if another was installed in its place, by a name that also means it to other processes.
fn itself() -> PathBuf {
    format!("/proc/{}/exe", std::process::id()).into()
}
