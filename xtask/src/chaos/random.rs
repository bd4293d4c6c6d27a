//! Random choices that a seed repeats: splitmix64, which needs one number of state.

use std::time::Duration;

pub(crate) struct Random(u64);

impl Random {
    /// The choices of one stream; those of different streams have nothing to do with each other.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let seed = Self(seed).next();
        Self(Self(seed ^ stream).next())
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let index = self.below(from.len() as u64);
        from[usize::try_from(index).expect("an index is smaller than a length")]
    }

    /// A number less than this.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True one time in so many.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        let microseconds = u64::try_from(most.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.next() % (microseconds + 1))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_choices_and_no_others() {
        let draw = |seed, stream| {
            let mut random = Random::new(seed, stream);
            [0; 8].map(|_| random.next())
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 1));
    }

    #[test]
    fn every_choice_comes_and_no_pause_is_too_long() {
        let mut random = Random::new(0, 0);
        let mut seen = [false; 4];
        for _ in 0..100 {
            seen[random.pick(&[0, 1, 2, 3])] = true;
            assert!(random.up_to(Duration::from_millis(2)) <= Duration::from_millis(2));
        }
        assert_eq!(seen, [true; 4]);
        assert_eq!(random.up_to(Duration::ZERO), Duration::ZERO);
    }
}
