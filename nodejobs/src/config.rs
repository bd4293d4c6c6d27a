//! `config.toml` in the data directory: defaults for jobs, and what the owner of the directory goes by.
//!
//! The command line fills in `[defaults]` where no option says otherwise; a program does the same with
//! [`Config::apply`]. The other tables are read by the owner when it opens the directory, and when it is told to reload.
//! A file that has a mistake is refused as a whole, with every mistake and its line. Without a file everything has its
//! default.
//!
//! ```toml
//! [defaults]            # as the options of `nodejobs run`
//! grace = "10s"
//! restart = "on-failure"
//!
//! [limits]              # of all jobs together; who finds no room is queued
//! max_processes = 8
//!
//! [resources]           # of the machine, that jobs may need; they are numbered from 0
//! gpu = 2
//!
//! [logs]
//! cap = "10M"           # of each stream of a job that does not say it
//!
//! [history]             # ended jobs are forgotten by themselves
//! keep_for = "30d"
//!
//! [[hooks]]
//! on = ["failed", "lost"]
//! run = ["notify-send", "a job failed"]
//! ```
//!
//! ```
//! use nodejobs::config::Config;
//! use nodejobs::spec::{Command, JobSpec};
//!
//! let data_dir = tempfile::tempdir()?;
//! std::fs::write(data_dir.path().join("config.toml"), "[defaults]\ngrace = \"10s\"\n")?;
//! let mut spec = JobSpec::new(Command::argv(["make"]), "/src");
//! Config::load(data_dir.path())?.apply(&mut spec); // before what the program itself decides
//! assert_eq!(spec.policy.grace_ms, 10_000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod hook;
mod reading;
mod resources;
#[cfg(test)]
mod tests;
mod values;

use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nodejobs_core::RawText;
use nodejobs_core::engine::Capacity;
use nodejobs_core::spec::{Command, DEFAULT_LOG_CAP, JobSpec, Policy};

use crate::api::{ConfigStatus, Setting};
use reading::Reading;

pub use error::{ConfigError, ConfigProblem};
pub use hook::{Hook, HookCommand};

/// Name of the file in the data directory.
pub const CONFIG_NAME: &str = "config.toml";

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The settings of a data directory, those that the file leaves out included.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// What a job gets that says nothing else: `[defaults]`.
    pub defaults: JobDefaults,
    /// `[daemon]`.
    pub daemon: DaemonSettings,
    /// `[limits]` and `[resources]`.
    pub limits: Capacity,
    /// `cgroup` in `[limits]`: the directory of cgroup v2 in which those of jobs with limits of their whole trees are made.
    /// Read when the directory is opened; `NODEJOBS_CGROUP` goes before it. If absent, where the owner itself is.
    pub cgroup: Option<PathBuf>,
    /// `[logs]`.
    pub logs: LogSettings,
    /// `[history]`.
    pub history: HistorySettings,
    /// `[[hooks]]`, in the order of the file.
    pub hooks: Vec<Hook>,
    settings: Vec<Setting>,
}

/// What a job gets that says nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct JobDefaults {
    /// How it is ended, judged and started again.
    pub policy: Policy,
    /// Whether its standard error goes into the file of standard output.
    pub merge: bool,
}

impl JobDefaults {
    /// [`Config::load`] for whoever needs nothing else of it, which costs next to nothing where there is no file.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong with the file.
    pub fn load(data_dir: &Path) -> Result<Self, ConfigError> {
        match read(data_dir)? {
            Some(bytes) => Config::parse_of(data_dir, &bytes).map(|config| config.defaults),
            None => Ok(Self::default()),
        }
    }

    /// [`Config::apply`].
    pub fn apply(&self, spec: &mut JobSpec) {
        spec.policy = self.policy.clone();
        spec.output.merge = self.merge;
    }
}

/// How the daemon behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DaemonSettings {
    /// How long a daemon that a command has started stays with nothing to do; `None` for ever.
    pub idle_exit: Option<Duration>,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        Self { idle_exit: Some(Duration::from_secs(60)) }
    }
}

