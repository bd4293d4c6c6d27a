//! 200 MB of output, against the same written to a file by the shell.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::super::Bench;
use super::super::floor::milliseconds;
use super::super::peers::Words;
use super::super::peers::session::Session;
use super::super::report::Side;
use super::SLOTS;
use crate::process::{cpu, sealed, succeed};
use crate::product::Product;

const WRITE: &str = "head -c 200000000 /dev/zero";

pub(super) fn output(bench: &mut Bench) -> Result<()> {
    let direct = bench.fresh("output-direct")?.join("file");
    let products = bench.products("output")?;
    let mut sessions = bench.sessions("output", SLOTS, &[("output".into(), |peer| peer.output)]);
    let rounds = bench.count(5, 2);
    let report = &mut bench.report;
    for _ in 0..rounds {
        report.take("output", Side::Floor, || written(&direct));
        for (side, product) in &products {
            let mut work = None;
            report.take("output", *side, || {
                let (_, nothing) = used(product, &["true"])?;
                let (took, all) = used(product, &["sh", "-c", WRITE])?;
                work = Some((all - nothing).max(0.0));
                Ok(took)
            });
            if let Some(work) = work {
                report.take("output-cpu", *side, || Ok(work));
            }
        }
        sessions.retain(|session| {
            report.take("output", session.side(), || {
                theirs(session, session.peer.output.expect("asked for above"))
            })
        });
    }
    Ok(())
}

fn written(direct: &Path) -> Result<f64> {
    rustix::fs::sync();
    let mut shell = sealed("sh");
    shell.args(["-c", &format!("{WRITE} > \"$0\"")]).arg(direct);
    let took = succeed(&mut shell, Duration::from_secs(60))?.took;
    fs::remove_file(direct).with_context(|| format!("cannot remove {}", direct.display()))?;
    Ok(milliseconds(took))
}

/// How long a job takes, and how much processor time the daemon and keepers use for it.
fn used(product: &Product, arguments: &[&str]) -> Result<(f64, f64)> {
    let processes: Vec<u32> = product.status()?.processes().collect();
    let total = || processes.iter().map(|pid| cpu(*pid)).sum::<Result<f64>>();
    // What an earlier round wrote must not be on its way to the disk during this one.
    rustix::fs::sync();
    let before = total()?;
    let took = product.time(&[&["run", "--log-cap", "none", "--wait", "--"], arguments].concat())?;
    Ok((milliseconds(took), total()? - before))
}

/// Until the job has written everything, and the call has returned.
fn theirs(session: &Session, words: Words) -> Result<f64> {
    let done = session.directory().join("done");
    let job = session.job("write", &format!("{WRITE}\n: > {}\n", done.display()))?;
    rustix::fs::sync();
    let started = Instant::now();
    session.call(words, &job, 1)?;
    session.until(|| done.exists(), Duration::from_millis(1))?;
    let took = milliseconds(started.elapsed());
    fs::remove_file(&done).with_context(|| format!("cannot remove {}", done.display()))?;
    Ok(took)
}
