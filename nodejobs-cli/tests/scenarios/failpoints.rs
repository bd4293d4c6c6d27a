//! Every failpoint: the process that comes to it halts there, it or others are killed, and what the next owner says is
//! compared with what the jobs themselves have written down.
//!
//! A row is a point, the way that leads to it, and who is killed, each set in a directory of its own. Rows with several
//! points are double kills: those who went on after the first kill are killed again.

mod child;
mod groups;
mod guard;
mod orphans;
mod owner;
mod starter;
mod ways;
mod worker;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Home, eventually, is_alive, lines, name_of, signal, text};

/// Who is killed while somebody is halted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    /// Whoever has come to the point.
    Halted,
    Owner,
    Guard,
    Worker,
}

use Victim::{Guard as G, Halted as H, Owner as O, Worker as W};

/// How a point is reached, and what has to be true whoever was killed there.
struct Way {
    /// What there is already. If an owner is to halt, another one has made it and was killed.
    before: Option<fn(&Home)>,
    /// What leads to the point. A command that gets its answer only later is given back.
    act: fn(&Home) -> Option<Child>,
    /// What is true in the end.
    known: fn(&Home),
}

/// A point, as the environment names it, and who is killed while somebody is halted there.
type Step = (&'static str, &'static [Victim]);

/// A way to a point, and who is killed there: each list is a case of its own. `then` is what comes after that kill.
struct Row {
    point: &'static str,
    way: &'static Way,
    victims: &'static [&'static [Victim]],
    then: &'static [Step],
}

const fn at(point: &'static str, way: &'static Way, victims: &'static [&'static [Victim]]) -> Row {
    Row { point, way, victims, then: &[] }
}

impl Row {
    const fn then(self, then: &'static [Step]) -> Self {
        Self { then, ..self }
    }
}

/// Cases at a time: most of them wait most of the time.
const CASES_AT_ONCE: usize = 4;

/// Runs every case of these rows.
fn run(rows: &[Row]) {
    run_without("", rows);
}

/// The same without these features of the kernel.
fn run_without(features: &str, rows: &[Row]) {
    let cases: Vec<(&Row, &[Victim])> =
        rows.iter().flat_map(|row| row.victims.iter().map(move |victims| (row, *victims))).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CASES_AT_ONCE {
            scope.spawn(|| {
                while let Some((row, victims)) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let steps: Vec<Step> =
                        [(row.point, *victims)].into_iter().chain(row.then.iter().copied()).collect();
                    // A thread of its own, so that a failure says its name.
                    let case = std::thread::Builder::new().name(format!("{steps:?}"));
                    std::thread::scope(|scope| {
                        case.spawn_scoped(scope, || run_case(features, row.way, &steps)).expect("a thread");
                    });
                }
            });
        }
    });
}

fn run_case(disabled: &str, way: &Way, steps: &[Step]) {
    let home = Home::new().with("NODEJOBS_DISABLE", disabled);
    let (first, _) = steps[0];
    let is_prepared_by_another = first.starts_with("owner-") && way.before.is_some();
    if let Some(before) = way.before.filter(|_| is_prepared_by_another) {
        before(&home);
        kill_all(&find(&home, Victim::Owner));
    }
    let mut actor = None;
    if !is_of_start(first) {
        let points: Vec<&str> =
            steps.iter().map(|(point, _)| *point).filter(|point| !is_of_start(point)).collect();
        start_owner(&home, &points.join(","));
        if let Some(before) = way.before.filter(|_| !is_prepared_by_another) {
            before(&home);
        }
        actor = (way.act)(&home);
    }
    let owners_follow = steps[1..].iter().any(|(point, _)| is_of_start(point));
    for (point, victims) in steps {
        if owners_follow && let Some(actor) = actor.take() {
            // Having no answer, it would start an owner.
            halted_at(&home, point);
            end(actor);
        }
        let starter = is_of_start(point).then(|| {
            let mut start = home.command(["daemon", "start"]);
            start.env("NODEJOBS_FAILPOINT", point).stderr(Stdio::null()).spawn().expect("nodejobs starts")
        });
        let halted = halted_at(&home, point);
        starter.into_iter().for_each(end);
        let pids =
            victims.iter().flat_map(|victim| if *victim == H { vec![halted] } else { find(&home, *victim) });
        let pids: Vec<u32> = pids.collect();
        assert_eq!(pids.len(), victims.len(), "{victims:?}: {:?}", home.processes());
        kill_all(&pids);
        if !victims.contains(&H) {
            // A child that has not gone through its gate may be killed for that.
            signal(halted, Signal::CONT);
        }
    }
    if is_of_start(first) {
        actor = (way.act)(&home);
    }
    if let Some(mut actor) = actor {
        eventually("whoever asked has an answer", || actor.try_wait().expect("it can be asked"));
        let output = actor.wait_with_output().expect("ended");
        assert!(output.status.success(), "{output:?}");
    }
    (way.known)(&home);
    is_settled(&home);
}

/// Starts an owner that knows these points.
fn start_owner(home: &Home, points: &str) {
    let said = crate::support::said(home.command(["daemon", "start"]).env("NODEJOBS_FAILPOINT", points));
    assert_eq!(said.code, 0, "{said:?}");
}

/// Points that an owner comes to before it can be reached.
fn is_of_start(point: &str) -> bool {
    ["store-made", "generation", "recovered", "took-over", "bound"]
        .iter()
        .any(|name| point.strip_prefix("owner-") == Some(name))
}

fn end(mut command: Child) {
    command.kill().expect("killed");
    command.wait().expect("ended");
}

