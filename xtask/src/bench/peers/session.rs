//! One run of a peer in a directory of its own, in a clean environment. Whatever it started is known by a variable that it
//! inherited, and is ended with the session.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, ensure};
use rustix::process::{Signal, pidfd_send_signal};

use super::super::report::{Side, TooSlow};
use super::{Found, Peer, Words};
use crate::process::{Ended, PATH, Running, exited, names, pause, pidfd, sealed};

/// What a job of `sleep 1000` is called, and so what is not a part of the peer.
const SLEEPER: &str = "sleep";
const MARK: &str = "NODEJOBS_BENCH";

pub(in super::super) struct Session {
    pub(in super::super) peer: &'static Peer,
    programs: PathBuf,
    directory: PathBuf,
    slots: usize,
    deadline: Duration,
    /// The process that `start` made first: the manager.
    manager: Option<u32>,
}

impl Session {
    /// Starts the peer, and lets it run this many jobs at a time. No call may take longer than `deadline`.
    pub(in super::super) fn start(
        found: &Found,
        directory: PathBuf,
        slots: usize,
        deadline: Duration,
    ) -> Result<Self> {
        let mut session = Self::prepare(found, directory, slots, deadline)?;
        if let Some(start) = session.peer.start {
            session.call(start, "true", 1).with_context(|| format!("cannot start {}", session.peer.name))?;
            session.manager = session.processes().into_iter().min_by_key(|pid| started(*pid));
        }
        Ok(session)
    }

    /// A session without anything in it.
    pub(in super::super) fn prepare(
        found: &Found,
        directory: PathBuf,
        slots: usize,
        deadline: Duration,
    ) -> Result<Self> {
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(Self {
            peer: found.peer,
            programs: found.directory.clone(),
            directory,
            slots,
            deadline,
            manager: None,
        })
    }

    pub(in super::super) fn side(&self) -> Side {
        Side::Peer(self.peer.name)
    }

    pub(in super::super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs what the peer is asked with; it has to succeed in time.
    pub(in super::super) fn call(&self, words: Words, job: &str, count: usize) -> Result<Ended> {
        let mut command = self.command(words, job, count);
        let running = Running::start(&mut command)?;
        if !running.ends_within(self.deadline)? {
            running.signal(Signal::KILL)?;
            running.collect()?;
            return Err(self.too_slow());
        }
        let ended = running.collect()?;
        let said = ended.stderr.lines().chain(ended.stdout.lines()).next().unwrap_or_default();
        ensure!(ended.status.success(), "`{}` ended with {}: {said}", words.join(" "), ended.status);
        Ok(ended)
    }

    /// A program for a job.
    pub(in super::super) fn job(&self, name: &str, script: &str) -> Result<String> {
        let path = self.directory.join(name);
        let cannot = || format!("cannot write {}", path.display());
        fs::write(&path, format!("#!/bin/sh\n{script}")).with_context(cannot)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).with_context(cannot)?;
        Ok(path.display().to_string())
    }

    /// Whether such a job runs.
    pub(in super::super) fn runs(&self, job: &str) -> bool {
        self.all().into_iter().any(|pid| names(pid, Path::new(job)))
    }

    pub(in super::super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Waits until something is so.
    pub(in super::super) fn until(&self, mut is_so: impl FnMut() -> bool, every: Duration) -> Result<()> {
        let started = Instant::now();
        while !is_so() {
            if started.elapsed() > self.deadline {
                return Err(self.too_slow());
            }
            pause(every)?;
        }
        Ok(())
    }

    /// Waits until so many jobs of `sleep` run; their processes.
    pub(in super::super) fn until_sleeping(&self, count: usize) -> Result<Vec<u32>> {
        let mut sleepers = Vec::new();
        let enough = || {
            sleepers = self.sleepers();
            sleepers.len() == count
        };
        let waited = self.until(enough, Duration::from_millis(50));
        match waited {
            Ok(()) => Ok(sleepers),
            Err(_) => {
                let (running, seconds) = (sleepers.len(), self.deadline.as_secs());
                Err(TooSlow(format!("{running} of {count} jobs run after {seconds} s")).into())
            }
        }
    }

    /// Everything that was started in this session, but the jobs of `sleep`.
    pub(in super::super) fn processes(&self) -> Vec<u32> {
        self.all().into_iter().filter(|pid| !is_sleeper(*pid)).collect()
    }

    pub(in super::super) fn sleepers(&self) -> Vec<u32> {
        self.all().into_iter().filter(|pid| is_sleeper(*pid)).collect()
    }

    /// Whether it has a process of its own, before the first job.
    pub(in super::super) fn has_manager(&self) -> bool {
        self.manager.is_some()
    }

    /// Kills the manager as a crash would.
    pub(in super::super) fn crash(&self) -> Result<()> {
        let manager = self.manager.context("there is no manager")?;
        let process = pidfd(manager)?;
        ensure!(self.owns(manager), "the manager has ended");
        pidfd_send_signal(&process, Signal::KILL).context("cannot kill the manager")?;
        ensure!(exited(&process, self.deadline)?, "the manager outlived SIGKILL");
        Ok(())
    }

    fn too_slow(&self) -> Error {
        TooSlow(format!("not done within {} s", self.deadline.as_secs())).into()
    }

    fn command(&self, words: Words, job: &str, count: usize) -> Command {
        static ROUND: AtomicUsize = AtomicUsize::new(0);
        let (directory, slots) = (self.directory.display().to_string(), self.slots.to_string());
        let round = ROUND.fetch_add(1, Ordering::Relaxed).to_string();
        let filled = |word: &str| {
            [("{job}", job), ("{dir}", &directory), ("{slots}", &slots), ("{round}", &round)]
                .into_iter()
                .fold(word.to_owned(), |word, (place, value)| word.replace(place, value))
        };
        // The jobs themselves are found where they are for everybody.
        let path = format!("{}:{PATH}", self.programs.display());
        let program = self.programs.join(words[0]);
        let mut command = sealed(if program.exists() { program } else { words[0].into() });
        command.current_dir(&self.directory).args(words[1..].iter().map(|word| filled(word)));
        command.env("PATH", path).env("HOME", &directory).env(MARK, &directory);
        command.env("DIR", &directory).env("JOB", job).env("N", count.to_string());
        command.env("SLOTS", &slots).env("ROUND", &round);
        command.envs(self.peer.environment.iter().map(|(name, value)| (name, filled(value))));
        command
    }

    fn all(&self) -> Vec<u32> {
        let entries = fs::read_dir("/proc").into_iter().flatten();
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid| self.owns(*pid)).collect()
    }