/// How much room logs may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogSettings {
    /// What is kept of each log file of a job that does not say it, in bytes; 0 is all of it. A job keeps the cap that it
    /// was accepted with. See [`Policy::log_cap`].
    pub cap: u64,
    /// What all log files together may take on disk, in bytes, but for those that users named with `--logfile`. If they
    /// take more, output of ended jobs is freed, the oldest first, until they take nine tenths of it; never output of a job
    /// that has not ended. Without end if absent.
    pub quota: Option<u64>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { cap: DEFAULT_LOG_CAP, quota: None }
    }
}

/// Which ended jobs are forgotten by themselves. Living ones never are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistorySettings {
    /// Those that ended longer ago than this; none if absent.
    pub keep_for: Option<Duration>,
    /// All but so many, those that were submitted last; none if absent.
    pub keep_last: Option<u64>,
    /// How many attempts of one job are kept at least, the newest ones, with their logs; all if absent. Of a job that is
    /// started again and again, up to 16 more are there for a while.
    pub keep_attempts: Option<u32>,
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self { keep_for: None, keep_last: None, keep_attempts: Some(100) }
    }
}

impl Default for Config {
    fn default() -> Self {
        let mut reading = Reading::new("");
        reading.config()
    }
}

impl Config {
    /// The path of the file of a data directory.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join(CONFIG_NAME)
    }

    /// Reads the settings of a data directory. Without a file everything has its default.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong with the file.
    pub fn load(data_dir: &Path) -> Result<Self, ConfigError> {
        match read(data_dir)? {
            Some(bytes) => Self::parse_of(data_dir, &bytes),
            None => Ok(Self::default()),
        }
    }

    fn parse_of(data_dir: &Path, bytes: &[u8]) -> Result<Self, ConfigError> {
        Self::parse(bytes).map_err(|problems| ConfigError { path: Self::path(data_dir), problems })
    }

    /// Understands the content of a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, by line.
    pub fn parse(bytes: &[u8]) -> Result<Self, Vec<ConfigProblem>> {
        let text = str::from_utf8(bytes).map_err(|error| {
            let line = reading::line_of(bytes, error.valid_up_to());
            vec![ConfigProblem { line: Some(line), message: "it is not UTF-8".to_owned() }]
        })?;
        let mut reading = Reading::new(text);
        let config = reading.config();
        reading.problems.sort_by_key(|problem| problem.line);
        if reading.problems.is_empty() { Ok(config) } else { Err(reading.problems) }
    }

    /// Gives a job what the file says about jobs that say nothing else. To be called before the job's own settings are
    /// made: it sets every one that the file can have.
    pub fn apply(&self, spec: &mut JobSpec) {
        self.defaults.apply(spec);
    }

    /// Every setting, with its value and where that comes from.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// The same as it travels, with the path of the file.
    pub fn status(&self, data_dir: &Path) -> ConfigStatus {
        let path = RawText::from(Self::path(data_dir).into_os_string().into_vec());
        ConfigStatus { path, settings: self.settings.clone() }
    }
}

