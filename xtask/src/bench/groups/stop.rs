//! How long it takes until a job is gone that ends when it is asked to, and 50 of them.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::super::floor::{self, Floors, milliseconds};
use super::super::peers::Words;
use super::super::peers::session::Session;
use super::super::report::Side;
use super::super::{Bench, Wanted};
use super::SLEEP;
use crate::process::{exited, pidfd};

const MANY: usize = 50;

pub(super) fn stop(bench: &mut Bench) -> Result<()> {
    let floors = Floors::prepare(bench.fresh("floor")?)?;
    let products = bench.products("stop")?;
    let wanted: [Wanted; 2] = [("stop".into(), |peer| peer.stop), ("stop-50".into(), |peer| peer.stop_all)];
    let mut sessions = bench.sessions("stop", MANY, &wanted);
    let (ones, manies) = (bench.count(50, 10), bench.count(10, 3));
    let report = &mut bench.report;
    for _ in 0..ones {
        report.take("stop", Side::Floor, || Ok(floors.call()? + floors.append()? + floor::kill(1)?));
        for (side, product) in &products {
            report.take("stop", *side, || {
                let id = product.call(&[&["run", "--"], &SLEEP[..]].concat())?.stdout.trim().to_owned();
                product.until_started(&id)?;
                product.time(&["stop", &id]).map(milliseconds)
            });
        }
        sessions
            .retain(|session| report.take("stop", session.side(), || stopped(session, session.peer.stop, 1)));
    }
    for _ in 0..manies {
        report.take("stop-50", Side::Floor, || Ok(floors.call()? + floor::kill(MANY)?));
        for (side, product) in &products {
            report.take("stop-50", *side, || {
                let ids = product.api()?.submit(MANY, &SLEEP)?;
                product.until_running(MANY)?;
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                product.time(&[&["stop"], &ids[..]].concat()).map(milliseconds)
            });
        }
        sessions.retain(|session| {
            report.take("stop-50", session.side(), || stopped(session, session.peer.stop_all, MANY))
        });
    }
    Ok(())
}

/// Not all peers wait for the end of what they stop, so it is the end of the jobs that counts, and of the call.
fn stopped(session: &Session, stop: Option<Words>, count: usize) -> Result<f64> {
    let (Some(sleepers), Some(stop)) = (session.peer.sleepers, stop) else {
        unreachable!("asked for by `sessions`")
    };
    session.call(sleepers, "true", count)?;
    let processes = session.until_sleeping(count)?.into_iter().map(pidfd).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    session.call(stop, "true", count)?;
    for process in processes {
        ensure!(exited(&process, session.deadline())?, "a job was stopped and runs on");
    }
    Ok(milliseconds(started.elapsed()))
}
