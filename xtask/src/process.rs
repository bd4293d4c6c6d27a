//! Running one process to its end and timing it, and what /proc says about the ones that stay.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What a process that has ended left behind.
pub(crate) struct Ended {
    pub(crate) took: Duration,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command, deadline: Duration) -> Result<Ended> {
    let running = Running::start(command)?;
    let ended = running.ends_within(deadline)?;
    if !ended {
        running.signal(Signal::KILL)?;
    }
    let collected = running.collect()?;
    ensure!(ended, "`{}` did not end within {} s", describe(command), deadline.as_secs());
    Ok(collected)
}

/// A process of ours. It writes into memory, not into pipes: a daemon that keeps one open cannot hold us up.
pub(crate) struct Running {
    child: Child,
    process: OwnedFd,
    stdout: File,
    stderr: File,
    started: Instant,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let (stdout, stderr) = (memory()?, memory()?);
        command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start `{}`", describe(command)))?;
        Ok(Self { process: pidfd(child.id())?, child, stdout, stderr, started })
    }

    pub(crate) fn ends_within(&self, time: Duration) -> Result<bool> {
        exited(&self.process, time)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.process, signal).context("cannot signal a process of ours")
    }

    /// Waits for its end, as long as that takes.
    pub(crate) fn collect(mut self) -> Result<Ended> {
        let status = self.child.wait().context("cannot wait for a process of ours")?;
        let took = self.started.elapsed();
        Ok(Ended { took, status, stdout: text(&mut self.stdout)?, stderr: text(&mut self.stderr)? })
    }
}

/// [`finish`], for a command that has to succeed.
pub(crate) fn succeed(command: &mut Command, deadline: Duration) -> Result<Ended> {
    let ended = finish(command, deadline)?;
    if !ended.status.success() {
        bail!("`{}` ended with {}: {}", describe(command), ended.status, ended.stderr.trim());
    }
    Ok(ended)
}

/// A command in the sealed environment in which everything is measured, the floors too: what cargo adds for its
/// own children (directories for the dynamic linker) would slow each start down.
pub(crate) fn sealed(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH).env("LANG", "C");
    command
}

pub(crate) const PATH: &str = "/usr/bin:/bin";

pub(crate) fn pidfd(pid: u32) -> Result<OwnedFd> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).with_context(|| format!("{pid} is no pid"))?;
    pidfd_open(raw, PidfdFlags::empty()).with_context(|| format!("cannot open process {pid}"))
}

/// Waits until the process ends, at most `within`. True if it ended.
pub(crate) fn exited(pidfd: impl AsFd, within: Duration) -> Result<bool> {
    ready(&mut [PollFd::new(&pidfd, PollFlags::IN)], within).context("cannot poll a process")
}

/// Lets some time go by, where how much is the point and not what happens meanwhile.
pub(crate) fn pause(time: Duration) -> Result<()> {
    ready(&mut [], time).context("cannot pause")?;
    Ok(())
}

fn ready(polled: &mut [PollFd<'_>], within: Duration) -> Result<bool> {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("too long a wait")?;
        match poll(polled, Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Memory of one process in MiB, shared pages divided among those that share them.
pub(crate) fn pss(pid: u32) -> Result<f64> {
    Ok(number_after(&format!("/proc/{pid}/smaps_rollup"), "Pss:")? / 1024.0)
}

/// How often the threads of a process went to sleep so far, which is how often they were woken.
pub(crate) fn wake_ups(pid: u32) -> Result<f64> {
    tasks(pid)?.iter().map(|task| number_after(&format!("{task}/status"), "voluntary_ctxt_switches:")).sum()
}

/// Processor time of the living threads of a process so far, in ms.
pub(crate) fn cpu(pid: u32) -> Result<f64> {
    let nanoseconds: f64 =
        tasks(pid)?.iter().map(|task| number_after(&format!("{task}/schedstat"), "")).sum::<Result<_>>()?;
    Ok(nanoseconds / 1e6)
}

fn tasks(pid: u32) -> Result<Vec<String>> {
    let directory = format!("/proc/{pid}/task");
    fs::read_dir(&directory)
        .with_context(|| format!("cannot list {directory}"))?
        .map(|entry| Ok(entry?.path().display().to_string()))
        .collect()
}

/// The number after a label at the start of a line.
fn number_after(file: &str, label: &str) -> Result<f64> {
    let text = fs::read_to_string(Path::new(file)).with_context(|| format!("cannot read {file}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(label)?.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("{file} has no number after `{label}`"))
}

/// Whether the process was started with an argument that is this directory or something in it.
pub(crate) fn names(pid: u32, directory: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .skip(1)
        .any(|word| Path::new(OsStr::from_bytes(word)).starts_with(directory))
}

/// Every process that [`names`] this directory.
pub(crate) fn all_that_name(directory: &Path) -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("cannot list /proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids.filter(|pid| names(*pid, directory)).collect())
}

/// Kills children of ours and collects them.
pub(crate) fn kill_all(children: &mut [Child]) -> Result<()> {
    for child in children.iter_mut() {
        child.kill().context("cannot kill a process of ours")?;
    }
    for child in children {
        child.wait().context("cannot wait for a process of ours")?;
    }
    Ok(())
}

fn memory() -> Result<File> {
    Ok(memfd_create("output", MemfdFlags::CLOEXEC).context("cannot create a memory file")?.into())
}

fn text(file: &mut File) -> Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text).context("the output is not UTF-8")?;
    Ok(text)
}

/// The command as one would type it, shortened.
fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut words = vec![program.to_string_lossy().into_owned()];
    words.extend(command.get_args().take(6).map(|argument| argument.to_string_lossy().into_owned()));
    if command.get_args().len() > 6 {
        words.push("…".to_owned());
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_status_and_time_are_kept() {
        let ended =
            finish(sealed("sh").args(["-c", "echo out; echo err >&2; exit 3"]), Duration::from_secs(30))
                .unwrap();
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(ended.status.code(), Some(3));
        assert!(ended.took > Duration::ZERO);
    }

    #[test]
    fn a_failure_shows_what_the_command_said() {
        let error = succeed(sealed("sh").args(["-c", "echo no room >&2; exit 5"]), Duration::from_secs(30))
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("exit status: 5: no room"), "{error}");
    }

    #[test]
    fn a_process_that_hangs_is_ended_and_named() {
        let error = finish(sealed("sleep").arg("1000"), Duration::from_millis(20)).err().unwrap();
        assert!(error.to_string().starts_with("`sleep 1000` did not end"), "{error}");
    }

    #[test]
    fn a_process_is_found_by_a_directory_it_names() {
        let mut command = sealed("sh");
        command.args(["-c", "read line", "sh", "/no/such/dir/ectory"]).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        assert_eq!(all_that_name(Path::new("/no/such/dir")).unwrap(), [child.id()]);
        assert!(!names(child.id(), Path::new("/no/such/di")));
        kill_all(std::slice::from_mut(&mut child)).unwrap();
        assert_eq!(all_that_name(Path::new("/no/such/dir")).unwrap(), [0; 0]);
    }

    #[test]
    fn proc_is_read() {
        let pid = std::process::id();
        assert!(pss(pid).unwrap() > 0.1);
        assert!(wake_ups(pid).unwrap() >= 0.0);
        assert!(cpu(pid).unwrap() > 0.0);
        assert!(number_after("/proc/self/status", "NoSuchLabel:").is_err());
    }
}