/// Waits until a process of the kind that the point names has halted.
fn halted_at(home: &Home, point: &str) -> u32 {
    let name = match point.split('-').next() {
        Some("owner") => "nodejobs",
        Some("starter") => "nodejobs-keeper",
        Some("guard") => "nodejobs-guard",
        // A child is its worker's image until it executes its program.
        _ => "nodejobs-worker",
    };
    eventually(&format!("{point} is reached, {:?}", home.processes()), || {
        all_halted(home).find(|pid| name_of(*pid) == name)
    })
}

/// A process of ours that is stopped.
pub(crate) fn halted(home: &Home) -> Option<u32> {
    all_halted(home).next()
}

fn all_halted(home: &Home) -> impl Iterator<Item = u32> {
    let is_stopped = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|fields| fields.starts_with('T'))
    };
    let ours = home.processes().into_iter().filter(|(_, name)| name.starts_with("nodejobs"));
    ours.map(|(pid, _)| pid).filter(move |pid| is_stopped(*pid))
}

/// The processes of this kind, but for one that is halted, and for children of the worker, which have its name until they
/// execute their program.
fn find(home: &Home, victim: Victim) -> Vec<u32> {
    let name = match victim {
        Victim::Owner => "nodejobs",
        Victim::Guard => "nodejobs-guard",
        Victim::Worker | Victim::Halted => "nodejobs-worker",
    };
    let is_half = matches!(victim, Victim::Guard | Victim::Worker);
    let is_halted = halted(home).filter(|pid| !is_half || name_of(*pid) != name);
    let named = home.processes().into_iter().filter(|(pid, other)| other == name && Some(*pid) != is_halted);
    let named: Vec<u32> = named.map(|(pid, _)| pid).collect();
    named
        .iter()
        .copied()
        .filter(|pid| parent_of(*pid).is_none_or(|parent| !named.contains(&parent)))
        .collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
}

/// Kills them in one instant.
fn kill_all(pids: &[u32]) {
    pids.iter().for_each(|pid| signal(*pid, Signal::KILL));
    eventually("the victims are gone", || pids.iter().all(|pid| !is_alive(*pid)).then_some(()));
}

/// A new job runs, every record is true, and one owner with one keeper and its three files is all there is.
fn is_settled(home: &Home) {
    home.ok(["run", "--id", "after", "echo $JOB_ID 1 3 >> evidence; exit 3"]);
    let after = home.nodejobs(["wait", "--timeout", "20s", "after"]);
    assert_eq!(after.code, 3, "{after:?}");
    records_are_true(home);
    let mut left = (Vec::new(), Vec::new());
    let is_alone = crate::support::happens(|| {
        let mut names: Vec<String> = home.processes().into_iter().map(|(_, name)| name).collect();
        names.sort();
        left = (names, files(&home.data_dir().join("keepers")));
        left.0 == ["nodejobs", "nodejobs-guard", "nodejobs-worker"] && left.1.len() == 3
    });
    assert!(is_alone, "one owner with one keeper is all there should be: {left:?}");
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Each attempt has written `ID ATTEMPT CODE` when it was executed; each record says what that says.
fn records_are_true(home: &Home) {
    let evidence = lines(&home.path().join("evidence"));
    let once: BTreeSet<&String> = evidence.iter().collect();
    assert_eq!(once.len(), evidence.len(), "something was executed twice: {evidence:?}");
    let mut of_records = 0;
    for newest in home.records() {
        let is_only = newest["attempt"] == 1;
        let attempts = if is_only { vec![newest] } else { home.history(text(&newest, "self_id")) };
        for record in attempts {
            let prefix = format!("{} {} ", text(&record, "self_id"), record["attempt"]);
            let codes: Vec<&str> = evidence.iter().filter_map(|line| line.strip_prefix(&prefix)).collect();
            of_records += codes.len();
            match text(&record, "status") {
                "failed" if record["exit_code"].is_null() => assert!(codes.len() <= 1, "{record}: {codes:?}"),
                "finished" | "failed" => assert_eq!(codes, [record["exit_code"].to_string()], "{record}"),
                "failed_start" | "cancelled" => assert_eq!(codes, [""; 0], "{record}"),
                "queued" => assert_eq!((codes.len(), text(&record, "waiting_on")), (0, "time"), "{record}"),
                "stopped" => assert!(codes.len() == usize::from(!record["started_at"].is_null()), "{record}"),
                "lost" => assert_eq!((codes.len(), &record["exit_code"]), (1, &Value::Null), "{record}"),
                _ => panic!("{record}"),
            }
        }
    }
    assert_eq!(of_records, evidence.len(), "something was executed that no record tells of: {evidence:?}");
}

/// The pages name the same points as the rows here do.
#[test]
fn every_point_of_the_architecture_page_has_a_case() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../ARCHITECTURE.md"))
        .expect("the page");
    let (_, section) = page.split_once("\n## Failpoints\n").expect("the section");
    let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
    let documented: BTreeSet<&str> =
        section.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0)).collect();
    let rows = [owner::STARTS, owner::TURNS, owner::BACKEND, worker::LAUNCHES, worker::ENDS, worker::JOURNAL];
    let rows = rows.into_iter().chain([guard::ROWS, starter::ROWS, child::ROWS, orphans::ROWS]).flatten();
    let points = rows.flat_map(|row| [row.point].into_iter().chain(row.then.iter().map(|(point, _)| *point)));
    let tried: BTreeSet<&str> = points.map(|point| point.split('@').next().unwrap_or(point)).collect();
    assert_eq!(tried, documented);
}
