//! Both halves of a keeper are killed under a job: the owner has to find it, and to ask the kernel for its exit status.
//! Where the kernel does not tell, that may be lost, and nothing else may.

use super::ways::{KEEPERLESS, ORPHANING, UNSEEN, WORKERLESS_UNSEEN};
use super::{G, H, O, Row, W, at, run, run_without};

pub(super) const ROWS: &[Row] = &[
    at("child-at-gate", &ORPHANING, &[&[G, W], &[G, W, O]]),
    at("child-noted", &ORPHANING, &[&[G, W], &[G, W, O]]),
    at("worker-launched", &ORPHANING, &[&[H, G], &[H, G, O]]),
    // What the journal says of a start has to be in the store before the journal may go.
    at("worker-launched", &ORPHANING, &[&[H, G]]).then(&[("owner-decided@2", &[H])]),
    at("worker-peeked", &UNSEEN, &[&[H, G], &[H, G, O]]),
    at("guard-peeked", &WORKERLESS_UNSEEN, &[&[H], &[H, O]]),
    at("owner-launch-sent", &ORPHANING, &[&[H, G, W], &[G, W]]),
    at("owner-heard", &ORPHANING, &[&[H, G, W]]),
    at("owner-buried", &KEEPERLESS, &[&[H]]),
    at("owner-buried", &KEEPERLESS, &[&[H]]).then(&[("owner-recovered", &[H]), ("owner-took-over", &[H])]),
    at("owner-half-removed", &KEEPERLESS, &[&[H]]),
];

#[test]
fn jobs_whose_keeper_is_gone_are_found() {
    run(ROWS);
}

#[test]
fn jobs_whose_keeper_is_gone_are_found_by_less() {
    run_without("pidfs,pidfd-info", ROWS);
}
