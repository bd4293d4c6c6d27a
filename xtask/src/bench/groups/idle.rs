//! How often somebody wakes up while nothing happens.

use std::time::Duration;

use anyhow::Result;

use super::super::Bench;
use super::SLEEP;
use crate::process::wake_ups;

/// Ten jobs sleep meanwhile: a manager that looks after each of them now and then is not idle.
pub(super) fn idle(bench: &mut Bench) -> Result<()> {
    for (side, product) in bench.products("idle")? {
        product.api()?.submit(10, &SLEEP)?;
        let status = product.until_running(10)?;
        // What the last call set off may still come to an end.
        product.pause(&status, Duration::from_secs(1))?;
        let keepers = || status.keeper_processes().map(wake_ups).sum::<Result<f64>>();
        let before = (wake_ups(status.daemon)?, keepers()?);
        product.pause(&status, Duration::from_secs(5))?;
        let after = (wake_ups(status.daemon)?, keepers()?);
        bench.report.take("wake-ups-daemon", side, || Ok(after.0 - before.0));
        bench.report.take("wake-ups-keeper", side, || Ok(after.1 - before.1));
    }
    Ok(())
}
