//! Finding the data directory, reaching its owner, and starting a daemon where there is none.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nodejobs::Timestamp;
use nodejobs::api::{ArrayRequest, Problem, START_LOCK_NAME};
use nodejobs::client::{Client, ClientError};
use nodejobs::config::{Config, JobDefaults};
use nodejobs::daemon::{LOG_NAME, foreign_file, in_scope_of_its_own};
use nodejobs::record::JobRecord;
use nodejobs::spec::JobSpec;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::exit::{CONFLICT, Failure, UNAVAILABLE, USAGE, say};
use crate::starts::FailedStarts;

/// How often one command starts a daemon that is killed each time. Of those that are killed before they can be reached
/// only `daemon start` starts so many.
const START_ATTEMPTS: u32 = 5;
/// What a daemon gets of our environment. The jobs' own comes with each of them.
const DAEMON_VARIABLES: [&str; 11] = [
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "RUST_BACKTRACE",
    "NODEJOBS_CGROUP",
    "NODEJOBS_DISABLE",
    "NODEJOBS_FAILPOINT",
    "NODEJOBS_MUTANT",
];
/// A daemon's first words are one line; what is longer is something else.
const MAX_FIRST_WORDS: u64 = 64 << 10;

/// The way out where a directory cannot be used.
const OTHER_DIRECTORY: &str = "choose another directory with --data-dir or NODEJOBS_DIR";

/// A data directory, and what has to be true of its owner.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) data_dir: PathBuf,
    /// The kind of store that was asked for, if one was.
    pub(crate) store: Option<String>,
    /// Names the program that is executed to be the daemon.
    pub(crate) daemon: fn() -> PathBuf,
}

/// How long a daemon that is started stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// Until there is nothing to do.
    WhileNeeded,
    /// Until it is told to leave.
    UntilStopped,
}

/// What became of a daemon that was started.
enum Spawned {
    Ready,
    /// It was killed before it said anything.
    Killed(Failure),
}

/// What a starting daemon says on standard output, as one line of JSON, before it closes it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FirstWords {
    /// It can be reached.
    Ready(bool),
    /// It cannot serve, and leaves.
    Error(Problem),
}

impl Target {
    /// The directory that was given, or the one of the environment.
    pub(crate) fn new(
        given: Option<PathBuf>,
        store: Option<String>,
        daemon: fn() -> PathBuf,
    ) -> Result<Self, Failure> {
        let data_dir = choose_data_dir(given, |name| std::env::var_os(name).map(PathBuf::from))?;
        // The daemon has another working directory, so what it is given must not depend on ours.
        let data_dir = std::path::absolute(&data_dir).map_err(|error| {
            Failure::caused(USAGE, format!("'{}' is not a usable directory", data_dir.display()), &error)
        })?;
        Ok(Self { data_dir, store, daemon })
    }

    /// What `config.toml` in the directory says.
    pub(crate) fn settings(&self) -> Result<Config, Failure> {
        Config::load(&self.data_dir).map_err(|error| error.to_problem().into())
    }

    /// What `config.toml` says of jobs that say nothing else.
    pub(crate) fn job_defaults(&self) -> Result<JobDefaults, Failure> {
        JobDefaults::load(&self.data_dir).map_err(|error| error.to_problem().into())
    }

