//! Where the output of attempts is: which files, and from where in them.

use serde::{Deserialize, Serialize};

use crate::id::AttemptId;
use crate::spec::Output;
use crate::text::RawText;

/// Where a job's output goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// How the files are named.
    pub layout: LogLayout,
    /// The directory, or the file of standard output if that is [shared](LogLayout::is_shared). Absolute.
    pub path: RawText,
    /// Whether standard error goes into the file of standard output.
    pub merge: bool,
}

/// How log files are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLayout {
    /// `<xx>/<id>.<attempt>.out` in a directory of ours. The two hex digits spread the files over 256 directories; they
    /// come from the id alone, so a file can be found by hand: `ls logs/*/ID.*`.
    Spread,
    /// `<id>.<attempt>.out` in a directory that the user named.
    Directory,
    /// A file that the user named: appended to by all attempts, and never touched otherwise.
    File,
    /// The same in a directory that the user named as one for logs, which is made if it is not there.
    FileInDirectory,
}

impl LogLayout {
    /// All of them.
    pub const ALL: [LogLayout; 4] =
        [LogLayout::Spread, LogLayout::Directory, LogLayout::File, LogLayout::FileInDirectory];

    /// The name in stores.
    pub const fn as_str(self) -> &'static str {
        match self {
            LogLayout::Spread => "spread",
            LogLayout::Directory => "directory",
            LogLayout::File => "file",
            LogLayout::FileInDirectory => "file_in_directory",
        }
    }

    /// Whether it is one file of the user's for all attempts.
    pub const fn is_shared(self) -> bool {
        matches!(self, LogLayout::File | LogLayout::FileInDirectory)
    }

    /// Whether the user named where the files are: on a file system that may hang while everything else goes on.
    pub const fn is_named(self) -> bool {
        !matches!(self, LogLayout::Spread)
    }

    /// The one of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layout| layout.as_str() == name)
    }
}

impl Logs {
    /// What the user asked for, or else files in `own_directory`.
    pub fn new(output: &Output, own_directory: RawText) -> Self {
        let (layout, path) = match (&output.logdir, &output.logfile) {
            (None, None) => (LogLayout::Spread, own_directory),
            (Some(directory), None) => (LogLayout::Directory, directory.clone()),
            (None, Some(file)) => (LogLayout::File, file.clone()),
            (Some(directory), Some(file)) => (LogLayout::FileInDirectory, joined(directory, file.as_bytes())),
        };
        Self { layout, path, merge: output.merge }
    }

    /// The directory of the files.
    pub fn directory(&self) -> RawText {
        if !self.layout.is_shared() {
            return self.path.clone();
        }
        let path = self.path.as_bytes();
        match path.iter().rposition(|byte| *byte == b'/') {
            Some(0) => "/".into(),
            Some(end) => path[..end].to_vec().into(),
            None => "".into(),
        }
    }

    /// The files of an attempt.
    pub fn paths(&self, attempt: &AttemptId) -> LogPaths {
        let AttemptId { id, attempt: number } = attempt;
        let stem = match self.layout {
            LogLayout::Spread => format!("{:02x}/{id}.{number}", spread(id.as_str())),
            LogLayout::Directory => format!("{id}.{number}"),
            LogLayout::File | LogLayout::FileInDirectory => String::new(),
        };
        let stdout = match self.layout {
            LogLayout::File | LogLayout::FileInDirectory => self.path.clone(),
            _ => joined(&self.path, format!("{stem}.out").as_bytes()),
        };
        let stderr = match self.layout {
            _ if self.merge => stdout.clone(),
            LogLayout::File | LogLayout::FileInDirectory => [self.path.as_bytes(), b".err"].concat().into(),
            _ => joined(&self.path, format!("{stem}.err").as_bytes()),
        };
        LogPaths { stdout, stderr }
    }
}

fn joined(directory: &RawText, file: &[u8]) -> RawText {
    if file.starts_with(b"/") {
        return file.to_vec().into();
    }
    let directory = directory.as_bytes();
    [directory.strip_suffix(b"/").unwrap_or(directory), b"/", file].concat().into()
}

fn spread(id: &str) -> u32 {
    // FNV-1a: any stable spread does.
    let hash =
        id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash ^ (hash >> 16)) & 0xff
}

/// The two log files of an attempt; the same one twice where the outputs are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPaths {
    /// What the job writes to descriptor 1.
    pub stdout: RawText,
    /// What it writes to descriptor 2.
    pub stderr: RawText,
}

impl LogPaths {
    /// Whether both outputs are in one file.
    pub fn is_merged(&self) -> bool {
        self.stdout == self.stderr
    }
}

/// The side index of an attempt's log files, which is always in the directory of ours, wherever those are.
pub fn index_path(own_directory: &RawText, attempt: &AttemptId) -> RawText {
    let AttemptId { id, attempt: number } = attempt;
    joined(own_directory, format!("{:02x}/{id}.{number}.idx", spread(id.as_str())).as_bytes())
}

/// Where in its log files an attempt's output begins, in bytes: 0 unless they held something before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogStart {
    /// In the file of standard output.
    pub stdout: u64,
    /// In the file of standard error.
    pub stderr: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::JobId;

    fn logs(logdir: Option<&str>, logfile: Option<&str>, merge: bool) -> Logs {
        let output = Output { logdir: logdir.map(Into::into), logfile: logfile.map(Into::into), merge };
        Logs::new(&output, "/own".into())
    }

    #[test]
    fn files_are_where_they_were_asked_for() {
        let attempt = AttemptId { id: JobId::new("a.b").expect("valid"), attempt: 3 };
        let paths = |logs: Logs| {
            let LogPaths { stdout, stderr } = logs.paths(&attempt);
            (stdout.to_string(), stderr.to_string())
        };
        let (stdout, stderr) = paths(logs(None, None, false));
        assert!(stdout.starts_with("/own/") && stdout.ends_with("/a.b.3.out"), "{stdout}");
        assert_eq!(stdout.split('/').nth(2).map(str::len), Some(2));
        assert_eq!(index_path(&"/own".into(), &attempt).to_string(), stdout.replace(".out", ".idx"));
        assert_eq!(stderr, stdout.replace(".out", ".err"));
        let named = |stdout: &str, stderr: &str| (stdout.to_owned(), stderr.to_owned());
        assert_eq!(paths(logs(Some("/d/"), None, false)), named("/d/a.b.3.out", "/d/a.b.3.err"));
        assert_eq!(paths(logs(None, Some("/d/f"), false)), named("/d/f", "/d/f.err"));
        assert_eq!(paths(logs(Some("/d"), Some("f"), true)), named("/d/f", "/d/f"));
        assert_eq!(paths(logs(Some("/d"), Some("/e/f"), false)), named("/e/f", "/e/f.err"));
    }

    #[test]
    fn the_directory_is_the_one_of_the_files() {
        assert_eq!(logs(None, None, false).directory(), "/own".into());
        assert_eq!(logs(None, Some("/d/f"), false).directory(), "/d".into());
        assert_eq!(logs(None, Some("/f"), false).directory(), "/".into());
    }

    #[test]
    fn every_layout_has_a_name() {
        for layout in LogLayout::ALL {
            assert_eq!(LogLayout::from_name(layout.as_str()), Some(layout));
        }
        assert_eq!(LogLayout::from_name("x"), None);
    }
}
