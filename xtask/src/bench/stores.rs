//! What is measured store by store. Rounds go through the stores in turn, so that what the machine does meanwhile meets
//! all of them.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::floor::{Floors, milliseconds, number};
use super::report::{Side, percentile};
use super::{Bench, export};
use crate::process::{PATH, pss, sealed, succeed};
use crate::product::{Api, Product};

/// Callers at the same time, and how many jobs they submit in a round.
const CALLERS: [(&str, usize, usize); 3] =
    [("commits-1", 1, 200), ("commits-8", 8, 1600), ("commits-64", 64, 6400)];

/// Every caller has a connection of its own, and submits a job when the one before it is on disk. The jobs only wait.
pub(super) fn commits(bench: &mut Bench) -> Result<()> {
    let products = bench.products("commits")?;
    let floors = Floors::prepare(bench.fresh("floor")?)?;
    let rounds = bench.count(7, 3);
    let report = &mut bench.report;
    for _ in 0..rounds {
        let appends = (0..200).map(|_| floors.append()).collect::<Result<Vec<_>>>()?;
        for (figure, callers, jobs) in CALLERS {
            report.take(figure, Side::Floor, || Ok(1e3 / percentile(&appends, 50)));
            for (side, product) in &products {
                report.take(figure, *side, || {
                    Ok(number(jobs) / submit(&product.api()?, callers, jobs)?.as_secs_f64())
                });
            }
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

/// Jobs on a page.
const PAGE: usize = 50;

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
    for size in bench.history.clone() {
        of_size(bench, size)?;
    }
    Ok(())
}

fn of_size(bench: &mut Bench, size: usize) -> Result<()> {
    let rounds = bench.count(200, 50);
    let floors = Floors::prepare(bench.fresh("floor")?)?;
    let products = filled(bench, size)?;
    let report = &mut bench.report;
    for (side, product) in &products {
        let sled = *side == Side::Ours("sled");
        let figure = if sled { "history-manager-sled" } else { "history-manager" };
        report.take((figure, size), *side, || pss(product.status()?.daemon));
    }
    for (words, query, of_command, of_request) in LISTINGS {
        let failed = words.last() == Some(&"failed");
        let expected = PAGE.min(if failed { size / export::FAILED } else { size - size / export::FAILED });
        for _ in 0..rounds {
            report.take((of_command, size), Side::Floor, || floors.call());
            for (side, product) in &products {
                report.take((of_command, size), *side, || product.time(words).map(milliseconds));
                report.take((of_request, size), *side, || page(product, query, expected).map(milliseconds));
            }
        }
    }
    for _ in 0..rounds {
        report.take(("history-run", size), Side::Floor, || Ok(floors.call()? + floors.append()?));
        for (side, product) in &products {
            report.take(("history-run", size), *side, || {
                let ended = product.call(&["run", "--", "true"])?;
                product.call(&["wait", ended.stdout.trim()])?;
                Ok(milliseconds(ended.took))
            });
        }
    }
    for _ in 0..5 {
        report.take(("history-restart", size), Side::Floor, || Ok(2.0 * floors.call()?));
        for (side, product) in &products {
            report.take(("history-restart", size), *side, || {
                product.crash()?;
                product.time(&["daemon", "start"]).map(milliseconds)
            });
        }
    }
    Ok(())
}

fn page(product: &Product, query: &str, expected: usize) -> Result<Duration> {
    let (api, path) = (product.api()?, format!("/v1/jobs?{query}"));
    let started = Instant::now();
    let page = api.get(&path)?;
    let took = started.elapsed();
    let jobs = page["jobs"].as_array().map_or(0, Vec::len);
    ensure!(jobs == expected, "{jobs} jobs instead of {expected} on the first page of {query}");
    Ok(took)
}

/// A daemon for each store, with a history that was imported.
fn filled(bench: &mut Bench, jobs: usize) -> Result<Vec<(Side, Product)>> {
    let directory = bench.fresh("history-export")?;
    let file = directory.join("history.jsonl");
    export::write(&file, jobs)?;
    let name = format!("history-{jobs}");
    for store in bench.stores.clone() {
        let directory = bench.scratch.path(&format!("{name}-{store}"));
        let mut import = sealed(bench.scratch.product());
        import.env("HOME", &directory).env("NODEJOBS_DIR", &directory);
        import.args(["--store", store, "store", "import"]).arg(&file);
        rustix::fs::sync();
        let took = succeed(&mut import, Duration::from_secs(3600))?.took;
        eprintln!("bench: history: {jobs} ended jobs in {store} took {:.1} s", took.as_secs_f64());
        let (side, report) = (Side::Ours(store), &mut bench.report);
        report.take(("history-import", jobs), side, || Ok(number(jobs) / took.as_secs_f64()));
        let bytes = size(&directory.join(format!("jobs.{store}")))?;
        report.take(("history-bytes", jobs), side, || Ok(bytes / number(jobs)));
    }
    fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    bench.products(&name)
}

/// A daemon with the first store, for what no store has a part in.
pub(super) fn first(bench: &Bench, name: &str) -> Result<(Side, Product)> {
    let store = bench.stores[0];
    Ok((Side::Ours(store), bench.product(name, store)?))
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
