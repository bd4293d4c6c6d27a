//! `cargo xtask bench`: the figures of the design's budget table, each beside its floor on this machine.
//!
//! [`groups`] says what is measured, [`report`] what is allowed. Floors are measured in the same run. A group that
//! fails is reported and the others still run.

mod floor;
mod groups;
mod http;
mod process;
mod product;
mod report;

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::workspace::Workspace;
use product::Product;
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
    /// Adds the figures with this many ended jobs in the store
    #[arg(long, value_name = "N", default_value_t = 0)]
    history: usize,
    /// The store to measure, when not the default one
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
}

/// One run of the bench.
struct Bench {
    quick: bool,
    history: usize,
    store: Option<String>,
    binary: PathBuf,
    directory: PathBuf,
    report: Report,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let groups = match options.only.as_slice() {
        [] => groups::GROUPS.iter().collect(),
        only => only.to_vec(),
    };
    if groups.iter().any(|group| group.needs_product) {
        let build = ["build", "--release", "-p", "nodejobs-cli", "--bins"];
        let status = workspace.cargo(&build).status().context("cannot start cargo")?;
        ensure!(status.success(), "`cargo {}` ended with {status}", build.join(" "));
    }
    // Beside the build output rather than in the directory for temporary files, which is often no disk at all.
    let directory = workspace.target.join("bench");
    let mut bench = Bench {
        quick: options.quick,
        history: options.history,
        store: options.store.clone(),
        binary: workspace.target.join("release/nodejobs"),
        directory,
        report: Report::default(),
    };
    let _lock = bench.prepare()?;
    let mut failed = Vec::new();
    for group in groups {
        eprintln!("bench: {}: {}", group.name, group.about);
        if let Err(error) = (group.measure)(&mut bench) {
            eprintln!("bench: {} failed: {error:#}", group.name);
            failed.push(group.name);
        }
    }
    bench.clear()?;
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
    /// Takes the bench's directory for this run, and ends what an interrupted run left behind in it.
    fn prepare(&self) -> Result<File> {
        let cannot = || format!("cannot use {}", self.directory.display());
        fs::create_dir_all(&self.directory).with_context(cannot)?;
        let lock = File::create(self.directory.join("lock")).with_context(cannot)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("another bench is running in {}", self.directory.display()))?;
        self.clear()?;
        Ok(lock)
    }

    /// Removes everything measured in. Only between runs, never between groups: thousands of deleted files make
    /// new ones up to thirty times dearer for minutes.
    fn clear(&self) -> Result<()> {
        let cannot = || format!("cannot clear {}", self.directory.display());
        for entry in fs::read_dir(&self.directory).with_context(cannot)? {
            let path = entry.with_context(cannot)?.path();
            if path.is_dir() {
                if self.binary.exists() && path.join("sock").exists() {
                    drop(Product::attach(&self.binary, &path));
                }
                fs::remove_dir_all(&path).with_context(cannot)?;
            }
        }
        Ok(())
    }

    /// A fresh directory for one measurement.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    }

    /// A daemon of its own, with an empty data directory and a keeper that has run one job.
    fn start(&self, name: &str) -> Result<Product> {
        ensure!(self.binary.exists(), "{} is missing although the build passed", self.binary.display());
        Product::start(&self.binary, &self.directory.join(name), self.store.as_deref())
    }

    /// `full`, or the smaller number with `--quick`.
    fn count(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    fn record(&mut self, figure: &str, measured: impl Into<Measured>, floor: Option<f64>) {
        self.report.record(figure, measured.into(), floor);
    }
}
