//! The queue against a list that is searched for who may run next.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::store::conformance::random::Random;

/// A job as the list has it.
#[derive(Clone, Debug)]
struct Entry {
    id: u64,
    want: Want,
    priority: i32,
    /// Its place in the order of waiting.
    order: u64,
    runs: bool,
    /// Which of each resource it has.
    assigned: BTreeMap<String, Vec<u32>>,
}

/// What the queue should be: everything in one list, and nothing remembered.
#[derive(Clone, Debug, Default)]
struct Model {
    entries: Vec<Entry>,
    groups: BTreeMap<String, Group>,
    capacity: Capacity,
}

impl Model {
    fn group(&self, want: &Want) -> Group {
        self.groups.get(want.group.as_deref().unwrap_or("")).copied().unwrap_or_default()
    }

    /// Whether this one fits beside those that run and what is kept for others.
    fn fits(&self, want: &Want, aside: &[Entry], closed: &BTreeSet<String>) -> bool {
        let running: Vec<&Entry> = self.entries.iter().filter(|entry| entry.runs).collect();
        let beside = || running.iter().copied().chain(aside);
        let in_group = || beside().filter(|entry| entry.want.group == want.group);
        let group = self.group(want);
        let slots: u32 = in_group().map(|entry| entry.want.slots).sum();
        let memory: u64 = beside().map(|entry| entry.want.memory).sum();
        let is_closed = |what: &str| closed.contains(what);
        let group_name = format!("group {:?}", want.group);
        let fits_group = group
            .slots
            .is_none_or(|max| !is_closed(&group_name) && (slots == 0 || slots + want.slots <= max));
        let fits_memory = want.memory == 0
            || self
                .capacity
                .max_memory
                .is_none_or(|max| !is_closed("memory") && (memory == 0 || memory + want.memory <= max));
        // Places of the machine are not kept for anybody.
        let runs = running.len() + aside.iter().filter(|entry| entry.runs).count();
        let fits_machine = self.capacity.max_processes.is_none_or(|max| runs < max as usize);
        let fits_needs = want.needs.iter().all(|(name, count)| {
            let total = self.capacity.resources.get(name).copied().unwrap_or(0);
            let kept: u32 = aside.iter().filter_map(|entry| entry.want.needs.get(name)).sum();
            let indices = running.iter().filter_map(|entry| entry.assigned.get(name)).flatten();
            // There may have been more once.
            let used = indices.filter(|index| **index < total).count();
            !is_closed(name) && used + (kept + count) as usize <= total as usize
        });
        !group.paused && fits_group && fits_memory && fits_machine && fits_needs
    }

    /// Who may start now, in this order.
    fn turns(&self) -> Vec<u64> {
        let mut waiting: Vec<&Entry> = self.entries.iter().filter(|entry| !entry.runs).collect();
        waiting.sort_by_key(|entry| (Reverse(entry.priority), entry.order));
        let (mut started, mut aside, mut closed) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut passed: Vec<&Want> = Vec::new();
        for entry in waiting {
            if passed.contains(&&entry.want) {
                continue;
            }
            if self.fits(&entry.want, &aside, &closed) {
                aside.push(Entry { runs: true, ..entry.clone() });
                started.push(entry.id);
                continue;
            }
            passed.push(&entry.want);
            let exists = |(name, count): (&String, &u32)| {
                self.capacity.resources.get(name).is_some_and(|total| count <= total)
            };
            if self.group(&entry.want).paused || !entry.want.needs.iter().all(exists) {
                continue;
            }
            // Each thing that it wants is put aside, or closed, by itself.
            let nothing = Want { group: None, slots: 0, memory: 0, needs: BTreeMap::new() };
            let (group, slots) = (entry.want.group.clone(), entry.want.slots);
            let name = format!("group {group:?}");
            let mut parts = vec![
                (name, Want { group, slots, ..nothing.clone() }),
                ("memory".to_owned(), nothing.clone()),
            ];
            parts[1].1.memory = entry.want.memory;
            for (name, count) in &entry.want.needs {
                let needs = BTreeMap::from([(name.clone(), *count)]);
                parts.push((name.clone(), Want { needs, ..nothing.clone() }));
            }
            let unbounded =
                Self { capacity: Capacity { max_processes: None, ..self.capacity.clone() }, ..self.clone() };
            for (name, part) in parts {
                let is_of_default = name != "group None" && part.group.is_none();
                // What wants nothing of the default group is not to be judged by it.
                let mut world = unbounded.clone();
                if is_of_default {
                    world.groups.remove("");
                }
                if world.fits(&part, &aside, &closed) {
                    aside.push(Entry { want: part, runs: false, ..entry.clone() });
                } else {
                    closed.insert(name);
                }
            }
        }
        started
    }
}

