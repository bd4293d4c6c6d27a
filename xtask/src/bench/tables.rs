//! The report for people: as text, as the markdown of `docs/performance.md`, and as JSON.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Bench;
use super::host;
use super::peers::{PEERS, Peer};
use super::report::{Cell, Key, Report, Side};
use super::rows::{Row, rows, short};

/// A table of any width.
type Table = Vec<Vec<String>>;

/// How a table is written.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Form {
    Text,
    Markdown,
}

/// Everything that was measured.
pub(super) fn show(bench: &Bench, form: Form) -> String {
    let list =
        |line: String| if form == Form::Markdown { format!("- {line}\n") } else { format!("{line}\n") };
    let mut shown: String = about(bench).into_iter().map(list).collect();
    let (main, peers, notes) = (main(&bench.report), peers(bench), notes(&bench.report, &bench.failed));
    for (title, table) in [("Ours, the floor and the best peer", main), ("Every peer", peers)] {
        if table.len() > 1 {
            shown += &format!(
                "\n{}{title}\n\n{}",
                if form == Form::Markdown { "### " } else { "" },
                lay_out(&table, form)
            );
        }
    }
    if !notes.is_empty() {
        shown += "\n";
        shown.extend(notes.into_iter().map(list));
    }
    shown
}

/// The place for the tables in a page.
const PLACE: [&str; 2] = ["<!-- cargo xtask bench: begin -->\n", "<!-- cargo xtask bench: end -->\n"];

/// Puts the tables into their place in a page, instead of what was there.
pub(super) fn insert(page: &str, tables: &str) -> Result<String> {
    let [begin, end] = PLACE;
    let (before, rest) = page.split_once(begin).with_context(|| format!("no line `{}`", begin.trim()))?;
    let (_, after) = rest.split_once(end).with_context(|| format!("no line `{}`", end.trim()))?;
    Ok(format!("{before}{begin}\n{tables}\n{end}{after}"))
}

pub(super) fn json(bench: &Bench) -> Value {
    let report = &bench.report;
    let rows = rows(report, compares);
    let figure = |key: Key| {
        let peers = report.cells().iter().filter(|cell| cell.key == key && is_peer(cell));
        json!({
            "name": key.figure.name, "size": key.size, "title": key.figure.title(key.size), "unit": key.figure.unit,
            "floor": report.find(key, Side::Floor).map(Cell::json),
            "ours": rows.iter().filter(|row| row.key == key && !row.is_floor()).map(Row::json).collect::<Vec<_>>(),
            "peers": peers.map(Cell::json).collect::<Vec<_>>(),
        })
    };
    let peer = |peer: &'static Peer| {
        let found = bench.found(peer);
        json!({
            "name": peer.name, "command": peer.program, "present": found.is_some(),
            "version": found.and_then(|found| found.version()), "keeps": peer.keeps, "compared": peer.compares,
        })
    };
    json!({
        "version": bench.version, "quick": bench.quick, "machine": bench.host.json(),
        "load": { "before": bench.load, "after": host::load() },
        "peers": PEERS.iter().copied().map(peer).collect::<Vec<_>>(),
        "failed_groups": bench.failed,
        "figures": report.keys().into_iter().map(figure).collect::<Vec<_>>(),
    })
}

fn about(bench: &Bench) -> Vec<String> {
    let (mut present, mut absent) = (Vec::new(), Vec::new());
    for peer in PEERS.iter().copied() {
        match bench.found(peer) {
            Some(found) => {
                present.push(format!("{} {}", peer.name, found.version().unwrap_or("(version unknown)")));
            }
            None => absent.push(peer.name),
        }
    }
    let or_none = |names: String| if names.is_empty() { "none".to_owned() } else { names };
    vec![
        format!("{}{}", bench.version, if bench.quick { ", measured with --quick" } else { "" }),
        bench.host.line(),
        format!("load average before {}, after {}", bench.load, host::load()),
        format!("peers: {}", or_none(present.join(", "))),
        format!("absent: {}", or_none(absent.join(", "))),
    ]
}

fn compares(name: &str) -> bool {
    PEERS.iter().any(|peer| peer.name == name && peer.compares)
}

fn is_peer(cell: &Cell) -> bool {
    matches!(cell.side, Side::Peer(_))
}

fn main(report: &Report) -> Table {
    let mut table = vec![Row::HEAD.map(str::to_owned).to_vec()];
    let mut last = String::new();
    for row in rows(report, compares) {
        let mut cells = row.cells();
        // Said once for all stores.
        if cells[0] == last {
            cells[0].clear();
        } else {
            last.clone_from(&cells[0]);
        }
        table.push(cells.to_vec());
    }
    table
}

