//! What jobs cost on their way into records: the JSON of a submit and of a listing, and the records of the stores on
//! key-value engines, in a map in memory.

mod support;

use std::cell::{Cell, LazyCell};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use criterion::{BatchSize, Criterion, Throughput};
use nodejobs_core::Status;
use nodejobs_core::filter::JobFilter;
use nodejobs_core::job::Job;
use nodejobs_core::record::JobRecord;
use nodejobs_core::spec::JobSpec;
use nodejobs_core::store::content::Check;
use nodejobs_core::store::kv::{Changes, Direction, Engine, KeyValueStore, View, Visit};
use nodejobs_core::store::{JobStore, Order, PageRequest, StoreError, StoreInfo, UnitOutcome};
use support::{criterion, jobs};

fn main() {
    let mut criterion = criterion();
    json(&mut criterion);
    commits(&mut criterion);
    reads(&mut criterion);
    criterion.final_summary();
}

fn json(criterion: &mut Criterion) {
    let spec = jobs::spec(7);
    let body = serde_json::to_vec(&spec).expect("JSON");
    criterion.bench_function("json: parse and check a submit, make its definition", |bencher| {
        bencher.iter(|| {
            let read: JobSpec = serde_json::from_slice(black_box(&body)).expect("what was written");
            read.validate().expect("valid");
            let context = serde_json::to_vec(&read.context).expect("JSON");
            let definition = jobs::plain(&read, 7);
            assert_eq!(definition.command, spec.command, "what was asked for");
            (definition, context)
        });
    });
    let definition = jobs::definition(20);
    let state = jobs::state(20, Status::Finished);
    let job = Job { seq: 1, id: jobs::id(20), revision: 3, definition, state };
    let now = jobs::moment(1_000_000);
    criterion.bench_function("json: record of a job", |bencher| {
        bencher.iter(|| {
            let text = serde_json::to_vec(&JobRecord::new(black_box(&job), now)).expect("JSON");
            assert!(text.len() > 500, "all fields");
            text
        });
    });
}

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("kv: commit to a map");
    for count in [1, 100] {
        let store = KeyValueStore::new(MapEngine::default());
        let next = Cell::new(0);
        group.throughput(Throughput::Elements(3 * count as u64));
        group.bench_function(format!("3 x {count} units"), |bencher| {
            bencher.iter_batched(
                || {
                    let first = next.replace(next.get() + count);
                    jobs::lives(first..first + count)
                },
                |lives| {
                    for units in lives {
                        let outcomes = store.commit(&units).expect("committed");
                        let applied = |outcome: &UnitOutcome| matches!(outcome, UnitOutcome::Applied { .. });
                        assert!(outcomes.len() == count && outcomes.iter().all(applied), "{outcomes:?}");
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn reads(criterion: &mut Criterion) {
    const PAGE: usize = 50;
    let store = LazyCell::new(|| {
        let store = KeyValueStore::new(MapEngine::default());
        for units in jobs::lives(0..1000) {
            store.commit(&units).expect("committed");
        }
        store
    });
    criterion.bench_function("kv: one job", |bencher| {
        bencher.iter(|| {
            let job = store.job(black_box(&jobs::id(500))).expect("read").expect("it is there");
            assert_eq!((job.seq, job.state.status), (501, Status::Finished));
            job
        });
    });
    let filter = JobFilter::default();
    let request = PageRequest { filter, order: Order::NewestFirst, after: None, limit: PAGE };
    criterion.bench_function("kv: page of 50", |bencher| {
        bencher.iter(|| {
            let page = store.jobs(black_box(&request)).expect("read");
            assert_eq!((page.jobs.len(), page.next), (PAGE, Some(951)));
            page
        });
    });
}

/// An engine that writes nothing down, and cannot take back.
#[derive(Default)]
struct MapEngine(Mutex<Map>);

#[derive(Default)]
struct Map(BTreeMap<Vec<u8>, Vec<u8>>);

impl View for Map {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let mut range = self.0.range(from.to_vec()..to.to_vec());
        while let Some((key, value)) = match direction {
            Direction::Forward => range.next(),
            Direction::Backward => range.next_back(),
        } {
            if visit(key, value)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Changes for Map {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.0.remove(key);
        Ok(())
    }
}

impl Engine for MapEngine {
    fn open(_path: &Path) -> Result<Self, StoreError> {
        Ok(Self::default())
    }

    fn read<T>(&self, read: impl FnOnce(&dyn View) -> Result<T, StoreError>) -> Result<T, StoreError> {
        read(&*self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(
        &self,
        write: impl FnOnce(&mut dyn Changes) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        write(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn check(&self, _check: &mut Check) -> Result<(), StoreError> {
        Ok(())
    }

    fn path(&self) -> &Path {
        Path::new("/")
    }

    fn info(&self) -> StoreInfo {
        StoreInfo { engine: "map".to_owned(), format: 0, path: None, shareable: false, weaker: Vec::new() }
    }
}