fn any_want(random: &mut Random) -> Want {
    let small = |random: &mut Random, bound| u32::try_from(1 + random.below(bound)).expect("small");
    let group = [None, None, Some("a"), Some("b")][usize::try_from(random.below(4)).expect("small")];
    let needs = match random.below(4) {
        0 => vec![("gpu", small(random, 3))],
        1 => vec![("gpu", small(random, 2)), ("license", 1)],
        _ => Vec::new(),
    };
    Want {
        group: group.map(str::to_owned),
        slots: small(random, 3),
        memory: if random.below(3) == 0 { 1 + random.below(6) } else { 0 },
        needs: needs.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
    }
}

fn any_capacity(random: &mut Random) -> Capacity {
    let bound = |random: &mut Random, bound| u32::try_from(random.below(bound)).expect("small");
    Capacity {
        max_processes: Some(1 + bound(random, 6)).filter(|max| *max < 6),
        max_memory: Some(1 + random.below(12)).filter(|max| *max < 10),
        when_full: WhenFull::Queue,
        resources: [("gpu".to_owned(), bound(random, 4)), ("license".to_owned(), bound(random, 3))].into(),
    }
}

fn id(number: u64) -> JobId {
    JobId::new(&format!("j{number}")).expect("valid")
}

/// Both, side by side.
struct Both {
    queue: Queue,
    model: Model,
    places: BTreeMap<u64, (Place, BTreeMap<String, Vec<u32>>)>,
    last: u64,
}

impl Both {
    fn new() -> Self {
        Self { queue: Queue::default(), model: Model::default(), places: BTreeMap::new(), last: 0 }
    }

    fn comes(&mut self, want: &Want, priority: i32) {
        self.last += 1;
        let number = self.last;
        let mut place = Place::with(want.clone(), priority);
        let entry = Entry {
            id: number,
            want: want.clone(),
            priority,
            order: number,
            runs: false,
            assigned: BTreeMap::new(),
        };
        self.model.entries.push(entry);
        let is_admitted = self.queue.admits(want, priority);
        assert_eq!(is_admitted, self.queue.lacks(want, priority).is_empty(), "{want:?}");
        assert_eq!(is_admitted, self.model.turns() == [number], "{want:?} of {:?}", self.model);
        if is_admitted {
            let assigned = self.queue.take(&mut place);
            self.starts(number, &assigned);
            self.places.insert(number, (place, assigned));
        } else {
            self.queue.wait(&id(number), &mut place, 1);
            self.places.insert(number, (place, BTreeMap::new()));
        }
    }

    fn starts(&mut self, number: u64, assigned: &BTreeMap<String, Vec<u32>>) {
        let entry = self.model.entries.iter_mut().find(|entry| entry.id == number).expect("it is known");
        (entry.runs, entry.assigned) = (true, assigned.clone());
    }

    fn goes(&mut self, number: u64) {
        if let Some((mut place, assigned)) = self.places.remove(&number) {
            self.queue.leave(&mut place, &assigned);
        }
        self.model.entries.retain(|entry| entry.id != number);
    }

    fn set_group(&mut self, name: &str, group: Group) {
        self.queue.set_group(Some(name).filter(|name| !name.is_empty()), Some(group));
        self.model.groups.insert(name.to_owned(), group);
    }

    /// Lets those start whose turn it is, and says who they are.
    fn fill(&mut self) -> Vec<u64> {
        let expected = self.model.turns();
        let turns: Vec<u64> = match self.queue.is_unsettled() {
            true => {
                self.queue.turns().iter().map(|(id, _)| id.as_str()[1..].parse().expect("a number")).collect()
            }
            false => Vec::new(),
        };
        assert_eq!(turns, expected, "{:?}", self.model);
        for number in &turns {
            let (place, assigned) = self.places.get_mut(number).expect("it waits");
            *assigned = self.queue.take(place);
            let assigned = assigned.clone();
            self.starts(*number, &assigned);
        }
        self.queue.settle();
        assert_eq!(self.model.turns(), [0; 0], "whoever may start has started");
        turns
    }

    /// The sums are right, and nobody has what another one has.
    fn check(&self) {
        let running: Vec<&Entry> = self.model.entries.iter().filter(|entry| entry.runs).collect();
        assert_eq!(self.queue.running() as usize, running.len());
        assert_eq!(self.queue.memory(), running.iter().map(|entry| entry.want.memory).sum::<u64>());
        let waiting = self.queue.groups().map(|(_, load)| load.waiting).sum::<u32>();
        let waiting = waiting + self.queue.group(None).expect("the default group").waiting;
        assert_eq!(waiting as usize, self.model.entries.len() - running.len());
        let mut seen = BTreeSet::new();
        for entry in running {
            let (_, assigned) = &self.places[&entry.id];
            for (name, count) in &entry.want.needs {
                assert_eq!(assigned[name].len(), *count as usize, "{entry:?}");
                assert!(
                    assigned[name].iter().all(|index| seen.insert((name.clone(), *index))),
                    "{assigned:?}"
                );
            }
        }
    }
}

