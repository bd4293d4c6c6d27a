//! The last steps of a child: the worker's other threads go on meanwhile, and whoever has to know closes its gate.

use rustix::process::Signal;

use super::ways::{FAILURE, HELD, KILLED, KILLED_FAILURE, LAUNCH};
use super::{G, H, O, Row, Victim, W, at, find, halted, is_settled, kill_all, run, start_owner};
use crate::support::{Home, eventually, lines, signal, text};

pub(super) const ROWS: &[Row] = &[
    at("child-at-gate", &LAUNCH, &[&[H], &[W], &[G], &[O], &[W, O], &[G, W], &[H, W], &[H, O]]),
    at("child-at-gate", &LAUNCH, &[&[G, W, O], &[H, G, W], &[H, G, W, O]]),
    at("child-at-gate", &HELD, &[&[H], &[W], &[G], &[W, O], &[H, G, W]]),
    at("child-noting", &LAUNCH, &[&[H], &[W], &[G], &[O], &[W, O], &[G, W], &[H, W], &[H, O]]),
    at("child-noting", &LAUNCH, &[&[G, W, O], &[H, G, W], &[H, G, W, O]]),
    at("child-noting", &FAILURE, &[&[H], &[W], &[G], &[O], &[H, G, W, O]]),
    at("child-noted", &HELD, &[&[W], &[G], &[O]]),
    at("child-noted", &LAUNCH, &[&[W], &[G], &[W, O], &[O]]),
    at("child-noted", &KILLED, &[&[H], &[H, W], &[H, W, O]]),
    at("child-failed", &FAILURE, &[&[W], &[W, O], &[G, W, O], &[O]]),
    at("child-failed", &KILLED_FAILURE, &[&[H], &[H, W], &[H, O]]),
    at("child-failure-noted", &FAILURE, &[&[H], &[W], &[H, W, O], &[G, W, O]]),
];

#[test]
fn a_launch_halted_in_the_child_happens_once_or_never() {
    run(ROWS);
}

/// A stop is answered although the launch stands still, by whoever of the keeper is left; and what was stopped before it was
/// executed never is, however long its child comes later.
#[test]
fn a_launch_that_stands_still_is_stopped_at_once_and_for_good() {
    for point in ["child-at-gate", "child-noting", "child-noted"] {
        for victims in [&[][..], &[W], &[G], &[G, W], &[O]] {
            let home = Home::new();
            start_owner(&home, point);
            home.ok(["run", "--id", "a", "echo $JOB_ID 1 9 >> evidence; exec sleep 1000"]);
            let child = eventually("its launch has halted", || halted(&home));
            let pids: Vec<u32> = victims.iter().flat_map(|victim: &Victim| find(&home, *victim)).collect();
            assert_eq!(pids.len(), victims.len(), "{point}, {victims:?}");
            kill_all(&pids);
            let stopped = home.nodejobs(["stop", "--force", "a"]);
            assert_eq!(stopped.code, 0, "{point}, {victims:?}: {stopped:?}");
            let record = home.record("a");
            assert_eq!(text(&record, "status"), "stopped", "{point}, {victims:?}: {record}");
            // Without its worker it is launched by another keeper, and may have been by then.
            let is_launched_again = victims.contains(&W);
            if point != "child-noted" && !is_launched_again {
                let detail = text(&record, "detail");
                assert_eq!(detail, "stopped before it was executed", "{point}, {victims:?}: {record}");
            }
            signal(child, Signal::CONT);
            eventually("the child is gone", || (!crate::support::is_alive(child)).then_some(()));
            let evidence = lines(&home.path().join("evidence"));
            assert!(is_launched_again || evidence.is_empty(), "{point}, {victims:?}: {evidence:?}");
            if !record["started_at"].is_null() && evidence.is_empty() {
                // Killed between its note and its first word it counts as executed, and has said nothing.
                std::fs::write(home.path().join("evidence"), "a 1 9\n").expect("written");
            }
            is_settled(&home);
        }
    }
}
