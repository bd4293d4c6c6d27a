//! The figures with their budgets, and how they are shown.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Every figure that can be measured, in the order shown. The budgets are those of the design, §10.
#[rustfmt::skip]
const FIGURES: &[Figure] = &[
    figure("spawn-1",         "posix_spawn + setsid + 2 logs + wait, 1 in flight", "µs",  &[]),
    figure("spawn-1-rate",    "the same, a second",                              "/s",  &[]),
    figure("spawn-2",         "the same, 2 in flight",                           "µs",  &[]),
    figure("spawn-2-rate",    "the same, a second",                              "/s",  &[]),
    figure("append",          "append of 500 B + fdatasync",                     "ms",  &[]),
    figure("call",            "start + wait of a process called as the CLI is",  "ms",  &[]),

    figure("run",             "`run` returns, id durable",                       "ms",  &[Limit::AtMost(2.0)]),
    figure("wait",            "`run --wait` of true",                            "ms",  &[Limit::AtMost(4.0)]),
    figure("batch",           "no-op jobs, one batch",                           "/s",  &[Limit::AtLeast(1800.0), Limit::OfFloor(0.6)]),
    figure("loop",            "no-op jobs, one `run` each from a shell loop",    "/s",  &[Limit::AtLeast(500.0)]),
    figure("ls",              "first page of `ls`, after the batch",             "ms",  &[Limit::AtMost(15.0)]),
    figure("manager-idle",    "manager PSS, idle",                               "MiB", &[Limit::AtMost(15.0)]),
    figure("manager-1000",    "manager PSS, 1,000 running",                      "MiB", &[Limit::AtMost(18.0)]),
    figure("keeper-idle",     "keeper PSS (guard + worker), idle",               "MiB", &[Limit::AtMost(2.0)]),
    figure("keeper-1000",     "keeper PSS, 1,000 running",                       "MiB", &[Limit::AtMost(2.0 + 1000.0 / 1024.0)]),
    figure("adopt-1000",      "1,000 running jobs re-adopted",                   "ms",  &[Limit::AtMost(500.0)]),
    figure("stop-1000",       "`stop --all --force` of 1,000",                   "ms",  &[]),
    figure("stop",            "`stop` of an obedient job",                       "ms",  &[Limit::AtMost(10.0)]),
    figure("stop-50",         "`stop` of 50 at once",                            "ms",  &[Limit::AtMost(30.0)]),
    // The budget, 1.0 times a direct write, has one decimal.
    figure("output",          "200 MB of output, against a direct write",        "ms",  &[Limit::TimesFloor(1.05)]),
    // "No CPU of ours": beyond what a job of `true` costs us; 1 ms is the noise between two such runs.
    figure("output-cpu",      "our CPU time for it, beyond that for `true`",     "ms",  &[Limit::AtMost(1.0)]),
    figure("capped-4k",       "1 GiB in 4 KiB writes with --log-cap 10M",        "ms",  &[]),
    figure("capped-4k-peak",  "the most of it on disk",                          "MiB", &[]),
    figure("capped-64k",      "1 GiB in 64 KiB writes with --log-cap 10M",       "ms",  &[]),
    figure("capped-64k-peak", "the most of it on disk",                          "MiB", &[]),
    figure("capped-settled",  "what stays on disk of each",                      "MiB", &[Limit::AtMost(11.0)]),
    figure("wake-ups-daemon", "wake-ups of the daemon while idle",               "",    &[Limit::AtMost(0.0)]),
    figure("wake-ups-keeper", "wake-ups of guard and worker while idle",         "",    &[Limit::AtMost(0.0)]),
    figure("crash-codes",     "right exit codes after kill -9, of 20",           "",    &[Limit::AtLeast(20.0)]),
    figure("crash-runs",      "runs of those 20 jobs",                           "",    &[Limit::AtLeast(20.0), Limit::AtMost(20.0)]),

    // Each store has these. Their floor is one durable record at a time, without us.
    figure("commits-1",       "jobs accepted, 1 caller",                         "/s",  &[]),
    figure("commits-8",       "jobs accepted, 8 callers",                        "/s",  &[]),
    figure("commits-64",      "jobs accepted, 64 callers",                       "/s",  &[]),
    figure("history-jobs",    "ended jobs for the figures below",                "",    &[]),
    figure("history-import",  "`store import`, ended jobs",                      "/s",  &[]),
    figure("history-bytes",   "bytes on disk, an ended job",                     "",    &[]),
    figure("history-run",     "`run` returns, with history",                     "ms",  &[Limit::AtMost(2.0)]),
    figure("history-ls",      "first page of `ls`, with history",                "ms",  &[Limit::AtMost(15.0)]),
    figure("history-ls-finished", "the same, --status finished",                 "ms",  &[Limit::AtMost(15.0)]),
    figure("history-ls-failed",   "the same, --status failed",                   "ms",  &[Limit::AtMost(15.0)]),
    figure("history-get",     "first page over HTTP, with history",              "ms",  &[Limit::AtMost(15.0)]),
    figure("history-get-finished", "the same, status=finished",                  "ms",  &[Limit::AtMost(15.0)]),
    figure("history-get-failed",   "the same, status=failed",                    "ms",  &[Limit::AtMost(15.0)]),
    figure("history-manager", "manager PSS, with history",                       "MiB", &[Limit::AtMost(15.0)]),
    // The design has no budget for the memory of sled.
    figure("history-manager-sled", "manager PSS, with history",                  "MiB", &[]),
    figure("history-restart", "serves again after kill -9, with history",        "ms",  &[]),
];

