//! `cargo xtask powercut`: the product works on a disk that remembers each write and each flush; then its directory is
//! opened as many a power cut would have left it, and nothing that was acknowledged or told may be missing.

mod disk;
mod load;
mod recorder;
mod replay;
mod site;
mod state;
mod trial;

use std::hash::{BuildHasher as _, RandomState};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::scratch::Scratch;
use crate::workspace::{STORES, TESTED_STORES, Workspace};
use disk::{FILE_SYSTEMS, FileSystem};
use replay::Fault;
use site::Site;
use trial::{KEPT, Trial};

const STATES: usize = 30;
const FULL_STATES: usize = 500;
/// Seconds in which jobs are submitted, and those of a full run: longer than the kernel keeps what it was not told to write.
const SECONDS: u64 = 6;
const FULL_SECONDS: u64 = 45;
/// What the other file systems get in a full run.
const OTHER_STATES: usize = 100;
const OTHER_SECONDS: u64 = 10;

/// A fault that debug builds have on request, and that has to be found.
struct Mutant {
    name: &'static str,
    what: &'static str,
    /// Whether the jobs run with it, or only what opens the directory afterwards.
    while_recorded: bool,
    /// One of them has to show in this many of 30 states.
    faults: &'static [Fault],
    least: usize,
}

/// Every fault that is put in, to see that this test sees it. New ones are a row here, and a place that heeds the name in
/// the environment.
#[rustfmt::skip]
const MUTANTS: &[Mutant] = &[
    Mutant { name: "trust-journals", what: "a journal of another boot has to be readable", while_recorded: false, faults: &[Fault::Refused], least: 20 },
    Mutant { name: "no-sync",        what: "the store commits without a flush",            while_recorded: true,  faults: &[Fault::Missing, Fault::Gone, Fault::Refused], least: 1 },
];

#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// How many power cuts to try
    #[arg(long, value_name = "N", default_value_t = STATES)]
    states: usize,
    /// How long to submit jobs before
    #[arg(long, value_name = "N", default_value_t = SECONDS)]
    seconds: u64,
    /// The store to try
    #[arg(long, value_name = "STORE", value_parser = STORES, default_value = STORES[0])]
    store: String,
    /// The file system to try
    #[arg(long, value_name = "NAME", default_value = FILE_SYSTEMS[0].name)]
    file_system: String,
    /// Draws the same jobs and kinds of cuts again, though never at the same instants [default: a random one]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Without the faults that are put in to see that they are found
    #[arg(long)]
    no_mutants: bool,
    /// Within a mount namespace of its own, which the task makes by itself
    #[arg(long, hide = true)]
    inside: bool,
}

impl Options {
    /// What every run of CI does with a store.
    fn ci(store: &str) -> Self {
        Self {
            states: STATES,
            seconds: SECONDS,
            store: store.to_owned(),
            file_system: FILE_SYSTEMS[0].name.to_owned(),
            seed: None,
            no_mutants: false,
            inside: false,
        }
    }
}

/// What every run of CI does: the stores that it tests, and the faults that have to be found.
pub(crate) fn ci(workspace: &Workspace) -> Result<()> {
    TESTED_STORES.iter().try_for_each(|store| run(workspace, &Options::ci(store)))
}

/// What a full run does: the same for the store that CI does not test, and then each on each file system that can be
/// made here.
pub(crate) fn full(workspace: &Workspace) -> Result<()> {
    for store in STORES.iter().filter(|store| !TESTED_STORES.contains(store)) {
        run(workspace, &Options::ci(store))?;
    }
    for system in FILE_SYSTEMS {
        let is_first = system.name == FILE_SYSTEMS[0].name;
        let (states, seconds) =
            if is_first { (FULL_STATES, FULL_SECONDS) } else { (OTHER_STATES, OTHER_SECONDS) };
        for store in STORES {
            let file_system = system.name.to_owned();
            let options = Options::ci(store);
            run(workspace, &Options { states, seconds, file_system, no_mutants: true, ..options })?;
        }
    }
    Ok(())
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let system = FileSystem::named(&options.file_system)?;
    if options.inside {
        return inside(workspace, options, system);
    }
    if let Some(lack) = system.lacks() {
        println!("powercut: skipped, {} store on {}: {lack}", options.store, system.name);
        return Ok(());
    }
    workspace.build_debug(&options.store)?;
    // The build may have put another program in the place of this one.
    let this = format!("/proc/{}/exe", std::process::id());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(this).args(["powercut", "--inside"]);
    command.args(["--states", &options.states.to_string(), "--seconds", &options.seconds.to_string()]);
    command.args(["--store", &options.store, "--file-system", system.name]);
    command.args(options.seed.map(|seed| format!("--seed={seed}")));
    command.args(options.no_mutants.then_some("--no-mutants"));
    let status = command.status().context("cannot start unshare")?;
    ensure!(status.success(), "powercut: {} store on {} failed", options.store, system.name);
    Ok(())
}

fn inside(workspace: &Workspace, options: &Options, system: &'static FileSystem) -> Result<()> {
    let started = Instant::now();
    let seed = options.seed.unwrap_or_else(|| RandomState::new().hash_one(()));
    let scratch = Scratch::take(workspace, "powercut")?;
    let (mountpoint, work) = (scratch.fresh("disk")?, scratch.fresh("work")?);
    let binary = workspace.target.join("debug/nodejobs");
    let site = |mutant| Site::new(&binary, &options.store, &mountpoint, &work).with_mutant(mutant);
    // Whatever an interrupted run has left.
    site(None).kill_all()?;
    let trial = Trial { system, seed, states: options.states, failed: &scratch.fresh("failed")? };
    let seconds = options.seconds;
    let recorded = trial.record(&site(None), &scratch.fresh("fuse")?, seconds)?;
    let mutants = if options.no_mutants { &[] } else { MUTANTS };
    let mut mutated = Vec::new();
    for mutant in mutants {
        let site = site(Some(mutant.name));
        mutated.push(match mutant.while_recorded {
            true => Some(trial.record(&site, &scratch.fresh("fuse")?, seconds)?),
            false => None,
        });
    }
    // From here on nothing that was recorded can run, and nothing may be recorded.
    disk::restart(&work)?;

    let verdict = trial.replay(&site(None), &recorded)?;
    println!("powercut: {} store on {}: {recorded}; {verdict}", options.store, system.name);
    if !verdict.is_sound() {
        bail!(
            "powercut: seed {seed}; up to {KEPT} images of what failed stay in {} until the next run",
            scratch.path("failed").display()
        );
    }
    ensure!(
        verdict.has_executed(),
        "powercut: no job was executed after a power cut, so none can have been twice"
    );
    for (mutant, mutated) in mutants.iter().zip(&mutated) {
        let verdict = trial.replay(&site(Some(mutant.name)), mutated.as_ref().unwrap_or(&recorded))?;
        let (states, least) = (verdict.states_with(mutant.faults), mutant.least * options.states / STATES);
        println!("powercut: with {} ({}): {verdict}", mutant.name, mutant.what);
        ensure!(
            states >= least.max(1),
            "powercut: {states} of {} states show it, at least {least} have to: this test does not see what it is for",
            options.states
        );
    }
    println!(
        "powercut: {} store on {}: {:.1} s",
        options.store,
        system.name,
        started.elapsed().as_secs_f64()
    );
    scratch.clear()
}
