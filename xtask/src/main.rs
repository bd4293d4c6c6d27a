//! Developer tasks of the workspace: `cargo xtask layers`, `features`, `ci`, `conformance`, `fuzz`, `chaos`, `powercut`,
//! `machine` and `bench`.

mod bench;
mod chaos;
mod ci;
mod conformance;
mod features;
mod fuzz;
mod layers;
mod machine;
mod powercut;
mod process;
mod product;
mod scratch;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer tasks of the nodejobs workspace")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Checks the direction of the dependencies and the rules every source file keeps
    Layers,
    /// Checks that every set of features builds, and links no engine that was not chosen
    Features,
    /// Runs what CI runs, step by step, and stops at the first failure
    Ci {
        /// Also runs the fuzz targets, repeats the tests, runs ten minutes of chaos and 500 power cuts with each store, and the bench
        #[arg(long)]
        full: bool,
        /// Only this step, whichever it belongs to; may be repeated
        #[arg(long = "step", value_name = "NAME", value_parser = ci::step_names())]
        steps: Vec<String>,
    },
    /// Runs the rules of the store contract for each store, and shows which of them hold
    Conformance(conformance::Options),
    /// Runs the fuzz targets, for which a nightly Rust has to be there
    Fuzz(fuzz::Options),
    /// Submits and controls jobs while everything is killed and frozen, and checks that nothing was lost
    Chaos(chaos::Options),
    /// Opens the directory of the product as a power cut would have left it, many times, and checks that nothing is lost
    Powercut(powercut::Options),
    /// Runs the scenarios that take a machine of their own, in a virtual one
    Machine(machine::Options),
    /// Measures the figures of the budget table, each beside its floor
    Bench(bench::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    let workspace = workspace::Workspace::load()?;
    match task {
        Task::Layers => layers::run(&workspace),
        Task::Features => features::run(&workspace),
        Task::Ci { full, steps } => ci::run(&workspace, full, &steps),
        Task::Conformance(options) => conformance::run(&workspace, &options),
        Task::Fuzz(options) => fuzz::run(&workspace, &options),
        Task::Chaos(options) => chaos::run(&workspace, &options),
        Task::Powercut(options) => powercut::run(&workspace, &options),
        Task::Machine(options) => machine::run(&workspace, &options),
        Task::Bench(options) => bench::run(&workspace, &options),
    }
}
