//! Arrays: many jobs of one definition that differ in their values.
//!
//! An array is one job, the parent, which has no process. Its elements become jobs of their own, `<parent>.<number>`,
//! when they are started; until then they are rows of a plan. What the parent runs is a document of kind
//! [`Array`](crate::store::DocumentKind::Array), how far it got one of kind
//! [`Progress`](crate::store::DocumentKind::Progress), which is written together with each change that it counts.

mod stored;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::JobId;
use crate::job::{Definition, Job, JobState, Origin, WaitingOn};
use crate::spec::{Elements, InvalidPlaceholder, Placeholders, Start, UNIQUE_LABEL};
use crate::status::{Reason, Status};
use crate::time::Timestamp;

pub use stored::{Which, contents, elements, next_attempt, progress, template};

/// The label that every element has; its value is the id of its array. So they are found by an index.
pub const LABEL: &str = "array";
/// The longest id that a parent can have, in characters: its elements add a dot and up to seven digits.
pub const MAX_PARENT_ID: usize = JobId::MAX_LEN - 8;
/// So many elements may be cancelled one by one before it is their turn.
pub const MAX_SKIPPED: usize = 1_000;

/// The id of an element; `None` if the parent's id is too long to have elements.
///
/// ```
/// use nodejobs_core::{JobId, array};
///
/// let sweep = JobId::new("sweep")?;
/// let element = array::element_id(&sweep, 57).expect("short enough");
/// assert_eq!(element.as_str(), "sweep.57");
/// assert_eq!(array::split_element_id("sweep.57"), Some(("sweep", 57)));
/// assert_eq!(array::split_element_id("sweep.057"), None);
/// # Ok::<(), nodejobs_core::id::InvalidId>(())
/// ```
pub fn element_id(parent: &JobId, index: u32) -> Option<JobId> {
    JobId::new(&format!("{parent}.{index}")).ok()
}

/// What an element's id is made of: its parent's, or another reference to it, and its number.
pub fn split_element_id(id: &str) -> Option<(&str, u32)> {
    let (parent, digits) = id.rsplit_once('.')?;
    let is_number = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    let index = digits.parse().ok().filter(|_| is_number && !parent.is_empty())?;
    Some((parent, index))
}

/// Keys of the documents of kind [`Meta`](crate::store::DocumentKind::Meta) that say which arrays still have to have their
/// script for the end run begin so; id and attempt follow.
pub const ON_DONE: &str = "on-done/";

/// The key of the document with the plan of a further attempt of an array.
pub fn plan_key(parent: &JobId, attempt: u32) -> String {
    format!("{parent}/{attempt}")
}

/// An element that has run before and is to run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// Its number.
    pub index: u32,
    /// Its last attempt; 0 if it never had one.
    pub attempt: u32,
    /// The revision of its job, 0 if there is none.
    pub revision: u64,
}

/// Which elements an attempt of an array runs, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// Each of so many for the first time.
    All(u32),
    /// These, in the order of their numbers.
    Some(Vec<Again>),
}

impl Plan {
    /// How many elements it has.
    pub fn len(&self) -> u32 {
        match self {
            Plan::All(size) => *size,
            Plan::Some(again) => u32::try_from(again.len()).unwrap_or(u32::MAX),
        }
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn get(&self, place: u32) -> Option<Again> {
        match self {
            Plan::All(size) => (place < *size).then_some(Again { index: place + 1, attempt: 0, revision: 0 }),
            Plan::Some(again) => again.get(place as usize).copied(),
        }
    }

    /// Where in the plan the element of that number is.
    fn place(&self, index: u32) -> Option<u32> {
        match self {
            Plan::All(size) => index.checked_sub(1).filter(|place| place < size),
            Plan::Some(again) => {
                let place = again.binary_search_by_key(&index, |again| again.index).ok()?;
                u32::try_from(place).ok()
            }
        }
    }
}

/// How far an attempt of an array got: what its document says.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// How many elements its plan has.
    pub planned: u32,
    /// How many of the plan's first were begun or skipped.
    pub next: u32,
    /// Numbers of elements behind these that were cancelled before their turn.
    #[serde(default)]
    pub skipped: BTreeSet<u32>,
    /// How many were never begun, and are not in the plan either.
    #[serde(default, skip_serializing_if = "is_none")]
    pub left_out: u32,
    /// How many elements came to which end, those of earlier attempts that are not run again included.
    pub ended: BTreeMap<Status, u32>,
}

