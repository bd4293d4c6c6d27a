//! The last steps of a child: the worker waits for it, and the journal's lock is its own until it executes its program.

use super::ways::{CALLED_OFF, FAILURE, HELD, KILLED, KILLED_FAILURE, LAUNCH};
use super::{G, H, O, Row, W, at, run};

pub(super) const ROWS: &[Row] = &[
    at("child-before-note", &LAUNCH, &[&[H], &[W], &[G], &[W, O], &[H, W], &[H, O]]),
    at("child-before-note", &LAUNCH, &[&[H, G, W], &[H, G, W, O]]),
    at("child-before-note", &CALLED_OFF, &[&[H], &[W], &[H, G, W]]),
    at("child-before-note", &HELD, &[&[H], &[W], &[G], &[W, O], &[H, G, W]]),
    at("child-noted", &HELD, &[&[W], &[G], &[O]]),
    at("child-noted", &LAUNCH, &[&[W], &[G], &[W, O], &[O]]),
    at("child-noted", &KILLED, &[&[H], &[H, W], &[H, W, O]]),
    at("child-noted", &CALLED_OFF, &[&[W], &[G]]),
    at("child-failed", &FAILURE, &[&[W], &[W, O], &[G, W, O], &[O]]),
    at("child-failed", &KILLED_FAILURE, &[&[H], &[H, W], &[H, O]]),
    at("child-failure-noted", &FAILURE, &[&[H], &[W], &[H, W, O], &[G, W, O]]),
];

#[test]
fn a_launch_halted_in_the_child_happens_once_or_never() {
    run(ROWS);
}
