//! How many jobs may run at a time, and whose turn it is.
//!
//! A job has a place from the decision to launch it until its attempt has its last status, or waits to be started again.
//! Whoever finds none waits in the order in which it could have started.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::JobId;
use crate::job::{JobState, WaitingOn};
use crate::status::Status;
use crate::time::Moment;

use super::live::{Live, Standing};
use super::{Engine, Turn};

/// How much may run at a time in a whole data directory. What is absent is not limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capacity {
    /// Jobs.
    pub max_processes: Option<u32>,
    /// Bytes of memory that running jobs may have together by their own limits. A job without a limit on its memory
    /// counts for nothing.
    pub max_memory: Option<u64>,
    /// What becomes of a job for which there is no room.
    pub when_full: WhenFull,
}

/// What becomes of a job for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// It is queued.
    #[default]
    Queue,
    /// It is refused. What was accepted before is queued all the same, such as a restart or what was due later.
    Refuse,
}

/// Who has a place, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) capacity: Capacity,
    taken: u32,
    /// In bytes.
    memory: u64,
    /// With the memory that each wants.
    waiting: BTreeMap<u64, (JobId, u64)>,
    last_order: u64,
}

impl Places {
    pub(super) fn new(capacity: Capacity) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// Whether somebody new who wants so much memory may start: there is room, and nobody waits for it already.
    pub(super) fn admits(&self, memory: Option<u64>) -> bool {
        self.waiting.is_empty() && self.has_room(memory.unwrap_or(0))
    }

    fn has_room(&self, memory: u64) -> bool {
        let Capacity { max_processes, max_memory, .. } = self.capacity;
        // Alone, also somebody may start who wants more than there is: the bound may have been lower when it was accepted.
        let fits = |max: u64| memory == 0 || self.memory == 0 || self.memory.saturating_add(memory) <= max;
        max_processes.is_none_or(|max| self.taken < max.max(1)) && max_memory.is_none_or(fits)
    }

    /// Whether more run than may: the bounds were lowered, or a store has kept what it said it could not.
    pub(super) fn is_over(&self) -> bool {
        let Capacity { max_processes, max_memory, .. } = self.capacity;
        max_processes.is_some_and(|max| self.taken > max.max(1))
            || max_memory.is_some_and(|max| self.memory > max)
    }

    /// Whether the first of those who wait may start.
    pub(super) fn has_room_for_next(&self) -> bool {
        self.waiting.first_key_value().is_some_and(|(_, (_, memory))| self.has_room(*memory))
    }

    fn pop_next(&mut self) -> Option<JobId> {
        if !self.has_room_for_next() {
            return None;
        }
        self.waiting.pop_first().map(|(_, (id, _))| id)
    }

    pub(super) fn take(&mut self, live: &mut Live) {
        if live.place.standing != Standing::Has {
            live.place.standing = Standing::Has;
            self.number(live);
            self.taken += 1;
            self.memory += memory_of(live);
        }
    }

    pub(super) fn wait(&mut self, id: &JobId, live: &mut Live) {
        self.number(live);
        live.place.standing = Standing::Waits;
        self.waiting.insert(live.place.order, (id.clone(), memory_of(live)));
    }

    fn number(&mut self, live: &mut Live) {
        if live.place.order == 0 {
            self.last_order += 1;
            live.place.order = self.last_order;
        }
    }

    /// Whoever has a place, or waits for one, has and does so no longer. Says whether it had one.
    pub(super) fn leave(&mut self, live: &mut Live) -> bool {
        let standing = std::mem::take(&mut live.place.standing);
        match standing {
            Standing::Outside => {}
            Standing::Waits => drop(self.waiting.remove(&live.place.order)),
            Standing::Has => {
                self.taken -= 1;
                self.memory -= memory_of(live);
            }
        }
        standing == Standing::Has
    }

    /// Makes a state that was to be started one that waits for a place.
    pub(super) fn queue(&self, state: &mut JobState) {
        state.status = Status::Queued;
        state.waiting_on = Some(WaitingOn::Slot);
        state.detail = Some(self.why_full());
    }

    /// Why there is no room.
    pub(super) fn why_full(&self) -> String {
        match self.capacity {
            Capacity { max_processes: Some(max), .. } if self.taken >= max => {
                format!("{} run, and no more than {max} may at a time", self.taken)
            }
            Capacity { max_memory: Some(max), .. } => {
                let (taken, max) = (self.memory >> 20, max >> 20);
                format!("those that run may have {taken} MiB of memory, and all together {max} MiB")
            }
            Capacity { .. } => "others wait already".to_owned(),
        }
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> u32 {
        self.taken
    }
}

fn memory_of(live: &Live) -> u64 {
    live.policy.memory_limit().unwrap_or(0)
}

impl Live {
    /// Whether its status means that it has a place.
    fn wants_place(&self) -> bool {
        !matches!(self.state.status, Status::Queued | Status::Restarting) && !self.state.status.is_terminal()
    }

    pub(super) fn waits_for_place(&self) -> bool {
        self.state.status == Status::Queued && self.state.waiting_on == Some(WaitingOn::Slot)
    }
}

impl Engine {
    /// Gives a job that was just begun, or found, the place that its state says.
    pub(super) fn place(&mut self, id: &JobId, live: &mut Live) {
        if live.array.is_some() {
            self.place_array(id, live);
        } else if live.wants_place() {
            self.places.take(live);
        } else if live.waits_for_place() {
            self.places.wait(id, live);
        }
    }

    /// Starts a job that has waited for its time, or has it queued.
    pub(super) fn start_or_queue(&mut self, id: &JobId, now: Moment, turn: &mut Turn) {
        let Some(live) = self.live.get_mut(id) else { return };
        if live.array.is_none() && self.places.admits(live.policy.memory_limit()) {
            self.places.take(live);
            return live.start_waiting(id, now, turn);
        }
        self.places.queue(&mut live.state);
        turn.units.push(live.update(id, Status::Queued, now));
        self.places.wait(id, live);
    }

    /// Has one launched again that never was, or has it queued if that is one too many.
    pub(super) fn launch_again(&mut self, id: &JobId, now: Moment, turn: &mut Turn) {
        let Some(live) = self.live.get_mut(id) else { return };
        if !self.places.is_over() {
            turn.effects.push(live.launch(id, now));
            return turn.units.push(live.update(id, Status::Starting, now));
        }
        self.places.queue(&mut live.state);
        turn.units.push(live.update(id, Status::Queued, now));
        self.places.leave(live);
        self.places.wait(id, live);
    }

    /// Starts those whose turn it is, for as many as there is room.
    pub(super) fn fill_places(&mut self, now: Moment, turn: &mut Turn) {
        while turn.units.len() < Self::TURN_UNITS
            && let Some(id) = self.places.pop_next()
        {
            let Some(live) = self.live.get_mut(&id) else { continue };
            if live.array.is_some() {
                self.begin_element(&id, now, turn);
            } else {
                self.places.take(live);
                live.start_waiting(&id, now, turn);
            }
        }
    }
}
