//! The owner: its start, its turns, and what its backend has begun.

use super::ways::{
    END, KILL, LAUNCH, LEAVE, LEFTOVER, PAUSE, POLICY, REMOVE, RESTART, SILENT, STOP, TAKE_OVER,
};
use super::{G, H, Row, W, at, run};

pub(super) const STARTS: &[Row] = &[
    at("owner-store-made", &LAUNCH, &[&[H]]),
    at("owner-generation", &TAKE_OVER, &[&[H]]),
    at("owner-recovered", &TAKE_OVER, &[&[H], &[H, W], &[H, G]]),
    at("owner-took-over", &TAKE_OVER, &[&[H], &[H, W], &[H, G]]),
    at("owner-recovered", &TAKE_OVER, &[&[H]]).then(&[("owner-took-over", &[H]), ("owner-took-over", &[H])]),
    at("owner-bound", &TAKE_OVER, &[&[H]]),
    at("owner-leaving", &LEAVE, &[&[H]]),
];

pub(super) const TURNS: &[Row] = &[
    at("owner-decided", &LAUNCH, &[&[H]]),
    at("owner-decided", &END, &[&[H], &[H, W], &[H, G]]),
    at("owner-decided", &STOP, &[&[H]]),
    at("owner-decided", &PAUSE, &[&[H]]),
    at("owner-decided", &RESTART, &[&[H]]),
    at("owner-decided", &POLICY, &[&[H]]),
    at("owner-decided", &REMOVE, &[&[H]]),
    at("owner-committed", &LAUNCH, &[&[H]]),
    at("owner-committed", &END, &[&[H], &[H, W], &[H, G]]),
    at("owner-committed", &LEFTOVER, &[&[H], &[H, W], &[H, G], &[H, W, G]]),
    at("owner-committed", &STOP, &[&[H], &[H, W], &[H, G]]),
    at("owner-committed", &PAUSE, &[&[H]]),
    at("owner-committed", &RESTART, &[&[H], &[H, W]]),
    at("owner-committed", &POLICY, &[&[H], &[H, W]]),
    at("owner-committed", &REMOVE, &[&[H]]),
    at("owner-committed@2", &RESTART, &[&[H]]),
    at("owner-committed@2", &POLICY, &[&[H]]),
    at("owner-effect", &LAUNCH, &[&[H]]),
    at("owner-effect@2", &LAUNCH, &[&[H]]),
    at("owner-effect@2", &STOP, &[&[H]]),
    at("owner-effect@3", &STOP, &[&[H]]),
    at("owner-effect@2", &REMOVE, &[&[H]]),
];

pub(super) const BACKEND: &[Row] = &[
    at("owner-packed", &LAUNCH, &[&[H]]),
    at("owner-keeper-started", &LAUNCH, &[&[H], &[W], &[G], &[H, W], &[H, G]]),
    at("owner-launch-sent", &LAUNCH, &[&[H], &[W], &[G], &[H, W], &[H, G]]),
    at("owner-launch-sent", &LAUNCH, &[&[H]]).then(&[("owner-recovered", &[H])]),
    at("owner-heard", &LAUNCH, &[&[H], &[H, W]]),
    at("owner-heard", &END, &[&[H], &[H, W], &[H, G], &[H, W, G]]),
    at("owner-heard", &END, &[&[H, W, G]]).then(&[("owner-recovered", &[H])]),
    at("owner-heard", &END, &[&[H]]).then(&[("owner-took-over", &[H])]),
    at("owner-signalled", &STOP, &[&[H], &[H, W], &[H, G]]),
    at("owner-signalled", &RESTART, &[&[H]]),
    at("owner-killed", &KILL, &[&[H], &[H, W], &[H, G]]),
    at("owner-fenced-silent", &SILENT, &[&[], &[H], &[W], &[H, W], &[G], &[H, G]]),
    at("owner-acknowledged@2", &END, &[&[H], &[H, W], &[H, W, G]]),
];

#[test]
fn an_owner_killed_while_it_takes_over_is_followed_by_one_that_does() {
    run(STARTS);
}

#[test]
fn a_turn_that_is_cut_off_has_happened_or_has_not() {
    run(TURNS);
}

#[test]
fn what_the_backend_has_begun_is_taken_up() {
    run(BACKEND);
}
