//! Who may run at a time, and whose turn it is.
//!
//! A job has a place from the decision to launch it until its attempt has its last status, or waits to be started again.
//! Whoever finds none waits. Those who want the same stand in one **class**, the higher priority first and then whoever
//! has waited for longer; so whose turn it is costs a look at the first of each class, however many wait.
//!
//! The first ones are looked at in the order of all. Who fits starts. Who does not **reserves** what it wants: what is
//! there is put aside for it, and what is not is closed to all behind it, so that nobody goes before somebody who has
//! waited for longer on anything that it wants. Places of the machine as a whole are not put aside: whatever has to end
//! to let it start gives one back.

mod bounds;
mod free;
mod resources;
#[cfg(test)]
mod tests;
mod want;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::group::Group;
use crate::id::JobId;

use free::Free;
use resources::Resources;

pub(super) use bounds::Load;
pub use bounds::{Capacity, WhenFull};
pub(super) use free::Lack;
pub(super) use want::{Place, Standing, Want};

/// Where somebody stands in the order of all: higher priority first, then age.
pub(super) type Key = (Reverse<i32>, u64);

type Class = BTreeMap<Key, Waiter>;

/// Who waits.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) id: JobId,
    /// How many places it would take one after another.
    pub(super) starts: u32,
}

/// Who has a place, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Queue {
    capacity: Capacity,
    running: u32,
    /// In bytes.
    memory: u64,
    /// Of those who are in no group.
    default_group: Load,
    groups: BTreeMap<String, Load>,
    resources: Resources,
    classes: HashMap<Arc<Want>, Class>,
    waiting: usize,
    last_order: u64,
    /// Something has changed by which somebody who waits may have a turn.
    is_unsettled: bool,
}

impl Queue {
    pub(super) fn new(capacity: Capacity) -> Self {
        Self { capacity, ..Self::default() }
    }

    pub(super) fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    pub(super) fn set_capacity(&mut self, capacity: Capacity) {
        self.capacity = capacity;
        self.is_unsettled = true;
    }

    /// What is known of a group; `None` if there is no such one, and none of its jobs lives.
    pub(super) fn group(&self, name: Option<&str>) -> Option<&Load> {
        name.map_or(Some(&self.default_group), |name| self.groups.get(name))
    }

    /// All of them by their names, but for the one without.
    pub(super) fn groups(&self) -> impl Iterator<Item = (&str, &Load)> {
        self.groups.iter().map(|(name, load)| (name.as_str(), load))
    }

    /// Makes a group, changes it, or has it forgotten once none of its jobs lives.
    pub(super) fn set_group(&mut self, name: Option<&str>, settings: Option<Group>) {
        self.load_mut(name).settings = settings;
        self.forget_if_idle(name);
        self.is_unsettled = true;
    }

    fn load_mut(&mut self, name: Option<&str>) -> &mut Load {
        let Some(name) = name else { return &mut self.default_group };
        if !self.groups.contains_key(name) {
            self.groups.insert(name.to_owned(), Load::default());
        }
        self.groups.get_mut(name).unwrap_or(&mut self.default_group)
    }

    fn forget_if_idle(&mut self, name: Option<&str>) {
        if let Some(name) = name
            && self.groups.get(name).is_some_and(|load| *load == Load::default())
        {
            self.groups.remove(name);
        }
    }

    /// How many have a place.
    pub(super) fn running(&self) -> u32 {
        self.running
    }

    /// How much memory they may have together, in bytes.
    pub(super) fn memory(&self) -> u64 {
        self.memory
    }

    pub(super) fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Gives a place, also to one that has waited for it, and says which of each resource it has.
    pub(super) fn take(&mut self, place: &mut Place) -> BTreeMap<String, Vec<u32>> {
        if place.standing == Standing::Waits {
            self.leave(place, &BTreeMap::new());
        }
        let assigned = self.resources.choose(&place.want().needs, &self.capacity.resources);
        self.take_with(place, &assigned);
        assigned
    }

    /// Notes who has a place already, with these of each resource.
    pub(super) fn take_with(&mut self, place: &mut Place, assigned: &BTreeMap<String, Vec<u32>>) {
        if place.standing == Standing::Has {
            return;
        }
        self.number(place);
        place.standing = Standing::Has;
        let want = place.want();
        self.running += 1;
        self.memory += want.memory;
        self.resources.take(assigned);
        let load = self.load_mut(want.group.as_deref());
        load.taken += u64::from(want.slots);
        load.running += 1;
    }

    /// Has somebody wait for so many places, one after another.
    pub(super) fn wait(&mut self, id: &JobId, place: &mut Place, starts: u32) {
        self.number(place);
        place.standing = Standing::Waits;
        let want = place.shared_want();
        // Those of a class share what they want.
        let want = self.classes.get_key_value(&want).map_or(want, |(known, _)| Arc::clone(known));
        place.set_want(&want);
        self.load_mut(want.group.as_deref()).waiting += 1;
        let waiter = Waiter { id: id.clone(), starts };
        self.classes.entry(want).or_default().insert(place.key(), waiter);
        self.waiting += 1;
        self.is_unsettled = true;
    }

