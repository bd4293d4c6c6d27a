//! What users try, through the real binary on real processes.

mod daemon;
mod doctor;
mod follow;
mod idle;
mod input;
mod library;
mod library_calls;
mod library_events;
mod listing;
mod mistakes;
mod outcomes;
mod packaging;
mod races;
mod real;
mod schema;
mod stop;
mod support;
mod survival;
mod tokens;
