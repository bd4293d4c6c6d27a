//! What a user asks for: the command, its surroundings and its policy, as it travels to the owner.

mod after;
mod after_request;
mod array;
mod builder;
mod limits;
mod place;
mod policy;
mod restart;
mod retry;
mod streams;
mod unique;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::JobId;
use crate::text::RawText;

pub use after::{After, Condition, Dependency, Unmet};
pub use after_request::{AfterRequest, Awaited, InvalidAwaited, Whom};
pub use array::{
    ARRAY_VARIABLE, Elements, INDEX, INDEX_VARIABLE, InvalidElements, InvalidPlaceholder, Lines,
    MAX_ELEMENTS, MAX_VALUE_BYTES, Parameter, ParameterValues, Placeholders, Range, VALUE, Values,
    value_variable,
};
pub use limits::{InvalidLimit, InvalidLimitText, Limits, OpenFiles, parse_processors};
pub use place::InvalidPlace;
pub use policy::{DEFAULT_LOG_CAP, MIN_LOG_CAP, Policy, Start};
pub use restart::{Backoff, Follows, Restart, UnknownRestart};
pub use retry::Retry;
pub(crate) use retry::parked;
pub use streams::{Output, Stdin, TerminalSize};
pub use unique::{UNIQUE_LABEL, Unique};

/// The program to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A program and its arguments, executed directly.
    Argv(Vec<RawText>),
    /// A script for `/bin/sh -c`.
    Shell(RawText),
}

impl Command {
    /// A program and its arguments.
    ///
    /// ```
    /// use nodejobs_core::spec::Command;
    ///
    /// assert_eq!(Command::argv(["echo", "it's"]).to_string(), r#"echo "it's""#);
    /// ```
    pub fn argv<T: Into<RawText>>(words: impl IntoIterator<Item = T>) -> Self {
        Command::Argv(words.into_iter().map(Into::into).collect())
    }

    /// A script for `/bin/sh -c`.
    pub fn shell(script: impl Into<RawText>) -> Self {
        Command::Shell(script.into())
    }

    /// The words that are executed.
    pub fn to_argv(&self) -> Vec<RawText> {
        match self {
            Command::Argv(words) => words.clone(),
            Command::Shell(script) => vec!["/bin/sh".into(), "-c".into(), script.clone()],
        }
    }
}

