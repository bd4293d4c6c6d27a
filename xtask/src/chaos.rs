//! `cargo xtask chaos`: jobs of many kinds are submitted, stopped, restarted and followed while commands, daemons, both
//! halves of keepers and the jobs themselves are killed and frozen at random instants; then [`check`] looks for a job
//! that was lost, run twice, or told of wrongly.

mod check;
mod episodes;
mod export;
mod failing;
mod flipper;
mod halter;
mod harm;
mod job_killer;
mod keeper_killer;
mod listener;
mod plan;
pub(crate) mod random;
mod scene;
mod slow_mount;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::process::all_that_name;
use crate::product::CommandLine;
use crate::scratch::Scratch;
use crate::workspace::{STORES, Workspace};
use check::{Done, Evidence, Logs, Story, Submitted};
use export::{Event, Export};
use scene::Scene;
use slow_mount::SlowMount;

const SECONDS: u64 = 60;
/// So long in CI, and with each store in its full run.
const CI_SECONDS: u64 = 30;
const FULL_SECONDS: u64 = 600;
/// Episodes at the same time.
const SUBMITTERS: usize = 8;
/// How long the daemons and the keepers may take to leave once they are told to.
const LEAVING: Duration = Duration::from_secs(20);
/// How long jobs may take to end once nobody does harm any more.
const ENDING: Duration = Duration::from_secs(60);
const LIVING: &str = "queued,starting,running,paused,stopping,failed_stop,restarting";
/// What is shown of the violations.
const SHOWN: usize = 20;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long to submit and to kill
    #[arg(long, value_name = "N", default_value_t = SECONDS)]
    seconds: u64,
    /// Draws the same jobs and the same kills again, though never at the same instants [default: a random one]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// The store to try, when not the default one
    #[arg(long, value_name = "STORE", value_parser = STORES)]
    store: Option<String>,
    /// Try the build that CI tests, instead of an optimised one
    #[arg(long)]
    tested: bool,
    /// Leave this kind of harm out, to narrow down what has done it
    #[arg(long, value_name = "KIND")]
    spare: Vec<Harmful>,
}

/// The kinds of harm that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Harmful {
    /// Processes that are halted while owners are replaced.
    Halts,
    /// A file system that hangs.
    Mount,
    /// System calls that fail.
    Calls,
    /// Bits that are flipped.
    Files,
}

impl Options {
    /// What every run of CI does.
    pub(crate) fn ci() -> Self {
        Self { seconds: CI_SECONDS, seed: None, store: None, tested: true, spare: Vec::new() }
    }

    /// What a full run does with each store.
    pub(crate) fn full(store: &str) -> Self {
        Self {
            seconds: FULL_SECONDS,
            seed: None,
            store: Some(store.to_owned()),
            tested: false,
            spare: Vec::new(),
        }
    }
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let product = if options.tested {
        workspace.build_tested()?
    } else {
        workspace.build_product()?;
        workspace.product()
    };
    let mount = workspace.target.join("chaos").join("slow");
    SlowMount::clear(&mount)?;
    let scratch = Scratch::take(workspace, "chaos")?;
    let seed = options.seed.unwrap_or_else(|| RandomState::new().hash_one(()));
    let store = options.store.as_deref().unwrap_or("default");
    eprintln!("chaos: {} s with seed {seed}, {store} store", options.seconds);
    let started = Instant::now();
    let seconds = Duration::from_secs(options.seconds);
    fs::create_dir_all(&mount).with_context(|| format!("cannot create {}", mount.display()))?;
    let mount = match SlowMount::serve(&mount, seed) {
        _ if options.spare.contains(&Harmful::Mount) => None,
        Ok(mount) => Some(mount),
        Err(error) => {
            eprintln!("chaos: without a file system that hangs: {error:#}");
            None
        }
    };
    let mut scene =
        Scene::new(&product, options.store.as_deref(), scratch.directory(), seed, seconds, mount)?;
    scene.spared.clone_from(&options.spare);
    // Whatever an earlier run has left that not even its daemon could end.
    for pid in all_that_name(scene.root())? {
        scene.kill(pid)?;
    }
    let lines = (1..=plan::INPUT_LINES).map(|line| format!("{line}\n")).collect::<String>();
    fs::write(scene.work().join(plan::INPUT), lines).context("cannot write what jobs read")?;

