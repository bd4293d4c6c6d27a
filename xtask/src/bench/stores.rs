//! What is measured store by store. Rounds go through the stores in turn, so that what the machine does meanwhile meets
//! all of them.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::floor::{self, Floors, milliseconds, number};
use super::report::percentile;
use super::{Bench, export};
use crate::process::{PATH, pss, sealed, succeed};
use crate::product::{Api, Product};

/// Callers at the same time, and how many jobs they submit in a round.
const CALLERS: [(&str, usize, usize); 3] =
    [("commits-1", 1, 200), ("commits-8", 8, 1600), ("commits-64", 64, 6400)];

/// Every caller has a connection of its own, and submits a job when the one before it is on disk. The jobs only wait.
pub(super) fn commits(bench: &mut Bench) -> Result<()> {
    let products = products(bench, "commits")?;
    let directory = bench.fresh("floor")?;
    let mut floors = Vec::new();
    let mut rates = vec![[const { Vec::new() }; CALLERS.len()]; products.len()];
    for _ in 0..bench.count(7, 3) {
        floors.push(1e3 / percentile(&floor::durable_append(&directory, 200)?, 50));
        for ((_, product), rates) in products.iter().zip(&mut rates) {
            let api = product.api()?;
            for ((_, callers, jobs), rates) in CALLERS.into_iter().zip(rates) {
                rates.push(number(jobs) / submit(&api, callers, jobs)?.as_secs_f64());
            }
        }
    }
    let floor = percentile(&floors, 50);
    for ((store, _), rates) in products.iter().zip(rates) {
        for ((figure, ..), rates) in CALLERS.into_iter().zip(rates) {
            bench.record_of(store, figure, percentile(&rates, 50), Some(floor));
        }
    }
    Ok(())
}

fn submit(api: &Api, callers: usize, jobs: usize) -> Result<Duration> {
    let body = json!({
        "command": { "argv": ["true"] }, "cwd": "/", "start": { "after_ms": 86_400_000 },
        "context": { "environment": [["PATH", PATH]] },
    });
    let body = body.to_string();
    let mut connections = (0..callers).map(|_| api.connect()).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    thread::scope(|scope| {
        let callers = connections.iter_mut().map(|connection| {
            let body = body.as_str();
            scope.spawn(move || (0..jobs / callers).try_for_each(|_| connection.post("/v1/jobs", 201, body)))
        });
        let callers: Vec<_> = callers.collect();
        callers.into_iter().try_for_each(|caller| caller.join().expect("a caller panicked"))
    })?;
    Ok(started.elapsed())
}

/// What a listing asks for: the words of the command, the query, and their figures.
const LISTINGS: [(&[&str], &str, &str, &str); 3] = [
    (&["ls"], "order=newest_first&limit=50", "history-ls", "history-get"),
    (
        &["ls", "--status", "finished"],
        "order=newest_first&limit=50&status=finished",
        "history-ls-finished",
        "history-get-finished",
    ),
    (
        &["ls", "--status", "failed"],
        "order=newest_first&limit=50&status=failed",
        "history-ls-failed",
        "history-get-failed",
    ),
];

pub(super) fn history(bench: &mut Bench) -> Result<()> {
    let count = bench.count(200, 50);
    let floor = Floors::measure(&bench.fresh("floor")?, count)?;
    let products = filled(bench)?;
    for (store, product) in &products {
        let status = product.status()?;
        let figure = if *store == "sled" { "history-manager-sled" } else { "history-manager" };
        bench.record_of(store, figure, pss(status.daemon)?, None);
    }
    for (words, query, of_command, of_request) in LISTINGS {
        let mut times = vec![(Vec::new(), Vec::new()); products.len()];
        for _ in 0..count {
            for ((_, product), (commands, requests)) in products.iter().zip(&mut times) {
                commands.push(milliseconds(product.time(words)?));
                let path = format!("/v1/jobs?{query}");
                let api = product.api()?;
                let started = Instant::now();
                let page = api.get(&path)?;
                requests.push(milliseconds(started.elapsed()));
                let jobs = page["jobs"].as_array().map_or(0, Vec::len);
                ensure!(jobs == 50, "{jobs} jobs on the first page of {query}");
            }
        }
        for ((store, _), (commands, requests)) in products.iter().zip(times) {
            bench.record_of(store, of_command, commands, Some(floor.call));
            bench.record_of(store, of_request, requests, None);
        }
    }
    let mut times = vec![Vec::new(); products.len()];
    for _ in 0..count {
        for ((_, product), times) in products.iter().zip(&mut times) {
            let ended = product.call(&["run", "--", "true"])?;
            product.call(&["wait", ended.stdout.trim()])?;
            times.push(milliseconds(ended.took));
        }
    }
    for ((store, _), times) in products.iter().zip(times) {
        bench.record_of(store, "history-run", times, Some(floor.call + floor.append));
    }
    for (store, product) in &products {
        let restarts = (0..5).map(|_| {
            product.crash()?;
            product.time(&["daemon", "start"]).map(milliseconds)
        });
        let restarts = restarts.collect::<Result<Vec<_>>>()?;
        bench.record_of(store, "history-restart", restarts, Some(2.0 * floor.call));
    }
    Ok(())
}

/// A daemon for each store, with a history that was imported.
fn filled(bench: &mut Bench) -> Result<Vec<(&'static str, Product)>> {
    let directory = bench.fresh("history-export")?;
    let jobs = bench.history;
    let file = directory.join("history.jsonl");
    export::write(&file, jobs)?;
    for store in bench.stores() {
        eprintln!("bench: history: {jobs} ended jobs in {store}");
        let directory = bench.scratch.path(&format!("history-{store}"));
        let mut import = sealed(bench.scratch.product());
        import.env("HOME", &directory).env("NODEJOBS_DIR", &directory);
        import.args(["--store", store, "store", "import"]).arg(&file);
        rustix::fs::sync();
        let took = succeed(&mut import, Duration::from_secs(3600))?.took;
        eprintln!("bench: history: {store} took {:.1} s", took.as_secs_f64());
        bench.record_of(store, "history-import", number(jobs) / took.as_secs_f64(), None);
        let bytes = size(&directory.join(format!("jobs.{store}")))?;
        bench.record_of(store, "history-jobs", number(jobs), None);
        bench.record_of(store, "history-bytes", bytes / number(jobs), None);
    }
    fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    products(bench, "history")
}

/// Bytes that a file, or everything in a directory, takes on the disk.
fn size(path: &Path) -> Result<f64> {
    use std::os::unix::fs::MetadataExt as _;
    let found = fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    if !found.is_dir() {
        #[expect(clippy::cast_precision_loss, reason = "no disk has 2^52 bytes")]
        return Ok((found.blocks() * 512) as f64);
    }
    let entries = fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
    entries.map(|entry| size(&entry?.path())).sum()
}

fn products(bench: &Bench, name: &str) -> Result<Vec<(&'static str, Product)>> {
    let start = |store| {
        let directory = bench.scratch.path(&format!("{name}-{store}"));
        Ok((store, Product::start(bench.scratch.product(), &directory, Some(store))?))
    };
    bench.stores().into_iter().map(start).collect()
}
