//! The worker: what it has done and not said, or said and not done.

use super::ways::{ALL_LEAVE, END, FAILURE, HELD, LAUNCH, MANY};
use super::{G, H, O, Row, at, run};

pub(super) const LAUNCHES: &[Row] = &[
    at("worker-obeys", &LAUNCH, &[&[H], &[O], &[H, O], &[G], &[H, G]]),
    at("worker-received", &LAUNCH, &[&[H], &[O], &[H, O], &[G], &[H, G], &[H, G, O]]),
    at("worker-received", &HELD, &[&[H], &[H, G, O]]),
    at("worker-settling", &LAUNCH, &[&[H], &[O], &[H, O], &[G], &[H, G, O]]),
    at("worker-settling", &FAILURE, &[&[H], &[O], &[H, G, O]]),
    at("worker-launched", &HELD, &[&[H], &[H, O], &[G]]),
    at("worker-launched", &LAUNCH, &[&[H], &[O], &[H, O], &[G]]),
    at("worker-launched", &FAILURE, &[&[H], &[H, O], &[H, G, O]]),
    at("worker-told", &LAUNCH, &[&[H], &[H, O], &[G]]),
    at("worker-told@2", &LAUNCH, &[&[H], &[H, O], &[G]]),
    at("worker-acknowledged", &LAUNCH, &[&[H], &[O], &[H, O]]),
];

pub(super) const ENDS: &[Row] = &[
    at("worker-peeked", &END, &[&[H], &[O], &[H, O], &[G]]),
    at("worker-noted", &END, &[&[H], &[O], &[H, O], &[G], &[H, G], &[H, G, O]]),
    at("worker-noted", &END, &[&[H]]).then(&[("guard-peeked", &[H])]),
    at("worker-reaped", &END, &[&[H], &[O], &[H, O], &[G], &[H, G, O]]),
    at("worker-acknowledged", &END, &[&[H], &[O], &[H, O], &[H, G, O]]),
];

pub(super) const JOURNAL: &[Row] = &[
    at("worker-rewriting", &MANY, &[&[H], &[H, O]]),
    at("worker-rewritten", &MANY, &[&[H], &[G, O]]),
    at("worker-leaving", &ALL_LEAVE, &[&[H], &[G], &[H, G]]),
    at("worker-half-removed", &ALL_LEAVE, &[&[H], &[G], &[H, G]]),
];

#[test]
fn a_launch_halted_in_the_worker_happens_once() {
    run(LAUNCHES);
}

#[test]
fn an_end_halted_in_the_worker_is_known() {
    run(ENDS);
}

#[test]
fn a_journal_halted_in_its_change_is_whole() {
    run(JOURNAL);
}
