//! `nodejobs run`: submits a job, and stays with it if asked to.

mod after;
pub(super) mod limits;
mod once;
pub(super) mod options;
mod place;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use clap::Args;
use nodejobs::api::FollowQuery;
use nodejobs::config::JobDefaults;
use nodejobs::record::JobRecord;
use nodejobs::spec::{Command, JobSpec};
use nodejobs::{JobId, RawText, Status};
use nodejobs::{capture_context, new_submit_key};

pub(crate) use after::AfterOptions;
pub(super) use once::OnceOptions;
pub(crate) use options::JobOptions;

pub(crate) use options::label;
pub(crate) use place::need;

use super::logs::Printer;
use crate::connect::{Connection, Target};
use crate::exit::{FAILED, Failure, USAGE, job_code, mirrored, say};
use crate::output::{self, Format, outcome};
use crate::watch::{self, Until};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Run {
    /// The job's id, made of A-Z a-z 0-9 . _ - [default: a new one]
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<JobId>,
    /// A name for people; several jobs may share it
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// The directory to run in [default: the current one]
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<PathBuf>,
    /// Wait for the end of the job, and end with its exit code
    #[arg(long)]
    pub(super) wait: bool,
    /// Show the job's output while waiting for its end; the id goes to standard error
    #[arg(long)]
    pub(super) follow: bool,
    /// Take the one argument as a script for /bin/sh, also after `--`
    #[arg(long)]
    pub(super) shell: bool,
    #[command(flatten)]
    pub(super) after: AfterOptions,
    #[command(flatten)]
    pub(super) once: OnceOptions,
    #[command(flatten)]
    pub(super) options: JobOptions,
    /// The command: a program and its arguments, or one script for /bin/sh
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(super) words: Vec<OsString>,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs run -- make all               a program and its arguments, no shell
  nodejobs run make all                  the same: several arguments
  nodejobs run 'make all | tail'         one argument: a script for /bin/sh -c
  nodejobs run --shell -- 'make | tail'  the same, said explicitly
  nodejobs run --id nightly -- ./backup  an id of your choice
  nodejobs run --wait -- make test       end with the job's exit code
  nodejobs run --timeout 1h --grace 30s -- ./import
  nodejobs run --restart on-failure --max-restarts 5 -- ./server
  nodejobs run --memory 2G --cpu 1.5 --nice 10 -- ./train
  nodejobs run --group train --slots 2 --need gpu=1 --priority 5 -- ./train
  nodejobs run --retries 5 --backoff 10s..10m -- ./fetch
  nodejobs run --after build --after tests:any -- ./deploy
  nodejobs run --unique nightly --window 12h -- ./backup
  nodejobs run --at 18:00 --label kind=report -- ./report
  nodejobs run --clean-env --env-file app.env --logfile app.log -- ./app
  echo 1+2 | nodejobs run --follow --stdin - -- bc
  nodejobs run --id calc --stdin pipe -- bc      then: nodejobs send calc 1+2
  nodejobs run --id shell --pty -- bash          then: nodejobs attach shell

An id that is given names one job: a second `run` is refused while it lives, and starts its next attempt once it has \
ended.

The job gets the current environment, directory, umask and soft limits, and no input, unless options say otherwise. It goes on when the shell, this \
command or the daemon ends. Interrupting --wait or --follow ends the waiting, not the job.

With --after it waits for the ends of other jobs: for their success, or with ID:failure or ID:any for that. What counts is how each of them stands when all hold. Once one has ended otherwise, the job is cancelled, and so are those that wait for it; with --if-unmet wait it waits until that one is run again. Between two attempts a job has not ended.

A DURATION is numbers with units: 500ms, 5s, 10m, 1h30m, 7d. A SIGNAL is a name or a number: TERM, SIGINT, 9.

With --wait and --follow the exit status is the job's own: 128+N after signal N, 124 if --timeout ended it, and 125 if it \
has none (it never started, or was lost) or something here went wrong.";

impl Run {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        let (wait, follow) = (self.wait, self.follow);
        if follow {
            format.require_table("run --follow")?;
        }
        let spec = self.spec(&target.job_defaults()?)?;
        let run = || {
            let mut connection = target.connect()?;
            limits::say_how_kept(&mut connection, &spec)?;
            let record = connection.submit(&spec)?;
            if record.existing {
                say(&format_args!("note: job '{}' is there already, and {}", record.self_id, record.status));
            }
            match (follow, wait) {
                (true, _) => follow_it(&mut connection, &record),
                (false, true) => wait_for_it(&mut connection, &record, format),
                (false, false) => print_it(&record, format).map(|()| 0),
            }
        };
        if wait || follow { mirrored(run()) } else { run() }
    }

    pub(super) fn spec(self, defaults: &JobDefaults) -> Result<JobSpec, Failure> {
        let Self { id, name, cwd, shell, options, after, once, words, .. } = self;
        let mut spec = spec_of(words, shell, cwd, options, defaults)?;
        (spec.id, spec.name) = (id, name);
        spec.after = after.request();
        once.apply(&mut spec);
        spec.validate().map_err(|error| Failure::new(USAGE, error.to_string()))?;
        Ok(spec)
    }
}

