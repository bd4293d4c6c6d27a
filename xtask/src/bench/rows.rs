//! The rows of the main table: ours with a store, beside floor, budget and the best other system.

use serde_json::{Value, json};

use super::figures::{Figure, Limit};
use super::peers;
use super::report::{Cell, Key, Report, Side};

/// A figure of ours, or one of the machine alone.
pub(super) struct Row<'a> {
    figure: &'static Figure,
    pub(super) key: Key,
    cell: &'a Cell,
    floor: Option<&'a Cell>,
    best_peer: Option<(&'static str, f64)>,
}

/// Every row, in the order shown. `compares` says which peers do what we do; the others are only shown.
pub(super) fn rows(report: &Report, compares: impl Fn(&str) -> bool) -> Vec<Row<'_>> {
    let of = |key: Key| {
        let cells: Vec<&Cell> = report.cells().iter().filter(|cell| cell.key == key).collect();
        let floor = cells.iter().copied().find(|cell| cell.side == Side::Floor);
        let best = best_peer(key.figure, cells.iter().copied().filter(|cell| compares(cell.side.name())));
        let mut shown: Vec<&Cell> =
            cells.into_iter().filter(|cell| matches!(cell.side, Side::Ours(_))).collect();
        let alone = shown.is_empty();
        if alone {
            shown.extend(floor);
        }
        shown.into_iter().map(move |cell| Row {
            figure: key.figure,
            key,
            cell,
            floor: floor.filter(|_| !alone),
            best_peer: best.filter(|_| !alone),
        })
    };
    report.keys().into_iter().flat_map(of).collect()
}

fn best_peer<'a>(figure: &Figure, cells: impl Iterator<Item = &'a Cell>) -> Option<(&'static str, f64)> {
    let peers = cells.filter_map(|cell| match cell.side {
        Side::Peer(name) => Some((name, cell.value()?)),
        _ => None,
    });
    peers.reduce(|best, next| if figure.is_better(next.1, best.1) { next } else { best })
}

impl Row<'_> {
    pub(super) const HEAD: [&'static str; 9] =
        ["figure", "store", "p50", "p99", "floor", "ratio", "budget", "verdict", "best peer"];

    pub(super) fn cells(&self) -> [String; 9] {
        let number = |value: Option<f64>| value.map_or_else(String::new, short);
        let value = match self.cell.value() {
            Some(value) => short(value),
            None => "failed".to_owned(),
        };
        let peer = self.best_peer.map_or_else(String::new, |(name, value)| {
            format!(
                "{} {}{}",
                peers::column(name),
                short(value),
                if self.is_behind() { " ahead" } else { "" }
            )
        });
        [
            self.figure.title(self.key.size),
            if self.is_floor() { String::new() } else { self.cell.side.name().to_owned() },
            value,
            number(self.cell.p99()),
            number(self.floor()),
            self.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            self.budget(),
            self.verdict(),
            peer,
        ]
    }

    pub(super) fn json(&self) -> Value {
        let mut json = self.cell.json();
        json["floor"] = self.floor().into();
        json["ratio"] = self.ratio().into();
        json["budget"] = self.budget().into();
        json["distance"] = self.distance().filter(|distance| distance.is_finite()).into();
        json["met"] = self.distance().map(|distance| distance <= 1.0).into();
        json["best_peer"] =
            json!(self.best_peer.map(|(name, value)| json!({ "name": name, "value": value })));
        json
    }

    /// Whether it is of the machine alone.
    pub(super) fn is_floor(&self) -> bool {
        self.cell.side == Side::Floor
    }

    /// Whether the best other system is better.
    fn is_behind(&self) -> bool {
        let ours = self.cell.value();
        self.best_peer.zip(ours).is_some_and(|((_, peer), ours)| self.figure.is_better(peer, ours))
    }

    fn floor(&self) -> Option<f64> {
        self.floor?.value()
    }

    fn ratio(&self) -> Option<f64> {
        Some(self.cell.value()? / self.floor()?)
    }

    fn budget(&self) -> String {
        let show = |limit: &Limit| match *limit {
            Limit::AtMost(most) => format!("≤ {}", short(most)),
            Limit::AtLeast(least) => format!("≥ {}", short(least)),
            Limit::OfFloor(part) => format!("≥ {part}×"),
            Limit::TimesFloor(times) => format!("≤ {times}×"),
        };
        self.limits().iter().map(show).collect::<Vec<_>>().join(", ")
    }

    /// What is allowed. The machine alone is allowed anything.
    fn limits(&self) -> &'static [Limit] {
        if self.is_floor() { &[] } else { self.figure.budget }
    }

    /// How much of the budget is used: 1 is the budget itself, 2 is twice as slow, big or rare as allowed.
    fn distance(&self) -> Option<f64> {
        let value = self.cell.value().unwrap_or(f64::NAN);
        let floor = || self.floor().unwrap_or(f64::NAN);
        let used = |limit: &Limit| {
            let (value, limit) = match *limit {
                Limit::AtMost(most) => (value, most),
                Limit::AtLeast(least) => (least, value),
                Limit::OfFloor(part) => (part * floor(), value),
                Limit::TimesFloor(times) => (value, times * floor()),
            };
            let used = value / limit;
            // 0 of 0 is within the budget, and what is no number at all is not.
            if value <= limit {
                used.min(1.0)
            } else if used.is_nan() {
                f64::INFINITY
            } else {
                used
            }
        };
        // The worst condition counts.
        self.limits().iter().map(used).reduce(f64::max)
    }

    fn verdict(&self) -> String {
        match self.distance() {
            _ if self.cell.value().is_none() => "FAILED".to_owned(),
            None => String::new(),
            Some(distance) if distance <= 1.0 => "met".to_owned(),
            Some(distance) if distance.is_finite() => format!("{distance:.2}× off"),
            Some(_) => "MISSED".to_owned(),
        }
    }
}

