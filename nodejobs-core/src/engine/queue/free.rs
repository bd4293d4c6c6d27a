//! What is free, as far as those allow who have waited for longer.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, btree_map};

use super::{Key, Load, Queue, Waiter, Want};

/// Something of which there is not enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Lack {
    /// Its group is halted.
    Paused,
    /// Slots of its group.
    Slots,
    /// Places of the machine.
    Processes,
    /// Memory of the machine, by the limits of jobs.
    Memory,
    /// This named resource.
    Resource(String),
}

/// So much of something is taken, or put aside, of so much as there is.
#[derive(Clone, Copy)]
struct Left {
    taken: u64,
    max: Option<u64>,
    is_closed: bool,
}

impl Left {
    fn new(taken: u64, max: Option<u64>) -> Self {
        Self { taken, max, is_closed: false }
    }

    fn fits(&self, want: u64) -> bool {
        let fits = |max| !self.is_closed && self.taken.saturating_add(want) <= max;
        want == 0 || self.max.is_none_or(fits)
    }

    /// Alone, also somebody may start who wants more than there is: the bound may have been lowered since it was accepted.
    fn fits_or_is_alone(&self, want: u64) -> bool {
        self.fits(want) || (self.taken == 0 && !self.is_closed)
    }

    fn put_aside(&mut self, want: u64, fits: bool) {
        if fits {
            self.taken = self.taken.saturating_add(want);
        } else {
            self.is_closed = true;
        }
    }
}

/// What is free for whoever comes next.
pub(super) struct Free<'q> {
    queue: &'q Queue,
    processes: Left,
    memory: Left,
    slots: HashMap<Option<&'q str>, Left>,
    resources: HashMap<&'q str, Left>,
}

impl<'q> Free<'q> {
    /// All that nobody has.
    pub(super) fn new(queue: &'q Queue) -> Self {
        let max = queue.capacity.max_processes.map(|max| u64::from(max.max(1)));
        Self {
            queue,
            processes: Left::new(u64::from(queue.running), max),
            memory: Left::new(queue.memory, queue.capacity.max_memory),
            slots: HashMap::new(),
            resources: HashMap::new(),
        }
    }

    fn load(&self, group: Option<&str>) -> Load {
        self.queue.group(group).copied().unwrap_or_default()
    }

    fn slots(&self, group: Option<&str>) -> Left {
        let untouched = || {
            let load = self.load(group);
            Left::new(load.taken, load.slots().map(u64::from))
        };
        self.slots.get(&group).copied().unwrap_or_else(untouched)
    }

    /// How many there are of a resource.
    fn total(&self, name: &str) -> u32 {
        self.queue.capacity.resources.get(name).copied().unwrap_or(0)
    }

    fn resource(&self, name: &str) -> Left {
        let untouched = || {
            let total = self.total(name);
            Left::new(u64::from(self.queue.resources.used(name, total)), Some(u64::from(total)))
        };
        self.resources.get(name).copied().unwrap_or_else(untouched)
    }

    /// Whether there is all that is wanted.
    pub(super) fn fits(&self, want: &Want) -> bool {
        let group = want.group.as_deref();
        self.processes.fits(1)
            && !self.load(group).is_paused()
            && self.memory.fits_or_is_alone(want.memory)
            && self.slots(group).fits_or_is_alone(u64::from(want.slots))
            && want.needs.iter().all(|(name, count)| self.resource(name).fits(u64::from(*count)))
    }

    /// All of what is wanted that there is not enough of.
    pub(super) fn lacks(&self, want: &Want) -> Vec<Lack> {
        let group = want.group.as_deref();
        let lacks_slots = !self.slots(group).fits_or_is_alone(u64::from(want.slots));
        let lack_resource = |(name, count): (&String, &u32)| {
            (!self.resource(name).fits(u64::from(*count))).then(|| Lack::Resource(name.clone()))
        };
        let lacks = [
            self.load(group).is_paused().then_some(Lack::Paused),
            lacks_slots.then_some(Lack::Slots),
            (!self.processes.fits(1)).then_some(Lack::Processes),
            (!self.memory.fits_or_is_alone(want.memory)).then_some(Lack::Memory),
        ];
        lacks.into_iter().flatten().chain(want.needs.iter().filter_map(lack_resource)).collect()
    }