/// What is to be run, with the surroundings of this process, the settings' defaults and what was said on top.
pub(super) fn spec_of(
    words: Vec<OsString>,
    shell: bool,
    cwd: Option<PathBuf>,
    options: JobOptions,
    defaults: &JobDefaults,
) -> Result<JobSpec, Failure> {
    let cannot = |what: &str| {
        let message = format!("cannot {what}");
        move |error: std::io::Error| Failure::caused(FAILED, message, &error)
    };
    let escaped = follows_escape(std::env::args_os(), words.len());
    let command = meaning(words, escaped, shell)?;
    let cwd = match cwd {
        Some(cwd) => super::absolute_directory(&cwd, "--cwd")?,
        None => std::env::current_dir().map_err(cannot("find the current directory; give --cwd"))?,
    };
    let mut spec = JobSpec::new(command, cwd.into_os_string().into_vec());
    spec.context = capture_context().map_err(cannot("read this process's environment"))?;
    defaults.apply(&mut spec);
    options.apply(&mut spec)?;
    spec.submit_key = Some(new_submit_key().map_err(cannot("get random bytes"))?);
    Ok(spec)
}

pub(super) fn print_it(record: &JobRecord, format: Format) -> Result<(), Failure> {
    match format {
        Format::Table => output::print(&format!("{}\n", record.self_id)),
        Format::Json | Format::Jsonl => output::print_json(record),
    }
}

pub(super) fn wait_for_it(
    connection: &mut Connection<'_>,
    record: &JobRecord,
    format: Format,
) -> Result<u8, Failure> {
    // One JSON document is what was asked for, so it is the last word; lines may tell both.
    if format != Format::Json {
        print_it(record, format)?;
    }
    let ended = watch::wait(connection, &[record.self_id.to_string()], Until::default(), |_| Ok(()))?;
    let Some(record) = ended.as_ref().and_then(|ended| ended.last()) else {
        return Err(Failure::new(FAILED, format!("the daemon did not tell how '{}' ended", record.self_id)));
    };
    match format {
        Format::Table => say(&format_args!("{}: {}", record.self_id, outcome(record))),
        Format::Json | Format::Jsonl => output::print_json(record)?,
    }
    Ok(job_code(record))
}

fn follow_it(connection: &mut Connection<'_>, record: &JobRecord) -> Result<u8, Failure> {
    say(&record.self_id);
    let query = FollowQuery { attempt: Some(record.attempt), ..FollowQuery::default() };
    let printer = Printer { only_stderr: false };
    let id = record.self_id.as_str();
    let record = watch::follow_through(connection, id, query, |event| printer.print(event), say_next)?;
    if record.status != Status::Finished || record.exit_code != Some(0) {
        say(&format_args!("{}: {}", record.self_id, outcome(&record)));
    }
    Ok(job_code(&record))
}

/// An attempt has ended that is followed by another.
pub(super) fn say_next(ended: &JobRecord) {
    say(&format_args!(
        "{}: attempt {}: {}; the next one follows",
        ended.self_id,
        ended.attempt,
        outcome(ended)
    ));
}

/// What the words mean: several of them, or any after `--`, are executed as they are; one alone is a script.
fn meaning(words: Vec<OsString>, escaped: bool, shell: bool) -> Result<Command, Failure> {
    let words: Vec<RawText> = words.into_iter().map(|word| word.into_vec().into()).collect();
    match (words.as_slice(), shell) {
        ([script], true) => Ok(Command::Shell(script.clone())),
        (words, true) => {
            let message =
                format!("--shell takes one script, not {} arguments; put it in quotes", words.len());
            Err(Failure::new(USAGE, message))
        }
        ([script], false) if !escaped => Ok(Command::Shell(script.clone())),
        ([script, ..], false) if !escaped && looks_like_a_script(script) => {
            let message = format!(
                "there are arguments behind '{script}', which looks like a script; give options before it, \
                 and `--` before a program of that name"
            );
            Err(Failure::new(USAGE, message))
        }
        (_, false) => Ok(Command::Argv(words)),
    }
}