    let enough = AtomicBool::new(false);
    let (jobs, heard, mut wrong) = thread::scope(|scope| {
        let listener = scope.spawn(|| listener::listen(&scene, &enough));
        let jobs = turmoil(&scene);
        let wrong = jobs.is_ok().then(|| calm(&scene, &enough));
        // Whatever went wrong: without a daemon and without this word, the listener would wait for ever.
        enough.store(true, Ordering::Release);
        let _ = scene.call(&["daemon", "start"]);
        let heard = listener.join().expect("the listener panicked");
        Ok::<_, anyhow::Error>((jobs?, heard?, wrong.unwrap_or_else(|| Ok(Vec::new()))?))
    })?;
    wrong.extend(leave(&scene)?);
    let story = tell(&scene, jobs, heard)?;
    wrong.extend(store_problems(&scene)?);
    let verdict = check::judge(&story);
    wrong.extend(verdict.violations.iter().map(ToString::to_string));

    for violation in wrong.iter().take(SHOWN) {
        eprintln!("chaos: {violation}");
    }
    let harm = scene.harm();
    let kills: usize = KILLS.iter().filter_map(|kind| harm.counts.get(kind)).sum();
    println!(
        "chaos: {store} store, {} jobs, {} attempts, {} commands ({} gave up for a good reason), {} events heard; \
         {kills} kills ({}); statuses: {}; {} outcomes lost with both halves of a keeper; {} violations; {:.1} s, \
         seed {seed}",
        story.jobs.len() + story.nested.iter().map(|nested| nested.jobs.len()).sum::<usize>(),
        verdict.attempts,
        story.jobs.iter().map(|job| job.calls.len()).sum::<usize>(),
        verdict.gave_up,
        story.heard.len(),
        counts(&harm.counts),
        counts(&statuses(&story)),
        verdict.excepted,
        wrong.len(),
        started.elapsed().as_secs_f64(),
    );
    if !wrong.is_empty() {
        bail!(
            "chaos: {} violations, {store} store, seed {seed}; everything stays in {} until the next run",
            wrong.len(),
            scene.root().display()
        );
    }
    ensure!(kills > 0, "chaos: nothing was killed, so nothing was tried");
    drop(harm);
    // It is unmounted before its place is cleared.
    drop(scene);
    scratch.clear()
}

/// The kinds of harm that are SIGKILL.
const KILLS: [&str; 7] = ["daemon", "guard", "worker", "both halves", "job", "child", "command"];

/// Who does harm until the time is up.
type Killer = fn(&Scene) -> Result<()>;

/// Work and harm, until the time is up.
fn turmoil(scene: &Scene) -> Result<Vec<Submitted>> {
    let numbers = AtomicU64::new(0);
    thread::scope(|scope| {
        let submitters: Vec<_> =
            (0..SUBMITTERS).map(|_| scope.spawn(|| episodes::submit(scene, &numbers))).collect();
        let killers: [(Killer, Option<Harmful>); 4] = [
            (keeper_killer::kill, None),
            (job_killer::kill, None),
            (halter::halt, Some(Harmful::Halts)),
            (failing::fail, Some(Harmful::Calls)),
        ];
        let killers = killers.into_iter().filter(|(_, harm)| harm.is_none_or(|harm| !scene.spares(harm)));
        let killers: Vec<_> = killers.map(|(killer, _)| scope.spawn(move || killer(scene))).collect();
        let jobs = submitters.into_iter().map(|submitter| submitter.join().expect("a submitter panicked"));
        let jobs = jobs.collect::<Result<Vec<_>>>();
        killers.into_iter().try_for_each(|killer| killer.join().expect("a killer panicked"))?;
        Ok(jobs?.concat())
    })
}

/// Nobody does harm any more: all jobs end. What is wrong.
fn calm(scene: &Scene, enough: &AtomicBool) -> Result<Vec<String>> {
    if let Some(mount) = scene.mount() {
        mount.be_quick();
    }
    let mut wrong = Vec::new();
    for directory in scene.nested().chain([scene.data()]) {
        if directory.join("nodejobs.json").exists() {
            wrong.extend(settle(&scene.command_line(&directory))?);
        }
    }
    // The stream that is under way ends with the daemon; the next question hears the rest.
    enough.store(true, Ordering::Release);
    let main = scene.command_line(&scene.data());
    main.call(&["daemon", "stop"])?;
    main.call(&["daemon", "start"])?;
    Ok(wrong)
}

/// Waits until all jobs of a directory have ended; those that did not.
fn settle(command_line: &CommandLine) -> Result<Vec<String>> {
    let deadline = Instant::now() + ENDING;
    loop {
        let living = list(command_line, &["--status", LIVING])?;
        let ids = |status: &str| -> Vec<&str> {
            let of_status = living.iter().filter(|record| status.is_empty() || record["status"] == status);
            of_status.filter_map(|record| record["self_id"].as_str()).collect()
        };
        if living.is_empty() {
            return Ok(Vec::new());
        }
        if Instant::now() > deadline {
            return Ok(living.iter().map(|record| format!("it has not ended: {record}")).collect());
        }
        // Somebody who was killed could not let them go on.
        let paused = ids("paused");
        if !paused.is_empty() {
            let _ = command_line.finish(&[&["resume"], &paused[..]].concat())?;
        }
        let _ = command_line.finish(&[&["wait", "--timeout", "5s"], &ids("")[..]].concat())?;
    }
}

