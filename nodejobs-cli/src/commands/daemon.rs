//! `nodejobs daemon`: the process that owns the data directory.

mod serve;

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use nodejobs::api::DaemonStatus;
use nodejobs::client::Client;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};

use crate::connect::{Lifetime, Target};
use crate::exit::{FAILED, Failure, UNAVAILABLE, say};
use crate::output::{self, Format, daemon_block};
use crate::program::{Large, Program};
use crate::readable::now;

pub(crate) use serve::Serve;

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Daemon {
    #[command(subcommand)]
    command: DaemonCommand,
}

const AFTER_HELP: &str = "\
One daemon serves a data directory. Commands that need one start it, and such a daemon leaves after a minute without \
anything to do; one that was started with `daemon start` stays. Jobs run on without a daemon: the next one takes them \
over, with everything that happened in between. So after an upgrade `daemon restart` is all there is to do: `wait`, \
`logs -f` and `events -f` go on with the new daemon, and jobs keep the keeper that started them until they end.

`daemon reload` needs no restart for other settings; see `nodejobs config`.

With -o json `start`, `restart` and `status` print the daemon's pid, version, paths, keepers and counts of jobs; `stop` prints \
{\"stopped\":PID}, with null if no daemon was running. Without a daemon the exit status of `status` and `reload` is 5; that of `reload` is 2 if config.toml has mistakes.";

#[derive(Debug, Subcommand)]
enum DaemonCommand {
    /// Start a daemon that stays until it is stopped
    Start,
    /// Stop the daemon; the jobs run on
    Stop,
    /// Stop the daemon, if there is one, and start the one that is installed now, which stays; the jobs run on
    Restart,
    /// Have the daemon read config.toml again; a file with a mistake leaves everything as it was
    Reload,
    /// Show the daemon and how many jobs it has
    Status,
    /// Be the daemon. `daemon start` and auto-start run this in the background, with the lock of starts as standard
    /// input and a pipe for the first words as standard output.
    #[command(hide = true)]
    Serve(Serve),
}

/// How long a daemon that was told to leave may take.
const LEAVING: Duration = Duration::from_secs(30);
/// Between two looks at a process that may be cleared away never.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

impl Daemon {
    pub(crate) fn execute(self, target: Target, format: Format, program: Program) -> Result<u8, Failure> {
        match self.command {
            DaemonCommand::Start => start(&target, format),
            DaemonCommand::Stop => stop(&target).and_then(|stopped| stopped.tell(format)),
            DaemonCommand::Restart => restart(&target, format),
            DaemonCommand::Reload => reload(&target, format),
            DaemonCommand::Status => status(&target, format),
            DaemonCommand::Serve(serve) => (program.large)(Large::Serve(serve, target)),
        }
    }
}

fn start(target: &Target, format: Format) -> Result<u8, Failure> {
    let (status, is_new) = ensure(target)?;
    let what = if is_new { "started" } else { "already running" };
    match format {
        Format::Table => say(&format_args!("{what} (pid {})", status.pid)),
        Format::Json | Format::Jsonl => output::print_json(&status)?,
    }
    Ok(0)
}

/// A daemon that stays, and whether it was started now.
fn ensure(target: &Target) -> Result<(DaemonStatus, bool), Failure> {
    let mut is_new = false;
    let mut reach = || -> Result<Client, Failure> {
        let started = target.start(Lifetime::UntilStopped)?;
        is_new |= started.is_ok();
        Ok(started.unwrap_or_else(|running| running))
    };
    // The one that is there may just have been killed, and then the next one is started.
    let status = reach()?.retry(
        |client| {
            // It may be one that a command has started, which would leave when it has nothing to do.
            client.keep_daemon()?;
            client.daemon_status()
        },
        reach,
    )?;
    Ok((status, is_new))
}

