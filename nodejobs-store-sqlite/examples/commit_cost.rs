//! What the store costs, in microseconds: `cargo run --release -p nodejobs-store-sqlite --example commit_cost`.
//!
//! Takes the number of ended jobs as an argument, 1,000,000 unless given. The first line is the floor: what appending
//! a record to a plain file and `fdatasync` cost on the same disk at the same time.

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use nodejobs_core::filter::JobFilter;
use nodejobs_core::job::{Definition, ExitStatus, JobState, Process, ResourceUsage};
use nodejobs_core::spec::{Command, JobSpec};
use nodejobs_core::store::{JobChange, JobStore, Order, PageRequest, Unit};
use nodejobs_core::time::{BootTime, Moment};
use nodejobs_core::{JobId, Status, Timestamp};
use nodejobs_store_sqlite::SqliteStore;

type Outcome = Result<(), Box<dyn Error>>;

const COMMITS: usize = 2000;

fn main() -> Outcome {
    let ended = std::env::args().nth(1).map_or(Ok(1_000_000), |number| number.parse())?;
    // Not the system's temporary directory, which may be in memory.
    let directory = tempfile::tempdir_in(".")?;
    floor(&mut File::create(directory.path().join("floor"))?)?;

    let path = directory.path().join("nodejobs.sqlite");
    let store = SqliteStore::open(&path)?;
    lives(&store, "empty store", 0)?;

    let started = Instant::now();
    let mut first = 1_000_000;
    while first < 1_000_000 + ended {
        let numbers = first..(first + 1000).min(1_000_000 + ended);
        store.commit(&numbers.clone().map(|number| insert(number, Status::Finished)).collect::<Vec<_>>())?;
        first = numbers.end;
    }
    let took = started.elapsed();
    let bytes = std::fs::metadata(&path)?.len();
    println!(
        "{ended} ended jobs: {:.1} s to insert, {} bytes a job",
        took.as_secs_f64(),
        bytes / ended as u64
    );

    lives(&store, "full store", 100_000_000)?;
    reads(&store, ended)?;

    let started = Instant::now();
    drop(store);
    println!("close: {:?}", started.elapsed());
    let started = Instant::now();
    let store = SqliteStore::open(&path)?;
    store.job(&job_id(1_000_000))?;
    println!("open and first read: {:?}", started.elapsed());
    Ok(())
}

fn floor(file: &mut File) -> Outcome {
    let record = [b'x'; 600];
    measure("append + fdatasync", 1, COMMITS, |_| {
        file.write_all(&record)?;
        Ok(file.sync_data()?)
    })
}

/// The lives of jobs: each is inserted, starts, runs and finishes.
fn lives(store: &SqliteStore, title: &str, first: usize) -> Outcome {
    println!("-- {title}");
    let one = first..first + COMMITS;
    measure("insert, 1 a commit", 1, COMMITS, |index| {
        commit(store, &[insert(one.start + index, Status::Queued)])
    })?;
    for (expected, status) in [(1, Status::Starting), (2, Status::Running), (3, Status::Finished)] {
        measure(&format!("{status}, 1 a commit"), 1, COMMITS, |index| {
            commit(store, &[update(one.start + index, expected, status)])
        })?;
    }
    let many = one.end..one.end + 100 * COMMITS / 10;
    let hundred = |index: usize| (0..100).map(move |number| many.start + 100 * index + number);
    measure("insert, 100 a commit", 100, COMMITS / 10, |index| {
        commit(store, &hundred(index).map(|number| insert(number, Status::Queued)).collect::<Vec<_>>())
    })?;
    for (expected, status) in [(1, Status::Starting), (2, Status::Running), (3, Status::Finished)] {
        measure(&format!("{status}, 100 a commit"), 100, COMMITS / 10, |index| {
            commit(store, &hundred(index).map(|number| update(number, expected, status)).collect::<Vec<_>>())
        })?;
    }
    Ok(())
}