fn list(command_line: &CommandLine, arguments: &[&str]) -> Result<Vec<Value>> {
    match command_line.json(&[&["ls", "--all"], arguments].concat())? {
        Value::Array(records) => Ok(records),
        other => bail!("`ls -o json` gave no array: {other}"),
    }
}

/// Everything that is known in the end.
fn tell(scene: &Scene, jobs: Vec<Submitted>, heard: Vec<Event>) -> Result<Story> {
    let read =
        |directory: &Path| Export::parse(&scene.command_line(directory).call(&["store", "export"])?.stdout);
    let existing = scene.nested().filter(|directory| directory.join("nodejobs.json").exists());
    let evidence = scene.work().join(plan::EVIDENCE);
    let evidence =
        fs::read_to_string(&evidence).with_context(|| format!("cannot read {}", evidence.display()))?;
    let export = read(&scene.data())?;
    let harm = scene.harm();
    Ok(Story {
        logs: logs(&scene.data(), &export)?,
        export,
        nested: existing.map(|directory| read(&directory)).collect::<Result<_>>()?,
        jobs,
        heard,
        evidence: Evidence::parse(&evidence)?,
        done: Done {
            hits: harm.hits.clone(),
            orphaned: harm.orphaned.clone(),
            children: harm.children.clone(),
        },
    })
}

/// The log files of all attempts that wrote something: `logs/XX/ID.ATTEMPT.out` and `.err`.
fn logs(data: &Path, export: &Export) -> Result<Logs> {
    let mut logs = Logs::new();
    for directory in fs::read_dir(data.join("logs")).context("cannot list the logs")? {
        for file in fs::read_dir(directory?.path()).context("cannot list the logs")? {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some((stem, stream)) = name.rsplit_once('.') else { continue };
            let Some((id, attempt)) = stem.rsplit_once('.') else { continue };
            let (Ok(attempt), true) = (attempt.parse(), export.jobs.contains_key(id)) else { continue };
            let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            // Beside them are the indexes of when they were written.
            let place = match stream {
                "out" => 0,
                "err" => 1,
                _ => continue,
            };
            let both: &mut [String; 2] = logs.entry((id.to_owned(), attempt)).or_default();
            both[place] = String::from_utf8_lossy(&text).into_owned();
        }
    }
    Ok(logs)
}

/// Stops all daemons; who did not leave.
fn leave(scene: &Scene) -> Result<Vec<String>> {
    for directory in scene.nested().chain([scene.data()]) {
        if directory.join("nodejobs.json").exists() {
            scene.command_line(&directory).call(&["daemon", "stop"])?;
        }
    }
    let deadline = Instant::now() + LEAVING;
    loop {
        let mut left = all_that_name(scene.root())?;
        left.extend(scene.marked()?.into_iter().map(|(pid, _)| pid));
        let Some(first) = left.first() else { return Ok(Vec::new()) };
        if Instant::now() > deadline {
            return Ok(left.iter().map(|pid| format!("process {pid} is left: {}", describe(*pid))).collect());
        }
        if let Ok(process) = crate::process::pidfd(*first) {
            crate::process::exited(process, Duration::from_millis(200))?;
        }
    }
}

fn describe(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mark = environment.split(|byte| *byte == 0).find(|text| text.starts_with(b"NODEJOBS_MARK="));
    let mut text = String::from_utf8_lossy(&line).replace('\0', " ");
    let _ = write!(text, "{}", String::from_utf8_lossy(mark.unwrap_or_default()));
    text
}

/// What `store check` finds.
fn store_problems(scene: &Scene) -> Result<Vec<String>> {
    let check = scene.command_line(&scene.data()).finish(&["-o", "json", "store", "check"])?;
    let found: Value = serde_json::from_str(&check.stdout)
        .with_context(|| format!("`store check` gave no JSON: {}", check.stderr))?;
    let problems = found["problems"].as_array().context("`store check` tells of no problems")?;
    Ok(problems.iter().map(|problem| format!("the store: {problem}")).collect())
}

fn statuses(story: &Story) -> BTreeMap<&str, usize> {
    let attempts =
        story.export.jobs.values().chain(story.nested.iter().flat_map(|nested| nested.jobs.values()));
    let mut counts = BTreeMap::new();
    attempts.flatten().for_each(|attempt| *counts.entry(attempt.status.as_str()).or_default() += 1);
    counts
}

fn counts(counts: &BTreeMap<&str, usize>) -> String {
    counts.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}
