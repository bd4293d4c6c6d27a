//! What a job takes while it runs, and where it stands among those that do and those that wait.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::job::Definition;

use super::Key;

/// What a job takes while it runs, beside its place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::engine) struct Want {
    pub(in crate::engine) group: Option<String>,
    /// Of its group.
    pub(in crate::engine) slots: u32,
    /// In bytes.
    pub(in crate::engine) memory: u64,
    /// How many of each named resource.
    pub(in crate::engine) needs: BTreeMap<String, u32>,
}

/// What a job takes that says nothing.
static PLAIN: Want = Want { group: None, slots: 1, memory: 0, needs: BTreeMap::new() };

impl Want {
    pub(in crate::engine) fn of(definition: &Definition) -> Self {
        Self {
            group: definition.group.clone(),
            slots: definition.slots,
            memory: definition.policy.memory_limit().unwrap_or(0),
            needs: definition.needs.clone(),
        }
    }
}

/// Where a job stands among those that run, and those that wait to. Changed through [`Queue`](super::Queue) only.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Place {
    /// Its number in the queue, which it keeps; 0 if it never had one.
    pub(in crate::engine) order: u64,
    pub(in crate::engine) priority: i32,
    pub(in crate::engine) standing: Standing,
    /// `None` if it is what most want.
    want: Option<Arc<Want>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(in crate::engine) enum Standing {
    #[default]
    Outside,
    Waits,
    Has,
}

impl Place {
    /// Outside, with what such a job wants.
    pub(in crate::engine) fn of(definition: &Definition) -> Self {
        let is_plain = definition.group.is_none()
            && definition.slots == PLAIN.slots
            && definition.needs.is_empty()
            && definition.policy.memory_limit().is_none_or(|memory| memory == 0);
        let want = (!is_plain).then(|| Arc::new(Want::of(definition)));
        Self { order: 0, priority: definition.priority, standing: Standing::Outside, want }
    }

    #[cfg(test)]
    pub(super) fn with(want: Want, priority: i32) -> Self {
        Self { order: 0, priority, standing: Standing::Outside, want: Some(Arc::new(want)) }
    }

    pub(in crate::engine) fn want(&self) -> &Want {
        self.want.as_deref().unwrap_or(&PLAIN)
    }

    pub(super) fn shared_want(&self) -> Arc<Want> {
        self.want.clone().unwrap_or_else(|| Arc::new(PLAIN.clone()))
    }

    pub(super) fn set_want(&mut self, want: &Arc<Want>) {
        self.want = self.want.take().map(|_| Arc::clone(want));
    }

    pub(in crate::engine) fn key(&self) -> Key {
        (Reverse(self.priority), self.order)
    }
}
