//! `cargo xtask chaos`: jobs are submitted all the time while daemons, guards and workers are killed at random
//! instants; then [`check`] looks for a job that was lost, run twice, or told of wrongly.

mod check;
mod random;

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::process::{Ended, pause};
use crate::product::{CommandLine, Keeper, Product};
use crate::scratch::Scratch;
use crate::workspace::{STORES, Workspace};
use check::Submitted;
use random::Random;

const SECONDS: u64 = 60;
/// Calls of `run` and `stop` at the same time.
const SUBMITTERS: usize = 4;
/// A keeper outlives the end of one of its processes, not of both in one instant: long enough for the one that is
/// left to have seen all its jobs end.
const APART: Duration = Duration::from_millis(1500);
/// How long the daemon and the keepers may take to leave once they are told to.
const LEAVING: Duration = Duration::from_secs(10);
const LIVING: &str = "queued,starting,running,paused,stopping,failed_stop,restarting";
const EVIDENCE: &str = "evidence";

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
}

impl Options {
    /// As long as usual, with this store.
    pub(crate) fn of(store: &str) -> Self {
        Self { seconds: SECONDS, seed: None, store: Some(store.to_owned()) }
    }
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    workspace.build_product()?;
    let scratch = Scratch::take(workspace, "chaos")?;
    let product = Product::attach(scratch.product(), &scratch.path("data"), options.store.as_deref());
    let directory = scratch.fresh("work")?;
    let seed = options.seed.unwrap_or_else(|| RandomState::new().hash_one(()));
    let store = options.store.as_deref().unwrap_or("default");
    eprintln!("chaos: {} s with seed {seed}, {store} store", options.seconds);

    let started = Instant::now();
    let turmoil = Turmoil {
        command_line: product.command_line(),
        directory: &directory,
        seed,
        submitted: AtomicU64::new(0),
        end: started + Duration::from_secs(options.seconds),
    };
    let (jobs, kills) = thread::scope(|scope| {
        let submitters: Vec<_> = (0..SUBMITTERS).map(|_| scope.spawn(|| turmoil.submit())).collect();
        let kills = turmoil.kill(&product);
        let jobs = submitters.into_iter().map(|submitter| submitter.join().expect("a submitter panicked"));
        Ok::<_, anyhow::Error>((jobs.collect::<Result<Vec<_>>>()?.concat(), kills?))
    })?;

    let records = settled(product.command_line())?;
    let evidence = directory.join(EVIDENCE);
    let evidence =
        fs::read_to_string(&evidence).with_context(|| format!("cannot read {}", evidence.display()))?;
    let broken = check::violations(&jobs, &records, &evidence);
    let mut violations: Vec<String> = broken.iter().map(ToString::to_string).collect();
    violations.extend(leave(&product)?);

    for violation in &violations {
        eprintln!("chaos: {violation}");
    }
    println!(
        "chaos: {store} store, {} jobs ({} asked to stop), kills: {}, statuses: {}, {} violations, {:.1} s, seed {seed}",
        jobs.len(),
        jobs.iter().filter(|job| job.stop.is_some()).count(),
        counts(&kills),
        counts(&count(records.iter().map(|record| record["status"].as_str().unwrap_or("none")))),
        violations.len(),
        started.elapsed().as_secs_f64(),
    );
    if !violations.is_empty() {
        bail!(
            "chaos: {} violations, {store} store, seed {seed}; the data directory stays until the next run",
            violations.len()
        );
    }
    ensure!(!kills.is_empty(), "chaos: nothing was killed, so nothing was tried");
    drop(product);
    scratch.clear()
}

/// What the submitters and the killer share.
struct Turmoil<'a> {
    command_line: &'a CommandLine,
    /// Where the jobs run.
    directory: &'a Path,
    seed: u64,
    submitted: AtomicU64,
    end: Instant,
}

