//! What is measured: one function a group, in one table.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Bench;
use super::capped;
use super::floor::{self, Floors, milliseconds, number, repeat};
use super::report::percentile;
use super::stores;
use crate::process::{cpu, pss, sealed, succeed, wake_ups};
use crate::product::{Product, Status};

/// Figures that share their preparation.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) needs_product: bool,
    pub(crate) measure: fn(&mut Bench) -> Result<()>,
}

/// Every group, in the order measured. A new one is a row here, its figures are rows of `FIGURES` in `report.rs`.
#[rustfmt::skip]
pub(crate) const GROUPS: &[Group] = &[
    Group { name: "floor",   needs_product: false, measure: floors,  about: "the machine without us" },
    Group { name: "run",     needs_product: true,  measure: run,     about: "latency of `run` and `run --wait`" },
    Group { name: "batch",   needs_product: true,  measure: batch,   about: "no-op jobs in one batch, then `ls`" },
    Group { name: "loop",    needs_product: true,  measure: looped,  about: "no-op jobs from a shell loop" },
    Group { name: "memory",  needs_product: true,  measure: memory,  about: "memory, re-adoption and stop with 1,000 jobs" },
    Group { name: "stop",    needs_product: true,  measure: stop,    about: "stop of one job and of 50" },
    Group { name: "output",  needs_product: true,  measure: output,  about: "200 MB of output" },
    Group { name: "capped",  needs_product: true,  measure: capped::capped, about: "a GiB of output with --log-cap 10M" },
    Group { name: "idle",    needs_product: true,  measure: idle,    about: "wake-ups while nothing happens" },
    Group { name: "crash",   needs_product: true,  measure: crash,   about: "exit codes after kill -9 of the daemon" },
    Group { name: "commits", needs_product: true,  measure: stores::commits, about: "jobs accepted a second, store by store" },
    Group { name: "history", needs_product: true,  measure: stores::history, about: "many ended jobs, store by store" },
];

/// Finds a group by its name.
pub(crate) fn find(name: &str) -> Result<&'static Group, String> {
    GROUPS.iter().find(|group| group.name == name).ok_or_else(|| {
        let names: Vec<_> = GROUPS.iter().map(|group| group.name).collect();
        format!("no such group; there are {}", names.join(", "))
    })
}

const MANY: usize = 1000;
const SLEEP: [&str; 2] = ["sleep", "1000"];

fn floors(bench: &mut Bench) -> Result<()> {
    let directory = bench.fresh("floor")?;
    let count = bench.count(2000, 500);
    for (each, rate, in_flight) in [("spawn-1", "spawn-1-rate", 1), ("spawn-2", "spawn-2-rate", 2)] {
        let seconds = floor::spawn(&directory, count, in_flight)?.as_secs_f64();
        bench.record(each, seconds * 1e6 / number(count), None);
        bench.record(rate, number(count) / seconds, None);
    }
    bench.record("append", floor::durable_append(&directory, bench.count(500, 200))?, None);
    bench.record("call", floor::call(bench.count(200, 50))?, None);
    Ok(())
}

/// Each `run` finds the machine quiet: the job before it has ended. The shell loop shows the other case.
fn run(bench: &mut Bench) -> Result<()> {
    let count = bench.count(200, 50);
    let floor = Floors::measure(&bench.fresh("floor")?, count)?;
    let product = bench.start("run")?;
    let samples = run_latency(&product, count)?;
    bench.record("run", samples, Some(floor.call + floor.append));
    let samples = repeat(count, || product.time(&["run", "--wait", "--", "true"]))?;
    bench.record("wait", samples, Some(floor.call + floor.append + floor.spawn));
    Ok(())
}

fn batch(bench: &mut Bench) -> Result<()> {
    let count = bench.count(5000, 1000);
    let floor = number(count) / floor::spawn(&bench.fresh("floor")?, count, 2)?.as_secs_f64();
    let product = bench.start("batch")?;
    let took = no_op_jobs(&product, count)?;
    bench.record("batch", number(count) / took.as_secs_f64(), Some(floor));

    let samples = bench.count(100, 50);
    let floor = percentile(&floor::call(samples)?, 50);
    bench.record("ls", repeat(samples, || product.time(&["ls"]))?, Some(floor));
    Ok(())
}

fn looped(bench: &mut Bench) -> Result<()> {
    let count = bench.count(500, 100);
    let script =
        |command: &str| format!("i=0; while [ $i -lt {count} ]; do {command} || exit; i=$((i+1)); done");
    let product = bench.start("loop")?;
    let floor = product.shell(&script("/bin/true"))?.took;
    let started = Instant::now();
    let ids = product.shell(&script("nodejobs run -- true"))?.stdout;
    let ids: Vec<String> = ids.lines().map(str::to_owned).collect();
    ensure!(ids.len() == count, "{} ids printed by {count} calls of `run`", ids.len());
    all_finished(&product.api()?.wait(&ids)?)?;
    let rate = number(count) / started.elapsed().as_secs_f64();
    bench.record("loop", rate, Some(number(count) / floor.as_secs_f64()));
    Ok(())
}

fn memory(bench: &mut Bench) -> Result<()> {
    let kill_floor = floor::kill(MANY)?;
    let call_floor = percentile(&floor::call(bench.count(200, 50))?, 50);
    let product = bench.start("memory")?;
    let record_memory = |bench: &mut Bench, status: &Status, state: &str| -> Result<()> {
        let keeper = status.keeper_processes().map(pss).sum::<Result<f64>>()?;
        bench.record(&format!("manager-{state}"), pss(status.daemon)?, None);
        bench.record(&format!("keeper-{state}"), keeper, None);
        Ok(())
    };
    record_memory(bench, &product.status()?, "idle")?;
    product.api()?.submit(MANY, &SLEEP)?;
    record_memory(bench, &product.until_running(MANY)?, "1000")?;

    product.crash()?;
    let started = Instant::now();
    product.call(&["daemon", "start"])?;
    product.until_running(MANY)?;
    bench.record("adopt-1000", milliseconds(started.elapsed()), Some(2.0 * call_floor));

    let took = product.time(&["stop", "--all", "--force"])?;
    bench.record("stop-1000", milliseconds(took), Some(call_floor + kill_floor));
    let left = product.status()?.running;
    ensure!(left == 0, "{left} jobs run on after `stop --all --force`");
    Ok(())
}

