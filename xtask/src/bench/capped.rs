//! A job that writes far more than its cap at full speed: how much slower it is, how far it gets beyond the cap, and what
//! stays on disk. The store has no part in it, so one is enough.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{Timespec, poll};

use super::Bench;
use super::floor::{milliseconds, number};
use super::report::Side;
use super::stores::first;
use crate::process::{sealed, succeed};

const CAP: &str = "10M";
const MEBIBYTE: u64 = 1 << 20;

pub(super) fn capped(bench: &mut Bench) -> Result<()> {
    let mebibytes = bench.count(1024, 256) as u64;
    let (side, product) = first(bench, "capped")?;
    let logs = bench.fresh("capped-logs")?;
    let rounds = bench.count(5, 2);
    let report = &mut bench.report;
    for (figure, peak, kibibytes) in
        [("capped-4k", "capped-4k-peak", 4), ("capped-64k", "capped-64k-peak", 64)]
    {
        let write =
            format!("dd if=/dev/zero bs={kibibytes}k count={} 2>/dev/null", mebibytes * 1024 / kibibytes);
        for round in 0..rounds {
            let direct = logs.join("direct");
            rustix::fs::sync();
            let mut shell = sealed("sh");
            shell.args(["-c", &format!("{write} > \"$0\"")]).arg(&direct);
            let took = succeed(&mut shell, Duration::from_secs(120))?.took;
            report.take(figure, Side::Floor, || Ok(milliseconds(took)));
            std::fs::remove_file(&direct).with_context(|| format!("cannot remove {}", direct.display()))?;
            rustix::fs::sync();
            let id = format!("{figure}-{round}");
            let log = logs.join(format!("{id}.1.out"));
            let run = ["run", "--id", &id, "--log-cap", CAP, "--wait", "--logdir"];
            let run = [&run[..], &[logs.to_str().context("no UTF-8")?, "--", "sh", "-c", &write]].concat();
            let (took, most) = watched(&log, || product.time(&run))?;
            report.take(figure, side, || took.map(milliseconds));
            report.take(peak, side, || Ok(in_mebibytes(most)));
            // What is beyond the cap when the job ends is freed within the next look.
            pause(200_000_000);
            report.take("capped-settled", side, || Ok(in_mebibytes(on_disk(&log))));
        }
    }
    Ok(())
}

/// The most room that a file took while something went on.
fn watched<T>(log: &Path, work: impl FnOnce() -> T) -> Result<(T, u64)> {
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(on_disk(log), Ordering::Relaxed);
                pause(2_000_000);
            }
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        watcher.join().ok().context("the watcher panicked")?;
        Ok((done, most.load(Ordering::Relaxed)))
    })
}

/// It is what happens in the meantime that is measured.
fn pause(nanoseconds: i64) {
    let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: nanoseconds }));
}

fn on_disk(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |found| found.blocks() * 512)
}

fn in_mebibytes(bytes: u64) -> f64 {
    number(usize::try_from(bytes / 1024).unwrap_or(usize::MAX)) / number((MEBIBYTE / 1024) as usize)
}