impl Turmoil<'_> {
    /// Submits one job after the other until the end, and stops some of them.
    fn submit(&self) -> Result<Vec<Submitted>> {
        let mut jobs = Vec::new();
        while Instant::now() < self.end {
            let number = self.submitted.fetch_add(1, Ordering::Relaxed) + 1;
            let mut random = Random::new(self.seed, number);
            jobs.push(self.submit_one(number, &mut random)?);
            pause(random.up_to(Duration::from_millis(120)))?;
        }
        Ok(jobs)
    }

    fn submit_one(&self, number: u64, random: &mut Random) -> Result<Submitted> {
        let id = format!("j{number}");
        let seconds = random.pick(&["0", "0", "0.05", "0.3", "1"]);
        let code = random.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let script = format!("echo $JOB_ID $NODEJOBS_ATTEMPT >> {EVIDENCE}; sleep {seconds}; exit {code}");
        let directory = self.directory.to_string_lossy();
        let run = self.ask(&["run", "--id", &id, "--cwd", &directory, "--shell", "--", &script]);
        let run = run.and_then(|said| match said.trim_end() == id {
            true => Ok(()),
            false => Err(format!("printed '{said}'")),
        });
        let mut stop = None;
        if run.is_ok() && random.pick(&[true, false, false, false, false]) {
            pause(random.up_to(Duration::from_millis(400)))?;
            stop = Some(self.ask(&["stop", &id]).map(drop));
        }
        Ok(Submitted { id, code, run, stop })
    }

    /// What a command that has to succeed printed, or else what became of it.
    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        match self.command_line.finish(arguments) {
            Ok(Ended { status, stdout, .. }) if status.success() => Ok(stdout),
            Ok(Ended { status, stderr, .. }) => Err(format!("{status}: {}", stderr.trim_end())),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    /// Kills one process after the other until the end; how many of each kind.
    fn kill(&self, product: &Product) -> Result<BTreeMap<&'static str, usize>> {
        let mut random = Random::new(self.seed, 0);
        let mut pairs = Pairs::default();
        let mut killed = Vec::new();
        while Instant::now() < self.end {
            // Whoever asks a daemon that was just killed gets no answer; the submitters start another one.
            let status = product.status();
            pause(random.up_to(Duration::from_millis(50)))?;
            if let Ok(status) = status {
                pairs.learn(&status.keepers);
                let kind = random.pick(&["daemon", "guard", "worker"]);
                let candidates: Vec<u32> = match kind {
                    "daemon" => vec![status.daemon],
                    "guard" => status.keepers.iter().filter_map(|keeper| keeper.guard).collect(),
                    _ => status.keepers.iter().filter_map(|keeper| keeper.worker).collect(),
                };
                if !candidates.is_empty() {
                    let pid = random.pick(&candidates);
                    let now = Instant::now();
                    if (kind == "daemon" || pairs.may_lose(pid, now)) && product.kill(pid)? {
                        pairs.lost(pid, now);
                        killed.push(kind);
                    }
                }
            }
            pause(random.up_to(Duration::from_millis(150)))?;
        }
        Ok(count(killed.into_iter()))
    }
}

/// Which two processes are one keeper, and when one of them was killed.
#[derive(Default)]
struct Pairs {
    others: BTreeMap<u32, u32>,
    killed: BTreeMap<u32, Instant>,
}

impl Pairs {
    fn learn(&mut self, keepers: &[Keeper]) {
        for keeper in keepers {
            if let (Some(guard), Some(worker)) = (keeper.guard, keeper.worker) {
                self.others.extend([(guard, worker), (worker, guard)]);
                // Alive, so what bore the number before is another process.
                self.killed.retain(|pid, at| ![guard, worker].contains(pid) || at.elapsed() < APART);
            }
        }
    }

    /// Whether this one may be killed now. Not one whose other half is unknown: it may just have been killed.
    fn may_lose(&self, pid: u32, now: Instant) -> bool {
        self.others.get(&pid).is_some_and(|other| {
            self.killed.get(other).is_none_or(|at| now.saturating_duration_since(*at) >= APART)
        })
    }

    fn lost(&mut self, pid: u32, now: Instant) {
        self.killed.insert(pid, now);
    }
}

/// Waits until all jobs have ended, as long as a command may take; every job's record.
fn settled(command_line: &CommandLine) -> Result<Vec<Value>> {
    let list = |arguments: &[&str]| -> Result<Vec<Value>> {
        match command_line.json(&[&["ls", "--all"], arguments].concat())? {
            Value::Array(records) => Ok(records),
            other => bail!("`ls -o json` gave no array: {other}"),
        }
    };
    let living = list(&["--status", LIVING])?;
    let ids: Vec<&str> = living.iter().filter_map(|record| record["self_id"].as_str()).collect();
    if !ids.is_empty() {
        // Ends as the jobs did, or does not end: the records tell more of both.
        let _ = command_line.finish(&[&["wait"], &ids[..]].concat());
    }
    list(&[])
}

/// Stops the daemon; who did not leave.
fn leave(product: &Product) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    if let Err(error) = product.call(&["daemon", "stop"]) {
        wrong.push(format!("{error:#}"));
    }
    for pid in product.until_gone(LEAVING)? {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        wrong.push(format!("process {pid} is left after `daemon stop`: {line}"));
    }
    Ok(wrong)
}

fn count<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    words.for_each(|word| *counts.entry(word).or_default() += 1);
    counts
}

fn counts(counts: &BTreeMap<&str, usize>) -> String {
    counts.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_loses_one_half_at_a_time() {
        let mut pairs = Pairs::default();
        let pair = |guard, worker| Keeper { guard, worker };
        pairs.learn(&[pair(Some(1), Some(2)), pair(Some(3), Some(4)), pair(None, Some(5))]);
        let now = Instant::now();
        assert!([1, 2, 3, 4].iter().all(|pid| pairs.may_lose(*pid, now)));
        assert!(!pairs.may_lose(5, now), "its guard may have been killed this instant");

        pairs.lost(1, now);
        pairs.learn(&[pair(None, Some(2)), pair(Some(3), Some(4))]);
        assert!(!pairs.may_lose(2, now + APART / 2));
        assert!(pairs.may_lose(2, now + APART));
        assert!(pairs.may_lose(4, now), "another keeper");
    }

    #[test]
    fn counts_are_shown_by_word() {
        assert_eq!(counts(&count(["b", "a", "b"].into_iter())), "1 a, 2 b");
    }
}