struct Figure {
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    budget: &'static [Limit],
}

const fn figure(
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    budget: &'static [Limit],
) -> Figure {
    Figure { name, title, unit, budget }
}

/// One condition of a budget.
#[derive(Clone, Copy)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// At least this part of the floor: for rates.
    OfFloor(f64),
    /// At most this many times the floor: for times.
    TimesFloor(f64),
}

/// One measured value: the median, where there are several.
pub(crate) struct Measured {
    value: f64,
    p99: Option<f64>,
}

impl From<f64> for Measured {
    fn from(value: f64) -> Self {
        Self { value, p99: None }
    }
}

impl From<Vec<f64>> for Measured {
    fn from(samples: Vec<f64>) -> Self {
        // Of fewer, the 99th percentile is just the largest.
        let p99 = (samples.len() >= 50).then(|| percentile(&samples, 99));
        Self { value: percentile(&samples, 50), p99 }
    }
}

/// The smallest sample that at least `percent` of them do not exceed.
pub(crate) fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// The rows measured so far.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

struct Row {
    figure: &'static Figure,
    store: Option<&'static str>,
    measured: Measured,
    floor: Option<f64>,
}

impl Report {
    pub(crate) fn record(
        &mut self,
        name: &str,
        store: Option<&'static str>,
        measured: Measured,
        floor: Option<f64>,
    ) {
        let figure = FIGURES.iter().find(|figure| figure.name == name);
        let figure = figure.unwrap_or_else(|| panic!("no figure `{name}` in FIGURES"));
        self.rows.push(Row { figure, store, measured, floor });
    }

    pub(crate) fn print(&self) {
        if self.rows.is_empty() {
            return;
        }
        println!("{}", machine());
        let head = ["figure", "p50 or value", "p99", "floor", "ratio", "budget", ""];
        let mut table = vec![head.map(str::to_owned)];
        table.extend(FIGURES.iter().flat_map(|figure| self.rows_of(figure)).map(Row::cells));
        let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 7] = std::array::from_fn(width);
        for row in &table {
            let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
                1..=4 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            });
            println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }

    pub(crate) fn write_json(&self, file: &Path) -> Result<()> {
        let figures: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let text = format!("{:#}\n", json!({ "machine": machine(), "figures": figures }));
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    fn rows_of(&self, figure: &'static Figure) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.figure.name == figure.name)
    }
}

