//! `cargo xtask bench`: the figures of the design's budget table, each beside its floor on this machine.
//!
//! [`groups`] says what is measured, [`report`] what is allowed. Floors are measured in the same run. A group that
//! fails is reported and the others still run.

mod capped;
mod export;
mod floor;
mod groups;
mod report;
mod stores;

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};

use crate::product::Product;
use crate::scratch::Scratch;
use crate::workspace::{STORES, Workspace};
use report::{Measured, Report};

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Fewer repetitions
    #[arg(long)]
    quick: bool,
    /// Also writes the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measures one group (repeatable)
    #[arg(long, value_name = "NAME", value_parser = groups::find)]
    only: Vec<&'static groups::Group>,
    /// How many ended jobs a store has for the figures with history
    #[arg(long, value_name = "N", default_value_t = HISTORY)]
    history: usize,
    /// Measures this store: what is measured with one uses it instead of the default one, what compares stores leaves
    /// the others out
    #[arg(long, value_name = "STORE", value_parser = STORES)]
    store: Option<String>,
}

const HISTORY: usize = 20_000;

impl Options {
    /// Everything, with as many ended jobs as the budgets are for.
    pub(crate) fn full() -> Self {
        Self { history: 1_000_000, ..Self::default() }
    }
}

/// One run of the bench.
struct Bench {
    quick: bool,
    history: usize,
    store: Option<String>,
    scratch: Scratch,
    report: Report,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let groups = match options.only.as_slice() {
        [] => groups::GROUPS.iter().collect(),
        only => only.to_vec(),
    };
    if groups.iter().any(|group| group.needs_product) {
        workspace.build_product()?;
    }
    let mut bench = Bench {
        quick: options.quick,
        history: options.history,
        store: options.store.clone(),
        scratch: Scratch::take(workspace, "bench")?,
        report: Report::default(),
    };
    let mut failed = Vec::new();
    for group in groups {
        eprintln!("bench: {}: {}", group.name, group.about);
        if let Err(error) = (group.measure)(&mut bench) {
            eprintln!("bench: {} failed: {error:#}", group.name);
            failed.push(group.name);
        }
    }
    bench.scratch.clear()?;
    bench.report.print();
    if let Some(file) = &options.json {
        bench.report.write_json(file)?;
    }
    if !failed.is_empty() {
        bail!("could not measure: {}", failed.join(", "));
    }
    Ok(())
}

impl Bench {
    /// A fresh directory for one measurement.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        self.scratch.fresh(name)
    }

    /// A daemon of its own, with an empty data directory and a keeper that has run one job.
    fn start(&self, name: &str) -> Result<Product> {
        let binary = self.scratch.product();
        ensure!(binary.exists(), "{} is missing although the build passed", binary.display());
        Product::start(binary, &self.scratch.path(name), self.store.as_deref())
    }

    /// The stores that are compared.
    fn stores(&self) -> Vec<&'static str> {
        STORES.into_iter().filter(|store| self.store.as_deref().is_none_or(|only| only == *store)).collect()
    }

    /// `full`, or the smaller number with `--quick`.
    fn count(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    fn record(&mut self, figure: &str, measured: impl Into<Measured>, floor: Option<f64>) {
        self.report.record(figure, None, measured.into(), floor);
    }

    /// [`record`](Self::record), for a figure that each store has.
    fn record_of(
        &mut self,
        store: &'static str,
        figure: &str,
        measured: impl Into<Measured>,
        floor: Option<f64>,
    ) {
        self.report.record(figure, Some(store), measured.into(), floor);
    }
}
