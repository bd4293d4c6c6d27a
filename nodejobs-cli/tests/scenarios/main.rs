//! What users try, through the real binary on real processes.

mod outcomes;
mod support;
mod survival;
