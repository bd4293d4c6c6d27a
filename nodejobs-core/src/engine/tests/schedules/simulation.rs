//! A schedule in a world in which owners die, commits fail and clocks jump: after each step, every occurrence that is
//! decided ran, waits or has a record, once, and none that is not.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::store::conformance::random::Random;

const SEEDS: u64 = 150;
const STEPS: u64 = 150;

struct Simulation {
    bench: Bench,
    random: Random,
    from: i64,
    /// What was told to be launched.
    launched: BTreeSet<JobId>,
    store_fails: bool,
    /// Whether owners die.
    owners_die: bool,
    /// Which ways an occurrence went.
    reached: BTreeSet<&'static str>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random::from_seed(seed);
        let overlap = [Overlap::Skip, Overlap::Queue, Overlap::Replace][below(&mut random, 3)];
        let catch_up = match below(&mut random, 3) {
            0 => CatchUp::Skip,
            1 if overlap == Overlap::Queue => CatchUp::All(3),
            _ => CatchUp::One,
        };
        let bench = Bench::scheduled(|it| (it.overlap, it.catch_up) = (overlap, catch_up));
        let from = bench.now.wall.as_millis();
        let (launched, reached) = (BTreeSet::new(), BTreeSet::new());
        Self { bench, random, from, launched, store_fails: false, owners_die: true, reached }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..8 => {
                let most = if self.random.below(6) == 0 { 400_000 } else { 40_000 };
                let millis = self.random.below(most);
                self.bench.now.boot = self.bench.now.boot.plus_millis(millis);
                self.bench.set_wall(millis.cast_signed());
                if self.bench.engine.next_deadline().is_some_and(|at| at <= self.bench.now.boot) {
                    self.turn(Input::Tick);
                }
            }
            8..14 => self.job_goes_on(),
            14 => {
                let by = self.random.below(20_000).cast_signed() - 10_000;
                self.bench.set_wall(by);
                if self.random.below(4) > 0 {
                    self.turn(Input::ClockSet);
                }
            }
            15 => self.store_fails = !self.store_fails && self.random.below(2) == 0,
            16 => self.take_over(),
            17 => self.turn(asked(ScheduleChange::Pause)),
            18 => self.turn(asked(ScheduleChange::Resume)),
            _ if !self.is_on_grid(self.bench.now.wall) => self.turn(asked(ScheduleChange::Run)),
            _ => {}
        }
    }

    /// One turn of the owner, which may die before or after its commit.
    fn turn(&mut self, input: Input) {
        let mut turn = self.bench.engine.begin_turn();
        self.bench.engine.handle(input, self.bench.now, &mut turn);
        self.finish_turn(turn);
    }

    fn finish_turn(&mut self, turn: Turn) {
        if self.owners_die && self.random.below(40) == 0 {
            return self.take_over();
        }
        let outcomes = (!self.store_fails).then(|| self.bench.store.commit(&turn.units).expect("memory"));
        if self.owners_die && self.random.below(40) == 0 {
            return self.take_over();
        }
        let settled = self.bench.engine.settle(turn, outcomes.as_deref(), self.bench.now);
        for effect in settled.expect("nobody else writes") {
            if let Effect::Launch(attempt) = effect {
                let job = self.bench.job(attempt.id.as_str());
                assert_eq!(job.state.status, Status::Starting, "{} is launched", attempt.id);
                assert!(self.launched.insert(attempt.id.clone()), "{} is launched twice", attempt.id);
            }
        }
    }

    fn live(&self) -> Vec<Job> {
        let request =
            PageRequest { filter: Default::default(), order: Order::OldestFirst, after: None, limit: 10_000 };
        let mut jobs = self.bench.store.jobs(&request).expect("memory").jobs;
        jobs.retain(|job| !job.state.status.is_terminal());
        jobs
    }

    fn job_goes_on(&mut self) {
        let Some(job) = self.live().pop() else { return };
        if !self.launched.contains(&job.id) {
            return;
        }
        let name = job.id.as_str();
        let report = match (job.state.status, &job.state.process) {
            (Status::Starting, _) | (Status::Stopping, None) => self.bench.started(name),
            _ if job.state.ended.is_some() => tree_ended(name, false, Vec::new()),
            _ => self.bench.exited(name, i32::try_from(self.random.below(2)).unwrap_or(0), false),
        };
        self.turn(report);
    }

    fn take_over(&mut self) {
        self.store_fails = false;
        let _ = self.bench.succeed();
        let stored = self.bench.stored().map(known).into_iter().collect();
        self.bench.engine.restore_schedules(stored, self.bench.now);
        let mut turn = self.bench.engine.begin_turn();
        for job in self.live() {
            if !self.launched.contains(&job.id) && job.state.status == Status::Starting {
                let never = report(job.id.as_str(), 1, BackendEvent::NeverLaunched);
                self.bench.engine.handle(never, self.bench.now, &mut turn);
            }
            // Nobody has told it to end, or it was not heard.
            if job.state.status == Status::Stopping && !self.launched.contains(&job.id) {
                let never = report(job.id.as_str(), 1, BackendEvent::NeverLaunched);
                self.bench.engine.handle(never, self.bench.now, &mut turn);
            }
        }
        self.bench.engine.resume(self.bench.now, &mut turn);
        self.finish_turn(turn);
    }

    fn is_on_grid(&self, due: Timestamp) -> bool {
        (due.as_millis() - self.from) % MINUTE.cast_signed() == 0
    }

    /// Every occurrence up to the one that was decided last is there once.
    fn check(&mut self) {
        let stored = self.bench.stored().expect("a schedule");
        let mut found: BTreeMap<i64, u32> = BTreeMap::new();
        let minute = |due: Timestamp| (due.as_millis() - self.from) / MINUTE.cast_signed();
        stored.waiting.iter().for_each(|due| *found.entry(minute(*due)).or_default() += 1);
        let request =
            PageRequest { filter: Default::default(), order: Order::OldestFirst, after: None, limit: 10_000 };
        let jobs = self.bench.store.jobs(&request).expect("memory").jobs;
        for job in &jobs {
            let Some(Origin::Schedule { due, .. }) = job.definition.origin else { panic!("{job:?}") };
            let last = minute(due);
            let detail = job.state.detail.clone().unwrap_or_default();
            if !self.is_on_grid(due) {
                self.reached.insert("by hand");
                continue;
            }
            let is_record = job.state.reason == Some(Reason::Schedule) && detail.contains("occurrence");
            let count = match detail.split_once(" occurrence") {
                Some((count, _)) if is_record && job.state.started.is_none() => count.parse().unwrap_or(1),
                _ => 1,
            };
            self.reached.insert(match &detail {
                _ if !is_record => "ran",
                detail if detail.contains("paused") => "paused",
                detail if detail.contains("missed") => "missed",
                detail if detail.contains("has not ended") => "overlapped",
                detail if detail.contains("before it could start") => "replaced",
                _ => "otherwise",
            });
            for minute in last - count + 1..=last {
                *found.entry(minute).or_default() += 1;
            }
        }
        let decided = minute(stored.decided_until);
        let expected: BTreeMap<i64, u32> = (1..=decided).map(|minute| (minute, 1)).collect();
        assert_eq!(found, expected, "decided until {decided}");
        let live = jobs.iter().filter(|job| !job.state.status.is_terminal()).count();
        assert!(live <= 1, "{live} live at a time");
    }

    /// Nothing goes wrong any more: everything due is decided, and nothing waits.
    fn finish(&mut self) {
        (self.store_fails, self.owners_die) = (false, false);
        self.take_over();
        self.turn(asked(ScheduleChange::Resume));
        for _ in 0..400 {
            if self.live().is_empty() {
                break;
            }
            if self.bench.engine.next_deadline().is_some_and(|at| at <= self.bench.now.boot) {
                self.turn(Input::Tick);
            }
            self.job_goes_on();
        }
        self.check();
        let stored = self.bench.stored().expect("a schedule");
        let is_idle = self.live().is_empty() && stored.waiting.is_empty();
        assert!(is_idle, "{:?} {stored:?}", self.live());
        let late = self.bench.now.wall.as_millis() - stored.decided_until.as_millis();
        assert!(stored.is_paused || late < MINUTE.cast_signed(), "{late} ms are not decided");
    }
}

fn below(random: &mut Random, end: u64) -> usize {
    usize::try_from(random.below(end)).unwrap_or(0)
}

#[test]
fn every_occurrence_is_decided_once_whoever_dies() {
    let mut reached = BTreeSet::new();
    for seed in 0..SEEDS {
        let caught = std::panic::catch_unwind(|| {
            let mut simulation = Simulation::new(seed);
            for _ in 0..STEPS {
                simulation.step();
                simulation.check();
            }
            simulation.finish();
            simulation.reached
        });
        reached.extend(caught.unwrap_or_else(|_| panic!("seed {seed}")));
    }
    // What no run comes to is not checked.
    let all = ["by hand", "missed", "overlapped", "paused", "ran", "replaced"];
    assert_eq!(reached, BTreeSet::from(all));
}
