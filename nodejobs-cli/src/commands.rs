//! One file for each command.

mod action;
pub(crate) mod array;
pub(crate) mod attach;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod daemon;
pub(crate) mod doctor;
pub(crate) mod edit;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod group;
pub(crate) mod history;
pub(crate) mod joblog;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod pause;
pub(crate) mod prune;
pub(crate) mod restart;
pub(crate) mod retry;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod send;
pub(crate) mod signal;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod store;
pub(crate) mod top;
pub(crate) mod wait;

use std::num::{IntErrorKind, ParseIntError};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::cli::{Cli, Command};
use crate::connect::Target;
use crate::exit::{Failure, USAGE};
use crate::program::{Large, Program};

/// Runs the command that was given; the exit code.
pub(crate) fn run(cli: Cli, program: Program) -> Result<u8, Failure> {
    let format = cli.global.output;
    let command = match cli.command {
        // What packagers run, where there is no home and no data directory.
        Command::Completions(completions) => return (program.large)(Large::Completions(*completions.0)),
        Command::Man(man) => return (program.large)(Large::Man(*man.0)),
        command => command,
    };
    let target = Target::new(cli.global.data_dir, cli.global.store, program.daemon)?;
    match command {
        Command::Run(run) => run.0.execute(&target, format),
        Command::Array(array) => array.0.execute(&target, format),
        Command::Ls(ls) => ls.0.execute(&target, format),
        Command::Status(status) => status.0.execute(&target, format),
        Command::Logs(logs) if logs.0.grep.is_some() => (program.large)(Large::Logs(*logs.0, target, format)),
        Command::Logs(logs) => logs.0.execute(&target, format),
        Command::Wait(wait) => wait.0.execute(&target, format),
        Command::Stop(stop) => stop.0.execute(&target, format),
        Command::Restart(restart) => restart.0.execute(&target, format),
        Command::Retry(retry) => retry.0.execute(&target, format),
        Command::Joblog(joblog) => joblog.0.execute(&target, format),
        Command::Pause(pause) => pause.0.execute(&target, format),
        Command::Resume(resume) => resume.0.execute(&target, format),
        Command::Send(send) => send.0.execute(&target, format),
        Command::Attach(attach) => attach.0.execute(&target),
        Command::Signal(signal) => signal.0.execute(&target, format),
        Command::Rm(rm) => rm.0.execute(&target, format),
        Command::Prune(prune) => prune.0.execute(&target, format),
        Command::Group(group) => group.0.execute(&target, format),
        Command::Explain(explain) => explain.0.execute(&target, format),
        Command::Edit(edit) => edit.0.execute(&target, format),
        Command::Top(top) => (program.large)(Large::Top(*top.0, target, format)),
        Command::Schedule(schedule) => schedule.0.execute(&target, format),
        Command::History(history) => history.0.execute(&target, format),
        Command::Events(events) => events.0.execute(&target, format),
        Command::Daemon(daemon) => daemon.0.execute(target, format, program),
        Command::Store(store) => (program.large)(Large::Store(*store.0, target, format)),
        Command::Doctor(doctor) => (program.large)(Large::Doctor(*doctor.0, target, format)),
        Command::Config(config) => config.0.execute(&target, format),
        Command::Completions(_) | Command::Man(_) => Ok(0),
    }
}

/// Refuses an empty text where a job is meant, such as an unset variable in quotes, before anything is done.
fn require_references(jobs: &[String]) -> Result<(), Failure> {
    if jobs.iter().any(String::is_empty) {
        return Err(Failure::new(USAGE, "the id of a job is empty; `nodejobs ls` lists them"));
    }
    Ok(())
}

/// A whole number of an option.
fn whole_number<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => "too large".to_owned(),
        _ => "not a whole number".to_owned(),
    })
}

/// A directory as jobs have it: absolute, and without what does not change where it is.
fn absolute_directory(path: &Path, option: &str) -> Result<PathBuf, Failure> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::caused(USAGE, format!("{option} '{}'", path.display()), &error))?;
    Ok(absolute.components().collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::program::WHOLE;

    #[test]
    fn an_empty_id_is_refused_in_the_same_words_everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let data_dir = directory.path().join("new");
        let data_dir = data_dir.to_str().expect("a path in UTF-8");
        let commands = [
            &["status"][..],
            &["logs"],
            &["logs", "-f"],
            &["wait"],
            &["stop"],
            &["restart"],
            &["retry"],
            &["joblog"],
            &["pause"],
            &["resume"],
            &["signal", "HUP"],
            &["rm"],
            &["history"],
            &["send", "--eof"],
            &["attach"],
            &["edit", "--no-after"],
            &["explain"],
            &["edit", "--priority", "1"],
        ];
        for command in commands {
            let arguments = ["nodejobs", "--data-dir", data_dir].into_iter().chain(command.iter().copied());
            let cli = Cli::try_parse_from(arguments.chain([""])).expect("a command line");
            let failure = run(cli, WHOLE).expect_err("no id");
            assert_eq!(
                failure.to_string(),
                "error: the id of a job is empty; `nodejobs ls` lists them",
                "{command:?}"
            );
        }
        assert!(!directory.path().join("new").exists(), "no daemon was started for it");
    }
}
