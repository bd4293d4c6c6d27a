//! Memory of everything but the jobs, idle and with many of them; and what else takes many running jobs.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::floor::{self, Floors, milliseconds};
use super::super::peers::session::Session;
use super::super::report::{Key, Report, Side};
use super::super::{Bench, Wanted};
use super::SLEEP;
use crate::process::{pause, pss};
use crate::product::Product;

const SOME: usize = 100;
const MANY: usize = 1000;
/// What is measured is what jobs that run take, not what starting them took a moment ago.
const REST: Duration = Duration::from_secs(2);

/// One after the other: pages that several share would be shared out among them.
pub(super) fn memory(bench: &mut Bench) -> Result<()> {
    let floors = Floors::prepare(bench.fresh("floor")?)?;
    let rounds = bench.count(20, 5);
    for _ in 0..rounds {
        bench.report.take("adopt-1000", Side::Floor, || Ok(2.0 * floors.call()?));
    }
    bench.report.take("stop-1000", Side::Floor, || Ok(floors.call()? + floor::kill(MANY)?));
    for store in bench.stores.clone() {
        let product = bench.product("memory", store)?;
        if let Err(error) = ours(&mut bench.report, Side::Ours(store), &product) {
            bench.report.fail(("memory", MANY), Side::Ours(store), &error);
        }
    }
    for peer in bench.peers() {
        let wanted: [Wanted; 1] = [(("memory", SOME).into(), |peer| peer.sleepers)];
        if let Some(session) = bench.session(peer, "memory", MANY, &wanted) {
            theirs(&mut bench.report, &session);
        }
    }
    Ok(())
}

fn ours(report: &mut Report, side: Side, product: &Product) -> Result<()> {
    let mut manager_and_keeper = |state: &str, all: Key| -> Result<()> {
        let status = product.status()?;
        product.pause(&status, REST)?;
        let manager = pss(status.daemon)?;
        let keeper = status.keeper_processes().map(pss).sum::<Result<f64>>()?;
        if state != "100" {
            report.take(&*format!("manager-{state}"), side, || Ok(manager));
            report.take(&*format!("keeper-{state}"), side, || Ok(keeper));
        }
        report.take(all, side, || Ok(manager + keeper));
        Ok(())
    };
    manager_and_keeper("idle", "memory-idle".into())?;
    product.api()?.submit(SOME, &SLEEP)?;
    product.until_running(SOME)?;
    manager_and_keeper("100", ("memory", SOME).into())?;
    product.api()?.submit(MANY - SOME, &SLEEP)?;
    product.until_running(MANY)?;
    manager_and_keeper("1000", ("memory", MANY).into())?;

    report.take("adopt-1000", side, || {
        product.crash()?;
        let started = Instant::now();
        product.call(&["daemon", "start"])?;
        product.until_running(MANY)?;
        Ok(milliseconds(started.elapsed()))
    });
    report.take("stop-1000", side, || {
        let took = product.time(&["stop", "--all", "--force"])?;
        let left = product.status()?.running;
        ensure!(left == 0, "{left} jobs run on after `stop --all --force`");
        Ok(milliseconds(took))
    });
    Ok(())
}

fn theirs(report: &mut Report, session: &Session) {
    let Some(sleepers) = session.peer.sleepers else { return };
    let all = || session.processes().into_iter().map(pss).sum::<Result<f64>>();
    // Who starts nothing for itself has nothing to be idle.
    if session.has_manager() {
        report.take("memory-idle", session.side(), all);
    }
    let mut running = 0;
    for size in [SOME, MANY] {
        let measured = report.take(("memory", size), session.side(), || {
            session.call(sleepers, "true", size - running)?;
            session.until_sleeping(size)?;
            pause(REST)?;
            all()
        });
        if !measured {
            return;
        }
        running = size;
    }
}