/// Programs have no such names, unless they are paths.
fn looks_like_a_script(word: &RawText) -> bool {
    let bytes = word.as_bytes();
    bytes.contains(&b' ') && !bytes.contains(&b'/')
}

/// Whether the words, which are the last of all arguments, came directly after `--`.
fn follows_escape(arguments: impl Iterator<Item = OsString>, words: usize) -> bool {
    let arguments: Vec<_> = arguments.collect();
    let before = arguments.len().checked_sub(words + 1).and_then(|index| arguments.get(index));
    before.is_some_and(|before| before == OsStr::new("--"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command as CliCommand};

    /// What `nodejobs ARGUMENTS` would run.
    fn understood(arguments: &[&str]) -> Result<Command, Failure> {
        let arguments = || ["nodejobs"].into_iter().chain(arguments.iter().copied()).map(OsString::from);
        match Cli::try_parse_from(arguments()).expect("a command line").command {
            CliCommand::Run(run) => {
                let escaped = follows_escape(arguments(), run.0.words.len());
                meaning(run.0.words, escaped, run.0.shell)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_argument_is_a_script_and_everything_else_is_executed_as_it_is() {
        let shell = |arguments: &[&str]| {
            assert_eq!(understood(arguments).expect("a script"), Command::shell("a | b"));
        };
        shell(&["run", "a | b"]);
        shell(&["run", "--wait", "a | b"]);
        shell(&["run", "--shell", "a | b"]);
        shell(&["run", "--shell", "--", "a | b"]);
        let argv = |arguments: &[&str], words: &[&str]| {
            assert_eq!(understood(arguments).expect("a command"), Command::argv(words.iter().copied()));
        };
        argv(&["run", "--", "a | b"], &["a | b"]);
        argv(&["run", "--name", "x", "--", "true"], &["true"]);
        argv(&["run", "ls", "-la"], &["ls", "-la"]);
        argv(&["run", "--", "ls", "-la"], &["ls", "-la"]);
        argv(&["run", "--", "--", "x"], &["--", "x"]);
        argv(&["run", "a", "--", "b"], &["a", "--", "b"]);
        argv(&["run", "a", "--wait", "-o", "json"], &["a", "--wait", "-o", "json"]);
        argv(&["run", "--", ""], &[""]);
        assert!(matches!(understood(&["run", "--shell", "a", "b"]), Err(Failure::Error { code: USAGE, .. })));
        assert!(Cli::try_parse_from(["nodejobs", "run"]).is_err());
        assert!(Cli::try_parse_from(["nodejobs", "run", "--wait", "--"]).is_err());
    }

    #[test]
    fn bad_ids_are_refused_before_anything_is_done() {
        for id in ["../x", "a/b", "", "-x", "ü"] {
            let refused = Cli::try_parse_from(["nodejobs", "run", &format!("--id={id}"), "true"]);
            assert_eq!(refused.expect_err(id).exit_code(), 2);
        }
    }

    #[test]
    fn a_spec_has_the_surroundings_and_what_was_said_on_top() {
        let arguments =
            ["nodejobs", "run", "--cwd", "/tmp/x", "--env", "PATH=/p", "--env", "NEW=1", "--id", "a", "x"];
        let CliCommand::Run(run) = Cli::try_parse_from(arguments).expect("a command line").command else {
            panic!("not run");
        };
        let spec = run.0.spec(&JobDefaults::default()).expect("a spec");
        assert_eq!(spec.cwd, "/tmp/x".into());
        let paths = spec.context.environment.iter().filter(|(name, _)| *name == "PATH".into());
        assert_eq!(paths.map(|(_, value)| value.clone()).collect::<Vec<_>>(), ["/p".into()]);
        assert_eq!(spec.context.variable("NEW"), Some(&"1".into()));
        assert_eq!(spec.context.soft_limits.len(), 16);
        assert_eq!(spec.submit_key.map(|key| key.len()), Some(32));
    }
}
