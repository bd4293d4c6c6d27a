//! What users try, through the real binary on real processes.

mod again;
mod ending;
mod follow;
mod idle;
mod input;
mod library;
mod library_control;
mod listing;
mod logging;
mod options;
mod outcomes;
mod pause;
mod races;
mod real;
mod secrets;
mod stop;
mod support;
mod survival;
mod waiting;