    /// A connection to the owner there is; an error that [is no daemon](ClientError::is_no_daemon) if there is none.
    pub(crate) fn reach_running(&self) -> Result<Result<Client, ClientError>, Failure> {
        match Client::connect(&self.data_dir).map(telling) {
            Err(ClientError::Unreachable { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => {
                Err(not_a_directory(&self.data_dir))
            }
            Err(ClientError::Unreachable { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                let message =
                    format!("'{}' is not for this user to use; {OTHER_DIRECTORY}", self.data_dir.display());
                Err(Failure::caused(UNAVAILABLE, message, &source))
            }
            Err(error) if !error.is_no_daemon() => Err(error.into()),
            reached => Ok(reached),
        }
    }

    /// A connection to the owner, which is started if there is none.
    pub(crate) fn connect(&self) -> Result<Connection<'_>, Failure> {
        Ok(Connection { target: self, client: self.reach()? })
    }

    /// Starts a daemon; `Err` with the connection if there is one already. One that is killed before it can be reached
    /// is started again, a few times. One that is only needed now is not started at all while [starts fail](FailedStarts).
    pub(crate) fn start(&self, lifetime: Lifetime) -> Result<Result<Client, Client>, Failure> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let lock = self.lock_starts()?;
            // Somebody may have started one while we waited for the lock.
            if let Ok(client) = self.reach_running()? {
                match self.check_store(&client)? {
                    Ok(()) => return Ok(Err(client)),
                    Err(broken) if attempts == START_ATTEMPTS => return Err(broken.into()),
                    // It has just been killed.
                    Err(_) => continue,
                }
            }
            if lifetime == Lifetime::WhileNeeded
                && let Some(refusal) = FailedStarts::refusal(&self.data_dir)
            {
                return Err(refusal);
            }
            let ended = match self.spawn(lifetime, lock)? {
                Spawned::Ready => match Client::connect(&self.data_dir).map(telling) {
                    Err(error) if error.is_no_daemon() => error.into(),
                    reached => {
                        if lifetime == Lifetime::UntilStopped {
                            FailedStarts::clear(&self.data_dir);
                        }
                        return Ok(Ok(reached?));
                    }
                },
                Spawned::Killed(ended) => ended,
            };
            if attempts == START_ATTEMPTS {
                return Err(ended);
            }
        }
    }

    fn reach(&self) -> Result<Client, Failure> {
        if let Ok(client) = self.reach_running()?
            && self.check_store(&client)?.is_ok()
        {
            return Ok(client);
        }
        match self.start(Lifetime::WhileNeeded)? {
            Ok(client) | Err(client) => Ok(client),
        }
    }

    /// Refuses a daemon with another store than the one that was asked for; the inner error is a connection that broke
    /// meanwhile.
    fn check_store(&self, client: &Client) -> Result<Result<(), ClientError>, Failure> {
        let Some(wanted) = &self.store else { return Ok(Ok(())) };
        let found = match client.daemon_status() {
            Ok(status) => status.store,
            Err(error) if error.is_broken() => return Ok(Err(error)),
            Err(error) => return Err(error.into()),
        };
        if found == *wanted {
            return Ok(Ok(()));
        }
        let path = self.data_dir.display();
        Err(Failure::new(
            CONFLICT,
            format!("the store of '{path}' is {found}, not {wanted}; leave out --store"),
        ))
    }

