//! `cargo xtask bench`: the figures of the design's budget table, each beside its floor and other systems on this machine.
//!
//! [`groups`] says what is measured, [`figures`] what is allowed, [`peers`] who else is measured. In a group, floor, ours
//! and peers take turns in rounds. What fails is reported, and the others still run.

mod capped;
mod export;
mod figures;
mod floor;
mod groups;
mod host;
mod peers;
mod report;
mod rows;
mod stores;
mod tables;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::{sealed, succeed};
use crate::product::Product;
use crate::scratch::Scratch;
use crate::workspace::{STORES, Workspace};
use host::Host;
use peers::session::Session;
use peers::{Found, Peer, Words};
use report::{Key, Report, Side};
use tables::Form;

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Fewer rounds and smaller sizes
    #[arg(long)]
    quick: bool,
    /// Also writes everything to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also writes the tables as markdown: into the place for them of a file that has one, as docs/performance.md, or
    /// as a new file
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Measures one group (repeatable)
    #[arg(long, value_name = "NAME", value_parser = groups::find)]
    only: Vec<&'static groups::Group>,
    /// How many ended jobs a store has for the figures with history (repeatable)
    #[arg(long, value_name = "N")]
    history: Vec<usize>,
    /// Measures ours with this store (repeatable) instead of each
    #[arg(long, value_name = "STORE", value_parser = STORES)]
    store: Vec<String>,
    /// Measures no other systems
    #[arg(long)]
    no_peers: bool,
}

impl Options {
    /// Fewer rounds and smaller sizes.
    pub(crate) fn quick() -> Self {
        Self { quick: true, ..Self::default() }
    }
}

/// A figure, and what a peer is asked with for it.
type Wanted = (Key, fn(&Peer) -> Option<Words>);

const HISTORY: [usize; 3] = [1_000, 100_000, 1_000_000];
const QUICK_HISTORY: [usize; 2] = [1_000, 20_000];

/// One run of the bench.
struct Bench {
    quick: bool,
    history: Vec<usize>,
    stores: Vec<&'static str>,
    found: Vec<Found>,
    /// What the product says it is.
    version: String,
    host: Host,
    /// How busy the machine was before.
    load: String,
    scratch: Scratch,
    report: Report,
    /// Groups that could not go on, and why.
    failed: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let groups = match options.only.as_slice() {
        [] => groups::GROUPS.iter().collect(),
        only => only.to_vec(),
    };
    workspace.build_product()?;
    let mut bench = Bench::new(workspace, options)?;
    for group in groups {
        eprintln!("bench: {}: {}", group.name, group.about);
        if let Err(error) = (group.measure)(&mut bench) {
            eprintln!("bench: {} failed: {error:#}", group.name);
            bench.failed.push(format!("{}: {error:#}", group.name));
        }
    }
    bench.scratch.clear()?;
    print!("{}", tables::show(&bench, Form::Text));
    let write = |file: &PathBuf, text: String| {
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    if let Some(file) = &options.json {
        write(file, format!("{:#}\n", tables::json(&bench)))?;
    }
    if let Some(file) = &options.markdown {
        let tables = tables::show(&bench, Form::Markdown);
        let text = match std::fs::read_to_string(file) {
            Ok(page) => tables::insert(&page, &tables).with_context(|| file.display().to_string())?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => tables,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        write(file, text)?;
    }
    let mut failed = bench.failed;
    failed.extend(
        bench.report.failures().map(|cell| format!("{} of {}", cell.key.figure.name, cell.side.name())),
    );
    if !failed.is_empty() {
        bail!("could not measure: {}", failed.join(", "));
    }
    Ok(())
}

impl Bench {
    fn new(workspace: &Workspace, options: &Options) -> Result<Self> {
        let scratch = Scratch::take(workspace, "bench")?;
        let product = scratch.product();
        ensure!(product.exists(), "{} is missing although the build passed", product.display());
        let version = succeed(sealed(product).arg("--version"), Duration::from_secs(10))?.stdout;
        let asked =
            |store: &&str| options.store.is_empty() || options.store.iter().any(|asked| asked == store);
        let path = std::env::var_os("PATH").filter(|_| !options.no_peers).unwrap_or_default();
        let history: &[usize] = match options.history.as_slice() {
            [] if options.quick => &QUICK_HISTORY,
            [] => &HISTORY,
            asked => asked,
        };
        let mut bench = Self {
            quick: options.quick,
            history: history.to_vec(),
            stores: STORES.into_iter().filter(asked).collect(),
            found: Found::all(&path),
            version: version.trim().to_owned(),
            host: Host::look(scratch.directory()),
            load: host::load(),
            report: Report::new(Duration::from_secs(if options.quick { 2 } else { 20 })),
            scratch,
            failed: Vec::new(),
        };
        bench.learn_versions();
        Ok(bench)
    }

    /// A fresh directory for one measurement.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        self.scratch.fresh(name)
    }

    /// For each store a daemon of its own, with an empty data directory and a keeper that has run one job.
    fn products(&self, name: &str) -> Result<Vec<(Side, Product)>> {
        self.stores.iter().map(|store| Ok((Side::Ours(store), self.product(name, store)?))).collect()
    }

    /// One of [`products`](Self::products), also for a directory that has been filled before.
    fn product(&self, name: &str, store: &str) -> Result<Product> {
        Product::start(self.scratch.product(), &self.scratch.path(&format!("{name}-{store}")), Some(store))
    }

    /// A session of each peer that has one of these figures.
    fn sessions(&mut self, name: &str, slots: usize, wanted: &[Wanted]) -> Vec<Session> {
        self.peers().into_iter().filter_map(|peer| self.session(peer, name, slots, wanted)).collect()
    }

    /// A session of a peer, if it has one of these figures. If it cannot be started, it has failed in all of them.
    fn session(&mut self, peer: &Peer, name: &str, slots: usize, wanted: &[Wanted]) -> Option<Session> {
        let wanted: Vec<_> = wanted.iter().filter(|(_, words)| words(peer).is_some()).collect();
        let found = self.found(peer).filter(|_| !wanted.is_empty())?;
        let directory = self.scratch.path(&format!("{name}-{}", peer.name));
        match Session::start(found, directory, slots, self.deadline()) {
            Ok(session) => Some(session),
            Err(error) => {
                for (key, _) in wanted {
                    self.report.fail(*key, Side::Peer(peer.name), &error);
                }
                None
            }
        }
    }

    /// Those that are there.
    fn peers(&self) -> Vec<&'static Peer> {
        self.found.iter().map(|found| found.peer).collect()
    }

    /// How long one call of a peer may take.
    fn deadline(&self) -> Duration {
        Duration::from_secs(if self.quick { 30 } else { 120 })
    }

    /// Asks each peer for its version. Who does not say is used all the same.
    fn learn_versions(&mut self) {
        let deadline = self.deadline();
        for found in &mut self.found {
            let directory = self.scratch.path(&format!("version-{}", found.peer.name));
            let said = Session::prepare(found, directory, 1, deadline)
                .and_then(|session| session.call(session.peer.version, "true", 1));
            if let Ok(said) = said {
                found.learn_version(&said.stdout);
            }
        }
    }

    fn found(&self, peer: &Peer) -> Option<&Found> {
        self.found.iter().find(|found| found.peer.name == peer.name)
    }

    /// `full`, or the smaller number with `--quick`.
    fn count(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}