/// Whoever follows or waits meanwhile goes on with the new daemon: their connections break, and are made again.
fn restart(target: &Target, format: Format) -> Result<u8, Failure> {
    // With a mistake there the next one would not start.
    target.settings()?;
    let stopped = stop(target)?;
    let (status, _) = ensure(target)?;
    match format {
        Format::Table => match stopped {
            Stopped::NotRunning => say(&format_args!("was not running; started (pid {})", status.pid)),
            Stopped::Ended(old) | Stopped::Told(old) => {
                say(&format_args!("restarted (pid {old}, now {})", status.pid));
            }
        },
        Format::Json | Format::Jsonl => output::print_json(&status)?,
    }
    Ok(0)
}

/// What a stop of the daemon came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    NotRunning,
    /// The process has ended.
    Ended(u32),
    /// It leaves, but its end cannot be watched from here.
    Told(u32),
}

impl Stopped {
    fn tell(self, format: Format) -> Result<u8, Failure> {
        match format {
            Format::Table => match self {
                Stopped::NotRunning => say(&"not running"),
                Stopped::Ended(pid) => say(&format_args!("stopped (pid {pid})")),
                Stopped::Told(pid) => say(&format_args!("told to leave (pid {pid})")),
            },
            Format::Json | Format::Jsonl => output::print_json(&self.json())?,
        }
        Ok(0)
    }

    fn json(self) -> Value {
        match self {
            Stopped::NotRunning => json!({"stopped": null}),
            Stopped::Ended(pid) => json!({"stopped": pid}),
            Stopped::Told(pid) => json!({"stopped": null, "leaving": pid}),
        }
    }
}

fn stop(target: &Target) -> Result<Stopped, Failure> {
    let Ok(client) = target.reach_running()? else { return Ok(Stopped::NotRunning) };
    let pid = client.daemon_status()?.pid;
    // Opened before it is told to leave, so that it cannot be another process of the same number.
    let process =
        i32::try_from(pid).ok().and_then(Pid::from_raw).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
    match client.stop_daemon() {
        // Somebody else has told it to leave a moment ago.
        Err(error) if error.is_broken() => {}
        told => told?,
    }
    let Some(Ok(process)) = process else {
        // It lives in another pid namespace, or this kernel has no pidfds: it leaves, but we cannot watch it.
        return Ok(Stopped::Told(pid));
    };
    let mut polled = [PollFd::new(&process, PollFlags::IN)];
    let deadline = Instant::now() + LEAVING;
    let mut was_dead = false;
    loop {
        match poll(&mut polled, Some(&LOOK)) {
            Ok(0) if Instant::now() >= deadline => {
                return Err(Failure::new(
                    FAILED,
                    format!("the daemon (pid {pid}) was told to leave and has not"),
                ));
            }
            // A thread that waits for a file system that hangs keeps the rest of the process from being cleared away.
            Ok(0) if std::mem::replace(&mut was_dead, is_dead(pid)) => break,
            Ok(0) => {}
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::caused(FAILED, "cannot wait for the daemon's end", &error)),
        }
    }
    Ok(Stopped::Ended(pid))
}

/// Whether the main thread of a process has ended.
fn is_dead(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
}

fn reload(target: &Target, format: Format) -> Result<u8, Failure> {
    let status = running(target)?.reload_daemon()?;
    match format {
        Format::Table => say(&"reloaded"),
        Format::Json | Format::Jsonl => output::print_json(&status)?,
    }
    Ok(0)
}

/// The daemon there is.
fn running(target: &Target) -> Result<Client, Failure> {
    target.reach_running()?.map_err(|_| {
        let message = format!(
            "no daemon serves '{}'; `nodejobs daemon start` starts one, and so does every command that needs it",
            target.data_dir.display()
        );
        Failure::new(UNAVAILABLE, message)
    })
}

fn status(target: &Target, format: Format) -> Result<u8, Failure> {
    let status = running(target)?.daemon_status()?;
    match format {
        Format::Table => output::print(&daemon_block(&status, now()))?,
        Format::Json | Format::Jsonl => output::print_json(&status)?,
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_told_as_json() {
        assert_eq!(Stopped::Ended(7).json().to_string(), r#"{"stopped":7}"#);
        assert_eq!(Stopped::NotRunning.json().to_string(), r#"{"stopped":null}"#);
        assert_eq!(Stopped::Told(7).json(), json!({"stopped": null, "leaving": 7}));
    }
}
