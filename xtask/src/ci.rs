//! `cargo xtask ci`: what CI runs, in order, stopping at the first failure.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::workspace::{BUILD, STORES, Workspace};
use crate::{bench, chaos, conformance, features, fuzz, layers, machine, powercut};

/// Every step. New ones are a row here.
#[rustfmt::skip]
const STEPS: &[Step] = &[
    Step { name: "format",   when: When::Always, run: Run::Cargo("fmt --all --check") },
    Step { name: "layers",   when: When::Always, run: Run::Here(layers::run) },
    Step { name: "readme",   when: When::Always, run: Run::Here(readme) },
    Step { name: "clippy",   when: When::Always, run: Run::Cargo("clippy --workspace --all-targets --all-features -- -D warnings") },
    Step { name: "doc",      when: When::Always, run: Run::Here(doc) },
    Step { name: "build",    when: When::Always, run: Run::Cargo(BUILD) },
    Step { name: "test",     when: When::Always, run: Run::Here(test) },
    Step { name: "redb",     when: When::Always, run: Run::Cargo("test -p nodejobs-cli --no-default-features --features redb --test scenarios") },
    Step { name: "features", when: When::Always, run: Run::Here(features::run) },
    Step { name: "chaos",    when: When::Always, run: Run::Here(ci_chaos) },
    Step { name: "powercut", when: When::Always, run: Run::Here(powercut::ci) },
    Step { name: "fuzz",     when: When::Full,   run: Run::Here(full_fuzz) },
    Step { name: "sled",     when: When::Full,   run: Run::Cargo("test -p nodejobs-cli --no-default-features --features sled --test scenarios") },
    Step { name: "simulate", when: When::Full,   run: Run::Here(simulate) },
    Step { name: "library",  when: When::Full,   run: Run::Here(library) },
    Step { name: "kills",    when: When::Full,   run: Run::Here(kills) },
    Step { name: "limits",   when: When::Full,   run: Run::Cargo("test -p nodejobs-cli --test scenarios -- --ignored --test-threads 1 --nocapture limits") },
    Step { name: "machine",  when: When::Full,   run: Run::Here(full_machine) },
    Step { name: "repeat",   when: When::Full,   run: Run::Here(repeat) },
    Step { name: "turmoil",  when: When::Full,   run: Run::Here(full_chaos) },
    Step { name: "outages",  when: When::Full,   run: Run::Here(powercut::full) },
    Step { name: "bench",    when: When::Full,   run: Run::Here(full_bench) },
];

const TEST: &str = "test --workspace";
/// What the test harness reads.
const TEST_THREADS: &str = "RUST_TEST_THREADS";
/// Rounds of all tests in a full run, beside the one that each run has. For a flaw that shows once in 20, `--step repeat` in a
/// loop.
const REPEATS: u32 = 4;
/// Runs of the engine in a simulated world, from a random one on.
const SEEDS: &str = "200000";
/// Seconds for each target in a full run.
const FUZZ_SECONDS: u64 = 20;
/// Processes killed while they commit, for each store.
const KILLS: u32 = 300;

struct Step {
    name: &'static str,
    when: When,
    run: Run,
}

#[derive(PartialEq)]
enum When {
    Always,
    Full,
}

enum Run {
    Cargo(&'static str),
    Here(fn(&Workspace) -> Result<()>),
}

/// What `--step` may name.
pub(crate) fn step_names() -> Vec<&'static str> {
    STEPS.iter().map(|step| step.name).collect()
}

/// Runs the steps of CI, or only those that are named.
pub(crate) fn run(workspace: &Workspace, full: bool, only: &[String]) -> Result<()> {
    let begin = Instant::now();
    let is_wanted = |step: &&Step| match only {
        [] => full || step.when == When::Always,
        names => names.iter().any(|name| name == step.name),
    };
    let steps: Vec<_> = STEPS.iter().filter(is_wanted).collect();
    for (index, step) in steps.iter().enumerate() {
        println!("ci {}/{}: {}", index + 1, steps.len(), step.name);
        let started = Instant::now();
        match step.run {
            Run::Cargo(arguments) => cargo(workspace, arguments),
            Run::Here(function) => function(workspace),
        }
        .with_context(|| format!("ci: step {} failed", step.name))?;
        println!(
            "ci {}/{}: {} took {:.1} s",
            index + 1,
            steps.len(),
            step.name,
            started.elapsed().as_secs_f64()
        );
    }
    println!("ci: ok, {} steps in {:.1} s", steps.len(), begin.elapsed().as_secs_f64());
    Ok(())
}