    /// Takes what is wanted and there, and closes what is wanted and not.
    fn put_aside(&mut self, want: &'q Want, starts: bool) {
        let group = want.group.as_deref();
        if starts {
            self.processes.put_aside(1, true);
        }
        self.memory.put_aside(want.memory, self.memory.fits_or_is_alone(want.memory));
        let (mut slots, count) = (self.slots(group), u64::from(want.slots));
        slots.put_aside(count, slots.fits_or_is_alone(count));
        self.slots.insert(group, slots);
        for (name, count) in &want.needs {
            let (mut left, count) = (self.resource(name), u64::from(*count));
            left.put_aside(count, left.fits(count));
            self.resources.insert(name, left);
        }
    }

    /// Whether it could start at some time, as things are set.
    fn is_possible(&self, want: &Want) -> bool {
        let exists = |(name, count): (&String, &u32)| *count <= self.total(name);
        !self.load(want.group.as_deref()).is_paused() && want.needs.iter().all(exists)
    }

    /// Goes through those who wait, up to this one, and shows of each what it leaves and how often it may start. What is
    /// free afterwards is so for whoever is behind them.
    pub(super) fn walk(&mut self, until: Option<Key>, mut look: impl FnMut(&Self, &Waiter, u32)) {
        let mut heads = Heads::new(self.queue, until);
        while let Some((want, waiter)) = heads.first() {
            if !self.processes.fits(1) {
                // Nobody can start.
                return;
            }
            let mut starts = 0;
            while starts < waiter.starts && self.fits(want) {
                self.put_aside(want, true);
                starts += 1;
            }
            if starts == waiter.starts {
                heads.next_of_class();
            } else {
                // Whoever cannot start at all keeps nobody else from it.
                if self.is_possible(want) {
                    self.put_aside(want, false);
                }
                heads.drop_class();
            }
            look(self, waiter, starts);
        }
    }
}

/// The first of each class that is still of interest, the first of all of them first.
struct Heads<'q> {
    classes: Vec<(&'q Want, btree_map::Range<'q, Key, Waiter>)>,
    heap: BinaryHeap<Reverse<(Key, usize)>>,
    waiters: Vec<Option<&'q Waiter>>,
}

impl<'q> Heads<'q> {
    fn new(queue: &'q Queue, until: Option<Key>) -> Self {
        let mut heads = Self { classes: Vec::new(), heap: BinaryHeap::new(), waiters: Vec::new() };
        for (want, class) in &queue.classes {
            let range = match until {
                Some(until) => class.range(..until),
                None => class.range(..),
            };
            heads.classes.push((want, range));
            heads.waiters.push(None);
            heads.push(heads.classes.len() - 1);
        }
        heads
    }

    fn push(&mut self, class: usize) {
        if let Some((key, waiter)) = self.classes[class].1.next() {
            self.waiters[class] = Some(waiter);
            self.heap.push(Reverse((*key, class)));
        }
    }

    fn first(&self) -> Option<(&'q Want, &'q Waiter)> {
        let Reverse((_, class)) = self.heap.peek()?;
        Some((self.classes[*class].0, self.waiters[*class]?))
    }

    /// The first of them is through, and the next of its class comes.
    fn next_of_class(&mut self) {
        if let Some(Reverse((_, class))) = self.heap.pop() {
            self.push(class);
        }
    }

    /// No one of the class of the first can start.
    fn drop_class(&mut self) {
        self.heap.pop();
    }
}
