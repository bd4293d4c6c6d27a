//! What a store costs, without us around it:
//!
//! ```text
//! cargo run --release -p nodejobs --no-default-features --features sqlite,redb,sled --example store_cost -- redb 100000
//! ```
//!
//! Takes the store and the number of ended jobs, and measures in a directory of its own below the current one. The first
//! line is the floor: what appending a record to a plain file and `fdatasync` cost on the same disk at the same time.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use nodejobs_core::filter::JobFilter;
use nodejobs_core::job::{Definition, ExitStatus, JobState, Process as JobProcess, ResourceUsage};
use nodejobs_core::spec::{Command, JobSpec};
use nodejobs_core::store::{JobChange, JobStore, Order, PageRequest, Unit};
use nodejobs_core::time::{BootTime, Moment};
use nodejobs_core::{JobId, Status, Timestamp};

type Outcome = Result<(), Box<dyn Error>>;
type Open = fn(&Path) -> Result<Box<dyn JobStore>, Box<dyn Error>>;

/// The stores of this build.
const STORES: &[(&str, Open)] = &[
    #[cfg(feature = "sqlite")]
    ("sqlite", |path| Ok(Box::new(nodejobs_store_sqlite::SqliteStore::open(path)?))),
    #[cfg(feature = "redb")]
    ("redb", |path| Ok(Box::new(nodejobs_store_redb::RedbStore::open(path)?))),
    #[cfg(feature = "sled")]
    ("sled", |path| Ok(Box::new(nodejobs_store_sled::SledStore::open(path)?))),
];

const COMMITS: usize = 2000;
/// The job that a process commits that is killed then.
const LAST: usize = 999_999_999;
/// Instead of a number of jobs: commit that one to the store at a path, say so, and wait to be killed.
const HOLD: &str = "--hold";

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = || {
        let names: Vec<_> = STORES.iter().map(|(name, _)| *name).collect();
        format!("usage: store_cost {} [JOBS]", names.join("|"))
    };
    let (name, rest) = arguments.split_first().ok_or_else(usage)?;
    let (_, open) = STORES.iter().find(|(store, _)| store == name).ok_or_else(usage)?;
    match rest {
        [hold, path] if hold == HOLD => self::hold(*open, path.as_ref()),
        [] => measure_all(name, *open, 1_000_000),
        [ended] => measure_all(name, *open, ended.parse()?),
        _ => Err(usage().into()),
    }
}

fn measure_all(name: &str, open: Open, ended: usize) -> Outcome {
    // Not the system's temporary directory, which may be in memory.
    let directory = tempfile::tempdir_in(".")?;
    println!("-- {name}");
    floor(&mut File::create(directory.path().join("floor"))?)?;

    let path = directory.path().join("jobs");
    let without = pss()?;
    let store = open(&path)?;
    lives(&*store, "empty store", 0)?;

    let started = Instant::now();
    let mut first = 1_000_000;
    while first < 1_000_000 + ended {
        let numbers = first..(first + 1000).min(1_000_000 + ended);
        store.commit(&numbers.clone().map(|number| insert(number, Status::Finished)).collect::<Vec<_>>())?;
        first = numbers.end;
    }
    let took = started.elapsed();
    println!(
        "{ended} ended jobs: {:.1} s to insert, {} bytes a job",
        took.as_secs_f64(),
        size(directory.path())? / ended as u64
    );

    lives(&*store, "full store", 100_000_000)?;
    reads(&*store, ended)?;
    println!("memory: {} KiB more than without a store", pss()?.saturating_sub(without));

    let started = Instant::now();
    drop(store);
    println!("close: {:?}", started.elapsed());
    let reopen = |when: &str, number: usize| -> Outcome {
        let before = pss()?;
        let started = Instant::now();
        let store = open(&path)?;
        store.job(&job_id(number))?.ok_or("a job is missing")?;
        let took = started.elapsed();
        println!("open and first read, {when}: {took:?}, {} KiB", pss()?.saturating_sub(before));
        Ok(())
    };
    reopen("after a close", 1_000_000)?;
    let mut child = Process::new(std::env::current_exe()?)
        .args([name, HOLD])
        .arg(&path)
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()?;
    let said = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines().next();
    child.kill()?;
    child.wait()?;
    said.ok_or("the other process did not commit")??;
    reopen("after a kill", LAST)
}

fn hold(open: Open, path: &Path) -> Outcome {
    let store = open(path)?;
    store.commit(&[insert(LAST, Status::Running)])?;
    println!("committed");
    std::io::stdin().read_line(&mut String::new())?;
    Err("nobody has killed this process".into())
}

/// Memory of this process in KiB, shared pages divided among those that share them.
fn pss() -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    Ok(line.and_then(|line| line.split_whitespace().next()).ok_or("no Pss")?.parse()?)
}

/// Bytes that everything below a directory takes on the disk.
fn size(directory: &Path) -> Result<u64, Box<dyn Error>> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let found = entry.metadata()?;
        bytes += if found.is_dir() { size(&entry.path())? } else { found.blocks() * 512 };
    }
    Ok(bytes)
}

fn floor(file: &mut File) -> Outcome {
    let record = [b'x'; 600];
    measure("append + fdatasync", 1, COMMITS, |_| {
        file.write_all(&record)?;
        Ok(file.sync_data()?)
    })
}

/// The lives of jobs: each is inserted, starts, runs and finishes.
fn lives(store: &dyn JobStore, title: &str, first: usize) -> Outcome {
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

fn reads(store: &dyn JobStore, ended: usize) -> Outcome {
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

fn commit(store: &dyn JobStore, units: &[Unit]) -> Outcome {
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
        "{what:60} {:10.1} us a unit p50, {:10.1} p99, {:10.1} mean",
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
        state.process = Some(JobProcess { handle, pid: u32::try_from(number % 30_000 + 100).ok() });
        state.started = Some(moment);
    }
    if status.is_terminal() {
        state.ended = Some(moment);
        state.exit = Some(ExitStatus::Code(0));
        state.usage = Some(ResourceUsage { cpu_ms: 12, peak_memory_kib: 3456 });
    }
    state
}
