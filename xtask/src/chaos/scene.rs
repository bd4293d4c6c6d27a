//! Where it all happens: the directories, the commands, and the processes that belong to it.

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Signal, pidfd_send_signal};

use super::Harmful;
use super::harm::{Harm, boot_ms};
use super::random::Random;
use super::slow_mount::SlowMount;
use crate::process::{Running, exited, names, pidfd};
use crate::product::CommandLine;

/// The variable by which everything that our commands start is known.
const MARK: &str = "NODEJOBS_CHAOS";
/// How long one command may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// So many directories are there for jobs within jobs.
const NESTED: u64 = 3;

pub(crate) struct Scene {
    binary: PathBuf,
    store: Option<String>,
    /// Everything is below it: the data directory and those of jobs within jobs.
    root: PathBuf,
    mark: String,
    pub(crate) seed: u64,
    pub(crate) end: Instant,
    harm: Mutex<Harm>,
    /// Where directories and programs answer slowly, if there can be such a place here.
    mount: Option<SlowMount>,
    /// Harm that is left out.
    pub(crate) spared: Vec<Harmful>,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Ended {
        /// Exit code; none if somebody else killed it.
        code: Option<i32>,
        stdout: String,
        stderr: String,
        /// Whether what was done meanwhile excuses that it found no daemon.
        excused: bool,
        /// How many daemons were killed meanwhile.
        deaths: usize,
        /// Whether system calls failed meanwhile.
        disturbed: bool,
    },
    /// We killed it, so it may have done what it was asked or not.
    Killed,
    /// It did not end.
    Hung,
}

/// A process of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobProcess {
    pub(crate) pid: u32,
    pub(crate) id: String,
    pub(crate) attempt: u32,
}