    fn lock_starts(&self) -> Result<File, Failure> {
        let cannot = |what: &str, path: &Path, error: &io::Error| {
            let message = format!("cannot {what} '{}'; {OTHER_DIRECTORY}", path.display());
            Failure::caused(UNAVAILABLE, message, error)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.data_dir).map_err(|error| match error
            .kind()
        {
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => not_a_directory(&self.data_dir),
            _ => cannot("create the data directory", &self.data_dir, &error),
        })?;
        // Before anything is written there; the daemon says the same to those who embed it.
        if let Ok(Some(name)) = foreign_file(&self.data_dir) {
            let message = format!(
                "'{}' is open to other users and holds '{}', which is not ours; {OTHER_DIRECTORY}, or close this one \
                 with chmod 700",
                self.data_dir.display(),
                name.display()
            );
            return Err(Failure::new(UNAVAILABLE, message));
        }
        let path = self.data_dir.join(START_LOCK_NAME);
        let lock = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| cannot("open", &path, &error))?;
        loop {
            match rustix::fs::flock(&lock, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(lock),
                Err(Errno::INTR) => {}
                Err(error) => return Err(cannot("lock", &path, &error.into())),
            }
        }
    }

    /// Runs the daemon, in a scope of its own if it can have one, and waits for its first words.
    fn spawn(&self, lifetime: Lifetime, lock: File) -> Result<Spawned, Failure> {
        let log_path = self.data_dir.join(LOG_NAME);
        let log =
            OpenOptions::new().append(true).create(true).mode(0o600).open(&log_path).map_err(|error| {
                Failure::caused(UNAVAILABLE, format!("cannot open '{}'", log_path.display()), &error)
            })?;
        let program = (self.daemon)();
        let (mut child, said) = match self.execute_in_scope(&program, lifetime, &lock, &log) {
            Some(executed) => executed,
            None => {
                let mut command = Command::new(&program);
                command.arg0("nodejobs");
                self.execute(command, lifetime, lock, log).map_err(|error| {
                    let message = format!(
                        "cannot start the daemon, which is '{}'; install nodejobs-daemon beside nodejobs",
                        program.display()
                    );
                    Failure::caused(UNAVAILABLE, message, &error)
                })?
            }
        };
        match serde_json::from_str(&said) {
            Ok(FirstWords::Ready(_)) => Ok(Spawned::Ready),
            Ok(FirstWords::Error(problem)) => Err(problem.into()),
            Err(_) => {
                let ended = child.wait();
                let was_killed = ended.as_ref().is_ok_and(|status| status.code().is_none());
                // Under the lock of starts, which is ours as long as the command lives.
                FailedStarts::note(&self.data_dir, &how_it_ended(ended.ok(), &log_path));
                let failure = silent_end(&log_path);
                if was_killed { Ok(Spawned::Killed(failure)) } else { Err(failure) }
            }
        }
    }

    /// Nothing, if there is no scope to be had: a daemon that is executed never ends without a word, unless it is killed.
    fn execute_in_scope(
        &self,
        program: &Path,
        lifetime: Lifetime,
        lock: &File,
        log: &File,
    ) -> Option<(Child, String)> {
        let command = in_scope_of_its_own(program)?;
        let (mut child, said) =
            self.execute(command, lifetime, lock.try_clone().ok()?, log.try_clone().ok()?).ok()?;
        let is_executed = !said.is_empty() || child.wait().is_ok_and(|status| status.code().is_none());
        is_executed.then_some((child, said))
    }

    /// Has the program that the command begins with run as a daemon. Gives its first words.
    fn execute(
        &self,
        mut command: Command,
        lifetime: Lifetime,
        lock: File,
        log: File,
    ) -> io::Result<(Child, String)> {
        command.arg("--data-dir").arg(&self.data_dir);
        if let Some(store) = &self.store {
            command.args(["--store", store]);
        }
        command.args(["daemon", "serve"]);
        if lifetime == Lifetime::WhileNeeded {
            command.arg("--auto");
        }
        // It outlives us and serves others, so it has no use for our variables, and our secrets no place in it. What is set
        // already stays: whoever is in between needs it.
        let kept = |name: &OsStr| DAEMON_VARIABLES.iter().any(|kept| name == *kept);
        let set: Vec<_> = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| kept(name))).envs(set);
        // A job may be the first to need a daemon, which shall not end with it.
        command.env("NODEJOBS_MARK", nodejobs::DAEMON_MARK);
        // The lock goes along as standard input: if we are killed, the next one still waits for this daemon.
        command.current_dir("/").stdin(lock).stdout(Stdio::piped()).stderr(log);
        // What our caller left open shall not live on in the daemon.
        nodejobs::close_descriptors_on_exec();
        let mut child = command.spawn()?;
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            // What cannot be read was not said.
            let _ = stdout.take(MAX_FIRST_WORDS).read_to_string(&mut said);
        }
        Ok((child, said))
    }
}

/// A connection that outlives the daemon at its other end.
#[derive(Debug)]
pub(crate) struct Connection<'a> {
    target: &'a Target,
    pub(crate) client: Client,
}

