//! What the elements of an array run with: a range, lines, objects, or every combination of parameters.
//!
//! The values of all elements are kept as they were given and not multiplied out, so a million of them cost what their
//! text does.

mod placeholders;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::text::RawText;

pub use placeholders::{InvalidPlaceholder, Placeholders};

/// The most elements an array may have.
pub const MAX_ELEMENTS: u32 = 1_000_000;
/// The most bytes that the values of all elements may take together, as they are given.
pub const MAX_VALUE_BYTES: usize = 16 << 20;
/// The name of a value that was given without one.
pub const VALUE: &str = "value";
/// The name that stands for the number of the element.
pub const INDEX: &str = "index";

/// In the environment of each element: the id of its array.
pub const ARRAY_VARIABLE: &str = "NODEJOBS_ARRAY_ID";
/// In the environment of each element: its number.
pub const INDEX_VARIABLE: &str = "NODEJOBS_ARRAY_INDEX";

/// The values of one element, by name.
pub type Values = BTreeMap<String, RawText>;

/// The values of all elements of an array. Element 1 has the first.
///
/// ```
/// use nodejobs_core::spec::{Elements, Parameter};
///
/// let range: Elements = Elements::Range("1-10:3".parse()?);
/// assert_eq!(range.size()?, 4);
/// assert_eq!(range.values(4)["value"], "10".into());
/// let sweep = Elements::product(["lr=0.1,0.01", "seed=1..5"])?;
/// assert_eq!(sweep.size()?, 10);
/// assert_eq!(sweep.values(6)["lr"], "0.01".into());
/// assert_eq!(sweep.values(6)["seed"], "1".into());
/// # Ok::<(), nodejobs_core::spec::InvalidElements>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Elements {
    /// Whole numbers.
    Range(Range),
    /// A value each.
    Lines(Lines),
    /// A JSON object each, with a value for each of its names.
    Objects(Lines),
    /// Every combination of the values of these parameters; that of the last one changes fastest.
    Product(Vec<Parameter>),
}

/// Whole numbers, both ends included: `first-last` or `first-last:step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The first number.
    pub first: i64,
    /// The last number, which is reached if the step leads there.
    pub last: i64,
    /// From one to the next, at least 1.
    pub step: u64,
}

/// A parameter of a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// Its name, as in `{name}`.
    pub name: String,
    /// Its values.
    pub values: ParameterValues,
}

/// The values of a parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParameterValues {
    /// As they were listed.
    List(Vec<RawText>),
    /// Whole numbers.
    Range(Range),
}

/// Why values make no array.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidElements {
    /// Nothing to run.
    #[error("{0} gives no element; an array has at least one")]
    None(&'static str),
    /// More than can be.
    #[error("it would be {0} elements; an array has at most {MAX_ELEMENTS}")]
    TooMany(String),
    /// More than is kept.
    #[error("the values take {0} bytes; at most {MAX_VALUE_BYTES} are kept with an array")]
    TooLarge(usize),
    /// Not `first-last`.
    #[error("'{0}' is not a range; write FIRST-LAST or FIRST-LAST:STEP, as in 1-1000 or 0-100:10")]
    BadRange(String),
    /// It leads nowhere.
    #[error("range {first}-{last}:{step} is empty; the first number is the lower one, and a step at least 1")]
    EmptyRange {
        /// Where it begins.
        first: i64,
        /// Where it ends.
        last: i64,
        /// Its step.
        step: u64,
    },
    /// Not `name=values`.
    #[error(
        "'{0}' is not a parameter; write NAME=VALUE,… or NAME=FIRST..LAST, as in lr=0.1,0.01 or seed=1..5"
    )]
    BadParameter(String),
    /// A name that no placeholder can have.
    #[error(
        "'{0}' is no name of a parameter; use letters, digits, '_' and '-', and begin with a letter or '_'"
    )]
    BadName(String),
    /// A name that is ours.
    #[error("'{INDEX}' is the number of the element; choose another name")]
    Reserved,
    /// A name that is there twice, as itself or as a variable.
    #[error("the parameters '{0}' and '{1}' would be one variable, {2}; rename one of them")]
    SameName(String, String, String),
    /// A value that no program can be given.
    #[error("value {0} contains a NUL byte")]
    Nul(usize),
    /// A line that is no object.
    #[error("object {number}: {problem}")]
    BadObject {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
}

