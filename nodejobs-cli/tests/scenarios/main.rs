//! What users try, through the real binary on real processes.

mod again;
mod daemon;
mod doctor;
mod ending;
mod engine;
#[cfg(debug_assertions)]
mod failpoints;
mod follow;
mod idle;
mod input;
mod library;
mod library_calls;
mod library_control;
mod library_events;
mod library_outcomes;
mod limits;
mod listing;
mod logging;
mod mistakes;
mod nested;
mod options;
mod outcomes;
mod packaging;
mod pause;
mod races;
mod real;
mod restarts;
mod schema;
mod secrets;
mod stop;
mod stores;
mod support;
mod survival;
mod tokens;
mod victims;
mod waiting;