impl Row {
    fn cells(&self) -> [String; 7] {
        let number = |value: f64| format!("{} {}", short(value), self.figure.unit).trim_end().to_owned();
        [
            self.store.map_or_else(
                || self.figure.title.to_owned(),
                |store| format!("{}: {store}", self.figure.title),
            ),
            number(self.measured.value),
            self.measured.p99.map_or(String::new(), number),
            self.floor.map_or(String::new(), number),
            self.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}")),
            self.budget(),
            self.verdict(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "name": self.figure.name,
            "store": self.store,
            "unit": self.figure.unit,
            "value": self.measured.value,
            "p99": self.measured.p99,
            "floor": self.floor,
            "ratio": self.ratio(),
            "budget": self.budget(),
            "distance": self.distance().filter(|distance| distance.is_finite()),
            "met": self.distance().map(|distance| distance <= 1.0),
        })
    }

    fn ratio(&self) -> Option<f64> {
        self.floor.map(|floor| self.measured.value / floor)
    }

    fn budget(&self) -> String {
        let show = |limit: &Limit| match *limit {
            Limit::AtMost(most) => format!("≤ {}", short(most)),
            Limit::AtLeast(least) => format!("≥ {}", short(least)),
            Limit::OfFloor(part) => format!("≥ {part} of floor"),
            Limit::TimesFloor(times) => format!("≤ {times} × floor"),
        };
        self.figure.budget.iter().map(show).collect::<Vec<_>>().join(", ")
    }

    /// How much of the budget is used: 1 is the budget itself, 2 is twice as slow, big or rare as allowed.
    fn distance(&self) -> Option<f64> {
        let value = self.measured.value;
        let used = |limit: &Limit| {
            let (value, limit) = match *limit {
                Limit::AtMost(most) => (value, most),
                Limit::AtLeast(least) => (least, value),
                Limit::OfFloor(part) => (part * self.floor?, value),
                Limit::TimesFloor(times) => (value, times * self.floor?),
            };
            let used = value / limit;
            // 0 of 0 is within the budget, and what is no number at all is not.
            Some(if value <= limit {
                used.min(1.0)
            } else if used.is_nan() {
                f64::INFINITY
            } else {
                used
            })
        };
        // The worst condition counts.
        self.figure.budget.iter().map(used).collect::<Option<Vec<_>>>()?.into_iter().reduce(f64::max)
    }

    fn verdict(&self) -> String {
        match self.distance() {
            None => String::new(),
            Some(distance) if distance <= 1.0 => "met".to_owned(),
            Some(distance) if distance.is_finite() => format!("MISSED, {distance:.2} × off"),
            Some(_) => "MISSED".to_owned(),
        }
    }
}

/// Three or more significant digits, no more than two decimals.
fn short(value: f64) -> String {
    let decimals = if value.fract() == 0.0 || value >= 1000.0 {
        0
    } else if value >= 100.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!("Linux {}, {processors} processors", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(budget: &'static [Limit], value: f64, floor: Option<f64>) -> Row {
        let figure = Box::leak(Box::new(figure("name", "title", "ms", budget)));
        Row { figure, store: None, measured: value.into(), floor }
    }

    #[test]
    fn names_are_unique() {
        for figure in FIGURES {
            assert_eq!(
                FIGURES.iter().filter(|other| other.name == figure.name).count(),
                1,
                "{}",
                figure.name
            );
        }
    }

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!((percentile(&samples, 50), percentile(&samples, 99)), (100.0, 198.0));
        assert_eq!(percentile(&[7.0], 50), 7.0);
        assert_eq!(percentile(&[1.0, 2.0, 3.0], 50), 2.0);
        assert_eq!(Measured::from(vec![1.0; 10]).p99, None);
    }

    #[test]
    fn the_worst_condition_decides() {
        let both = &[Limit::AtLeast(1800.0), Limit::OfFloor(0.6)];
        assert_eq!(row(both, 2000.0, Some(3000.0)).verdict(), "met");
        assert_eq!(row(both, 2000.0, Some(5000.0)).verdict(), "MISSED, 1.50 × off");
        assert_eq!(row(both, 900.0, Some(1000.0)).verdict(), "MISSED, 2.00 × off");
        assert_eq!(row(&[Limit::AtMost(2.0)], 2.0, None).verdict(), "met");
        assert_eq!(row(&[Limit::AtMost(2.0)], 2.5, None).verdict(), "MISSED, 1.25 × off");
        assert_eq!(row(&[Limit::TimesFloor(1.05)], 104.0, Some(100.0)).verdict(), "met");
    }

    #[test]
    fn a_budget_of_nothing_is_met_by_nothing_only() {
        assert_eq!(row(&[Limit::AtMost(0.0)], 0.0, None).verdict(), "met");
        assert_eq!(row(&[Limit::AtMost(0.0)], 3.0, None).verdict(), "MISSED");
        assert_eq!(row(&[Limit::AtLeast(20.0)], 0.0, None).verdict(), "MISSED");
        assert_eq!(row(&[], 3.0, None).verdict(), "");
    }

    #[test]
    fn a_failed_measurement_meets_nothing() {
        assert_ne!(row(&[Limit::AtMost(2.0)], f64::NAN, None).verdict(), "met");
    }

    #[test]
    fn a_row_shows_everything() {
        let row = row(&[Limit::AtMost(2.0)], 1.5, Some(0.75));
        assert_eq!(row.cells(), ["title", "1.50 ms", "", "0.75 ms", "2.00", "≤ 2", "met"]);
        assert_eq!(row.json()["met"], true);
        assert_eq!(
            (short(12.345), short(123.45), short(1234.5), short(3.0)),
            ("12.35".into(), "123.5".into(), "1234".into(), "3".into())
        );
    }
}
