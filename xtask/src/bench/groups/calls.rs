//! How long a call takes that submits one job.

use anyhow::Result;

use super::super::floor::{Floors, milliseconds};
use super::super::report::Side;
use super::super::{Bench, Wanted};
use super::SLOTS;

/// Each call finds the machine quiet: the job before it has ended. The shell loop shows the other case.
pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let floors = Floors::prepare(bench.fresh("floor")?)?;
    let products = bench.products("run")?;
    let wanted: [Wanted; 2] = [("run".into(), |peer| peer.submit), ("wait".into(), |peer| peer.wait)];
    let mut sessions = bench.sessions("run", SLOTS, &wanted);
    let rounds = bench.count(200, 50);
    let report = &mut bench.report;
    for _ in 0..rounds {
        report.take("run", Side::Floor, || Ok(floors.call()? + floors.append()?));
        report.take("wait", Side::Floor, || Ok(floors.call()? + floors.append()? + floors.spawn()?));
        for (side, product) in &products {
            report.take("run", *side, || {
                let ended = product.call(&["run", "--", "true"])?;
                product.call(&["wait", ended.stdout.trim()])?;
                Ok(milliseconds(ended.took))
            });
            report.take("wait", *side, || product.time(&["run", "--wait", "--", "true"]).map(milliseconds));
        }
        sessions.retain(|session| {
            [("run", session.peer.submit), ("wait", session.peer.wait)].into_iter().all(|(figure, words)| {
                words.is_none_or(|words| {
                    report.take(figure, session.side(), || {
                        Ok(milliseconds(session.call(words, "true", 1)?.took))
                    })
                })
            })
        });
    }
    Ok(())
}
