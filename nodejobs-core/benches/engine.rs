//! What a decision of the engine costs: the lives of jobs, without a store and without processes.

mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};

use criterion::{BatchSize, Criterion, Throughput};
use nodejobs_core::backend::{BackendEvent, BackendReport, Receipt};
use nodejobs_core::engine::{Answer, Capacity, Effect, Engine, Input, Submission, Turn};
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::ExitStatus;
use nodejobs_core::logs::LogStart;
use nodejobs_core::spec::JobSpec;
use nodejobs_core::store::UnitOutcome;
use support::{criterion, jobs, many};

fn main() {
    let mut criterion = criterion();
    lives(&mut criterion, "engine: life of one job", 1);
    lives(&mut criterion, "engine: lives of 1,000 jobs", 1000);
    queue(&mut criterion, "engine: next of 100,000 waiting", many(100_000));
    restore(&mut criterion, "engine: take over 1,000 jobs", 1000);
    criterion.final_summary();
}

/// An engine with a store that takes everything.
struct Owner {
    engine: Engine,
    events: u64,
    time: usize,
    /// In the order in which they were launched.
    launched: VecDeque<AttemptId>,
    accepted: usize,
}

impl Owner {
    fn new(capacity: Capacity) -> Self {
        let engine = Engine::with_capacity(7, capacity);
        Self { engine, events: 0, time: 1_000_000, launched: VecDeque::new(), accepted: 0 }
    }

    /// One turn of the owner's loop, with a commit that costs nothing.
    fn turn(&mut self, inputs: impl IntoIterator<Item = Input>) {
        self.time += 1;
        let now = jobs::moment(self.time);
        let mut turn = self.engine.begin_turn();
        for input in inputs {
            self.engine.handle(input, now, &mut turn);
        }
        self.settle(turn);
    }

    fn settle(&mut self, turn: Turn) {
        let outcomes: Vec<_> = turn
            .units
            .iter()
            .map(|_| {
                self.events += 1;
                UnitOutcome::Applied { seq: 1, event: self.events }
            })
            .collect();
        let now = jobs::moment(self.time);
        for effect in self.engine.settle(turn, Some(&outcomes), now).expect("consistent") {
            match effect {
                Effect::Launch(attempt) => self.launched.push_back(attempt),
                Effect::Reply { answer: Answer::Accepted(_), .. } => self.accepted += 1,
                Effect::Acknowledge(_) => {}
                other => panic!("nothing else follows: {other:?}"),
            }
        }
    }

    fn started(&self, attempt: AttemptId) -> Input {
        let at = jobs::moment(self.time);
        let process = jobs::process(self.time);
        report(attempt, BackendEvent::Started { process, log_start: LogStart::default(), at })
    }

    fn exited(&self, attempt: AttemptId) -> Input {
        let (exit, usage, at) = (ExitStatus::Code(0), Some(jobs::USAGE), jobs::moment(self.time));
        report(attempt, BackendEvent::Exited { exit, usage, at, leftovers: Some(Vec::new()) })
    }

    /// From the submit to the end, each step of all of them in one turn.
    fn live(&mut self, submissions: Vec<Input>) {
        let (before, events) = (self.accepted, self.events);
        let count = submissions.len();
        self.turn(submissions);
        let attempts: Vec<_> = self.launched.drain(..).collect();
        let started: Vec<_> = attempts.iter().map(|attempt| self.started(attempt.clone())).collect();
        self.turn(started);
        let exited: Vec<_> = attempts.into_iter().map(|attempt| self.exited(attempt)).collect();
        self.turn(exited);
        assert_eq!((self.accepted - before, self.engine.live_jobs()), (count, 0), "not all have lived");
        assert_eq!(self.events - events, 3 * count as u64, "starting, running, finished");
    }
}

fn report(attempt: AttemptId, event: BackendEvent) -> Input {
    let receipt = Some(Receipt { source: "keeper-1".to_owned(), position: 7 });
    Input::Report(BackendReport { attempt, event, receipt })
}

fn submission(spec: &JobSpec, context: &[u8], number: usize) -> Input {
    Input::Submit(Box::new(Submission {
        ticket: number as u64,
        id: None,
        definition: jobs::plain(spec, number),
        context: context.to_vec(),
        input: None,
        existing: None,
        ended: BTreeMap::new(),
        unique: None,
        array: None,
    }))
}

fn lives(criterion: &mut Criterion, name: &str, count: usize) {
    let spec = jobs::spec(0);
    let context = serde_json::to_vec(&spec.context).expect("JSON");
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("submit, start, exit", |bencher| {
        let mut owner = Owner::new(Capacity::default());
        bencher.iter_batched(
            || (0..count).map(|number| submission(&spec, &context, number)).collect::<Vec<_>>(),
            |submissions| owner.live(submissions),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// One of 64 that run ends, the next one starts, and one more is submitted.
fn queue(criterion: &mut Criterion, name: &str, waiting: usize) {
    const PLACES: usize = 64;
    let spec = jobs::spec(0);
    let context = serde_json::to_vec(&spec.context).expect("JSON");
    let filled = RefCell::new(None);
    criterion.bench_function(name, |bencher| {
        let mut filled = filled.borrow_mut();
        let owner = filled.get_or_insert_with(|| {
            let places = u32::try_from(PLACES).ok();
            let mut owner = Owner::new(Capacity { max_processes: places, ..Capacity::default() });
            for number in 0..PLACES + waiting {
                owner.turn([submission(&spec, &context, number)]);
            }
            let running: Vec<_> = owner.launched.iter().cloned().collect();
            let started: Vec<_> = running.into_iter().map(|attempt| owner.started(attempt)).collect();
            owner.turn(started);
            owner
        });
        bencher.iter_batched(
            || submission(&spec, &context, 1),
            |next| {
                let first = owner.launched.pop_front().expect("somebody runs");
                let exited = owner.exited(first);
                owner.turn([exited, next]);
                let started = owner.started(owner.launched.back().expect("somebody runs").clone());
                owner.turn([started]);
                assert_eq!(owner.launched.len(), PLACES, "the next one was started");
                assert_eq!(owner.engine.live_jobs(), PLACES + waiting, "as many wait as before");
            },
            BatchSize::SmallInput,
        );
    });
}

/// What an owner does with the live jobs of the one before.
fn restore(criterion: &mut Criterion, name: &str, count: usize) {
    use nodejobs_core::job::Job;
    use nodejobs_core::status::Status;

    let running: Vec<_> = (0..count)
        .map(|number| Job {
            seq: number as u64 + 1,
            id: jobs::id(number),
            revision: 2,
            definition: jobs::definition(number),
            state: jobs::state(number, Status::Running),
        })
        .collect();
    criterion.bench_function(name, |bencher| {
        bencher.iter_batched(
            || running.clone(),
            |running| {
                let mut engine = Engine::new(8);
                let known = engine.restore(running, HashMap::new(), 0, jobs::moment(1_000_000));
                assert_eq!((known.len(), engine.live_jobs()), (count, count), "all of them");
            },
            BatchSize::SmallInput,
        );
    });
}
