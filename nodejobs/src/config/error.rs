//! What is wrong with a `config.toml`.

use std::fmt;
use std::path::PathBuf;

use crate::api::{Problem, ProblemKind};

/// A file that cannot be used, with everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// At least one, in the order of the lines.
    pub problems: Vec<ConfigProblem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The line, from 1; `None` if it is about the file as a whole.
    pub line: Option<u32>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl ConfigError {
    /// The error as it travels.
    pub fn to_problem(&self) -> Problem {
        Problem::new(ProblemKind::Usage, self.to_string())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' cannot be used:", self.path.display())?;
        match self.problems.as_slice() {
            [only] => write!(f, " {only}"),
            problems => problems.iter().try_for_each(|problem| write!(f, "\n  {problem}")),
        }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}
