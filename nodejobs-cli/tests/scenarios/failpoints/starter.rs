//! The process that makes a keeper, and the keeper until it can be spoken to.

use super::ways::LAUNCH;
use super::{G, H, O, Row, W, at, run};

pub(super) const ROWS: &[Row] = &[
    at("starter-socket", &LAUNCH, &[&[H], &[O], &[H, O]]),
    at("starter-journal", &LAUNCH, &[&[H], &[O], &[H, O]]),
    at("starter-forked", &LAUNCH, &[&[H], &[O], &[H, O], &[W], &[G]]),
    at("guard-alone", &LAUNCH, &[&[H], &[O], &[H, O]]),
    at("worker-alone", &LAUNCH, &[&[H], &[O], &[H, O], &[G], &[H, G]]),
];

#[test]
fn a_keeper_killed_while_it_is_made_has_launched_nothing() {
    run(ROWS);
}