#[test]
fn it_does_what_a_search_of_a_list_would() {
    let mut random = Random::new();
    let mut most = 0;
    for _ in 0..150 {
        let mut both = Both::new();
        for _ in 0..120 {
            match random.below(20) {
                0..10 => {
                    let priority = i32::try_from(random.below(3)).expect("small");
                    both.comes(&any_want(&mut random), priority);
                }
                10..16 => {
                    let present: Vec<u64> = both.places.keys().copied().collect();
                    if !present.is_empty() {
                        let bound = u64::try_from(present.len()).expect("small");
                        both.goes(present[usize::try_from(random.below(bound)).expect("small")]);
                    }
                }
                16 => {
                    let capacity = any_capacity(&mut random);
                    both.queue.set_capacity(capacity.clone());
                    both.model.capacity = capacity;
                }
                _ => {
                    let name = ["", "a", "b"][usize::try_from(random.below(3)).expect("small")];
                    let slots = u32::try_from(1 + random.below(5)).expect("small");
                    let slots = Some(slots).filter(|slots| *slots < 5);
                    both.set_group(name, Group { slots, paused: random.below(4) == 0 });
                }
            }
            most = most.max(both.fill().len());
            both.check();
        }
        let all: Vec<u64> = both.places.keys().copied().collect();
        all.into_iter().for_each(|number| both.goes(number));
        assert_eq!((both.queue.running(), both.queue.classes.len()), (0, 0));
    }
    assert!(most > 2, "several start at a time");
}

fn light(group: &str) -> Want {
    Want { group: Some(group.to_owned()), slots: 1, memory: 0, needs: BTreeMap::new() }
}

#[test]
fn light_ones_do_not_starve_a_heavy_one() {
    let mut both = Both::new();
    both.set_group("a", Group { slots: Some(4), paused: false });
    for _ in 0..4 {
        both.comes(&light("a"), 0);
    }
    let heavy = both.last + 1;
    both.comes(&Want { slots: 4, ..light("a") }, 0);
    // However many light ones come: as those that run end, nobody else starts before it.
    for number in 1..=4 {
        for _ in 0..10 {
            both.comes(&light("a"), 0);
        }
        assert_eq!(both.fill(), [0; 0]);
        both.goes(number);
    }
    assert_eq!(both.fill(), [heavy]);
    both.goes(heavy);
    assert_eq!(both.fill(), [heavy + 1, heavy + 2, heavy + 3, heavy + 4]);
}

#[test]
fn a_heavy_one_does_not_keep_other_groups_from_the_machine() {
    let mut both = Both::new();
    let capacity = Capacity { max_processes: Some(2), ..Capacity::default() };
    both.queue.set_capacity(capacity.clone());
    both.model.capacity = capacity;
    both.set_group("a", Group { slots: Some(1), paused: false });
    both.comes(&light("a"), 0);
    both.comes(&light("a"), 5);
    both.comes(&light("b"), 0);
    assert_eq!(both.queue.running(), 2, "who waits for its group takes nothing of the machine");
    both.comes(&light("b"), 0);
    both.goes(1);
    assert_eq!(both.fill(), [2], "and is the next");
}

#[test]
fn what_waits_for_more_than_there_is_keeps_nobody_back() {
    let mut both = Both::new();
    let gpus = |count| Want { needs: [("gpu".to_owned(), count)].into(), ..light("a") };
    both.queue.set_capacity(Capacity { resources: [("gpu".to_owned(), 2)].into(), ..Capacity::default() });
    both.model.capacity = both.queue.capacity().clone();
    both.comes(&gpus(3), 9);
    both.comes(&gpus(2), 0);
    assert_eq!(both.queue.running(), 1);
    both.comes(&gpus(1), 0);
    both.goes(2);
    assert_eq!(both.fill(), [3]);
    both.check();
}

/// Measured by hand: `cargo test --release -p nodejobs-core --lib a_long_queue -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn a_long_queue_costs_no_more_than_a_short_one() {
    for waiting in [1_000, 100_000] {
        let mut queue = Queue::new(Capacity { max_processes: Some(3), ..Capacity::default() });
        let mut places: BTreeMap<u64, Place> = BTreeMap::new();
        let mut running = Vec::new();
        for number in 0..waiting {
            let group = ["a", "b", "c"][usize::try_from(number % 3).expect("small")];
            let mut place = Place::with(light(group), i32::try_from(number % 5).expect("small"));
            if queue.admits(place.want(), place.priority) {
                queue.take(&mut place);
                running.push(place);
            } else {
                queue.wait(&id(number), &mut place, 1);
                places.insert(number, place);
            }
        }
        let begin = std::time::Instant::now();
        let rounds = 500;
        for _ in 0..rounds {
            let mut ended = running.remove(0);
            queue.leave(&mut ended, &BTreeMap::new());
            for (id, _) in queue.turns() {
                let mut place =
                    places.remove(&id.as_str()[1..].parse().expect("a number")).expect("it waits");
                queue.take(&mut place);
                running.push(place);
            }
            queue.settle();
        }
        println!("{waiting} wait: {:?} from an end to the next start", begin.elapsed() / rounds);
    }
}
