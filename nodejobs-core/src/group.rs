//! Groups: named queues, each with so many slots.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::JobId;
use crate::store::{DocumentChange, DocumentKind};

/// The name of the group of all jobs that name none. It always exists.
pub const DEFAULT_GROUP: &str = "default";

/// The most slots that a group can have, and the most of a resource.
pub const MAX_COUNT: u32 = 1 << 20;

/// What is stored of a group, as JSON under its name.
///
/// ```
/// use nodejobs_core::group::Group;
///
/// let group: Group = serde_json::from_str(r#"{"slots": 2, "paused": false}"#)?;
/// assert_eq!(group, Group { slots: Some(2), paused: false });
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// How many slots its running jobs may take together; not limited if absent.
    pub slots: Option<u32>,
    /// Whether none of its jobs is started. Those that run go on.
    pub paused: bool,
}

impl Group {
    /// The change that stores it.
    pub fn document(self, name: &str) -> DocumentChange {
        // Two plain fields are always JSON.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        DocumentChange::Put { kind: DocumentKind::Group, key: name.to_owned(), body }
    }
}

/// A group as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// How many slots it has; not limited if absent.
    pub slots: Option<u32>,
    /// How many of them are taken.
    pub taken: u64,
    /// How many of its jobs run, or are being started or ended.
    pub running: u32,
    /// How many of its jobs wait for a place.
    pub waiting: u32,
    /// Whether none of its jobs is started.
    pub paused: bool,
}

/// What is changed of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupChange {
    /// How many slots it has from now on; as many as before if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<Slots>,
    /// Whether its jobs are held back from now on; as before if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Whether it is only changed if there is one already, and otherwise refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub must_exist: bool,
}

impl GroupChange {
    /// The group as it is then.
    pub fn of(self, group: Group) -> Group {
        let slots = match self.slots {
            None => group.slots,
            Some(Slots::Unlimited) => None,
            Some(Slots::Limited(slots)) => Some(slots),
        };
        Group { slots, paused: self.paused.unwrap_or(group.paused) }
    }
}

/// How many slots a group is to have. In JSON, a number or `"unlimited"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SlotsText", into = "SlotsText")]
pub enum Slots {
    /// As many as its jobs take.
    Unlimited,
    /// So many, at least 1.
    Limited(u32),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SlotsText {
    Number(u32),
    Text(String),
}

impl From<Slots> for SlotsText {
    fn from(slots: Slots) -> Self {
        match slots {
            Slots::Unlimited => SlotsText::Text(UNLIMITED.to_owned()),
            Slots::Limited(slots) => SlotsText::Number(slots),
        }
    }
}

impl TryFrom<SlotsText> for Slots {
    type Error = InvalidSlots;

    fn try_from(text: SlotsText) -> Result<Self, InvalidSlots> {
        match text {
            SlotsText::Number(number) => number.to_string().parse(),
            SlotsText::Text(text) => text.parse(),
        }
    }
}

const UNLIMITED: &str = "unlimited";

/// A text that says of no group how many slots it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no number of slots; give 1 to {MAX_COUNT}, or `{UNLIMITED}`; to hold all its jobs back, pause it"
)]
pub struct InvalidSlots(String);

impl std::str::FromStr for Slots {
    type Err = InvalidSlots;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == UNLIMITED {
            return Ok(Slots::Unlimited);
        }
        let number = text.parse().ok().filter(|number| (1..=MAX_COUNT).contains(number));
        number.map(Slots::Limited).ok_or_else(|| InvalidSlots(text.to_owned()))
    }
}

/// A text that cannot be the name of a group, or of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Of a group.
    #[error(
        "'{0}' is no name of a group; it has 1 to 128 of A-Z a-z 0-9 . _ - and does not start with . or -"
    )]
    Group(String),
    /// Of a resource.
    #[error("'{0}' is no name of a resource; it has 1 to 32 of a-z 0-9 _ and starts with a letter")]
    Resource(String),
}