fn cargo(workspace: &Workspace, arguments: &str) -> Result<()> {
    finish(&mut command(workspace, arguments), arguments)
}

fn command(workspace: &Workspace, arguments: &str) -> Command {
    let mut command = workspace.cargo(&arguments.split_whitespace().collect::<Vec<_>>());
    if std::env::var_os(TEST_THREADS).is_none() {
        // Most tests wait most of the time, for processes.
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        command.env(TEST_THREADS, (2 * processors).to_string());
    }
    command
}

fn finish(command: &mut Command, arguments: &str) -> Result<()> {
    println!("    cargo {arguments}");
    let status = command.status().context("cannot start cargo")?;
    ensure!(status.success(), "`cargo {arguments}` ended with {status}");
    Ok(())
}

/// The README tells a newcomer the command that CI runs, so it must be this one.
fn readme(workspace: &Workspace) -> Result<()> {
    let file = workspace.root.join("README.md");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(
        text.lines().any(|line| line.trim() == "cargo xtask ci"),
        "{}: no line `cargo xtask ci`\n    way out: name it as the command that runs the tests",
        file.display()
    );
    Ok(())
}

/// What some rules of the stores need: a small disk of one's own, and a look at system calls.
const MEANS: [&[&str]; 2] =
    [&["unshare", "-Urm", "mount", "-t", "tmpfs", "x", "/tmp"], &["strace", "-f", "-o", "/dev/null", "true"]];

/// A rule of the stores that the machine has no means for passes as a test. Not where it has them.
fn test(workspace: &Workspace) -> Result<()> {
    let mut command = command(workspace, TEST);
    let missing: Vec<_> = MEANS.iter().filter(|means| !works(means)).map(|means| means.join(" ")).collect();
    if missing.is_empty() {
        command.env("NODEJOBS_ALL_RULES", "1");
    } else {
        println!(
            "    some rules of the stores are not run here, since this does not work: {}",
            missing.join("; ")
        );
    }
    finish(&mut command, TEST)
}

fn works(command: &[&str]) -> bool {
    command.split_first().is_some_and(|(program, arguments)| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    })
}

fn doc(workspace: &Workspace) -> Result<()> {
    let arguments = "doc --workspace --no-deps";
    finish(command(workspace, arguments).env("RUSTDOCFLAGS", "-D warnings"), arguments)
}

fn library(workspace: &Workspace) -> Result<()> {
    STORES[1..].iter().try_for_each(|store| {
        cargo(
            workspace,
            &format!("test -p nodejobs --no-default-features --features local,{store} --lib --tests"),
        )
    })
}

/// A test that fails now and then is a failing test.
fn repeat(workspace: &Workspace) -> Result<()> {
    (1..=REPEATS).try_for_each(|round| {
        println!("    round {round} of {REPEATS}");
        cargo(workspace, TEST).with_context(|| format!("round {round} of {REPEATS}"))
    })
}

fn simulate(workspace: &Workspace) -> Result<()> {
    let arguments = "test --profile bench -p nodejobs-core --lib simulation -- --nocapture";
    let first = RandomState::new().hash_one(()) >> 32;
    let mut command = command(workspace, arguments);
    finish(command.env("NODEJOBS_SEEDS", SEEDS).env("NODEJOBS_FIRST", first.to_string()), arguments)
}

fn full_fuzz(workspace: &Workspace) -> Result<()> {
    fuzz::run(workspace, &fuzz::Options::of(FUZZ_SECONDS))
}

fn kills(workspace: &Workspace) -> Result<()> {
    conformance::run(workspace, &conformance::Options { store: None, kills: Some(KILLS) })
}

fn ci_chaos(workspace: &Workspace) -> Result<()> {
    chaos::run(workspace, &chaos::Options::ci())
}

fn full_chaos(workspace: &Workspace) -> Result<()> {
    STORES.iter().try_for_each(|store| chaos::run(workspace, &chaos::Options::full(store)))
}

fn full_machine(workspace: &Workspace) -> Result<()> {
    machine::run(workspace, &machine::Options::default())
}

fn full_bench(workspace: &Workspace) -> Result<()> {
    bench::run(workspace, &bench::Options::quick())
}
