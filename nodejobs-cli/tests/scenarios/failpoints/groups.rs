//! A job with a cgroup: whoever is killed, it is executed once, and nothing is left of its group.

use super::ways::{GROUPED, GROUPED_STOP};
use super::{G, H, Row, W, at, run};

const ROWS: &[Row] = &[
    at("owner-packed", &GROUPED, &[&[H]]),
    at("owner-launch-sent", &GROUPED, &[&[H], &[W], &[H, W], &[H, G]]),
    at("owner-heard", &GROUPED, &[&[H], &[H, W], &[H, W, G]]),
    at("owner-acknowledged", &GROUPED, &[&[H]]),
    at("worker-received", &GROUPED, &[&[H]]),
    at("worker-launched", &GROUPED, &[&[H]]),
    at("child-at-gate", &GROUPED, &[&[W]]),
    at("owner-signalled", &GROUPED_STOP, &[&[H], &[H, W]]),
];

#[test]
fn nothing_is_left_of_a_cgroup_whoever_is_killed() {
    run(ROWS);
}
