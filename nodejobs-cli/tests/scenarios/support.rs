//! A data directory with the real binary, sealed off from the machine's user, that leaves no process behind.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use tempfile::TempDir;

/// The program under test.
pub(crate) const NODEJOBS: &str = env!("CARGO_BIN_EXE_nodejobs");
/// Its daemon.
pub(crate) const DAEMON: &str = env!("CARGO_BIN_EXE_nodejobs-daemon");
/// Its keeper.
pub(crate) const KEEPER: &str = env!("CARGO_BIN_EXE_nodejobs-keeper");

/// A condition that is not met by then will not be met.
const PATIENCE: Duration = Duration::from_secs(30);

/// A data directory of one test.
pub(crate) struct Home {
    directory: TempDir,
    data_dir: PathBuf,
    environment: Vec<(String, String)>,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Said {
    /// Standard output as text, without the last newline.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Home {
    /// A new, empty data directory.
    pub(crate) fn new() -> Self {
        Self::below("data")
    }

    /// One at this place below a new temporary directory.
    pub(crate) fn below(path: impl AsRef<Path>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data_dir = directory.path().join(path);
        Self { directory, data_dir, environment: Vec::new() }
    }

    /// The same with a variable for everything that runs here, the daemon included.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Whether this feature of the kernel is switched off here.
    pub(crate) fn disables(&self, feature: &str) -> bool {
        self.environment.iter().any(|(name, value)| name == "NODEJOBS_DISABLE" && value.contains(feature))
    }

    /// A directory for the test's own files.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// `nodejobs ARGUMENTS`, to be run in the test's directory.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(NODEJOBS);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("NODEJOBS_DIR", &self.data_dir)
            .envs(self.environment.iter().cloned())
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs `nodejobs ARGUMENTS` to its end.
    pub(crate) fn nodejobs<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Said {
        said(&mut self.command(arguments))
    }

    /// Runs it and expects success; gives standard output as text.
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let said = self.nodejobs(arguments);
        assert_eq!(said.code, 0, "{said:?}");
        said.text()
    }

    /// Submits `sh -c SCRIPT` and gives its id.
    pub(crate) fn run_script(&self, script: &str) -> String {
        self.ok(["run", "--shell", "--", script])
    }

    /// The record of a job.
    pub(crate) fn record(&self, id: &str) -> Value {
        let said = self.nodejobs(["-o", "json", "status", id]);
        assert_eq!(said.code, 0, "{said:?}");
        said.json()
    }

    /// The record of a job once it has ended.
    pub(crate) fn ended(&self, id: &str) -> Value {
        let said = self.nodejobs(["wait", id]);
        assert!(!said.stderr.contains("error:"), "{said:?}");
        self.record(id)
    }

    /// The record of a job once its program is executed.
    pub(crate) fn running(&self, id: &str) -> Value {
        eventually(&format!("job {id} runs"), || {
            let record = self.record(id);
            (record["status"] != "starting" && record["status"] != "queued").then_some(record)
        })
    }

    /// What the daemon says about itself.
    pub(crate) fn daemon(&self) -> Value {
        let said = self.nodejobs(["-o", "json", "daemon", "status"]);
        assert_eq!(said.code, 0, "{said:?}");
        said.json()
    }

    /// The daemon's process.
    pub(crate) fn daemon_pid(&self) -> u32 {
        pid_of(&self.daemon()["pid"])
    }

    /// The newest keeper's guard and worker.
    pub(crate) fn keeper(&self) -> (u32, u32) {
        let daemon = self.daemon();
        let keeper =
            daemon["keepers"].as_array().and_then(|keepers| keepers.last()).expect("a keeper").clone();
        (pid_of(&keeper["pid"]), pid_of(&keeper["worker_pid"]))
    }

    /// Halts both halves of the keeper, and gives them: a guard alone lets its worker go on.
    pub(crate) fn halt_keeper(&self) -> [u32; 2] {
        let (guard, worker) = self.keeper();
        [guard, worker].into_iter().for_each(|pid| signal(pid, Signal::STOP));
        [guard, worker]
    }

    /// Every process of this directory: daemons, keepers, jobs and what they left.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let path = self.data_dir.to_string_lossy().into_owned();
        let meta = std::fs::read(self.data_dir.join("nodejobs.json")).unwrap_or_default();
        let meta: Value = serde_json::from_slice(&meta).unwrap_or_default();
        let mark = meta["directory_id"].as_str().map(|id| format!("NODEJOBS_MARK={id}:"));
        let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_ours = |pid: &u32| {
            let read = |file| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let command_line = String::from_utf8_lossy(&read("cmdline")).into_owned();
            let environment = String::from_utf8_lossy(&read("environ")).into_owned();
            let serves = command_line.contains("daemon\0serve") || command_line.contains("--nodejobs-keeper");
            (serves && command_line.contains(&path))
                || mark.as_ref().is_some_and(|mark| environment.contains(mark.as_str()))
        };
        pids.filter(is_ours).map(|pid| (pid, name_of(pid))).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = said(&mut self.command(["stop", "--all", "--force"]));
        let _ = said(&mut self.command(["daemon", "stop"]));
        // A keeper leaves by itself once it has nothing left to tell, so it may take a moment.
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.processes().is_empty() && Instant::now() < deadline {
            pause();
        }
        let left = self.processes();
        for (pid, _) in &left {
            kill(*pid);
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "processes were left behind: {left:?}");
        }
    }
}

/// Runs a command to its end.
pub(crate) fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until the condition gives a value.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        pause();
    }
}

/// Waits until the condition is met; whether it was. For tests that say themselves what there is instead.
pub(crate) fn happens(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        pause();
    }
    true
}

