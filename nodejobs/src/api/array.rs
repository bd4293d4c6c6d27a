//! Arrays, as they are asked for.

use nodejobs_core::array::MAX_PARENT_ID;
use nodejobs_core::spec::{Elements, JobSpec, Placeholders};
use serde::{Deserialize, Serialize};

use super::Problem;

/// Many jobs of one spec, each with values of its own: see [`Elements`].
///
/// The command may have placeholders, see [`Placeholders`]: `{}` is the only value of an element, `{name}` the one of that
/// name, `{index}` the element's number. Elements also get their values as variables: `NODEJOBS_PARAM_NAME`,
/// `NODEJOBS_ARRAY_INDEX` and `NODEJOBS_ARRAY_ID`.
///
/// ```
/// use nodejobs::api::ArrayRequest;
/// use nodejobs::spec::{Command, Elements, JobSpec};
///
/// let spec = JobSpec::new(Command::argv(["train", "--lr={lr}", "--seed={seed}"]), "/src");
/// let array = ArrayRequest::new(spec, Elements::product(["lr=0.1,0.01", "seed=1..5"])?);
/// assert_eq!(array.validate()?, 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrayRequest {
    /// What every element runs, and under which rules. Its `start` is that of the array; its `id` and `name` are the array's.
    pub spec: JobSpec,
    /// What differs.
    pub elements: Elements,
    /// How many elements run at a time at most. If absent, as many as the machine has processors, or in a group as many as
    /// that has slots.
    #[serde(default)]
    pub max_running: Option<u32>,
    /// Whether the first element that fails ends the others.
    #[serde(default)]
    pub fail_fast: bool,
    /// A script for `/bin/sh` that is run once the array has ended, with its record on standard input.
    #[serde(default)]
    pub on_done: Option<String>,
}

impl ArrayRequest {
    /// The longest script of [`on_done`](Self::on_done), in bytes.
    pub const MAX_ON_DONE: usize = 128 << 10;

    /// An array of this spec and these values, with nothing else said.
    pub fn new(spec: JobSpec, elements: Elements) -> Self {
        Self { spec, elements, max_running: None, fail_fast: false, on_done: None }
    }

    /// Checks everything that can be checked without touching the machine; how many elements there are.
    ///
    /// # Errors
    /// A problem of kind `usage` that names the first thing that is wrong.
    pub fn validate(&self) -> Result<u32, Problem> {
        fn usage(error: &dyn std::fmt::Display) -> Problem {
            Problem::usage(error.to_string())
        }
        let Self { spec, elements, max_running, on_done, .. } = self;
        spec.validate().map_err(|error| usage(&error))?;
        let size = elements.validate().map_err(|error| usage(&error))?;
        let placeholders = Placeholders::of(&spec.command).map_err(|error| usage(&error))?;
        placeholders.check(&elements.names()).map_err(|error| usage(&error))?;
        // In a script, each byte of a value may need four.
        let longest = placeholders.count().saturating_mul(elements.longest_value()).saturating_mul(4);
        if longest > JobSpec::MAX_BYTES {
            let message = format!(
                "with the longest value in each placeholder the command would take up to {longest} bytes; at most {} \
                 are accepted",
                JobSpec::MAX_BYTES
            );
            return Err(Problem::usage(message));
        }
        if let Some(id) = spec.id.as_ref().filter(|id| id.as_str().len() > MAX_PARENT_ID) {
            let length = id.as_str().len();
            let message = format!(
                "the id of an array has at most {MAX_PARENT_ID} characters, since its elements add to it; '{id}' has {length}"
            );
            return Err(Problem::usage(message));
        }
        if spec.labels.contains_key(nodejobs_core::array::LABEL) {
            return Err(Problem::usage(
                "label 'array' is given to elements by their array; choose another one",
            ));
        }
        if *max_running == Some(0) {
            return Err(Problem::usage("with at most 0 elements at a time nothing is run; give at least 1"));
        }
        match on_done {
            Some(script) if script.is_empty() => Err(Problem::usage("the script for the end is empty")),
            Some(script) if script.contains('\0') => {
                Err(Problem::usage("the script for the end contains a NUL byte"))
            }
            Some(script) if script.len() > Self::MAX_ON_DONE => Err(Problem::usage(format!(
                "the script for the end has {} bytes; at most {} are accepted",
                script.len(),
                Self::MAX_ON_DONE
            ))),
            _ => Ok(size),
        }
    }
}
