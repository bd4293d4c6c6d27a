//! Numbers that nobody can foresee, and that come again with their seed.

use std::hash::{BuildHasher as _, RandomState};

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    /// From `NODEJOBS_SEED`, or from a seed that it prints.
    pub(crate) fn new() -> Self {
        let given = std::env::var("NODEJOBS_SEED").ok();
        let given = given.map(|seed| seed.parse().expect("NODEJOBS_SEED is a number"));
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(std::process::id()));
        println!("NODEJOBS_SEED={seed}");
        Self::from_seed(seed)
    }

    pub(crate) fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
