//! Handing attempts to a keeper, starting one where there is none, and saying why a launch failed.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nodejobs_core::RawText;
use nodejobs_core::backend::{
    BackendEvent, BackendReport, LaunchInput, LaunchSpec, StartFailure, StartFailureKind,
};
use nodejobs_core::id::AttemptId;
use nodejobs_core::status::Reason;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::link::Link;
use super::pulse::patience_ms;
use super::{Flight, Loop};
use crate::failpoint::{self, Failpoint, reached};
use crate::journal::{Stage, StartFailed};
use crate::keeper::KeeperFiles;
use crate::machine::now;
use crate::tree::DAEMON_MARK;
use crate::{holder, keeper, launch, limits};

/// Launches that are with a keeper and unanswered. Enough to keep it busy, few enough to hold their descriptors.
const IN_FLIGHT: usize = 32;

/// A launch that takes so long, in milliseconds, does not keep others from being sent.
const LONG_MS: u64 = 500;

/// A launch that takes so long, in milliseconds, stands still.
const STUCK_MS: u64 = 2_000;
/// With so many that wait for one file system, no more are sent to it.
const MOST_STUCK: usize = 64;
/// How often it is looked for which file system that is, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// Of the files with input, which are beside the keepers' own.
const INPUT_ENDING: &str = ".input";

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Loop {
    pub(super) fn send_launches(&mut self) {
        while self.in_flight() < IN_FLIGHT
            && let Some(attempt) = self.waiting.pop_front()
        {
            if let Err(failure) = self.send_launch(&attempt) {
                // Written again if it is tried again, which it may not be.
                self.drop_input(&attempt);
                self.groups.discard(&attempt);
                let event = BackendEvent::NotStarted { failure, at: now() };
                self.host.report(BackendReport { attempt, event, receipt: None });
            }
        }
    }

    /// Launches that keep a keeper busy. One that takes long keeps it no busier than one that has not begun.
    fn in_flight(&self) -> usize {
        if self.in_flight.len() < IN_FLIGHT {
            return self.in_flight.len();
        }
        let at = now().boot;
        let is_young = |flight: &&Flight| at < flight.told.plus_millis(LONG_MS);
        self.in_flight.values().filter(is_young).count()
    }

    /// Where a file system is mounted that this launch needs and that so many others wait for already.
    fn blocked_mount(&mut self, spec: &LaunchSpec) -> Option<PathBuf> {
        let at = now().boot;
        let is_stuck = |flight: &&Flight| at >= flight.told.plus_millis(STUCK_MS);
        if self.in_flight.len() < MOST_STUCK || self.in_flight.values().filter(is_stuck).count() < MOST_STUCK
        {
            return None;
        }
        let (looked, _) = &self.blocked;
        if at.millis_since(*looked) >= RETRY_MS {
            let mounts = mounts();
            let mut waiting: HashMap<PathBuf, usize> = HashMap::new();
            for attempt in self.in_flight.iter().filter(|(_, f)| is_stuck(f)).map(|(attempt, _)| attempt) {
                let Ok(spec) = self.host.launch_spec(attempt) else { continue };
                let its: HashSet<PathBuf> =
                    paths_of(&spec).iter().filter_map(|path| mount_of(&mounts, path)).collect();
                its.into_iter().for_each(|mount| *waiting.entry(mount).or_default() += 1);
            }
            // Where everybody has something, such as a log, is not where they wait.
            let root_like = mount_of(&mounts, &self.config.keepers);
            waiting.retain(|mount, count| *count >= MOST_STUCK && Some(mount) != root_like.as_ref());
            self.blocked = (at, waiting.into_keys().collect());
        }
        let mounts = mounts();
        let its = paths_of(spec).into_iter().filter_map(|path| mount_of(&mounts, &path));
        let (_, blocked) = &self.blocked;
        its.into_iter().find(|mount| blocked.contains(mount))
    }

    pub(super) fn send_launch(&mut self, attempt: &AttemptId) -> Result<(), StartFailure> {
        let spec = self.host.launch_spec(attempt)?;
        if let Some(mount) = self.blocked_mount(&spec) {
            return Err(StartFailure::no_room(format!(
                "the file system at '{}' does not answer: {MOST_STUCK} launches wait for it",
                mount.display()
            )));
        }
        let stdin = self.input_file(attempt, &spec.input).map_err(StartFailure::no_room)?;
        let group = self.make_group(attempt, &spec)?;
        let (header, memfd) =
            launch::pack(attempt, &spec, &stdin, group.as_deref(), &self.config.directory_id)
                .map_err(|error| StartFailure::no_room(format!("cannot pack the launch: {error}")))?;
        reached(Failpoint::OwnerPacked);
        let name = match &self.launching {
            Some(name) => name.clone(),
            None => self
                .start_keeper()
                .map_err(|error| StartFailure::no_room(format!("no keeper could be started: {error}")))?,
        };
        let Some(link) = self.links.get_mut(&name) else {
            return Err(StartFailure::no_room("the keeper has just left"));
        };
        // From here on only the keeper's journal knows whether it was executed.
        let flight = Flight { keeper: name.clone(), told: now().boot, is_called_off: false };
        self.in_flight.insert(attempt.clone(), flight);
        let sent = link.launch(header, &memfd);
        reached(Failpoint::OwnerLaunchSent);
        self.quicken(&name);
        match sent {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.in_flight.remove(attempt);
                return Err(StartFailure::no_room("its keeper is busy"));
            }
            Err(_) => {
                let mut reports = Vec::new();
                self.reattach(&name, &mut reports);
                for report in reports {
                    self.host.report(report);
                }
            }
        }
        Ok(())
    }

    /// The file that the attempt reads. Input that comes with it is put into one, which goes once it was opened.
    fn input_file(&mut self, attempt: &AttemptId, input: &LaunchInput) -> Result<RawText, String> {
        let bytes = match input {
            // What is held is made by the keeper.
            LaunchInput::Null | LaunchInput::Pipe | LaunchInput::Terminal(_) => {
                return Ok("/dev/null".into());
            }
            LaunchInput::File(path) => return Ok(path.clone()),
            LaunchInput::Bytes(bytes) => bytes,
        };
        let path = self.input_path(attempt);
        let write = || {
            // Of an earlier try to launch it.
            remove_if_there(&path)?;
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(&path)?.write_all(bytes)
        };
        // Also if only a part of it is written.
        self.inputs.insert(attempt.clone());
        write()
            .map_err(|error: io::Error| format!("cannot write the input '{}': {error}", path.display()))?;
        Ok(path.into_os_string().into_vec().into())
    }

    fn input_path(&self, attempt: &AttemptId) -> PathBuf {
        self.config.keepers.join(format!("{}.{}{INPUT_ENDING}", attempt.id, attempt.attempt))
    }

    /// The attempt was executed or was not; either way nobody opens its input any more.
    pub(super) fn drop_input(&mut self, attempt: &AttemptId) {
        if self.inputs.remove(attempt) {
            let _ = remove_if_there(&self.input_path(attempt));
        }
    }

    /// The launch is with a keeper since an earlier owner. Its input goes once it is answered.
    pub(super) fn keep_input(&mut self, attempt: &AttemptId) {
        if self.input_path(attempt).exists() {
            self.inputs.insert(attempt.clone());
        }
    }

    /// What no launch is about to read has been read, or will be written again.
    pub(super) fn drop_old_inputs(&self) {
        if !self.mute.is_empty() {
            // These may have launches that nobody knows of.
            return;
        }
        let kept: HashSet<PathBuf> = self.inputs.iter().map(|attempt| self.input_path(attempt)).collect();
        for entry in std::fs::read_dir(&self.config.keepers).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let is_input = name.as_bytes().ends_with(INPUT_ENDING.as_bytes());
            if (is_input && !kept.contains(&path)) || holder::is_abandoned(&name, &path) {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    pub(super) fn start_keeper(&mut self) -> Result<String, String> {
        self.keepers_started += 1;
        let boot_id = &self.config.machine.boot_id;
        let files =
            KeeperFiles::new(&self.config.keepers, self.config.generation, self.keepers_started, boot_id);
        let name = files.name.clone();
        let mut command = std::process::Command::new(self.config.program.path());
        command.args([keeper::ARGUMENT.as_ref(), files.directory.as_os_str(), name.as_ref()]);
        command.env_clear().current_dir("/").stdin(std::process::Stdio::null());
        // If this process is of a job of somebody else's, the keeper carries that job's trace, and is none of it.
        command.env(launch::MARK_VARIABLE, DAEMON_MARK);
        // Only the first one: the next has to go on where that one died.
        if cfg!(debug_assertions)
            && self.keepers_started == 1
            && let Some(failpoint) = std::env::var_os(failpoint::VARIABLE)
        {
            command.env(failpoint::VARIABLE, failpoint);
        }
        let program = self.config.program.path().display();
        let output = command.output().map_err(|error| format!("{program}: {error}"))?;
        if !output.status.success() {
            files.remove(Failpoint::OwnerHalfRemoved);
            return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        reached(Failpoint::OwnerKeeperStarted);
        let mut reports = Vec::new();
        let greeted = self.approach(&name, &mut reports).map(|()| self.await_greeting(&name, &mut reports));
        for report in reports {
            self.host.report(report);
        }
        greeted.map_err(|error| error.to_string())?;
        // Also one of which half was killed meanwhile takes none. The next try starts another.
        if !self.links.get(&name).is_some_and(Link::takes_launches) {
            return Err("it was killed before it could be spoken to".to_owned());
        }
        self.launching = Some(name.clone());
        Ok(name)
    }

    /// A keeper that was just started has a system call or two before it answers.
    fn await_greeting(&mut self, name: &str, reports: &mut Vec<BackendReport>) {
        let deadline = now().boot.plus_millis(patience_ms());
        while let Some(link) = self.links.get(name)
            && link.is_greeting()
        {
            let millis = deadline.millis_since(now().boot);
            let timeout = Timespec {
                tv_sec: (millis / 1000).cast_signed(),
                tv_nsec: (millis % 1000 * 1_000_000).cast_signed(),
            };
            let mut fds = [PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN)];
            if poll(&mut fds, Some(&timeout)) == Ok(0) {
                return;
            }
            self.hear(name, false, reports);
        }
    }

    pub(super) fn start_failure(&self, attempt: &AttemptId, failed: StartFailed) -> StartFailure {
        let StartFailed { stage, errno, which, .. } = failed;
        let error = io::Error::from_raw_os_error(errno);
        let no_room = matches!(errno, libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE);
        // The spec is asked for again: a failed start is rare, and remembering every command would not be.
        let spec = self.host.launch_spec(attempt).ok();
        let (reason, detail) = match stage {
            Stage::Fork => (Reason::Exec, format!("no process could be made: {error}")),
            Stage::Stdin => {
                let path = spec.map(|spec| match spec.input {
                    LaunchInput::File(path) => format!(" '{path}'"),
                    LaunchInput::Pipe => " (a pipe)".to_owned(),
                    LaunchInput::Terminal(_) => " (a terminal)".to_owned(),
                    LaunchInput::Null | LaunchInput::Bytes(_) => String::new(),
                });
                (Reason::Exec, format!("cannot open the standard input{}: {error}", path.unwrap_or_default()))
            }
            Stage::Stdout | Stage::Stderr => {
                let path = spec.map(|spec| match stage {
                    Stage::Stdout => spec.output.stdout.to_string(),
                    _ => spec.output.stderr.to_string(),
                });
                (Reason::Exec, format!("cannot open log file '{}': {error}", path.unwrap_or_default()))
            }
            Stage::Cwd => {
                let path = spec.map(|spec| spec.cwd.to_string()).unwrap_or_default();
                (Reason::Cwd, format!("cannot enter working directory '{path}': {error}"))
            }
            Stage::OpenFiles | Stage::Nice | Stage::User => {
                (Reason::Exec, limits::failure(stage, spec.and_then(|spec| spec.limits).as_deref(), &error))
            }
            Stage::Group => {
                let group = self.groups.of(attempt).map(|group| format!(" '{}'", group.entrance().display()));
                (Reason::Exec, format!("cannot enter its cgroup{}: {error}", group.unwrap_or_default()))
            }
            Stage::Journal => (Reason::Exec, format!("the keeper could not write its journal: {error}")),
            Stage::Exec => {
                let words = |spec: LaunchSpec| exec_failure(&spec, which, &error);
                (Reason::Exec, spec.map_or_else(|| error.to_string(), words))
            }
            Stage::LogDirectory => {
                let output = spec.map(|spec| spec.output);
                let file = output.map(|output| if which == Some(1) { output.stderr } else { output.stdout });
                let file = file.map(|file| file.to_string()).unwrap_or_default();
                let directory = file.rsplit_once('/').map_or("", |(directory, _)| directory);
                (Reason::Exec, format!("cannot make log directory '{directory}': {error}"))
            }
            Stage::CalledOff => (Reason::Exec, "called off".to_owned()),
            Stage::Killed => (Reason::Exec, "it was killed before the program was executed".to_owned()),
            Stage::Message => (Reason::Exec, format!("the keeper did not understand the launch: {error}")),
        };
        let kind = match stage {
            Stage::Killed => StartFailureKind::NoRoom,
            Stage::CalledOff => StartFailureKind::CalledOff,
            _ if no_room => StartFailureKind::NoRoom,
            _ => StartFailureKind::Permanent(reason),
        };
        StartFailure { kind, detail }
    }
}

/// Says which path could not be executed and why. The child has looked which of them is there.
fn exec_failure(spec: &LaunchSpec, which: Option<u32>, error: &io::Error) -> String {
    let words = spec.command.to_argv();
    let Some(program) = words.first() else { return error.to_string() };
    let candidates = launch::candidates(program, &spec.context);
    let cwd = Path::new(OsStr::from_bytes(spec.cwd.as_bytes()));
    let existing = which.and_then(|which| candidates.get(which as usize));
    match (existing.map(|bytes| cwd.join(OsStr::from_bytes(bytes))), error.raw_os_error()) {
        (None, Some(libc::ENOENT)) if !program.as_bytes().contains(&b'/') => {
            format!("there is no program '{program}' in PATH: {error}")
        }
        (None, _) => format!("cannot execute '{program}': {error}"),
        (Some(path), Some(libc::ENOENT)) => {
            format!("cannot execute '{}': its interpreter or loader is missing: {error}", path.display())
        }
        (Some(path), _) => format!("cannot execute '{}': {error}", path.display()),
    }
}

/// What a launch touches.
fn paths_of(spec: &LaunchSpec) -> Vec<PathBuf> {
    let path = |text: &RawText| PathBuf::from(OsStr::from_bytes(text.as_bytes()));
    let mut paths = vec![path(&spec.cwd), path(&spec.output.stdout), path(&spec.output.stderr)];
    if let LaunchInput::File(file) = &spec.input {
        paths.push(path(file));
    }
    if let Some(program) = spec.command.to_argv().first().filter(|word| word.as_bytes().contains(&b'/')) {
        paths.push(path(&spec.cwd).join(path(program)));
    }
    paths
}

/// Where file systems are mounted, as the kernel lists it: none of them is asked.
fn mounts() -> Vec<PathBuf> {
    let list = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let fields = list.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    fields.map(|field| PathBuf::from(OsStr::from_bytes(&unescape(field)))).collect()
}

/// Blanks and the like stand there as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|_| *first == b'\\');
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &behind[3..] } else { behind };
    }
    bytes
}

fn mount_of(mounts: &[PathBuf], path: &Path) -> Option<PathBuf> {
    let longest =
        mounts.iter().filter(|mount| path.starts_with(mount)).max_by_key(|mount| mount.as_os_str().len());
    longest.cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_the_longest_beginning_of_a_path() {
        let mounts = ["/", "/mnt/a", "/mnt/a b", "/mnt"].map(PathBuf::from);
        for (path, mount) in
            [("/mnt/a/x", "/mnt/a"), ("/mnt/a b/x", "/mnt/a b"), ("/mnt/ab", "/mnt"), ("/x", "/")]
        {
            assert_eq!(mount_of(&mounts, Path::new(path)), Some(PathBuf::from(mount)), "{path}");
        }
        assert_eq!(unescape(br"/mnt/a\040b\134"), b"/mnt/a b\\");
        assert_eq!(unescape(br"/a\04"), br"/a\04");
    }
}