fn stop(bench: &mut Bench) -> Result<()> {
    let one = Floors::measure(&bench.fresh("floor")?, bench.count(200, 50))?;
    let many = one.call + floor::kill(50)?;
    let product = bench.start("stop")?;
    let samples = repeat(bench.count(50, 10), || {
        let id = submit(&product, &SLEEP)?;
        product.until_started(&id)?;
        product.time(&["stop", &id])
    })?;
    bench.record("stop", samples, Some(one.call + one.append + floor::kill(1)?));

    let samples = repeat(bench.count(5, 3), || {
        let ids = product.api()?.submit(50, &SLEEP)?;
        product.until_running(50)?;
        product.time(&[&["stop"], &ids.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat())
    })?;
    bench.record("stop-50", samples, Some(many));
    Ok(())
}

fn output(bench: &mut Bench) -> Result<()> {
    let direct = bench.fresh("output-direct")?.join("file");
    let product = bench.start("output")?;
    let processes: Vec<u32> = product.status()?.processes().collect();
    let used = |arguments: &[&str]| -> Result<(f64, f64)> {
        let total = || processes.iter().map(|pid| cpu(*pid)).sum::<Result<f64>>();
        // What an earlier round wrote must not be on its way to the disk during this one.
        rustix::fs::sync();
        let before = total()?;
        let took =
            milliseconds(product.time(&[&["run", "--log-cap", "none", "--wait", "--"], arguments].concat())?);
        Ok((took, total()? - before))
    };
    let (mut floors, mut times, mut extra) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.count(5, 2) {
        rustix::fs::sync();
        let mut shell = sealed("sh");
        shell.args(["-c", "head -c 200000000 /dev/zero > \"$0\""]).arg(&direct);
        floors.push(milliseconds(succeed(&mut shell, Duration::from_secs(60))?.took));
        fs::remove_file(&direct).with_context(|| format!("cannot remove {}", direct.display()))?;

        let (_, nothing) = used(&["true"])?;
        let (took, work) = used(&["sh", "-c", "head -c 200000000 /dev/zero"])?;
        times.push(took);
        extra.push((work - nothing).max(0.0));
    }
    bench.record("output", times, Some(percentile(&floors, 50)));
    bench.record("output-cpu", extra, None);
    Ok(())
}

/// Ten jobs sleep meanwhile: a manager that looks after each of them now and then is not idle.
fn idle(bench: &mut Bench) -> Result<()> {
    let product = bench.start("idle")?;
    product.api()?.submit(10, &SLEEP)?;
    let status = product.until_running(10)?;
    // What the last call set off may still come to an end.
    product.pause(&status, Duration::from_secs(1))?;
    let keepers = || status.keeper_processes().map(wake_ups).sum::<Result<f64>>();
    let before = (wake_ups(status.daemon)?, keepers()?);
    product.pause(&status, Duration::from_secs(5))?;
    bench.record("wake-ups-daemon", wake_ups(status.daemon)? - before.0, None);
    bench.record("wake-ups-keeper", keepers()? - before.1, None);
    Ok(())
}

fn crash(bench: &mut Bench) -> Result<()> {
    let witness = bench.fresh("crash-runs")?.join("file");
    let product = bench.start("crash")?;
    let script = "echo run >> \"$0\"; sleep 1; exit 7";
    let ids = product.api()?.submit(20, &["sh", "-c", script, &witness.to_string_lossy()])?;
    product.until_running(20)?;
    product.crash()?;
    product.call(&["daemon", "start"])?;
    let records = product.api()?.wait(&ids)?;
    let right = records.iter().filter(|record| record["status"] == "failed" && record["exit_code"] == 7);
    let runs = fs::read_to_string(&witness).context("the jobs left no trace")?.lines().count();
    bench.record("crash-codes", number(right.count()), None);
    bench.record("crash-runs", number(runs), None);
    Ok(())
}

fn run_latency(product: &Product, count: usize) -> Result<Vec<f64>> {
    repeat(count, || {
        let ended = product.call(&["run", "--", "true"])?;
        product.call(&["wait", ended.stdout.trim()])?;
        Ok(ended.took)
    })
}

/// Submits one job through the command line; its id.
fn submit(product: &Product, argv: &[&str]) -> Result<String> {
    Ok(product.call(&[&["run", "--"], argv].concat())?.stdout.trim().to_owned())
}

/// Time from the first byte of the batch to the last ended job.
fn no_op_jobs(product: &Product, count: usize) -> Result<Duration> {
    let api = product.api()?;
    let started = Instant::now();
    let ids = api.submit(count, &["true"])?;
    let records = api.wait(&ids)?;
    let took = started.elapsed();
    all_finished(&records)?;
    Ok(took)
}

fn all_finished(records: &[Value]) -> Result<()> {
    match records.iter().find(|record| record["status"] != "finished") {
        None => Ok(()),
        Some(record) => anyhow::bail!("a job of `true` did not finish: {record}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_not_there_is_answered_with_those_that_are() {
        assert!(find("floor").is_ok());
        assert!(find("flor").err().unwrap().ends_with("crash, commits, history"));
    }
}