impl Progress {
    /// How many wait for their turn.
    pub fn pending(&self) -> u32 {
        let skipped = u32::try_from(self.skipped.len()).unwrap_or(u32::MAX);
        self.planned.saturating_sub(self.next).saturating_sub(skipped)
    }

    /// The document.
    pub fn to_json(&self) -> Vec<u8> {
        // Numbers and names, which always are JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn has_ended(&self) -> u32 {
        self.ended.values().sum()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

/// What is stored of an array beside its parent's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The values of all elements.
    pub elements: Elements,
    /// What this attempt runs.
    pub plan: Plan,
    /// How far it got.
    pub progress: Progress,
}

impl Content {
    /// A new array of so many elements.
    pub fn new(elements: Elements, size: u32) -> Self {
        let plan = Plan::All(size);
        let progress = Progress { planned: size, ..Progress::default() };
        Self { elements, plan, progress }
    }
}

/// The state of all elements in numbers, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// All of them.
    pub size: u32,
    /// Not begun: they wait for their turn, or their array has ended before it came.
    pub pending: u32,
    /// Begun, and not ended.
    pub running: u32,
    /// Ended with success.
    pub finished: u32,
    /// Ended otherwise by themselves, never executed, or with an outcome that nobody knows.
    pub failed: u32,
    /// Ended, or never begun, because somebody asked.
    pub stopped: u32,
}

impl Counts {
    /// What the progress of an array of so many elements comes to.
    pub fn new(size: u32, progress: &Progress) -> Self {
        let of = |statuses: &[Status]| {
            statuses.iter().filter_map(|status| progress.ended.get(status)).sum::<u32>()
        };
        let pending = progress.pending() + progress.left_out;
        Self {
            size,
            pending,
            running: size.saturating_sub(pending).saturating_sub(progress.has_ended()),
            finished: of(&[Status::Finished]),
            failed: of(&[Status::Failed, Status::FailedStart, Status::Lost]),
            stopped: of(&[Status::Stopped, Status::Cancelled]),
        }
    }

    /// How many have come to an end.
    pub fn ended(&self) -> u32 {
        self.finished + self.failed + self.stopped
    }
}

/// An array as those who make jobs of its elements have it.
#[derive(Clone, Debug)]
pub struct Template {
    parent: JobId,
    definition: Box<Definition>,
    placeholders: Placeholders,
    /// The values of all elements.
    elements: Elements,
}

impl Template {
    /// The template of a parent that was accepted, whose command's placeholders were checked then.
    ///
    /// # Errors
    /// If they are not as they were checked.
    pub fn new(
        parent: JobId,
        definition: &Definition,
        elements: Elements,
    ) -> Result<Self, InvalidPlaceholder> {
        let placeholders = Placeholders::of(&definition.command)?;
        Ok(Self { parent, definition: Box::new(definition.clone()), placeholders, elements })
    }

    fn redefine(&mut self, definition: &Definition) -> Result<(), InvalidPlaceholder> {
        let placeholders = Placeholders::of(&definition.command)?;
        placeholders.check(&self.elements.names())?;
        self.placeholders = placeholders;
        *self.definition = definition.clone();
        Ok(())
    }