fn reads(store: &SqliteStore, ended: usize) -> Outcome {
    println!("-- reads");
    // A few that still run, submitted long before the last that ended.
    commit(store, &(0..20).map(|number| insert(900_000_000 + number, Status::Running)).collect::<Vec<_>>())?;
    commit(
        store,
        &(0..200).map(|number| insert(910_000_000 + number, Status::Finished)).collect::<Vec<_>>(),
    )?;
    measure("job by id", 1, 5000, |index| {
        let id = job_id(1_000_000 + index * 7919 % ended);
        store.job(&id)?.ok_or("a job is missing")?;
        Ok(())
    })?;
    for (key, value) in [
        ("", ""),
        ("status", "finished"),
        ("status", "running"),
        ("status", "queued,starting,running,paused,stopping"),
        ("status", "finished,failed,lost,running"),
        ("name", "name-77"),
        ("name", "nobody"),
        ("group", "nightly"),
        ("label", "project=p7"),
        ("self_id", "job-0001000777"),
        ("id_prefix", "job-00010007"),
        ("id_prefix", "job"),
        ("last_update_from", "2100-01-01T00:00:00Z"),
        ("last_update_from", "1970-01-01T00:00:00Z"),
        ("exit_code", "3"),
        ("last_pid", "1"),
    ] {
        let mut filter = JobFilter::default();
        if !key.is_empty() {
            filter.set(key, value)?;
        }
        let slow = key.starts_with("last") || value == "job" || key == "exit_code";
        measure(&format!("newest 50, {key}={value}"), 1, if slow { 5 } else { 200 }, |_| {
            let request =
                PageRequest { filter: filter.clone(), order: Order::NewestFirst, after: None, limit: 50 };
            store.jobs(&request)?;
            Ok(())
        })?;
    }
    measure("counts", 1, 5, |_| {
        store.counts()?;
        Ok(())
    })?;
    measure("100 events", 1, 200, |index| {
        store.events(index as u64 * 100, 100)?;
        Ok(())
    })
}

fn commit(store: &SqliteStore, units: &[Unit]) -> Outcome {
    store.commit(units)?;
    Ok(())
}

fn measure(what: &str, units: u32, times: usize, mut action: impl FnMut(usize) -> Outcome) -> Outcome {
    let mut spans = Vec::with_capacity(times);
    for index in 0..times {
        let started = Instant::now();
        action(index)?;
        spans.push(started.elapsed());
    }
    spans.sort_unstable();
    let micros = |span: Duration| span.as_secs_f64() * 1e6 / f64::from(units);
    let mean = spans.iter().sum::<Duration>() / u32::try_from(times)?;
    println!(
        "{what:45} {:10.1} us a unit p50, {:10.1} p99, {:10.1} mean",
        micros(spans[times / 2]),
        micros(spans[times * 99 / 100]),
        micros(mean)
    );
    Ok(())
}

fn job_id(number: usize) -> JobId {
    JobId::new(&format!("job-{number:010}")).unwrap_or_else(|error| unreachable!("{error}"))
}

fn time(number: usize) -> Timestamp {
    Timestamp::from_millis(1_784_000_000_000 + i64::try_from(number).unwrap_or(0))
}

fn insert(number: usize, status: Status) -> Unit {
    let command =
        Command::argv(["/usr/bin/convert", "-resize", "800x600", "input-0001.png", "output-0001.png"]);
    let mut definition = Definition::new(
        &JobSpec::new(command, "/home/somebody/project"),
        "/home/somebody/.local/state/logs".into(),
        time(number),
    );
    definition.context_key = "0123456789abcdef0123456789abcdef".to_owned();
    definition.submit_key = Some(format!("{number:032x}"));
    definition.name = number.is_multiple_of(10).then(|| format!("name-{}", number / 10 % 1000));
    definition.group = number.is_multiple_of(4).then(|| "nightly".to_owned());
    if number.is_multiple_of(5) {
        definition.labels.insert("project".to_owned(), format!("p{}", number / 5 % 50));
    }
    JobChange::Insert { id: job_id(number), definition: Box::new(definition), state: state(number, status) }
        .into()
}

fn update(number: usize, expected: u64, status: Status) -> Unit {
    JobChange::Update { id: job_id(number), expected, state: state(number, status) }.into()
}

fn state(number: usize, status: Status) -> JobState {
    let mut state = JobState::new(1, status, time(number));
    let moment = Moment { wall: time(number), boot: BootTime(number as u64) };
    if !matches!(status, Status::Queued | Status::Starting) {
        let handle =
            "5c1e0a4f-0000-4000-8000-000000000000:4026531836:12345:67890:0011223344556677".to_owned();
        state.process = Some(Process { handle, pid: u32::try_from(number % 30_000 + 100).ok() });
        state.started = Some(moment);
    }
    if status.is_terminal() {
        state.ended = Some(moment);
        state.exit = Some(ExitStatus::Code(0));
        state.usage = Some(ResourceUsage { cpu_ms: 12, peak_memory_kib: 3456 });
    }
    state
}
