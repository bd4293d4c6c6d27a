//! `kill -9` of the manager while 20 jobs run that end with 7: how many have that exit code afterwards, and how often the
//! jobs ran.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::super::floor::number;
use super::super::peers::Crash;
use super::super::peers::session::Session;
use super::super::report::Side;
use super::super::{Bench, Wanted};
use crate::process::pause;
use crate::product::Product;

const JOBS: usize = 20;

pub(super) fn crash(bench: &mut Bench) -> Result<()> {
    for store in bench.stores.clone() {
        let witness = Witness::new(&bench.fresh(&format!("crash-runs-{store}"))?);
        let product = bench.product("crash", store)?;
        let side = Side::Ours(store);
        bench.report.take("crash-codes", side, || ours(&product, &witness));
        bench.report.take("crash-runs", side, || witness.runs().map(number));
    }
    for peer in bench.peers() {
        let Some(crash) = &peer.crash else { continue };
        let wanted: [Wanted; 1] =
            [("crash-codes".into(), |peer| peer.crash.as_ref().map(|crash| crash.codes))];
        let Some(session) = bench.session(peer, "crash-control", JOBS, &wanted) else { continue };
        if let Err(error) = control(&session, crash) {
            bench.report.fail("crash-codes", session.side(), &error);
            continue;
        }
        drop(session);
        let Some(session) = bench.session(peer, "crash", JOBS, &wanted) else { continue };
        let witness = Witness::new(session.directory());
        if bench.report.take("crash-codes", session.side(), || theirs(&session, crash, &witness)) {
            bench.report.take("crash-runs", session.side(), || witness.runs().map(number));
        }
    }
    Ok(())
}

/// The jobs leave a line each time they start, and end once they may.
struct Witness {
    runs: PathBuf,
    go: PathBuf,
}

impl Witness {
    fn new(directory: &Path) -> Self {
        Self { runs: directory.join("runs"), go: directory.join("go") }
    }

    fn script(&self) -> String {
        let (runs, go) = (self.runs.display(), self.go.display());
        format!("echo run >> {runs}; while [ ! -e {go} ]; do sleep 0.1; done; exit 7\n")
    }

    fn runs(&self) -> Result<usize> {
        Ok(fs::read_to_string(&self.runs).context("the jobs left no trace")?.lines().count())
    }

    fn let_them_end(&self) -> Result<()> {
        fs::write(&self.go, "").with_context(|| format!("cannot create {}", self.go.display()))
    }
}

fn ours(product: &Product, witness: &Witness) -> Result<f64> {
    let ids = product.api()?.submit(JOBS, &["sh", "-c", &witness.script()])?;
    product.until_running(JOBS)?;
    product.crash()?;
    product.call(&["daemon", "start"])?;
    witness.let_them_end()?;
    let records = product.api()?.wait(&ids)?;
    let right = records.iter().filter(|record| record["status"] == "failed" && record["exit_code"] == 7);
    Ok(number(right.count()))
}

/// Without a crash the code is told. If it were not, none afterwards would mean nothing.
fn control(session: &Session, crash: &Crash) -> Result<()> {
    let job = session.job("control", "exit 7\n")?;
    session.call(crash.submit, &job, 1)?;
    session
        .until(|| said(session, crash, &job).is_ok_and(|said| said == 1), Duration::from_millis(100))
        .context("the code of a job that ended with 7 is not told, although nothing was killed")
}

fn said(session: &Session, crash: &Crash, job: &str) -> Result<usize> {
    let said = session.call(crash.codes, job, JOBS)?.stdout;
    said.trim().parse().with_context(|| format!("`{said}` is no count"))
}

/// A code of a second run is no answer to how the first one ended.
fn theirs(session: &Session, crash: &Crash, witness: &Witness) -> Result<f64> {
    let job = session.job("crash", &witness.script())?;
    session.call(crash.submit, &job, JOBS)?;
    session.until(|| witness.runs().is_ok_and(|runs| runs == JOBS), Duration::from_millis(50))?;
    session.crash()?;
    session.call(crash.restart, &job, JOBS)?;
    witness.let_them_end()?;
    // What was started again may take a while to be so: it is over when nothing has run for two seconds.
    let mut quiet = 0;
    let is_over = || {
        quiet = if session.runs(&job) { 0 } else { quiet + 1 };
        quiet > 20
    };
    session.until(is_over, Duration::from_millis(100))?;
    pause(Duration::from_millis(500))?;
    Ok(number(right(said(session, crash, &job)?, witness.runs()?)))
}

fn right(said: usize, runs: usize) -> usize {
    said.min(JOBS).saturating_sub(runs.saturating_sub(JOBS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_second_runs_do_not_count() {
        assert_eq!(
            (right(20, 20), right(20, 40), right(40, 40), right(0, 20), right(20, 25)),
            (20, 0, 0, 0, 15)
        );
    }
}
