//! What the benchmarks of all crates have in common: how long is measured, and jobs to measure with.
#![allow(dead_code, reason = "each benchmark uses its part")]

pub(crate) mod jobs;

use std::time::Duration;

use criterion::Criterion;

/// Short, so that all of them together take less than three minutes.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args()
}

/// As many as are to be there, or few where `cargo test` only looks whether a benchmark works.
pub(crate) fn many(count: usize) -> usize {
    if std::env::args().any(|argument| argument == "--bench") { count } else { count.min(1000) }
}
