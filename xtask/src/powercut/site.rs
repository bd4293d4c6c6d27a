//! Where the product runs: its directory on the disk that is tried, what its jobs write beside it, and its processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Signal, pidfd_send_signal};
use serde_json::Value;

use crate::process::{Ended, all_that_name, exited, finish, names, pidfd};
use crate::product::CommandLine;

/// The variable by which everything that our commands start is known.
const MARK: &str = "NODEJOBS_POWERCUT";
/// The variable that switches a fault on, in debug builds.
const MUTANT: &str = "NODEJOBS_MUTANT";
const DEADLINE: Duration = Duration::from_secs(60);
/// What jobs append a line to as their first act: id and attempt.
const EVIDENCE: &str = "evidence";
/// The length of a blank journal of which not even the length was on the disk: a head and some entries.
const BLANK: u64 = 4096;

pub(crate) struct Site {
    command_line: CommandLine,
    disk: PathBuf,
    work: PathBuf,
    mutant: Option<&'static str>,
}

impl Site {
    /// The product on the file system that is, or will be, mounted at `disk`.
    pub(crate) fn new(binary: &Path, store: &str, disk: &Path, work: &Path) -> Self {
        let command_line = CommandLine::new(binary, &disk.join("data"), Some(store));
        Self { command_line, disk: disk.to_owned(), work: work.to_owned(), mutant: None }
    }

    /// The same with a fault switched on.
    pub(crate) fn with_mutant(mut self, mutant: Option<&'static str>) -> Self {
        self.mutant = mutant;
        self
    }

    pub(crate) fn is_mutant(&self) -> bool {
        self.mutant.is_some()
    }

    /// Makes what the keepers never sync as bad as it can come back: its length reaches the disk, its content does not. When
    /// a file system leaves that differs from one to the other, and hangs on details of how a file was made.
    pub(crate) fn blank_journals(&self) -> Result<()> {
        let keepers = self.disk.join("data/keepers");
        if !keepers.exists() {
            return Ok(());
        }
        for entry in fs::read_dir(&keepers).context("cannot list the keepers")? {
            let path = entry.context("cannot list the keepers")?.path();
            if path.extension().is_some_and(|ending| ending == "journal" || ending == "gates") {
                let length = fs::metadata(&path).map_or(0, |found| found.len()).max(BLANK);
                let file = fs::File::create(&path);
                file.and_then(|file| file.set_len(length))
                    .with_context(|| format!("cannot blank {}", path.display()))?;
            }
        }
        Ok(())
    }

    pub(crate) fn disk(&self) -> &Path {
        &self.disk
    }

    pub(crate) fn evidence(&self) -> PathBuf {
        self.work.join(EVIDENCE)
    }

    /// Runs a command line to its end, whatever that is.
    pub(crate) fn finish(&self, arguments: &[&str]) -> Result<Ended> {
        finish(self.command().args(arguments), DEADLINE)
    }

    /// [`finish`](Self::finish), for one that has to succeed.
    pub(crate) fn call(&self, arguments: &[&str]) -> Result<String> {
        let ended = self.finish(arguments)?;
        ensure!(
            ended.status.success(),
            "`nodejobs {}` ended with {}: {}",
            arguments.join(" "),
            ended.status,
            ended.stderr.trim()
        );
        Ok(ended.stdout)
    }

    /// The records that a command line gives with `-o json`, whatever it ends with.
    pub(crate) fn records(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let ended = self.finish(&[&["-o", "json"], arguments].concat())?;
        match serde_json::from_str(&ended.stdout) {
            Ok(Value::Array(records)) => Ok(records),
            Ok(record) => Ok(vec![record]),
            Err(_) => bail!(
                "`nodejobs {}` ended with {}: {}",
                arguments.join(" "),
                ended.status,
                ended.stderr.trim()
            ),
        }
    }

    fn command(&self) -> Command {
        let mut command = self.command_line.command();
        command.current_dir(&self.work).env(MARK, &self.disk);
        if let Some(mutant) = self.mutant {
            command.env(MUTANT, mutant);
        }
        command
    }

    /// Kills every process that has to do with the disk, as the end of a machine does.
    pub(crate) fn kill_all(&self) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let ours = self.processes()?;
            if ours.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "processes {ours:?} do not end");
            for pid in ours {
                // Its number may be another's by now; once it is held, a second look says whether it is ours.
                let Ok(process) = pidfd(pid) else { continue };
                if self.is_ours(pid) && pidfd_send_signal(&process, Signal::KILL).is_ok() {
                    exited(&process, DEADLINE)?;
                }
            }
        }
    }

    /// The daemon, the keepers, and the jobs.
    fn processes(&self) -> Result<Vec<u32>> {
        let mut all = all_that_name(&self.disk)?;
        let entries = fs::read_dir("/proc").context("cannot list /proc")?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        all.extend(pids.filter(|pid| self.is_marked(*pid)));
        Ok(all)
    }

    fn is_ours(&self, pid: u32) -> bool {
        names(pid, &self.disk) || self.is_marked(pid)
    }

    fn is_marked(&self, pid: u32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mark = format!("{MARK}={}", self.disk.display());
        environment.split(|byte| *byte == 0).any(|text| text == mark.as_bytes())
    }
}

/// A job's id, and how it ended if it has.
pub(crate) fn outcome(record: &Value) -> Result<(&str, Option<String>)> {
    const ENDS: [&str; 6] = ["finished", "failed", "failed_start", "stopped", "cancelled", "lost"];
    let word = |key: &str| record[key].as_str();
    let (Some(id), Some(status)) = (word("self_id"), word("status")) else { bail!("no record: {record}") };
    let end = ENDS.contains(&status).then(|| {
        let number =
            |key: &str| record[key].as_i64().map_or_else(String::new, |number| format!(" {key} {number}"));
        let reason = word("reason").map_or_else(String::new, |reason| format!(" ({reason})"));
        let signal = word("signal").map_or_else(String::new, |signal| format!(" by {signal}"));
        format!("{status}{reason}{}{signal}{}", number("exit_code"), number("attempt"))
    });
    Ok((id, end))
}
