//! Handing attempts to a keeper, starting one where there is none, and saying why a launch failed.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nodejobs_core::RawText;
use nodejobs_core::backend::{
    BackendEvent, BackendReport, LaunchInput, LaunchSpec, StartFailure, StartFailureKind,
};
use nodejobs_core::id::AttemptId;
use nodejobs_core::status::Reason;

use super::Loop;
use super::link::Link;
use crate::failpoint::{self, Failpoint, reached};
use crate::journal::Stage;
use crate::machine::now;
use crate::tree::DAEMON_MARK;
use crate::{holder, keeper, launch, limits};

/// Launches that are with a keeper and unanswered. Enough to keep it busy, few enough to hold their descriptors.
const IN_FLIGHT: usize = 32;

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
        while self.in_flight.len() < IN_FLIGHT
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

    pub(super) fn send_launch(&mut self, attempt: &AttemptId) -> Result<(), StartFailure> {
        let spec = self.host.launch_spec(attempt)?;
        if spec.makes_directories {
            self.make_log_directory(&spec).map_err(StartFailure::permanent)?;
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
        self.in_flight.insert(attempt.clone(), (name.clone(), now().boot));
        let sent = link.launch(header, &memfd);
        reached(Failpoint::OwnerLaunchSent);
        if sent.is_err() {
            let mut reports = Vec::new();
            self.reattach(&name, &mut reports);
            for report in reports {
                self.host.report(report);
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

    /// No launch is in flight, so what input there is has been read or will be written again.
    pub(super) fn drop_all_inputs(&self) {
        for entry in std::fs::read_dir(&self.config.keepers).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.as_bytes().ends_with(INPUT_ENDING.as_bytes())
                || holder::is_abandoned(&name, &entry.path())
            {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    pub(super) fn make_log_directory(&mut self, spec: &LaunchSpec) -> Result<(), String> {
        let parent =
            |file: &'_ RawText| Path::new(OsStr::from_bytes(file.as_bytes())).parent().map(Path::to_owned);
        let (stdout, stderr) = (parent(&spec.output.stdout), parent(&spec.output.stderr));
        let second = stderr.filter(|directory| stdout.as_ref() != Some(directory));
        for directory in stdout.into_iter().chain(second) {
            let directory = directory.as_path();
            if self.log_directories.contains(directory) && directory.is_dir() {
                continue;
            }
            let mut builder = std::fs::DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(|error| format!("cannot make log directory '{}': {error}", directory.display()))?;
            self.log_directories.insert(directory.to_owned());
        }
        Ok(())
    }

    pub(super) fn start_keeper(&mut self) -> Result<String, String> {
        self.keepers_started += 1;
        // Sorts by age, and no other owner ever uses the name.
        let name = format!("{:08}-{}", self.config.generation, self.keepers_started);
        let files = self.files(&name);
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
        let attached = self.attach(&name, &mut reports);
        for report in reports {
            self.host.report(report);
        }
        attached.map_err(|error| error.to_string())?;
        // Also one of which half was killed meanwhile takes none. The next try starts another.
        if !self.links.get(&name).is_some_and(Link::takes_launches) {
            return Err("it was killed before it could be spoken to".to_owned());
        }
        self.launching = Some(name.clone());
        Ok(name)
    }

    pub(super) fn start_failure(&self, attempt: &AttemptId, stage: Stage, errno: i32) -> StartFailure {
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
                (Reason::Exec, spec.map_or_else(|| error.to_string(), |spec| exec_failure(&spec, &error)))
            }
            Stage::Killed => (Reason::Exec, "it was killed before the program was executed".to_owned()),
            Stage::Message => (Reason::Exec, format!("the keeper did not understand the launch: {error}")),
        };
        let kind = match stage {
            Stage::Killed => StartFailureKind::NoRoom,
            _ if no_room => StartFailureKind::NoRoom,
            _ => StartFailureKind::Permanent(reason),
        };
        StartFailure { kind, detail }
    }
}

/// Says which path could not be executed and why.
fn exec_failure(spec: &LaunchSpec, error: &io::Error) -> String {
    let words = spec.command.to_argv();
    let Some(program) = words.first() else { return error.to_string() };
    let candidates = launch::candidates(program, &spec.context);
    let cwd = Path::new(OsStr::from_bytes(spec.cwd.as_bytes()));
    let existing = candidates
        .iter()
        .map(|bytes| cwd.join(OsStr::from_bytes(bytes)))
        .find(|path| std::fs::symlink_metadata(path).is_ok());
    match (existing, error.raw_os_error()) {
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
