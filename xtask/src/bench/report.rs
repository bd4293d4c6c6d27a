//! What was measured so far: of each figure the samples of everybody who can do it, or why there are none.

use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use serde_json::{Value, json};

use super::figures::{self, Figure};

/// Who a value is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// The machine without us.
    Floor,
    /// Ours, with this store.
    Ours(&'static str),
    /// Another system, by its name.
    Peer(&'static str),
}

/// A figure at one size, where it has sizes.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) figure: &'static Figure,
    pub(super) size: Option<usize>,
}

impl From<&str> for Key {
    fn from(name: &str) -> Self {
        Self { figure: figures::find(name), size: None }
    }
}

impl From<(&str, usize)> for Key {
    fn from((name, size): (&str, usize)) -> Self {
        Self { figure: figures::find(name), size: Some(size) }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.figure.name == other.figure.name && self.size == other.size
    }
}

/// What is known of a figure and a side.
pub(super) struct Cell {
    pub(super) key: Key,
    pub(super) side: Side,
    pub(super) samples: Vec<f64>,
    pub(super) failure: Option<Failure>,
    spent: Duration,
}

/// Why something has no value.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// It was given up because of the time it takes, and is not broken.
    pub(super) is_cut: bool,
    pub(super) why: String,
}

/// An error of who took too long.
#[derive(Debug)]
pub(super) struct TooSlow(pub(super) String);

impl std::fmt::Display for TooSlow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for TooSlow {}

/// Everything that was measured.
pub(super) struct Report {
    cells: Vec<Cell>,
    /// How long a peer is measured for one figure. After that it has no more rounds, with the samples it has.
    pub(super) allowance: Duration,
}

impl Report {
    pub(super) fn new(allowance: Duration) -> Self {
        Self { cells: Vec::new(), allowance }
    }

    /// Takes one more sample. False if that failed, now or earlier: then there is a reason instead of a value.
    pub(super) fn take(
        &mut self,
        key: impl Into<Key>,
        side: Side,
        measure: impl FnOnce() -> Result<f64>,
    ) -> bool {
        let allowance = self.allowance;
        let cell = self.cell(key.into(), side);
        let has_enough = matches!(side, Side::Peer(_)) && !cell.samples.is_empty() && cell.spent >= allowance;
        if cell.failure.is_some() || has_enough {
            return cell.failure.is_none();
        }
        let started = Instant::now();
        let measured = measure();
        cell.spent += started.elapsed();
        match measured {
            Ok(value) if value.is_finite() => cell.samples.push(value),
            Ok(value) => cell.fail(&Error::msg(format!("{value} is no value"))),
            Err(error) => cell.fail(&error),
        }
        cell.failure.is_none()
    }

    /// Says why there is no value. What was measured before is no answer to the question any more.
    pub(super) fn fail(&mut self, key: impl Into<Key>, side: Side, error: &Error) {
        self.cell(key.into(), side).fail(error);
    }

    pub(super) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    pub(super) fn find(&self, key: Key, side: Side) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.key == key && cell.side == side)
    }

    /// Figures and sizes that have a cell, in the order shown.
    pub(super) fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = Vec::new();
        for cell in &self.cells {
            if !keys.contains(&cell.key) {
                keys.push(cell.key);
            }
        }
        let place = |key: &Key| figures::FIGURES.iter().position(|figure| figure.name == key.figure.name);
        keys.sort_by_key(|key| (place(key), key.size));
        keys
    }

    /// What of ours and of the floors has no value.
    pub(super) fn failures(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(|cell| !matches!(cell.side, Side::Peer(_)) && cell.failure.is_some())
    }

    fn cell(&mut self, key: Key, side: Side) -> &mut Cell {
        let found = self.cells.iter().position(|cell| cell.key == key && cell.side == side);
        let index = found.unwrap_or_else(|| {
            let spent = Duration::ZERO;
            self.cells.push(Cell { key, side, samples: Vec::new(), failure: None, spent });
            self.cells.len() - 1
        });
        &mut self.cells[index]
    }
}