    /// What the element of that number runs.
    pub fn definition(&self, index: u32, now: Timestamp) -> Definition {
        let values = self.elements.values(index);
        let mut labels = self.definition.labels.clone();
        labels.insert(LABEL.to_owned(), self.parent.to_string());
        // The array is the only one of its key, not each of its elements.
        labels.remove(UNIQUE_LABEL);
        Definition {
            labels,
            // A name would mean all of them.
            name: None,
            command: self.placeholders.fill(index, &values),
            start: Start::Now,
            submit_key: None,
            created_at: now,
            after: None,
            array: None,
            origin: Some(Origin::Element { array: self.parent.clone(), index, values }),
            ..(*self.definition).clone()
        }
    }

    /// An element that has no job yet, or never gets one, as if it had; `parent` is the array as it is stored.
    pub fn pending(&self, parent: &Job, index: u32) -> Option<Job> {
        let definition = self.definition(index, parent.definition.created_at);
        let mut state = JobState::new(1, Status::Queued, parent.state.last_update);
        if parent.state.status.is_terminal() {
            state.status = Status::Cancelled;
            state.ended = parent.state.ended;
            state.reason = match parent.state.reason {
                Some(Reason::Element) => Some(Reason::Element),
                _ => Some(Reason::User),
            };
            state.detail = Some(format!("its array was {} before its turn", parent.state.status));
        } else {
            state.waiting_on = parent.state.waiting_on.or(Some(WaitingOn::Slot));
            state.detail = Some("waits for its turn in the array".to_owned());
        }
        let id = element_id(&self.parent, index)?;
        Some(Job { seq: parent.seq, id, revision: 0, definition, state })
    }
}

/// A live array: what is to be begun, and who lives.
#[derive(Debug)]
pub(crate) struct Running {
    template: Template,
    plan: Plan,
    pub(crate) progress: Progress,
    /// Numbers of the elements that are begun and have not ended.
    pub(crate) live: BTreeSet<u32>,
}

impl Running {
    pub(crate) fn new(template: Template, plan: Plan, progress: Progress) -> Self {
        Self { template, plan, progress, live: BTreeSet::new() }
    }

    /// How many elements it has.
    pub(crate) fn size(&self) -> u32 {
        self.template.definition.array.as_ref().map_or(0, |array| array.size)
    }

    /// Whether the first failure ends it.
    pub(crate) fn fails_fast(&self) -> bool {
        self.template.definition.array.as_ref().is_some_and(|array| array.fail_fast)
    }

    /// Makes another definition that of its elements.
    pub(crate) fn redefine(&mut self, definition: &Definition) -> Result<(), InvalidPlaceholder> {
        self.template.redefine(definition)
    }

    /// How many more elements may be begun, as far as the array itself says.
    pub(crate) fn may_begin(&self) -> u32 {
        let most = self.template.definition.array.as_ref().and_then(|array| array.max_running);
        let live = u32::try_from(self.live.len()).unwrap_or(u32::MAX);
        self.progress.pending().min(most.map_or(u32::MAX, |most| most.max(1).saturating_sub(live)))
    }

    /// Takes the next element of the plan: it lives from now on.
    pub(crate) fn begin_next(&mut self, now: Timestamp) -> Option<(Again, Definition)> {
        let again = loop {
            let again = self.plan.get(self.progress.next)?;
            self.progress.next += 1;
            if !self.progress.skipped.remove(&again.index) {
                break again;
            }
        };
        self.live.insert(again.index);
        Some((again, self.template.definition(again.index, now)))
    }

    /// Takes an element out of the plan before its turn, which has ended so.
    pub(crate) fn skip(&mut self, index: u32, now: Timestamp) -> Option<(Again, Definition)> {
        if !self.is_pending(index) || self.progress.skipped.len() >= MAX_SKIPPED {
            return None;
        }
        let again = self.plan.get(self.plan.place(index)?)?;
        self.progress.skipped.insert(index);
        *self.progress.ended.entry(Status::Cancelled).or_default() += 1;
        Some((again, self.template.definition(index, now)))
    }