/// Figures that a peer has, one column each: ours is that of the first store that was measured.
fn peers(bench: &Bench) -> Table {
    let report = &bench.report;
    let keys: Vec<Key> = report
        .keys()
        .into_iter()
        .filter(|key| report.cells().iter().any(|cell| cell.key == *key && is_peer(cell)))
        .collect();
    let present: Vec<_> = PEERS.iter().copied().filter(|peer| bench.found(peer).is_some()).collect();
    if keys.is_empty() {
        return Table::new();
    }
    let ours = Side::Ours(bench.stores[0]);
    let sides: Vec<Side> =
        [Side::Floor, ours].into_iter().chain(present.iter().map(|peer| Side::Peer(peer.name))).collect();
    let mut head = vec!["figure".to_owned(), "floor".to_owned(), format!("ours ({})", bench.stores[0])];
    head.extend(present.iter().map(|peer| peer.short.to_owned()));
    let mut table = vec![head];
    table.extend(keys.into_iter().map(|key| {
        let cells = sides.iter().map(|side| report.find(key, *side).map_or_else(|| "-".to_owned(), value));
        [key.figure.title(key.size)].into_iter().chain(cells).collect()
    }));
    table
}

fn value(cell: &Cell) -> String {
    match (cell.value(), &cell.failure) {
        (Some(value), _) => short(value),
        (None, Some(failure)) if failure.is_cut => "cut".to_owned(),
        (None, _) => "failed".to_owned(),
    }
}

/// Why something has no value.
fn notes(report: &Report, failed: &[String]) -> Vec<String> {
    let note = |cell: &Cell| {
        let failure = cell.failure.as_ref()?;
        let word = if failure.is_cut { "cut short" } else { "failed" };
        let why = failure.why.lines().next().unwrap_or_default();
        Some(format!("{word}: {}, {}: {why}", cell.side.name(), cell.key.figure.title(cell.key.size)))
    };
    failed
        .iter()
        .map(|group| format!("failed: group {group}"))
        .chain(report.cells().iter().filter_map(note))
        .collect()
}

/// The first column, and what is words, to the left; numbers to the right.
fn lay_out(table: &Table, form: Form) -> String {
    let columns = table[0].len();
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let is_number =
        |cell: &str| cell.is_empty() || matches!(cell, "-" | "cut" | "failed") || cell.parse::<f64>().is_ok();
    let right: Vec<bool> =
        (0..columns).map(|column| table[1..].iter().all(|row| is_number(&row[column]))).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if right[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        let cells: Vec<String> = cells.collect();
        match form {
            Form::Text => format!("{}\n", cells.join("  ").trim_end()),
            Form::Markdown => format!("| {} |\n", cells.join(" | ")),
        }
    };
    let mut lines: Vec<String> = table.iter().map(line).collect();
    if form == Form::Markdown {
        let rule = |column: usize| if right[column] { "---:" } else { "---" };
        lines.insert(1, format!("| {} |\n", (0..columns).map(rule).collect::<Vec<_>>().join(" | ")));
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::anyhow;

    use super::super::report::TooSlow;
    use super::*;

    fn table() -> Table {
        [["figure", "p50"], ["one", "1.50"], ["another", "-"]]
            .map(|row| row.map(str::to_owned).to_vec())
            .to_vec()
    }

    #[test]
    fn numbers_are_to_the_right() {
        assert_eq!(lay_out(&table(), Form::Text), "figure    p50\none      1.50\nanother     -\n");
        assert_eq!(
            lay_out(&table(), Form::Markdown),
            "| figure  |  p50 |\n| --- | ---: |\n| one     | 1.50 |\n| another |    - |\n"
        );
    }

    #[test]
    fn tables_go_into_their_place_again_and_again() {
        let [begin, end] = PLACE;
        let page = format!("# Title\n{begin}{end}rest\n");
        let once = insert(&page, "| a |\n").unwrap();
        assert_eq!(once, format!("# Title\n{begin}\n| a |\n\n{end}rest\n"));
        assert_eq!(insert(&once, "| b |\n").unwrap(), once.replace("a |", "b |"));
        assert!(insert("# Title\n", "").is_err());
    }

    #[test]
    fn a_figure_is_named_once_for_all_stores() {
        let mut report = Report::new(Duration::ZERO);
        for store in ["sqlite", "redb"] {
            report.take("run", Side::Ours(store), || Ok(1.0));
        }
        let table = main(&report);
        assert_eq!(
            (table.len(), table[1][0].is_empty(), table[2][0].as_str(), table[2][1].as_str()),
            (3, false, "", "redb")
        );
    }

    #[test]
    fn what_has_no_value_is_explained() {
        let mut report = Report::new(Duration::ZERO);
        report.fail(("batch", 1000), Side::Peer("pueue"), &TooSlow("not done within 30 s".to_owned()).into());
        report.fail("run", Side::Peer("pm2"), &anyhow!("no room\nat all"));
        assert_eq!(report.cells().iter().map(value).collect::<Vec<_>>(), ["cut", "failed"]);
        assert_eq!(
            notes(&report, &["stop: no room".to_owned()]),
            [
                "failed: group stop: no room",
                "cut short: pueue, no-op jobs, one batch of 1,000, /s: not done within 30 s",
                "failed: pm2, `run` returns, id durable, ms: no room"
            ]
        );
    }
}