impl Elements {
    /// A value each, of which empty ones are left out.
    pub fn lines(text: impl Into<Vec<u8>>) -> Self {
        Elements::Lines(Lines::new(text.into()))
    }

    /// A JSON object each, a line each.
    pub fn objects(text: impl Into<Vec<u8>>) -> Self {
        Elements::Objects(Lines::new(text.into()))
    }

    /// Every combination of parameters, each `name=value,value` or `name=first..last`.
    ///
    /// # Errors
    /// Which of them cannot be understood.
    pub fn product<T: AsRef<str>>(parameters: impl IntoIterator<Item = T>) -> Result<Self, InvalidElements> {
        let parameters = parameters.into_iter().map(|text| Parameter::parse(text.as_ref()));
        Ok(Elements::Product(parameters.collect::<Result<_, _>>()?))
    }

    /// How many elements there are.
    ///
    /// # Errors
    /// If it is none, or more than [`MAX_ELEMENTS`].
    pub fn size(&self) -> Result<u32, InvalidElements> {
        let (size, what) = match self {
            Elements::Range(range) => (range.size(), "the range"),
            Elements::Lines(lines) => (lines.len() as u128, "the list of lines"),
            Elements::Objects(lines) => (lines.len() as u128, "the list of objects"),
            Elements::Product(parameters) => {
                let sizes = parameters.iter().map(|parameter| parameter.values.size());
                let size = if parameters.is_empty() { 0 } else { sizes.fold(1, u128::saturating_mul) };
                (size, "the list of parameters")
            }
        };
        match u32::try_from(size) {
            Ok(0) => Err(InvalidElements::None(what)),
            Ok(size) if size <= MAX_ELEMENTS => Ok(size),
            _ => Err(InvalidElements::TooMany(size.to_string())),
        }
    }

    /// The values of the element of that number, from 1; empty if there is none.
    pub fn values(&self, number: u32) -> Values {
        let place = number.wrapping_sub(1);
        match self {
            Elements::Range(range) => one(range.value(place)),
            Elements::Lines(lines) => one(lines.line(place).to_vec().into()),
            Elements::Objects(lines) => object(lines.line(place)).unwrap_or_default(),
            Elements::Product(parameters) => {
                let mut rest = u128::from(place);
                let mut values = Values::new();
                for Parameter { name, values: all } in parameters.iter().rev() {
                    let size = all.size().max(1);
                    let place = u32::try_from(rest % size).unwrap_or(0);
                    rest /= size;
                    values.insert(name.clone(), all.value(place));
                }
                values
            }
        }
    }

    /// The names that every element has a value for.
    pub fn names(&self) -> BTreeSet<String> {
        match self {
            Elements::Range(_) | Elements::Lines(_) => [VALUE.to_owned()].into(),
            Elements::Product(parameters) => parameters.iter().map(|one| one.name.clone()).collect(),
            Elements::Objects(lines) => {
                let mut objects = lines.iter().map(|line| object(line).unwrap_or_default());
                let mut names: BTreeSet<String> = objects.next().unwrap_or_default().into_keys().collect();
                objects.for_each(|object| names.retain(|name| object.contains_key(name)));
                names
            }
        }
    }

    /// The largest value of any element, in bytes.
    pub fn longest_value(&self) -> usize {
        match self {
            Elements::Range(_) => 20,
            Elements::Lines(lines) | Elements::Objects(lines) => {
                lines.iter().map(<[u8]>::len).max().unwrap_or(0)
            }
            Elements::Product(parameters) => {
                parameters.iter().map(|parameter| parameter.values.longest()).max().unwrap_or(0)
            }
        }
    }