impl Connection<'_> {
    /// Makes a request, a second time to a new daemon if this one is killed meanwhile.
    pub(crate) fn ask<T>(
        &mut self,
        request: impl Fn(&Client) -> Result<T, ClientError>,
    ) -> Result<T, Failure> {
        self.client.retry(request, || self.target.reach())
    }

    /// Submits a job, with the same promise.
    pub(crate) fn submit(&mut self, spec: &JobSpec) -> Result<JobRecord, Failure> {
        self.client.submit_or_resend(spec, || self.target.reach())
    }

    /// Submits an array, over as many connections as it takes.
    pub(crate) fn submit_array(&mut self, array: &ArrayRequest) -> Result<JobRecord, Failure> {
        self.client.submit_array_or_resend(array, || self.target.reach())
    }

    /// Gives up this connection for a new one.
    pub(crate) fn renew(&mut self) -> Result<(), Failure> {
        self.client = self.target.reach()?;
        Ok(())
    }

    /// Gives up this connection for one to the next owner, if somebody else sees to it that there is one within this
    /// time; whether there is.
    pub(crate) fn next_owner(&mut self, within: Duration) -> Result<bool, Failure> {
        match Client::connect_within(&self.target.data_dir, within) {
            Ok(client) => {
                self.client = telling(client);
                Ok(true)
            }
            Err(error) if error.is_no_daemon() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Says so if the owner does not answer because it is stopped.
fn telling(client: Client) -> Client {
    client.on_stopped(|pid| {
        say(&format_args!(
            "the daemon (process {pid}) is stopped; waiting for it: `kill -CONT {pid}` lets it go on"
        ));
    })
}

fn choose_data_dir(
    given: Option<PathBuf>,
    variable: impl Fn(&str) -> Option<PathBuf>,
) -> Result<PathBuf, Failure> {
    if let Some(given) = given {
        if given.as_os_str().is_empty() {
            return Err(Failure::new(USAGE, "--data-dir is empty"));
        }
        return Ok(given);
    }
    let set = |name: &str| variable(name).filter(|value| !value.as_os_str().is_empty());
    if let Some(own) = set("NODEJOBS_DIR") {
        return Ok(own);
    }
    // The XDG specification has relative paths ignored.
    if let Some(state) = set("XDG_STATE_HOME").filter(|path| path.is_absolute()) {
        return Ok(state.join("nodejobs"));
    }
    match set("HOME") {
        Some(home) => Ok(home.join(".local/state/nodejobs")),
        None => {
            let message =
                "HOME is not set, so there is no default data directory; give --data-dir or NODEJOBS_DIR";
            Err(Failure::new(USAGE, message))
        }
    }
}

/// The data directory is a file, or below one.
fn not_a_directory(data_dir: &Path) -> Failure {
    let shown = data_dir.display();
    // Of `a/b/c` where `a` is a file, `a` is the one to name.
    let culprit = data_dir.ancestors().find(|path| path.metadata().is_ok_and(|found| !found.is_dir()));
    let message = match culprit {
        Some(culprit) if culprit == data_dir => format!("'{shown}' is a file, not a directory"),
        Some(culprit) => {
            format!("'{shown}' cannot be a directory, since '{}' is a file", culprit.display())
        }
        None => format!("'{shown}' is not a directory"),
    };
    Failure::new(UNAVAILABLE, format!("{message}; choose another with --data-dir"))
}

/// A daemon that ended without a word: what its log says last.
fn silent_end(log_path: &Path) -> Failure {
    let message = format!("the daemon ended before it could be reached; see '{}'", log_path.display());
    match last_words(log_path) {
        Some(last) => Failure::caused(UNAVAILABLE, message, &io::Error::other(last)),
        None => Failure::new(UNAVAILABLE, message),
    }
}

/// The same for whoever asks later: how the process ended, which the log of one that was killed does not say.
fn how_it_ended(status: Option<ExitStatus>, log_path: &Path) -> String {
    let status = status.map_or_else(|| "its end was not seen".to_owned(), |status| status.to_string());
    match last_words(log_path) {
        Some(last) => {
            format!("the daemon ended before it could be reached ({status}); its log ends with: {last}")
        }
        None => format!("the daemon ended before it could be reached ({status}), and its log is empty"),
    }
}

/// What the last line of the daemon's log says.
fn last_words(log_path: &Path) -> Option<String> {
    let log = std::fs::read(log_path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    log.lines().rfind(|line| !line.trim().is_empty()).map(|last| words_of(last).to_owned())
}

/// What a line of the daemon's log says, without the time, the level and the words that say that it is an error.
fn words_of(line: &str) -> &str {
    let mut words = line.trim();
    if let Some((time, rest)) = words.split_once(' ')
        && time.parse::<Timestamp>().is_ok()
    {
        words = rest.trim_start();
    }
    for beginning in ["ERROR ", "WARN ", "INFO ", "error: ", "caused by: "] {
        words = words.strip_prefix(beginning).map_or(words, str::trim_start);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::WHOLE;

    fn chosen(given: Option<&str>, variables: &[(&str, &str)]) -> Result<PathBuf, Failure> {
        choose_data_dir(given.map(PathBuf::from), |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| PathBuf::from(value))
        })
    }

    #[test]
    fn the_nearest_word_about_the_data_directory_counts() {
        let all = [("NODEJOBS_DIR", "own"), ("XDG_STATE_HOME", "/xdg"), ("HOME", "/home/u")];
        let path = |given, variables: &[_]| chosen(given, variables).expect("a directory");
        assert_eq!(path(Some("given"), &all), Path::new("given"));
        assert_eq!(path(None, &all), Path::new("own"));
        assert_eq!(path(None, &all[1..]), Path::new("/xdg/nodejobs"));
        assert_eq!(path(None, &all[2..]), Path::new("/home/u/.local/state/nodejobs"));
        let odd = [("NODEJOBS_DIR", ""), ("XDG_STATE_HOME", "xdg"), ("HOME", "/home/u")];
        assert_eq!(path(None, &odd), Path::new("/home/u/.local/state/nodejobs"));
        for nothing in [chosen(None, &[("HOME", "")]), chosen(Some(""), &all)] {
            assert!(matches!(nothing, Err(Failure::Error { code: USAGE, .. })), "{nothing:?}");
        }
    }

    #[test]
    fn the_first_words_are_one_line_of_json() {
        let ready = serde_json::to_string(&FirstWords::Ready(true)).expect("JSON");
        assert_eq!(ready, r#"{"ready":true}"#);
        let error = r#"{"error":{"kind":"unavailable","message":"owned by pid 7"}}"#;
        match serde_json::from_str(error).expect("an error") {
            FirstWords::Error(problem) => assert_eq!(problem.message, "owned by pid 7"),
            words => panic!("{words:?}"),
        }
    }

    #[test]
    fn a_daemon_that_ended_without_a_word_is_told_by_its_log() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join(LOG_NAME);
        let nothing = silent_end(&log).to_string();
        assert!(nothing.contains("daemon.log'") && !nothing.contains("caused by"), "{nothing}");
        std::fs::write(&log, "old\npanicked at x\n\n").expect("written");
        assert!(silent_end(&log).to_string().ends_with("caused by: panicked at x"));
        for line in [
            "error: no space left",
            "2026-07-14T03:33:20.123Z ERROR no space left",
            "2026-07-14T03:33:20.123Z INFO  no space left",
            "  caused by: no space left",
        ] {
            std::fs::write(&log, format!("old\n{line}\n")).expect("written");
            let failure = silent_end(&log).to_string();
            assert!(failure.ends_with("'\n  caused by: no space left"), "{failure}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        std::fs::write(&file, "").expect("written");
        let (file, below) = (file.display(), file.join("below"));
        for (data_dir, said) in [
            (PathBuf::from(file.to_string()), format!("'{file}' is a file, not a directory")),
            (below.clone(), format!("'{}' cannot be a directory, since '{file}' is a file", below.display())),
        ] {
            let target = Target { data_dir, store: None, daemon: WHOLE.daemon };
            let failures = [
                target.connect().expect_err("a file"),
                target.start(Lifetime::UntilStopped).map(drop).expect_err("a file"),
                target.reach_running().map(drop).expect_err("a file"),
            ];
            for failure in failures {
                assert!(matches!(failure, Failure::Error { code: UNAVAILABLE, .. }), "{failure}");
                let expected = format!("error: {said}; choose another with --data-dir");
                assert_eq!(failure.to_string(), expected);
            }
        }
    }

    #[test]
    fn starts_wait_for_each_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = Target { data_dir: directory.path().join("new"), store: None, daemon: WHOLE.daemon };
        let lock = target.lock_starts().expect("the lock");
        let other = File::open(target.data_dir.join(START_LOCK_NAME)).expect("the file");
        let taken = rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(taken, Err(Errno::WOULDBLOCK));
        drop(lock);
        rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).expect("free again");
    }
}