/// What the file of a data directory has in it, if there is one.
fn read(data_dir: &Path) -> Result<Option<Vec<u8>>, ConfigError> {
    let path = Config::path(data_dir);
    let whole = |message: String| ConfigError {
        path: path.clone(),
        problems: vec![ConfigProblem { line: None, message }],
    };
    // A named pipe is opened at once as well, and refused: nobody waits for somebody who writes to it.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = match std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(whole(format!("it cannot be read: {error}"))),
    };
    let metadata = file.metadata().map_err(|error| whole(format!("it cannot be looked at: {error}")))?;
    if !metadata.is_file() {
        return Err(whole("it is no file".to_owned()));
    }
    // Its hooks are executed, so nobody else may write them.
    let own = rustix::process::geteuid().as_raw();
    if ![own, 0].contains(&metadata.uid()) {
        return Err(whole(format!("it belongs to user {}, not to user {own}; chown it", metadata.uid())));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(whole("everybody may write it; chmod 600 it".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| whole(format!("it cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(whole(format!("it has more than {} MiB", MAX_BYTES >> 20)));
    }
    Ok(Some(bytes))
}

impl Reading<'_> {
    /// All that the file says. This is the list of what it can say.
    fn config(&mut self) -> Config {
        let mut defaults = JobDefaults::default();
        let mut daemon = DaemonSettings::default();
        let mut limits = Capacity::default();
        let mut cgroup = None;
        let mut logs = LogSettings::default();
        let mut history = HistorySettings::default();
        let mut hooks = Vec::new();
        let tables = ["defaults", "daemon", "limits", "resources", "logs", "history", "hooks"];
        if let Some(file) = self.document(&tables) {
            let mut section = self.section(&file, "defaults");
            let policy = &mut defaults.policy;
            section.setting("timeout", &mut policy.timeout_ms, &values::OPTIONAL_MILLIS);
            section.setting("stop_signal", &mut policy.stop_signal, &values::SIGNAL);
            section.setting("grace", &mut policy.grace_ms, &values::MILLIS);
            section.setting("success_codes", &mut policy.success_codes, &values::EXIT_CODES);
            section.setting("keep_children", &mut policy.keep_children, &values::BOOLEAN);
            section.setting("restart", &mut policy.restart, &values::RESTART);
            section.setting("max_restarts", &mut policy.max_restarts, &values::OPTIONAL_COUNT);
            section.setting("restart_delay", &mut policy.restart_delay_ms, &values::MILLIS);
            let backoff = &mut policy.backoff;
            section.setting("restart_delay_max", &mut backoff.delay_max_ms, &values::MILLIS);
            section.setting("healthy_after", &mut backoff.healthy_after_ms, &values::MILLIS);
            section.setting("give_up_after", &mut backoff.give_up_after, &values::COUNT_OR_NEVER);
            section.setting("merge", &mut defaults.merge, &values::BOOLEAN);
            let line = section.end();
            if self.problems.is_empty()
                && let Err(error) = runs_with(policy)
            {
                self.problems.push(ConfigProblem { line, message: error });
            }

            let mut section = self.section(&file, "daemon");
            section.setting("idle_exit", &mut daemon.idle_exit, &values::DURATION_OR_NEVER);
            section.end();

            let mut section = self.section(&file, "limits");
            section.setting("max_processes", &mut limits.max_processes, &values::POSITIVE_COUNT);
            section.setting("max_memory", &mut limits.max_memory, &values::OPTIONAL_SIZE);
            section.setting("when_full", &mut limits.when_full, &values::WHEN_FULL);
            section.setting("cgroup", &mut cgroup, &values::ABSOLUTE_PATH);
            section.end();

            limits.resources = self.resources(&file);

            let mut section = self.section(&file, "logs");
            section.setting("cap", &mut logs.cap, &values::LOG_CAP);
            section.setting("quota", &mut logs.quota, &values::OPTIONAL_SIZE);
            section.end();

            let mut section = self.section(&file, "history");
            section.setting("keep_for", &mut history.keep_for, &values::SPAN);
            section.setting("keep_last", &mut history.keep_last, &values::AT_LEAST_ONE);
            section.setting("keep_attempts", &mut history.keep_attempts, &values::COUNT_OR_ALL);
            section.end();

            hooks = self.hooks(&file);
        }
        Config {
            defaults,
            daemon,
            limits,
            cgroup,
            logs,
            history,
            hooks,
            settings: std::mem::take(&mut self.settings),
        }
    }
}

/// Whether jobs with such a policy are accepted at all.
fn runs_with(policy: &Policy) -> Result<(), String> {
    let mut spec = JobSpec::new(Command::argv(["true"]), "/");
    spec.policy = policy.clone();
    spec.validate().map_err(|error| error.to_string())
}
