//! `nodejobs config`: the settings of the data directory.

use clap::{Args, Subcommand};
use nodejobs::config::{CONFIG_NAME, Config as Settings};

use crate::connect::Target;
use crate::exit::{Failure, say};
use crate::output::{self, Format};

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

const AFTER_HELP: &str = "\
The file config.toml in the data directory may say, for instance:

  [defaults]                # of `nodejobs run`, called as its options
  grace = \"10s\"             # also timeout, stop_signal, success_codes,
  restart = \"on-failure\"    # keep_children, max_restarts, restart_delay,
  merge = true              # restart_delay_max, healthy_after,
                            # give_up_after; where an option is given,
                            # that counts

  [daemon]
  idle_exit = \"5m\"          # a daemon that a command has started leaves
                            # after so long with nothing to do; or \"never\"
  [limits]                  # of all jobs together
  max_processes = 8         # jobs that run at a time
  max_memory = \"4G\"         # the sum of the --memory of those that run
  when_full = \"queue\"       # or \"refuse\"
  cgroup = \"/sys/fs/cgroup/jobs\"  # where those of jobs are made, read when
                            # the daemon starts; else where that is

  [resources]               # of the machine, that jobs may --need
  gpu = 2

  [logs]
  cap = \"100M\"              # of each output, without --log-cap; or \"none\"
  quota = \"10G\"             # of all together: the oldest ended jobs lose
                            # their output first
  [history]                 # ended jobs are forgotten by themselves:
  keep_for = \"30d\"          # those that ended longer ago
  keep_last = 10000         # all but those submitted last
  keep_attempts = 100       # of each job, the newest; or \"all\"

  [[hooks]]                 # commands that are run on events
  on = [\"failed\", \"lost\"]   # statuses, or \"ended\" for all final ones
  run = [\"notify-send\", \"a job failed\"]
  timeout = \"30s\"           # killed then; `shell = \"…\"` is a script

A hook reads the record of the job as JSON (null if the job is removed meanwhile) and has JOB_ID, NODEJOBS_ATTEMPT, NODEJOBS_EVENT (the status), NODEJOBS_REASON, \
NODEJOBS_SEQ and NODEJOBS_DIR in its environment, which is the daemon's, with `env = { KEY = \"VALUE\" }` on top. It is \
run at least once for each such event as `nodejobs events` has them, also if the daemon is killed meanwhile: then once more. A \
status that is not final may come more than once. Four hooks run at a time; what fails is in daemon.log. The daemon has \
little of your environment: PATH, HOME, LANG, TZ, TMPDIR.

[defaults] count from the next `run` on, all else from `nodejobs daemon reload` or the next daemon on. A file with a \
mistake is refused as a whole.

Exit status: 0, or 2 if the file has mistakes.";

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show every setting, and where it comes from
    Show,
    /// Say whether the file can be used, and if not what is wrong in which lines
    Check,
    /// Print where the file is, or would be
    Path,
}

impl Config {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        let path = Settings::path(&target.data_dir);
        match self.command {
            ConfigCommand::Show => show(target, format)?,
            ConfigCommand::Check => {
                target.settings()?;
                let found =
                    if path.exists() { "can be used" } else { "is not there; everything has its default" };
                say(&format_args!("'{}' {found}", path.display()));
            }
            ConfigCommand::Path => {
                output::print(&format!("{}\n", path.display()))?;
            }
        }
        Ok(0)
    }
}

fn show(target: &Target, format: Format) -> Result<(), Failure> {
    let status = target.settings()?.status(&target.data_dir);
    match format {
        Format::Table => {
            let rows = status.settings.into_iter().map(|setting| {
                let from =
                    setting.line.map_or_else(|| "default".to_owned(), |line| format!("{CONFIG_NAME}:{line}"));
                [setting.key, from, setting.value.unwrap_or_else(|| "-".to_owned())]
            });
            output::print(&output::columns(["SETTING", "FROM", "VALUE"], &rows.collect::<Vec<_>>()))
        }
        Format::Json | Format::Jsonl => output::print_json(&status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_can_be_used() {
        let lines = AFTER_HELP.lines().filter_map(|line| line.strip_prefix("  "));
        let example = lines.collect::<Vec<_>>().join("\n");
        let settings = Settings::parse(example.as_bytes()).expect("settings");
        assert_eq!((settings.defaults.policy.grace_ms, settings.hooks.len()), (10_000, 1), "{example}");
        // Each key of the defaults is named.
        for setting in settings.settings() {
            let key = setting.key.rsplit('.').next().expect("a name");
            assert!(setting.key.starts_with("hooks.") || example.contains(key), "{}", setting.key);
        }
    }
}