/// Checks the name of a group: the same texts as ids.
///
/// # Errors
/// [`InvalidName::Group`].
pub fn check_group_name(name: &str) -> Result<(), InvalidName> {
    JobId::new(name).map(drop).map_err(|_| InvalidName::Group(name.to_owned()))
}

/// Checks the name of a resource. In capital letters it is the end of a variable's name, see [`resource_variables`].
///
/// # Errors
/// [`InvalidName::Resource`].
pub fn check_resource_name(name: &str) -> Result<(), InvalidName> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let is_good = name.len() <= 32
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(is_allowed);
    if is_good { Ok(()) } else { Err(InvalidName::Resource(name.to_owned())) }
}

/// How the names of the variables begin that tell a job what it has of named resources.
pub const RESOURCE_VARIABLE: &str = "NODEJOBS_RESOURCE_";
/// What tells programs for NVIDIA's processors which ones they may use.
pub const CUDA_VARIABLE: &str = "CUDA_VISIBLE_DEVICES";

/// The variables that tell a job which ones of the named resources it has: `NODEJOBS_RESOURCE_<NAME>` for each, with
/// their numbers from 0 and commas between them, and for `gpu` the same as `CUDA_VISIBLE_DEVICES`.
///
/// ```
/// use nodejobs_core::group::resource_variables;
///
/// let variables = resource_variables(&[("gpu".to_owned(), vec![0, 2])].into());
/// let expected = [("NODEJOBS_RESOURCE_GPU", "0,2"), ("CUDA_VISIBLE_DEVICES", "0,2")];
/// assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
/// ```
pub fn resource_variables(assigned: &BTreeMap<String, Vec<u32>>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for (name, indices) in assigned {
        let value = indices.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        variables.push((format!("{RESOURCE_VARIABLE}{}", name.to_uppercase()), value.clone()));
        if name == "gpu" {
            variables.push((CUDA_VARIABLE.to_owned(), value));
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_a_number_or_unlimited() {
        let read = |json: &str| serde_json::from_str::<GroupChange>(json);
        let change = |slots| GroupChange { slots, ..GroupChange::default() };
        assert_eq!(read(r#"{"slots": 3}"#).expect("a number"), change(Some(Slots::Limited(3))));
        assert_eq!(read(r#"{"slots": "unlimited"}"#).expect("a word"), change(Some(Slots::Unlimited)));
        assert_eq!(read("{}").expect("nothing"), change(None));
        for bad in [r#"{"slots": 0}"#, r#"{"slots": "many"}"#, r#"{"slots": -1}"#, r#"{"slot": 1}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let text = serde_json::to_string(&change(Some(Slots::Unlimited))).expect("JSON");
        assert_eq!(text, r#"{"slots":"unlimited"}"#);
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let group = Group { slots: Some(2), paused: true };
        assert_eq!(GroupChange::default().of(group), group);
        let resumed = GroupChange { paused: Some(false), ..GroupChange::default() };
        assert_eq!(resumed.of(group), Group { slots: Some(2), paused: false });
        let unlimited = GroupChange { slots: Some(Slots::Unlimited), ..GroupChange::default() };
        assert_eq!(unlimited.of(group), Group { slots: None, paused: true });
    }

    #[test]
    fn names_are_checked() {
        for good in ["a", "train.2", "GPU_x"] {
            assert_eq!(check_group_name(good), Ok(()));
        }
        for bad in ["", "-a", "a b", "ü", "a/b"] {
            assert!(check_group_name(bad).is_err(), "{bad}");
        }
        for good in ["gpu", "license_2"] {
            assert_eq!(check_resource_name(good), Ok(()));
        }
        for bad in ["", "GPU", "2x", "a-b", "a=b", &"x".repeat(33)] {
            assert!(check_resource_name(bad).is_err(), "{bad}");
        }
    }
}