    /// Whether a process inherited the mark of this session.
    fn owns(&self, pid: u32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mark = format!("{MARK}={}", self.directory.display());
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    }
}

/// When a process was started, in ticks since the machine was: numbers wrap, and say nothing about age.
fn started(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may have anything in it.
    let ticks = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)?.parse().ok());
    ticks.unwrap_or(u64::MAX)
}

fn is_sleeper(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == SLEEPER)
}

impl Drop for Session {
    fn drop(&mut self) {
        // Who is killed may have been about to start another, so it is over when nobody is left.
        let started = Instant::now();
        loop {
            let left = self.all();
            if left.is_empty() {
                return;
            }
            if started.elapsed() > Duration::from_secs(10) {
                eprintln!("bench: {} processes of {} outlived SIGKILL", left.len(), self.peer.name);
                return;
            }
            // Opened first and looked at again: the number may have passed to somebody else meanwhile.
            let opened = left.into_iter().filter_map(|pid| Some((pid, pidfd(pid).ok()?)));
            for (_, process) in opened.filter(|(pid, _)| self.owns(*pid)) {
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
            let _ = pause(Duration::from_millis(10));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SH: Peer = Peer { name: "sh", program: "sh", ..Peer::NONE };

    fn session(name: &str, deadline: Duration) -> Session {
        let directory = std::env::temp_dir().join(format!("xtask-session-{name}-{}", std::process::id()));
        let found = Found { peer: &SH, directory: "/bin".into(), version: None };
        Session::prepare(&found, directory, 2, deadline).unwrap()
    }

    #[test]
    fn what_a_session_started_ends_with_it() {
        let session = session("ends", Duration::from_secs(30));
        let directory = session.directory().to_owned();
        session.call(&["sh", "-c", "for i in $(seq $N); do sleep 1000 & done"], "true", 3).unwrap();
        let sleepers = session.until_sleeping(3).unwrap();
        assert!(sleepers.iter().all(|pid| started(*pid) >= started(std::process::id())));
        assert!(session.processes().is_empty());
        drop(session);
        let is_alive =
            |pid: &u32| fs::read(format!("/proc/{pid}/environ")).is_ok_and(|found| !found.is_empty());
        assert_eq!(sleepers.iter().filter(|pid| is_alive(pid)).count(), 0);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn words_and_environment_say_the_same() {
        const WORDS: Words = &[
            "sh",
            "-c",
            r#"[ "$0 $1 $2" = "$JOB $SLOTS $DIR" ] && echo "$1 $N""#,
            "{job}",
            "{slots}",
            "{dir}",
        ];
        let session = session("words", Duration::from_secs(30));
        let ended = session.call(WORDS, "a job", 7).unwrap();
        assert_eq!(ended.stdout, "2 7\n");
        let error = session.call(&["sh", "-c", "echo no >&2; exit 3"], "", 1).err().unwrap().to_string();
        assert!(error.ends_with("ended with exit status: 3: no"), "{error}");
        fs::remove_dir_all(session.directory()).unwrap();
    }

    #[test]
    fn what_takes_too_long_is_cut_short() {
        let session = session("slow", Duration::from_millis(50));
        let error = session.call(&["sh", "-c", "exec sleep 1000"], "", 1).err().unwrap();
        assert!(error.downcast_ref::<TooSlow>().is_some(), "{error}");
        assert!(session.until(|| false, Duration::from_millis(5)).is_err());
        fs::remove_dir_all(session.directory()).unwrap();
    }
}