impl Scene {
    pub(crate) fn new(
        binary: &Path,
        store: Option<&str>,
        root: &Path,
        seed: u64,
        time: Duration,
        mount: Option<SlowMount>,
    ) -> Result<Self> {
        let scene = Self {
            binary: binary.to_owned(),
            store: store.map(str::to_owned),
            root: root.to_owned(),
            mark: format!("{}.{seed}", std::process::id()),
            seed,
            end: Instant::now() + time,
            harm: Mutex::default(),
            mount,
            spared: Vec::new(),
        };
        for directory in [scene.data(), scene.work()] {
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        Ok(scene)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Where the jobs run.
    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    pub(crate) fn spares(&self, harm: Harmful) -> bool {
        self.spared.contains(&harm)
    }

    pub(crate) fn mount(&self) -> Option<&SlowMount> {
        self.mount.as_ref()
    }

    /// The data directories of jobs within jobs.
    pub(crate) fn nested(&self) -> impl Iterator<Item = PathBuf> {
        (0..NESTED).map(|number| self.nested_one(number))
    }

    fn nested_one(&self, number: u64) -> PathBuf {
        self.root.join(format!("nested{number}"))
    }

    /// A command line for a script, with one of the [`nested`](Self::nested) directories.
    pub(crate) fn nested_command(&self, random: &mut Random) -> String {
        let directory = self.nested_one(random.below(NESTED));
        let store = self.store.as_ref().map_or_else(String::new, |store| format!(" --store {store}"));
        format!("\"{}\" --data-dir \"{}\"{store}", self.binary.display(), directory.display())
    }

    /// The command for one of the data directories.
    pub(crate) fn command_line(&self, directory: &Path) -> CommandLine {
        CommandLine::new(&self.binary, directory, self.store.as_deref())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command_line(&self.data()).command();
        command.current_dir(self.work()).env(MARK, &self.mark).args(arguments);
        command
    }

    pub(crate) fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }

    pub(crate) fn harm(&self) -> MutexGuard<'_, Harm> {
        self.harm.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Runs a command that may meet with an accident.
    pub(crate) fn risk(&self, random: &mut Random, arguments: &[&str]) -> Result<Said> {
        let accident = random.below(100);
        let delay = if random.one_in(3) { Duration::from_millis(400) } else { Duration::from_millis(12) };
        let (delay, pause) = (random.up_to(delay), random.up_to(Duration::from_millis(300)));
        if !self.goes_on() || accident >= 30 {
            return self.call(arguments);
        }
        let started = Instant::now();
        let running = Running::start(&mut self.command(arguments))?;
        if running.ends_within(delay)? {
            return self.said(running, started);
        }
        match accident {
            0..22 => running.signal(Signal::KILL)?,
            22..25 => {
                let daemon = self.daemon(&self.data());
                running.signal(Signal::KILL)?;
                if let Some(daemon) = daemon {
                    self.kill_daemon(daemon)?;
                }
            }
            _ => {
                running.signal(Signal::STOP)?;
                let ended = running.ends_within(pause);
                running.signal(Signal::CONT)?;
                ended?;
                self.harm().count("command frozen");
                return self.said(running, started);
            }
        }
        self.harm().count("command");
        running.collect()?;
        Ok(Said::Killed)
    }

    /// Runs a command to its end.
    pub(crate) fn call(&self, arguments: &[&str]) -> Result<Said> {
        let started = Instant::now();
        self.said(Running::start(&mut self.command(arguments))?, started)
    }

    /// Waits for the end of a command, not for ever.
    pub(crate) fn said(&self, running: Running, started: Instant) -> Result<Said> {
        if !running.ends_within(DEADLINE)? {
            running.signal(Signal::KILL)?;
            running.collect()?;
            return Ok(Said::Hung);
        }
        let ended = running.collect()?;
        let (harm, until) = (self.harm(), Instant::now());
        Ok(Said::Ended {
            code: ended.status.code(),
            excused: harm.excuses(started, until, &ended.stderr),
            deaths: harm.deaths(started, until),
            disturbed: harm.disturbs(started, until),
            stdout: ended.stdout,
            stderr: ended.stderr,
        })
    }

    /// The daemon that listens for this directory.
    pub(crate) fn daemon(&self, directory: &Path) -> Option<u32> {
        let stream = UnixStream::connect(directory.join("sock")).ok()?;
        u32::try_from(socket_peercred(stream.as_fd()).ok()?.pid.as_raw_nonzero().get()).ok()
    }

    pub(crate) fn kill_daemon(&self, pid: u32) -> Result<bool> {
        // Before it is dead: whoever meets it dead has its excuse.
        self.harm().killed_daemon(Instant::now());
        let killed = self.kill(pid)?;
        if !killed {
            self.harm().counts.entry("daemon").and_modify(|count| *count -= 1);
        }
        Ok(killed)
    }

    /// Kills a daemon or a half of a keeper, and waits until it is gone. False if there is none of that number.
    pub(crate) fn kill(&self, pid: u32) -> Result<bool> {
        // Its number may be another's by now; once it is held, its arguments say whether it is ours.
        let Ok(process) = pidfd(pid) else { return Ok(false) };
        if !names(pid, &self.root) || pidfd_send_signal(&process, Signal::KILL).is_err() {
            return Ok(false);
        }
        exited(&process, DEADLINE)
    }

    /// Kills what is on its way from clone to execve. Nobody can know whose it is, so it is noted when.
    pub(crate) fn kill_child(&self, process: &OwnedFd, pid: u32) -> Result<()> {
        if !names(pid, &self.root) || pidfd_send_signal(process, Signal::KILL).is_err() {
            return Ok(());
        }
        let now = boot_ms()?;
        let mut harm = self.harm();
        harm.children.push(now);
        harm.count("child");
        Ok(())
    }

    /// Whether our commands have started it.
    pub(crate) fn is_marked(&self, pid: u32) -> bool {
        self.environment(pid).is_some()
    }

    /// Every living process of every job.
    pub(crate) fn job_processes(&self) -> Result<Vec<JobProcess>> {
        let marked = self.marked()?.into_iter();
        Ok(marked.filter_map(|(pid, environment)| JobProcess::of(pid, &environment)).collect())
    }

    /// The number of every living process that our commands started, and theirs, with its environment.
    pub(crate) fn marked(&self) -> Result<Vec<(u32, Vec<u8>)>> {
        let entries = fs::read_dir("/proc").context("cannot list /proc")?;
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(pids.filter_map(|pid| Some((pid, self.environment(pid)?))).collect())
    }

    /// The environment of a process of ours.
    fn environment(&self, pid: u32) -> Option<Vec<u8>> {
        let mut environment = Vec::new();
        fs::File::open(format!("/proc/{pid}/environ")).ok()?.read_to_end(&mut environment).ok()?;
        let mark = format!("{MARK}={}", self.mark);
        environment.split(|byte| *byte == 0).any(|text| text == mark.as_bytes()).then_some(environment)
    }

    /// Kills or freezes a process of a job; what holds it, or none if it is gone.
    pub(crate) fn strike(&self, target: &JobProcess, signal: Signal) -> Option<OwnedFd> {
        let process = pidfd(target.pid).ok()?;
        let found = JobProcess::of(target.pid, &self.environment(target.pid)?)?;
        if found != *target {
            return None;
        }
        if signal == Signal::KILL {
            // Before it dies, so that nobody sees it dead for no reason.
            self.harm().hits.insert((found.id, found.attempt, found.pid));
        }
        pidfd_send_signal(&process, signal).ok()?;
        Some(process)
    }
}

impl JobProcess {
    fn of(pid: u32, environment: &[u8]) -> Option<Self> {
        let mark =
            environment.split(|byte| *byte == 0).find_map(|text| text.strip_prefix(b"NODEJOBS_MARK="))?;
        let mut words = std::str::from_utf8(mark).ok()?.split(':').skip(1);
        Some(Self { pid, id: words.next()?.to_owned(), attempt: words.next()?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_a_job_tells_whose_it_is() {
        let expected = JobProcess { pid: 5, id: "c1".to_owned(), attempt: 2 };
        assert_eq!(JobProcess::of(5, b"A=b\0NODEJOBS_MARK=0123:c1:2\0C=d\0"), Some(expected));
        assert_eq!(JobProcess::of(5, b"NODEJOBS_MARK=daemon\0"), None);
        assert_eq!(JobProcess::of(5, b""), None);
    }
}
