//! What a job may use of the machine, and as whom it runs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a job may use, and as whom. What is absent is as the job would have it without.
///
/// A limit that the machine cannot enforce is refused when the job is submitted.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory of all its processes together, in bytes. With more it is killed, and has failed with reason `memory`.
    pub memory: Option<u64>,
    /// Processor time of all its processes together, in thousandths of a processor.
    pub cpu_milli: Option<u32>,
    /// Open files of each process.
    pub open_files: Option<OpenFiles>,
    /// The nice value of each process, from -20 (goes first) to 19; not relative to anybody's.
    pub nice: Option<i32>,
    /// The user as whom it runs, by name, with that user's groups, and HOME, USER, LOGNAME and SHELL.
    pub user: Option<String>,
    /// Processes and threads of all of it together, at a time. With so many, no more can be started.
    // Last, because some stores keep fields by their places, and not stored if absent, as before there was any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

impl Limits {
    /// Whether any of these concerns all processes of the job together, so that they are to be in a group of their own.
    pub fn is_of_whole_tree(&self) -> bool {
        self.memory.is_some() || self.cpu_milli.is_some() || self.pids.is_some()
    }
}

/// How many files a process may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenFiles {
    /// How many it has to do with, unless it asks for more.
    pub soft: u64,
    /// How many it may ask for. If absent, as many as before, or `soft` if that is more.
    #[serde(default)]
    pub hard: Option<u64>,
}

/// A limit that makes no sense on any machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimit {
    /// No program runs with so little, and no machine has so much.
    #[error("a memory limit of {0} bytes makes no sense; give 1M to 1024T")]
    Memory(u64),
    /// Less than can be told from nothing, or more than there are.
    #[error("{} processors make no sense; give 0.01 to 1024", f64::from(*.0) / 1000.0)]
    Cpu(u32),
    /// The program itself is one, and no machine has so many.
    #[error("a limit of {0} processes makes no sense; give 1 to {max}", max = Limits::MAX_PIDS)]
    Pids(u32),
    /// No program runs with so few.
    #[error("a limit of {0} open files makes no sense; give at least {min}", min = Limits::MIN_OPEN_FILES)]
    OpenFiles(u64),
    /// The lower limit is the higher one.
    #[error("the soft limit of {soft} open files is above the hard one of {hard}")]
    SoftAboveHard {
        /// The soft limit.
        soft: u64,
        /// The hard limit.
        hard: u64,
    },
    /// No such priority.
    #[error("{0} is no nice value; they are -20 to 19")]
    Nice(i32),
    /// No such name.
    #[error("{0:?} is not the name of a user")]
    User(String),
}

/// A text that is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimitText {
    /// Not a number of files, or two.
    #[error("'{0}' is no number of open files; write N, or N:HARD")]
    OpenFiles(String),
    /// Not a number of processors.
    #[error("'{0}' is no number of processors; write one like 2 or 1.5")]
    Processors(String),
}

impl Limits {
    const MEMORY: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 50;
    const CPU_MILLI: std::ops::RangeInclusive<u32> = 10..=1_024_000;
    const MAX_PIDS: u32 = 4 << 20;
    const MIN_OPEN_FILES: u64 = 8;