impl Cell {
    fn fail(&mut self, error: &Error) {
        let is_cut = error.downcast_ref::<TooSlow>().is_some();
        let why = format!("{error:#}");
        let (word, title) =
            (if is_cut { "cut short" } else { "failed" }, self.key.figure.title(self.key.size));
        eprintln!("bench: {word}: {}, {title}: {why}", self.side.name());
        self.failure = Some(Failure { is_cut, why });
    }

    /// The median.
    pub(super) fn value(&self) -> Option<f64> {
        if self.failure.is_some() || self.samples.is_empty() {
            return None;
        }
        Some(percentile(&self.samples, 50))
    }

    /// Of times. Of fewer than 50 samples, the 99th percentile is just the largest.
    pub(super) fn p99(&self) -> Option<f64> {
        let is_time = matches!(self.key.figure.unit, "ms" | "µs");
        self.value().filter(|_| is_time && self.samples.len() >= 50)?;
        Some(percentile(&self.samples, 99))
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "name": self.side.name(), "value": self.value(), "p99": self.p99(), "samples": self.samples.len(),
            "failed": self.failure.as_ref().map(|failure| &failure.why),
            "cut_short": self.failure.as_ref().is_some_and(|failure| failure.is_cut),
        })
    }
}

impl Side {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Ours(name) | Self::Peer(name) => name,
        }
    }
}

/// The smallest sample that at least `percent` of them do not exceed.
pub(super) fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    const PEER: Side = Side::Peer("peer");

    fn report() -> Report {
        Report::new(Duration::from_secs(60))
    }

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!((percentile(&samples, 50), percentile(&samples, 99)), (100.0, 198.0));
        assert_eq!(percentile(&[7.0], 50), 7.0);
        assert_eq!(percentile(&[1.0, 2.0, 3.0], 50), 2.0);
    }

    #[test]
    fn the_median_of_all_rounds_is_the_value() {
        let mut report = report();
        for sample in [3.0, 1.0, 2.0] {
            assert!(report.take("run", PEER, || Ok(sample)));
        }
        let cell = &report.cells()[0];
        assert_eq!((cell.value(), cell.p99(), cell.samples.len()), (Some(2.0), None, 3));
        for _ in 0..47 {
            report.take("run", PEER, || Ok(2.0));
        }
        assert_eq!(report.cells()[0].p99(), Some(3.0));
    }

    #[test]
    fn a_failure_has_no_value_and_no_further_rounds() {
        let mut report = report();
        report.take("run", PEER, || Ok(1.0));
        assert!(!report.take("run", PEER, || bail!("no room")));
        assert!(!report.take("run", PEER, || unreachable!("it has failed")));
        let json = report.cells()[0].json();
        assert_eq!(
            (&json["value"], &json["failed"], &json["cut_short"]),
            (&Value::Null, &json!("no room"), &json!(false))
        );
        report.take("wait", Side::Floor, || Ok(f64::NAN));
        assert_eq!(report.failures().count(), 1);
    }

    #[test]
    fn too_slow_is_not_broken() {
        let mut report = report();
        report.take("run", PEER, || Err(Error::from(TooSlow("30 s".to_owned())).context("of true")));
        assert!(report.cells()[0].failure.as_ref().unwrap().is_cut);
    }

    #[test]
    fn only_peers_run_out_of_time() {
        let mut report = Report::new(Duration::ZERO);
        for side in [PEER, Side::Ours("sqlite")] {
            for _ in 0..3 {
                assert!(report.take("run", side, || Ok(1.0)));
            }
        }
        assert_eq!(report.cells().iter().map(|cell| cell.samples.len()).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn keys_come_in_the_order_of_the_figures_and_by_size() {
        let mut report = report();
        for key in [("ls", 1), ("batch", 1000), ("batch", 1)] {
            report.take(key, PEER, || Ok(1.0));
        }
        let keys: Vec<_> = report.keys().iter().map(|key| (key.figure.name, key.size)).collect();
        assert_eq!(keys, [("batch", Some(1)), ("batch", Some(1000)), ("ls", Some(1))]);
    }
}