impl fmt::Display for Command {
    /// One line for people, quoted where a shell would need it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Shell(script) => write!(f, "{script}"),
            Command::Argv(words) => {
                for (index, word) in words.iter().enumerate() {
                    let space = if index == 0 { "" } else { " " };
                    let text = word.to_lossy();
                    let plain = |c: char| c.is_alphanumeric() || "%+,-./:=@_\u{FFFD}".contains(c);
                    if !text.is_empty() && text.chars().all(plain) {
                        write!(f, "{space}{text}")?;
                    } else if text.contains('\'') && !text.contains(['"', '$', '`', '\\', '!']) {
                        write!(f, "{space}\"{text}\"")?;
                    } else {
                        write!(f, "{space}'{}'", text.replace('\'', r"'\''"))?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// A soft resource limit of a process, by the name `ulimit` users know; the value is in the kernel's own unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names of setrlimit(2) in lower case, which documents them")]
pub enum ResourceLimit {
    Cpu,
    Fsize,
    Data,
    Stack,
    Core,
    Rss,
    Nproc,
    Nofile,
    Memlock,
    As,
    Locks,
    Sigpending,
    Msgqueue,
    Nice,
    Rtprio,
    Rttime,
}

/// What a process inherits from whoever starts it, captured at submit. Environment values never show in `Debug`.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchContext {
    /// Names and values, in the submitter's order.
    #[serde(default)]
    pub environment: Vec<(RawText, RawText)>,
    /// File mode creation mask; 022 where the submitter says nothing.
    #[serde(default)]
    pub umask: Option<u32>,
    /// Soft limits; `u64::MAX` is unlimited. One that is absent is left as the keeper has it.
    #[serde(default)]
    pub soft_limits: BTreeMap<ResourceLimit, u64>,
}

impl LaunchContext {
    /// The key under which the context is stored: equal contexts are stored once.
    pub fn key(&self) -> String {
        let mut hash = Sha256::new();
        for (name, value) in &self.environment {
            // NUL can be in neither, so it separates without ambiguity.
            for part in [name, value] {
                hash.update(part.as_bytes());
                hash.update([0]);
            }
        }
        hash.update(format!("{:?} {:?}", self.umask, self.soft_limits));
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The value of a variable, the last one if it is there twice.
    pub fn variable(&self, name: &str) -> Option<&RawText> {
        self.environment
            .iter()
            .rev()
            .find(|(known, _)| known.as_bytes() == name.as_bytes())
            .map(|(_, value)| value)
    }
}

impl fmt::Debug for LaunchContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("LaunchContext")
            .field("environment_names", &names)
            .field("umask", &self.umask)
            .field("soft_limits", &self.soft_limits)
            .finish()
    }
}

/// A job as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// The id it shall have; one is made if absent. An ended job of that id gets a further attempt.
    #[serde(default)]
    pub id: Option<JobId>,
    /// A name for people; several jobs may share it.
    #[serde(default)]
    pub name: Option<String>,
    /// What to run.
    pub command: Command,
    /// The working directory, absolute.
    pub cwd: RawText,
    /// Environment, umask and limits.
    #[serde(default)]
    pub context: LaunchContext,
    /// Free `key=value` pairs for finding jobs again.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The group in whose queue it waits; the group `default` if absent.
    #[serde(default)]
    pub group: Option<String>,
    /// Higher goes first.
    #[serde(default)]
    pub priority: i32,
    /// How many places of its group it takes.
    #[serde(default = "one_slot")]
    pub slots: u32,
    /// How much it takes of which named resources.
    #[serde(default)]
    pub needs: BTreeMap<String, u32>,
    /// Whom it waits for.
    #[serde(default)]
    pub after: Option<AfterRequest>,
    /// Whether it is submitted only if there is no other of its key.
    #[serde(default)]
    pub unique: Option<Unique>,
    /// When it is started.
    #[serde(default)]
    pub start: Start,
    /// What it reads.
    #[serde(default)]
    pub stdin: Stdin,
    /// Where its output goes.
    #[serde(default)]
    pub output: Output,
    /// How it is ended and judged.
    #[serde(default)]
    pub policy: Policy,
    /// Chosen by the client, one for each intent to run: a submit that is sent again after a broken connection is
    /// recognised by it and answered with the job that exists.
    #[serde(default)]
    pub submit_key: Option<String>,
}

fn one_slot() -> u32 {
    1
}

/// Why a spec is refused, before anything is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpec {
    /// No program.
    #[error("the command is empty; say what to run, as in `nodejobs run -- echo hello`")]
    NoCommand,
    /// A NUL byte where the system allows none.
    #[error("{0} contains a NUL byte")]
    Nul(&'static str),
    /// A working directory that would depend on who reads it.
    #[error("the working directory '{0}' is not an absolute path")]
    RelativeCwd(RawText),
    /// A variable that cannot be set.
    #[error("'{0}' is not the name of an environment variable")]
    BadVariable(RawText),
    /// A name or label without a character.
    #[error("{0} is empty; give 1 to {max} characters", max = JobSpec::MAX_NAME_LEN)]
    EmptyName(&'static str),
    /// A name or label that is too long.
    #[error("{what} has {length} characters; give 1 to {max}", max = JobSpec::MAX_NAME_LEN)]
    LongName {
        /// Which of the spec's texts.
        what: &'static str,
        /// How many characters it has.
        length: usize,
    },
    /// A name or label that would not stay in its line.
    #[error("{what} {text:?} contains the control character {character:?}; give one without")]
    ControlInName {
        /// Which of the spec's texts.
        what: &'static str,
        /// As it was given.
        text: String,
        /// The first of them.
        character: char,
    },
    /// A file or directory that would depend on who reads it.
    #[error("{what} '{path}' is not an absolute path")]
    RelativePath {
        /// Which of the spec's paths.
        what: &'static str,
        /// As it was given.
        path: RawText,
    },
    /// A log file without a name.
    #[error("the log file '{0}' is not the path of a file")]
    NotAFile(RawText),
    /// More input than is kept with a job.
    #[error("the input has {0} bytes; at most {max} are kept with a job, so give it as a file", max = Stdin::MAX_BYTES)]
    LargeInput(usize),
    /// A terminal on which nothing can be seen.
    #[error("a terminal of 0 rows or columns shows nothing; 24 rows of 80 columns are usual")]
    NoSize,
    /// Nothing would be a success.
    #[error("there is no success code; give at least one, such as 0")]
    NoSuccess,
    /// No program ends so.
    #[error("{0} is not an exit code; they are 0 to 255")]
    BadSuccessCode(i32),
    /// Nobody is there whose end could be another one.
    #[error(
        "what becomes of a job whose dependencies are not met needs dependencies; name the jobs it comes after"
    )]
    WaitsForNobody,
    /// More than can be kept in one record.
    #[error("it is to wait for {0} jobs; at most {max} are possible", max = AfterRequest::MAX_JOBS)]
    WaitsForTooMany(usize),
    /// The label of the key is given beside the key.
    #[error("the label '{UNIQUE_LABEL}' is the job's unique key; give only one of the two")]
    UniqueTwice,
    /// It is to become another key after the submit that was decided by it.
    #[error("the label '{UNIQUE_LABEL}' is the key under which the job was submitted, and stays")]
    UniqueStays,
    /// Two rules for what follows a failure.
    #[error("a job has retries, or a restart policy; leave out one of the two")]
    RetriesAndRestarts,
    /// It would be given up at its first failure.
    #[error(
        "a job is parked after at least 2 attempts that ended in the same way, not {0}; give 2 or more, or never"
    )]
    ParkedAtOnce(u32),
    /// A start that is not for submits.
    #[error("a start `again` or `retry` is for what a policy starts; give `now`, `after_ms` or `at`")]
    NotAgain,
    /// It would end before it begins.
    #[error("a job that gives up after 0 failures is never started; give at least 1, or none at all")]
    GivesUpAtOnce,
    /// A timeout that is over at once.
    #[error("the timeout is 0; give at least one millisecond, or none at all")]
    NoTime,
    /// A limit that makes no sense.
    #[error(transparent)]
    Limit(#[from] InvalidLimit),
    /// A place that nobody could have.
    #[error(transparent)]
    Place(#[from] InvalidPlace),
    /// A cap that would keep next to nothing, or that no file reaches.
    #[error("a log cap of {0} bytes is not possible; give at least {MIN_LOG_CAP} (64K), or 0 for none")]
    BadLogCap(u64),
    /// A cap on files that are the user's own.
    #[error("a log file of your own is never shortened, so it can have no cap; leave out one of the two")]
    CapOfOwnFile,
    /// Larger than any system would execute.
    #[error("command and environment take {0} bytes; at most {max} are accepted", max = JobSpec::MAX_BYTES)]
    TooLarge(usize),
}

impl JobSpec {
    /// The most bytes that command, working directory and environment may take together.
    pub const MAX_BYTES: usize = 4 << 20;
    /// The most characters that a name, a label or a label's value may have.
    pub const MAX_NAME_LEN: usize = 128;

    /// A job with default policy, an empty environment and no name.
    pub fn new(command: Command, cwd: impl Into<RawText>) -> Self {
        Self {
            id: None,
            name: None,
            command,
            cwd: cwd.into(),
            context: LaunchContext::default(),
            labels: BTreeMap::new(),
            group: None,
            priority: 0,
            slots: 1,
            needs: BTreeMap::new(),
            after: None,
            unique: None,
            start: Start::Now,
            stdin: Stdin::Null,
            output: Output::default(),
            policy: Policy::default(),
            submit_key: None,
        }
    }

    /// Checks everything that can be checked without touching the machine.
    ///
    /// # Errors
    /// [`InvalidSpec`] names the first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        let words = match &self.command {
            Command::Argv(words) => words.as_slice(),
            Command::Shell(script) => std::slice::from_ref(script),
        };
        if words.first().is_none_or(RawText::is_empty) {
            return Err(InvalidSpec::NoCommand);
        }
        if words.iter().any(RawText::has_nul) {
            return Err(InvalidSpec::Nul("the command"));
        }
        if self.cwd.has_nul() {
            return Err(InvalidSpec::Nul("the working directory"));
        }
        if !self.cwd.as_bytes().starts_with(b"/") {
            return Err(InvalidSpec::RelativeCwd(self.cwd.clone()));
        }
        for (name, value) in &self.context.environment {
            if name.is_empty() || name.has_nul() || name.as_bytes().contains(&b'=') {
                return Err(InvalidSpec::BadVariable(name.clone()));
            }
            if value.has_nul() {
                return Err(InvalidSpec::Nul("an environment value"));
            }
        }
        let names = self.name.iter().map(|name| ("the name", name));
        let labels =
            self.labels.iter().flat_map(|(key, value)| [("the label", key), ("the label value", value)]);
        for (what, text) in names.chain(labels) {
            Self::validate_name(what, text)?;
        }
        self.validate_unique()?;
        self.after.as_ref().map_or(Ok(()), AfterRequest::validate)?;
        let variables = self.context.environment.iter().flat_map(|(name, value)| [name, value]);
        let bytes: usize = words.iter().chain(variables).map(|text| text.as_bytes().len() + 1).sum();
        if bytes > Self::MAX_BYTES {
            return Err(InvalidSpec::TooLarge(bytes));
        }
        self.validate_streams()?;
        self.validate_place()?;
        if matches!(self.start, Start::Again { .. } | Start::Retry { .. }) {
            return Err(InvalidSpec::NotAgain);
        }
        if let Some(retry) = &self.policy.retry {
            if self.policy.restart != Restart::No {
                return Err(InvalidSpec::RetriesAndRestarts);
            }
            if let Some(park_after @ (0 | 1)) = retry.park_after {
                return Err(InvalidSpec::ParkedAtOnce(park_after));
            }
        }
        if self.policy.backoff.give_up_after == Some(0) {
            return Err(InvalidSpec::GivesUpAtOnce);
        }
        match self.policy.log_cap {
            None | Some(0) => {}
            Some(cap) if cap < MIN_LOG_CAP || i64::try_from(cap).is_err() => {
                return Err(InvalidSpec::BadLogCap(cap));
            }
            Some(_) if self.output.logfile.is_some() => return Err(InvalidSpec::CapOfOwnFile),
            Some(_) => {}
        }
        if self.policy.success_codes.is_empty() {
            return Err(InvalidSpec::NoSuccess);
        }
        if let Some(code) = self.policy.success_codes.iter().find(|code| !(0..=255).contains(*code)) {
            return Err(InvalidSpec::BadSuccessCode(*code));
        }
        if self.policy.timeout_ms == Some(0) {
            return Err(InvalidSpec::NoTime);
        }
        self.policy.limits.as_ref().map_or(Ok(()), |limits| Ok(limits.validate()?))
    }

    /// A text that is shown in a line.
    fn validate_name(what: &'static str, text: &str) -> Result<(), InvalidSpec> {
        let length = text.chars().count();
        if length == 0 {
            return Err(InvalidSpec::EmptyName(what));
        }
        if length > Self::MAX_NAME_LEN {
            return Err(InvalidSpec::LongName { what, length });
        }
        match text.chars().find(|character| character.is_control()) {
            Some(character) => Err(InvalidSpec::ControlInName { what, text: text.to_owned(), character }),
            None => Ok(()),
        }
    }

    fn validate_streams(&self) -> Result<(), InvalidSpec> {
        let absolute = |what: &'static str, path: &RawText| {
            if path.has_nul() {
                return Err(InvalidSpec::Nul(what));
            }
            if path.as_bytes().starts_with(b"/") {
                return Ok(());
            }
            Err(InvalidSpec::RelativePath { what, path: path.clone() })
        };
        match &self.stdin {
            Stdin::Null => {}
            Stdin::File(path) => absolute("the file of standard input", path)?,
            Stdin::Bytes(bytes) if bytes.as_bytes().len() > Stdin::MAX_BYTES => {
                return Err(InvalidSpec::LargeInput(bytes.as_bytes().len()));
            }
            Stdin::Terminal(TerminalSize { rows, columns }) if *rows == 0 || *columns == 0 => {
                return Err(InvalidSpec::NoSize);
            }
            Stdin::Bytes(_) | Stdin::Pipe | Stdin::Terminal(_) => {}
        }
        let Output { logdir, logfile, merge: _ } = &self.output;
        if let Some(directory) = logdir {
            absolute("the log directory", directory)?;
        }
        match logfile {
            Some(file) if file.is_empty() || file.as_bytes().ends_with(b"/") => {
                Err(InvalidSpec::NotAFile(file.clone()))
            }
            Some(file) if logdir.is_some() && file.has_nul() => Err(InvalidSpec::Nul("the log file")),
            Some(file) if logdir.is_none() => absolute("the log file", file),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_refused_with_the_thing_named() {
        let good = JobSpec::new(Command::argv(["true"]), "/");
        assert_eq!(good.validate(), Ok(()));
        let refused = |change: fn(&mut JobSpec)| {
            let mut spec = good.clone();
            change(&mut spec);
            spec.validate().expect_err("this spec is bad").to_string()
        };
        assert!(refused(|s| s.command = Command::Argv(vec![])).contains("empty"));
        assert!(refused(|s| s.command = Command::shell("")).contains("empty"));
        assert!(refused(|s| s.command = Command::argv(["a", "b\0"])).contains("NUL"));
        assert!(refused(|s| s.cwd = "tmp".into()).contains("'tmp'"));
        for cap in [1, MIN_LOG_CAP - 1, u64::MAX] {
            let spec = good.clone().log_cap(cap);
            assert_eq!(spec.validate(), Err(InvalidSpec::BadLogCap(cap)));
        }
        for (cap, is_possible) in [(0, true), (MIN_LOG_CAP, false)] {
            let spec = good.clone().log_cap(cap);
            assert_eq!(spec.validate(), Ok(()));
            let own = spec.logfile("/tmp/log").validate();
            assert_eq!(own, if is_possible { Ok(()) } else { Err(InvalidSpec::CapOfOwnFile) });
        }
        let name = |name: &str| {
            let mut spec = good.clone();
            spec.name = Some(name.to_owned());
            spec.validate().map_err(|error| error.to_string())
        };
        let refusal = |text: &str| Err(text.to_owned());
        assert_eq!(name(""), refusal("the name is empty; give 1 to 128 characters"));
        assert_eq!(name(&"ü".repeat(129)), refusal("the name has 129 characters; give 1 to 128"));
        let control = r#"the name "a\nb" contains the control character '\n'; give one without"#;
        assert_eq!(name("a\nb"), refusal(control));
        assert_eq!(name(&"ü".repeat(128)), Ok(()));
        assert!(
            refused(|s| s.labels = [("k".into(), "".into())].into()).contains("the label value is empty")
        );
        assert!(refused(|s| s.context.environment = vec![("A=B".into(), "c".into())]).contains("'A=B'"));
        assert!(refused(|s| s.command = Command::argv(["x".repeat(5 << 20)])).contains("5242881"));
        assert!(refused(|s| s.stdin = Stdin::File("in".into())).contains("standard input 'in'"));
        assert!(refused(|s| s.stdin = Stdin::Bytes("x".repeat(17 << 20).into())).contains("17825792"));
        assert!(
            refused(|s| s.stdin = Stdin::Terminal(TerminalSize { rows: 0, columns: 80 })).contains("0 rows")
        );
        assert!(refused(|s| s.output.logdir = Some("d".into())).contains("log directory 'd'"));
        assert!(refused(|s| s.output.logfile = Some("f".into())).contains("log file 'f'"));
        assert!(refused(|s| s.output.logfile = Some("/d/".into())).contains("'/d/'"));
        assert!(refused(|s| s.policy.success_codes.clear()).contains("success code"));
        assert!(refused(|s| s.policy.success_codes.push(256)).contains("256"));
        assert!(refused(|s| s.policy.timeout_ms = Some(0)).contains("timeout"));
        let both = good.clone().retry(Retry::default()).restart(Restart::Always);
        assert_eq!(both.validate(), Err(InvalidSpec::RetriesAndRestarts));
        let parked = good.clone().retry(Retry { park_after: Some(1), ..Retry::default() });
        assert_eq!(parked.validate(), Err(InvalidSpec::ParkedAtOnce(1)));
        let mut relative = good.clone();
        relative.output = Output { logdir: Some("/d".into()), logfile: Some("f".into()), merge: true };
        assert_eq!(relative.validate(), Ok(()));
    }

    #[test]
    fn environment_values_do_not_show_in_debug() {
        let mut spec = JobSpec::new(Command::argv(["true"]), "/");
        spec.context.environment.push(("TOKEN".into(), "s3cret".into()));
        spec.stdin = Stdin::Bytes("s3cret".into());
        let shown = format!("{spec:?}");
        assert!(shown.contains("TOKEN") && shown.contains("6 bytes") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn equal_contexts_share_a_key_and_different_ones_do_not() {
        let context = |pairs: &[(&str, &str)]| LaunchContext {
            environment: pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ..LaunchContext::default()
        };
        assert_eq!(context(&[("A", "bc")]).key(), context(&[("A", "bc")]).key());
        assert_ne!(context(&[("A", "bc")]).key(), context(&[("AB", "c")]).key());
        let umask = LaunchContext { umask: Some(0o077), ..LaunchContext::default() };
        assert_ne!(umask.key(), LaunchContext::default().key());
    }

    #[test]
    fn a_spec_survives_json() {
        let mut spec = JobSpec::new(Command::Argv(vec!["a".into(), vec![0xff].into()]), "/");
        spec.context.soft_limits.insert(ResourceLimit::Nofile, 1024);
        let json = serde_json::to_string(&spec).expect("a spec is JSON");
        assert_eq!(serde_json::from_str::<JobSpec>(&json).expect("the same spec"), spec);
        let unknown = r#"{"command":{"shell":"x"},"cwd":"/","colour":"red"}"#;
        assert!(serde_json::from_str::<JobSpec>(unknown).is_err());
    }
}