    /// Checks what can be checked without touching the machine.
    ///
    /// # Errors
    /// [`InvalidLimit`] names the first that makes no sense.
    pub fn validate(&self) -> Result<(), InvalidLimit> {
        if let Some(memory) = self.memory.filter(|memory| !Self::MEMORY.contains(memory)) {
            return Err(InvalidLimit::Memory(memory));
        }
        if let Some(cpu) = self.cpu_milli.filter(|cpu| !Self::CPU_MILLI.contains(cpu)) {
            return Err(InvalidLimit::Cpu(cpu));
        }
        if let Some(pids) = self.pids.filter(|pids| !(1..=Self::MAX_PIDS).contains(pids)) {
            return Err(InvalidLimit::Pids(pids));
        }
        if let Some(OpenFiles { soft, hard }) = self.open_files {
            if soft < Self::MIN_OPEN_FILES {
                return Err(InvalidLimit::OpenFiles(soft));
            }
            if let Some(hard) = hard.filter(|hard| soft > *hard) {
                return Err(InvalidLimit::SoftAboveHard { soft, hard });
            }
        }
        if let Some(nice) = self.nice.filter(|nice| !(-20..=19).contains(nice)) {
            return Err(InvalidLimit::Nice(nice));
        }
        let is_bad = |name: &&String| {
            name.is_empty() || name.len() > 256 || name.contains(|c: char| c.is_control() || ":/".contains(c))
        };
        match self.user.as_ref().filter(is_bad) {
            Some(user) => Err(InvalidLimit::User(user.clone())),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Limits {
    /// For people: `memory 512.0 MiB, nice 10`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, cpu_milli, pids, open_files, nice, user } = self;
        let tenths = |bytes: u64| (u128::from(bytes) * 10) >> 20;
        let parts = [
            memory.map(|bytes| format!("memory {}.{} MiB", tenths(bytes) / 10, tenths(bytes) % 10)),
            cpu_milli.map(|milli| format!("{} processors", f64::from(milli) / 1000.0)),
            pids.map(|count| format!("processes {count}")),
            open_files.map(|files| format!("open files {files}")),
            nice.map(|nice| format!("nice {nice}")),
            user.as_ref().map(|user| format!("user {user}")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl FromStr for OpenFiles {
    type Err = InvalidLimitText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| {
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| part.parse::<u64>().ok()).flatten()
        };
        let parsed = match text.split_once(':') {
            None => number(text).map(|soft| Self { soft, hard: None }),
            Some((soft, hard)) => {
                number(soft).zip(number(hard)).map(|(soft, hard)| Self { soft, hard: Some(hard) })
            }
        };
        parsed.ok_or_else(|| InvalidLimitText::OpenFiles(text.to_owned()))
    }
}

impl fmt::Display for OpenFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.soft)?;
        self.hard.map_or(Ok(()), |hard| write!(f, ":{hard}"))
    }
}

/// Reads a number of processors, such as `2` or `1.5`, in thousandths.
///
/// ```
/// use nodejobs_core::spec::parse_processors;
///
/// assert_eq!(parse_processors("1.5"), Ok(1_500));
/// assert!(parse_processors("-1").is_err());
/// ```
///
/// # Errors
/// [`InvalidLimitText::Processors`] for what is no number, or has more than three places behind the point.
pub fn parse_processors(text: &str) -> Result<u32, InvalidLimitText> {
    let wrong = || InvalidLimitText::Processors(text.to_owned());
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || part.len() > 3 {
        return Err(wrong());
    }
    let thousandths: u32 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    let whole: u32 = whole.parse().map_err(|_| wrong())?;
    whole.checked_mul(1000).and_then(|whole| whole.checked_add(thousandths)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_make_no_sense_are_refused_by_name() {
        let refused = |limits: Limits| limits.validate().expect_err("it makes no sense").to_string();
        let none = Limits::default;
        assert_eq!(none().validate(), Ok(()));
        assert!(refused(Limits { memory: Some(0), ..none() }).contains("0 bytes"));
        assert!(refused(Limits { memory: Some(u64::MAX), ..none() }).contains("1024T"));
        assert!(refused(Limits { cpu_milli: Some(5), ..none() }).starts_with("0.005 processors"));
        assert!(refused(Limits { cpu_milli: Some(u32::MAX), ..none() }).contains("processors"));
        assert!(refused(Limits { pids: Some(0), ..none() }).starts_with("a limit of 0 processes"));
        assert!(refused(Limits { pids: Some(u32::MAX), ..none() }).contains("give 1 to 4194304"));
        assert!(refused(Limits { nice: Some(20), ..none() }).starts_with("20 is no nice value"));
        assert!(refused(Limits { nice: Some(-21), ..none() }).contains("-20 to 19"));
        for user in ["", "a:b", "a\nb", "../x"] {
            let limits = Limits { user: Some(user.to_owned()), ..none() };
            assert!(refused(limits).contains("not the name of a user"), "{user}");
        }
        let files = |soft, hard| Limits { open_files: Some(OpenFiles { soft, hard }), ..none() };
        assert!(refused(files(7, None)).contains("7 open files"));
        assert!(refused(files(20, Some(10))).contains("20 open files is above the hard one of 10"));
        assert_eq!(files(10, Some(10)).validate(), Ok(()));
    }

    #[test]
    fn limits_are_shown_in_a_line() {
        let limits = Limits {
            memory: Some((1 << 29) + (1 << 19)),
            cpu_milli: Some(1_500),
            pids: Some(30),
            open_files: Some(OpenFiles { soft: 10, hard: Some(20) }),
            nice: Some(-5),
            user: Some("bob".to_owned()),
        };
        let shown = "memory 512.5 MiB, 1.5 processors, processes 30, open files 10:20, nice -5, user bob";
        assert_eq!((limits.to_string().as_str(), Limits::default().to_string().as_str()), (shown, ""));
    }

    #[test]
    fn what_was_stored_before_there_were_limits_of_processes_is_read() {
        let stored = r#"{"memory":1048576,"cpu_milli":null,"open_files":null,"nice":null,"user":null}"#;
        let limits: Limits = serde_json::from_str(stored).expect("limits");
        assert_eq!(limits, Limits { memory: Some(1 << 20), ..Limits::default() });
        assert_eq!(serde_json::to_string(&limits).expect("JSON"), stored, "and written as before");
    }

    #[test]
    fn open_files_are_one_number_or_two() {
        for (text, soft, hard) in [("1024", 1024, None), ("64:128", 64, Some(128))] {
            let files: OpenFiles = text.parse().expect(text);
            assert_eq!((files, files.to_string().as_str()), (OpenFiles { soft, hard }, text));
        }
        for text in ["", ":", "5:", ":5", "-1", "+1", "1:2:3", "1.5", "unlimited", "99999999999999999999"] {
            let error = text.parse::<OpenFiles>().expect_err(text).to_string();
            assert!(error.contains(&format!("'{text}'")), "{error}");
        }
    }

    #[test]
    fn processors_have_at_most_three_places() {
        for (text, milli) in [("1", 1_000), ("0.5", 500), ("1.25", 1_250), ("2.001", 2_001), ("0", 0)] {
            assert_eq!(parse_processors(text), Ok(milli), "{text}");
        }
        for text in ["", ".", ".5", "1.", "-1", "+1", "1,5", "1e3", "nan", "0.0001", "99999999999", "4294968"]
        {
            assert!(parse_processors(text).is_err(), "{text}");
        }
    }
}
