//! A daemon of our own in a directory of its own: calling it, asking for its state, and ending it.

mod http;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use serde_json::Value;

use crate::process::{self, Ended, exited, finish, names, pidfd, sealed, succeed};
pub(crate) use http::Api;

/// How long one call, or one state we wait for, may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// The command line, for one data directory.
pub(crate) struct CommandLine {
    binary: PathBuf,
    directory: PathBuf,
    store: Option<String>,
}

/// A running daemon. Dropping it ends its jobs, the daemon and its keepers.
pub(crate) struct Product {
    command_line: CommandLine,
    /// The daemon's and keepers' processes, opened when the daemon told of them: no other is ever signalled.
    learned: RefCell<BTreeMap<u32, OwnedFd>>,
}

/// What `daemon status` says, as far as it is needed here.
pub(crate) struct Status {
    pub(crate) daemon: u32,
    pub(crate) keepers: Vec<Keeper>,
    pub(crate) running: usize,
    pub(crate) socket: PathBuf,
}

/// A guard and its worker, as far as they live.
pub(crate) struct Keeper {
    pub(crate) guard: Option<u32>,
    pub(crate) worker: Option<u32>,
}

impl CommandLine {
    pub(crate) fn new(binary: &Path, directory: &Path, store: Option<&str>) -> Self {
        Self { binary: binary.into(), directory: directory.into(), store: store.map(str::to_owned) }
    }

    /// Runs a command line to its end, whatever that is.
    pub(crate) fn finish(&self, arguments: &[&str]) -> Result<Ended> {
        finish(self.command().args(arguments), DEADLINE)
    }

    /// [`finish`](Self::finish), for one that has to succeed.
    pub(crate) fn call(&self, arguments: &[&str]) -> Result<Ended> {
        succeed(self.command().args(arguments), DEADLINE)
    }

    /// What it says with `-o json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.call(&[&["-o", "json"], arguments].concat())?.stdout;
        serde_json::from_str(&output)
            .with_context(|| format!("`{}` gave no JSON: {output}", arguments.join(" ")))
    }

    /// The command itself, sealed, without arguments.
    pub(crate) fn command(&self) -> Command {
        let mut command = sealed(&self.binary);
        command.envs(self.variables());
        if let Some(store) = &self.store {
            command.args(["--store", store]);
        }
        command
    }

    fn variables(&self) -> [(&'static str, &Path); 2] {
        [("NODEJOBS_DIR", &self.directory), ("HOME", &self.directory)]
    }
}

impl Product {
    /// Starts a daemon in an empty directory and lets it run one job, so that there is a keeper.
    pub(crate) fn start(binary: &Path, directory: &Path, store: Option<&str>) -> Result<Self> {
        let mut product = Self::attach(binary, directory, store);
        product.call(&["daemon", "start"])?;
        // Nobody goes on saying so, and each call would ask the daemon whether it is true.
        product.command_line.store = None;
        product.call(&["run", "--wait", "--", "true"])?;
        product.status()?;
        Ok(product)
    }

    /// Takes charge of whatever runs in a directory. If nothing does, the first call starts a daemon with this store.
    pub(crate) fn attach(binary: &Path, directory: &Path, store: Option<&str>) -> Self {
        Self { command_line: CommandLine::new(binary, directory, store), learned: RefCell::default() }
    }

    /// Runs a command line to its end; it has to succeed.
    pub(crate) fn call(&self, arguments: &[&str]) -> Result<Ended> {
        self.command_line.call(arguments)
    }

    /// How long a command line takes from start to end.
    pub(crate) fn time(&self, arguments: &[&str]) -> Result<Duration> {
        Ok(self.call(arguments)?.took)
    }

    /// A shell that finds `nodejobs` and this data directory.
    pub(crate) fn shell(&self, script: &str) -> Result<Ended> {
        let binaries = self.command_line.binary.parent().unwrap_or(Path::new("/"));
        let path = format!("{}:{}", binaries.display(), process::PATH);
        succeed(
            sealed("sh").envs(self.command_line.variables()).env("PATH", path).args(["-c", script]),
            DEADLINE,
        )
    }

    pub(crate) fn api(&self) -> Result<Api> {
        Ok(Api::new(&self.status()?.socket))
    }

    pub(crate) fn status(&self) -> Result<Status> {
        let value = self.command_line.json(&["daemon", "status"])?;
        let status = Status::parse(&value)
            .with_context(|| format!("`daemon status -o json` lacks something: {value}"))?;
        let mut learned = self.learned.borrow_mut();
        learned.retain(|_, process| !exited(process, Duration::ZERO).unwrap_or(false));
        for pid in status.processes() {
            if let Entry::Vacant(entry) = learned.entry(pid) {
                // Who has left since the answer was given, to us or for another process of the same number, is
                // nobody to learn of.
                if let Some(process) = pidfd(pid).ok().filter(|_| names(pid, &self.command_line.directory)) {
                    entry.insert(process);
                }
            }
        }
        drop(learned);
        Ok(status)
    }

