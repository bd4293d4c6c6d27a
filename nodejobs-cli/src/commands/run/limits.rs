//! The options of `run` that say what a job may use, and as whom it runs.

use clap::Args;
use nodejobs::api::MemoryLimits;
use nodejobs::spec::{JobSpec, Limits, OpenFiles, parse_processors};
use nodejobs::units::parse_size;

use crate::connect::Connection;
use crate::exit::{Failure, say};

const LIMITS: &str = "Limits";

#[derive(Args, Debug)]
pub(super) struct LimitOptions {
    /// Kill it when all its processes together have more memory than this, such as 500M; it has then failed with
    /// reason `memory`
    #[arg(long, value_name = "SIZE", value_parser = parse_size, allow_negative_numbers = true, help_heading = LIMITS)]
    memory: Option<u64>,
    /// Let all its processes together use so many processors, such as 1.5; refused where no cgroup can do that
    #[arg(long, value_name = "N", value_parser = parse_processors, allow_negative_numbers = true, help_heading = LIMITS)]
    cpu: Option<u32>,
    /// Let it have so many processes and threads at a time, all together; refused where no cgroup can do that
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = LIMITS)]
    pids: Option<u32>,
    /// Limit the open files of each of its processes; HARD is what a process may raise its limit to
    #[arg(long, value_name = "N[:HARD]", allow_negative_numbers = true, help_heading = LIMITS)]
    nofile: Option<OpenFiles>,
    /// Run it with this nice value, from -20 (goes first) to 19; below the present one takes the right to
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = LIMITS)]
    nice: Option<i32>,
    /// Run it as this user, with that user's groups, and HOME, USER, LOGNAME and SHELL; for root only
    #[arg(long, value_name = "NAME", help_heading = LIMITS)]
    user: Option<String>,
}

impl LimitOptions {
    pub(super) fn apply(self, spec: &mut JobSpec) {
        let Self { memory, cpu: cpu_milli, pids, nofile: open_files, nice, user } = self;
        let limits = Limits { memory, cpu_milli, pids, open_files, nice, user };
        spec.policy.limits = (limits != Limits::default()).then(|| Box::new(limits));
    }
}

/// Says what is weaker than it sounds.
pub(in crate::commands) fn say_how_kept(
    connection: &mut Connection<'_>,
    spec: &JobSpec,
) -> Result<(), Failure> {
    if spec.policy.memory_limit().is_none() {
        return Ok(());
    }
    let daemon = connection.ask(nodejobs::client::Client::daemon_status)?;
    if daemon.memory_limits == MemoryLimits::Sampling {
        say(
            &"note: the limit on memory is kept by looking at the processes every 0.05 to 1 s, as there is no cgroup that could do it; \
              what grows fast may have more for a moment before it is killed",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::Cli;

    #[test]
    fn what_is_no_limit_is_a_usage_error() {
        for arguments in [
            ["--memory", "-1"],
            ["--memory", "1.5G"],
            ["--memory", "lots"],
            ["--cpu", "-1"],
            ["--cpu", "half"],
            ["--pids", "-1"],
            ["--pids", "1.5"],
            ["--nofile", "-1"],
            ["--nofile", "10:"],
            ["--nice", "low"],
            ["--nice", "99999999999"],
        ] {
            let refused = Cli::try_parse_from(["nodejobs", "run"].iter().chain(&arguments).chain(&["true"]));
            let refused = refused.expect_err(arguments[0]);
            assert_eq!(refused.exit_code(), 2);
            assert!(refused.to_string().contains(&format!("'{}'", arguments[1])), "{refused}");
        }
    }
}