    /// Whether it waits for its turn.
    pub(crate) fn is_pending(&self, index: u32) -> bool {
        self.plan.place(index).is_some_and(|place| place >= self.progress.next)
            && !self.progress.skipped.contains(&index)
    }

    /// An element has come to its end.
    pub(crate) fn ended(&mut self, index: u32, status: Status) {
        if self.live.remove(&index) {
            *self.progress.ended.entry(status).or_default() += 1;
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts::new(self.size(), &self.progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Array;
    use crate::spec::{Command, JobSpec};

    fn running(size: u32, plan: Plan) -> Running {
        let elements = Elements::Range(format!("1-{size}").parse().expect("a range"));
        let mut definition = Definition::new(
            &JobSpec::new(Command::argv(["x", "{}"]), "/"),
            "/l".into(),
            Timestamp::default(),
        );
        definition.array = Some(Array { size, fail_fast: false, max_running: Some(2), on_done: None });
        let parent = JobId::new("a").expect("valid");
        let template = Template::new(parent, &definition, elements).expect("checked");
        let finished = (size > plan.len()).then(|| (Status::Finished, size - plan.len()));
        let ended = finished.into_iter().collect();
        let progress = Progress { planned: plan.len(), ended, ..Progress::default() };
        Running::new(template, plan, progress)
    }

    #[test]
    fn the_plan_is_gone_through_once_and_counted() {
        let mut array = running(5, Plan::All(5));
        let now = Timestamp::default();
        let begin = |array: &mut Running| array.begin_next(now).map(|(again, _)| again.index);
        assert_eq!(begin(&mut array), Some(1));
        assert!(array.skip(1, now).is_none(), "it has begun");
        assert!(array.skip(3, now).is_some() && array.skip(3, now).is_none() && array.skip(6, now).is_none());
        assert_eq!(array.may_begin(), 1);
        assert_eq!(begin(&mut array), Some(2));
        assert_eq!(array.may_begin(), 0, "two at a time");
        array.ended(1, Status::Finished);
        array.ended(1, Status::Failed);
        array.ended(2, Status::Lost);
        assert_eq!((begin(&mut array), begin(&mut array), begin(&mut array)), (Some(4), Some(5), None));
        let counts = Counts { size: 5, pending: 0, running: 2, finished: 1, failed: 1, stopped: 1 };
        assert_eq!((array.counts(), array.counts().ended()), (counts, 3));
        assert!(array.progress.skipped.is_empty());
    }

    #[test]
    fn a_further_attempt_counts_what_has_finished_before() {
        let again = |index| Again { index, attempt: 1, revision: 4 };
        let mut array = running(5, Plan::Some(vec![again(2), again(5)]));
        assert!(!array.is_pending(1) && array.is_pending(2) && array.is_pending(5) && !array.is_pending(6));
        let (begun, definition) = array.begin_next(Timestamp::default()).expect("one");
        assert_eq!((begun, definition.command), (again(2), Command::argv(["x", "2"])));
        let counts = Counts { size: 5, pending: 1, running: 1, finished: 3, failed: 0, stopped: 0 };
        assert_eq!(array.counts(), counts);
        let json = String::from_utf8(array.progress.to_json()).expect("text");
        assert_eq!(json, r#"{"planned":2,"next":1,"skipped":[],"ended":{"finished":3}}"#);
        assert_eq!(serde_json::from_str::<Progress>(&json).expect("the same"), array.progress);
    }

    #[test]
    fn an_id_is_an_element_s_if_it_ends_in_its_number() {
        for none in ["a", "a.", ".5", "a.0", "a.05", "a.x", "a.-1", "a.99999999999"] {
            assert_eq!(split_element_id(none), None, "{none}");
        }
        assert_eq!(split_element_id("a.b.7"), Some(("a.b", 7)));
        let longest = JobId::new(&"x".repeat(MAX_PARENT_ID)).expect("valid");
        assert!(element_id(&longest, crate::spec::MAX_ELEMENTS).is_some());
    }
}
