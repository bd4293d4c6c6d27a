//! How many jobs that do nothing get through, in one batch and from a shell loop.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::Bench;
use super::super::floor::{self, Floors, milliseconds, number};
use super::super::peers::session::Session;
use super::super::report::{Cell, Key, Report, Side, TooSlow};
use super::{SLOTS, all_finished};
use crate::product::Product;

const MANY: usize = 1000;
const MOST: usize = 10_000;

/// With more than one job the figure is a rate, with one of them it is the time.
pub(super) fn batch(bench: &mut Bench) -> Result<()> {
    of_size(bench, 1, bench.count(50, 10))?;
    of_size(bench, MANY, bench.count(5, 2))?;
    if !bench.quick {
        of_size(bench, MOST, 3)?;
    }
    Ok(())
}

fn of_size(bench: &mut Bench, size: usize, rounds: usize) -> Result<()> {
    let key: Key = if size == 1 { "batch-1".into() } else { ("batch", size).into() };
    let value = |took: Duration| {
        if size == 1 { milliseconds(took) } else { number(size) / took.as_secs_f64() }
    };
    let directory = bench.fresh("floor")?;
    let floors = Floors::prepare(directory.clone())?;
    let name = format!("batch-{size}");
    let products = bench.products(&name)?;
    let mut sessions = bench.sessions(&name, SLOTS, &[(key, |peer| peer.batch)]);
    let (deadline, listings) = (bench.deadline(), bench.count(20, 10));
    let report = &mut bench.report;
    sessions.retain(|session| size != MOST || is_worth_trying(report, session.side(), deadline));
    for round in 0..rounds {
        report.take(key, Side::Floor, || floor::spawn(&directory, size, 2).map(value));
        for (side, product) in &products {
            report.take(key, *side, || no_op_jobs(product, size).map(value));
        }
        sessions.retain(|session| {
            report.take(key, session.side(), || {
                let words = session.peer.batch.expect("asked for above");
                Ok(value(session.call(words, "true", size)?.took))
            })
        });
        if round == 0 {
            list(report, size, listings, &floors, &products, &sessions);
        }
    }
    Ok(())
}

/// While there is just what one round left behind.
fn list(
    report: &mut Report,
    size: usize,
    rounds: usize,
    floors: &Floors,
    products: &[(Side, Product)],
    sessions: &[Session],
) {
    let key = ("ls", size);
    for _ in 0..rounds {
        report.take(key, Side::Floor, || floors.call());
        for (side, product) in products {
            report.take(key, *side, || product.time(&["ls"]).map(milliseconds));
        }
        for session in sessions {
            if let Some(words) = session.peer.list {
                report
                    .take(key, session.side(), || Ok(milliseconds(session.call(words, "true", size)?.took)));
            }
        }
    }
}

/// Who needs too long for ten times as many is not asked to.
fn is_worth_trying(report: &mut Report, side: Side, deadline: Duration) -> bool {
    let rate = report.find(("batch", MANY).into(), side).and_then(Cell::value);
    let seconds = rate.map_or(f64::INFINITY, |rate| number(MOST) / rate);
    if seconds <= deadline.as_secs_f64() {
        return true;
    }
    let why = match rate {
        Some(rate) => format!("would take {seconds:.0} s at the {rate:.1} a second of {MANY}"),
        None => format!("did not get through with {MANY}"),
    };
    report.fail(("batch", MOST), side, &TooSlow(why).into());
    false
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

pub(super) fn looped(bench: &mut Bench) -> Result<()> {
    let count = bench.count(1000, 100);
    let rate = |took: Duration| number(count) / took.as_secs_f64();
    let script =
        |command: &str| format!("i=0; while [ $i -lt {count} ]; do {command} || exit; i=$((i+1)); done");
    let products = bench.products("loop")?;
    let mut sessions = bench.sessions("loop", SLOTS, &[("loop".into(), |peer| peer.looped)]);
    let rounds = bench.count(3, 2);
    let report = &mut bench.report;
    for _ in 0..rounds {
        if let Some((_, product)) = products.first() {
            report.take("loop", Side::Floor, || Ok(rate(product.shell(&script("/bin/true"))?.took)));
        }
        for (side, product) in &products {
            report.take("loop", *side, || {
                let started = Instant::now();
                let ids = product.shell(&script("nodejobs run -- true"))?.stdout;
                let ids: Vec<String> = ids.lines().map(str::to_owned).collect();
                ensure!(ids.len() == count, "{} ids printed by {count} calls of `run`", ids.len());
                all_finished(&product.api()?.wait(&ids)?)?;
                Ok(rate(started.elapsed()))
            });
        }
        sessions.retain(|session| {
            report.take("loop", session.side(), || {
                let words = session.peer.looped.expect("asked for above");
                Ok(rate(session.call(words, "true", count)?.took))
            })
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_slow_with_1000_is_not_asked_for_10000() {
        let (quick, slow, broken) = (Side::Peer("quick"), Side::Peer("slow"), Side::Peer("broken"));
        let mut report = Report::new(Duration::ZERO);
        report.take(("batch", MANY), quick, || Ok(500.0));
        report.take(("batch", MANY), slow, || Ok(5.0));
        let deadline = Duration::from_secs(60);
        assert!(is_worth_trying(&mut report, quick, deadline));
        assert!(
            !is_worth_trying(&mut report, slow, deadline) && !is_worth_trying(&mut report, broken, deadline)
        );
        let why = |side| report.find(("batch", MOST).into(), side).and_then(|cell| cell.failure.clone());
        assert!(why(quick).is_none() && why(slow).unwrap().is_cut && why(broken).unwrap().is_cut);
        assert_eq!(why(slow).unwrap().why, "would take 2000 s at the 5.0 a second of 1000");
    }
}
