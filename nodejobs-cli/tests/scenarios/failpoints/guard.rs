//! The guard, which goes on where the worker was killed.

use rustix::process::Signal;

use super::ways::{WORKERLESS, WORKERLESS_END};
use super::{H, O, Row, Victim, at, find, halted_at, is_settled, kill_all, run, start_owner};
use crate::support::{Home, eventually, signal, text};

pub(super) const ROWS: &[Row] = &[
    at("guard-noticed", &WORKERLESS, &[&[H], &[O], &[H, O]]),
    at("guard-replayed", &WORKERLESS, &[&[H], &[O], &[H, O]]),
    at("guard-peeked", &WORKERLESS_END, &[&[O]]),
    at("guard-noted", &WORKERLESS_END, &[&[H], &[O], &[H, O]]),
    at("guard-reaped", &WORKERLESS_END, &[&[H], &[O], &[H, O]]),
    at("guard-leaving", &WORKERLESS_END, &[&[H], &[O], &[H, O]]),
    at("guard-half-removed", &WORKERLESS_END, &[&[H], &[O], &[H, O]]),
];

#[test]
fn a_guard_killed_where_it_goes_on_for_the_worker_loses_nothing() {
    run(ROWS);
}

/// A keeper that lost its worker leaves once the end of its last job is in the store. What that job has left behind is
/// nobody's child then that the owner would look at.
#[test]
fn what_a_job_has_left_is_ended_though_its_keeper_has_left() {
    let home = Home::new();
    // Of the start, of the start as the guard tells it again, and of the end.
    start_owner(&home, "owner-acknowledged@3");
    let script = "echo $JOB_ID 1 7 >> evidence; sleep 1000 & until [ -e go ]; do sleep 0.02; done; exit 7";
    home.ok(["run", "--id", "a", script]);
    home.running("a");
    kill_all(&find(&home, Victim::Worker));
    eventually("the guard has taken over", || {
        home.daemon()["keepers"][0]["worker_pid"].is_null().then_some(())
    });
    std::fs::write(home.path().join("go"), "").expect("written");
    let owner = halted_at(&home, "owner-acknowledged");
    eventually("the guard has left", || find(&home, Victim::Guard).is_empty().then_some(()));
    signal(owner, Signal::CONT);
    let record = home.ended("a");
    assert_eq!((text(&record, "status"), &record["exit_code"]), ("failed", &7.into()), "{record}");
    assert!(text(&record, "detail").contains("(sleep)"), "{record}");
    assert_eq!(home.job_processes(), []);
    is_settled(&home);
}