/// Between two looks at a condition that nothing tells of.
fn pause() {
    let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
}

/// A process id in a JSON value.
pub(crate) fn pid_of(value: &Value) -> u32 {
    value
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok())
        .unwrap_or_else(|| panic!("{value} is no process id"))
}

/// Whether a process is there and has not ended.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X'])) && !stat.is_empty()
}

/// The name of a process's program.
pub(crate) fn name_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// Sends a signal to a process that the test knows to be one of its own.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
        let _ = pidfd_send_signal(&process, signal);
    }
}

/// Kills a process of the test's own and waits until it is gone.
pub(crate) fn kill(pid: u32) {
    signal(pid, Signal::KILL);
    eventually(&format!("process {pid} is gone"), || (!is_alive(pid)).then_some(()));
}

/// The lines of a file, none if it is not there.
pub(crate) fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

impl Home {
    /// `sh -c SCRIPT` as a submitter: `$NODEJOBS` is the program under test.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let own = self.command([""; 0]);
        let variables = own.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).env_clear().envs(variables).env("NODEJOBS", NODEJOBS);
        command.current_dir(self.path()).stdin(Stdio::null());
        command
    }

    /// What a job has written to its standard output.
    pub(crate) fn stdout(&self, id: &str) -> Vec<u8> {
        let said = self.nodejobs(["logs", id]);
        assert_eq!(said.code, 0, "{said:?}");
        said.stdout
    }

    /// What a job has written to its standard error.
    pub(crate) fn stderr(&self, id: &str) -> Vec<u8> {
        let said = self.nodejobs(["logs", "--stderr", id]);
        assert_eq!(said.code, 0, "{said:?}");
        said.stdout
    }

    /// All records, the first submitted first.
    pub(crate) fn records(&self) -> Vec<Value> {
        let said = self.nodejobs(["-o", "json", "ls", "--all", "--oldest-first"]);
        assert_eq!(said.code, 0, "{said:?}");
        said.json().as_array().expect("a list").clone()
    }

    /// The living processes of jobs.
    pub(crate) fn job_processes(&self) -> Vec<(u32, String)> {
        let mut processes = self.processes();
        processes.retain(|(_, name)| !name.starts_with("nodejobs"));
        processes
    }
}

/// The text of a field of a record, empty if it has none.
pub(crate) fn text<'a>(record: &'a Value, name: &str) -> &'a str {
    record[name].as_str().unwrap_or_default()
}

/// A time of a record, in milliseconds.
pub(crate) fn millis(record: &Value, name: &str) -> i64 {
    let time = text(record, name).parse::<nodejobs::Timestamp>();
    time.unwrap_or_else(|error| panic!("{name}: {error}: {record}")).as_millis()
}

/// A named pipe by which a test tells a job's script to go on.
pub(crate) struct Cue {
    path: PathBuf,
    pipe: std::fs::File,
}

impl Cue {
    /// Makes one of this name in the test's directory.
    pub(crate) fn new(home: &Home, name: &str) -> Self {
        let path = home.path().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).expect("a named pipe");
        // Opened for both, so that neither side has to wait for the other.
        let pipe = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("opened");
        Self { path, pipe }
    }

    /// Its path, for the script.
    pub(crate) fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// Sends the script a line.
    pub(crate) fn say(&self, line: &str) {
        use std::io::Write as _;
        (&self.pipe).write_all(format!("{line}\n").as_bytes()).expect("sent");
    }
}

impl Home {
    /// Runs `nodejobs ARGUMENTS` with this on its standard input.
    pub(crate) fn with_input(&self, arguments: &[&str], input: &[u8]) -> Said {
        use std::io::Write as _;
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("nodejobs starts");
        // It may refuse what it is given before it has read it all; what it says is what counts.
        let _ = child.stdin.take().expect("a pipe").write_all(input);
        let output = child.wait_with_output().expect("nodejobs ends");
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The record of a job once it has this status.
    pub(crate) fn has_status(&self, id: &str, status: &str) -> Value {
        eventually(&format!("{id} is {status}"), || {
            let record = self.record(id);
            (text(&record, "status") == status).then_some(record)
        })
    }

    /// Waits until a file is there by which a script says that it is ready.
    pub(crate) fn ready(&self, name: &str) {
        eventually(&format!("{name} is there"), || self.path().join(name).exists().then_some(()));
    }

    /// The record of every attempt of a job.
    pub(crate) fn history(&self, id: &str) -> Vec<Value> {
        let said = self.nodejobs(["-o", "json", "history", id]);
        assert_eq!(said.code, 0, "{said:?}");
        said.json().as_array().expect("a list").clone()
    }
}

impl Home {
    /// Whether all processes of jobs are halted: stopped, or waiting for a child that was stopped between its vfork and
    /// its exec, as shells have them.
    pub(crate) fn is_halted(&self) -> bool {
        let state = |pid: u32| -> Option<(String, u32)> {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let mut fields = stat.rsplit(") ").next()?.split(' ');
            Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
        };
        let processes = self.job_processes();
        let states: Vec<_> = processes.iter().map(|(pid, _)| (*pid, state(*pid))).collect();
        let is_stopped =
            |found: &Option<(String, u32)>| found.as_ref().is_some_and(|(state, _)| state == "T");
        let waits_for_child = |pid: u32, found: &Option<(String, u32)>| {
            let is_child =
                |child: &Option<(String, u32)>| child.as_ref().is_some_and(|(_, parent)| *parent == pid);
            found.as_ref().is_some_and(|(state, _)| state == "D")
                && states.iter().any(|(_, child)| is_child(child) && is_stopped(child))
        };
        !states.is_empty()
            && states.iter().all(|(pid, found)| is_stopped(found) || waits_for_child(*pid, found))
    }
}
