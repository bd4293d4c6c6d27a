//! What was done to the product, noted at once: the rules ask it what they have to forgive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// A connection may break so often in quick succession before a command gives up.
const MOST_BREAKS: usize = 3;
/// A death may break two connections of a command: who comes back at once meets a listener that is just being closed.
const BREAKS_OF_A_DEATH: usize = 2;
/// A daemon that says nothing for so long is one to give up on.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// What was done just before a command began may still be under way then.
const AFTERMATH: Duration = Duration::from_millis(100);
/// Starts that failed are remembered so long.
const SERIES: Duration = Duration::from_secs(120);

/// All harm that was done so far.
#[derive(Default)]
pub(crate) struct Harm {
    /// Processes killed and frozen, by kind.
    pub(crate) counts: BTreeMap<&'static str, usize>,
    /// Processes of jobs that were killed: id, attempt, process.
    pub(crate) hits: BTreeSet<(String, u32, u32)>,
    /// When a keeper lost both halves, on the boot clock.
    pub(crate) orphaned: Vec<u64>,
    /// When somebody was killed between clone and execve, on the boot clock.
    pub(crate) children: Vec<u64>,
    failing: Vec<(Instant, Instant)>,
    daemon_deaths: Vec<Instant>,
    daemon_stops: Vec<(Instant, Instant)>,
    freezes: Vec<(Instant, Instant)>,
}

impl Harm {
    pub(crate) fn count(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }

    pub(crate) fn killed_daemon(&mut self, at: Instant) {
        self.daemon_deaths.push(at);
        self.count("daemon");
    }

    /// A daemon was told to leave, from when until when.
    pub(crate) fn stopped_daemon(&mut self, from: Instant, until: Instant) {
        self.daemon_stops.push((from, until));
    }

    pub(crate) fn froze(&mut self, from: Instant, until: Instant) {
        self.freezes.push((from, until));
    }

    /// System calls of a daemon or a worker failed.
    pub(crate) fn failed_calls(&mut self, from: Instant, until: Instant) {
        self.failing.push((from, until));
    }

    /// Whether system calls failed while a command ran between these times: then it may say whatever it wants.
    pub(crate) fn disturbs(&self, from: Instant, until: Instant) -> bool {
        self.failing.iter().any(|failing| meanwhile(failing, from, until))
    }

    /// How many daemons were killed between these times.
    pub(crate) fn deaths(&self, from: Instant, until: Instant) -> usize {
        self.daemon_deaths.iter().filter(|at| meanwhile(&(**at, **at), from, until)).count()
    }

    /// Whether a command that ran between these times and says that there is no daemon is right to say so.
    pub(crate) fn excuses(&self, from: Instant, until: Instant, said: &str) -> bool {
        let meanwhile = |what: &(Instant, Instant)| meanwhile(what, from, until);
        let frozen = |freeze: &(Instant, Instant)| freeze.1 - freeze.0 >= PATIENCE && meanwhile(freeze);
        let start_failed =
            said.contains("no daemon is started now") || said.contains("before it could be reached");
        let recently = |at: &Instant| until.saturating_duration_since(*at) <= SERIES;
        self.deaths(from, until) * BREAKS_OF_A_DEATH > MOST_BREAKS
            || self.daemon_stops.iter().any(meanwhile)
            || self.freezes.iter().any(frozen)
            || (start_failed && self.daemon_deaths.iter().any(recently))
    }
}

/// Whether something that was done in this time concerns a command that ran in that one.
fn meanwhile((start, end): &(Instant, Instant), from: Instant, until: Instant) -> bool {
    *start <= until && *end >= from.checked_sub(AFTERMATH).unwrap_or(from)
}

/// Milliseconds on the boot clock.
pub(crate) fn boot_ms() -> Result<u64> {
    let uptime = fs::read_to_string("/proc/uptime").context("cannot read /proc/uptime")?;
    let seconds = uptime.split_whitespace().next().and_then(|seconds| seconds.parse::<f64>().ok());
    let seconds = Duration::try_from_secs_f64(seconds.context("/proc/uptime has no number")?)?;
    Ok(u64::try_from(seconds.as_millis())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_met_one_dead_daemon_has_no_excuse() {
        let mut harm = Harm::default();
        let start = Instant::now() + AFTERMATH;
        let later = start + Duration::from_secs(5);
        assert!(!harm.excuses(start, later, ""));
        harm.killed_daemon(start);
        assert!(!harm.excuses(start, later, ""));
        assert!(harm.excuses(start, later, "error: no daemon is started now: …"));
        harm.killed_daemon(start);
        assert!(harm.excuses(start, later, ""));
        assert!(!harm.excuses(later, later, ""), "all that was long before");
    }

    #[test]
    fn a_daemon_that_left_or_froze_is_an_excuse() {
        let start = Instant::now() + AFTERMATH;
        let mut left = Harm::default();
        left.stopped_daemon(start, start);
        assert!(
            left.excuses(start, start, "") && !left.excuses(start + AFTERMATH * 2, start + AFTERMATH * 2, "")
        );
        let mut froze = Harm::default();
        froze.froze(start, start + PATIENCE / 2);
        assert!(!froze.excuses(start, start, ""));
        froze.froze(start, start + PATIENCE);
        assert!(froze.excuses(start, start, ""));
    }

    #[test]
    fn the_boot_clock_runs() {
        assert!(boot_ms().unwrap() > 1000);
    }
}
