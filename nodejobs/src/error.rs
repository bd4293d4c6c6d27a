//! The error of the library: what the caller can do, in words, with what lies underneath.

use std::fmt;

use nodejobs_core::store::StoreError;

use crate::api::{Candidate, Problem, ProblemKind};

/// Why something could not be done.
///
/// [`kind`](Self::kind) says what the caller can do next; `Display` gives the sentence, and
/// [`source`](std::error::Error::source) what lies underneath, where there is something.
#[derive(Debug)]
pub struct Error {
    problem: Problem,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of that kind.
    pub fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        Problem::new(kind, message).into()
    }

    /// The same with what lies underneath.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    pub(crate) fn not_found(reference: &str) -> Self {
        Self::new(
            ProblemKind::NotFound,
            format!("no job has the id or name '{reference}'; `nodejobs ls` lists them"),
        )
    }

    /// What the caller can do next.
    pub fn kind(&self) -> ProblemKind {
        self.problem.kind
    }

    /// The jobs that an ambiguous reference fits, newest first, at most [`Candidate::NAMED`].
    pub fn candidates(&self) -> &[Candidate] {
        &self.problem.candidates
    }

    /// The error as it travels: one sentence with all that lies underneath.
    pub fn to_problem(&self) -> Problem {
        let mut problem = self.problem.clone();
        let mut source = self.source.as_deref().map(|source| source as &dyn std::error::Error);
        while let Some(error) = source {
            problem.message.push_str(&format!(": {error}"));
            source = error.source();
        }
        problem
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self { problem, source: None }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::new(ProblemKind::Unavailable, "the store cannot be used").with_source(error)
    }
}