/// Three or more significant digits, no more than two decimals.
pub(super) fn short(value: f64) -> String {
    let decimals = if value.fract() == 0.0 || value >= 1000.0 {
        0
    } else if value >= 100.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::anyhow;

    use super::*;

    const OURS: Side = Side::Ours("sqlite");

    /// The verdict on one value of a figure.
    fn verdict(figure: &str, value: f64, floor: Option<f64>) -> String {
        let mut report = Report::new(Duration::ZERO);
        report.take((figure, 1000), OURS, || Ok(value));
        if let Some(floor) = floor {
            report.take((figure, 1000), Side::Floor, || Ok(floor));
        }
        rows(&report, |_| true)[0].verdict()
    }

    #[test]
    fn the_worst_condition_decides() {
        assert_eq!(verdict("batch", 2000.0, Some(3000.0)), "met");
        assert_eq!(verdict("batch", 2000.0, Some(5000.0)), "1.50× off");
        assert_eq!(verdict("batch", 900.0, Some(1000.0)), "2.00× off");
        assert_eq!(verdict("batch", 2000.0, None), "MISSED");
        assert_eq!(verdict("run", 2.0, None), "met");
        assert_eq!(verdict("run", 2.5, None), "1.25× off");
        assert_eq!(verdict("output", 104.0, Some(100.0)), "met");
    }

    fn rows_of_floor(figure: &str) -> Vec<String> {
        let mut report = Report::new(Duration::ZERO);
        report.take(figure, Side::Floor, || Ok(5.0));
        report.take(figure, Side::Peer("peer"), || Ok(1.0));
        rows(&report, |_| true)[0].cells()[5..].to_vec()
    }

    #[test]
    fn a_budget_of_nothing_is_met_by_nothing_only() {
        assert_eq!(verdict("wake-ups-daemon", 0.0, None), "met");
        assert_eq!(verdict("wake-ups-daemon", 3.0, None), "MISSED");
        assert_eq!(verdict("crash-codes", 0.0, None), "MISSED");
        assert_eq!(verdict("stop-1000", 3.0, None), "");
    }

    #[test]
    fn a_failed_measurement_is_shown_as_such() {
        let mut report = Report::new(Duration::ZERO);
        report.fail("run", OURS, &anyhow!("no room"));
        let row = &rows(&report, |_| true)[0];
        assert_eq!((row.cells()[2].as_str(), row.verdict().as_str()), ("failed", "FAILED"));
        assert_eq!(row.json()["met"], false);
    }

    #[test]
    fn a_row_shows_everything() {
        let mut report = Report::new(Duration::ZERO);
        for (side, value) in [
            (Side::Floor, 0.75),
            (OURS, 1.5),
            (Side::Peer("slow"), 9.0),
            (Side::Peer("quick"), 1.0),
            (Side::Peer("no peer"), 0.1),
        ] {
            report.take("run", side, || Ok(value));
        }
        let rows = rows(&report, |name| name != "no peer");
        let title = "`run` returns, id durable, ms";
        assert_eq!(rows.len(), 1);
        assert_eq!(
            rows[0].cells(),
            [title, "sqlite", "1.50", "", "0.75", "2.00", "≤ 2", "met", "quick 1 ahead"]
        );
        assert_eq!(rows[0].json()["best_peer"]["name"], "quick");
        assert_eq!(
            (short(12.345), short(123.45), short(1234.5), short(3.0)),
            ("12.35".into(), "123.5".into(), "1234".into(), "3".into())
        );
    }

    #[test]
    fn a_floor_without_ours_is_a_row_of_its_own_without_a_budget() {
        assert_eq!(rows_of_floor("run"), ["", "", "", ""]);
        let mut report = Report::new(Duration::ZERO);
        report.take("append", Side::Floor, || Ok(0.5));
        assert_eq!(
            rows(&report, |_| true)[0].cells()[..5],
            ["append of 500 B + fdatasync, ms", "", "0.50", "", ""]
        );
    }
}