    /// Checks all values; how many elements there are.
    ///
    /// # Errors
    /// [`InvalidElements`] names the first thing that is wrong.
    pub fn validate(&self) -> Result<u32, InvalidElements> {
        let size = self.size()?;
        let bytes = match self {
            Elements::Range(_) => 0,
            Elements::Lines(lines) | Elements::Objects(lines) => lines.bytes(),
            Elements::Product(parameters) => parameters.iter().map(|one| one.values.bytes()).sum(),
        };
        if bytes > MAX_VALUE_BYTES {
            return Err(InvalidElements::TooLarge(bytes));
        }
        match self {
            Elements::Range(_) => {}
            Elements::Lines(lines) => {
                if let Some(place) = lines.iter().position(|line| line.contains(&0)) {
                    return Err(InvalidElements::Nul(place + 1));
                }
            }
            Elements::Objects(lines) => {
                for (line, number) in lines.iter().zip(1..) {
                    let bad = |problem: String| InvalidElements::BadObject { number, problem };
                    let values = object(line).map_err(bad)?;
                    check_names(values.keys()).map_err(|error| bad(error.to_string()))?;
                    if values.values().any(RawText::has_nul) {
                        return Err(bad("a value contains a NUL byte".to_owned()));
                    }
                }
            }
            Elements::Product(parameters) => {
                check_names(parameters.iter().map(|parameter| &parameter.name))?;
                let listed = parameters.iter().filter_map(|parameter| match &parameter.values {
                    ParameterValues::List(values) => Some(values),
                    ParameterValues::Range(_) => None,
                });
                if let Some(place) = listed.flatten().position(RawText::has_nul) {
                    return Err(InvalidElements::Nul(place + 1));
                }
            }
        }
        Ok(size)
    }
}

fn one(value: RawText) -> Values {
    [(VALUE.to_owned(), value)].into()
}

/// The values of a JSON object: text as it is, anything else as JSON.
fn object(line: &[u8]) -> Result<Values, String> {
    let object: BTreeMap<String, &RawValue> =
        serde_json::from_slice(line).map_err(|error| format!("not a JSON object: {error}"))?;
    // Not as a number, which may lose digits.
    let text = |value: &RawValue| {
        serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned())
    };
    Ok(object.into_iter().map(|(name, value)| (name, text(value).into())).collect())
}

/// The variable that has a value in an element's environment.
///
/// ```
/// assert_eq!(nodejobs_core::spec::value_variable("batch-size"), "NODEJOBS_PARAM_BATCH_SIZE");
/// ```
pub fn value_variable(name: &str) -> String {
    format!("NODEJOBS_PARAM_{}", name.to_ascii_uppercase().replace('-', "_"))
}

fn check_names<'n>(names: impl Iterator<Item = &'n String>) -> Result<(), InvalidElements> {
    let mut variables: BTreeMap<String, &String> = BTreeMap::new();
    for name in names {
        if !placeholders::is_name(name.as_bytes()) {
            return Err(InvalidElements::BadName(name.clone()));
        }
        if name == INDEX {
            return Err(InvalidElements::Reserved);
        }
        let variable = value_variable(name);
        if let Some(other) = variables.insert(variable.clone(), name) {
            return Err(InvalidElements::SameName(other.clone(), name.clone(), variable));
        }
    }
    Ok(())
}

impl Range {
    fn size(self) -> u128 {
        if self.step == 0 || self.last < self.first {
            return 0;
        }
        u128::from(self.last.abs_diff(self.first)) / u128::from(self.step) + 1
    }

    fn value(self, place: u32) -> RawText {
        let offset = i128::from(self.step) * i128::from(place);
        (i128::from(self.first) + offset).to_string().into()
    }

    /// A range of both numbers.
    fn between(first: &str, last: &str, step: &str) -> Option<Self> {
        Some(Self { first: first.parse().ok()?, last: last.parse().ok()?, step: step.parse().ok()? })
    }

