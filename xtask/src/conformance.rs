//! `cargo xtask conformance`: the rules of the store contract, store by store.
//!
//! Runs the test `conformance` of each store's crate and shows what became of each rule. The rules are those that the
//! suite in `nodejobs-core` says it has; a store that leaves one out fails as one that breaks it.

use std::collections::BTreeMap;
use std::fmt;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::workspace::Workspace;

/// The stores: name, crate, and whether they have a path.
const STORES: &[Store] = &[
    Store { name: "memory", package: "nodejobs-core", on_disk: false },
    Store { name: "sqlite", package: "nodejobs-store-sqlite", on_disk: true },
    Store { name: "redb", package: "nodejobs-store-redb", on_disk: true },
    Store { name: "sled", package: "nodejobs-store-sled", on_disk: true },
];

/// How a test program is asked for the rules there are.
const ROLE: (&str, &str) = ("NODEJOBS_CONFORMANCE_ROLE", "rules");
/// How it is told how often to kill.
const KILLS: &str = "NODEJOBS_KILLS";

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Only this store
    #[arg(long, value_name = "NAME")]
    pub(crate) store: Option<String>,
    /// How often a process that commits is killed [default: 25]
    #[arg(long, value_name = "N")]
    pub(crate) kills: Option<u32>,
}

struct Store {
    name: &'static str,
    package: &'static str,
    on_disk: bool,
}

/// A rule, as the suite tells it.
#[derive(Debug, PartialEq)]
struct Rule {
    name: String,
    is_for_disks: bool,
}

/// What became of one rule for one store.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Held,
    Failed,
    NotRun(String),
    /// It has no such test.
    Absent,
}

impl fmt::Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Cell::Held => "ok",
            Cell::Failed => "FAILED",
            Cell::NotRun(_) => "not run",
            Cell::Absent => "-",
        })
    }
}

/// One column of the grid.
struct Column {
    store: &'static Store,
    cells: BTreeMap<String, Cell>,
    seconds: f64,
}

impl Column {
    fn cell(&self, rule: &Rule) -> &Cell {
        self.cells.get(&rule.name).unwrap_or(&Cell::Absent)
    }
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    check_table(workspace)?;
    let stores = chosen(options.store.as_deref())?;
    let rules = rules(workspace)?;
    let mut columns = Vec::new();
    for store in stores {
        columns.push(column(workspace, store, options.kills)?);
    }
    print!("{}", grid(&rules, &columns));
    let problems = problems(&rules, &columns);
    for problem in &problems {
        eprintln!("{problem}");
    }
    match problems.len() {
        0 => println!("conformance: ok, {} rules", rules.len()),
        1 => bail!("conformance: 1 problem"),
        count => bail!("conformance: {count} problems"),
    }
    Ok(())
}

/// Every crate of a store is in the table and has its test.
fn check_table(workspace: &Workspace) -> Result<()> {
    for member in workspace.members.iter().filter(|member| member.name.starts_with("nodejobs-store-")) {
        ensure!(
            STORES.iter().any(|store| store.package == member.name),
            "{} is not in the table\n    way out: give it a row in STORES in xtask/src/conformance.rs",
            member.name
        );
    }
    for store in STORES {
        let test = workspace.root.join(store.package).join("tests/conformance.rs");
        ensure!(
            test.exists(),
            "{} is missing\n    way out: a store has to run the rules: see nodejobs_core::store::conformance",
            test.display()
        );
    }
    Ok(())
}

fn chosen(name: Option<&str>) -> Result<Vec<&'static Store>> {
    let Some(name) = name else { return Ok(STORES.iter().collect()) };
    let names: Vec<_> = STORES.iter().map(|store| store.name).collect();
    let store = STORES.iter().find(|store| store.name == name);
    Ok(vec![store.with_context(|| format!("'{name}' is no store; one of {}", names.join(", ")))?])
}

fn test(workspace: &Workspace, package: &str, arguments: &[&str]) -> Command {
    let mut command = workspace.cargo(&["test", "-p", package, "--test", "conformance", "--"]);
    command.args(arguments).stderr(Stdio::inherit());
    command
}

fn rules(workspace: &Workspace) -> Result<Vec<Rule>> {
    let mut command = test(workspace, "nodejobs-core", &["--exact", "child", "--nocapture"]);
    let output = command.env(ROLE.0, ROLE.1).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the suite does not say its rules: {}", output.status);
    let rules = parse_rules(&String::from_utf8_lossy(&output.stdout));
    ensure!(!rules.is_empty(), "the suite says no rule");
    Ok(rules)
}

/// Lines of `rule GROUP NAME STATEMENT`.
fn parse_rules(text: &str) -> Vec<Rule> {
    let rules = text.lines().filter_map(|line| {
        let mut words = line.strip_prefix("rule ")?.split(' ');
        let is_for_disks = words.next()? == "disk";
        Some(Rule { name: words.next()?.to_owned(), is_for_disks })
    });
    rules.collect()
}