    /// Waits until exactly `count` jobs run.
    pub(crate) fn until_running(&self, count: usize) -> Result<Status> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.status()?;
            if status.running == count {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "{} jobs run instead of {count}", status.running);
            self.pause(&status, Duration::from_millis(10))?;
        }
    }

    /// Waits until a job has been started.
    pub(crate) fn until_started(&self, id: &str) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let record = self.command_line.json(&["status", id])?;
            match record["status"].as_str() {
                Some("running") => return Ok(()),
                Some("queued" | "starting") if Instant::now() < deadline => {}
                _ => bail!("job {id} is not running: {record}"),
            }
        }
    }

    /// Lets the daemon be for a while; an error if it ends meanwhile. Waiting on its process rather than on a
    /// clock alone keeps a dead daemon from being measured as a quiet one.
    pub(crate) fn pause(&self, status: &Status, time: Duration) -> Result<()> {
        let learned = self.learned.borrow();
        let daemon = learned.get(&status.daemon).context("the daemon's process is not known")?;
        ensure!(!exited(daemon, time)?, "the daemon ended");
        Ok(())
    }

    /// Kills the daemon as a crash would, and waits until it is gone.
    pub(crate) fn crash(&self) -> Result<()> {
        let status = self.status()?;
        ensure!(self.kill(status.daemon)?, "the daemon had ended before");
        let learned = self.learned.borrow();
        let daemon = learned.get(&status.daemon).context("the daemon's process is not known")?;
        ensure!(exited(daemon, DEADLINE)?, "the daemon outlived SIGKILL");
        Ok(())
    }

    /// Kills a process that the newest [`status`](Self::status) told of. False if it had ended.
    pub(crate) fn kill(&self, pid: u32) -> Result<bool> {
        match self.learned.borrow().get(&pid).map(|process| pidfd_send_signal(process, Signal::KILL)) {
            None | Some(Err(Errno::SRCH)) => Ok(false),
            Some(sent) => sent.map(|()| true).with_context(|| format!("cannot kill process {pid}")),
        }
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // A daemon that is dead has left its jobs behind, and only a daemon can end them.
        if self.status().is_err() {
            let _ = self.call(&["daemon", "start"]);
            let _ = self.status();
        }
        // Each may fail because what it ends is gone already; the processes themselves are looked at below.
        let _ = self.call(&["stop", "--all", "--force"]);
        let _ = self.call(&["daemon", "stop"]);
        for (pid, process) in self.learned.get_mut() {
            if !exited(process.as_fd(), Duration::from_secs(2)).unwrap_or(false) {
                eprintln!("process {pid} did not leave within 2 s of `daemon stop` and is killed");
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
        }
    }
}

impl Status {
    pub(crate) fn parse(value: &Value) -> Option<Self> {
        let pid = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let mut keepers = Vec::new();
        for keeper in value["keepers"].as_array()? {
            // Null once one was killed, and the other goes on to the end of what there is.
            let half = |value: &Value| if value.is_null() { Some(None) } else { pid(value).map(Some) };
            keepers.push(Keeper { guard: half(&keeper["pid"])?, worker: half(&keeper["worker_pid"])? });
        }
        let running = value["jobs"].as_object()?.get("running").map_or(Some(0), Value::as_u64)?;
        Some(Self {
            daemon: pid(&value["pid"])?,
            keepers,
            running: usize::try_from(running).ok()?,
            socket: value["socket"].as_str()?.into(),
        })
    }

    pub(crate) fn processes(&self) -> impl Iterator<Item = u32> {
        [self.daemon].into_iter().chain(self.keeper_processes())
    }

    /// Guards and workers.
    pub(crate) fn keeper_processes(&self) -> impl Iterator<Item = u32> {
        self.keepers.iter().flat_map(|keeper| keeper.guard.into_iter().chain(keeper.worker))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_read() {
        let value = json!({
            "pid": 10, "socket": "/d/sock", "jobs": { "finished": 3, "running": 2 },
            "keepers": [{ "pid": 11, "worker_pid": 12 }, { "pid": 13, "worker_pid": null },
                { "pid": null, "worker_pid": 14 }],
        });
        let status = Status::parse(&value).unwrap();
        assert_eq!((status.daemon, status.running, status.socket.as_path()), (10, 2, Path::new("/d/sock")));
        assert_eq!(status.processes().collect::<Vec<_>>(), [10, 11, 12, 13, 14]);
    }

    #[test]
    fn no_running_jobs_is_none_and_no_socket_is_an_error() {
        let status = Status::parse(&json!({ "pid": 1, "socket": "/s", "jobs": {}, "keepers": [] })).unwrap();
        assert_eq!(status.running, 0);
        assert!(Status::parse(&json!({ "pid": 1, "jobs": {}, "keepers": [] })).is_none());
    }
}