    fn number(&mut self, place: &mut Place) {
        if place.order == 0 {
            self.last_order += 1;
            place.order = self.last_order;
        }
    }

    /// Whoever has a place with these of each resource, or waits for one, has and does so no longer. Says whether it had
    /// one.
    pub(super) fn leave(&mut self, place: &mut Place, assigned: &BTreeMap<String, Vec<u32>>) -> bool {
        let standing = std::mem::take(&mut place.standing);
        let (want, key) = (place.want(), place.key());
        match standing {
            Standing::Outside => return false,
            Standing::Waits => {
                self.load_mut(want.group.as_deref()).waiting -= 1;
                self.waiting -= 1;
                if let Some(class) = self.classes.get_mut(want) {
                    class.remove(&key);
                    if class.is_empty() {
                        self.classes.remove(want);
                    }
                }
            }
            Standing::Has => {
                self.running -= 1;
                self.memory -= want.memory;
                self.resources.leave(assigned);
                let load = self.load_mut(want.group.as_deref());
                load.taken -= u64::from(want.slots);
                load.running -= 1;
            }
        }
        self.forget_if_idle(want.group.as_deref());
        self.is_unsettled = true;
        standing == Standing::Has
    }

    /// Whether somebody who waits may have a turn, so that [`turns`](Self::turns) is to be asked.
    pub(super) fn is_unsettled(&self) -> bool {
        self.is_unsettled && self.waiting > 0
    }

    /// All who have a turn have taken it.
    pub(super) fn settle(&mut self) {
        self.is_unsettled = false;
    }

    /// Whose turn it is now, in this order and for so many places each. Each of them has to take theirs, or leave; then
    /// the queue is [settled](Self::settle).
    pub(super) fn turns(&self) -> Vec<(JobId, u32)> {
        let mut turns = Vec::new();
        Free::new(self).walk(None, |_, waiter, starts| {
            if starts > 0 {
                turns.push((waiter.id.clone(), starts));
            }
        });
        turns
    }

    /// What keeps somebody new from starting at once; empty if nothing does.
    pub(super) fn lacks(&self, want: &Want, priority: i32) -> Vec<Lack> {
        let mut free = Free::new(self);
        if self.waiting > 0 {
            free.walk(Some((Reverse(priority), u64::MAX)), |_, _, _| ());
        }
        free.lacks(want)
    }

    /// Whether somebody new may start at once.
    pub(super) fn admits(&self, want: &Want, priority: i32) -> bool {
        let before = self.classes.get(want).and_then(|class| class.first_key_value());
        // Who wants the same, and is before, does not fit.
        let is_behind =
            !self.is_unsettled && before.is_some_and(|((first, _), _)| *first <= Reverse(priority));
        !is_behind
            && Free::new(self).fits(want)
            && (self.waiting == 0 || self.lacks(want, priority).is_empty())
    }

    /// What of these there is not enough of, whoever else waits for it.
    pub(super) fn lacks_now(&self, want: &Want) -> Vec<Lack> {
        Free::new(self).lacks(want)
    }

    /// How many of its group wait and are before this one.
    pub(super) fn before(&self, place: &Place) -> usize {
        let group = &place.want().group;
        let of_group = self.classes.iter().filter(|(want, _)| want.group == *group);
        of_group.map(|(_, class)| class.range(..place.key()).count()).sum()
    }

    /// Who of those that are before this one keeps aside what it wants, the first of them, if somebody does.
    pub(super) fn kept_by(&self, place: &Place) -> Option<JobId> {
        let mut free = Free::new(self);
        let want = place.want();
        let mut keeper = None;
        free.walk(Some(place.key()), |free, waiter, _| {
            if keeper.is_none() && !free.fits(want) {
                keeper = Some(waiter.id.clone());
            }
        });
        keeper
    }

    /// Whether more run than may, as far as somebody with such wants is concerned: bounds were lowered, or a store has
    /// kept what it said it could not.
    pub(super) fn is_over(&self, want: &Want, assigned: &BTreeMap<String, Vec<u32>>) -> bool {
        let Capacity { max_processes, max_memory, when_full: _, resources } = &self.capacity;
        let load = self.group(want.group.as_deref());
        let slots = load.and_then(|load| Some((load.taken, load.slots()?)));
        let exists = |(name, indices): (&String, &Vec<u32>)| {
            let total = resources.get(name).copied().unwrap_or(0);
            indices.iter().all(|index| *index < total && self.resources.holders(name, *index) < 2)
        };
        max_processes.is_some_and(|max| self.running > max.max(1))
            || max_memory.is_some_and(|max| want.memory > 0 && self.memory > max && self.memory > want.memory)
            || slots.is_some_and(|(taken, max)| taken > u64::from(max) && taken > u64::from(want.slots))
            || !assigned.iter().all(exists)
    }
}