fn column(workspace: &Workspace, store: &'static Store, kills: Option<u32>) -> Result<Column> {
    println!("conformance: {}", store.name);
    // Built first, so that the time is that of the tests.
    let build = ["test", "-p", store.package, "--test", "conformance", "--no-run"];
    let status = workspace.cargo(&build).status().context("cannot start cargo")?;
    ensure!(status.success(), "`cargo {}` ended with {status}", build.join(" "));
    let mut command = test(workspace, store.package, &["--show-output"]);
    if let Some(kills) = kills {
        command.env(KILLS, kills.to_string());
    }
    let begin = Instant::now();
    let output = command.output().context("cannot start cargo")?;
    let seconds = begin.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&output.stdout);
    let cells = parse_results(&text);
    if !output.status.success() {
        println!("{text}");
        // A program that ends in the middle shows no failed test.
        ensure!(
            cells.values().any(|cell| *cell == Cell::Failed),
            "the tests of {} ended with {}",
            store.package,
            output.status
        );
    }
    Ok(Column { store, cells, seconds })
}

/// What the test program said of its tests: `test NAME ... ok`, and `not run: NAME: WHY` in the output of one that passed.
fn parse_results(text: &str) -> BTreeMap<String, Cell> {
    let mut cells = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            let cell = match result {
                "ok" => Cell::Held,
                "FAILED" => Cell::Failed,
                other => Cell::NotRun(other.to_owned()),
            };
            cells.insert(name.to_owned(), cell);
        }
    }
    for line in text.lines() {
        if let Some((name, why)) = line.strip_prefix("not run: ").and_then(|rest| rest.split_once(": ")) {
            cells.insert(name.to_owned(), Cell::NotRun(why.to_owned()));
        }
    }
    cells
}

fn grid(rules: &[Rule], columns: &[Column]) -> String {
    let width = rules.iter().map(|rule| rule.name.len()).chain(["seconds".len()]).max().unwrap_or(0);
    let mut grid = format!("{:width$}", "rule");
    for column in columns {
        grid.push_str(&format!("  {:7}", column.store.name));
    }
    for rule in rules {
        grid.push_str(&format!("\n{:width$}", rule.name));
        for column in columns {
            grid.push_str(&format!("  {:7}", column.cell(rule)));
        }
    }
    grid.push_str(&format!("\n{:width$}", "seconds"));
    for column in columns {
        grid.push_str(&format!("  {:<7.1}", column.seconds));
    }
    let lines = grid.lines().map(|line| format!("{}\n", line.trim_end()));
    lines.collect()
}

fn problems(rules: &[Rule], columns: &[Column]) -> Vec<String> {
    let mut problems = Vec::new();
    for column in columns {
        let store = column.store.name;
        for rule in rules {
            let name = &rule.name;
            match column.cell(rule) {
                Cell::Held => {}
                Cell::Failed => problems.push(format!("{store}: {name} failed")),
                Cell::NotRun(why) => problems.push(format!("{store}: {name} was not run: {why}")),
                Cell::Absent if rule.is_for_disks && !column.store.on_disk => {}
                Cell::Absent => problems.push(format!("{store}: {name} has no test")),
            }
        }
        let is_other = |name: &str| rules.iter().all(|rule| rule.name != name);
        // What else is in the test program: `child`, and whatever the store adds.
        let failed = column.cells.iter().filter(|(name, cell)| **cell == Cell::Failed && is_other(name));
        problems.extend(failed.map(|(name, _)| format!("{store}: the test {name} failed")));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "\nrunning 1 test\ntest child ... \nrule logic order Jobs are in order.\n\
                         rule disk kills Killed, it is whole.\nok\n";

    fn column(index: usize, text: &str) -> Column {
        Column { store: &STORES[index], cells: parse_results(text), seconds: 1.25 }
    }

    #[test]
    fn what_the_tests_said_becomes_a_grid() {
        let rules = parse_rules(RULES);
        let expected = [("order", false), ("kills", true)]
            .map(|(name, is_for_disks)| Rule { name: name.to_owned(), is_for_disks });
        assert_eq!(rules, expected);
        let memory = column(0, "test child ... ok\ntest order ... ok\n");
        let sqlite = column(
            1,
            "test order ... FAILED\ntest kills ... ok\ntest write_fixture ... ignored, by hand\n\n\
             ---- kills stdout ----\nkills: Killed, it is whole.\nnot run: kills: no room: none\n",
        );
        let columns = [memory, sqlite];
        assert_eq!(
            grid(&rules, &columns),
            "rule     memory   sqlite\norder    ok       FAILED\nkills    -        not run\nseconds  1.2      1.2\n"
        );
        assert_eq!(
            problems(&rules, &columns),
            ["sqlite: order failed", "sqlite: kills was not run: no room: none"]
        );
    }

    #[test]
    fn a_rule_without_a_test_is_a_problem_where_it_has_to_hold() {
        let rules = parse_rules(RULES);
        assert_eq!(problems(&rules, &[column(0, "test order ... ok")]), [""; 0]);
        assert_eq!(problems(&rules, &[column(0, "")]), ["memory: order has no test"]);
        let sqlite = column(1, "test order ... ok\ntest more ... FAILED\ntest kills ... ignored\n");
        let expected = ["sqlite: kills was not run: ignored", "sqlite: the test more failed"];
        assert_eq!(problems(&rules, &[sqlite]), expected);
    }

    #[test]
    fn a_store_that_there_is_not_is_refused_with_those_that_there_are() {
        assert_eq!(chosen(Some("sqlite")).unwrap().len(), 1);
        let error = chosen(Some("postgres")).err().unwrap().to_string();
        assert!(error.starts_with("'postgres' is no store; one of memory, sqlite"), "{error}");
    }
}
