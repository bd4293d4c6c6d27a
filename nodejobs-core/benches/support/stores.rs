//! What is measured of every store on disk: `commit` beside the floor, pages, and filters.

use std::cell::{Cell, LazyCell};
use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput};
use nodejobs_core::Status;
use nodejobs_core::filter::JobFilter;
use nodejobs_core::job::Job;
use nodejobs_core::store::{JobStore, Order, Page, PageRequest, UnitOutcome};

use super::support::{criterion, jobs, many};

/// A condition, how many jobs meet it, and whether one does.
type Row = (&'static str, &'static str, usize, fn(&Job) -> bool);
type Open = fn(&Path) -> Box<dyn JobStore>;

const RECORDS: usize = 100_000;
const PAGE: usize = 50;
/// Every so many jobs one has failed.
const FAILED: usize = 1000;
/// So many have not ended.
const RUNNING: usize = 20;

/// `directory` is on a disk: what the system has for temporary files may be in memory.
pub(crate) fn measure(name: &str, open: Open, directory: &Path) {
    let mut criterion = criterion();
    std::fs::create_dir_all(directory).expect("a directory");
    let directory = tempfile::tempdir_in(directory).expect("a directory");
    floor(&mut criterion, name, directory.path());
    commits(&mut criterion, name, open, directory.path());
    reads(&mut criterion, name, open, directory.path());
    criterion.final_summary();
}

/// What a store on this disk cannot be faster than, three times: as often as a job's life is committed.
fn floor(criterion: &mut Criterion, name: &str, directory: &Path) {
    let mut file = File::create(directory.join("floor")).expect("a file");
    let mut group = criterion.benchmark_group(format!("{name}: commit"));
    for count in [1, 100] {
        let records = vec![b'x'; 600 * count];
        group.throughput(Throughput::Elements(3 * count as u64));
        group.bench_function(
            format!("floor: 3 x append of {} bytes + fdatasync", records.len()),
            |bencher| {
                bencher.iter(|| {
                    for _ in 0..3 {
                        file.write_all(&records).expect("written");
                        file.sync_data().expect("synced");
                    }
                });
            },
        );
    }
    group.finish();
}

fn commits(criterion: &mut Criterion, name: &str, open: Open, directory: &Path) {
    let store = LazyCell::new(|| open(&directory.join("commits")));
    let next = Cell::new(0);
    let mut group = criterion.benchmark_group(format!("{name}: commit"));
    for count in [1, 100] {
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

fn reads(criterion: &mut Criterion, name: &str, open: Open, directory: &Path) {
    let records = many(RECORDS);
    let store = LazyCell::new(|| {
        let store = open(&directory.join("reads"));
        fill(&*store, records);
        store
    });
    let mut group = criterion.benchmark_group(format!("{name}: {records} records"));
    group.bench_function("one job", |bencher| {
        bencher.iter(|| {
            let job = store.job(black_box(&jobs::id(records / 2))).expect("read").expect("it is there");
            assert_eq!(job.seq, records as u64 / 2 + 1);
            job
        });
    });
    let rows: [Row; 6] = [
        ("", "", records, |_| true),
        ("status", "running", RUNNING, |job| job.state.status == Status::Running),
        ("status", "failed", records / FAILED, |job| job.state.status == Status::Failed),
        ("status", "finished", records, |job| job.state.status == Status::Finished),
        ("name", "name-7", (records / 10).div_ceil(jobs::NAMES), |job| {
            job.definition.name.as_deref() == Some("name-7")
        }),
        ("label", "project=p7", records / jobs::PROJECTS / 5, |job| {
            job.definition.labels.get("project").is_some_and(|value| value == "p7")
        }),
    ];
    for (key, value, there, is_wanted) in rows {
        let what = if key.is_empty() { "any".to_owned() } else { format!("{key} {value}") };
        let mut filter = JobFilter::default();
        if !key.is_empty() {
            filter.set(key, value).expect("a filter");
        }
        let request = PageRequest { filter, order: Order::NewestFirst, after: None, limit: PAGE };
        let there = there.min(PAGE);
        group.bench_function(format!("newest {there}, {what}"), |bencher| {
            bencher.iter(|| {
                let Page { jobs, .. } = store.jobs(black_box(&request)).expect("read");
                assert!(jobs.len() == there && jobs.iter().all(is_wanted), "{} instead", jobs.len());
                jobs
            });
        });
    }
    group.finish();
}

fn status(number: usize, records: usize) -> Status {
    if number + RUNNING >= records {
        Status::Running
    } else if number.is_multiple_of(FAILED) {
        Status::Failed
    } else {
        Status::Finished
    }
}

fn fill(store: &dyn JobStore, records: usize) {
    let numbers: Vec<usize> = (0..records).collect();
    for numbers in numbers.chunks(1000) {
        let insert =
            |number: &usize| jobs::insert(*number, status(*number, records), jobs::definition(*number));
        store.commit(&numbers.iter().map(insert).collect::<Vec<_>>()).expect("committed");
    }
}