    fn not_empty(self) -> Result<Self, InvalidElements> {
        let Self { first, last, step } = self;
        if self.size() == 0 { Err(InvalidElements::EmptyRange { first, last, step }) } else { Ok(self) }
    }
}

impl std::str::FromStr for Range {
    type Err = InvalidElements;

    fn from_str(text: &str) -> Result<Self, InvalidElements> {
        let (ends, step) = text.split_once(':').unwrap_or((text, "1"));
        // Behind the first character, which may be the sign of a number.
        let ends = ends.char_indices().skip(1).find(|(_, c)| *c == '-').map(|(at, _)| ends.split_at(at));
        let range = ends.and_then(|(first, last)| Self::between(first, &last[1..], step));
        range.ok_or_else(|| InvalidElements::BadRange(text.to_owned()))?.not_empty()
    }
}

impl Parameter {
    fn parse(text: &str) -> Result<Self, InvalidElements> {
        let bad = || InvalidElements::BadParameter(text.to_owned());
        let (name, values) = text.split_once('=').ok_or_else(bad)?;
        if values.is_empty() {
            return Err(bad());
        }
        let (ends, step) = values.split_once(':').unwrap_or((values, "1"));
        let range = ends.split_once("..").and_then(|(first, last)| Range::between(first, last, step));
        let values = match range {
            Some(range) => ParameterValues::Range(range.not_empty()?),
            None => ParameterValues::List(values.split(',').map(RawText::from).collect()),
        };
        Ok(Self { name: name.to_owned(), values })
    }
}

impl ParameterValues {
    fn size(&self) -> u128 {
        match self {
            ParameterValues::List(values) => values.len() as u128,
            ParameterValues::Range(range) => range.size(),
        }
    }

    fn value(&self, place: u32) -> RawText {
        match self {
            ParameterValues::List(values) => values.get(place as usize).cloned().unwrap_or_default(),
            ParameterValues::Range(range) => range.value(place),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            ParameterValues::List(values) => values.iter().map(|value| value.as_bytes().len()).sum(),
            ParameterValues::Range(_) => 0,
        }
    }

    fn longest(&self) -> usize {
        match self {
            ParameterValues::List(values) => {
                values.iter().map(|value| value.as_bytes().len()).max().unwrap_or(0)
            }
            ParameterValues::Range(_) => 20,
        }
    }
}

/// Lines in one piece of text, found by their numbers. Empty ones are left out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawText", into = "RawText")]
pub struct Lines {
    /// Each line ends with a line break.
    text: Vec<u8>,
    /// Where each line ends.
    ends: Vec<u32>,
}

impl Lines {
    fn new(text: Vec<u8>) -> Self {
        let mut lines = Self { text: Vec::new(), ends: Vec::new() };
        // More than that is refused, and need not be understood.
        if text.len() > u32::MAX as usize / 2 {
            return Self { text, ends: Vec::new() };
        }
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            lines.text.extend_from_slice(line);
            lines.ends.push(u32::try_from(lines.text.len()).unwrap_or(u32::MAX));
            lines.text.push(b'\n');
        }
        lines.text.shrink_to_fit();
        lines.ends.shrink_to_fit();
        lines
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn bytes(&self) -> usize {
        self.text.len()
    }

    fn line(&self, place: u32) -> &[u8] {
        let place = place as usize;
        let Some(end) = self.ends.get(place) else { return &[] };
        let begin = place.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| end + 1);
        &self.text[begin as usize..*end as usize]
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|place| self.line(u32::try_from(place).unwrap_or(u32::MAX)))
    }
}

impl From<RawText> for Lines {
    fn from(text: RawText) -> Self {
        Self::new(text.into_bytes())
    }
}

impl From<Lines> for RawText {
    fn from(lines: Lines) -> Self {
        lines.text.into()
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lines({} in {} bytes)", self.len(), self.bytes())
    }
}
