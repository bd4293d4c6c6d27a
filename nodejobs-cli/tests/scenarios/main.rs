//! What users try, through the real binary on real processes.

mod follow;
mod outcomes;
mod stop;
mod support;
mod survival;
