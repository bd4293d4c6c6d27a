//! What users try, through the real binary on real processes.

mod follow;
mod idle;
mod input;
mod library;
mod limits;
mod listing;
mod nested;
mod outcomes;
mod races;
mod real;
mod stop;
mod support;
mod survival;
