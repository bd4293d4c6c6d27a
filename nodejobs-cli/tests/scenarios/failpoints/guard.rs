//! The guard, which goes on where the worker was killed.

use super::ways::{WORKERLESS, WORKERLESS_END};
use super::{H, O, Row, at, run};

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
